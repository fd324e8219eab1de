"""What a log pipeline gets of each command that opens a run: lines of JSON that are of that run."""

from __future__ import annotations

import json
import re
import signal
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from etl.sandbox import Fault, running_sandbox
from etl.store.lock import WriterLock
from tests.cli.test_sync_command import run, started, wait_until

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
HOSTILE = 'a\nb\r\x1b[2J\u2028{"level": "error"}'


@pytest.fixture
def sandbox():
    with running_sandbox(count=4, moving=False) as running:
        running.world.edit(running.persona_ids[0], {"name": HOSTILE})
        yield running


def lines_of(stderr: str) -> list[dict[str, Any]]:
    """Each line of stderr as the object that it is, of the one run that they are of."""
    lines = [json.loads(line) for line in stderr.split("\n")[:-1]]
    for line in lines:
        assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
        assert TIME.fullmatch(line["timestamp"])
    (run_id,) = {line["run_id"] for line in lines}
    assert all(list(line)[4] == "run_id" for line in lines)
    assert run_id
    return lines


def summary_of(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The one line that says how it ended."""
    (summary,) = [line for line in lines if "duration_seconds" in line]
    assert summary["event"] == f"{summary['command']} {summary['status']}"
    return summary


def ended(url: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    """How the log says that this command ended, which is what the ledger says."""
    result = run("-v", "--log-format", "json", *arguments)
    assert result.exit_code == code, result.output
    lines = lines_of(result.stderr)
    summary = summary_of(lines)
    assert summary["exit_code"] == code
    assert [line["exit_code"] for line in lines if line["level"] == "error"] == [code] * bool(code)
    with psycopg.connect(url, options="-c search_path=anam") as connection:
        row = connection.execute(
            "SELECT command, status, extract(epoch FROM finished_at - started_at)::float8"
            "  FROM runs WHERE run_id = %s",
            [summary["run_id"]],
        ).fetchone()
    assert row == (summary["command"], summary["status"], summary["duration_seconds"])
    return summary


def test_each_command_that_opens_a_run_says_once_how_it_ended(url, sandbox, tmp_path):
    first, second, *_ = sandbox.persona_ids
    sync = ended(url, "sync")
    assert list(sync)[5:] == [
        *("command", "status", "exit_code", "duration_seconds"),
        *("counts", "value_issues", "new_drift_paths", "http_requests"),
    ]
    assert (sync["counts"]["created"], sync["http_requests"]) == (4, 4)
    again = ended(url, "backfill", "api", "--all")
    assert again["counts"]["unchanged"] == 4
    (tmp_path / "lines.ndjson").write_text(run("export").stdout)
    files = ended(url, "backfill", "files", "lines.ndjson")
    assert (files["counts"]["unchanged"], files["observations"]) == (
        files["counts"]["requested"],
        0,
    )
    replayed = ended(url, "backfill", "replay")
    assert (replayed["checked"]["documents"] > 0, replayed["differences"]) == (True, {})
    pruned = ended(url, "prune", "--keep-history-days", "0")
    assert pruned["rows"]["document_versions"] == 0
    forgotten = ended(url, "forget", second, "--yes")
    assert forgotten["rows_deleted"]["personas"] == 1
    assert second not in json.dumps(forgotten)
    assert ended(url, "sync", first)["counts"]["requested"] == 1


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (Fault(status=403), 3, "partial"),
        (Fault(status=401), 4, "failed"),
        (Fault(status=429, retry_after=100_000), 5, "deferred"),
        (Fault(wrong="html"), 3, "partial"),
    ],
)
def test_the_same_when_it_does_not_end_well(url, sandbox, fault, code, status):
    sandbox.order(fault)
    assert ended(url, "sync", code=code)["status"] == status


def test_the_same_of_a_run_that_was_skipped(url, sandbox):
    del sandbox
    with WriterLock(url, "anam", command="sync", run_id=uuid4()):
        for command in (["sync"], ["prune", "--keep-runs-days", "9"], ["backfill", "replay"]):
            assert ended(url, *command, code=75)["status"] == "skipped"


def test_the_same_of_one_that_was_told_to_stop(url, sandbox):
    del url
    sandbox.order(Fault(delay_seconds=30, target=sandbox.persona_ids[1]))
    with started("-v", "--log-format", "json", "sync") as process:
        wait_until(lambda: sandbox.requests.by_target[sandbox.persona_ids[1]])
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=20)
    summary = summary_of(lines_of(stderr))
    assert (summary["status"], summary["exit_code"]) == ("interrupted", 143)


def test_the_same_of_one_that_a_bug_ended(url, sandbox):
    """A column that no revision made is what only a bug meets."""
    del sandbox
    with psycopg.connect(url, options="-c search_path=anam") as connection:
        connection.execute("ALTER TABLE run_items ADD x int NOT NULL")
    result = run("-v", "--log-format", "json", "sync")
    assert result.exit_code == 1
    *_, summary, bug = lines_of(result.stderr)
    assert summary_of([summary])["status"] == "failed"
    assert (summary["exit_code"], bug["exit_code"]) == (1, 1)
    assert "Traceback" in bug["exception"]


def test_a_person_reads_it_on_stdout_and_with_v_in_the_log_too(url, sandbox):
    del url, sandbox
    assert run("sync").stderr == ""
    assert run("-q", "--log-format", "json", "sync").output == ""
    assert run("--log-format", "json", "sync", "--dry-run").stderr == ""
    assert run("--log-format", "json", "backfill", "replay", "--check").stderr == ""
    line = run("-v", "sync").stderr.splitlines()[-1]
    told = r" info    sync succeeded  command=sync status=succeeded exit_code=0 "
    assert told in line
    assert re.search(r" requested=4 unchanged=4 .* run_id=[0-9a-f-]{36}$", line)
