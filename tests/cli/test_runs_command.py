"""`persona-etl runs` and `backfill api` as a person meets them: what they print, how they end."""

from __future__ import annotations

import json
import re
from uuid import UUID

import pytest
from wcwidth import width

from etl.jobs.grants import reader_grants
from etl.sandbox import Fault, running_sandbox
from etl.store.lock import WriterLock
from tests.cli.test_status_command import enter, execute
from tests.cli.test_sync_command import KEYS as SUMMARY
from tests.cli.test_sync_command import run

RUN = ["run_id", "command", "status", "started_at", "finished_at", "counts", "value_issues"]
RUN += ["new_drift_paths", "http_requests", "error", "host", "pid", "version", "resumes", "died"]
WHOLE = [*RUN, "items", "open_value_issues", "left"]
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202e漢字 " * 20


@pytest.fixture
def sandbox():
    with running_sandbox(count=4, moving=False) as running:
        yield running


def shown(*arguments: str) -> list[str]:
    """What it prints to people, which fits their terminal and can't steer it."""
    result = run("runs", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    lines: list[str] = result.stdout.splitlines()
    assert max(map(width, lines)) <= 80, lines
    assert all(line.isprintable() for line in lines)
    return lines


def told(*arguments: str):
    return json.loads(run("runs", *arguments, "--json").stdout)


# ── The list ─────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_ledger_is_told_plainly(url):
    assert shown() == ["the ledger is empty: nothing has run yet; `persona-etl sync` does"]
    assert told() == []


def test_a_line_a_run_the_newest_first(url, sandbox):
    run("sync")
    sandbox.order(Fault(status=403, target=sandbox.persona_ids[0]))
    run("sync")
    header, second, first = shown()
    assert header.split()[:3] == ["started", "(UTC)", "run"]
    assert first.endswith("4: 4 created")
    assert second.endswith("4: 1 forbidden")
    ids = [row["run_id"][:8] for row in told()]
    assert [line.split()[2] for line in (second, first)] == ids
    run("sync")
    assert shown()[1].endswith("4: 4 unchanged")


def test_it_shows_the_latest_of_those_that_are_asked_for(url):
    for ago, (command, status) in enumerate(
        [
            ("sync", "succeeded"),
            ("sync", "failed"),
            ("backfill api", "crashed"),
            ("prune", "failed"),
        ]
    ):
        enter(url, command=command, status=status, ago=f"{ago} h")
    assert [row["command"] for row in told("--limit", "3")] == ["sync", "sync", "backfill api"]
    assert len(told("--command", "sync", "--command", "prune")) == 3
    assert len(told("--status", "failed", "--command", "sync")) == 1
    assert shown("--command", "nope") == [
        "there is no such run; `persona-etl runs` without options lists the latest"
    ]


def test_hostile_text_fits_and_steers_nothing(url):
    run_id = enter(url, status="failed", error=HOSTILE, host=HOSTILE, command=HOSTILE[:30])
    execute(
        url,
        "INSERT INTO run_items"
        " SELECT run_id, gen_random_uuid(), 'failed', 500, 4, 1, error FROM runs",
    )
    shown()
    assert any("\\u001b[2J" in line for line in shown(str(run_id)))


# ── One run ──────────────────────────────────────────────────────────────────────────────────────


def test_all_about_a_run_is_told(url, sandbox):
    run("sync")
    forbidden, failing, *_ = sandbox.persona_ids
    sandbox.order(Fault(status=403, target=forbidden))
    sandbox.order(Fault(status=400, body={"message": "no such model"}, target=failing))
    ended = run("backfill", "api", "--json")
    summary = json.loads(ended.stdout)
    assert list(summary) == SUMMARY
    assert ended.exit_code == 3
    run_id = summary["run_id"]
    left, error = ended.stderr.splitlines()
    resume = f"persona-etl backfill api --resume {run_id}"
    assert f"1 of 4 personas left: {resume}" in left
    assert error.startswith("persona-etl: error: ")
    assert f"see `persona-etl runs {run_id}`" in error
    lines = shown(run_id)
    assert lines[0] == f"run        {run_id}"
    text = "\n".join(lines)
    for part in ("status     partial", "personas   4: 1 forbidden, 1 failed, 2 unchanged"):
        assert part in text
    (name,) = execute(url, "SELECT name FROM personas WHERE persona_id = %s", [UUID(failing)])[0]
    attempt = r"1 attempt in \d\.\d s"
    assert re.search(f"1 failed\n  {failing} .*\n    {attempt}: 400 .{{1,3}}no such model", text)
    assert str(name) in text
    assert re.search(f"1 forbidden\n  {forbidden} .*\n    {attempt}: the API answers 403", text)
    assert "see `persona-etl runs" not in text
    assert lines[-2:] == ["1 persona left; to go on with those:", f"  {resume}"]

    whole = told(run_id)
    assert list(whole) == WHOLE
    assert [(i["outcome"], i["count"]) for i in whole["items"]] == [("failed", 1), ("forbidden", 1)]
    assert whole["items"][0]["first"][0]["name"] == name
    assert whole["left"] == 1

    again = run("backfill", "api", "--resume", run_id[:8], "--json")
    assert again.exit_code == 0
    assert shown("last")[-1] == "Nothing is left of it."
    assert told("last")["resumes"] == run_id
    assert any(line == f"resumes    run {run_id}" for line in shown("last"))


@pytest.mark.parametrize(
    ("status", "command", "told"),
    [
        ("succeeded", "sync", None),
        ("failed", "sync", None),
        ("partial", "sync", "The next run asks for those again."),
        ("deferred", "sync", "What was loaded stays; the next run begins with {}."),
        ("interrupted", "sync", "What was loaded stays; the next run begins with {}."),
        ("crashed", "sync", "What was loaded stays; the next run begins with {}."),
        ("running", "sync", "What was loaded stays; the next run begins with {}."),
        ("interrupted", "backfill files", "What was done stays; run it again."),
        ("skipped", "prune", None),
    ],
)
def test_how_a_run_ended_says_how_to_go_on(url, status, command, told):
    left = {"requested": 9, "unchanged": 2, "not_attempted": 7} if command == "sync" else {}
    enter(url, status=status, command=command, **left)
    last = shown("last")[-1]
    if told is None:
        assert not last.endswith(".")
    else:
        assert last == told.format("the 7 not asked for")


def test_one_that_has_died_is_told_from_one_that_is_at_work(url):
    run_id = enter(url, status="running", requested=9, unchanged=2, not_attempted=7)
    with WriterLock(url, "anam", command="sync", run_id=run_id):
        assert shown()[1].split()[4] == "running"
        assert "status     running" in shown("last")
        assert [row["died"] for row in told()] == [told("last")["died"]] == [False]
    assert shown()[1].split()[4:] == ["died", "2", "of", "9", "settled"]
    assert "status     running, but nobody is at work on it: it has died" in shown("last")
    assert (told("last")["status"], told("last")["died"], told()[0]["died"]) == (
        "running",
        True,
        True,
    )


def test_why_a_run_ended_has_room_in_the_list(url):
    why = f"none of 6 could be fetched; first: GET /v1/personas/{UUID(int=7)}: the connection broke"
    enter(url, command="backfill replay", status="succeeded")
    enter(url, status="failed", error=why, requested=6, failed=6)
    _, begun, reason, short = shown()
    assert begun.split()[3:5] == ["sync", "failed"]
    assert reason == "  none of 6 could be fetched; first: the connection broke"
    assert "backfill replay" in short


def test_what_is_still_to_be_asked_is_no_outcome(url, sandbox):
    sandbox.order(Fault(status=401, times=None))
    ended = json.loads(run("backfill", "api", "--json").stdout)
    assert ended["counts"]["not_attempted"] + ended["counts"]["failed"] == 4
    assert "4 personas left; to go on with those:" in shown("last")
    assert not any("not_attempted" in line for line in shown("last"))
    assert not execute(
        url, "SELECT FROM anam_reporting.freshness WHERE last_outcome = 'not_attempted'"
    )


def test_as_many_personas_are_named_as_one_asks_for(url, sandbox):
    run("sync")
    assert [len(i["first"]) for i in told("last", "--limit", "3")["items"]] == [3]
    assert "  and 1 more: --limit 4 shows all" in shown("last", "--limit", "3")


def test_the_last_of_some_sort_can_be_meant(url):
    older = enter(url, status="failed", ago="2 h")
    enter(url, ago="1 h")
    assert told("last", "--status", "failed")["run_id"] == str(older)


def test_one_run_is_meant_by_enough_of_its_id(url):
    one = enter(url, run_id="4f2a91bc-0000-4000-8000-000000000001")
    enter(url, run_id="4f2a91bc-0000-4000-8000-000000000002")
    enter(url, run_id="4f2a91bd-0000-4000-8000-000000000002")
    for typed in (str(one), str(one).upper(), str(one).replace("-", "")):
        assert told(typed)["run_id"] == str(one)
    assert told("4f2a91bd")["run_id"].startswith("4f2a91bd")
    for typed, why in {
        "4f2a91bc": "more than one run begins with 4f2a91bc: 4f2a91bc-0000",
        "4f2a91b": "is no id; write one, at least its first 8 digits, or last",
        "nope": "is no id",
        f"{one}0": "is no id",
        "99999999": "there is no run 99999999; `persona-etl runs` lists them",
    }.items():
        result = run("runs", typed)
        assert (result.exit_code, result.stdout) == (2, ""), typed
        assert why in result.stderr
    assert run("runs", "last", "--command", "nope").exit_code == 2
    assert run("runs", str(one), "--command", "sync").exit_code == 2


def test_a_report_s_reader_sees_the_runs_and_is_told_what_it_does_not_see(
    url, plain_role, monkeypatch
):
    run("backfill", "api")
    reader, as_owner = plain_role
    for statement in reader_grants("anam", "THE_ROLE"):
        as_owner(statement.replace('"THE_ROLE"', "{role}"))
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", reader)
    assert len(shown()) == 2
    assert "What it did to whom is not visible to this role; those that may read the" in shown(
        "last"
    )
    whole = told("last")
    assert (whole["items"], whole["open_value_issues"], whole["left"]) == (None, None, None)


def test_a_role_that_may_see_nothing_is_told_so(url, plain_role, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", plain_role[0])
    result = run("runs")
    assert result.exit_code == 6
    assert "may read neither" in result.stderr


def test_a_schema_of_another_release_is_told(url):
    execute(url, "ALTER TABLE runs DROP COLUMN resumes CASCADE")
    execute(url, "UPDATE alembic_version SET version_num = '0002'")
    result = run("runs")
    assert result.exit_code == 6
    assert "run `persona-etl migrate`" in result.stderr


def test_quiet_says_nothing(url):
    run("sync")
    assert run("-q", "runs").output == run("-q", "runs", "last").output == ""


# ── backfill api ─────────────────────────────────────────────────────────────────────────────────


def test_a_backfill_that_goes_well_says_what_it_did_and_quietly_nothing(url):
    result = run("backfill", "api")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("backfill api succeeded in ")
    assert run("-q", "backfill", "api").output == ""


@pytest.mark.parametrize(
    "moment", ["2000-01-01", "2000-01-01T00:00:00Z", "2000-01-01 00:00:00+02:00"]
)
def test_with_nobody_to_fetch_it_says_so(url, moment):
    run("sync")
    result = run("backfill", "api", "--since", moment)
    assert result.exit_code == 0
    assert "there was nobody to ask for" in result.stdout


@pytest.mark.parametrize("moment", ["yesterday", "2026-13-01", "2026-11", "14:00"])
def test_a_moment_that_is_none_is_told(url, moment):
    result = run("backfill", "api", "--since", moment)
    assert result.exit_code == 2
    assert "is no moment; write it like 2026-11-03" in result.stderr


@pytest.mark.parametrize(
    "more", [["--all"], ["--since", "2026-11-03"], ["--ids-from", "-"], [str(UUID(int=1))]]
)
def test_resume_excludes_who_else_is_wanted(url, more):
    result = run("backfill", "api", "--resume", "last", *more)
    assert result.exit_code == 2
    assert "--resume takes the personas of that run" in result.stderr


def test_status_takes_it_for_a_sync(url):
    run("backfill", "api")
    assert run("status", "--max-age", "2h").exit_code == 0
    found = json.loads(run("status", "--json").stdout)
    assert found["last_sync"]["command"] == found["last_success"]["command"] == "backfill api"
    execute(url, "UPDATE runs SET started_at = started_at - interval '1 hour'")
    enter(url, command="backfill replay")
    assert "last sync     backfill api succeeded " in run("status").stdout


def test_one_that_asked_for_nobody_says_nothing_of_freshness(url):
    enter(url, command="backfill api")
    assert "no sync has been completed yet" in run("status", "--max-age", "2h").stderr


def test_status_says_how_to_go_on_after_one_that_died(url):
    run_id = enter(url, command="backfill api", status="crashed", requested=4, not_attempted=3)
    assert (
        f"what was loaded stays; `persona-etl runs {str(run_id)[:8]}` tells the rest"
        in run("status").stdout
    )
