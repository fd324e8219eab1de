"""One run at a time: what the second one says, and what becomes of one that loses its lock."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest

from etl.errors import LockedError
from etl.sandbox import Fault
from etl.store.lock import lock_key

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
            PERFORM pg_terminate_backend(pid, 5000) FROM {LOCKS};
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
