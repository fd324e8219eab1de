"""What the folder of local revisions says, read off the files' text: none of them is run here.

A team's own revisions for a target, `local_0001` and on, one after the other. Each carries the
lines that it adds to the map in a constant, `LINES`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from etl.errors import UsageError
from etl.map import TYPES, extended, lines_of
from etl.settings.sources import read_text
from etl.tables import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from etl.map import Line

BASE: Final = "base"
"""Before the first revision, as Alembic calls it."""

_ID = re.compile(r"local_\d{4,}")
_TEXTS = ("table_name", "column_name", "kind", "path", "type", "comment")
_KEYS = dict.fromkeys([*_TEXTS, "json_types"]).keys()


@dataclass(frozen=True, slots=True)
class LocalRevision:
    """One file of the folder, and the lines that it adds to the map."""

    revision: str
    down_revision: str | None
    file: Path
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class LocalHistory:
    """The folder's revisions, the oldest first, each on top of the one before it."""

    folder: Path
    revisions: tuple[LocalRevision, ...]

    @property
    def head(self) -> str:
        """The newest revision, or `base`."""
        return self.revisions[-1].revision if self.revisions else BASE

    @property
    def lines(self) -> tuple[Line, ...]:
        """What all of them add."""
        return tuple(line for revision in self.revisions for line in revision.lines)

    def between(self, lower: str, upper: str) -> tuple[LocalRevision, ...]:
        """Those after `lower`, up to and with `upper`; none unless `upper` is the newer."""
        return self.revisions[self._place(lower) : self._place(upper)]

    def knows(self, revision: str) -> bool:
        """Whether there is a file for it."""
        return revision in (BASE, *(one.revision for one in self.revisions))

    def _place(self, revision: str) -> int:
        return [BASE, *(one.revision for one in self.revisions)].index(revision)


def read_history(folder: Path) -> LocalHistory:
    """Reads the folder, and runs nothing of it. One that is not there yet has no revisions.

    Raises:
        UsageError: It can't be read, has other .py files, or they are not one line of revisions.
    """
    try:
        files = sorted(file for file in folder.iterdir() if _is_read_by_alembic(file.name))
    except FileNotFoundError:
        files = []
    except OSError as exc:
        told = f"migrations.local_dir: {folder}: {exc.strerror}"
        raise UsageError(f"{told}; name the folder of your revisions") from exc
    revisions = _in_order(folder, [_read(file) for file in files])
    history = LocalHistory(folder, revisions)
    for line in history.lines:
        try:
            extended((line,))
        except ValueError as exc:
            raise UsageError(f"{folder}: {line.path}: {exc}; correct its LINES") from exc
    return history


def lines_in(folder: Path) -> tuple[Line, ...]:
    """The lines of all local revisions. Raises UsageError when the folder is no history."""
    return read_history(folder).lines


def _is_read_by_alembic(name: str) -> bool:
    return name.endswith(".py") and not name.startswith(("__init__", ".#"))


def _read(file: Path) -> LocalRevision:
    try:
        return _revision(file, _constants(ast.parse(read_text(file))))
    except SyntaxError as exc:
        raise UsageError(f"{file}: line {exc.lineno}: {exc.msg}; correct it") from exc
    except (RecursionError, MemoryError) as exc:
        raise UsageError(f"{file}: nested too deeply; correct it") from exc
    except ValueError as exc:
        raise UsageError(f"{file}: {exc}") from exc


def _revision(file: Path, found: Mapping[str, object]) -> LocalRevision:
    revision, before = found.get("revision"), found.get("down_revision")
    if not isinstance(revision, str) or not _ID.fullmatch(revision):
        raise ValueError("no local revision; keep nothing else in this folder")
    if not isinstance(before, str | None) or found.get("depends_on"):
        raise ValueError(f"{revision} follows more than one revision; name one, or None")
    lines = lines_of(_checked(row) for row in _listed(found.get("LINES", [])))
    return LocalRevision(revision, before, file, lines)


def _constants(module: ast.Module) -> dict[str, object]:
    """The names that tell about a revision, with their values."""
    found: dict[str, object] = {}
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        if name in {"revision", "down_revision", "depends_on", "LINES"}:
            try:
                found[name] = ast.literal_eval(value)
            except (ValueError, TypeError) as exc:
                raise ValueError(f"{name} is no plain value; write it out") from exc
    return found


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError("LINES is no list; write one of dicts")  # noqa: TRY004  told with the rest
    return value


def _checked(row: object) -> dict[str, Any]:
    """A line as `local_columns` has it, whoever wrote the file."""
    if not isinstance(row, dict) or row.keys() != _KEYS:
        raise ValueError(f"a line of LINES has other keys than {', '.join(_KEYS)}")
    json_types = row["json_types"]
    if not isinstance(json_types, list | tuple) or not all(
        isinstance(value, str) and "\0" not in value
        for value in (*(row[key] for key in _TEXTS), *json_types)
    ):
        raise ValueError("a line of LINES has a value that is no text")
    for key, known in (("kind", KINDS), ("type", TYPES)):
        if row[key] not in known:
            raise ValueError(f"LINES: {key} {row[key]!r}; write one of {', '.join(known)}")
    return row


def _in_order(folder: Path, found: Sequence[LocalRevision]) -> tuple[LocalRevision, ...]:
    """From the base to the newest. Raises UsageError where that is not one line."""
    by_id: dict[str, LocalRevision] = {}
    after: dict[str | None, LocalRevision] = {}
    for one in found:
        other = by_id.setdefault(one.revision, one)
        if other is not one:
            told = f"{other.file.name} and {one.file.name} are both {one.revision}"
            raise UsageError(f"{folder}: {told}; give one another id")
        other = after.setdefault(one.down_revision, one)
        if other is not one:
            told = f"{other.file.name} and {one.file.name} both follow {one.down_revision or BASE}"
            raise UsageError(f"{folder}: {told}; let one follow the other")
    for one in found:
        if one.down_revision not in (None, *by_id):
            told = f"{one.file} follows {one.down_revision}, which is not in {folder}"
            raise UsageError(f"{told}; get its file from whoever wrote it")
    ordered: list[LocalRevision] = []
    while following := after.pop(ordered[-1].revision if ordered else None, None):
        ordered.append(following)
    if after:
        told = ", ".join(sorted(one.file.name for one in after.values()))
        raise UsageError(f"{folder}: {told} follow each other; let the first follow None")
    return tuple(ordered)
