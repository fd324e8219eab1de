"""Revisions as their files tell of them, read as text: none of them is run here.

The release's in a checkout and a team's own alike: one line, each on top of the one before it.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from etl.errors import UsageError
from etl.settings.sources import read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BASE: Final = "base"
"""Before the first revision, as Alembic calls it."""

_CONSTANTS = {"revision", "down_revision", "depends_on", "LINES"}


@dataclass(frozen=True, slots=True)
class RevisionFile:
    """A revision, and the constants of its file that tell about it."""

    revision: str
    down_revision: str | None
    file: Path
    constants: Mapping[str, object]


def read_revisions(folder: Path) -> tuple[RevisionFile, ...]:
    """The revisions in a folder, from the base to the newest. Alembic reads the same files.

    Raises:
        OSError: The folder itself can't be read.
        UsageError: It has other .py files, or they are not one line of revisions.
    """
    files = sorted(file for file in folder.iterdir() if _is_read_by_alembic(file.name))
    return _in_order(folder, [_read(file) for file in files])


def _is_read_by_alembic(name: str) -> bool:
    return name.endswith(".py") and not name.startswith(("__init__", ".#"))


def _read(file: Path) -> RevisionFile:
    try:
        found = _constants(read_text(file))
    except SyntaxError as exc:
        raise UsageError(f"{file}: line {exc.lineno}: {exc.msg}; correct it") from exc
    except (RecursionError, MemoryError) as exc:
        raise UsageError(f"{file}: nested too deeply; correct it") from exc
    except ValueError as exc:
        raise UsageError(f"{file}: {exc}") from exc
    revision, before = found.get("revision"), found.get("down_revision")
    if not isinstance(revision, str):
        raise UsageError(f"{file}: no revision; keep nothing else in this folder")
    if not isinstance(before, str | None) or found.get("depends_on"):
        told = f"{revision} follows more than one revision; name one, or None"
        raise UsageError(f"{file}: {told}")
    return RevisionFile(revision, before, file, found)


# A run asks for the head a few times, and parsing is most of it.
@lru_cache(maxsize=64)
def _constants(source: str) -> Mapping[str, object]:
    """The names that tell about a revision, with their values."""
    found: dict[str, object] = {}
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        if name in _CONSTANTS:
            try:
                found[name] = ast.literal_eval(value)
            except (ValueError, TypeError) as exc:
                raise ValueError(f"{name} is no plain value; write it out") from exc
    return found


def _in_order(folder: Path, found: Sequence[RevisionFile]) -> tuple[RevisionFile, ...]:
    """From the base to the newest. Raises UsageError where that is not one line."""
    by_id: dict[str, RevisionFile] = {}
    after: dict[str | None, RevisionFile] = {}
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
    ordered: list[RevisionFile] = []
    while following := after.pop(ordered[-1].revision if ordered else None, None):
        ordered.append(following)
    if after:
        told = ", ".join(sorted(one.file.name for one in after.values()))
        raise UsageError(f"{folder}: {told} follow each other; let the first follow None")
    return tuple(ordered)
