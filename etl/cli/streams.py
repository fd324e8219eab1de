"""The three standard streams, so that none of them can break a run.

Cron, containers and shells hand over closed ones, full disks, pipes without a reader and encodings
that lack half of the letters in a persona's name.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from etl.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer


# Not below the buffer: a signal between the system's write and its being counted would have the
# buffer write the same once more.
class _Results(io.BufferedWriter):
    """Standard output: tells a result that is lost from every other OSError, which is a bug."""

    def write(self, data: ReadableBuffer, /) -> int:
        with _told_apart():
            return super().write(data)

    def flush(self) -> None:
        with _told_apart():
            super().flush()


class _Remarks(io.BufferedWriter):
    """Standard error: what can't be told isn't, and the run goes on; its exit code remains."""

    def write(self, data: ReadableBuffer, /) -> int:
        with suppress(OSError):
            super().write(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise OutputError(exc.errno or errno.EIO) from exc


def make_streams_safe() -> None:
    """Open closed streams to nowhere, print what can't be encoded as escapes, and see failures."""
    # In order, as the lowest free number is given out. Else a socket to Postgres would become
    # somebody's standard output.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003  takes no name
    # None where it was closed, whatever its type says.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115  for good
    sys.stdout = _text(_Results(io.FileIO(1, "w", closefd=False)), like=sys.stdout)
    sys.stderr = _text(_Remarks(io.FileIO(2, "w", closefd=False)), like=sys.stderr)


def drop_results() -> None:
    """Let the interpreter's last flush go nowhere: it would report the failure once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def steerable(stream: TextIO) -> bool:
    """Whether it is a terminal that takes escape sequences: a dumb one shows them as they are."""
    return stream.isatty() and (os.environ.get("TERM") or "dumb") != "dumb"


def takes_colour(stream: TextIO) -> bool:
    """Whether it shows colours, and nobody has said that there shall be none."""
    # https://no-color.org: set to anything but nothing.
    return steerable(stream) and not os.environ.get("NO_COLOR")


def _text(stream: io.BufferedWriter, *, like: TextIO | None) -> TextIO:
    """A text stream that is like the one before, but for what it can't encode."""
    before = like if isinstance(like, io.TextIOWrapper) else None
    return io.TextIOWrapper(
        stream,
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",
        line_buffering=before.line_buffering if before else True,
        write_through=before.write_through if before else False,
    )
