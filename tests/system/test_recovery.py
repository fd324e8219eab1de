"""Dumps and restores, passwords and keys that change: what docs/operations.md tells to type."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
from click.testing import CliRunner, Result

from etl.cli.main import cli
from etl.sandbox import Fault
from etl.store.cluster import installation
from etl.store.embedded import embedded_server
from tests.run_under_way import a_run_under_way
from tests.system.conftest import PASSWORD, create_role
from tests.system.server import programs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Typed = Callable[..., Result]

HISTORY = (
    "SELECT persona_id, version, name, valid_from, valid_to, change"
    " FROM anam_reporting.persona_history ORDER BY 1, 2"
)
RUNS = "SELECT run_id, status FROM anam.runs ORDER BY started_at"
WHOLE = ("--schema=anam", "--schema=anam_reporting")
RESTORE = ("--no-owner", "--no-privileges", "--single-transaction")


@pytest.fixture
def restored(database, tmp_path):
    """What dumps the database with these options, and restores it as another role's; its URL."""

    def restore(*options: str) -> str:
        target = f"{database.name} restored"
        database.execute("DROP DATABASE IF EXISTS {target}", target=target)
        database.execute("CREATE DATABASE {target} OWNER {other}", target=target, other=other)
        dump = tmp_path / "dump"
        postgres("pg_dump", database.url(), *options, "--format=custom", f"--file={dump}")
        url = f"postgresql://{quote(other)}:{quote(PASSWORD, safe='')}@127.0.0.1"
        url += f":{database.port}/{quote(target)}"
        postgres("pg_restore", url, *RESTORE, str(dump))
        return url

    other = f"other {database.name}"
    create_role(database, other)
    yield restore
    database.execute("DROP DATABASE IF EXISTS {target}", target=f"{database.name} restored")
    database.execute("DROP ROLE {other}", other=other)


def postgres(program: str, url: str, *arguments: str, folder: Path | None = None) -> None:
    command = [str((folder or programs()) / program), f"--dbname={url}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as session:
        return session.execute(statement.encode()).fetchall()


@pytest.fixture
def world(api):
    """The API, whose personas are afterwards as they were."""
    yield api.world
    api.reset()


@pytest.fixture
def typed(job, monkeypatch):
    """What types a command in this process, as a fresh one takes most of a second to start."""
    monkeypatch.chdir(job.folder)

    def type_(url: str, *arguments: str, **environment: str) -> Result:
        chosen = job.environment(url, **environment)
        return CliRunner().invoke(cli, arguments, env=chosen, catch_exceptions=False)

    return type_


def synced(typed: Typed, url: str, **environment: str) -> dict[str, int]:
    """What a sync that went well counted, zeros aside."""
    done = typed(url, "sync", "--json", **environment)
    assert (done.exit_code, done.stderr) == (0, "")
    counts = json.loads(done.stdout)["counts"]
    return {name: count for name, count in counts.items() if count and name != "requested"}


def nothing_differs(typed: Typed, url: str) -> bool:
    return typed(url, "backfill", "replay", "--check").exit_code == 0


def last_status(url: str) -> str:
    """How the last run ended, by its books."""
    ((status,),) = ask(url, "SELECT status FROM anam.runs ORDER BY started_at DESC LIMIT 1")
    return str(status)


def test_a_restored_dump_is_the_same_and_goes_on(database, typed, restored, world, tmp_path):
    url = database.url()
    assert typed(url, "migrate", "--grant-writer", database.owner).exit_code == 0
    synced(typed, url)
    world.edit(world.persona_ids[0], {"name": "Edited"})
    assert synced(typed, url) == {"updated": 1, "unchanged": 2}
    history, ledger = ask(url, HISTORY), ask(url, RUNS)
    dump = tmp_path / "whole"
    postgres("pg_dump", url, *WHOLE, "--format=custom", f"--file={dump}")
    with embedded_server(tmp_path / "newer", durable=False) as newer:
        postgres("pg_restore", newer, *RESTORE, str(dump), folder=installation() / "bin")
        # Without the views; they are somebody else's now.
        for copy in (newer, restored("--schema=anam")):
            migrated = typed(copy, "migrate")
            assert (migrated.exit_code, migrated.stderr) == (0, "")
            assert "already; its views are made anew" in migrated.stdout
            assert nothing_differs(typed, copy)
            assert (ask(copy, HISTORY), ask(copy, RUNS)) == (history, ledger)
            assert typed(copy, "status", "--max-age", "1h").exit_code == 0
            assert synced(typed, copy) == {"unchanged": 3}
            assert ask(copy, HISTORY) == history


def test_what_a_dump_has_not_seen_comes_back_from_an_export(database, api, typed, restored, world):
    url = database.url()
    assert typed(url, "migrate").exit_code == 0
    synced(typed, url)
    edited, removed, _ = api.persona_ids
    copy = restored(*WHOLE)
    for name in ("Tuesday", "Wednesday"):
        world.edit(edited, {"name": name})
        synced(typed, url)
    world.delete(removed)
    synced(typed, url)
    since = ("--since", "2026-01-01", "-o", "since.ndjson.gz")
    assert typed(url, "export", *since).exit_code == 0
    # The API alone tells of nothing but the present, and the removal as of now.
    synced(typed, copy)
    names = [row[2] for row in ask(copy, HISTORY) if str(row[0]) == edited]
    assert names[1:] == ["Wednesday"]
    assert typed(copy, "backfill", "files", "since.ndjson.gz").exit_code == 0
    assert ask(copy, HISTORY) == ask(url, HISTORY)
    assert nothing_differs(typed, copy)


def test_a_dump_of_a_run_under_way_is_of_one_moment_and_heals(database, api, typed, restored):
    url = database.url()
    assert typed(url, "migrate").exit_code == 0
    with a_run_under_way(api.world, lambda: typed(url, "sync")) as ended:
        copy = restored(*WHOLE)
    assert ended[0].exit_code == 0
    assert "died" in typed(copy, "status").stdout
    assert synced(typed, copy) == {"created": 3}
    assert [status for _, status in ask(copy, RUNS)] == ["crashed", "succeeded"]
    assert nothing_differs(typed, copy)


def test_a_run_outlives_a_change_of_its_password(database, api, typed):
    url = database.url()
    assert typed(url, "migrate").exit_code == 0
    with a_run_under_way(api.world, lambda: typed(url, "sync")) as ended:
        database.execute("ALTER ROLE {owner} PASSWORD 'another'")
    renewed = url.replace(quote(PASSWORD, safe=""), "another")
    assert (ended[0].exit_code, last_status(renewed)) == (0, "succeeded")
    refused = typed(url, "sync")
    assert refused.exit_code == 6
    assert "password authentication failed" in refused.stderr
    assert refused.stderr.endswith("; check the user and password in database.url\n")
    assert synced(typed, renewed) == {"unchanged": 3}


def test_a_run_keeps_its_key_and_the_next_takes_the_new_one(database, api, typed, tmp_path):
    url, key = database.url(), tmp_path / "key"
    chosen = {"PERSONA_ETL_API__API_KEY_FILE": str(key), "ANAM_API_KEY": ""}
    write_key(key, api.key)
    assert typed(url, "migrate").exit_code == 0
    with a_run_under_way(api.world, lambda: typed(url, "sync", **chosen)) as ended:
        write_key(key, "another")
    assert ended[0].exit_code == 0
    refused = typed(url, "sync", **chosen)
    assert refused.exit_code == 4
    assert "the API refuses the key; check ANAM_API_KEY or api.api_key_file" in refused.stderr
    write_key(key, api.key)
    assert synced(typed, url, **chosen) == {"unchanged": 3}


def write_key(file: Path, key: str) -> None:
    """In one step: nobody reads half a key."""
    new = file.with_suffix(".new")
    new.write_text(key)
    new.chmod(0o600)
    new.replace(file)


def test_a_key_that_is_revoked_during_a_run_ends_it_and_the_next_heals(database, api, typed):
    url = database.url()
    one_by_one = {"PERSONA_ETL_API__CONCURRENCY": "1"}
    assert typed(url, "migrate").exit_code == 0
    try:
        with a_run_under_way(api.world, lambda: typed(url, "sync", **one_by_one)) as ended:
            api.order(Fault(status=401, times=None))
        assert (ended[0].exit_code, last_status(url)) == (4, "failed")
    finally:
        api.clear_faults()
    assert synced(typed, url) == {"created": 2, "unchanged": 1}
    assert nothing_differs(typed, url)
