"""The three standard streams, so that none of them can break a run.

Cron, containers and shells hand over closed ones, full disks, pipes without a reader and encodings
that lack half of the letters in a persona's name.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from etl.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Results(io.FileIO):
    """Standard output: tells a result that is lost from every other OSError, which is a bug."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as exc:
            raise OutputError(exc.errno) from exc


class _Remarks(io.FileIO):
    """Standard error: what can't be told isn't, and the run goes on; its exit code remains."""

    def write(self, data: ReadableBuffer, /) -> int:
        with suppress(OSError):
            super().write(data)
        return memoryview(data).nbytes


def make_streams_safe() -> None:
    """Open closed streams to nowhere, print what can't be encoded as escapes, and see failures."""
    # In order, as the lowest free number is given out. Else a socket to Postgres would become
    # somebody's standard output.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003
    # None where it was closed, whatever its type says.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: PTH123, SIM115
    sys.stdout = _over(_Results(1, "w", closefd=False), sys.stdout)
    sys.stderr = _over(_Remarks(2, "w", closefd=False), sys.stderr)


def drop_results() -> None:
    """Let the interpreter's last flush go nowhere: it would report the failure once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def steerable(stream: TextIO) -> bool:
    """Whether it is a terminal that takes escape sequences: a dumb one shows them as they are."""
    return stream.isatty() and (os.environ.get("TERM") or "dumb") != "dumb"


def _over(raw: io.FileIO, before: TextIO | None) -> TextIO:
    """A text stream on `raw` that is like the one `before`, but for what it can't encode."""
    like = before if isinstance(before, io.TextIOWrapper) else None
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding if like else "utf-8",
        errors="backslashreplace",
        line_buffering=like.line_buffering if like else True,
        write_through=like.write_through if like else False,
    )
