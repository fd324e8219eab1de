"""`persona-etl sync` as a person or cron meets it: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from etl.cli.main import cli
from etl.sandbox import Fault, running_sandbox
from etl.store.lock import WriterLock

UNKNOWN = "00000000-0000-4000-8000-0000000000ff"
KEYS = ["run_id", "command", "status", "started_at", "finished_at", "counts"]
KEYS += ["value_issues", "new_drift_paths", "http_requests"]
COUNTS = ["requested", "created", "updated", "reshaped", "unchanged", "restored", "missing"]
COUNTS += ["forbidden", "rejected", "failed", "not_attempted"]


@pytest.fixture
def sandbox():
    with running_sandbox(count=4, key="canary-key", moving=False) as running:
        yield running


@pytest.fixture
def environment(sandbox, database_url, tmp_path, monkeypatch):
    """What the command finds set, in this process and in those that it starts."""
    found = {
        "ANAM_API_KEY": sandbox.key,
        "ANAM_API_URL": sandbox.url,
        "PERSONA_ETL_DATABASE__URL": database_url,
        "PERSONA_ETL_PERSONAS__IDS": ",".join(sandbox.persona_ids),
        "XDG_CONFIG_HOME": str(tmp_path),
        "HOME": str(tmp_path),
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return found


def run(*arguments: str, **options):
    """Runs the command in this process."""
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False, **options)


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, options="-c search_path=anam") as connection:
        return connection.execute(statement).fetchall()


@contextmanager
def started(*arguments: str):
    """The command in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "etl", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# Locks of this test's database: others run beside it on the same server.
LOCKS = (
    "SELECT 1 FROM pg_locks"
    " WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def wait_until(done) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_copies_the_configured_personas_and_says_what_it_did(environment):
    first = run("sync")
    assert first.exit_code == 0
    assert first.stderr == ""
    lines = first.stdout.splitlines()
    assert lines[0].startswith("sync succeeded in ")
    assert [line.split() for line in lines[1:]] == [
        ["requested", "4"],
        ["created", "4"],
        ["requests", "4"],
    ]
    (run_id,) = rows(environment["PERSONA_ETL_DATABASE__URL"], "SELECT run_id FROM runs")[0]
    assert str(run_id) in lines[0]


def test_json_is_one_object_with_the_documented_keys(environment):
    result = run("sync", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 1
    told = json.loads(result.stdout)
    assert list(told) == KEYS
    assert list(told["counts"]) == COUNTS
    assert (told["command"], told["status"], told["counts"]["created"]) == ("sync", "succeeded", 4)
    assert told["started_at"] < told["finished_at"]


def test_quiet_success_says_nothing(environment):
    result = run("-q", "sync")
    assert (result.exit_code, result.output) == (0, "")
    result = run("-q", "sync", "--json")
    assert (result.stderr, json.loads(result.stdout)["status"]) == ("", "succeeded")


def test_quiet_says_what_went_wrong(environment, sandbox):
    sandbox.order(Fault(status=403, target=sandbox.persona_ids[0]))
    result = run("-q", "sync")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "1 of 4" in result.stderr
    assert sandbox.persona_ids[0] in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_verbose_tells_each_persona_and_never_the_key(environment, sandbox):
    result = run("-v", "sync")
    for persona_id in sandbox.persona_ids:
        assert f"GET /v1/personas/{persona_id}: 200" in result.stderr
    assert "canary-key" not in result.output


def test_ids_come_from_arguments_a_file_or_standard_input(environment, sandbox, tmp_path):
    first, second, third, _ = sandbox.persona_ids

    def asked(*arguments: str, **options: object) -> int:
        result = run("sync", "--json", *arguments, **options)
        assert result.exit_code == 0, result.output
        requested: int = json.loads(result.stdout)["counts"]["requested"]
        return requested

    assert asked(first) == 1
    assert asked(first, second, first.upper()) == 2
    file = tmp_path / "ids.txt"
    file.write_text(f"# mine\n{first}\n\n{second}  # hers\n{first}\n")
    assert asked("--ids-from", str(file)) == 2
    assert asked(third, first, "--ids-from", str(file)) == 3
    assert asked("--ids-from", "-", input=f"{second}\r\n{third}") == 2
    assert sandbox.requests.total == 10


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["abc"], '"abc" is not a UUID'),
        (["--ids-from", "-"], "no ids"),
        (["--ids-from", "nowhere.txt"], "nowhere.txt"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(environment, sandbox, arguments, told):
    result = run("sync", *arguments, input="# none\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert sandbox.requests.total == 0
    assert rows(environment["PERSONA_ETL_DATABASE__URL"], "SELECT 1 FROM runs") == []


@pytest.mark.parametrize("missing", ["ANAM_API_KEY", "PERSONA_ETL_DATABASE__URL"])
def test_a_missing_setting_is_named(environment, monkeypatch, missing):
    monkeypatch.delenv(missing)
    result = run("sync")
    assert (result.exit_code, result.stdout) == (2, "")
    assert missing in result.stderr


def test_no_personas_is_a_mistake(environment, monkeypatch):
    monkeypatch.delenv("PERSONA_ETL_PERSONAS__IDS")
    result = run("sync")
    assert result.exit_code == 2
    assert "no personas" in result.stderr


def test_partial_is_3_and_names_the_first(environment, sandbox):
    sandbox.order(Fault(body=b"<html>", target=sandbox.persona_ids[1]))
    result = run("sync", "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["status"], told["counts"]["rejected"]) == (3, "partial", 1)
    assert sandbox.persona_ids[1] in result.stderr
    assert told["run_id"] in result.stderr


@pytest.mark.parametrize(
    ("fault", "code", "ended"),
    [
        (Fault(status=401), 4, "failed: check ANAM_API_KEY"),
        (Fault(status=403), 4, "failed: 403 for all 4"),
        (Fault(status=429, headers={"Retry-After": "9999"}), 5, "deferred: 9999 s"),
        (Fault(status=400), 5, "failed: none of 4 personas"),
    ],
)
def test_what_ends_a_run_is_one_line_on_stderr(environment, sandbox, fault, code, ended):
    sandbox.order(replace(fault, times=None))
    result = run("sync", "--json")
    status, told = ended.split(": ")
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (code, status)
    (line,) = result.stderr.splitlines()
    assert line.startswith("persona-etl: error: ")
    assert told in line


def test_a_safety_stop_is_7_and_says_what_to_do(environment, sandbox):
    run("sync")
    ids = sandbox.persona_ids
    for persona_id in ids:
        sandbox.world.delete(persona_id)
    result = run("sync")
    assert result.exit_code == 7
    assert "--allow-mass-removal" in result.stderr
    assert "missing" in result.stdout
    assert run("sync", "--allow-mass-removal").exit_code == 0
    url = environment["PERSONA_ETL_DATABASE__URL"]
    assert rows(url, "SELECT count(*) FROM personas WHERE removed_at IS NULL") == [(0,)]


def test_strict_is_7(environment, sandbox):
    sandbox.world.reshape(lambda payload: payload | {"mood": 1})
    result = run("sync", "--strict", "--json")
    assert result.exit_code == 7
    assert json.loads(result.stdout)["new_drift_paths"] == 1
    assert "persona: mood" in result.stderr


def test_an_id_that_nobody_knows_is_named_on_stderr(environment, sandbox):
    result = run("sync", UNKNOWN, sandbox.persona_ids[0])
    assert result.exit_code == 0
    assert UNKNOWN in result.stderr
    assert UNKNOWN not in result.stdout


def test_an_unmigrated_schema_is_6(environment, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_DATABASE__SCHEMA", "elsewhere")
    result = run("sync", "--json")
    assert (result.exit_code, result.stdout) == (6, "")
    assert "run `persona-etl migrate`" in result.stderr


def test_an_unreachable_database_is_6_and_its_password_is_not_told(environment, monkeypatch):
    url = "postgresql://someone:canary-password@127.0.0.1:1/nowhere"
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", url)
    result = run("-v", "sync")
    assert (result.exit_code, result.stdout) == (6, "")
    assert "canary" not in result.output


def test_a_bug_is_1_with_a_traceback_that_shows_no_data(environment, sandbox):
    url = environment["PERSONA_ETL_DATABASE__URL"]
    with psycopg.connect(url, autocommit=True, options="-c search_path=anam") as connection:
        connection.execute("""
            CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'this is a bug'; END $$;
            CREATE TRIGGER trouble BEFORE INSERT ON brains
               FOR EACH ROW EXECUTE FUNCTION trouble();
        """)
    prompt = "The recipe has seven secret herbs."
    sandbox.world.edit(sandbox.persona_ids[0], {"brain": {"systemPrompt": prompt}})
    result = run("-v", "sync", "--json")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "this is a bug" in result.stderr
    assert "recipe" not in result.output
    assert json.loads(result.stdout)["status"] == "failed"
    ((status, error),) = rows(url, "SELECT status, error FROM runs")
    assert status == "failed"
    assert str(error).endswith("see the traceback")


# ── Processes of their own ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def half_way(environment, sandbox):
    """The sandbox answers for all but the last, which it keeps waiting for."""
    sandbox.order(Fault(delay_seconds=60, target=sandbox.persona_ids[3]))
    return environment["PERSONA_ETL_DATABASE__URL"]


def test_ctrl_c_ends_it_cleanly_and_the_next_run_goes_on(half_way):
    with started("sync", "--json") as process:
        wait_until(lambda: rows(half_way, "SELECT 1 FROM personas"))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    told = json.loads(stdout)
    assert (process.returncode, told["status"]) == (130, "interrupted")
    assert (told["counts"]["created"], told["counts"]["not_attempted"]) == (3, 1)
    assert stderr.splitlines() == [
        "persona-etl: error: interrupted; what was loaded stays, the next run goes on"
    ]
    assert rows(half_way, "SELECT status, created, finished_at IS NULL FROM runs") == [
        ("interrupted", 3, False)
    ]
    result = run("sync", "--json")
    counts = json.loads(result.stdout)["counts"]
    assert (counts["created"], counts["unchanged"]) == (1, 3)


def test_sigterm_while_loading_waits_for_the_batch(half_way):
    with psycopg.connect(half_way, options="-c search_path=anam") as someone:
        someone.execute("LOCK TABLE personas IN SHARE MODE")
        with started("sync", "--json") as process:
            wait_until(lambda: rows(half_way, f"{LOCKS} AND NOT granted"))
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert process.poll() is None
            someone.rollback()
            stdout, _ = process.communicate(timeout=20)
    told = json.loads(stdout)
    assert (process.returncode, told["status"]) == (143, "interrupted")
    assert told["counts"]["created"] == 3


def test_killed_it_leaves_a_run_that_the_next_one_closes(half_way, sandbox):
    with started("sync") as process:
        wait_until(lambda: rows(half_way, "SELECT 1 FROM personas"))
        process.kill()
        process.wait()
    assert rows(half_way, "SELECT status FROM runs") == [("running",)]
    # Its lock goes with its session, as soon as the server sees that it is gone.
    wait_until(lambda: not rows(half_way, f"{LOCKS} AND locktype = 'advisory'"))
    assert run("sync").exit_code == 0
    assert rows(half_way, "SELECT status, created FROM runs ORDER BY started_at") == [
        ("crashed", 3),
        ("succeeded", 1),
    ]


def test_while_another_holds_the_lock_it_is_75_and_says_who(environment):
    url = environment["PERSONA_ETL_DATABASE__URL"]
    with WriterLock(url, "anam", command="backfill replay", run_id=UUID(int=7)):
        result = run("sync", "--json")
    assert result.exit_code == 75
    assert json.loads(result.stdout)["status"] == "skipped"
    (line,) = result.stderr.splitlines()
    assert f"another run holds the lock: backfill replay run {UUID(int=7)} on " in line
    assert " since 20" in line
    assert rows(url, "SELECT status FROM runs") == [("skipped",)]


def test_a_dry_run_says_what_would_change_and_writes_nothing(environment, sandbox):
    url = environment["PERSONA_ETL_DATABASE__URL"]
    assert run("-q", "sync").exit_code == 0
    first, second, third, _ = sandbox.persona_ids
    sandbox.world.edit(first, {"name": "Ada", "brain": {"systemPrompt": "Be brief. " * 20}})
    sandbox.world.edit(second, {"name": "Bob\x1b[31m"})
    sandbox.world.delete(third)
    result = run("sync", "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    told = result.stdout.splitlines()
    assert f"persona {first} Ada: updated" in told
    assert any(line.startswith(("    + …", '    + "Be brief.')) for line in told)
    assert any("name: " in line and "\\u001b[31m" in line for line in told)
    assert any(line.startswith(f"persona {third} ") and line.endswith(": removed") for line in told)
    assert any(
        line.startswith("sync succeeded in") and "nothing was written" in line for line in told
    )
    assert max(map(len, told)) <= 80
    assert rows(url, "SELECT count(*) FROM runs") == [(1,)]
    assert rows(url, "SELECT count(*) FROM personas WHERE removed_at IS NOT NULL") == [(0,)]
    assert run("-q", "sync", "--dry-run").output == ""


def test_a_dry_run_as_json_has_no_run_and_lists_the_changes(environment, sandbox):
    assert run("-q", "sync").exit_code == 0
    first = sandbox.persona_ids[0]
    sandbox.world.edit(first, {"voiceSpeed": 1.25, "mood": None})
    result = run("sync", "--dry-run", "--json")
    assert result.exit_code == 0
    assert "persona: mood (new field)" in result.stderr
    told = json.loads(result.stdout)
    assert list(told) == [*KEYS, "changes"]
    assert told["run_id"] is None
    assert (told["status"], told["counts"]["updated"]) == ("succeeded", 1)
    (change,) = told["changes"]
    assert (change["kind"], change["id"], change["outcome"]) == ("persona", first, "updated")
    assert {field["path"]: field for field in change["fields"]} == {
        "mood": {"path": "mood", "new": None},
        "voiceSpeed": change["fields"][1] | {"path": "voiceSpeed", "new": 1.25},
    }


def test_a_dry_run_ends_as_the_run_would(environment, sandbox):
    sandbox.order(Fault(status=403, target=sandbox.persona_ids[0]))
    result = run("sync", "--dry-run")
    assert result.exit_code == 3
    assert f"persona {sandbox.persona_ids[0]}: forbidden" in result.stdout
    assert "1 of 4" in result.stderr
    for persona_id in sandbox.persona_ids:
        sandbox.order(Fault(status=401, target=persona_id))
    assert run("sync", "--dry-run").exit_code == 4


def test_all_asks_for_what_the_api_lists_besides_what_is_named(environment, sandbox, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_PERSONAS__IDS", UNKNOWN)

    def asked(*arguments: str) -> int:
        result = run("sync", "--dry-run", "--json", *arguments)
        requested: int = json.loads(result.stdout)["counts"]["requested"]
        return requested

    assert asked() == 1
    assert asked("--all") == 5
    assert asked("--all", sandbox.persona_ids[0]) == 4
    monkeypatch.setenv("PERSONA_ETL_PERSONAS__DISCOVER", "true")
    assert asked() == 5
    # Ids that are named on the command line are meant, and they alone.
    assert asked(sandbox.persona_ids[0]) == 1
    monkeypatch.delenv("PERSONA_ETL_PERSONAS__IDS")
    assert asked() == 4


def test_sigterm_while_the_list_is_read_ends_the_run_cleanly(environment, sandbox):
    sandbox.order(Fault(delay_seconds=30, target="list"))
    with started("sync", "--all", "--json") as process:
        wait_until(lambda: sandbox.requests.by_target["list"])
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=20)
    told = json.loads(stdout)
    assert (process.returncode, told["status"]) == (143, "interrupted")
    assert told["counts"]["requested"] == told["counts"]["not_attempted"]
    assert "Traceback" not in stderr


def test_a_dry_run_makes_no_embedded_database(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", f"embedded:{tmp_path}/new")
    result = run("sync", "--dry-run")
    assert result.exit_code == 6
    assert "run `persona-etl migrate`" in result.stderr
    assert not (tmp_path / "new").exists()
    assert run("migrate", "--sql").exit_code == 0
    assert not (tmp_path / "new").exists()
