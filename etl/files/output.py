"""A file that is written in one go: it is there when it is complete, and not before.

What is written stands beside it meanwhile. A device or a pipe, in whose place nothing can be put,
is written to as it is.
"""

from __future__ import annotations

import errno
import gzip
import os
import secrets
import stat
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from etl.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Output:
    """What is written, compressed if its name says so: the same bytes at any time."""

    def __init__(self, file: Path, descriptor: int, left: str) -> None:
        """`left`: what to say of the file when it can't be written."""
        self.is_empty = True
        self._file = file
        self._left = left
        self._raw = os.fdopen(descriptor, "wb")
        self._zipped: gzip.GzipFile | None = None
        if file.name.lower().endswith(".gz"):
            # Neither a name nor a time goes into it.
            self._zipped = gzip.GzipFile("", "wb", 6, self._raw, mtime=0)

    def write(self, data: bytes) -> None:
        """Raises OutputError."""
        with self.told():
            (self._zipped or self._raw).write(data)
        self.is_empty = False

    def end(self, *, durably: bool) -> None:
        """Writes what is still in buffers. Raises OutputError."""
        with self.told():
            if self._zipped is not None:
                self._zipped.close()
            self._raw.flush()
            if durably:
                os.fsync(self._raw.fileno())

    def close(self) -> None:
        """Closes it, whatever it is worth."""
        for stream in (self._zipped, self._raw):
            with suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tells what the system refuses."""
        try:
            yield
        except OSError as exc:
            raise OutputError(exc.errno or errno.EIO, str(self._file), self._left) from exc


@contextmanager
def complete_file(file: Path, *, mode: int | None = None) -> Iterator[Output]:
    """What to write to. In the end the file holds that, or, where it fails, what it held before.

    A file is also left alone where nothing was written. `mode`: who may do what with it, whatever
    the umask; None: what that leaves.

    Raises:
        UsageError: it can't be made.
        OutputError: it can't be written to its end.
    """
    with _refused(file):
        is_replaced = not file.exists() or stat.S_ISREG(file.stat().st_mode)
        # A link goes on to be one.
        target = file.resolve()
    if not is_replaced:
        with _refused(file):
            descriptor = os.open(file, os.O_WRONLY)
        with closing(Output(file, descriptor, "what it got is incomplete")) as output:
            yield output
            output.end(durably=False)
        return
    beside = target.with_name(f".persona-etl-{secrets.token_hex(8)}.partial")
    try:
        with _refused(file):
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with closing(Output(file, descriptor, "it is left as it was")) as output:
            if mode is not None:
                with output.told():
                    os.fchmod(descriptor, mode)
            yield output
            output.end(durably=True)
        if not output.is_empty:
            with output.told():
                beside.replace(target)
                _sync(target.parent)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _refused(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise UsageError(
            f"{file}: cannot be written ({exc.strerror}); mend that, or name another file"
        ) from exc


def _sync(folder: Path) -> None:
    """Makes it last that a file has another name. Not every file system has a word for that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
