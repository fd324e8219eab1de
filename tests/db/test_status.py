"""How things stand, as `status` sees it: freshness, runs, the lock, and what a role may see."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

from etl.errors import DatabaseError, DiscrepancyError
from etl.jobs.grants import reader_grants, writer_grants
from etl.jobs.migrate import migrate
from etl.jobs.status import status
from etl.sandbox import Fault
from etl.settings import load_settings
from etl.store.engine import make_engine
from etl.store.lock import WriterLock, lock_key
from etl.store.revisions import head_revision
from tests.db.test_replay import leave_unfolded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.jobs.status import Status
    from etl.store.standing import Sort
    from tests.db.conftest import Target

HOUR = timedelta(hours=1)
NEVER = "00000000-0000-4000-8000-0000000000ff"


def look(target: Target, max_age: timedelta | None = None, **settings: str) -> Any:
    """What status finds, a Status; without writing anything."""
    before = target.stamps()
    found = status(
        load_settings(target.environment(**settings), cwd=target.folder),
        url=target.url,
        max_age=max_age,
    )
    assert target.stamps() == before
    return found


def ids(sort: Sort) -> list[str]:
    assert sort.count == len(sort.first)
    return [str(row.persona_id) for row in sort.first]


def codes(found: Status) -> list[str]:
    return [reason.code for reason in found.reasons]


def age(target: Target, *persona_ids: str, hours: int = 5) -> None:
    """Puts the last success of these personas, or of all, into the past."""
    target.query(
        "UPDATE persona_sync_state SET last_success_at = last_success_at - %s * interval '1 hour'"
        " WHERE persona_id = ANY (%s)",
        [hours, target.uuids(persona_ids or None)],
    )


def enter(target: Target, state: str, command: str = "sync", minutes: int = 0) -> UUID:
    """A run in the ledger that started so long ago."""
    run_id = uuid4()
    target.query(
        "INSERT INTO runs (run_id, command, status, started_at, finished_at, host, pid, version)"
        " SELECT %s, %s, %s, at, CASE %s WHEN 'running' THEN NULL ELSE at END, 'there', 1, '0'"
        " FROM (SELECT clock_timestamp() - %s * interval '1 minute' AS at) AS moment",
        [run_id, command, state, state, minutes],
    )
    return run_id


@pytest.fixture
def empty(copying):
    """A target that nothing was copied to."""
    with copying(count=1) as made:
        yield made


def test_a_run_of_tomorrow_says_nothing_about_today(empty):
    enter(empty, "succeeded", minutes=-60)
    assert look(empty).error is None
    found = look(empty, HOUR)
    assert codes(found) == ["no_recent_sync"]
    assert "later than now: the database's clock was set back" in str(found.error)
    enter(empty, "succeeded", minutes=1)
    assert look(empty, HOUR).error is None


def test_a_database_that_nothing_was_copied_to_is_not_fresh(empty):
    assert look(empty).error is None
    found = look(empty, HOUR)
    assert (found.ledger.last, found.personas.live) == (None, 0)
    assert codes(found) == ["no_recent_sync"]
    assert isinstance(found.error, DiscrepancyError)


def test_after_a_sync_everything_is_fresh_and_nobody_stands_out(target):
    found = look(target, HOUR, PERSONAS__IDS=",".join(target.world.persona_ids))
    assert (found.error, found.reasons, found.personas.live) == (None, [], 6)
    run_id = target.reports[-1].run_id
    ledger = found.ledger
    for run in (ledger.last, ledger.last_sync, ledger.last_success, ledger.last_complete):
        assert run.run_id == run_id
    states = sorted(row["last_success_at"] for row in target.rows("persona_sync_state"))
    seen = found.personas
    assert (seen.oldest, seen.median, seen.newest) == (states[0], states[2], states[-1])
    for sort in (seen.failing, seen.never_seen, seen.stale, seen.removed, seen.untracked):
        assert (sort.count, sort.first) == (0, [])
    assert (found.holder, found.running, found.orphans) == (None, None, [])
    assert (found.value_issues, found.drift_paths, found.revision.wrong) == (0, 0, None)


def test_a_live_persona_that_was_not_seen_for_too_long_is_named_the_oldest_first(target):
    one, other, *_ = target.world.persona_ids
    age(target, one, hours=2)
    age(target, other, hours=5)
    found = look(target, HOUR)
    assert ids(found.personas.stale) == [other, one]
    assert codes(found) == ["stale_personas"]
    assert f"{target.persona(other)['name']} was last seen 5 h ago" in str(found.error)
    assert look(target, 6 * HOUR).error is None
    # Without a limit nothing is too old.
    assert (look(target).error, look(target).personas.stale.count) == (None, 0)


def test_nobody_minds_the_age_of_the_removed_and_of_those_not_wanted(target):
    gone, dropped, *wanted = target.world.persona_ids
    target.world.delete(gone)
    target.sync([gone, dropped, *wanted])
    age(target, gone, dropped)
    found = look(target, HOUR, PERSONAS__IDS=",".join([gone, *wanted]))
    assert found.error is None
    assert (ids(found.personas.untracked), found.knows_untracked) == ([dropped], True)
    assert ids(found.personas.removed) == [gone]
    assert found.personas.live == len(wanted)


# Which runs count is a list of names in one statement, which the other tests send too.
@pytest.mark.one_server
@pytest.mark.parametrize(
    ("state", "command", "is_recent"),
    [
        ("succeeded", "sync", True),
        ("partial", "sync", True),
        ("deferred", "sync", False),
        ("interrupted", "sync", False),
        ("failed", "sync", False),
        ("crashed", "sync", False),
        ("skipped", "sync", False),
        ("running", "sync", False),
        ("succeeded", "backfill replay", False),
    ],
)
def test_only_a_sync_that_asked_for_everybody_is_a_recent_one(empty, state, command, is_recent):
    enter(empty, "succeeded", minutes=90)
    enter(empty, state, command, minutes=10)
    assert codes(look(empty, HOUR)) == ([] if is_recent else ["no_recent_sync"])
    assert (
        "the last complete sync ended 1 h 30 min ago" in str(look(empty, HOUR).error) or is_recent
    )


def test_skipped_runs_are_counted_since_the_last_that_ran(empty):
    for minutes, state in enumerate(("skipped", "skipped", "partial", "skipped", "succeeded")):
        enter(empty, state, minutes=minutes)
    ledger = look(empty).ledger
    assert (ledger.skipped, ledger.last.status) == (2, "partial")
    assert look(empty).age(ledger.last_skipped_at) < HOUR


def test_failing_personas_are_told_with_why_and_since_when_until_they_answer(target):
    one, other, *_ = target.world.persona_ids
    age(target, other)
    target.sandbox.order(Fault(status=403, target=one, times=1))
    target.sandbox.order(Fault(status=403, target=other, times=2))
    target.sync()
    target.sync()
    seen = look(target).personas
    (row,) = seen.failing.first
    assert (str(row.persona_id), row.consecutive_failures) == (other, 2)
    assert (row.last_outcome, row.last_error) == ("forbidden", "the API answers 403")
    assert row.last_success_at == target.state(other)["last_success_at"]
    assert row.name == target.persona(other)["name"]
    target.sync()
    assert look(target).personas.failing.count == 0


def test_a_persona_that_the_settings_dropped_is_not_told_as_failing(target):
    dropped, *wanted = target.world.persona_ids
    target.sandbox.order(Fault(status=403, target=dropped))
    target.sync()
    found = look(target, PERSONAS__IDS=",".join(wanted))
    assert (found.personas.failing.count, ids(found.personas.untracked)) == (0, [dropped])


def test_ids_that_no_run_has_seen_are_told_and_how_their_last_attempt_ended(target):
    not_asked = NEVER.replace("ff", "fe")
    target.sync([NEVER])
    found = look(target, HOUR, PERSONAS__IDS=f"{not_asked},{NEVER}")
    assert ids(found.personas.never_seen) == [NEVER, not_asked]
    assert [row.last_outcome for row in found.personas.never_seen.first] == ["missing", None]
    # There is nothing of it that could be too old.
    assert found.error is None


@pytest.mark.parametrize("settings", [{}, {"PERSONAS__DISCOVER": "true"}])
def test_without_a_list_of_all_that_is_wanted_nobody_is_untracked(target, settings):
    if settings:
        settings["PERSONAS__IDS"] = target.world.persona_ids[0]
    age(target, target.world.persona_ids[1])
    found = look(target, HOUR, **settings)
    assert (found.knows_untracked, found.personas.untracked.count) == (False, 0)
    assert (found.personas.live, found.personas.stale.count) == (6, 1)


def never_ask_for(target: Target, *persona_ids: str) -> None:
    """As if these had come in files alone, which leave no trace of an attempt."""
    wanted = target.uuids(persona_ids)
    target.query("DELETE FROM persona_sync_state WHERE persona_id = ANY (%s)", [wanted])


def test_whom_only_files_tell_of_counts_as_live_and_as_not_confirmed(target):
    loaded, *asked = target.world.persona_ids
    never_ask_for(target, loaded)
    seen = look(target).personas
    assert (seen.live, seen.unconfirmed) == (6, 1)
    assert seen.newest == max(target.state(id_)["last_success_at"] for id_ in asked)
    never_ask_for(target, *asked)
    seen = look(target).personas
    assert (seen.live, seen.unconfirmed, seen.newest) == (6, 6, None)


@pytest.mark.parametrize("wanted", ["named", "discovered"])
def test_whom_only_files_tell_of_is_not_fresh_when_the_settings_want_it(target, wanted):
    loaded, *_ = target.world.persona_ids
    never_ask_for(target, loaded)
    ways = {"named": {"PERSONAS__IDS": loaded}, "discovered": {"PERSONAS__DISCOVER": "true"}}
    found = look(target, HOUR, **ways[wanted])
    assert (codes(found), ids(found.personas.stale)) == (["stale_personas"], [loaded])
    assert f"{target.persona(loaded)['name']} was not shown by the API yet" in str(found.error)
    # It was seen, if not by a run.
    assert found.personas.never_seen.count == 0


def test_whom_only_files_tell_of_wakes_nobody_when_no_run_would_ask_for_it(target):
    loaded, *asked = target.world.persona_ids
    never_ask_for(target, loaded)
    assert look(target, HOUR).error is None
    found = look(target, HOUR, PERSONAS__IDS=",".join(asked))
    assert (found.error, ids(found.personas.untracked)) == (None, [loaded])
    assert (found.personas.live, found.personas.unconfirmed) == (5, 0)


def test_documents_that_wait_to_be_folded_are_counted(target):
    assert look(target).unfolded == 0
    leave_unfolded(target, target.world.persona_ids[0])
    assert look(target).unfolded == 1
    target.sync()
    assert look(target).unfolded == 0


def test_only_late_removals_are_told(target):
    one, other, *rest = target.world.persona_ids
    target.world.delete(one)
    target.world.delete(other)
    target.sync([one, other, *rest])
    target.is_corrupted = True
    target.query(
        "UPDATE personas SET removed_at = removed_at - interval '8 days' WHERE persona_id = %s",
        [UUID(other)],
    )
    assert ids(look(target).personas.removed) == [one]


def test_the_holder_of_the_lock_is_told_with_its_run(target):
    run_id = enter(target, "running")
    with WriterLock(target.url, "anam", command="backfill replay", run_id=run_id):
        found = look(target)
        assert (found.holder.command, found.holder.run_id) == ("backfill replay", run_id)
        assert (found.running.run_id, found.running.host, found.orphans) == (run_id, "there", [])
    found = look(target)
    assert (found.holder, found.running) == (None, None)
    assert [run.run_id for run in found.orphans] == [run_id]
    target.sync()
    assert look(target).orphans == []


def test_a_row_of_another_run_than_the_holder_s_is_an_orphan(target):
    dead, alive = enter(target, "running", minutes=5), uuid4()
    with WriterLock(target.url, "anam", command="sync", run_id=alive):
        # It holds the lock, and has not opened its own row yet.
        found = look(target)
    assert (found.holder.run_id, found.running) == (alive, None)
    assert [run.run_id for run in found.orphans] == [dead]
    target.query("UPDATE runs SET status = 'crashed' WHERE run_id = %s", [dead])


def test_a_run_that_starts_or_ends_while_we_look_is_not_declared_dead(target):
    ends = enter(target, "running", minutes=5)
    begun: list[UUID] = []

    def meanwhile(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        # The first look at the ledger is over, that at the lock too by the time this commits.
        if "pg_is_in_recovery" in statement:
            target.query("UPDATE runs SET status = 'succeeded' WHERE run_id = %s", [ends])
            begun.append(enter(target, "running"))

    with listening(meanwhile):
        found = status(
            load_settings(target.environment(), cwd=target.folder), url=target.url, max_age=None
        )
    assert (found.running and found.running.run_id, found.orphans) == (begun[0], [])
    target.query("UPDATE runs SET status = 'crashed' WHERE run_id = %s", [begun[0]])


@contextmanager
def listening(listener: Any) -> Iterator[None]:
    """Calls the listener before each statement."""
    sa.event.listen(sa.Engine, "before_cursor_execute", listener)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", listener)


def test_of_a_lock_that_is_no_run_s_only_the_session_is_known(target):
    run_id = enter(target, "running")
    with psycopg.connect(target.url) as somebody:
        somebody.execute("SELECT pg_advisory_lock(%s)", [lock_key("anam", "write")])
        found = look(target)
        assert (found.holder.pid, found.holder.run_id) == (somebody.info.backend_pid, None)
    # Whether it is the run's lock can't be told, so nobody is declared dead.
    assert (found.running.run_id, found.orphans) == (run_id, [])
    target.query("UPDATE runs SET status = 'crashed' WHERE run_id = %s", [run_id])


def test_a_reader_of_the_views_sees_all_that_they_tell(target, plain_role):
    failing, *wanted = target.world.persona_ids
    target.sandbox.order(Fault(status=403, target=failing))
    target.sync()
    wanted_ids = ",".join([failing, *wanted[1:], NEVER])
    whole = look(target, HOUR, PERSONAS__IDS=wanted_ids)
    url, execute = plain_role
    grant(execute, reader_grants)
    run_id = enter(target, "running")
    with WriterLock(target.url, "anam", command="sync", run_id=run_id):
        seen = as_role(target, url, PERSONAS__IDS=wanted_ids)
    assert (seen.holder.run_id, seen.running.run_id) == (run_id, run_id)
    assert (seen.ledger, seen.personas) == (whole.ledger, whole.personas)
    assert seen.personas.failing.first[0].last_error == "the API answers 403"
    assert (seen.revision.at, seen.value_issues, seen.drift_paths) == (None, None, None)
    assert (seen.unfolded, whole.unfolded) == (None, 0)
    target.query("UPDATE runs SET status = 'crashed' WHERE run_id = %s", [run_id])


def test_the_job_s_own_role_needs_no_view(target, plain_role):
    url, execute = plain_role
    grant(execute, writer_grants)
    seen, whole = as_role(target, url), look(target, HOUR)
    assert (seen.ledger, seen.personas, seen.revision) == (
        whole.ledger,
        whole.personas,
        whole.revision,
    )


def test_a_role_that_may_read_nothing_is_told_what_it_lacks(target, plain_role):
    url, _ = plain_role
    with pytest.raises(DatabaseError, match=r"may read neither .*; as their owner run"):
        as_role(target, url)


def grant(execute: Any, grants: Any) -> None:
    for statement in grants("anam", "THE_ROLE"):
        execute(statement.replace('"THE_ROLE"', "{role}"))


def as_role(target: Target, url: str, **settings: str) -> Any:
    environment = target.environment(**settings) | {"PERSONA_ETL_DATABASE__URL": url}
    return status(load_settings(environment, cwd=target.folder), url=url, max_age=HOUR)


def test_a_schema_of_another_release_is_told_and_what_can_be_read_of_it(target):
    target.is_corrupted = True
    target.query("UPDATE alembic_version SET version_num = 'newer'")
    found = look(target, HOUR)
    assert (found.revision.at, codes(found)) == ("newer", ["schema"])
    assert isinstance(found.error, DatabaseError)
    assert "which this program does not know" in str(found.error)
    assert found.personas.live == 6
    target.query("ALTER TABLE persona_sync_state DROP COLUMN consecutive_failures CASCADE")
    settings = load_settings(target.environment(), cwd=target.folder)
    with pytest.raises(DatabaseError, match="which this program does not know"):
        status(settings, url=target.url, max_age=None)
    target.query("UPDATE alembic_version SET version_num = %s", [head_revision()])
    with pytest.raises(DatabaseError, match="run `persona-etl migrate`"):
        status(settings, url=target.url, max_age=None)


def test_a_database_without_tables_is_told(empty_database_url):
    settings = load_settings({"PERSONA_ETL_DATABASE__URL": empty_database_url})
    with pytest.raises(DatabaseError, match=r"has no tables yet; run `persona-etl migrate`"):
        status(settings, url=empty_database_url, max_age=None)


def test_schemas_of_one_database_do_not_meet_whatever_they_are_called(target, plain_role):
    schema = 'It\'s 100% "mine":x'
    migrate(make_engine(target.url, schema), schema)
    environment = target.environment() | {"PERSONA_ETL_DATABASE__SCHEMA": schema}
    settings = load_settings(environment, cwd=target.folder)
    with WriterLock(target.url, "anam", command="sync", run_id=uuid4()):
        found = status(settings, url=target.url, max_age=None)
    assert (found.ledger.last, found.personas.live, found.holder) == (None, 0, None)
    url, _ = plain_role
    role = sa.make_url(url).username
    for statement in reader_grants(schema, str(role)):
        target.admin.execute(statement)
    assert status(settings, url=url, max_age=None).personas.live == 0


def test_the_ledger_of_a_year_is_not_read_for_the_age_of_the_data(target):
    plan = target.query(
        "EXPLAIN SELECT persona_id, name, last_success_at FROM anam_reporting.freshness"
    )
    assert "run_items" not in "\n".join(row["QUERY PLAN"] for row in plan)


def test_however_many_stand_out_a_screenful_is_read_and_all_are_counted(empty):
    empty.is_corrupted = True
    empty.query(
        "INSERT INTO persona_sync_state (persona_id, last_attempt_at, last_outcome,"
        " consecutive_failures, last_run_id)"
        " SELECT gen_random_uuid(), now(), 'failed', n, gen_random_uuid()"
        " FROM generate_series(1, 300) AS n"
    )
    failing = look(empty).personas.failing
    assert (failing.count, len(failing.first)) == (300, 100)
