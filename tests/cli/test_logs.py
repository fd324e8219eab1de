"""The log: one line a record, for people or machines, and never a variable's value."""

from __future__ import annotations

import gc
import io
import json
import logging
import re
import subprocess
import sys
import threading
import time
import warnings

import pytest

from etl.cli.invocation import Invocation
from etl.cli.logs import logs_to_stderr

LOG = logging.getLogger("etl.jobs.sync")
COUNTED = {"extra": {"counts": {"created": 3, "failed": 0}}}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
EXACT_TIME = TIME.replace("Z", r"\.\d{3}Z")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_for_people_has_time_level_message_and_pairs(capsys) -> None:
    with logs_to_stderr(Invocation()):
        LOG.info("copied %d personas", 3, extra={"run_id": "a1", "name_": "Zoë Ω", "note": "a=b"})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(
        rf'{TIME} info    copied 3 personas  run_id=a1 name_="Zoë Ω" note="a=b"\n', captured.err
    )


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/Los_Angeles", "nonsense"])
def test_the_time_is_utc_wherever_it_runs(capsys, monkeypatch: pytest.MonkeyPatch, zone) -> None:
    with monkeypatch.context() as there:
        there.setenv("TZ", zone)
        time.tzset()
        for json_logs in (False, True):
            with logs_to_stderr(Invocation(json_logs=json_logs)):
                record = {"levelno": 20, "levelname": "INFO", "created": 0}
                LOG.handle(logging.makeLogRecord(record))
    time.tzset()
    text, json_line = capsys.readouterr().err.splitlines()
    assert text.startswith("1970-01-01T00:00:00Z info ")
    assert json.loads(json_line)["timestamp"] == "1970-01-01T00:00:00.000Z"


def test_a_line_for_machines_is_one_json_object(capsys) -> None:
    with logs_to_stderr(Invocation(json_logs=True)):
        LOG.warning("two\nlines", extra={"run_id": "a1", "count": 4})
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert re.fullmatch(EXACT_TIME, record.pop("timestamp"))
    assert record == {
        "level": "warning",
        "logger": "etl.jobs.sync",
        "event": "two\nlines",
        "run_id": "a1",
        "count": 4,
    }


def test_each_line_says_of_which_run_it_is_from_any_thread_once_there_is_one(capsys) -> None:
    for json_logs in (False, True):
        with logs_to_stderr(invocation := Invocation(json_logs=json_logs)):
            LOG.info("before")
            run_id = str(invocation.begin_run())
            (thread := threading.Thread(target=LOG.info, args=["x"], kwargs=COUNTED)).start()
            thread.join()
        before, after = capsys.readouterr().err.splitlines()
        if json_logs:
            assert "run_id" not in json.loads(before)
            told = json.loads(after)
            assert list(told) == ["timestamp", "level", "logger", "event", "run_id", "counts"]
            assert (told["run_id"], told["counts"]) == (run_id, {"created": 3, "failed": 0})
        else:
            assert before.endswith(" info    before")
            assert after.endswith(f" info    x  created=3 run_id={run_id}")


class Stubborn:
    def __str__(self) -> str:
        raise RuntimeError


def endless() -> list[object]:
    """A list that holds itself."""
    made: list[object] = []
    made.append(made)
    return made


@pytest.mark.parametrize("json_logs", [True, False])
def test_whatever_is_logged_is_one_line(capsys, *, json_logs: bool) -> None:
    deep: list[object] = []
    for _ in range(50_000):
        deep = [deep]
    odd = [Stubborn(), float("nan"), endless(), deep, {("a",): 1}, b"\xff", "\ud800", 10**400, LOG]
    with logs_to_stderr(Invocation(json_logs=json_logs)):
        for value in odd:
            LOG.info("x", extra={"value": value, "nested": {"value": value}, "a\nb": 1})
        # Not by the logger: pytest's own handler would mind.
        for message, args in (("%d of %s", ("three",)), (Stubborn(), ())):
            record = logging.LogRecord("x", logging.INFO, "x", 1, message, args, None)
            logging.getLogger().handlers[-1].handle(record)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(odd) + 2
    if json_logs:
        assert [json.loads(line, parse_constant=pytest.fail)["level"] for line in lines]
        assert json.loads(lines[-2])["event"] == "%d of %s"


@pytest.mark.parametrize("json_logs", [True, False])
def test_a_secret_is_hidden_in_whatever_was_logged(capsys, *, json_logs: bool) -> None:
    secret = "20261123" + "45"
    with logs_to_stderr(invocation := Invocation(json_logs=json_logs)):
        invocation.hiding.add(secret)
        LOG.info(secret, extra={"number": int(secret), "in_it": {"a": [secret], secret: 1}})
    (line,) = capsys.readouterr().err.splitlines()
    assert secret not in line
    if json_logs:
        assert json.loads(line)["number"] == "[hidden]"


def test_what_python_would_print_is_logged(capsys) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    class Doomed:
        def __del__(self) -> None:
            raise ZeroDivisionError

    before = (warnings.showwarning, threading.excepthook, sys.unraisablehook)
    with logs_to_stderr(Invocation(json_logs=True, quiet=True)):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = logs_warning = warnings.showwarning
            warnings.warn("two\nlines", stacklevel=1)
        assert logs_warning.__module__ == "etl.cli.logs"
        (thread := threading.Thread(target=fail, name="loader")).start()
        thread.join()
        Doomed()
        gc.collect()
    assert (warnings.showwarning, threading.excepthook, sys.unraisablehook) == before
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["logger"], line["event"]) for line in told] == [
        ("py.warnings", "UserWarning: two\nlines"),
        ("py.threads", "thread loader ended by an error"),
        ("py.errors", "an error that nobody can be told of, in a function"),
    ]
    assert all("ZeroDivisionError" in line["exception"] for line in told[1:])


def test_a_log_that_nobody_can_write_to_breaks_nothing() -> None:
    for stderr in ("2>&-", "2>/dev/full", "2> >(true)"):
        program = (
            "import logging, sys\n"
            "from etl.cli.invocation import Invocation\n"
            "from etl.cli.logs import logs_to_stderr\n"
            "from etl.cli.streams import make_streams_safe\n"
            "make_streams_safe()\n"
            "with logs_to_stderr(Invocation()):\n"
            "    for number in range(5000):\n"
            "        logging.getLogger('etl').info('x' * 100)\n"
            "sys.exit(7)\n"
        )
        done = subprocess.run(
            ["bash", "-c", f'"$0" -c "$1" {stderr}', sys.executable, program], check=False
        )
        assert done.returncode == 7


@pytest.mark.parametrize("injected", ["a\nb", "a\r\nb", "a\x1b[2Jb", "a\u2028b", "a\x85b"])
def test_nothing_that_is_logged_starts_a_line_or_steers_the_terminal(capsys, injected) -> None:
    with logs_to_stderr(Invocation()):
        LOG.info("%s", injected, extra={"name_": injected})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()


@pytest.mark.parametrize("json_lines", [True, False])
def test_an_exception_is_logged_without_its_variables(capsys, *, json_lines: bool) -> None:
    def fail() -> None:
        key = "hunter" + "22"
        raise ZeroDivisionError(len(key))

    with logs_to_stderr(Invocation(json_logs=json_lines)):
        try:
            fail()
        except ZeroDivisionError:
            LOG.exception("failed")
    logged = capsys.readouterr().err
    assert "ZeroDivisionError: 8" in logged
    assert "hunter22" not in logged


def test_a_traceback_does_not_steer_the_terminal(capsys) -> None:
    with logs_to_stderr(Invocation()):
        LOG.error("failed", exc_info=ValueError("\x1b[2J"))
    assert "ValueError: \\u001b[2J" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("invocation", "levels"),
    [
        (Invocation(), ["info", "warning"]),
        (Invocation(verbose=True), ["debug", "info", "warning"]),
        (Invocation(quiet=True), ["warning"]),
    ],
)
def test_verbosity_chooses_the_level(capsys, invocation, levels) -> None:
    with logs_to_stderr(invocation):
        LOG.debug("x")
        LOG.info("x")
        LOG.warning("x")
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == levels


@pytest.mark.parametrize("name", ["httpx", "httpcore.http11", "sqlalchemy.engine.Engine"])
def test_libraries_that_log_headers_and_parameters_speak_from_warning_on(capsys, name) -> None:
    with logs_to_stderr(Invocation(verbose=True)):
        logging.getLogger(name).info("Authorization: hunter22")
        logging.getLogger(name).warning("a warning")
    assert capsys.readouterr().err.count("\n") == 1


def test_what_another_handler_left_on_a_record_is_not_logged(capsys) -> None:
    record = logging.makeLogRecord({"levelno": 20, "levelname": "INFO", "msg": "said once"})
    logging.Formatter("%(asctime)s %(message)s").format(record)
    with logs_to_stderr(Invocation()):
        LOG.handle(record)
    assert capsys.readouterr().err.endswith(" info    said once\n")


def test_nothing_stays_behind_when_the_command_is_over(capsys) -> None:
    before = (logging.getLogger().handlers[:], logging.getLogger("etl").level)
    with logs_to_stderr(Invocation(verbose=True)):
        LOG.debug("x")
    assert (logging.getLogger().handlers, logging.getLogger("etl").level) == before


@pytest.mark.parametrize(
    ("no_color", "term", "stream", "coloured"),
    [
        ("", "xterm", Terminal, True),
        ("1", "xterm", Terminal, False),
        ("", "dumb", Terminal, False),
        ("", "xterm", io.StringIO, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, no_color, term, stream, coloured
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", stderr := stream())
    with logs_to_stderr(Invocation()):
        LOG.error("x")
    assert ("\x1b[" in stderr.getvalue()) is coloured


def test_what_the_driver_warns_of_is_told_by_us_alone(capsys):
    for verbose, count in ((False, 0), (True, 1)):
        with logs_to_stderr(Invocation(verbose=verbose)):
            logging.getLogger("psycopg").warning("query cancellation interrupted")
        assert capsys.readouterr().err.count("query cancellation") == count
