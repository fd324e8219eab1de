"""Writes proposed revisions: into a checkout with the map's lines, or into a folder of one's own.

Shown, never applied: `migrate` does that. All that belongs together is there in the end, or
nothing of it; no revision is ever written over.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl.errors import UsageError
from etl.proposal.header import slug
from etl.proposal.local_revision import local_revision_text
from etl.proposal.revision import revision_text
from etl.proposal.source import with_lines
from etl.store.local_history import read_history
from etl.store.revision_files import BASE, read_revisions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from etl.proposal.model import Proposal


@dataclass(frozen=True, slots=True)
class Written:
    """A revision, and the files that were written or changed, its own first."""

    revision: str
    files: tuple[Path, ...]


def write_to_checkout(proposals: Sequence[Proposal], checkout: Path, now: datetime) -> Written:
    """A revision after the head, and the lines in `etl/tables.py`. At least one proposal.

    Raises:
        UsageError: It can't be written, or the checkout is not as we know it. Nothing was changed.
    """
    versions, tables = checkout / "migrations" / "versions", checkout / "etl" / "tables.py"
    before = _read(tables)
    after = with_lines(before, proposals)
    with _told(versions):
        found = [each.revision for each in read_revisions(versions)]
    if not found:
        raise UsageError(f"{versions} has no revisions; name the folder of a checkout")
    revision = f"{_next_number(found):04}"
    file = versions / f"{now:%Y%m%d}_{revision}_{slug(proposals)}.py"
    with _written(file, revision_text(proposals, revision, found[-1])):
        if _read(tables) != before:
            raise UsageError(f"{tables} was changed just now; run it again")
        with _told(tables):
            _replace(tables, after)
    return Written(revision, (file, tables))


def write_to_folder(proposals: Sequence[Proposal], folder: Path, now: datetime) -> Written:
    """A revision after the last one in the folder, which is made. At least one proposal.

    Raises:
        UsageError: It can't be written, or the folder is no history. Nothing was changed.
    """
    history = read_history(folder)
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
    revision = f"local_{_next_number(each.revision for each in history.revisions):04}"
    file = folder / f"{now:%Y%m%d}_{revision}_{slug(proposals)}.py"
    head = None if history.head == BASE else history.head
    with _written(file, local_revision_text(proposals, revision, head)):
        return Written(revision, (file,))


def _next_number(revisions: Iterable[str]) -> int:
    """The one after all of theirs."""
    found = (re.search(r"[0-9]+$", revision) for revision in revisions)
    return max((int(number[0]) for number in found if number), default=0) + 1


@contextmanager
def _written(file: Path, text: str) -> Iterator[None]:
    """A new file, that goes again when the block fails."""
    with _told(file):
        part = _part_of(file, text)
        try:
            _named(part, file)
        finally:
            part.unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _named(part: Path, file: Path) -> None:
    """Gives it its name, unless that is taken: by who else proposes at this moment."""
    try:
        os.link(part, file)
    except FileExistsError:
        raise
    except OSError:
        # Not every file system has links. There it may be empty when we are killed right here.
        file.touch(exist_ok=False)
        part.replace(file)


def _replace(file: Path, text: str) -> None:
    """The whole text or what was there before, also when the disk is full or we are killed."""
    target = file.resolve()
    part = _part_of(target, text)
    try:
        shutil.copymode(target, part)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _part_of(file: Path, text: str) -> Path:
    """The text, safe on the disk, under a name that nobody reads, beside where it is to stand."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


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
