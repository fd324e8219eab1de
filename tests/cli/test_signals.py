"""SIGTERM and Ctrl-C: the first lets a run end in good order, a second one ends it at once."""

from __future__ import annotations

import json
import signal
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from etl.sandbox import Fault, running_sandbox
from etl.store.lock import WriterLock, lock_key
from tests.cli.test_sync_command import LOCKS, rows, run, started, wait_until
from tests.db.wire import Wire

INTERRUPTED = "persona-etl: error: interrupted; what was loaded stays, the next run goes on"
BOTH = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
WRITER = UUID(int=7)


@pytest.fixture
def sandbox():
    with running_sandbox(count=4, key="canary-key", moving=False) as running:
        yield running


@contextmanager
def stuck(url: str, *command: str, table: str = "personas"):
    """The command, waiting for a table that somebody has locked, and that somebody."""
    with psycopg.connect(url, options="-c search_path=anam") as someone:
        someone.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        with started(*command) as process:
            waiting = f"{LOCKS} AND NOT granted AND relation = 'anam.{table}'::regclass"
            wait_until(lambda: rows(url, waiting))
            yield process, someone


def at_once(process, *numbers: int) -> tuple[str, str]:
    """Sends these signals. What the command printed until it ended, which it did at once."""
    for number in numbers:
        process.send_signal(number)
        # The driver looks for signals ten times a second: until then two are one.
        time.sleep(0.2)
    sent = time.monotonic()
    stdout, stderr = process.communicate(timeout=20)
    # Not the ten seconds of a connection, nor the minute of a lock; the machine may be busy.
    assert time.monotonic() - sent < 8
    assert "Traceback" not in stderr
    return stdout, stderr


def statuses(url: str) -> list[str]:
    return [str(status) for (status,) in rows(url, "SELECT status FROM runs ORDER BY started_at")]


def nobody_waits(url: str) -> bool:
    return not rows(
        url,
        "SELECT 1 FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )


# ── Before there is a run ────────────────────────────────────────────────────────────────────────


@BOTH
@pytest.mark.parametrize("command", [("sync",), ("backfill", "replay")])
def test_who_waits_for_the_lock_says_for_whom_and_ends_at_once(url, command, number, code):
    with (
        WriterLock(url, "anam", command="sync", run_id=WRITER),
        started(*command, "--wait", "600") as process,
    ):
        assert process.stderr is not None
        told = process.stderr.readline()
        assert f"another run holds the lock: sync run {WRITER} on " in told
        assert "; waiting up to 600 s  run_id=" in told
        assert at_once(process, number) == ("", "persona-etl: interrupted\n")
        assert process.returncode == code
    assert statuses(url) == []


@BOTH
def test_a_postgres_that_does_not_answer_is_not_waited_for(url, monkeypatch, number, code):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", f"postgresql://u@127.0.0.1:{port}/db")
        with started("sync") as process:
            connection, _ = silent.accept()
            assert at_once(process, number) == ("", "persona-etl: interrupted\n")
            connection.close()
    assert process.returncode == code


@BOTH
def test_a_migration_is_undone(url, empty_database_url, monkeypatch, number, code):
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", empty_database_url)
    with psycopg.connect(empty_database_url) as someone:
        # The name is taken, though not yet for good: who wants it has to wait and see.
        someone.execute("CREATE SCHEMA anam CREATE TABLE voices (a int)")
        with started("migrate") as process:
            wait_until(lambda: not nobody_waits(empty_database_url))
            _, stderr = at_once(process, number)
        someone.rollback()
    assert (process.returncode, stderr) == (code, "persona-etl: interrupted\n")
    wait_until(lambda: nobody_waits(empty_database_url))
    assert rows(empty_database_url, "SELECT 1 FROM pg_tables WHERE schemaname = 'anam'") == []
    assert run("migrate").exit_code == 0


# ── While it runs ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT,) * 2])
def test_a_second_signal_does_not_wait_for_a_statement(url, numbers):
    with stuck(url, "sync", "--json") as (process, someone):
        stdout, stderr = at_once(process, *numbers)
        # Given up on the server as well, by its own word and not because the table is free.
        wait_until(lambda: nobody_waits(url))
        assert statuses(url) == ["interrupted"]
        someone.rollback()
    told = json.loads(stdout)
    assert (process.returncode, told["status"]) == (128 + numbers[0], "interrupted")
    assert told["counts"]["not_attempted"] == 4
    assert stderr.splitlines() == [INTERRUPTED]
    assert run("sync").exit_code == 0
    assert rows(url, "SELECT count(*) FROM personas") == [(4,)]


def test_the_first_signal_while_removing_lets_the_removal_end(url, sandbox):
    run("sync")
    sandbox.world.delete(sandbox.persona_ids[0])
    # Only a removal writes there, when nothing changed.
    with stuck(url, "sync", "--json") as (process, someone):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        someone.rollback()
        stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, json.loads(stdout)["status"]) == (143, "interrupted")
    assert stderr.splitlines() == [INTERRUPTED]
    assert rows(url, "SELECT count(*) FROM document_versions WHERE change = 'removed'") == [(1,)]


def test_a_second_signal_while_removing_undoes_the_removal(url, sandbox):
    run("sync")
    sandbox.world.delete(sandbox.persona_ids[0])
    with stuck(url, "sync", "--json") as (process, _):
        stdout, _ = at_once(process, signal.SIGTERM, signal.SIGTERM)
    assert (process.returncode, json.loads(stdout)["status"]) == (143, "interrupted")
    assert statuses(url) == ["succeeded", "interrupted"]
    assert rows(url, "SELECT count(*) FROM document_versions WHERE change = 'removed'") == [(0,)]
    assert run("sync").exit_code == 0
    assert rows(url, "SELECT count(*) FROM document_versions WHERE change = 'removed'") == [(1,)]


@BOTH
def test_a_wait_between_two_attempts_is_cut_short(url, sandbox, number, code):
    last = sandbox.persona_ids[3]
    sandbox.order(Fault(status=503, retry_after="60", target=last))
    with started("sync", "--json") as process:
        wait_until(lambda: rows(url, "SELECT 1 FROM personas"))
        stdout, stderr = at_once(process, number)
    told = json.loads(stdout)
    assert (process.returncode, told["status"]) == (code, "interrupted")
    assert (told["counts"]["created"], told["counts"]["not_attempted"]) == (3, 1)
    assert stderr.splitlines() == [INTERRUPTED]


def test_a_dry_run_ends_at_once_on_a_second_signal(url):
    run("sync")
    with psycopg.connect(url, options="-c search_path=anam") as someone:
        someone.execute("LOCK TABLE persona_sync_state IN ACCESS EXCLUSIVE MODE")
        with started("sync", "--dry-run", "--json") as process:
            wait_until(lambda: not nobody_waits(url))
            _, stderr = at_once(process, signal.SIGTERM, signal.SIGTERM)
    assert (process.returncode, stderr.splitlines()) == (143, [INTERRUPTED])


def test_ctrl_c_is_not_for_what_a_shell_runs_in_the_background(url, sandbox):
    """There it is ignored from the start, and a shell's own Ctrl-C goes to everybody."""
    sandbox.order(Fault(delay_seconds=0.2, target=sandbox.persona_ids[3]))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with started("sync") as process:
            wait_until(lambda: rows(url, "SELECT 1 FROM runs"))
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (process.returncode, stderr) == (0, "")


def test_a_server_that_hangs_keeps_nobody(url, tmp_path, monkeypatch):
    """Nothing comes through any more, and nobody hangs up: not a word, not an end."""
    with (
        Wire(url, tmp_path) as wire,
        psycopg.connect(url, options="-c search_path=anam") as someone,
    ):
        monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", wire.url)
        someone.execute("LOCK TABLE personas IN SHARE ROW EXCLUSIVE MODE")
        with started("sync", "--json") as process:
            wait_until(lambda: not nobody_waits(url))
            wire.freeze()
            stdout, stderr = at_once(process, signal.SIGTERM, signal.SIGTERM)
    told = json.loads(stdout)
    assert (process.returncode, told["status"], told["finished_at"]) == (143, "interrupted", None)
    assert stderr.splitlines() == [INTERRUPTED]
    # Nobody could be told: the next run closes it.
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", url)
    wait_until(lambda: not rows(url, f"{LOCKS} AND locktype = 'advisory'"))
    assert run("sync").exit_code == 0
    assert statuses(url) == ["crashed", "succeeded"]


def test_an_embedded_server_is_stopped_however_hurried_the_end(sandbox, url, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", f"embedded:{folder}")
    assert run("migrate").exit_code == 0
    sandbox.order(Fault(delay_seconds=60, target=sandbox.persona_ids[3]))
    with started("sync") as process:
        wait_until(lambda: sandbox.requests.by_target[sandbox.persona_ids[3]])
        session = Path("/tmp", (folder / "postgres.session").read_text())
        assert session.exists()
        at_once(process, signal.SIGTERM, signal.SIGTERM)
    assert process.returncode == 143
    assert not session.exists()
    assert not (folder / "postgres" / "postmaster.pid").exists()


def test_a_migration_that_waits_for_another_ends_at_once(url):
    with psycopg.connect(url, autocommit=True, application_name="someone") as someone:
        someone.execute("SELECT pg_advisory_lock(%s)", [lock_key("anam", "migrate")])
        with started("migrate") as process:
            assert process.stderr is not None
            told = process.stderr.readline()
            assert f"another migrate is running: session {someone.info.backend_pid} on " in told
            assert told.endswith("; waiting up to 60 s\n")
            assert at_once(process, signal.SIGTERM) == ("", "persona-etl: interrupted\n")
    assert process.returncode == 143
