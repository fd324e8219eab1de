"""Behind PgBouncer: all of it in session mode, and a clear word in the others."""

from __future__ import annotations

import re
from urllib.parse import quote
from uuid import UUID

import psycopg
import pytest

from etl.store.lock import WriterLock
from tests.system.conftest import PASSWORD
from tests.system.server import running_pgbouncer


@pytest.fixture(scope="module")
def session_pool(server):
    """The port of a PgBouncer with its defaults, session mode among them."""
    with running_pgbouncer(server) as port:
        yield port


@pytest.fixture(scope="module")
def transaction_pool(server):
    with running_pgbouncer(server, pool_mode="transaction") as port:
        yield port


def through(port: int, database, parameters: str = "") -> str:
    user = f"{quote(database.owner)}:{quote(PASSWORD, safe='')}"
    return f"postgresql://{user}@127.0.0.1:{port}/{quote(database.name)}{parameters}"


def next_clients_settings(url: str) -> dict[str, str]:
    names = ("search_path", "TimeZone", "statement_timeout", "idle_session_timeout")
    with psycopg.connect(url, autocommit=True) as client:
        return {name: client.execute(f"SHOW {name}").fetchall()[0][0] for name in names}


def test_the_whole_job_runs_and_leaves_no_setting_to_the_next_client(session_pool, database, job):
    url = through(session_pool, database)
    before = next_clients_settings(url)
    job.copies(url)
    for asks in (["report", "--json"], ["query", "SELECT count(*) FROM personas"]):
        done = job.run(*asks, url=url)
        assert (done.returncode, done.stderr) == (0, "")
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    ((pooled,),) = database.admin.execute(sessions, [database.owner]).fetchall()
    assert pooled >= 3
    # Each of the sessions that we had is handed out again.
    assert next_clients_settings(url) == before


def test_a_ghost_of_ours_is_found_though_the_pooler_makes_up_process_ids(session_pool, database):
    lock = WriterLock(through(session_pool, database), "anam", command="sync", run_id=UUID(int=1))
    with lock:
        ghost = lock._connection
        assert ghost is not None
        lock._connection = None
        assert lock.reacquire()
        with pytest.raises(psycopg.OperationalError):
            ghost.execute("SELECT 1")
        ghost.close()


def test_startup_options_are_told_to_be_the_mistake(session_pool, database, job):
    line = job.fails(through(session_pool, database, "?options=-cgeqo%3Doff"))
    assert "unsupported startup parameter" in line
    assert "remove `options`" in line


def test_a_pooler_without_tls_is_told(session_pool, database, job):
    line = job.fails(through(session_pool, database, "?sslmode=require"))
    assert "does not support SSL" in line
    assert "sslmode=prefer" in line


def test_transaction_mode_is_refused_before_anything_is_set_or_made(
    transaction_pool, session_pool, database, job
):
    url = through(transaction_pool, database)
    before = next_clients_settings(url)
    for command in ("migrate", "sync", "report"):
        line = job.fails(url, command)
        assert "a pooler in transaction mode" in line
        assert "session mode" in line
    assert next_clients_settings(url) == before
    assert database.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'anam'") == []
    # Also with tables, and sessions in the pool.
    job.copies(through(session_pool, database))
    with psycopg.connect(url), psycopg.connect(url):
        assert "a pooler in transaction mode" in job.fails(url)
    assert database.execute("SELECT count(*) FROM anam.runs") == [(1,)]


def test_statement_mode_is_refused(server, database, job):
    with running_pgbouncer(server, pool_mode="statement") as port:
        line = job.fails(through(port, database), "migrate")
    assert "in statement pooling mode" in line


def test_a_pool_that_is_too_small_is_told(server, database, job):
    job.copies(database.url())
    with running_pgbouncer(server, default_pool_size="2", query_wait_timeout="1") as port:
        line = job.fails(through(port, database))
    assert re.search(r"query_wait_timeout.*a run needs four of its connections", line)


def test_four_sessions_are_enough(server, database, job):
    with running_pgbouncer(server, default_pool_size="4", query_wait_timeout="5") as port:
        job.copies(through(port, database))
