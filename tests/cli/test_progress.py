"""The progress line, on a real terminal and where there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

PRELUDE = """
import logging, os, sys, time
from etl.cli.invocation import Invocation
from etl.cli.logs import logs_to_stderr
from etl.cli.progress import progress
from etl.cli.streams import make_streams_safe
LOG = logging.getLogger("etl.test")
make_streams_safe()
if sys.stdin.isatty():
    # The first terminal that the head of a session opens is its own: ^C then reaches it.
    os.close(os.open(os.ttyname(0), os.O_RDWR))
def wait():
    # As long as it takes until a line may be drawn again.
    time.sleep(0.11)
def run(body, total=None, **options):
    invocation = Invocation(**options)
    with logs_to_stderr(invocation), progress(invocation) as line:
        if total is not None:
            line.total(total)
        body(line)
"""
SOME_WAY = """
def body(line):
    wait(); line.update(100)
    wait(); line.update(250, {"failed": 2, "rejected": 0})
    print("~", flush=True); sys.stdin.readline()
"""


def terminal(code: str, **options) -> Terminal:
    """The program below a prelude, with a terminal for its streams."""
    return Terminal([sys.executable, "-c", PRELUDE + code], **options)


def test_the_line_says_how_far_how_fast_and_how_long_and_goes_away() -> None:
    with terminal(SOME_WAY + "run(body, 1000)\nprint('the result')") as it:
        it.read_until("~")
        (line,) = it.screen.shown
        assert re.fullmatch(r"personas 250/1,000, 2 failed \|.+\| *[\d.]+/s 00:\d\d left~", line)
        it.type("\n")
        assert it.read_to_the_end() == 0
    assert it.screen.shown[-1] == "the result"
    assert it.raw.count("personas") > 2


def test_of_a_tally_it_names_what_was_asked_for_and_all_failures() -> None:
    code = """
from collections import Counter
from etl.cli.progress import tallied
from etl.jobs.summary import Tally
with tallied(Invocation(), "behind") as watch:
    wait(); watch(Tally(50, Counter(created=3, behind=1, missing=2, failed=4)))
    print("~", flush=True); sys.stdin.readline()
"""
    with terminal(code) as it:
        it.read_until("~")
        assert it.screen.shown[0].startswith("personas 10/50, 1 behind, 4 failed |")
        it.type("\n")
        assert it.read_to_the_end() == 0


@pytest.mark.parametrize("columns", [80, 40, 20, 5])
def test_it_is_one_line_however_narrow_the_terminal(columns: int) -> None:
    code = """
def body(line):
    for done in range(0, 200_000, 40_000):
        line.update(done, {"failed": done, "rejected": 12_345, "forbidden": 1})
        wait()
run(body, 200_000)
"""
    with terminal(code, columns=columns) as it:
        assert it.read_to_the_end() == 0
    assert len(it.screen.lines) == 1
    assert it.screen.shown == []


def test_without_a_total_it_counts_and_a_total_may_come_later_and_be_too_low() -> None:
    code = """
def body(line):
    wait(); line.update(1234)
    line.total(2000)
    wait(); line.update(2500)
run(body)
"""
    with terminal(code) as it:
        assert it.read_to_the_end() == 0
    assert "personas 1,234 " in it.raw
    assert "personas 1,234/2,000 |" in it.raw
    assert "personas 2,500/2,500 |" in it.raw


def test_of_no_personas_there_is_no_part() -> None:
    with terminal("run(lambda line: line.update(0), 0)") as it:
        assert it.read_to_the_end() == 0
    assert it.screen.shown == []


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
    with terminal(code) as it:
        it.read_until("~")
        *logged, line = it.screen.shown
        said = [re.sub(r"^\S+Z ", "", text) for text in logged]
        assert said == [f"warning said at {done}{' and more' * 4}" for done in range(5)]
        assert line.startswith("personas 40/50 |")
        it.type("\n")
        it.read_to_the_end()


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
    with terminal(code) as it:
        it.read_until("500/1,000")
        it.type("\x03")
        assert it.read_to_the_end() == 0
    assert it.screen.shown == ["ended"]


def test_a_run_goes_on_when_its_terminal_is_closed(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    code = f"""
import pathlib, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def body(line):
    wait(); line.update(1)
    while os.isatty(2):
        wait()
    line.update(2)
    LOG.warning("said to nobody")
    wait(); line.update(3)
run(body, 9)
pathlib.Path({str(ended)!r}).touch()
"""
    with terminal(code) as it:
        it.read_until("1/9")
        it.hang_up()
        assert it.process.wait(20) == 0
    assert ended.exists()


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
    with terminal(code, **environment) as it:
        assert it.read_to_the_end() == 0
    assert it.raw == ""


def test_no_colour_is_ever_shown() -> None:
    with terminal(SOME_WAY.replace("sys.stdin.readline()", "") + "run(body, 300)") as it:
        it.read_to_the_end()
    assert set(re.findall(r"\x1b\[[^A-Za-z]*[A-Za-z]", it.raw)) == {"\x1b[K"}


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
    with terminal(code) as it:
        it.read_to_the_end()
    assert "THREADS 1 CHILDREN []" in it.raw
