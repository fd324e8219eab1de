"""One run at a time: what the second one says, and what becomes of one that loses its lock."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from etl.errors import DatabaseError, LockedError
from etl.sandbox import Fault
from etl.store.lock import WriterLock, lock_key
from tests.db.wire import Wire

# Advisory locks of this test's database: others run beside it on the same server.
LOCKS = (
    "pg_locks WHERE locktype = 'advisory'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@contextmanager
def paused(target, persona_id: str, **options: object):
    """A run in a thread of its own, which waits for this persona's answer. Its summary, in a list.

    It goes on when the block ends: the sandbox then hangs up, and it asks once more.
    """
    log = target.sandbox.requests
    log.clear()
    target.sandbox.order(Fault(delay_seconds=60, target=persona_id))
    ended: list[object] = []
    run = threading.Thread(target=lambda: ended.append(target.sync(**options)))
    run.start()
    try:
        while not log.by_target[persona_id]:
            time.sleep(0.01)
            assert run.is_alive()
        yield ended
    finally:
        for conversation in list(target.sandbox.server._conversations):
            conversation.get_loop().call_soon_threadsafe(conversation.cancel)
        run.join()


def end_the_locks_session(target) -> None:
    key = lock_key(target.schema, "write")
    ended = target.query(
        f"SELECT pg_terminate_backend(pid, 5000) FROM {LOCKS}"
        " AND objsubid = 1 AND classid::bigint = %s AND objid::bigint = %s",
        [(key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF],
    )
    assert len(ended) == 1


@pytest.fixture
def slow(copying):
    """A target of four personas, asked for one by one, of which two are copied."""
    with copying(count=4) as made:
        made.sync(made.world.persona_ids[:2])
        yield made


def test_a_second_run_is_skipped_and_told_who_holds_the_lock(slow):
    with paused(slow, slow.world.persona_ids[3], API__CONCURRENCY="1") as ended:
        (running,) = slow.rows("runs", status="running")
        before = slow.dump()
        second = slow.sync()
        assert (second.status, second.exit_code) == ("skipped", 75)
        assert isinstance(second.error, LockedError)
        message = str(second.error)
        assert f"sync run {running['run_id']} on {running['host']}" in message
        assert f"since {running['started_at']:%Y-%m-%dT%H:%M:%SZ}" in message
        assert second.counts["not_attempted"] == second.counts["requested"] == 4
        assert second.http_requests == 0
        row = slow.row("runs", run_id=second.run_id)
        assert (row["status"], row["error"]) == ("skipped", message)
        assert row["finished_at"] >= row["started_at"]
        # It neither wrote anything nor closed the other's run as an orphan.
        after = slow.dump()
        for name in before.keys() - {"runs"}:
            assert after[name] == before[name], name
        assert len(slow.rows("runs", status="running")) == 1
    assert ended[0].status == "succeeded"
    assert slow.sync().status == "succeeded"


def test_a_lost_lock_is_taken_again_when_nobody_wrote(slow):
    with paused(slow, slow.world.persona_ids[3], API__CONCURRENCY="1") as ended:
        end_the_locks_session(slow)
    assert (ended[0].status, ended[0].counts["created"]) == ("succeeded", 2)


def test_a_skipped_run_is_no_writer(slow):
    with paused(slow, slow.world.persona_ids[3], API__CONCURRENCY="1") as ended:
        assert slow.sync().status == "skipped"
        end_the_locks_session(slow)
    assert ended[0].status == "succeeded"


def test_a_run_stops_when_another_wrote_while_it_had_no_lock(slow):
    first, *_, last = slow.world.persona_ids
    with paused(slow, last, API__CONCURRENCY="1") as ended:
        end_the_locks_session(slow)
        other = slow.sync([first])
        assert other.status == "succeeded"
    summary = ended[0]
    assert (summary.status, summary.exit_code) == ("failed", 75)
    assert "another run has written since" in str(summary.error)
    # The other one took it for dead; whoever looks now sees how it ended.
    assert slow.row("runs", run_id=summary.run_id)["status"] == "failed"
    # What it had not loaded by then is left to the next.
    assert slow.sync().status == "succeeded"
    assert len(slow.rows("personas")) == 4


def test_a_run_stops_when_another_holds_the_lock_that_it_lost(slow):
    last = slow.world.persona_ids[-1]
    with paused(slow, last, API__CONCURRENCY="1") as ended:
        end_the_locks_session(slow)
        slow.query("SELECT pg_advisory_lock(%s)", [lock_key("anam", "write")])
    slow.query("SELECT pg_advisory_unlock_all()")
    assert (ended[0].status, ended[0].exit_code) == ("failed", 75)
    assert "another run has taken it" in str(ended[0].error)


def test_a_lost_lock_is_noticed_before_a_removal(slow):
    gone, *others = slow.world.persona_ids
    slow.sync()
    slow.world.delete(gone)
    # Right after the last batch: the lock's session ends, and another run enters the ledger.
    slow.query(f"""
        CREATE FUNCTION meanwhile() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_terminate_backend(pid, 5000) FROM {LOCKS} AND pid <> pg_backend_pid();
            INSERT INTO runs (run_id, command, status, started_at, host, pid, version)
            VALUES (gen_random_uuid(), 'sync', 'succeeded', clock_timestamp(), 'h', 1, 'v');
            RETURN NULL;
        END $$;
        CREATE TRIGGER meanwhile AFTER INSERT ON run_items
           FOR EACH STATEMENT EXECUTE FUNCTION meanwhile();
    """)
    summary = slow.sync([gone, *others])
    assert (summary.exit_code, summary.counts["missing"]) == (75, 1)
    assert slow.changes(gone) == ["created"]


def test_the_lock_is_given_up_however_a_run_ends(slow):
    slow.sandbox.order(Fault(status=401, target=slow.world.persona_ids[0]))
    assert slow.sync(API__CONCURRENCY="1").exit_code == 4
    assert slow.query(f"SELECT 1 FROM {LOCKS}") == []
    assert slow.sync().exit_code == 0


# ── Waiting for the lock ─────────────────────────────────────────────────────────────────────────


def test_a_run_that_waits_for_the_lock_starts_when_it_is_free(slow, caplog):
    caplog.set_level(logging.INFO, "etl")
    with paused(slow, slow.world.persona_ids[3], API__CONCURRENCY="1") as ended:
        (first,) = slow.rows("runs", status="running")
        later: list[object] = []
        waiting = threading.Thread(target=lambda: later.append(slow.sync(wait_seconds=60)))
        waiting.start()
        while not caplog.messages:
            assert waiting.is_alive()
        assert f"sync run {first['run_id']} on {first['host']} since " in caplog.messages[0]
        # As long as it waits there is no such run.
        assert slow.rows("runs", status="running") == [first]
    waiting.join()
    assert [summary.status for summary in (*ended, *later)] == ["succeeded"] * 2
    assert len(caplog.messages) == 1
    assert [row["status"] for row in slow.rows("runs")] == ["succeeded"] * 3


def test_a_run_that_waited_in_vain_is_skipped(slow):
    with WriterLock(slow.url, slow.schema, command="backfill files", run_id=UUID(int=7)):
        summary = slow.sync(wait_seconds=0.01)
    assert (summary.status, summary.exit_code) == ("skipped", 75)
    assert f"backfill files run {UUID(int=7)} on" in str(summary.error)
    assert str(summary.error).endswith("; nothing was done within 0.01 s")
    assert slow.row("runs", run_id=summary.run_id)["status"] == "skipped"


def test_an_orphan_is_not_taken_for_who_holds_the_lock(slow):
    slow.query(f"""
        INSERT INTO runs (run_id, command, status, started_at, host, pid, version)
        VALUES ('{UUID(int=1)}', 'sync', 'running', clock_timestamp(), 'elsewhere', 1, 'v')
    """)
    with WriterLock(slow.url, slow.schema, command="backfill files", run_id=UUID(int=7)):
        summary = slow.sync()
    assert f"backfill files run {UUID(int=7)} on" in str(summary.error)
    # Wherever it ran, it runs no more.
    assert slow.sync().status == "succeeded"
    assert slow.row("runs", run_id=UUID(int=1))["status"] == "crashed"


# ── A network that swallows everything ───────────────────────────────────────────────────────────


def test_a_lock_whose_session_the_server_still_believes_in_is_taken_again(slow, tmp_path):
    """The network lost us: we are told at last, the server is not."""
    with Wire(slow.url, tmp_path) as wire:
        lock = WriterLock(wire.url, slow.schema, command="sync", run_id=UUID(int=7))
        with lock:
            before = lock.holder()
            wire.hang_up_on_clients()
            assert not lock.is_alive()
            assert slow.sync().status == "skipped"
            assert lock.reacquire()
            now = lock.holder()
            assert before is not None
            assert now is not None
            assert now.pid != before.pid
            assert slow.sync().status == "skipped"


# ── Tables that somebody has locked ──────────────────────────────────────────────────────────────


@contextmanager
def locked_by_somebody(target, statement: str):
    """Somebody has forgotten a transaction. Runs are not as patient as usual."""
    database = sa.make_url(target.url).database
    target.query(f'ALTER DATABASE "{database}" SET lock_timeout = 100')
    with psycopg.connect(
        target.url, application_name="psql", options="-c search_path=anam"
    ) as someone:
        someone.execute(statement)
        yield someone.info.backend_pid


@pytest.mark.parametrize(
    ("statement", "mode", "table"),
    [
        ("LOCK TABLE personas", "AccessExclusiveLock", "personas"),
        ("LOCK TABLE persona_sync_state IN SHARE MODE", "ShareLock", "persona_sync_state"),
        ("UPDATE personas SET name = 'x'", "RowExclusiveLock", "personas"),
        ("LOCK TABLE runs IN SHARE MODE", "ShareLock", "runs"),
    ],
)
def test_who_locked_a_table_is_told_when_nobody_lets_go(target, statement, mode, table):
    for persona_id in target.world.persona_ids:
        target.world.edit(persona_id, {"name": "Edited"})
    with (
        locked_by_somebody(target, statement) as pid,
        pytest.raises(DatabaseError) as raised,
    ):
        raise target.sync().error
    assert str(raised.value).startswith(
        f"Postgres: a table stayed locked; session {pid} (psql, role "
    )
    assert ", idle in transaction, in a transaction since 2" in str(raised.value)
    assert f" holds a {mode} on {table}; wait for it, or" in str(raised.value)
    assert target.sync().counts["updated"] == 6


def test_a_replay_that_meets_a_locked_table_tells_who_has_it(target):
    target.query("UPDATE voices SET display_name = 'x'")
    with locked_by_somebody(target, "LOCK TABLE voices IN SHARE MODE") as pid:
        replayed = target.replay()
    assert (replayed.status, replayed.exit_code) == ("failed", 6)
    assert f"session {pid} (psql, " in str(replayed.error)
    assert target.replay().status == "succeeded"


# ── What Postgres refuses ────────────────────────────────────────────────────────────────────────


def test_a_removal_that_postgres_refuses_stops_no_other(slow):
    slow.sync()
    kept, *gone = slow.world.persona_ids
    for persona_id in gone:
        slow.world.delete(persona_id)
    slow.query(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE check_violation; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON personas FOR EACH ROW
          WHEN (new.persona_id = '{gone[1]}') EXECUTE FUNCTION refuse();
    """)
    summary = slow.sync([kept, *gone], allow_mass_removal=True)
    assert (summary.status, summary.exit_code) == ("partial", 3)
    assert f"the removal of 1 of 3 missing personas; first: persona {gone[1]}" in str(summary.error)
    assert [slow.changes(id_)[-1] for id_ in gone] == ["removed", "created", "removed"]
    slow.query("DROP TRIGGER refuse ON personas")
    assert slow.sync([kept, *gone], allow_mass_removal=True).status == "succeeded"
    assert slow.changes(gone[1])[-1] == "removed"


def test_a_time_that_is_infinite_is_told(slow):
    slow.query("UPDATE persona_sync_state SET last_attempt_at = 'infinity'")
    summary = slow.sync()
    assert (summary.status, summary.exit_code) == ("failed", 6)
    assert "a table holds a timestamp too large (after year 10K): 'infinity'" in str(summary.error)
    slow.query("UPDATE persona_sync_state SET last_attempt_at = clock_timestamp()")
    assert slow.sync().status == "succeeded"


def test_a_statement_that_an_administrator_cancels_ends_the_run_and_the_next_goes_on(slow):
    slow.query("""
        CREATE FUNCTION cancelled() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(0.1); RETURN NULL; END $$;
        CREATE TRIGGER cancelled AFTER INSERT ON run_items
           FOR EACH STATEMENT EXECUTE FUNCTION cancelled();
    """)
    summary = slow.sync()
    assert (summary.status, summary.exit_code) == ("failed", 6)
    assert "the server cancelled a statement, by its timeout or by hand; run again" in str(
        summary.error
    )
    slow.query("DROP TRIGGER cancelled ON run_items")
    assert slow.sync().counts["created"] == 2
