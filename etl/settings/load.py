"""Lays the environment over the file, checks all of it, and names every mistake at once."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from etl.errors import UsageError
from etl.settings.ids import looks_secret, parse_ids, shorten, shown
from etl.settings.keys import known_keys, section_models
from etl.settings.model import Settings
from etl.settings.sources import (
    Written,
    find_file,
    read_environment,
    read_file,
    read_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

_EMBEDDED = "embedded:"
_PATHS = {where for where, key in known_keys().items() if key.is_path}

# What stands at (section, key) once the stronger have replaced the weaker.
_Values = dict[tuple[str, str], Written]


def load_settings(
    environ: Mapping[str, str], config: Path | None = None, *, cwd: Path | None = None
) -> Settings:
    """Read the settings: `config`, or else the file found, with the environment laid over it.

    Paths in the file are relative to its folder, those in the environment to `cwd`.

    Raises:
        UsageError: a line for each mistake: where it is, and what to write instead.
    """
    environ = _without_empty(environ)
    cwd = cwd or _present_folder()
    file = find_file(environ, config, cwd)
    from_file, mistakes = read_file(file) if file else ([], [])
    from_environment, unknown = read_environment(environ, cwd)
    mistakes += unknown
    home = environ.get("HOME")
    values: _Values = {
        (written.section, written.name): _with_absolute_paths(written, home)
        for written in [*from_file, *from_environment]
    }
    mistakes += _read_key_file(values)
    mistakes += _read_ids_file(values)
    settings = _validate(values, mistakes)
    if settings is None or mistakes:
        raise UsageError(_summary(mistakes))
    return settings


def settings_file(
    environ: Mapping[str, str], config: Path | None = None, *, cwd: Path | None = None
) -> Path | None:
    """Return the file that `load_settings` reads, None when there is none."""
    return find_file(_without_empty(environ), config, cwd or _present_folder())


def _without_empty(environ: Mapping[str, str]) -> dict[str, str]:
    """Crontabs, units and CI leave a variable out by setting it to nothing."""
    return {name: value.strip() for name, value in environ.items() if value.strip()}


def _present_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        # It was removed. What is relative to it is not there either.
        return Path("/proc/self/cwd")


def _with_absolute_paths(written: Written, home: str | None) -> Written:
    text, prefix = written.value, ""
    if not isinstance(text, str):
        return written
    if (written.section, written.name) == ("database", "url"):
        prefix = _EMBEDDED
    elif (written.section, written.name) not in _PATHS:
        return written
    path = text.removeprefix(prefix)
    if not path or not text.startswith(prefix):
        return written
    if home and path.startswith("~/"):
        # Not Path.expanduser, which asks os.environ.
        return written._replace(value=f"{prefix}{Path(home, path[2:])}")
    return written._replace(value=f"{prefix}{written.folder / path}")


def _read_key_file(values: _Values) -> list[str]:
    named = values.get(("api", "api_key_file"))
    if named is None or not _is_path(named.value) or ("api", "key") in values:
        return []
    file = Path(str(named.value))
    try:
        text = read_text(file)
        status = file.stat()
    except ValueError as exc:
        if (
            looks_secret(str(file).removeprefix(f"{named.folder}/"))
            and named.folder in file.parents
        ):
            # The key itself where its file's name belongs: the likeliest of mistakes.
            return [f"{named.where}: {exc}; if this is the key itself, put it into a file"]
        return [f"{named.where}: {file}: {exc}"]
    # As libpq judges the keys that it reads: root's may be readable by a group, the only way to
    # give one to another user. Credentials of systemd and secrets of Kubernetes come like that.
    most = 0o640 if status.st_uid == 0 else 0o600
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~most:
        return [f"{named.where}: others than its owner can open it; run: chmod {most:o} {file}"]
    values["api", "key"] = Written("api", "key", text.strip(), f"{named.where}: {file}", file)
    return []


def _read_ids_file(values: _Values) -> list[str]:
    named = values.get(("personas", "ids_file"))
    if named is None or not _is_path(named.value):
        return []
    file = Path(str(named.value))
    try:
        listed = parse_ids(read_text(file), str(file))
    except ValueError as exc:
        return [f"{named.where}: {file}: {exc}"]
    except UsageError as exc:
        return str(exc).split("\n")
    ids = values.get(("personas", "ids"), named._replace(name="ids", value=[]))
    if isinstance(ids.value, list):
        # Behind the others, so that those keep their positions in a message.
        values["personas", "ids"] = ids._replace(value=[*ids.value, *listed])
    return []


def _is_path(value: object) -> bool:
    """Leave what is no path to the validation, which says so."""
    return isinstance(value, str) and value != "" and "\0" not in value


def _validate(values: _Values, mistakes: list[str]) -> Settings | None:
    """Build the settings, or add what is wrong with the values to `mistakes`."""
    tables: dict[str, dict[str, Any]] = {section: {} for section in section_models()}
    for (section, name), written in values.items():
        tables[section][name] = written.value
    try:
        return Settings.model_validate(tables)
    except ValidationError as exc:
        found: dict[str, list[str]] = {}
        for error in exc.errors(include_url=False):
            table, key, *position = error["loc"]
            where = values[str(table), str(key)].where
            index = f"[{position[0]}]" if position else ""
            found.setdefault(where, []).append(f"{where}{index}: {_problem(error)}")
        for where, problems in found.items():
            mistakes += shorten(problems, where)
        return None


def _problem(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    key = known_keys()[str(error["loc"][0]), str(error["loc"][1])]
    # A secret of the wrong type is still a secret.
    instead = "" if key.is_secret else f", not {shown(error['input'])}"
    return f"write {key.expects}{instead}"


def _summary(mistakes: list[str]) -> str:
    if len(mistakes) == 1:
        return mistakes[0]
    return "\n  ".join([f"{len(mistakes)} mistakes in the settings:", *mistakes])
