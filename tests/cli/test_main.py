"""The console entry: what `--help` costs, and how each way out ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from etl import errors
from etl.cli.invocation import Invocation, pass_invocation
from etl.cli.main import COMMANDS, EtlGroup, cli
from etl.errors import EtlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def every_error(root: type[EtlError] = EtlError) -> Iterator[type[EtlError]]:
    """The errors of errors.py, without the rooms' own, which exist once those are imported."""
    yield root
    for error in root.__subclasses__():
        if error.__module__ == errors.__name__:
            yield from every_error(error)


def run(body: Callable[[], object]) -> Result:
    """Run `body` as a command inside the real boundary."""
    group = EtlGroup("persona-etl")
    group.add_command(click.Command("it", callback=body))
    return CliRunner().invoke(group, ["it"])


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


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from etl.cli.main import main\n"
        "sys.argv[1:] = ['--help']\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed = done.stdout.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    for (_, summary), line in zip(COMMANDS.values(), listed, strict=True):
        assert line.endswith(summary)
    loaded = set(done.stderr.split())
    heavy = {"sqlalchemy", "httpx", "pydantic", "alembic", "structlog", "psycopg", "msgspec"}
    assert "etl.cli.main" in loaded
    assert not loaded & (heavy | {"asyncio", "etl.settings"})
    assert not loaded & {module for module, _ in COMMANDS.values()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_without_settings(name: str, tmp_path: Path) -> None:
    broken = {"PERSONA_ETL_CONFIG": str(tmp_path / "nowhere.toml"), "PERSONA_ETL_NOPE": "1"}
    result = CliRunner().invoke(cli, [name, "--help"], env=broken)
    assert result.exit_code == 0, result.output
    assert f" {name} [OPTIONS]" in result.stdout


def test_python_m_etl_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "etl", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("persona-etl ")


@pytest.mark.parametrize(
    "arguments",
    [[], ["nope"], ["--nope", "init"], ["init", "--nope"], ["--log-format", "xml", "init"]],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


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


@pytest.mark.parametrize("bug", [ZeroDivisionError("a bug"), EOFError("a bug"), OSError("a bug")])
def test_anything_else_is_a_bug_with_its_traceback(bug: Exception) -> None:
    result = run(raising(bug))
    assert result.exit_code == 1
    assert "Traceback (most recent call last):" in result.stderr
    assert f"{type(bug).__name__}: a bug" in result.stderr


def test_a_traceback_shows_no_variables() -> None:
    def body() -> None:
        key = "hunter" + "22"
        raise ZeroDivisionError(len(key))

    assert "hunter22" not in run(body).output


@pytest.mark.parametrize(
    "writing",
    [
        "while True: click.echo('x' * 1000)",
        "while True: sys.stdout.write('x' * 1000)",
        "time.sleep(0.2); sys.stdout.write('still in the buffer when the command returns')",
        "time.sleep(0.2); sys.stdout.write('x'); click.echo('x')",
    ],
)
def test_a_reader_that_goes_away_is_no_bug(writing: str) -> None:
    # PYTHONUNBUFFERED would hide what an unflushed buffer does at exit.
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    code = f"@cli.command()\ndef it():\n    click.echo('first')\n    {writing}\nmain()"
    started = python(code, env=buffered)
    assert started.stdout
    assert started.stderr
    with started:
        assert started.stdout.readline() == "first\n"
        started.stdout.close()
        assert started.stderr.read() == ""
    assert started.returncode == 128 + signal.SIGPIPE


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
