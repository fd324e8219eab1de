"""Which files the given paths come to, and how a path is shown to people.

Reads no content.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STDIN = "-"

_ENDINGS = (".json", ".ndjson", ".jsonl")


@dataclass(frozen=True, slots=True)
class File:
    """A file to read, or a place where one can't be reached."""

    path: str
    size: int | None
    """None for a stream: standard input, a pipe, a device."""
    is_named: bool
    """Given as an argument, rather than found in a folder."""
    problem: str | None = None


def walk(paths: Sequence[str]) -> Iterator[File]:
    """The files, those of a folder below it and by name, hidden ones and other names left out.

    Looks as it goes, so that a folder of millions is never held. A folder that can be reached in
    several ways, by links, is entered once. What is no regular file counts only if it is named.
    """
    for path in paths:
        try:
            status = os.stat(path) if path != STDIN else None  # noqa: PTH116  a name as it was given
        except OSError as exc:
            yield File(path, 0, is_named=True, problem=_reason(exc))
            continue
        if status is not None and stat.S_ISDIR(status.st_mode):
            yield from _below(path)
        else:
            is_regular = status is not None and stat.S_ISREG(status.st_mode)
            size = status.st_size if status is not None and is_regular else None
            yield File(path, size, is_named=True)


def check_paths(paths: Sequence[str]) -> int | None:
    """Whether there is something to read at each path; how many bytes in all, if that is known.

    Raises UsageError for a path that does not exist and for a folder without a file to read.
    """
    if paths.count(STDIN) > 1:
        raise UsageError(f"{STDIN}: standard input can be read once only")
    total: int | None = 0
    for path in paths:
        if path != STDIN and not os.path.exists(path) and _is_missing(path):  # noqa: PTH110  a name as it was given
            raise UsageError(f"{printable(path)}: no such file or folder; check the path")
        is_empty = True
        for file in walk([path]):
            is_empty = False
            total = None if total is None or file.size is None else total + file.size
        if is_empty:
            kinds = ", ".join(f"*{ending}" for ending in _ENDINGS)
            raise UsageError(
                f"{printable(path)}: nothing to read in this folder; files there are found by"
                f" their names: {kinds}, or these with .gz"
            )
    return total


def may_hold_lines_only(path: str) -> bool:
    """Whether the name promises a value a line."""
    return path.lower().removesuffix(".gz").endswith((".ndjson", ".jsonl"))


def printable(path: str) -> str:
    """A path for people: bytes that are no text, and what would steer a terminal, as escapes."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _below(folder: str) -> Iterator[File]:
    # A stack of our own: folders nest deeper than Python's calls.
    waiting = [folder]
    entered: set[tuple[int, int]] = set()
    while waiting:
        path = waiting.pop()
        try:
            status = os.stat(path)  # noqa: PTH116  a name as it was found
            if stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) not in entered:
                    entered.add((status.st_dev, status.st_ino))
                    names = sorted(name for name in os.listdir(path) if name[0] != ".")  # noqa: PTH208  as above
                    waiting += [os.path.join(path, name) for name in reversed(names)]  # noqa: PTH118  as above
            elif stat.S_ISREG(status.st_mode) and _is_wanted(path):
                yield File(path, status.st_size, is_named=False)
        except OSError as exc:
            # Editors leave links about that lead nowhere.
            if exc.errno not in (errno.ENOENT, errno.ELOOP) or _is_wanted(path):
                yield File(path, 0, is_named=False, problem=_reason(exc))


def _is_wanted(path: str) -> bool:
    return path.lower().removesuffix(".gz").endswith(_ENDINGS)


def _is_missing(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116  a name as it was given
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _reason(exc: OSError) -> str:
    return f"can't be read: {exc.strerror or exc}"
