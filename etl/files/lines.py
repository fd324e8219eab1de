"""The JSON values in files, folders and standard input, one by one, with where each stands.

What can't be read is told in its place, and the rest goes on. Nothing is parsed here.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO

from etl.files.content import ContentError, chunks_of, failing, text_of
from etl.files.values import values_in
from etl.files.walk import STDIN, check_paths, may_hold_lines_only, printable, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from etl.files.walk import File

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Line:
    """One JSON value of a file, or why there is none."""

    name: str
    """The file as people know it; "-" is standard input."""
    number: int
    """The line on which the value begins, from 1."""
    raw: bytes
    """Not yet parsed, without blanks around it; empty when there is a problem."""
    dated: datetime | None
    """When a bare payload was observed: as was said, else the file's mtime; None of a stream."""
    problem: str | None = None
    """Why there is no value: too long, gzip that ends early, an unreadable file."""


class Lines:
    """The values of files, to be gone through once, in whichever thread."""

    def __init__(
        self, paths: Sequence[str], *, dated: datetime | None, stdin: BinaryIO | None
    ) -> None:
        """`paths`: files, folders, or - for `stdin`. `dated` is in UTC.

        Raises UsageError for a path where nothing is, and a folder with nothing to read.
        """
        self._paths = paths
        self._dated = dated
        self._stdin = stdin
        self.total_bytes = check_paths(paths)
        """Of the files as they are on disk; None when there is a stream among them."""
        self.read_bytes = 0
        """So far, of the files as they are on disk."""
        self.current = ""
        """The file that is being read."""

    def __iter__(self) -> Iterator[Line]:
        for file in walk(self._paths):
            self.current = printable(file.path)
            yield from self._lines_of(file)

    def _lines_of(self, file: File) -> Iterator[Line]:
        with self._opened(file) as (chunks, dated):
            by_line = may_hold_lines_only(file.path)
            for number, raw, problem in values_in(text_of(chunks), by_line=by_line):
                yield Line(self.current, number, raw, dated, problem)

    @contextmanager
    def _opened(self, file: File) -> Iterator[tuple[Iterator[bytes], datetime | None]]:
        """What stands in a file, and when it was written; in place of what can't be read, why."""
        if file.problem is not None:
            yield failing(ContentError(file.problem)), self._dated
            return
        if file.path == STDIN:
            # Not through its buffer: what comes slowly would be waited for by the chunk, and a
            # thread that waits in there lets the interpreter abort at its end.
            stdin: Any = self._stdin
            yield self._counted(getattr(stdin, "raw", stdin).read), self._dated
            return
        try:
            stream = open(file.path, "rb", buffering=0, opener=_opener(file))  # noqa: SIM115  closed below
        except OSError as exc:
            told = f"can't be read: {exc.strerror or exc}"
            yield failing(ContentError(told)), self._dated
            return
        with stream:
            status = os.fstat(stream.fileno())
            yield self._counted(stream.read), self._dated or _written_at(status)

    def _counted(self, read: Callable[[int], bytes | None]) -> Iterator[bytes]:
        for chunk in chunks_of(read):
            self.read_bytes += len(chunk)
            yield chunk


def _opener(file: File) -> Callable[[str, int], int]:
    """One that waits for nobody, should a file of a folder have become a pipe meanwhile."""
    more = 0 if file.is_named else os.O_NONBLOCK
    return lambda path, flags: os.open(path, flags | more)


def _written_at(status: os.stat_result) -> datetime | None:
    """The mtime of a regular file, as that of a pipe says nothing about what comes out of it."""
    if not stat.S_ISREG(status.st_mode):
        return None
    try:
        return _EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
    except OverflowError:
        return None
