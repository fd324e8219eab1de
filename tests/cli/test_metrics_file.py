"""`metrics.textfile`: what a monitor finds after each way in which a run can end."""

from __future__ import annotations

import json
import signal
import socket
import threading
from datetime import datetime
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from etl.report.metrics import FAMILIES
from etl.sandbox import Fault, running_sandbox
from etl.store.lock import WriterLock
from etl.store.revisions import head_revision
from tests.cli.test_sync_command import LOCKS, rows, run, started, wait_until

NOWHERE = "postgresql://someone:canary-password@127.0.0.1:1/nowhere"


@pytest.fixture
def sandbox():
    with running_sandbox(count=4, key="canary-key", moving=False) as running:
        yield running


@pytest.fixture
def file(url, tmp_path, monkeypatch):
    """The file that the settings name, in a folder of its own; it is not there yet."""
    folder = tmp_path / "textfile"
    folder.mkdir()
    monkeypatch.setenv("PERSONA_ETL_METRICS__TEXTFILE", str(folder / "persona_etl.prom"))
    return folder / "persona_etl.prom"


def read(file) -> dict[str, float]:
    """By name and what the labels say, but for the schema, as Prometheus' own parser reads it."""
    text = file.read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert "canary" not in text
    return {
        " ".join([s.name.removeprefix("persona_etl_"), *list(s.labels.values())[1:]]): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, options="-c search_path=anam") as connection:
        connection.execute(statement)


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def test_it_has_each_metric_and_says_what_the_run_says(file, url):
    told = json.loads(run("sync", "--json").stdout)
    text = file.read_text(encoding="utf-8")
    names = [family.name for family in text_string_to_metric_families(text)]
    assert names == [family.name for family in FAMILIES]
    found = read(file)
    assert found["last_run_exit_code sync"] == 0
    assert found["last_run_status sync succeeded"] == 1
    ended = pytest.approx(seconds(told["finished_at"]), abs=1e-3)
    assert found["last_run_end_timestamp_seconds sync"] == ended
    assert found["last_success_timestamp_seconds"] == ended
    assert found["last_complete_timestamp_seconds"] == ended
    for outcome, count in told["counts"].items():
        if outcome != "requested":
            assert found[f"last_run_outcomes sync {outcome}"] == count
    assert found["last_run_http_requests sync"] == told["http_requests"]
    assert found["live_personas"] == 4
    assert found[f"schema_info {head_revision()}"] == 1
    took = ended.expected - found["last_run_start_timestamp_seconds sync"]
    for stage in ("settle", "fetch", "read", "load", "remove"):
        assert 0 < found[f"last_run_stage_busy_seconds sync {stage}"] < took
    assert found["last_run_stage_busy_seconds sync list"] == 0


def test_without_the_database_the_last_success_stays(file, url, monkeypatch):
    assert run("sync").exit_code == 0
    before = read(file)
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", NOWHERE)
    result = run("sync")
    assert result.exit_code == 6
    assert len(result.stderr.splitlines()) == 1
    found = read(file)
    assert (found["database_up"], found["last_run_exit_code sync"]) == (0, 6)
    for name in ("last_success_timestamp_seconds", "live_personas"):
        assert found[name] == before[name]
    # The next run that goes well knows everything again.
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", url)
    assert run("sync").exit_code == 0
    found = read(file)
    assert (found["database_up"], found["last_run_exit_code sync"]) == (1, 0)
    assert found["last_success_timestamp_seconds"] > before["last_success_timestamp_seconds"]


def test_a_database_that_does_not_answer_is_not_waited_for_a_second_time(file, url, monkeypatch):
    came = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def hangs_up() -> None:
            while True:
                with server.accept()[0] as connection:
                    came.append(connection.recv(99))

        threading.Thread(target=hangs_up, daemon=True).start()
        monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", f"postgresql://{address}/d?sslmode=disable")
        monkeypatch.delenv("PERSONA_ETL_METRICS__TEXTFILE")
        assert run("sync").exit_code == 6
        without = len(came)
        monkeypatch.setenv("PERSONA_ETL_METRICS__TEXTFILE", str(file))
        assert run("sync").exit_code == 6
    assert len(came) == 2 * without > 0
    assert read(file)["last_run_exit_code sync"] == 6


def test_a_run_that_finds_another_busy_leaves_the_numbers_of_the_last(file, url):
    assert run("sync").exit_code == 0
    before = read(file)
    with WriterLock(url, "anam", command="sync", run_id=UUID(int=7)):
        assert run("sync").exit_code == 75
        assert run("prune", "--keep-runs-days", "9").exit_code == 75
    found = read(file)
    assert found["skipped_runs"] == 2
    runs = {key: value for key, value in before.items() if key.startswith("last_run")}
    assert {key: found[key] for key in found if key.startswith("last_run")} == runs


def test_a_bug_is_told(file, url):
    execute(
        url,
        """
        CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'this is a bug'; END $$;
        CREATE TRIGGER trouble BEFORE INSERT ON brains FOR EACH ROW EXECUTE FUNCTION trouble();
        """,
    )
    assert run("sync").exit_code == 1
    found = read(file)
    assert found["last_run_exit_code sync"] == 1
    assert found["last_run_status sync failed"] == 1
    assert found["last_success_timestamp_seconds"] == 0


def test_a_run_that_was_terminated_says_so(file, sandbox):
    assert run("sync").exit_code == 0
    success = read(file)["last_success_timestamp_seconds"]
    sandbox.order(Fault(delay_seconds=60, times=None))
    asked = len(sandbox.requests.recent)
    with started("sync") as process:
        wait_until(lambda: len(sandbox.requests.recent) > asked)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    found = read(file)
    assert found["last_run_exit_code sync"] == 143
    assert found["last_run_status sync interrupted"] == 1
    assert found["last_run_outcomes sync not_attempted"] == 4
    assert found["last_success_timestamp_seconds"] == success
    assert found["database_up"] == 1


def test_a_signal_that_comes_as_it_is_written_changes_no_exit_code(file, url):
    assert run("sync").exit_code == 0
    before = file.read_bytes()
    with psycopg.connect(url, options="-c search_path=anam") as somebody:
        # A run that finds nothing changed does not need it; whoever looks at all failures does.
        somebody.execute("LOCK TABLE run_items IN ACCESS EXCLUSIVE MODE")
        waits = f"{LOCKS} AND NOT granted AND relation = 'anam.run_items'::regclass"
        with started("sync") as process:
            wait_until(lambda: rows(url, waits))
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "sync succeeded" in stdout
    (line,) = stderr.splitlines()
    assert "metrics.textfile is not written: interrupted  run_id=" in line
    assert file.read_bytes() == before


def test_what_is_in_the_way_is_counted(file, sandbox, monkeypatch):
    never = "00000000-0000-4000-8000-0000000000ff"
    assert run("sync").exit_code == 0
    sandbox.order(Fault(status=403, target=sandbox.persona_ids[0]))
    sandbox.world.edit(sandbox.persona_ids[1], {"mood": "sunny"})
    wanted = ",".join([*sandbox.persona_ids[:3], never])
    monkeypatch.setenv("PERSONA_ETL_PERSONAS__IDS", wanted)
    assert run("sync").exit_code == 3
    found = read(file)
    assert found["last_run_status sync partial"] == 1
    assert found["last_run_outcomes sync forbidden"] == 1
    assert found["last_complete_timestamp_seconds"] > found["last_success_timestamp_seconds"]
    names = ("failing_personas", "never_seen_personas", "untracked_personas", "open_drift_paths")
    assert [found[name] for name in names] == [1, 1, 1, 1]
    stalest = found["stalest_persona_timestamp_seconds"]
    assert stalest < found["last_success_timestamp_seconds"]
    age = found["database_read_timestamp_seconds"] - stalest
    assert found["stalest_persona_age_when_read_seconds"] == pytest.approx(age, abs=1e-3)


def test_each_command_that_opens_a_run_writes_it(file, sandbox):
    Path("all.ndjson").touch()
    for command, *arguments in [
        ("sync",),
        ("backfill api", "--all"),
        ("backfill files", "all.ndjson"),
        ("backfill replay",),
        ("prune", "--keep-runs-days", "9"),
        ("forget", sandbox.persona_ids[0], "--yes"),
    ]:
        assert run(*command.split(), *arguments).exit_code == 0
        assert read(file)[f"last_run_exit_code {command}"] == 0
    codes = [key for key in read(file) if key.startswith("last_run_exit_code")]
    assert len(codes) == 6
    assert read(file)["live_personas"] == 3


def test_what_opens_no_run_writes_nothing(file, sandbox):
    for command in (
        ("sync", "--dry-run"),
        ("prune", "--keep-runs-days", "9", "--dry-run"),
        ("prune",),
        ("backfill", "replay", "--check"),
        ("backfill", "api", "--resume", "last"),
        ("status",),
    ):
        run(*command)
    assert not file.exists()


def test_a_file_that_cannot_be_written_is_one_warning_and_the_exit_code_stays(file):
    file.parent.rmdir()
    result = run("sync")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert "warning metrics.textfile is not written: " in line
    assert "no such folder; make it, or correct metrics.textfile  run_id=" in line
    checked = run("check")
    assert checked.exit_code == 2
    assert checked.stdout.splitlines()[-1].startswith("wrong  metrics     ")


def test_check_says_where_it_is(file):
    result = run("check")
    assert result.exit_code == 0
    told = f"ok     metrics     {file}, written at the end of each run"
    assert result.stdout.splitlines()[-1] == told
