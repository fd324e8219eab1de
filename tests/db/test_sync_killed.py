"""Whichever statement, commit or request goes wrong, the next run ends where it would have."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count, cycle
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from etl.jobs.migrate import migrate
from etl.sandbox import Fault
from etl.store.engine import make_engine
from tests.torture.figures import tortured
from tests.torture.judging import check_ledger, timeless
from tests.torture.scenario import COUNT, SEED, one_of_everything
from tests.torture.sizes import IS_LONG, steps
from tests.torture.striking import ANSWER_LOST, DOOM, ERRORS, KILLED, struck

if TYPE_CHECKING:
    from collections.abc import Iterator

# That a transaction is all or nothing hangs on no version; that ours are cut right is told by
# one. What a server says when it ends a session has test_sync_lock.
pytestmark = pytest.mark.one_server

# One connection, so that the nth is the same one each time.
ONE = {"API__CONCURRENCY": "1"}
FAILURES = {
    "reset": Fault(drop="reset"),
    "timeout": Fault(drop="stall"),
    "500": Fault(status=500),
    "truncated": Fault(truncate_at=20),
}

# Rows and versions that a replay has to mend; observed columns can't be.
SPOILT = """
    UPDATE personas SET name = 'spoilt';
    DELETE FROM persona_tools;
    DELETE FROM voice_display_tags;
    DELETE FROM share_link_allowed_origins;
    UPDATE document_versions SET change = 'reshaped', changed_paths = '{spoilt}'
     WHERE content_hash IS NOT NULL;
    DELETE FROM document_versions WHERE kind = 'avatar';
    UPDATE avatars SET display_name = 'spoilt';
"""
CATALOGUE = """
      WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname LIKE 'anam%')
    SELECT concat_ws(' ', oid::regclass, relkind, relacl, reloptions, pg_get_viewdef(oid),
                     obj_description(oid, 'pg_class'))
      FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours)
     UNION ALL
    SELECT concat_ws(' ', attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod),
                     attnotnull, attacl, col_description(attrelid, attnum))
      FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid AND NOT attisdropped
     WHERE relnamespace IN (SELECT oid FROM ours) AND attnum > 0
     UNION ALL
    SELECT concat_ws(' ', oid::regprocedure, proacl, pg_get_functiondef(oid),
                     obj_description(oid, 'pg_proc'))
      FROM pg_proc WHERE pronamespace IN (SELECT oid FROM ours)
     UNION ALL
    SELECT concat_ws(' ', conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid))
      FROM pg_constraint WHERE connamespace IN (SELECT oid FROM ours)
     UNION ALL
    SELECT concat_ws(' ', nspname, nspacl) FROM pg_namespace WHERE oid IN (SELECT oid FROM ours)
     UNION ALL
    SELECT concat_ws(' ', 'alembic', version_num) FROM anam.alembic_version
     ORDER BY 1
"""


class Scenario:
    """A target that has one of everything to do, in as many copies as are asked for."""

    def __init__(self, target, new_database) -> None:
        self.target = target
        self.ids = one_of_everything(target)
        target.query(DOOM)
        target.admin.close()
        self.template = sa.make_url(target.url).database
        self.new_database = new_database
        with self.copy():
            target.sync(self.ids, **ONE)
            self.undisturbed = timeless(target)

    @contextmanager
    def copy(self) -> Iterator[str]:
        with self.new_database(self.template) as url, self.target.at(url):
            yield url

    def heals(self, what: object) -> None:
        """The next run ends where an undisturbed one did, and a replay finds nothing."""
        self.target.sync(self.ids, **ONE)
        self.is_as_undisturbed(what)

    def is_as_undisturbed(self, what: object) -> None:
        check_ledger(self.target)
        healed = timeless(self.target)
        for name, rows in self.undisturbed.items():
            assert healed[name] == rows, (what, name)
        assert self.target.check().findings.first == [], what


@pytest.fixture
def scenario(copying, new_database):
    with copying(count=COUNT, seed=SEED) as target:
        yield Scenario(target, new_database)


@pytest.mark.parametrize(("how", "few"), [(KILLED, 7), (ANSWER_LOST, 1)])
def test_killed_at_any_statement_the_next_run_heals(scenario, how, few):
    target, ids = scenario.target, scenario.ids
    for nth in count(1, steps(few)):
        with scenario.copy() as url:
            if not struck(url, nth, how, lambda: target.sync(ids, **ONE)):
                break
            scenario.heals((how, nth))
            tortured(f"sync: {how}")
    assert nth > (4 if how == ANSWER_LOST else 40)


@pytest.mark.parametrize("errors", [[code] for code in ERRORS] if IS_LONG else [list(ERRORS)])
def test_an_error_at_any_statement_ends_the_run_in_good_order(scenario, errors):
    target, ids = scenario.target, scenario.ids
    # A step that shares no factor with the number of errors: each kind is met by each part.
    for nth, error in zip(count(1, steps(7)), cycle(errors)):
        with scenario.copy() as url:
            if not struck(url, nth, error, lambda: target.sync(ids, **ONE)):
                break
            for report in target.reports[-1:]:
                # It was tried again, or is told: 3 for those that were not copied anyway.
                assert report.exit_code in (3, 6), (error, nth, report)
            scenario.heals((error, nth))
            tortured(f"sync: {ERRORS[error]} ({error})")
    assert nth > 40


@pytest.mark.parametrize("ways", [[way] for way in FAILURES] if IS_LONG else [list(FAILURES)])
def test_any_request_that_fails_is_made_again(scenario, ways):
    target, ids = scenario.target, scenario.ids
    for nth, way in zip(range(len(ids)), cycle(ways)):
        with scenario.copy():
            number = target.sandbox.order(replace(FAILURES[way], after=nth))
            assert target.sync(ids, API__TIMEOUT_SECONDS="0.2", **ONE).counts["failed"] == 0, nth
            assert number[0] not in {o.number for o in target.sandbox.server.script.waiting}
            scenario.is_as_undisturbed((way, nth))
            tortured(f"sync: one request fails, {way}")


@pytest.mark.parametrize("way", FAILURES if IS_LONG else ["reset"])
def test_when_all_requests_fail_from_the_nth_on_the_next_run_heals(scenario, way):
    target, ids = scenario.target, scenario.ids
    for nth in range(0, len(ids), steps(6)):
        with scenario.copy():
            fault = replace(FAILURES[way], after=nth, times=None)
            (number,) = target.sandbox.order(fault)
            # How long it is waited for an API that may be back.
            patience = {"API__MAX_WAIT_SECONDS": "1"}
            gone = target.sync(ids, API__TIMEOUT_SECONDS="0.2", API__CONCURRENCY="10", **patience)
            assert gone.counts["failed"] + gone.counts["not_attempted"] > 0
            target.sandbox.server.script.clear(number)
            scenario.heals((way, nth))
            tortured(f"sync: all requests fail from the nth on, {way}")


# Killed is also among the tests of the replay.
@pytest.mark.parametrize("how", [KILLED, ANSWER_LOST, "53100"] if IS_LONG else ["53100"])
def test_a_replay_that_dies_anywhere_is_ended_by_the_next(scenario, how):
    target = scenario.target
    for nth in count(1, steps(40)):
        with scenario.copy() as url:
            target.sync(scenario.ids, **ONE)
            target.query(SPOILT)
            if not struck(url, nth, how, target.replay):
                break
            target.replay()
            scenario.is_as_undisturbed((how, nth))
            tortured(f"replay: {ERRORS.get(how, how)}")
    assert nth > (4 if how == ANSWER_LOST else 20)


@pytest.mark.parametrize(("how", "few"), [(KILLED, 70), (ANSWER_LOST, 3), ("53100", 150)])
def test_a_migration_that_dies_anywhere_is_ended_by_the_next(new_role, new_database, how, few):
    role = new_role()

    def bring_up() -> None:
        migrate(make_engine(url, "anam"), "anam", readers=[role])

    with new_database() as url:
        bring_up()
        undisturbed = catalogue(url)
    assert sum("reader" in line or role in line for line in undisturbed) > 10
    for nth in count(1, steps(few)):
        with new_database() as url:
            with psycopg.connect(url) as admin:
                admin.execute(DOOM)
            if not struck(url, nth, how, bring_up):
                break
            bring_up()
            assert catalogue(url) == undisturbed, (how, nth)
            tortured(f"migrate: {ERRORS.get(how, how)}")
    assert nth > (4 if how == ANSWER_LOST else 100)


@pytest.mark.parametrize(("how", "few"), [(KILLED, 40), ("57014", 60)])
def test_views_that_are_made_anew_stay_whole_when_that_dies(new_role, database_url, how, few):
    """At any statement of a `migrate` that finds all done: readers never miss a view or a grant."""
    role = new_role()
    engine = make_engine(database_url, "anam")
    migrate(engine, "anam", readers=[role])
    with psycopg.connect(database_url) as admin:
        admin.execute(DOOM)
    before = catalogue(database_url)
    for nth in count(1, steps(few)):
        if not struck(database_url, nth, how, lambda: migrate(engine, "anam")):
            break
        assert catalogue(database_url) == before, (how, nth)
        tortured(f"migrate again: {ERRORS.get(how, how)}")
    assert nth > 50


def catalogue(url: str) -> list[str]:
    """What the schemas hold, and who may do what with it."""
    with psycopg.connect(url) as connection:
        return [str(row[0]) for row in connection.execute(CATALOGUE)]
