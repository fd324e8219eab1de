"""What the folder of local revisions says, read as text: none of them is run here.

A team's own revisions for a target, `local_0001` and on, one after the other. Each carries the
lines that it adds to the map in a constant, `LINES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl.errors import UsageError
from etl.map import is_shipped, lines_of, table_around
from etl.store.revision_files import BASE, read_revisions

if TYPE_CHECKING:
    from pathlib import Path

    from etl.map import Line
    from etl.store.revision_files import RevisionFile

_ID = re.compile(r"local_\d{4,}")
_TEXTS = ("table_name", "column_name", "kind", "path", "type", "comment")
_KEYS = dict.fromkeys([*_TEXTS, "json_types"]).keys()


@dataclass(frozen=True, slots=True)
class LocalRevision:
    """One file of the folder, and the lines that it adds to the map."""

    revision: str
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
        found = read_revisions(folder)
    except FileNotFoundError:
        found = ()
    except OSError as exc:
        told = f"migrations.local_dir: {folder}: {exc.strerror}"
        raise UsageError(f"{told}; name the folder of your revisions") from exc
    history = LocalHistory(folder, tuple(map(_local, found)))
    for line in history.lines:
        try:
            if not is_shipped(line):
                table_around(line)
        except ValueError as exc:
            raise UsageError(f"{folder}: {line.path}: {exc}; correct its LINES") from exc
    return history


def _local(found: RevisionFile) -> LocalRevision:
    if not _ID.fullmatch(found.revision):
        raise UsageError(f"{found.file}: no local revision; keep nothing else in this folder")
    try:
        lines = lines_of(_checked(row) for row in _listed(found.constants.get("LINES", [])))
    except ValueError as exc:
        raise UsageError(f"{found.file}: {exc}") from exc
    return LocalRevision(found.revision, found.file, lines)


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
    return row
