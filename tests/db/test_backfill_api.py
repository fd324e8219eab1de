"""`backfill api`: any personas once more; however it ends, it is known who is left."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import make_url

from etl.errors import DatabaseError, UsageError
from etl.jobs.grants import writer_grants
from etl.sandbox import Fault
from etl.store.asked_for import left_of
from etl.store.engine import make_engine
from tests.torture.judging import check_ledger, timeless
from tests.torture.scenario import COUNT, SEED, one_of_everything
from tests.torture.sizes import steps
from tests.torture.striking import ANSWER_LOST, DOOM, KILLED, struck

ONE = {"API__CONCURRENCY": "1"}
NEVER = "00000000-0000-4000-8000-0000000000ff"


def asked(target) -> set[str]:
    """Who was asked for since the log was cleared."""
    found = {id_ for id_, times in target.sandbox.requests.by_target.items() if times}
    target.sandbox.requests.clear()
    return found - {"list"}


def left(target, run_id: UUID) -> set[str]:
    with make_engine(target.url, target.schema).connect() as connection:
        return {str(id_) for id_ in left_of(connection, run_id)}


# ── As sync does ─────────────────────────────────────────────────────────────────────────────────


def test_it_copies_and_accounts_as_sync_does(target):
    edited, gone, failing, *others = target.world.persona_ids
    target.world.edit(edited, {"name": "Edited"})
    target.world.delete(gone)
    target.sandbox.order(Fault(status=403, target=failing))
    summary = target.backfill_api([edited, gone, failing, *others])
    assert (summary.command, summary.status, summary.exit_code) == ("backfill api", "partial", 3)
    counts = {name: number for name, number in summary.counts.items() if number}
    assert counts == {"requested": 6, "updated": 1, "missing": 1, "forbidden": 1, "unchanged": 3}
    assert target.persona(gone)["removed_at"] is not None
    items = {str(row["persona_id"]): row for row in target.rows("run_items", run_id=summary.run_id)}
    assert {id_: row["outcome"] for id_, row in items.items()} == {
        edited: "updated",
        gone: "missing",
        failing: "forbidden",
    }
    assert left(target, summary.run_id) == set()


def test_it_takes_all_that_the_api_lists(target):
    new = target.world.add({"name": "New"})
    summary = target.backfill_api([], discover=True)
    assert (summary.counts["requested"], summary.counts["created"]) == (7, 1)
    assert target.persona(new)["name"] == "New"


def test_too_many_missing_are_not_removed_and_stay_to_be_asked_for(target):
    for id_ in target.world.persona_ids:
        target.world.delete(id_)
    ids = [str(row["persona_id"]) for row in target.rows("personas")]
    stopped = target.backfill_api(ids)
    assert stopped.exit_code == 7
    assert left(target, stopped.run_id) == set(ids)
    again = target.backfill_api(resume=str(stopped.run_id), allow_mass_removal=True)
    assert (again.exit_code, again.counts["missing"]) == (0, 6)
    assert all(row["removed_at"] for row in target.rows("personas"))
    assert left(target, stopped.run_id) == left(target, again.run_id) == set()


def test_a_wrong_address_that_answers_with_pages_ends_it_early(copying):
    with copying(count=600) as target:
        target.sandbox.order(Fault(body="<html>Log in</html>", times=None))
        summary = target.backfill_api(**ONE)
        assert (summary.exit_code, summary.counts["failed"]) == (5, 0)
        # What was rejected is settled.
        assert (
            0 < summary.counts["not_attempted"] == summary.left == len(left(target, summary.run_id))
        )


def test_it_tells_what_the_api_no_longer_sends(target):
    for id_ in target.world.persona_ids:
        payload = dict(target.world.payload(id_))
        del payload["skipGreeting"]
        target.world.set_payload(id_, payload)
    assert target.backfill_api().new_drift_paths == 1
    (gone,) = target.rows("drift_paths")
    assert (gone["path"], gone["problem"]) == ("skipGreeting", "missing")


# ── Only those that were not confirmed lately ────────────────────────────────────────────────────


def test_since_leaves_out_who_was_confirmed_after_it(target):
    late, *others = target.world.persona_ids
    before = target.now()
    target.sync([late])
    asked(target)
    summary = target.backfill_api([late, *others, NEVER], since=before)
    assert summary.counts["requested"] == 6
    assert asked(target) == {*others, NEVER}


def test_since_with_nobody_left_asks_for_nobody(target):
    asked(target)
    summary = target.backfill_api(since=target.now() - timedelta(hours=1))
    assert (summary.status, summary.counts["requested"], asked(target)) == ("succeeded", 0, set())
    assert left(target, summary.run_id) == set()


# ── Resumed ──────────────────────────────────────────────────────────────────────────────────────


def test_each_is_on_the_list_until_a_batch_says_what_became_of_it(copying):
    with copying(count=6) as target:
        target.sync(target.world.persona_ids[:2])
        # The key is refused at the third.
        target.sandbox.order(Fault(status=401, after=3, times=None))
        stopped = target.backfill_api(**ONE)
        assert stopped.exit_code == 4
        assert stopped.left == stopped.counts["not_attempted"] + stopped.counts["failed"] > 0
        items = target.rows("run_items", run_id=stopped.run_id)
        waiting = {
            str(i["persona_id"]) for i in items if i["outcome"] in ("not_attempted", "failed")
        }
        assert left(target, stopped.run_id) == waiting
        assert len(waiting) == stopped.left
        target.sandbox.clear_faults()
        asked(target)
        resumed = target.backfill_api(resume=str(stopped.run_id))
        assert asked(target) == waiting
        assert (resumed.status, resumed.counts["requested"]) == ("succeeded", len(waiting))
        assert target.row("runs", run_id=resumed.run_id)["resumes"] == stopped.run_id
        assert left(target, stopped.run_id) == left(target, resumed.run_id) == set()


def test_who_failed_is_asked_for_again_and_whom_others_settled_is_not(target):
    failing, settled, *others = target.world.persona_ids
    target.sandbox.order(*(Fault(status=400, target=id_, times=None) for id_ in (failing, settled)))
    first = target.backfill_api()
    assert first.counts["failed"] == 2
    target.sandbox.clear_faults()
    target.sync([settled, *others])
    asked(target)
    target.sandbox.order(Fault(status=400, target=failing, times=None))
    second = target.backfill_api(resume=str(first.run_id))
    assert asked(target) == {failing}
    target.sandbox.clear_faults()
    assert left(target, second.run_id) == {failing}
    # A resumed run can be resumed.
    third = target.backfill_api(resume="last")
    assert asked(target) == {failing}
    assert target.row("runs", run_id=third.run_id)["resumes"] == second.run_id
    assert left(target, first.run_id) == left(target, third.run_id) == set()


def test_an_attempt_that_failed_since_settles_nothing(target):
    failing, *_ = target.world.persona_ids
    target.sandbox.order(Fault(status=400, target=failing, times=None))
    first = target.backfill_api([failing])
    assert target.sync([failing]).counts["failed"] == 1
    assert left(target, first.run_id) == {failing}


def test_when_nothing_is_left_nobody_is_asked_for(target):
    done = target.backfill_api()
    asked(target)
    again = target.backfill_api(resume=str(done.run_id))
    assert (again.status, again.counts["requested"], asked(target)) == ("succeeded", 0, set())


def test_a_404_that_no_run_has_judged_is_asked_for_again(target):
    gone, *_ = target.world.persona_ids
    first = target.backfill_api()
    target.world.delete(gone)
    # As after a death between the last batch and the removals.
    target.query("UPDATE runs SET status = 'running' WHERE run_id = %s", [first.run_id])
    entry = [first.run_id, gone]
    target.query("INSERT INTO run_items VALUES (%s, %s, 'missing', 404, 1, 1, 'x')", entry)
    target.query(
        "UPDATE persona_sync_state SET last_outcome = 'missing' WHERE persona_id = %s", [gone]
    )
    asked(target)
    second = target.backfill_api(resume=str(first.run_id))
    assert asked(target) == {gone}
    assert second.counts["missing"] == 1
    assert target.persona(gone)["removed_at"] is not None
    assert left(target, first.run_id) == set()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("sync", "is a sync, which keeps no list of its personas"),
        ("backfill replay", "is a backfill replay, which asks the API for nobody"),
    ],
)
def test_runs_without_a_list_can_t_be_resumed(target, command, told):
    run_id = target.reports[0].run_id
    target.query("UPDATE runs SET command = %s", [command])
    with pytest.raises(UsageError, match=told) as raised:
        target.backfill_api(resume=str(run_id))
    assert str(raised.value).endswith("no recent run of backfill api has left anything")
    assert len(target.rows("runs")) == 1


def test_it_says_which_runs_can_be_resumed_instead(target):
    failing, *_ = target.world.persona_ids
    target.sandbox.order(Fault(status=400, target=failing, times=None))
    rest = target.backfill_api([failing]).run_id
    with pytest.raises(UsageError, match=f"to be resumed: {rest}$"):
        target.backfill_api(resume=str(target.reports[0].run_id))


def test_one_that_ended_before_it_knew_whom_it_wanted_can_t_be_resumed(target):
    target.sandbox.order(Fault(status=401, target="list", times=None))
    ended = target.backfill_api([], discover=True)
    assert (ended.exit_code, ended.left) == (4, 0)
    with pytest.raises(UsageError, match="ended too early; tell the personas again"):
        target.backfill_api(resume=str(ended.run_id))


def test_a_run_that_is_none_is_told(target):
    for typed, told in {
        str(uuid4()): "there is no run",
        "x": "is no id",
        "4f2a91b": "is no id",
        "last": "no such run",
    }.items():
        with pytest.raises(UsageError, match=told):
            target.backfill_api(resume=typed)
    assert len(target.rows("runs")) == 1


def test_a_role_that_may_not_take_off_the_list_is_told(target, plain_role):
    url, execute = plain_role
    for statement in writer_grants("anam", "THE_ROLE"):
        execute(statement.replace('"THE_ROLE"', "{role}"))
    execute("REVOKE DELETE ON anam.run_items FROM {role}")
    target.url = url
    summary = target.backfill_api()
    assert isinstance(summary.error, DatabaseError)
    assert "run_items" in str(summary.error)


# ── Killed ───────────────────────────────────────────────────────────────────────────────────────


HAS_LOADED = (
    "SELECT 1 FROM runs WHERE started_at > %s AND not_attempted BETWEEN 1 AND requested - 1"
)


@contextmanager
def started(target, *arguments: str):
    """The command in a process of its own."""
    here = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-m", "etl", "-q", "backfill", "api", *arguments],
        env=os.environ | target.environment(**ONE) | {"PYTHONPATH": here},
        cwd=target.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# As in test_sync_killed.
@pytest.mark.one_server
def test_after_sigkill_only_what_is_left_is_asked_for_until_nothing_is(copying, tmp_path):
    """Twice at moments of chance; each persona is settled by one run, and by no other."""
    chance = random.Random(7)
    with copying(count=150, latency_seconds=0.02) as target:
        (tmp_path / "ids").write_text("\n".join(target.world.persona_ids))
        arguments: list[str] = ["--ids-from", str(tmp_path / "ids")]
        everybody = set(target.world.persona_ids)
        waiting = everybody
        for _ in range(2):
            now = [target.now()]
            with started(target, *arguments) as process:
                wait_until(process, lambda now=now: target.query(HAS_LOADED, now))
                time.sleep(chance.random() / 10)
                process.kill()
                process.wait()
            requested = asked(target)
            # Nobody who was settled before.
            assert requested <= waiting
            (run,) = target.query("SELECT * FROM runs ORDER BY started_at DESC LIMIT 1")
            assert run["status"] in ("running", "succeeded")
            now_waiting = left(target, run["run_id"])
            # Nobody is lost, and nobody is settled whom the run did not ask for.
            assert now_waiting <= waiting
            assert waiting - now_waiting <= requested
            assert len(waiting) - len(now_waiting) == run["requested"] - run["not_attempted"]
            waiting = now_waiting
            arguments = ["--resume", str(run["run_id"])]
        assert waiting < everybody
        last = target.backfill_api(resume=arguments[1])
        assert asked(target) == waiting
        assert (last.status, last.counts["requested"]) == ("succeeded", len(waiting))
        check_ledger(target)
        assert {str(row["persona_id"]) for row in target.rows("personas")} == everybody


def wait_until(process, done) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


# As in test_sync_killed.
@pytest.mark.one_server
@pytest.mark.parametrize(("how", "few"), [(KILLED, 17), (ANSWER_LOST, 2)])
def test_struck_at_any_statement_the_resumed_run_ends_as_an_undisturbed_one(
    copying, new_database, how, few
):
    with copying(count=COUNT, seed=SEED) as target:
        ids = one_of_everything(target)
        target.query(DOOM)
        target.admin.close()
        template = make_url(target.url).database
        with new_database(template) as url, target.at(url):
            target.backfill_api(ids, **ONE)
            undisturbed = timeless(target)
        for nth in count(1, steps(few)):
            with new_database(template) as url, target.at(url):
                before = {row["run_id"] for row in target.rows("runs")}
                if not struck(url, nth, how, lambda: target.backfill_api(ids, **ONE)):
                    break
                new = [row for row in target.rows("runs") if row["run_id"] not in before]
                if not new or not target.rows("run_items", run_id=new[0]["run_id"]):
                    target.backfill_api(ids, **ONE)
                else:
                    target.backfill_api(resume=str(new[0]["run_id"]), **ONE)
                check_ledger(target)
                healed = timeless(target)
                for name, rows in undisturbed.items():
                    assert healed[name] == rows, (how, nth, name)
                assert target.check().findings.first == [], (how, nth)
        assert nth > few
