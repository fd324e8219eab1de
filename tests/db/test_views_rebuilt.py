"""`migrate` makes the views anew: what was granted stays, and what others have built on them."""

from __future__ import annotations

import threading

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command

from etl.errors import DatabaseError
from etl.jobs.migrate import migrate, migrate_sql
from etl.report.catalogue import all_views
from etl.report.ours import MARK
from etl.report.views_sql import pause_views
from etl.store import migration
from etl.store.engine import make_engine
from etl.store.migration import run_script
from etl.store.revisions import current_and_head
from tests.db.local_lines import add_lines, line
from tests.db.revisions import (
    add_revision,
    alembic,
    as_role,
    catalog,
    change,
    url_as,
)

# The view of an older release: `gone` and the type of `status` are not what they are now.
OLDER = f"""
    DROP VIEW anam_reporting.runs;
    CREATE VIEW anam_reporting.runs AS SELECT {{columns}} FROM runs;
    COMMENT ON VIEW anam_reporting.runs IS 'Older. {MARK}'
"""
FEWER = OLDER.format(columns="status, run_id, command")
OTHER_COLUMNS = OLDER.format(columns="status, run_id, 1 AS gone")
OTHER_TYPES = OLDER.format(columns="CAST(status AS varchar(9)) AS status, run_id")


def columns(engine: sa.Engine, view: str = "runs") -> list[str]:
    with engine.connect() as connection:
        found = connection.execute(sa.text(f"SELECT * FROM anam_reporting.{view} LIMIT 0"))
        return list(found.keys())


def grants(engine: sa.Engine) -> set[tuple[object, ...]]:
    """Who may do what there. An owner's own rights are written down only once others have some."""
    statement = """
        SELECT relname, '', grantee::regrole::text, privilege_type, is_grantable
        FROM pg_class, aclexplode(relacl)
        WHERE relnamespace = 'anam_reporting'::regnamespace AND grantee <> relowner
        UNION ALL
        SELECT relname, attname, grantee::regrole::text, privilege_type, is_grantable
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl)
        WHERE relnamespace = 'anam_reporting'::regnamespace
        UNION ALL
        SELECT nspname, '', grantee::regrole::text, privilege_type, is_grantable
        FROM pg_namespace, aclexplode(nspacl)
        WHERE nspname = 'anam_reporting' AND grantee <> nspowner
        UNION ALL
        SELECT 'default', defaclobjtype::text, grantee::regrole::text, privilege_type, is_grantable
        FROM pg_default_acl, aclexplode(defaclacl)
        WHERE defaclnamespace = 'anam_reporting'::regnamespace
    """
    with engine.connect() as connection:
        return {tuple(row) for row in connection.execute(sa.text(statement))}


@pytest.mark.parametrize("older", ["SELECT 1", FEWER, OTHER_COLUMNS, OTHER_TYPES])
def test_grants_survive(new_role, engine, database_url, older):
    change(engine, older)
    reader, lender, narrow, borrower, later = (new_role() for _ in range(5))
    view = "anam_reporting.runs"
    for statement in (
        f"GRANT USAGE ON SCHEMA anam_reporting TO {reader}, {lender}, {narrow}",
        f"GRANT SELECT ON {view} TO {reader}, PUBLIC",
        f"GRANT SELECT ON {view} TO {lender} WITH GRANT OPTION",
        f"GRANT SELECT (run_id, status) ON {view} TO {narrow}",
        f"GRANT SELECT (status) ON {view} TO {reader} WITH GRANT OPTION",
        f"GRANT UPDATE, DELETE ON {view} TO {borrower}",
        # Open to this one is what comes later; not this view.
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA anam_reporting GRANT SELECT ON TABLES TO {later}",
    ):
        change(engine, statement)
    with as_role(database_url, lender).begin() as connection:
        connection.execute(sa.text(f"GRANT SELECT ON {view} TO {borrower}"))
    before = grants(engine)
    assert len(before) >= 11
    migrate(engine, "anam")
    assert grants(engine) == before
    migrate(engine, "anam")
    assert grants(engine) == before
    assert {"status", "duration_seconds"} <= set(columns(engine))
    with as_role(database_url, narrow).connect() as connection:
        connection.execute(sa.text(f"SELECT run_id, status FROM {view}"))


@pytest.mark.parametrize("older", [FEWER, OTHER_COLUMNS, OTHER_TYPES])
def test_a_view_of_an_older_release_becomes_todays(engine, older):
    today = catalog(engine, "anam_reporting")
    names = set(columns(engine))
    change(engine, older)
    assert catalog(engine, "anam_reporting") != today
    migrate(engine, "anam")
    assert set(columns(engine)) == names
    if older == FEWER:
        # In their old places: who builds on the view by `SELECT *` has it as it was.
        assert columns(engine)[:3] == ["status", "run_id", "command"]
    else:
        assert catalog(engine, "anam_reporting") == today


def build_upon(engine: sa.Engine, view: str = "runs") -> None:
    change(engine, "CREATE SCHEMA IF NOT EXISTS theirs")
    change(engine, f"CREATE VIEW theirs.own AS SELECT * FROM anam_reporting.{view}")


@pytest.mark.parametrize("older", ["SELECT 1", FEWER])
def test_what_was_built_on_a_view_stays_while_columns_are_only_added(engine, older):
    change(engine, older)
    build_upon(engine)
    theirs = catalog(engine, "theirs")
    migrate(engine, "anam")
    assert "duration_seconds" in columns(engine)
    assert catalog(engine, "theirs") == theirs


@pytest.mark.parametrize("older", [OTHER_COLUMNS, OTHER_TYPES])
def test_what_was_built_on_a_view_that_must_go_is_named_and_not_harmed(engine, older):
    change(engine, older)
    build_upon(engine)
    before = catalog(engine)
    with pytest.raises(DatabaseError, match=r"theirs\.own depends on .*runs; drop what is in the"):
        migrate(engine, "anam")
    assert catalog(engine) == before
    change(engine, "DROP VIEW theirs.own")
    migrate(engine, "anam")
    build_upon(engine)


def test_a_retired_view_is_dropped_and_nobody_else_s(engine):
    change(engine, "CREATE VIEW anam_reporting.retired AS SELECT * FROM tools")
    change(engine, f"COMMENT ON VIEW anam_reporting.retired IS 'Old. {MARK}'")
    change(engine, "CREATE VIEW anam_reporting.own AS SELECT 1 AS one")
    change(engine, "CREATE VIEW anam_reporting.also_own AS SELECT 1 AS one")
    change(engine, "COMMENT ON VIEW anam_reporting.also_own IS 'Made by hand.'")
    migrate(engine, "anam")
    views = {row[1] for row in catalog(engine, "anam_reporting") if row[0] == "relation"}
    assert views == {"own", "also_own", *(view.name for view in all_views())}


def test_a_retired_view_that_somebody_uses_is_not_dropped_silently(engine):
    change(engine, "CREATE VIEW anam_reporting.retired AS SELECT * FROM tools")
    change(engine, f"COMMENT ON VIEW anam_reporting.retired IS 'Old. {MARK}'")
    build_upon(engine, "retired")
    with pytest.raises(DatabaseError, match=r"theirs\.own depends on .*retired"):
        migrate(engine, "anam")


@pytest.mark.parametrize("kind", ["TABLE {} ()", "VIEW {} AS SELECT 1 AS one"])
def test_what_stands_in_the_place_of_a_view_is_left_alone(engine, kind):
    """Also: all views come in one transaction, or none does."""
    change(engine, FEWER)
    change(engine, "DROP VIEW anam_reporting.freshness")
    change(engine, "CREATE " + kind.format("anam_reporting.freshness"))
    before = catalog(engine)
    with pytest.raises(DatabaseError, match="freshness: in the place of a view"):
        migrate(engine, "anam")
    assert catalog(engine) == before


def test_a_view_keeps_its_owner(role, engine):
    change(engine, f"GRANT {role} TO CURRENT_USER")
    change(engine, OTHER_COLUMNS)
    change(engine, f"GRANT CREATE ON SCHEMA anam_reporting TO {role}")
    change(engine, f"ALTER VIEW anam_reporting.runs OWNER TO {role}")
    migrate(engine, "anam")
    with engine.connect() as connection:
        owner = "SELECT viewowner FROM pg_views WHERE schemaname = 'anam_reporting'"
        found = connection.execute(sa.text(f"{owner} AND viewname = 'runs'"))
        assert found.scalar_one() == role


def test_what_is_new_is_whose_the_others_are_whoever_migrates(new_role, engine, database_url):
    """And who reads the others reads it."""
    helper, reader, stranger = (new_role() for _ in range(3))
    migrate(engine, "anam", readers=[reader])
    later = "IN SCHEMA anam_reporting GRANT SELECT ON TABLES TO"
    for statement in (
        f'GRANT "{engine.url.username}" TO {helper}',
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {helper} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        # Anybody may say that of what they make themselves.
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {stranger} {later} {stranger}",
    ):
        change(engine, statement)
    before = owners(engine), grants(engine)
    change(engine, "DROP VIEW anam_reporting.prompts")
    change(engine, "DROP FUNCTION anam_reporting.personas_as_of")
    migrate(as_role(database_url, helper), "anam")
    assert (owners(engine), grants(engine)) == before
    with psycopg.connect(url_as(database_url, reader)) as session:
        session.execute("SELECT FROM anam_reporting.personas_as_of(now())")


def test_a_table_that_is_new_is_whose_the_others_are_whoever_migrates(
    new_role, engine, database_url
):
    """Else the views, which read as their owner, could not be read by anybody."""
    helper = new_role()
    change(engine, f'GRANT "{engine.url.username}" TO {helper}')
    add_lines(url_as(database_url, helper), line("persona", "moods[]", "persona_moods"))
    with engine.connect() as connection:
        query = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'anam'"
        assert connection.execute(sa.text(query)).scalars().all() == [engine.url.username]


def owners(engine: sa.Engine) -> set[str]:
    """Whose views and functions are there."""
    statement = """
        SELECT relowner::regrole::text FROM pg_class
        WHERE relnamespace = 'anam_reporting'::regnamespace
        UNION
        SELECT proowner::regrole::text FROM pg_proc
        WHERE pronamespace = 'anam_reporting'::regnamespace
    """
    with engine.connect() as connection:
        return set(connection.execute(sa.text(statement)).scalars())


@pytest.fixture
def busy_view(database_url, monkeypatch):
    """A session that reads a view and takes its time."""
    monkeypatch.setattr(migration, "_TABLE_LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migration, "_PAUSE_SECONDS", 0.1)
    with psycopg.connect(database_url) as session:
        session.execute("SELECT FROM anam_reporting.runs")
        yield session


def test_a_busy_view_is_tried_again(engine, busy_view):
    threading.Timer(0.3, busy_view.rollback).start()
    migrate(engine, "anam")


def test_a_view_that_stays_busy_ends_in_an_error_that_says_so(engine, busy_view):
    with pytest.raises(DatabaseError, match="lock timeout; another session holds a lock"):
        migrate(engine, "anam")


# ── Revisions that meet a view ───────────────────────────────────────────────────────────────────

ALTER = "op.execute('ALTER TABLE runs ALTER host TYPE varchar(300)')"
BACK = "op.execute('ALTER TABLE runs ALTER host TYPE text')"


def type_of_host(engine: sa.Engine) -> str:
    (found,) = (row[2] for row in catalog(engine, "anam_reporting") if row[1] == "runs.host")
    return str(found)


def test_a_revision_may_alter_a_column_that_a_view_shows(
    new_role, engine, database_url, copied_checkout
):
    reader = new_role()
    change(engine, f"GRANT USAGE ON SCHEMA anam_reporting TO {reader}")
    change(engine, f"GRANT SELECT ON anam_reporting.runs TO {reader}")
    before = grants(engine)
    add_revision(copied_checkout, ALTER, BACK)
    migrate(engine, "anam")
    assert "character varying(300)" in type_of_host(engine)
    assert grants(engine) == before
    with psycopg.connect(url_as(database_url, reader)) as session:
        session.execute("SELECT host FROM anam_reporting.runs")


def test_the_script_for_a_dba_runs_such_a_revision_too(engine, database_url, copied_checkout):
    since, _ = current_and_head(engine, "anam")
    change(engine, "GRANT SELECT ON anam_reporting.runs TO PUBLIC")
    before = grants(engine)
    add_revision(copied_checkout, ALTER, BACK)
    script = migrate_sql("anam", since=str(since))
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute(script.encode())
    assert "character varying(300)" in type_of_host(engine)
    assert grants(engine) == before
    assert current_and_head(engine, "anam")[0] == "later"


def test_a_revision_that_only_adds_leaves_readers_alone(engine, database_url, copied_checkout):
    """The views are readable from another session in the middle of it."""
    build_upon(engine)
    add_revision(copied_checkout, "op.execute('ALTER TABLE runs ADD later text')", "op.f('x')")
    with psycopg.connect(database_url) as session:
        with alembic(engine) as config:
            command.upgrade(config, "heads")
        session.execute("SELECT host FROM anam_reporting.runs")
        session.execute("SELECT host FROM theirs.own")
    migrate(engine, "anam")


def test_when_such_a_revision_fails_the_views_are_as_before(engine, copied_checkout):
    before = catalog(engine)
    add_revision(copied_checkout, f"({ALTER}, op.execute('SELECT 1/0'))", BACK)
    with pytest.raises(sa.exc.DataError):
        migrate(engine, "anam")
    assert catalog(engine) == before


def test_what_was_built_on_a_view_that_a_revision_meets_is_named_and_nothing_is_done(
    engine, copied_checkout
):
    build_upon(engine)
    before = catalog(engine)
    add_revision(copied_checkout, ALTER, BACK)
    with pytest.raises(
        DatabaseError, match=r"theirs\.own stands on view anam_reporting\.runs; drop what is in"
    ) as caught:
        migrate(engine, "anam")
    assert caught.value.exit_code == 6
    assert catalog(engine) == before
    assert current_and_head(engine, "anam")[0] != "later"


def test_what_was_built_on_another_view_is_not_in_the_way(engine, copied_checkout):
    build_upon(engine, "freshness")
    theirs = catalog(engine, "theirs")
    add_revision(copied_checkout, ALTER, BACK)
    migrate(engine, "anam")
    assert catalog(engine, "theirs") == theirs
    assert "character varying(300)" in type_of_host(engine)


def test_what_was_built_on_a_table_is_named(engine, copied_checkout):
    change(engine, "CREATE SCHEMA theirs")
    change(engine, "CREATE VIEW theirs.own AS SELECT host FROM runs")
    before = catalog(engine)
    add_revision(copied_checkout, ALTER, BACK)
    with pytest.raises(DatabaseError, match=r"theirs\.own depends on column .*host"):
        migrate(engine, "anam")
    assert catalog(engine) == before


def test_a_migrate_that_died_in_the_middle_is_healed_by_the_next(new_role, engine, database_url):
    reader = new_role()
    change(engine, f"GRANT USAGE ON SCHEMA anam_reporting TO {reader}")
    change(engine, f"GRANT SELECT ON anam_reporting.runs TO {reader}")
    before = catalog(engine)
    with engine.begin() as connection:
        run_script(connection, pause_views("anam"))
    with (
        psycopg.connect(url_as(database_url, reader)) as session,
        pytest.raises(psycopg.Error, match="run `persona-etl migrate`"),
    ):
        session.execute("SELECT host FROM anam_reporting.runs")
    migrate(engine, "anam")
    assert catalog(engine) == before


def test_a_downgrade_to_the_base_takes_our_views_along_and_nobody_else_s(engine):
    change(engine, "CREATE VIEW anam_reporting.own AS SELECT 1 AS one")
    with alembic(engine) as config:
        command.downgrade(config, "base")
    relations = {row[1] for row in catalog(engine, "anam_reporting") if row[0] == "relation"}
    assert relations == {"own"}
    migrate(engine, "anam")


def test_a_downgrade_that_would_break_somebody_s_view_says_which(engine):
    with alembic(engine) as config:
        command.downgrade(config, "0001")
    build_upon(engine, "personas")
    before = catalog(engine)
    with (
        alembic(engine) as config,
        pytest.raises(DatabaseError, match=r"theirs\.own stands on view anam_reporting\.personas"),
    ):
        command.downgrade(config, "base")
    assert catalog(engine) == before


def test_when_a_later_step_down_fails_the_views_that_still_fit_are_put_back(
    engine, database_url, copied_checkout
):
    add_revision(copied_checkout, "op.f('x')", "op.execute('SELECT 1/0')", name="a_bad_one")
    change(engine, "UPDATE alembic_version SET version_num = 'a_bad_one'")
    add_revision(copied_checkout, ALTER, "op.execute('ALTER TABLE drift_paths DROP shapes')")
    change(engine, "UPDATE alembic_version SET version_num = 'later'")
    with alembic(engine) as config, pytest.raises(sa.exc.DataError):
        command.downgrade(config, "-2")
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("SELECT host FROM anam_reporting.runs")
        with pytest.raises(psycopg.Error, match="run `persona-etl migrate`"):
            session.execute("SELECT FROM anam_reporting.drift WHERE meaning IS NULL")


def test_one_step_back_and_forth_keeps_the_grants(role, engine, copied_checkout):
    add_revision(copied_checkout, ALTER, BACK)
    migrate(engine, "anam")
    change(engine, f"GRANT SELECT ON anam_reporting.runs TO {role}")
    before = catalog(engine)
    with alembic(engine) as config:
        command.downgrade(config, "-1")
    migrate(engine, "anam")
    assert catalog(engine) == before


def test_the_views_of_two_schemas_are_each_their_own(engine, database_url):
    other = make_engine(database_url, "other")
    migrate(other, "other")
    before = catalog(engine, "anam_reporting")
    with alembic(other, "other") as config:
        command.downgrade(config, "base")
    assert catalog(engine, "anam_reporting") == before


def test_the_owner_may_have_any_name(new_role, empty_database_url):
    owner = new_role("My Owner's")
    admin = make_engine(empty_database_url, "anam")
    for schema in ("anam", "anam_reporting"):
        change(admin, f'CREATE SCHEMA {schema} AUTHORIZATION "{owner}"')
    engine = as_role(empty_database_url, owner)
    migrate(engine, "anam")
    change(engine, OTHER_COLUMNS)
    migrate(engine, "anam")
    assert "duration_seconds" in columns(engine)
