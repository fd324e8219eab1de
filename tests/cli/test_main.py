"""The console entry: the global options, and how each way out ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from etl import errors
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.main import EtlGroup, cli
from etl.errors import EtlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def every_error(root: type[EtlError] = EtlError) -> Iterator[type[EtlError]]:
    """The errors of errors.py, without the rooms' own, which exist once those are imported."""
    yield root
    for error in root.__subclasses__():
        if error.__module__ == errors.__name__:
            yield from every_error(error)


def run(body: Callable[[], object], *options: str) -> Result:
    """Run `body` as a command inside the real boundary."""
    group = EtlGroup("persona-etl", params=cli.params, callback=cli.callback)
    group.add_command(click.Command("it", callback=body))
    return CliRunner().invoke(group, [*options, "it"])


def as_json(result: Result) -> dict[str, object]:
    """What the one line on stderr says, without its time."""
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    told: dict[str, object] = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(told.pop("timestamp")))
    assert (told.pop("level"), told.pop("logger")) == ("error", "etl")
    return told


def raising(error: BaseException) -> Callable[[], object]:
    def body() -> None:
        raise error

    return body


def python(code: str, **options) -> subprocess.Popen[str]:
    """Start Python with persona-etl's entry and one command of the test's own, `it`."""
    prelude = "import sys, time, click; from etl.cli.main import cli, main; sys.argv[1:] = ['it']\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_python_m_etl_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "etl", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"persona-etl {version('persona-etl')}\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["nope"], ["--nope", "init"], ["init", "--nope"], ["--log-format", "xml", "init"]],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


@pytest.mark.parametrize(
    ("written", "meant"), [("synk", "sync"), ("Init", "init"), ("migrat", "migrate")]
)
def test_the_nearest_command_is_named(written: str, meant: str) -> None:
    result = CliRunner().invoke(cli, [written])
    assert result.exit_code == 2
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error:"))
    assert line == f"Error: No such command '{written}'. Did you mean '{meant}'?"


def test_the_nearest_option_is_named() -> None:
    result = CliRunner().invoke(cli, ["migrate", "--sq"])
    assert "Error: No such option '--sq'. Did you mean '--sql'?" in result.stderr


def test_a_name_that_is_near_to_none_is_just_told() -> None:
    result = CliRunner().invoke(cli, ["xyzzy"])
    assert "Error: No such command 'xyzzy'.\n" in result.stderr


def test_without_a_command_there_is_help() -> None:
    result = CliRunner().invoke(cli, [])
    assert result.exit_code == 2
    assert result.stderr == CliRunner().invoke(cli, ["--help"]).stdout


def test_verbose_and_quiet_exclude_each_other() -> None:
    result = CliRunner().invoke(cli, ["-v", "-q", "init"])
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


@pytest.mark.parametrize("error", list(every_error()), ids=lambda error: error.__name__)
def test_every_error_is_a_line_on_stderr_and_its_exit_code(error: type[EtlError]) -> None:
    # One of them takes the number of a signal instead of a message.
    raised = error(2)
    result = run(raising(raised))
    assert result.exit_code == raised.exit_code
    assert result.stderr == f"persona-etl: error: {raised}\n"
    assert result.stdout == ""
    result = run(raising(raised), "--log-format", "json")
    assert result.exit_code == raised.exit_code
    assert as_json(result) == {"event": str(raised), "exit_code": raised.exit_code}


@pytest.mark.parametrize("arguments", [["synk"], ["init", "--nope"], ["-q", "-v", "init"]])
def test_wrong_usage_is_json_too_where_the_log_is(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, ["--log-format", "json", *arguments])
    told = as_json(result)
    assert (result.exit_code, told["exit_code"]) == (2, 2)
    assert "Usage" not in str(told["event"])


@pytest.mark.parametrize("hostile", ["a\x1b[2Jb", "a\rb", "a\u202eb", "a\x07b"])
def test_an_error_does_not_steer_the_terminal(hostile: str) -> None:
    for error in (UsageError(hostile), ZeroDivisionError(hostile)):
        result = run(raising(error))
        assert hostile not in result.stderr
        assert all(line.isprintable() for line in result.stderr.split("\n"))


def test_the_tree_of_errors_draws_every_error() -> None:
    tree = errors.__doc__ or ""
    for error in every_error():
        assert error.__name__ in tree


def test_mistakes_in_the_settings_are_a_line_each() -> None:
    result = run(raising(UsageError("2 mistakes in the settings:\n  one\n  two")))
    assert result.stderr == "persona-etl: error: 2 mistakes in the settings:\n  one\n  two\n"


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3), (75, 75)])
def test_what_a_command_returns_is_the_exit_code(returned: int | None, code: int) -> None:
    assert run(lambda: returned).exit_code == code


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_exits_130_without_a_traceback(interruption: BaseException) -> None:
    result = run(raising(interruption))
    assert result.exit_code == 130
    assert result.stderr == "persona-etl: interrupted\n"
    told = as_json(run(raising(interruption), "--log-format", "json"))
    assert told == {"event": "interrupted", "exit_code": 130}


@pytest.mark.parametrize("bug", [ZeroDivisionError("a bug"), EOFError("a bug"), OSError("a bug")])
def test_anything_else_is_a_bug_with_its_traceback(bug: Exception) -> None:
    result = run(raising(bug))
    assert result.exit_code == 1
    assert "Traceback (most recent call last):" in result.stderr
    assert f"{type(bug).__name__}: a bug" in result.stderr
    *_, last = result.stderr.splitlines()
    assert last.startswith(f"persona-etl: error: {type(bug).__name__}, a bug of persona-etl; ")
    told = as_json(run(raising(bug), "--log-format", "json"))
    assert str(told["exception"]).startswith("Traceback (most recent call last):")
    assert told["exit_code"] == 1


def test_a_traceback_shows_no_variables() -> None:
    def body() -> None:
        key = "hunter" + "22"
        raise ZeroDivisionError(len(key))

    assert "hunter22" not in run(body).output
    assert "hunter22" not in run(body, "--log-format", "json").output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_unwinds_the_command_before_it_ends(number: int, code: int) -> None:
    started = python(
        "@cli.command()\n"
        "def it():\n"
        "    try:\n"
        "        click.echo('started')\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        click.echo('stopped')\n"
        "main()"
    )
    assert started.stdout
    with started:
        assert started.stdout.readline() == "started\n"
        os.kill(started.pid, number)
        assert started.stdout.read() == "stopped\n"
    assert started.returncode == code


def test_the_global_options_reach_the_command(tmp_path: Path) -> None:
    seen: list[Invocation] = []
    group = EtlGroup("persona-etl", params=cli.params, callback=cli.callback)
    group.add_command(click.Command("it", callback=pass_invocation(seen.append)))
    for arguments in (
        ["it"],
        ["--config", "x.toml", "-v", "it"],
        ["-q", "--log-format=json", "it"],
    ):
        assert CliRunner().invoke(group, arguments).exit_code == 0
    assert seen == [
        Invocation(),
        Invocation(config=Path("x.toml"), verbose=True),
        Invocation(quiet=True, json_logs=True),
    ]


def test_settings_are_read_when_a_command_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.toml").write_text('[database]\nschema = "other"\n', encoding="utf-8")
    monkeypatch.setenv("PERSONA_ETL_API__CONCURRENCY", "3")
    settings = Invocation(config=tmp_path / "x.toml").settings()
    assert (settings.database.schema_, settings.api.concurrency) == ("other", 3)


def test_a_global_option_behind_the_command_is_told_where_it_goes():
    result = CliRunner().invoke(cli, ["sync", "-q"])
    assert result.exit_code == 2
    assert "It goes before the command: persona-etl -q" in result.stderr
