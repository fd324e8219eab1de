"""`init`: writes the settings file, commented, from the settings' own declarations."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etl.cli.invocation import Invocation, pass_invocation
from etl.errors import UsageError

if TYPE_CHECKING:
    from etl.settings import Key

_HEAD = """\
# Settings of persona-etl. Take the # off a line to change it: it shows the default, or an example
# where there is none. Each key is also a variable, PERSONA_ETL_<SECTION>__<KEY>, which beats this
# file. The API key does not belong here: set ANAM_API_KEY or api_key_file. Paths are relative to
# this file's folder.
"""
_NEXT_STEPS = """\
Wrote {file}. Next:
  1. In it, set ids, or discover = true, below [personas] and url below [database].
  2. Set ANAM_API_KEY, or write the key to a file, chmod 600 it and name it in api_key_file.
  3. persona-etl check
  4. persona-etl migrate
  5. persona-etl sync"""

EXAMPLES = """\b
Examples:
  persona-etl init
  persona-etl --config /etc/persona-etl/persona-etl.toml init
"""


@click.command("init", epilog=EXAMPLES)
@pass_invocation
def command(invocation: Invocation) -> None:
    """Write a commented persona-etl.toml.

    Goes to --config or PERSONA_ETL_CONFIG where given, else to the current folder. A file that is
    already there is left alone.
    """
    # Here, so that `init --help` does not wait for pydantic.
    from etl.settings import CONFIG_NAME, CONFIG_VARIABLE  # noqa: PLC0415  spares --help

    file = invocation.config or Path(os.environ.get(CONFIG_VARIABLE) or CONFIG_NAME)
    _write_new(file, commented_file())
    if not invocation.quiet:
        click.echo(_NEXT_STEPS.format(file=file))


def commented_file() -> str:
    """Render every section and key, all keys commented out."""
    from etl.settings import known_keys, section_models  # noqa: PLC0415  spares --help

    lines = [_HEAD]
    for section, model in section_models().items():
        lines += [f"# {model.__doc__}", f"[{section}]"]
        for (home, name), key in known_keys().items():
            if home == section:
                lines += [f"# {_explanation(key)}", f"#{name} = {_as_toml(_shown_value(key))}"]
        lines.append("")
    return "\n".join(lines)


def _explanation(key: Key) -> str:
    return key.description if key.example is None else f"{key.description} No default."


def _shown_value(key: Key) -> object:
    return key.default if key.example is None else key.example


def _as_toml(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    # For the plain strings, booleans and lists of strings here, JSON is TOML.
    return json.dumps(value)


def _write_new(file: Path, text: str) -> None:
    try:
        # Its owner's only, as the database's password may be put in.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(
            f"{file} is already there and was left alone; remove it, or name another with --config"
        ) from None
    except OSError as exc:
        raise UsageError(_unwritable(file, exc)) from exc
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as exc:
        # Half of a file would be in the way of the next `init`.
        file.unlink(missing_ok=True)
        raise UsageError(_unwritable(file, exc)) from exc


def _unwritable(file: Path, exc: OSError) -> str:
    return f"{file}: cannot be written ({exc.strerror}); mend that, or name another with --config"
