"""Standard streams as cron, containers and shells hand them over: closed, full, unread, Latin-1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from etl.sandbox import running_sandbox

# One command of the test's own, `it`, in the place of the real ones.
PRELUDE = "import sys, time, click; from etl.cli.main import cli, main; sys.argv[1:] = ['it']\n"
FULL = Path("/dev/full")
NO_SPACE = (
    "persona-etl: error: standard output: No space left on device;"
    " what is printed is incomplete, what was done stays\n"
)
# PYTHONUNBUFFERED would hide what an unflushed buffer does at exit.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def command(body: str) -> list[str]:
    return [sys.executable, "-c", f"{PRELUDE}@cli.command()\ndef it():\n    {body}\nmain()"]


def real(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "etl", *arguments]


def shell(redirected: str, program: list[str], **environment: str):
    """Run a program in a shell that redirects its streams, as the user of a shell would."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirected}', "sh", *program],
        env={**BUFFERED, **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )


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
    started = subprocess.Popen(
        command(f"click.echo('first')\n    {writing}"),
        env=BUFFERED,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout
    assert started.stderr
    with started:
        assert started.stdout.readline() == "first\n"
        started.stdout.close()
        assert started.stderr.read() == ""
    assert started.returncode == 128 + signal.SIGPIPE


def test_a_reader_that_did_not_wait_for_the_help_is_no_bug() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(real("--help"), stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    "body",
    [
        "click.echo('x')",
        "click.echo('x' * 100_000)",
        "sys.stdout.write('still in the buffer when the command returns')",
        "sys.stdout.buffer.write(b'x' * 100_000)",
    ],
)
def test_a_full_disk_is_74_and_one_line(body: str) -> None:
    done = shell(f">{FULL}", command(body))
    assert (done.returncode, done.stderr.decode()) == (74, NO_SPACE)


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("migrate", "--sql", "--from", "base")]
)
def test_a_full_disk_is_74_for_every_command(arguments: tuple[str, ...]) -> None:
    done = shell(f">{FULL}", real(*arguments))
    assert (done.returncode, done.stderr.decode()) == (74, NO_SPACE)


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
def test_a_run_whose_result_is_lost_is_in_the_ledger_all_the_same(database_url: str) -> None:
    with running_sandbox(count=2) as sandbox:
        settings = {
            "PERSONA_ETL_DATABASE__URL": database_url,
            "ANAM_API_URL": sandbox.url,
            "ANAM_API_KEY": sandbox.key,
        }
        done = shell(f">{FULL}", real("sync", *sandbox.persona_ids), **settings)
    assert (done.returncode, done.stderr.decode()) == (74, NO_SPACE)
    with psycopg.connect(database_url) as connection:
        ((status, created),) = connection.execute("SELECT status, created FROM anam.runs")
    assert (status, created) == ("succeeded", 2)


def test_another_error_of_the_system_is_still_a_bug() -> None:
    done = shell("", command("raise OSError(28, 'No space left on device')"))
    assert done.returncode == 1
    assert b"Traceback" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_as_good_as_none(closed: str) -> None:
    done = shell(closed, real("--version"))
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    body = "opened = open('/dev/zero'); click.echo(opened.fileno(), file=sys.stderr)"
    done = shell("<&- >&-", command(body))
    assert (done.returncode, done.stderr) == (0, b"3\n")


def test_a_program_that_is_started_finds_no_closed_stream_either() -> None:
    body = "import subprocess; return subprocess.call(['/bin/echo', 'x'])"
    assert shell("<&- >&-", command(body)).returncode == 0


def test_nothing_on_a_closed_standard_input_is_a_mistake_in_usage() -> None:
    settings = {"PERSONA_ETL_DATABASE__URL": "postgresql:///x", "ANAM_API_KEY": "x"}
    done = shell("<&-", real("sync", "--ids-from", "-"), **settings)
    assert done.returncode == 2
    assert b"Error: no ids: there are none in --ids-from" in done.stderr


@pytest.mark.parametrize("unusable", ["2>&-", f"2>{FULL}"])
@pytest.mark.parametrize(
    ("program", "code"),
    [(real("nope"), 2), (real("sync"), 2), (command("1 / 0"), 1), (command("click.echo()"), 0)],
)
def test_an_error_that_nobody_can_read_keeps_its_exit_code(unusable, program, code) -> None:
    assert shell(unusable, program).returncode == code


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_encoding_lacks_is_escaped(encoding: str) -> None:
    names = "click.echo('Zo\\xeb \\u7f8e\\u54b2 \\U0001f916', err={})"
    written = "Zoë 美咲 🤖\n"
    for err in (False, True):
        done = shell("", command(names.format(err)), PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
        told = done.stderr if err else done.stdout
        # click writes UTF-8 where only ASCII is offered: that is a setting which nobody chose.
        assert told in {
            written.encode(),
            written.encode(encoding, errors="backslashreplace"),
        }


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_locale_without_letters_does_not_matter(locale: str) -> None:
    body = "sys.stdout.write('Zo\\xeb'); sys.stderr.write('Zo\\xeb')"
    done = shell("", command(body), LANG=locale, LC_ALL=locale)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Zoë".encode(), "Zoë".encode())


def test_json_stays_json_in_any_encoding(tmp_path: Path) -> None:
    done = shell("", real("--log-format=json", "sync", "ä"), PYTHONIOENCODING="latin-1")
    assert json.loads(done.stderr)["exit_code"] == 2
