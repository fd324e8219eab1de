"""Postgres goes away in the middle of a run, comes back, or is full: the next run heals."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from etl.jobs.migrate import migrate
from etl.store.engine import make_engine
from tests.db.conftest import session
from tests.torture.figures import tortured
from tests.torture.judging import check_ledger
from tests.torture.life import Life
from tests.torture.private_server import private_server
from tests.torture.processes import Command
from tests.torture.sizes import IS_LONG, ROUNDS, SEED

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def server():
    with private_server() as running:
        yield running


def migrated(server) -> str:
    """The URL of a database on it that the migrations have built."""
    name = f"torture_{uuid4().hex}"
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    url = sa.make_url(server.url).set(database=name).render_as_string(hide_password=False)
    migrate(make_engine(url, "anam"), "anam")
    return url


def come_back(target, sessions: ExitStack) -> None:
    """The test's own session may have gone with the others."""
    target.admin.close()
    target.admin = sessions.enter_context(session(target.url, target.schema))


# ── It goes away ─────────────────────────────────────────────────────────────────────────────────


def cancel(server, pids: list[int]) -> None:
    signalled("pg_cancel_backend", server, pids)


def terminate_one(server, pids: list[int]) -> None:
    signalled("pg_terminate_backend", server, pids[:1])


def terminate(server, pids: list[int]) -> None:
    signalled("pg_terminate_backend", server, pids)


def signalled(function: str, server, pids: list[int]) -> None:
    with psycopg.connect(server.url) as admin:
        for pid in pids:
            admin.execute(f"SELECT {function}(%s)", [pid])


def kill_backend(server, pids: list[int]) -> None:
    """The server then ends all sessions and recovers, as after a crash."""
    with suppress(ProcessLookupError):
        os.kill(pids[-1], signal.SIGKILL)


def restart_immediately(server, pids: list[int]) -> None:
    server.restart(signal.SIGQUIT)


def restart_fast(server, pids: list[int]) -> None:
    server.restart(signal.SIGINT)


WAYS = {
    "its statement cancelled": cancel,
    "one of its sessions ended": terminate_one,
    "all of its sessions ended": terminate,
    "a backend killed by SIGKILL": kill_backend,
    "the server restarted, mode immediate": restart_immediately,
    "the server restarted, mode fast": restart_fast,
}


def test_whatever_becomes_of_the_server_the_next_run_heals(copying, server):
    url = migrated(server)
    database = sa.make_url(url).database
    with ExitStack() as sessions, copying(count=30, seed=SEED, url=url) as target:
        life = Life(target, SEED)
        for what, happens in islice(cycle(WAYS.items()), ROUNDS // 2 or len(WAYS)):
            ours = target.admin.info.backend_pid
            with life.under_way() as command:
                # Before it is connected there is nobody to hurt.
                command.until(partial(server.is_used, database, by_others_than=ours))
                pids = [pid for pid in server.backends(database) if pid != ours]
                life.dice.shuffle(pids)
                if pids:
                    happens(server, pids)
                code = command.wait()
            how = "it ended well all the same" if code in (0, 3) else "the run failed"
            tortured(f"Postgres: {what}: {how if pids else 'too late, it had ended'}")
            server.wait_until_ready()
            come_back(target, sessions)
            is_told_well(command, code)
            life.is_sound()
            if life.dice.random() < 0.3:
                life.goes_on()
        life.ends_well(migrated(server))


def is_told_well(command: Command, code: int) -> None:
    """What was lost is told in one line that names Postgres; nothing is told as a bug."""
    assert code in (0, 3, 6), command.stderr
    assert "Traceback" not in command.stderr
    errors = re.findall("^persona-etl: error: .*", command.stderr, re.MULTILINE)
    assert len(errors) == (code != 0), command.stderr
    if code == 6:
        assert "Postgres" in errors[0], errors


# ── It is full ───────────────────────────────────────────────────────────────────────────────────


@contextmanager
def no_space(path: Path):
    """A table's empty file is one on a disk that is full, as Linux has it for all users.

    True ENOSPC, without a disk or a right to mount one.
    """
    assert path.stat().st_size == 0
    away = path.with_name("away")
    path.rename(away)
    path.symlink_to("/dev/full")
    try:
        yield
    finally:
        path.unlink()
        away.rename(path)


FULL = "No space left on device; free the resource on the server, then run again"
# In the order in which a run writes to them, so that those that follow are still empty.
TABLES = ["runs", "documents", "observations", "document_versions", "avatars", "personas"]
TABLES += ["brains", "persona_sync_state", "run_items"]


def test_a_full_disk_is_told_and_nothing_is_lost(copying, server):
    url = migrated(server)
    with copying(count=5, url=url) as target:
        for table in TABLES if IS_LONG else ["runs", "documents", "persona_sync_state"]:
            with no_space(server.file_of(url, table)):
                command = Command(target)
                is_told_well(command, code := command.wait())
                assert (code, FULL in command.stderr) == (6, True), command.stderr
                assert target.rows("personas") == target.rows("observations") == []
            tortured(f"Postgres: disk full at {table}")
        Command(target).finish()
        assert len(target.rows("personas")) == 5
        check_ledger(target)


def test_what_was_loaded_before_the_disk_was_full_stays(copying, server):
    url = migrated(server)
    with copying(count=252, url=url, moving=False) as target:
        *others, last = target.world.persona_ids
        target.world.set_payload(last, b"not JSON")
        # Nothing is written there before the second batch.
        with no_space(server.file_of(url, "rejected_payloads")):
            summary = target.sync([*others, last], API__CONCURRENCY="1")
            assert summary.exit_code == 6
            assert FULL in str(summary.error)
            loaded = summary.counts["created"]
            assert 1 <= loaded == 252 - summary.counts["not_attempted"] <= 250
            assert len(target.rows("personas")) == loaded
            assert target.check().findings.first == []
        counts = target.sync([*others, last]).counts
        assert (counts["unchanged"], counts["created"]) == (loaded, 251 - loaded)


def test_limits_on_time_that_are_tiny_lose_nothing(copying, server):
    """They are meant for people: our sessions set their own, in the only statement they can hit."""
    url = migrated(server)
    with copying(count=30, url=url) as target:
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            target.query(f"ALTER DATABASE {target.admin.info.dbname} SET {limit} = '1ms'")
        with Command(target) as command:
            is_told_well(command, code := command.wait())
        if code == 6:
            assert "statement timeout" in command.stderr
        target.query(f"ALTER DATABASE {target.admin.info.dbname} RESET ALL")
        Command(target).finish()
        assert len(target.rows("personas")) == 30
        check_ledger(target)
