"""One writer per target, and what is said to the second."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from etl.errors import DatabaseError, LockedError
from etl.store.lock import Holder, WriterLock, current_writer, lock_key

FIRST = UUID("11111111-1111-1111-1111-111111111111")
SECOND = UUID("22222222-2222-2222-2222-222222222222")


def lock_of(url: str, run_id: UUID = FIRST, schema: str = "anam") -> WriterLock:
    return WriterLock(url, schema, command="backfill replay", run_id=run_id)


def holder_of(lock: WriterLock) -> Holder:
    holder = lock.holder()
    assert holder is not None
    return holder


def session_of(lock: WriterLock) -> psycopg.Connection[Any]:
    assert lock._connection is not None
    return lock._connection


def terminate(url: str, lock: WriterLock) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [holder_of(lock).pid])


def test_of_two_runs_only_the_first_gets_the_lock(database_url):
    first, second = lock_of(database_url), lock_of(database_url, SECOND)
    with first:
        assert not second.acquire()
        second.release()
    assert second.acquire()
    second.release()


def test_the_second_run_is_told_who_holds_the_lock(database_url):
    with (
        lock_of(database_url),
        pytest.raises(LockedError, match=f"backfill replay run {FIRST} on .* since 20"),
        lock_of(database_url, SECOND),
    ):
        pass


def test_an_error_within_gives_the_lock_up(database_url):
    with pytest.raises(KeyError), lock_of(database_url):
        raise KeyError
    with lock_of(database_url, SECOND) as second:
        assert second.is_alive()


def test_two_schemas_of_one_database_have_each_their_lock(database_url):
    with lock_of(database_url), lock_of(database_url, SECOND, schema="other") as second:
        assert holder_of(second).run_id == SECOND


def test_two_databases_of_one_server_have_each_their_lock(database_url, empty_database_url):
    with lock_of(database_url), lock_of(empty_database_url, SECOND) as second:
        assert holder_of(second).run_id == SECOND


def test_the_key_is_the_same_in_each_release():
    # A changed key would let an old and a new release write at once.
    assert lock_key("anam", "write") == -2505003520100878336
    assert lock_key("anam", "write") != lock_key("anam", "migrate")


@pytest.mark.parametrize("schema", [f"schema_{n}" for n in range(8)])
def test_the_holder_is_found_whatever_the_bits_of_the_key(database_url, schema):
    # Among these keys are all four pairs of signs of the two halves.
    with lock_of(database_url, schema=schema) as lock:
        assert holder_of(lock).run_id == FIRST


def test_a_reader_sees_the_writer_without_a_lock(database_url, engine):
    with engine.connect() as connection:
        assert current_writer(connection, "anam") is None
        with lock_of(database_url):
            holder = current_writer(connection, "anam")
            assert holder is not None
            assert current_writer(connection, "other") is None
    assert (holder.command, holder.run_id) == ("backfill replay", FIRST)
    assert holder.since is not None
    assert abs(holder.since - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_holder_that_is_not_ours_is_told_by_its_session(database_url, engine):
    with psycopg.connect(database_url, application_name="someone's psql") as stranger:
        stranger.execute("SELECT pg_advisory_lock(%s)", [lock_key("anam", "write")])
        with engine.connect() as connection:
            holder = current_writer(connection, "anam")
        assert holder is not None
        assert holder.run_id is None
        assert str(holder).startswith(f"session {stranger.info.backend_pid} on ")


def test_a_holder_that_we_may_not_look_at_is_told_all_the_same():
    assert str(Holder(7, "", None, None)) == "session 7 on the database's own host"
    assert str(Holder(7, "", None, "10.0.0.5")) == "session 7 on 10.0.0.5"


def test_a_lost_backend_is_noticed(database_url):
    with lock_of(database_url) as lock:
        assert lock.is_alive()
        terminate(database_url, lock)
        assert not lock.is_alive()
        assert not lock.is_alive()


def test_to_ask_whether_the_lock_stands_costs_no_round_trip(database_url, engine):
    last_statement = sa.text("SELECT query FROM pg_stat_activity WHERE pid = :pid")
    with lock_of(database_url) as lock, engine.connect() as connection:
        holder = holder_of(lock)
        assert lock.is_alive()
        asked = connection.execute(last_statement, {"pid": holder.pid}).scalar()
    assert "pg_locks" in str(asked)


def test_word_from_the_server_is_no_loss(database_url):
    with lock_of(database_url) as lock, psycopg.connect(database_url, autocommit=True) as admin:
        session_of(lock).execute("LISTEN somebody")
        admin.execute("NOTIFY somebody")
        assert lock.is_alive()
        assert lock.is_alive()


def test_a_released_lock_is_not_alive(database_url):
    lock = lock_of(database_url)
    assert not lock.is_alive()
    assert lock.acquire()
    lock.release()
    lock.release()
    assert not lock.is_alive()
    assert lock.holder() is None


def test_a_lost_lock_is_taken_again(database_url):
    with lock_of(database_url) as lock:
        terminate(database_url, lock)
        assert lock.reacquire()
        assert lock.is_alive()
        assert holder_of(lock).run_id == FIRST


def test_a_lock_that_another_run_took_meanwhile_is_not_taken_again(database_url):
    with lock_of(database_url) as lock:
        terminate(database_url, lock)
        with lock_of(database_url, SECOND) as other:
            assert not lock.reacquire()
            assert holder_of(lock).run_id == SECOND
            assert other.is_alive()


def test_a_session_that_only_the_server_still_believes_in_is_ended(database_url):
    """The network dropped the connection: we know, the server does not."""
    with lock_of(database_url) as lock:
        ghost = session_of(lock)
        # What a cut cable leaves behind, as far as both ends can tell.
        lock._connection = None
        assert lock.reacquire()
        assert holder_of(lock).pid != ghost.info.backend_pid
        with pytest.raises(psycopg.OperationalError):
            ghost.execute("SELECT 1")
        ghost.close()


def test_the_lock_of_a_killed_session_is_free_at_once(database_url):
    lock = lock_of(database_url)
    assert lock.acquire()
    terminate(database_url, lock)
    started = time.monotonic()
    with lock_of(database_url, SECOND):
        assert time.monotonic() - started < 5
    lock.release()


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1"):
        lock_of("postgresql://u:p@127.0.0.1:1/db").acquire()
