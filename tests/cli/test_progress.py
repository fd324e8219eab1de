"""The progress line, on a real terminal and where there is none."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from wcwidth import wcwidth

PRELUDE = """
import logging, os, sys, time
from etl.cli.invocation import Invocation
from etl.cli.logs import logs_to_stderr
from etl.cli.progress import progress
from etl.cli.streams import make_streams_safe
LOG = logging.getLogger("etl.test")
make_streams_safe()
def wait():
    # As long as it takes until a line may be drawn again.
    time.sleep(0.11)
def run(body, total=None, **options):
    invocation = Invocation(**options)
    with logs_to_stderr(invocation), progress(invocation, total) as line:
        body(line)
"""
SOME_WAY = """
def body(line):
    wait(); line.update(100)
    wait(); line.update(250, {"failed": 2, "rejected": 0})
    print("~", flush=True); sys.stdin.readline()
"""


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
    """A program whose standard error, or all of whose streams, are a pseudo-terminal."""

    def __init__(self, code: str, *, columns: int = 80, **environment: str) -> None:
        self.screen = Screen(columns)
        self.raw = ""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)

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


def test_the_line_says_how_far_how_fast_and_how_long_and_goes_away() -> None:
    with Terminal(SOME_WAY + "run(body, 1000)\nprint('the result')") as terminal:
        terminal.read_until("~")
        (line,) = terminal.screen.shown
        assert re.fullmatch(
            r"personas 250/1,000, 2 failed \|.+\| *[\d.]+/s 00:\d\d left~", line
        )
        terminal.type("\n")
        assert terminal.read_to_the_end() == 0
    assert terminal.screen.shown[-1] == "the result"
    assert terminal.raw.count("personas") > 2


@pytest.mark.parametrize("columns", [80, 40, 20, 5])
def test_it_is_one_line_however_narrow_the_terminal(columns: int) -> None:
    code = """
def body(line):
    for done in range(0, 200_000, 40_000):
        line.update(done, {"failed": done, "rejected": 12_345, "forbidden": 1})
        wait()
run(body, 200_000)
"""
    with Terminal(code, columns=columns) as terminal:
        assert terminal.read_to_the_end() == 0
    assert len(terminal.screen.lines) == 1
    assert terminal.screen.shown == []


def test_without_a_total_it_counts_and_a_total_may_come_later_and_be_too_low() -> None:
    code = """
def body(line):
    wait(); line.update(1234)
    line.total(2000)
    wait(); line.update(2500)
run(body)
"""
    with Terminal(code) as terminal:
        assert terminal.read_to_the_end() == 0
    assert "personas 1,234 " in terminal.raw
    assert "personas 1,234/2,000 |" in terminal.raw
    assert "personas 2,500/2,500 |" in terminal.raw


def test_of_no_personas_there_is_no_part() -> None:
    with Terminal("run(lambda line: line.update(0), 0)") as terminal:
        assert terminal.read_to_the_end() == 0
    assert terminal.screen.shown == []


def test_log_lines_stand_above_it_unbroken() -> None:
    code = """
def body(line):
    for done in range(5):
        line.update(done * 10)
        LOG.warning("said at %d%s", done, " and more" * 4)
        wait()
    print("~", flush=True); sys.stdin.readline()
run(body, 50)
LOG.warning("not said")
"""
    with Terminal(code) as terminal:
        terminal.read_until("~")
        *logged, line = terminal.screen.shown
        said = [re.sub(r"^\S+Z ", "", text) for text in logged]
        assert said == [f"warning said at {done}{' and more' * 4}" for done in range(5)]
        assert line.startswith("personas 40/50 |")
        terminal.type("\n")
        terminal.read_to_the_end()


def test_ctrl_c_leaves_the_terminal_clean() -> None:
    code = """
def body(line):
    wait(); line.update(500)
    time.sleep(60)
try:
    run(body, 1000)
except KeyboardInterrupt:
    print("ended")
"""
    with Terminal(code) as terminal:
        terminal.read_until("500/1,000")
        terminal.type("\x03")
        assert terminal.read_to_the_end() == 0
    assert terminal.screen.shown == ["ended"]


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ("quiet=True", {}),
        ("json_logs=True", {}),
        ("", {"TERM": "dumb"}),
        ("", {"TERM": ""}),
    ],
)
def test_a_terminal_that_does_not_want_it_gets_nothing(options: str, environment) -> None:
    code = f"run(lambda line: (line.total(3), line.update(2)), {options})"
    with Terminal(code, **environment) as terminal:
        assert terminal.read_to_the_end() == 0
    assert terminal.raw == ""


def test_no_colour_is_ever_shown() -> None:
    with Terminal(SOME_WAY.replace("sys.stdin.readline()", "") + "run(body, 300)") as terminal:
        terminal.read_to_the_end()
    assert set(re.findall(r"\x1b\[[^A-Za-z]*[A-Za-z]", terminal.raw)) == {"\x1b[K"}


def test_a_pipe_gets_nothing_and_tqdm_is_not_even_imported() -> None:
    code = SOME_WAY + "run(body, 1000)\nassert 'tqdm' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        capture_output=True, input="\n", text=True, check=False,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "~\n", "")


def test_it_starts_neither_a_thread_nor_a_process() -> None:
    code = """
import threading
def body(line):
    line.update(1)
    children = open(f"/proc/self/task/{os.getpid()}/children").read()
    print("THREADS", threading.active_count(), "CHILDREN", children.split())
run(body, 3)
"""
    with Terminal(code) as terminal:
        terminal.read_to_the_end()
    assert "THREADS 1 CHILDREN []" in terminal.raw
