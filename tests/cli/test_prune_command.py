"""`persona-etl prune` as a person or cron meets it: what it prints, and how it ends."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from etl.sandbox import running_sandbox
from etl.store.lock import WriterLock
from tests.cli.test_sync_command import rows, run

TABLES = ["document_versions", "observations", "documents", "runs", "run_items"]
TABLES += ["value_issues", "rejected_payloads"]


@pytest.fixture
def nothing(database_url, tmp_path, monkeypatch):
    """The URL of a database with nothing in its tables, where the command looks for it."""
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", database_url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return database_url


@pytest.fixture
def url(nothing, monkeypatch):
    """The same, with two personas, one of which was renamed twice."""
    with running_sandbox(count=2, moving=False) as sandbox, monkeypatch.context() as meanwhile:
        meanwhile.setenv("ANAM_API_KEY", sandbox.key)
        meanwhile.setenv("ANAM_API_URL", sandbox.url)
        for name in ("Ada", "Bea", "Cleo"):
            sandbox.world.edit(sandbox.persona_ids[0], {"name": name})
            assert run("sync", *sandbox.persona_ids).exit_code == 0
    return nothing


def test_a_dry_run_says_what_would_go_and_the_run_says_what_went(url):
    told = run("prune", "--keep-history-days", "0", "--dry-run")
    assert (told.exit_code, told.stderr) == (0, "")
    first, *lines = told.stdout.splitlines()
    assert first.endswith(" s, a dry run: nothing was written")
    assert [line.split()[:2] for line in lines] == [
        ["document_versions", "2"],
        ["observations", "2"],
        ["documents", "2,"],
    ]
    assert lines[2].endswith(" KiB")
    assert rows(url, "SELECT count(*) FROM runs WHERE command = 'prune'") == [(0,)]
    went = run("prune", "--keep-history-days", "0")
    (run_id,) = rows(url, "SELECT run_id FROM runs WHERE command = 'prune'")[0]
    assert went.stdout.splitlines()[0].endswith(f" s, run {run_id}")
    assert went.stdout.splitlines()[1:] == lines
    again = run("prune", "--keep-history-versions", "1")
    assert again.stdout.splitlines()[1:] == ["  nothing is that old"]


def test_json_names_each_table_and_quiet_says_nothing(url):
    told = run("prune", "--keep-history-days", "0", "--dry-run", "--json")
    found = json.loads(told.stdout)
    assert (found["run_id"], found["command"], found["status"]) == (None, "prune", "succeeded")
    assert list(found["rows"]) == TABLES
    assert found["document_bytes"] > 0
    quiet = run("-q", "prune", "--keep-runs-days", "0", "--json")
    went = json.loads(quiet.stdout)
    assert went["rows"] == dict.fromkeys(TABLES, 0) | {"runs": 2, "run_items": 3}
    assert rows(url, f"SELECT status FROM runs WHERE run_id = '{went['run_id']}'") == [
        ("succeeded",)
    ]
    silent = run("-q", "prune", "--keep-history-versions", "1")
    assert (silent.exit_code, silent.stdout, silent.stderr) == (0, "", "")
    assert rows(url, "SELECT count(*) FROM document_versions WHERE change = 'pruned'") == [(1,)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "nothing is to go: say what is kept, e.g. --keep-history-days 365"),
        (("--dry-run",), "nothing is to go: say what is kept"),
        (("--keep-history-versions", "0"), "0 is not in the range"),
        (("--keep-runs-days", "-1"), "-1 is not in the range"),
    ],
)
def test_what_can_not_be_meant_is_a_usage_error(nothing, arguments, told):
    result = run("prune", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert rows(nothing, "SELECT command FROM runs") == []


def test_while_another_run_holds_the_lock_nothing_goes_and_a_dry_run_tells_all_the_same(url):
    with WriterLock(url, "anam", command="sync", run_id=UUID(int=7)):
        result = run("prune", "--keep-history-days", "0")
        dry = run("prune", "--keep-history-days", "0", "--dry-run")
    assert result.exit_code == 75
    assert "another run holds the lock" in result.stderr
    assert dry.exit_code == 0
    assert "document_versions" in dry.stdout
    assert rows(url, "SELECT status FROM runs WHERE command = 'prune'") == [("skipped",)]


def test_a_role_that_may_not_delete_is_told_so(url, plain_role):
    plain, execute = plain_role
    execute("GRANT USAGE ON SCHEMA anam TO {role}")
    execute("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA anam TO {role}")
    arguments = ("prune", "--keep-history-days", "0")
    result = run(*arguments, env={"PERSONA_ETL_DATABASE__URL": plain})
    assert result.exit_code == 6
    assert "permission denied" in result.stderr
    assert rows(url, "SELECT count(*) FROM document_versions WHERE change = 'pruned'") == [(0,)]
