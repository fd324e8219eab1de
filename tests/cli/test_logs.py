"""The log: one line a record, for people or machines, and never a variable's value."""

from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest

from etl.cli.invocation import Invocation
from etl.cli.logs import logs_to_stderr

LOG = logging.getLogger("etl.jobs.sync")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


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


def test_the_time_is_utc(capsys) -> None:
    with logs_to_stderr(Invocation()):
        LOG.handle(logging.makeLogRecord({"levelno": 20, "levelname": "INFO", "created": 0}))
    assert capsys.readouterr().err.startswith("1970-01-01T00:00:00Z info ")


def test_a_line_for_machines_is_one_json_object(capsys) -> None:
    with logs_to_stderr(Invocation(json_logs=True)):
        LOG.warning("two\nlines", extra={"run_id": "a1", "count": 4})
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert re.fullmatch(TIME, record.pop("timestamp"))
    assert record == {
        "level": "warning",
        "logger": "etl.jobs.sync",
        "event": "two\nlines",
        "run_id": "a1",
        "count": 4,
    }


@pytest.mark.parametrize("injected", ["a\nb", "a\x1b[2Jb", "a\u2028b"])
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
