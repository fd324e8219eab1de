"""Writes proposed revisions: into a checkout with the map's lines, or into a folder of one's own.

Shown, never applied: `migrate` does that. All that belongs together is there in the end, or
nothing of it; no revision is ever written over.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl.errors import UsageError
from etl.proposal.header import slug
from etl.proposal.local_revision import local_revision_text
from etl.proposal.revision import revision_text
from etl.proposal.source import with_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from etl.proposal.model import Proposal


@dataclass(frozen=True, slots=True)
class Written:
    """A revision, and the files that were written or changed, its own first."""

    revision: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _History:
    """The revisions in a folder: the last one, and the number after all of theirs."""

    head: str | None
    next_number: int


def write_to_checkout(proposals: Sequence[Proposal], checkout: Path, now: datetime) -> Written:
    """A revision after the head, and the lines in `etl/tables.py`. At least one proposal.

    Raises:
        UsageError: It can't be written, or the checkout is not as we know it. Nothing was changed.
    """
    versions, tables = checkout / "migrations" / "versions", checkout / "etl" / "tables.py"
    before = _read(tables)
    after = with_lines(before, proposals)
    history = _history(versions)
    if history.head is None:
        raise UsageError(f"{versions} has no revisions; name the folder of a checkout")
    revision = f"{history.next_number:04}"
    file = versions / f"{now:%Y%m%d}_{revision}_{slug(proposals)}.py"
    with _written(file, revision_text(proposals, revision, history.head)):
        if _read(tables) != before:
            raise UsageError(f"{tables} was changed just now; run it again")
        with _told(tables):
            _replace(tables, after)
    return Written(revision, (file, tables))


def write_to_folder(proposals: Sequence[Proposal], folder: Path, now: datetime) -> Written:
    """A revision after the last one in the folder, which is made. At least one proposal.

    Raises:
        UsageError: It can't be written, or a file there is no revision. Nothing was changed.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name another in migrations.local_dir")
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    history = _history(folder)
    revision = f"local_{history.next_number:04}"
    file = folder / f"{now:%Y%m%d}_{revision}_{slug(proposals)}.py"
    with _written(file, local_revision_text(proposals, revision, history.head)):
        return Written(revision, (file,))


def _history(folder: Path) -> _History:
    """Read as text: nothing in the folder is run for this."""
    with _told(folder):
        files = sorted(folder.iterdir())
    follows: dict[str, tuple[str, ...]] = {}
    for file in files:
        if file.suffix != ".py" or file.name.startswith((".", "__")):
            continue
        revision, before = _revision(file)
        if revision in follows:
            raise UsageError(f"{file}: another file is revision {revision} too; remove one")
        follows[revision] = before
    followed = {each for before in follows.values() for each in before}
    if missing := sorted(followed - follows.keys()):
        raise UsageError(f"{folder}: revision {missing[0]} is missing; put its file back")
    heads = sorted(follows.keys() - followed)
    if follows and len(heads) != 1:
        raise UsageError(
            f"{folder} has {len(heads)} last revisions ({', '.join(heads)}); it needs one:"
            " let down_revision of one name the other"
        )
    numbers = [int(found[0]) for each in follows if (found := re.search(r"[0-9]+$", each))]
    return _History(heads[0] if heads else None, max(numbers, default=0) + 1)


def _revision(file: Path) -> tuple[str, tuple[str, ...]]:
    """What a revision calls itself, and which ones it follows."""
    try:
        tree = ast.parse(_read(file))
    except (SyntaxError, ValueError) as exc:
        raise UsageError(f"{file} is no Python ({exc}); mend or remove it") from None
    said: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id in {"revision", "down_revision"}:
                said[target.id] = (
                    value.value if isinstance(value, ast.Constant) else ast.unparse(value)
                )
    revision, before = said.get("revision"), said.get("down_revision")
    if not isinstance(revision, str) or not isinstance(before, str | None):
        raise UsageError(f"{file} is no revision: it does not say which; mend or remove it")
    return revision, () if before is None else (before,)


@contextmanager
def _written(file: Path, text: str) -> Iterator[None]:
    """A new file, that goes again when the block fails."""
    with _told(file):
        # Claims the name: who else proposes at this moment fails.
        file.touch(exist_ok=False)
    try:
        with _told(file):
            _replace(file, text)
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _replace(file: Path, text: str) -> None:
    """The whole text or what was there before, also when the disk is full or we are killed."""
    target = file.resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("x", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        shutil.copymode(target, part)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _read(file: Path) -> str:
    with _told(file):
        try:
            # Bytes, so that its line ends stay what they are.
            return file.read_bytes().decode()
        except UnicodeDecodeError:
            raise UsageError(f"{file} is not UTF-8; mend or remove it") from None


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """The system's refusals, as what a person can do something about."""
    try:
        yield
    except FileExistsError:
        raise UsageError(f"{path} is there already and was left alone; run it again") from None
    except OSError as exc:
        raise UsageError(
            f"{path}: {exc.strerror}; nothing was written, mend that and run it again"
        ) from exc
