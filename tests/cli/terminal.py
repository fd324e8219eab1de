"""A terminal to run programs in: a real pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from typing import Self

from wcwidth import wcwidth


class Screen:
    """The lines of a terminal so wide, as they stand after what was written to it."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [[" "] * columns]
        self.row = self.column = 0

    def write(self, text: str) -> None:
        for token in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|.", text, flags=re.DOTALL):
            if token == "\r":
                self.column = 0
            elif token == "\n":
                self._down()
            elif token == "\x1b[K":
                self.lines[self.row][self.column :] = [" "] * (self.columns - self.column)
            elif token.startswith("\x1b") and not token.endswith("m"):
                raise AssertionError(f"a terminal would be told to {token!r}")
            elif not token.startswith("\x1b"):
                self._put(token)

    def _put(self, character: str) -> None:
        if self.column + wcwidth(character) > self.columns:
            self._down()
            self.column = 0
        self.lines[self.row][self.column] = character
        self.column += wcwidth(character)

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append([" "] * self.columns)

    @property
    def shown(self) -> list[str]:
        return [text for line in self.lines if (text := "".join(line).rstrip())]


class Terminal:
    """A program with a pseudo-terminal for its streams."""

    def __init__(self, program: list[str], *, columns: int = 80, **environment: str) -> None:
        self.screen = Screen(columns)
        self.raw = ""
        self.closed = False
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            program,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", **environment},
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if not self.closed:
            os.close(self.master)

    def hang_up(self) -> None:
        """As when its window is closed."""
        os.close(self.master)
        self.closed = True

    def read_until(self, text: str) -> None:
        while text not in self.raw:
            assert self._read(), self.raw

    def read_to_the_end(self) -> int:
        while self._read():
            pass
        return self.process.wait(20)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def _read(self) -> bool:
        try:
            got = os.read(self.master, 4096).decode()
        except OSError:  # EIO is how Linux says that the other end is closed.
            return False
        self.raw += got
        self.screen.write(got)
        return bool(got)
