"""Where settings are written: the file and the environment. Knows every name, checks no value."""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from etl.settings.ids import shorten, shown
from etl.settings.keys import ENVIRONMENT_PREFIX, Key, known_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONFIG_NAME = "persona-etl.toml"
CONFIG_VARIABLE = "PERSONA_ETL_CONFIG"
API_KEY_VARIABLE = "ANAM_API_KEY"
# What the vendor's documentation calls them beats our own names.
_VENDOR_VARIABLES = {API_KEY_VARIABLE: ("api", "key"), "ANAM_API_URL": ("api", "base_url")}
# For test suites, so that a developer's test database is no mistake in the settings.
_TEST_PREFIX = "PERSONA_ETL_TEST_"
_KEY_ITSELF = {("api", "key"), ("api", "api_key")}
# Ids of more than a million personas; what is larger, or has no end, is the wrong file.
_LARGEST = 64 * 2**20
_FLAGS = {"true": True, "1": True, "yes": True, "on": True}
_FLAGS |= {"false": False, "0": False, "no": False, "off": False}
_NO_KEY_HERE = (
    f"the API key itself is not set here; set {API_KEY_VARIABLE}, "
    "or put it into a file of its own and name that in api.api_key_file"
)


class Written(NamedTuple):
    """One value, not yet checked: where it stands, and what its paths are relative to."""

    section: str
    name: str
    value: object
    where: str
    folder: Path


def find_file(environ: Mapping[str, str], config: Path | None, cwd: Path) -> Path | None:
    """Return the file that is named, there or not, else the first of the usual ones that is."""
    if config is not None:
        return cwd / config
    if named := environ.get(CONFIG_VARIABLE):
        return cwd / named
    usual = [cwd / CONFIG_NAME]
    # The XDG specification says to ignore a relative one.
    if os.path.isabs(folder := environ.get("XDG_CONFIG_HOME", "")):  # noqa: PTH117  a text
        usual.append(Path(folder, "persona-etl", CONFIG_NAME))
    elif home := environ.get("HOME"):
        usual.append(Path(home, ".config", "persona-etl", CONFIG_NAME))
    # os.path, as Path.is_file raises where a folder may not be entered, like root's under cron.
    return next((file for file in usual if os.path.isfile(file)), None)  # noqa: PTH113  raises nothing


def read_file(file: Path) -> tuple[list[Written], list[str]]:
    """Read the values of the file, and what is wrong with it or with its names."""
    try:
        tables = _read_toml(file)
    except ValueError as exc:
        return [], [f"{file}: {exc}"]
    known = known_keys()
    sections = {section for section, _ in known}
    written: list[Written] = []
    mistakes: list[str] = []
    for section, table in tables.items():
        if section not in sections:
            mistakes.append(f"{file}: {_bare(section)}: {_unknown_section(section, known)}")
        elif not isinstance(table, dict):
            mistakes.append(f"{file}: {section}: write it as a table, [{section}]")
        else:
            for name, value in table.items():
                where = f"{file}: {section}.{_bare(name)}"
                if (section, name) in known:
                    written.append(Written(section, name, value, where, file.parent))
                else:
                    mistakes.append(f"{where}: {_unknown_key(section, name, known)}")
    return written, shorten(mistakes, str(file))


def read_environment(environ: Mapping[str, str], cwd: Path) -> tuple[list[Written], list[str]]:
    """Read the values of the environment, strongest last, and the names that nobody knows."""
    keys = {key.variable: key for key in known_keys().values()}
    written: list[Written] = []
    mistakes: list[str] = []
    for variable in sorted(environ):
        text = environ[variable]
        if key := keys.get(variable):
            written.append(Written(key.section, key.name, _typed(text, key), variable, cwd))
        elif (
            variable.startswith(ENVIRONMENT_PREFIX)
            and variable != CONFIG_VARIABLE
            and not variable.startswith(_TEST_PREFIX)
        ):
            mistakes.append(f"{_bare(variable)}: {_unknown_variable(variable, keys)}")
    for variable, (section, name) in _VENDOR_VARIABLES.items():
        if variable in environ:
            written.append(Written(section, name, environ[variable], variable, cwd))
    return written, shorten(mistakes, "the environment")


def _typed(text: str, key: Key) -> object:
    """What a variable's text stands for, where the file would have no string."""
    if key.is_list:
        return [part for part in text.split(",") if part.strip()]
    return _FLAGS.get(text.lower(), text) if key.is_flag else text


def read_text(file: Path) -> str:
    """Read a file that the settings name, a pipe that somebody writes to included.

    Raises:
        ValueError: it can't be read; the message says why, without the file's name.
    """
    try:
        # Else the opening of a pipe would wait for a writer, who may never come.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as opened:  # noqa: PTH123  a descriptor has no path
            os.set_blocking(descriptor, True)
            content = opened.read(_LARGEST + 1)
            if not content and stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                raise ValueError("a pipe that nobody writes to; name a file")
        if len(content) > _LARGEST:
            raise ValueError(f"larger than {_LARGEST >> 20} MiB; name another file")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ValueError("there is no such file; name one that exists") from None
    except OSError as exc:
        raise ValueError(
            f"cannot be read ({exc.strerror}); name a file that this user may read"
        ) from exc
    except UnicodeDecodeError as exc:
        raise ValueError(f"not UTF-8 (byte {exc.start}); save it as UTF-8") from None


def _read_toml(file: Path) -> dict[str, object]:
    text = read_text(file)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"not valid TOML: {exc}") from exc
    except (RecursionError, ValueError):
        # Python's own limits, in words that would not help here.
        raise ValueError("nested too deeply, or a number too long; write plain values") from None


def _unknown_section(section: str, known: Mapping[tuple[str, str], Key]) -> str:
    homes = [key.section for key in known.values() if key.name == section]
    if homes:
        return f"a key outside its section; write it below [{homes[0]}]"
    sections = dict.fromkeys(section for section, _ in known)
    return f"unknown section; {_nearest(section, sections)}"


def _unknown_key(section: str, name: str, known: Mapping[tuple[str, str], Key]) -> str:
    if (section, name) in _KEY_ITSELF:
        return _NO_KEY_HERE
    homes = [key.section for key in known.values() if key.name == name]
    if homes:
        return f"a key of another section; write it below [{homes[0]}]"
    return f"unknown key; {_nearest(name, [key for home, key in known if home == section])}"


def _unknown_variable(variable: str, keys: Mapping[str, Key]) -> str:
    section, _, name = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
    if (section, name) in _KEY_ITSELF:
        return _NO_KEY_HERE
    nearest = difflib.get_close_matches(variable, [*keys, CONFIG_VARIABLE], n=1)
    return (
        f"unknown variable; did you mean {nearest[0]}?"
        if nearest
        else (f"unknown variable; they are named {ENVIRONMENT_PREFIX}<SECTION>__<KEY>")
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known := list(known), n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"


def _bare(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name) else shown(name)
