"""`check`: what is right and wrong, before a run finds out."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.logs import on_one_line
from etl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.jobs.check import Line
    from etl.settings import Settings

EXAMPLES = """\b
Examples:
  persona-etl check
  persona-etl check --json
  persona-etl -q check && persona-etl sync
"""


@click.command("check", epilog=EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@pass_invocation
def command(invocation: Invocation, *, as_json: bool) -> int:
    """Say what is right and wrong with settings, key, API and database.

    A line each, and the exit code of the worst. Asks the API for one persona, and writes nothing.
    """
    # Here, so that `check --help` does not wait for Postgres and HTTP libraries.
    from etl.jobs.check import exit_code  # noqa: PLC0415

    lines = []
    for line in _look(invocation):
        lines.append(line)
        if not as_json and (line.exit_code or not invocation.quiet):
            click.echo(f"{line.verdict:<7}{line.subject:<12}{on_one_line(line.told)}")
    code = exit_code(lines)
    if as_json:
        told = [{"subject": x.subject, "verdict": x.verdict, "message": x.told} for x in lines]
        click.echo(json.dumps({"exit_code": code, "checks": told}))
    return code


def _look(invocation: Invocation) -> Iterator[Line]:
    from etl.jobs.check import SUBJECTS, check, ok, unknown, wrong  # noqa: PLC0415

    try:
        settings = invocation.settings()
    except UsageError as exc:
        # One mistake is a line; of several the first line counts them.
        first, *others = str(exc).split("\n")
        for mistake in others or [first]:
            yield wrong("settings", mistake.strip(), exc.exit_code)
        for subject in SUBJECTS[1:]:
            yield unknown(subject, "not checked: the settings have to be right first")
        return
    yield ok("settings", f"{_file(invocation)}, {_whom(settings)}")
    yield from check(settings, os.environ, key_from=_key_from(settings))


def _file(invocation: Invocation) -> str:
    from etl.settings import settings_file  # noqa: PLC0415

    file = settings_file(os.environ, invocation.config)
    if file is None:
        return "no file, the environment alone"
    # In this folder or below; elsewhere, or where this folder was removed, the path says it all.
    with suppress(ValueError, FileNotFoundError):
        return f"./{file.relative_to(Path.cwd())}"
    return str(file)


def _whom(settings: Settings) -> str:
    count = len(settings.personas.ids)
    told = f"{count} persona{'' if count == 1 else 's'}"
    if settings.personas.discover:
        return f"{told} and all that the API lists" if count else "all that the API lists"
    return told if count else "no personas: set ids or discover, or tell sync"


def _key_from(settings: Settings) -> str:
    from etl.settings import API_KEY_VARIABLE  # noqa: PLC0415

    named = os.environ.get(API_KEY_VARIABLE, "").strip()
    return f"from {API_KEY_VARIABLE if named else settings.api.api_key_file}"
