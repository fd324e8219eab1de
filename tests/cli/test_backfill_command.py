"""`persona-etl backfill replay` as a person or cron meets it: what it prints, and how it ends."""

from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest

from etl.map import SHIPPED
from etl.sandbox import running_sandbox
from etl.store.lock import WriterLock
from tests.cli.test_completion import offered
from tests.cli.test_sync_command import LOCKS, rows, run, started, wait_until
from tests.local_revisions import MOOD, write

REPLAY = ("backfill", "replay")
CHECK = (*REPLAY, "--check")
KEYS = ["run_id", "command", "status", "started_at", "finished_at"]
KEYS += ["checked", "differences", "first", "mended"]


@pytest.fixture
def url(database_url, tmp_path, monkeypatch):
    """The URL of a database with four personas. The API is gone, and so is its key."""
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", database_url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with running_sandbox(count=4, moving=False) as sandbox, monkeypatch.context() as meanwhile:
        meanwhile.setenv("ANAM_API_KEY", sandbox.key)
        meanwhile.setenv("ANAM_API_URL", sandbox.url)
        assert run("sync", *sandbox.persona_ids).exit_code == 0
    return database_url


def spoil(url: str, statement: str) -> None:
    with psycopg.connect(url, options="-c search_path=anam") as connection:
        connection.execute(statement)


def test_nothing_that_differs_is_one_line(url):
    result = run(*CHECK)
    assert (result.exit_code, result.stderr) == (0, "")
    (versions, entities) = rows(
        url, "SELECT count(*), count(DISTINCT (kind, entity_id)) FROM document_versions"
    )[0]
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"nothing differs: {versions} versions of {entities} entities, ")
    assert line.endswith(f" rows in {len(SHIPPED.projections())} tables")
    result = run(*CHECK, "--table", "voices", "--table", "brains")
    assert result.stdout.endswith(" rows in 4 tables\n")
    assert "version" not in result.stdout
    assert rows(url, "SELECT command FROM runs") == [("sync",)]


def test_what_differs_is_told_by_table_key_and_column_and_exits_8(url):
    spoil(url, "UPDATE brains SET system_prompt = 'Be evil.\n\x1b[31m'")
    spoil(url, "DELETE FROM voice_display_tags")
    tags = len(rows(url, "SELECT 1 FROM documents WHERE kind = 'voice'"))
    result = run(*CHECK)
    assert result.exit_code == 8
    lines = result.stdout.splitlines()
    (persona_id,) = rows(url, "SELECT persona_id FROM brains ORDER BY 1 LIMIT 1")[0]
    (told,) = [line for line in lines if line.startswith(f"brains {persona_id}: ")]
    assert 'system_prompt is "Be evil.\\n\\u001b[31m"' in told
    assert len([line for line in lines if line.startswith("voice_display_tags ")]) > 0
    assert [line.split() for line in lines[-2:]] == [
        ["voice_display_tags", str(len(lines) - 6)],
        ["brains", "4"],
    ]
    assert tags > 0
    (error,) = result.stderr.splitlines()
    assert error.endswith(
        "differences; `persona-etl backfill replay` mends them, when no other run holds the lock"
    )
    # A difference is no success: quiet or not.
    assert run("-q", *CHECK).stdout == result.stdout


def test_of_many_differences_the_first_are_told_and_all_are_counted(url):
    spoil(url, "UPDATE document_versions SET changed_paths = ARRAY['x'], run_id = NULL")
    versions = len(rows(url, "SELECT 1 FROM document_versions"))
    lines = run(*CHECK).stdout.splitlines()
    assert len(lines) == 22
    assert lines[20] == f"… and {2 * versions - 20} more"
    assert lines[-1].split() == ["document_versions", str(2 * versions)]


def test_it_mends_and_says_what(url):
    spoil(url, "UPDATE personas SET name = 'x'")
    result = run(*REPLAY)
    assert (result.exit_code, result.stderr) == (0, "")
    (run_id,) = rows(url, "SELECT run_id FROM runs WHERE command = 'backfill replay'")[0]
    first, *told, last = result.stdout.splitlines()
    assert first.startswith("backfill replay succeeded in ")
    assert first.endswith(f" s, run {run_id}")
    assert len(told) == 4
    assert all(line.startswith("personas ") and 'name is "x"' in line for line in told)
    assert last.split() == ["personas", "4", "mended"]
    assert run("-q", *CHECK).output == ""
    first, last = run(*REPLAY).stdout.splitlines()
    assert last.startswith("nothing differs: ")


def test_of_many_differences_those_that_only_filled_what_was_empty_are_counted(url):
    columns = ("name", "llm_id", "created_at", "skip_greeting", "zero_data_retention")
    spoil(url, f"UPDATE personas SET {', '.join(f'{c} = NULL' for c in columns)}, extra = '[]'")
    spoil(url, "UPDATE voices SET display_name = 'x'")
    voices = len(rows(url, "SELECT 1 FROM voices"))
    _, *told, last, _, _ = run(*REPLAY).stdout.splitlines()
    assert len(told) == voices
    assert all('display_name is "x"' in line for line in told)
    assert last == f"… and {4 * (len(columns) + 1)} more"


def test_migrate_says_when_new_columns_are_to_be_filled(url, tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_MIGRATIONS__LOCAL_DIR", str(tmp_path / "ours"))
    write(tmp_path / "ours", 1, [MOOD])
    *_, last = run("migrate").stdout.splitlines()
    assert last == "Next: `persona-etl backfill replay` fills the new columns."
    assert "Next" not in run("migrate").stdout
    assert "Next" not in run("migrate", "--local-to", "base").stdout
    script = run("migrate", "--sql").stdout
    assert "-- Then: persona-etl backfill replay, which fills new columns\n" in script


def test_quiet_success_says_nothing(url):
    spoil(url, "UPDATE personas SET name = 'x'")
    result = run("-q", *REPLAY)
    assert (result.exit_code, result.output) == (0, "")


def test_json_is_one_object_with_the_documented_keys(url):
    spoil(url, "UPDATE personas SET name = 'x', widget_config = '[1]'")
    checked = run(*CHECK, "--json")
    told = json.loads(checked.stdout)
    assert list(told) == KEYS
    assert (checked.exit_code, told["run_id"], told["status"]) == (8, None, "failed")
    assert (told["differences"], told["mended"]) == ({"personas": 8}, {})
    assert set(told["checked"]) == {"documents", "observations", "versions", "rows"}
    first = told["first"][0]
    assert set(first) == {"table", "key", "column", "problem", "is", "should_be"}
    assert (first["table"], first["problem"], first["column"]) == ("personas", "differs", "name")
    assert (first["is"], list(first["key"])) == ("x", ["persona_id"])
    mended = json.loads(run(*REPLAY, "--json").stdout)
    assert (mended["status"], mended["mended"]) == ("succeeded", {"personas": 8})
    assert (mended["first"], mended["command"]) == (told["first"], "backfill replay")
    again = json.loads(run("-q", *CHECK, "--json").stdout)
    assert (again["status"], again["differences"], again["first"]) == ("succeeded", {}, [])
    assert all(number > 0 for number in again["checked"].values())


def test_a_table_that_is_none_is_told_with_the_nearest(url):
    result = run(*CHECK, "--table", "voice")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no table 'voice' is replayed. Did you mean 'voices'?" in result.stderr
    # What a run enters is no part of history.
    assert run(*REPLAY, "--table", "runs").exit_code == 2


def test_tables_are_completed():
    words = "persona-etl backfill replay --table"
    assert offered(words, "voice_d") == [
        "plain,voice_display_tags",
        "plain,voice_detection_options",
    ]
    assert offered("persona-etl backfill", "r") == ["plain,replay"]


@pytest.mark.parametrize("command", [CHECK, REPLAY])
def test_a_schema_that_is_not_at_head_exits_6(url, command):
    spoil(url, "UPDATE alembic_version SET version_num = 'from-the-future'")
    result = run(*command)
    assert (result.exit_code, result.stdout) == (6, "")
    assert "does not know" in result.stderr


def test_no_embedded_database_is_made_to_look_into(url, tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", f"embedded:{tmp_path}/new")
    result = run(*REPLAY)
    assert result.exit_code == 6
    assert "run `persona-etl migrate`" in result.stderr
    assert not (tmp_path / "new").exists()


def test_while_another_holds_the_lock_it_is_75_and_a_check_goes_on(url):
    with WriterLock(url, "anam", command="sync", run_id=UUID(int=7)):
        result = run(*REPLAY, "--json")
        assert run(*CHECK).exit_code == 0
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (75, "skipped")
    assert f"another run holds the lock: sync run {UUID(int=7)}" in result.stderr


def test_a_document_that_is_lost_is_told_and_what_to_do(url):
    spoil(url, """UPDATE documents SET document = document || '{"x": 1}' WHERE kind = 'voice'""")
    for command in (CHECK, REPLAY):
        result = run(*command)
        assert result.exit_code == 8
        assert "document is \\x" in result.stdout
        assert "can't be mended: a document is not what it was" in result.stderr
        assert "restore it from a backup" in result.stderr
    assert rows(url, "SELECT status FROM runs WHERE command = 'backfill replay'") == [("partial",)]


@contextmanager
def waiting(url: str, *command: str, table: str):
    """The command, at the point where it needs a table that somebody has locked."""
    with psycopg.connect(url, options="-c search_path=anam") as someone:
        someone.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        with started(*command) as process:
            wait_until(lambda: rows(url, f"{LOCKS} AND NOT granted"))
            yield process, someone


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_two_signals_end_a_replay_at_once_and_the_next_goes_on(url, number, code):
    spoil(url, "UPDATE avatars SET display_name = 'x'")
    spoil(url, "UPDATE personas SET name = 'x'")
    avatars = len(rows(url, "SELECT 1 FROM avatars"))
    with waiting(url, *REPLAY, "--json", table="brains") as (process, _):
        process.send_signal(number)
        # The driver looks for signals ten times a second: until then two are one.
        time.sleep(0.2)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
    told = json.loads(stdout)
    assert (process.returncode, told["status"]) == (code, "interrupted")
    assert "Traceback" not in stderr
    # A batch counts when it is committed: that of the avatars was, that of the personas was not.
    assert told["mended"] == {"avatars": avatars}
    assert rows(
        url, "SELECT status FROM runs WHERE finished_at IS NOT NULL ORDER BY started_at"
    ) == [
        ("succeeded",),
        ("interrupted",),
    ]
    assert json.loads(run(*REPLAY, "--json").stdout)["mended"] == {"personas": 4}


def test_the_first_signal_lets_a_replay_end_its_batch(url):
    spoil(url, "UPDATE personas SET name = 'x'")
    spoil(url, "UPDATE brains SET system_prompt = 'x'")
    with waiting(url, *REPLAY, "--json", table="brains") as (process, someone):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        someone.rollback()
        stdout, stderr = process.communicate(timeout=20)
    told = json.loads(stdout)
    assert (process.returncode, told["status"]) == (143, "interrupted")
    assert told["mended"] == {"personas": 4, "brains": 4}
    assert "Traceback" not in stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_check(url, number, code):
    with waiting(url, *CHECK, table="brains") as (process, _):
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (code, "")
    assert "Traceback" not in stderr


def test_a_role_that_may_only_read_may_check_and_is_told_what_a_replay_lacks(
    url, plain_role, monkeypatch
):
    role_url, execute = plain_role
    execute("GRANT USAGE ON SCHEMA anam TO {role}")
    execute("GRANT SELECT ON ALL TABLES IN SCHEMA anam TO {role}")
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", role_url)
    assert run(*CHECK).exit_code == 0
    result = run(*REPLAY)
    assert result.exit_code == 6
    assert "grant the privilege" in result.stderr
    assert "Traceback" not in result.stderr
