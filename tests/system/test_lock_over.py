"""One run at a time, whichever way each of them is connected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from etl.sandbox import Fault
from etl.store.session import connection_arguments, open_session
from tests.system.conftest import PASSWORD
from tests.system.server import running_pgbouncer


@pytest.fixture(scope="module")
def pool(server):
    with running_pgbouncer(server) as port:
        yield port


@pytest.fixture
def ways(server, database, pool):
    """The URLs of one database: over TCP, a socket, a PgBouncer."""
    login = f"{quote(database.owner)}:{quote(PASSWORD, safe='')}"
    return {
        "TCP": database.url(),
        "a socket": database.url(f"?host={server.folder}", host=""),
        "PgBouncer": f"postgresql://{login}@127.0.0.1:{pool}/{quote(database.name)}",
    }


@contextmanager
def a_run_that_waits(job, url: str):
    """A `sync` in a process of its own that holds the lock and waits for the API."""
    last = job.api.persona_ids[-1]
    job.api.requests.clear()
    job.api.order(Fault(delay_seconds=60, target=last))
    process = subprocess.Popen(
        [sys.executable, "-m", "etl", "sync", "--json"],
        cwd=job.folder,
        env=job.environment(url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            deadline = time.monotonic() + 60
            while not job.api.requests.by_target[last]:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("first", ["TCP", "a socket", "PgBouncer"])
def test_a_second_run_is_told_who_holds_the_lock(first, ways, database, job):
    assert job.run("migrate", url=ways["TCP"]).returncode == 0
    with a_run_that_waits(job, ways[first]) as process:
        for second in ways.values():
            done = job.run("sync", "--json", url=second)
            assert done.returncode == 75
            assert json.loads(done.stdout)["status"] == "skipped"
            assert "lock: sync run " in done.stderr
            assert f" on {os.uname().nodename} since 20" in done.stderr
        process.terminate()
        stdout, _ = process.communicate(timeout=60)
        assert (process.returncode, json.loads(stdout)["status"]) == (143, "interrupted")
    counts = job.synced(ways["TCP"])
    assert counts["created"] + counts["unchanged"] == 3


@pytest.mark.parametrize("way", ["TCP", "a socket", "PgBouncer"])
def test_the_lock_of_a_killed_run_is_free(way, ways, database, job):
    assert job.run("migrate", url=ways["TCP"]).returncode == 0
    with a_run_that_waits(job, ways[way]) as process:
        process.kill()
        process.wait()
    held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND database = %s::oid"
    (oid,) = database.execute("SELECT oid FROM pg_database WHERE datname = current_database()")[0]
    deadline = time.monotonic() + 20
    while database.admin.execute(held, [oid]).fetchall():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert job.synced(ways["TCP"])["requested"] == 3
    statuses = database.execute("SELECT status FROM anam.runs ORDER BY started_at")
    assert statuses == [("crashed",), ("succeeded",)]


def test_a_host_without_power_keeps_the_lock_for_a_minute(database):
    query = "SELECT setting::integer FROM pg_settings WHERE name = %s"
    with open_session(connection_arguments(database.url(), "persona-etl")) as session:
        ((idle,),) = session.execute(query, ["tcp_keepalives_idle"]).fetchall()
        ((interval,),) = session.execute(query, ["tcp_keepalives_interval"]).fetchall()
        ((count,),) = session.execute(query, ["tcp_keepalives_count"]).fetchall()
    # Linux asks after two hours for the first time, unless told otherwise.
    assert idle + interval * count == 60
