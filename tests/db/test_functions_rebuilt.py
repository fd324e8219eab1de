"""`migrate` makes the reporting functions anew: with the views that call them, grants kept."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command

from etl.errors import DatabaseError
from etl.jobs.migrate import migrate, migrate_sql
from etl.report.catalogue import all_views
from etl.report.ours import MARK
from etl.report.views_sql import drop_views, pause_views
from etl.store.engine import make_engine
from etl.store.migration import run_script
from etl.store.revisions import current_and_head
from tests.db.revisions import Catalog, alembic, catalog, change, url_as

OURS = f"COMMENT ON FUNCTION anam_reporting.{{}} IS 'Older. {MARK}'"

# What an older release may have had: a view of ours calls the function, which gives a text there.
OTHER_RESULT = f"""
    CREATE FUNCTION anam_reporting.persona_etl_time(value jsonb) RETURNS text
        LANGUAGE sql AS 'SELECT ''x''';
    {OURS.format("persona_etl_time(jsonb)")};
    CREATE VIEW anam_reporting.avatar_history AS
        SELECT anam_reporting.persona_etl_time('1') AS created_at;
    COMMENT ON VIEW anam_reporting.avatar_history IS 'Older. {MARK}'
"""
OTHER_ARGUMENT = OTHER_RESULT.replace("(value jsonb) RETURNS text", "(v jsonb) RETURNS timestamptz")
OTHER_ARGUMENT = OTHER_ARGUMENT.replace("'SELECT ''x'''", "'SELECT now()'")
OTHER_BODY = OTHER_ARGUMENT.replace("(v jsonb)", "(value jsonb)")
OTHER_TABLE = f"""
    CREATE FUNCTION anam_reporting.personas_as_of(moment timestamptz) RETURNS TABLE (gone integer)
    LANGUAGE sql AS 'SELECT 1';
    {OURS.format("personas_as_of(timestamptz)")}
"""
OLDER = {
    "persona_etl_time(jsonb)": (OTHER_RESULT, OTHER_ARGUMENT, OTHER_BODY),
    "personas_as_of(timestamptz)": (OTHER_TABLE,),
}
CASES = [(signature, older) for signature, olders in OLDER.items() for older in olders]


def replace_by(engine: sa.Engine, older: str) -> None:
    """Nothing of ours but this."""
    with engine.begin() as connection:
        run_script(connection, drop_views("anam"))
        run_script(connection, older)


def functions(engine: sa.Engine) -> set[str]:
    statement = """
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = 'anam_reporting'::regnamespace
    """
    with engine.connect() as connection:
        return set(connection.execute(sa.text(statement)).scalars())


def shape(engine: sa.Engine) -> Catalog:
    """All but the order of a view's columns, in which an older release has a say."""
    return {row for row in catalog(engine, "anam_reporting") if row[0] != "relation"}


@pytest.mark.parametrize(("signature", "older"), CASES)
def test_a_function_of_an_older_release_becomes_todays(engine, signature, older):
    today = shape(engine)
    replace_by(engine, older)
    assert shape(engine) != today
    migrate(engine, "anam")
    assert shape(engine) == today
    migrate(engine, "anam")
    assert shape(engine) == today


@pytest.mark.parametrize(("signature", "older"), CASES)
def test_the_script_for_a_dba_does_the_same(engine, database_url, signature, older):
    today = shape(engine)
    replace_by(engine, older)
    since, _ = current_and_head(engine, "anam")
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute(migrate_sql("anam", since=str(since)).encode())
    assert shape(engine) == today


def granted(engine: sa.Engine, signature: str) -> set[tuple[object, ...]]:
    """Who may call it, the owner aside."""
    statement = f"""
        SELECT grantee::regrole::text, is_grantable
        FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
        WHERE pg_proc.oid = 'anam_reporting.{signature}'::regprocedure AND grantee <> proowner
    """
    with engine.connect() as connection:
        return {tuple(row) for row in connection.execute(sa.text(statement))}


@pytest.mark.parametrize(("signature", "older"), CASES)
def test_grants_survive(new_role, engine, signature, older):
    replace_by(engine, older)
    reader, lender, later = (new_role() for _ in range(3))
    function = f"anam_reporting.{signature}"
    for statement in (
        f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {function} TO {reader}",
        f"GRANT EXECUTE ON FUNCTION {function} TO {lender} WITH GRANT OPTION",
        # Open to this one is what comes later; not this function.
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA anam_reporting GRANT EXECUTE ON FUNCTIONS TO {later}",
    ):
        change(engine, statement)
    before = granted(engine, signature)
    assert before == {(reader, False), (lender, True)}
    migrate(engine, "anam")
    assert granted(engine, signature) == before
    migrate(engine, "anam")
    assert granted(engine, signature) == before


@pytest.mark.parametrize(("signature", "older"), CASES)
def test_what_everybody_may_call_stays_so(engine, signature, older):
    replace_by(engine, older)
    change(engine, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    migrate(engine, "anam")
    assert granted(engine, signature) == {("-", False)}


@pytest.mark.parametrize(("signature", "older"), CASES)
def test_a_function_keeps_its_owner(role, engine, signature, older):
    replace_by(engine, older)
    change(engine, f"GRANT {role} TO CURRENT_USER")
    change(engine, f"GRANT CREATE ON SCHEMA anam_reporting TO {role}")
    change(engine, f"ALTER FUNCTION anam_reporting.{signature} OWNER TO {role}")
    migrate(engine, "anam")
    statement = f"""
        SELECT proowner::regrole::text FROM pg_proc
        WHERE oid = 'anam_reporting.{signature}'::regprocedure
    """
    with engine.connect() as connection:
        assert connection.execute(sa.text(statement)).scalar_one() == role


def test_a_retired_function_is_dropped_with_the_view_that_called_it_and_nobody_else_s(engine):
    today = functions(engine)
    for name in ("retired", "own"):
        change(
            engine,
            f"CREATE FUNCTION anam_reporting.{name}(integer) RETURNS integer LANGUAGE sql"
            " AS 'SELECT $1'",
        )
        change(engine, f"CREATE VIEW anam_reporting.{name} AS SELECT anam_reporting.{name}(1)")
    change(engine, OURS.format("retired(integer)"))
    change(engine, f"COMMENT ON VIEW anam_reporting.retired IS 'Old. {MARK}'")
    # Another function of a name of ours is not ours.
    change(engine, "CREATE FUNCTION anam_reporting.persona_etl_time(text) RETURNS text RETURN $1")
    migrate(engine, "anam")
    assert functions(engine) == today | {
        "anam_reporting.own(integer)",
        "anam_reporting.persona_etl_time(text)",
    }


def build_upon(engine: sa.Engine, called: str) -> None:
    change(engine, "CREATE SCHEMA theirs")
    change(engine, f"CREATE VIEW theirs.own AS SELECT anam_reporting.{called} AS one")


def test_what_was_built_on_a_function_that_stays_the_same_stays(engine):
    replace_by(engine, OTHER_BODY)
    build_upon(engine, "persona_etl_time('1')")
    theirs = catalog(engine, "theirs")
    migrate(engine, "anam")
    assert catalog(engine, "theirs") == theirs


@pytest.mark.parametrize(
    ("older", "called", "told"),
    [
        (
            OTHER_RESULT,
            "persona_etl_time('1')",
            r"function anam_reporting\.persona_etl_time\(jsonb\) has to be",
        ),
        (OTHER_TABLE, "personas_as_of(now())", r"function anam_reporting\.personas_as_of\("),
    ],
)
def test_what_was_built_on_a_function_that_must_go_is_named_and_not_harmed(
    engine, older, called, told
):
    replace_by(engine, older)
    build_upon(engine, called)
    before = catalog(engine)
    with pytest.raises(DatabaseError, match=told) as caught:
        migrate(engine, "anam")
    assert "theirs.own depends on function" in str(caught.value)
    assert "__before" not in str(caught.value)
    assert catalog(engine) == before
    change(engine, "DROP VIEW theirs.own")
    migrate(engine, "anam")


@pytest.mark.parametrize("kind", ["FUNCTION", "PROCEDURE"])
def test_what_stands_in_the_place_of_a_function_is_left_alone(engine, kind):
    with engine.begin() as connection:
        run_script(connection, drop_views("anam"))
    returns = "RETURNS jsonb" if kind == "FUNCTION" else ""
    change(
        engine,
        f"CREATE {kind} anam_reporting.persona_etl_time(value jsonb) {returns}"
        " LANGUAGE sql AS 'SELECT $1'",
    )
    before = catalog(engine)
    with pytest.raises(
        DatabaseError, match=r"persona_etl_time\(jsonb\): in the place of a view or func"
    ):
        migrate(engine, "anam")
    since, _ = current_and_head(engine, "anam")
    with (
        engine.connect() as connection,
        pytest.raises(sa.exc.ProgrammingError, match="is in the place of a function"),
    ):
        run_script(connection, migrate_sql("anam", since=str(since)))
    assert catalog(engine) == before


def test_a_downgrade_to_the_base_takes_our_functions_along_and_nobody_else_s(engine):
    change(engine, "CREATE FUNCTION anam_reporting.own() RETURNS integer RETURN 1")
    with alembic(engine) as config:
        command.downgrade(config, "base")
    assert functions(engine) == {"anam_reporting.own()"}
    migrate(engine, "anam")


def test_a_downgrade_that_would_break_what_was_built_on_a_function_says_what(engine):
    build_upon(engine, "personas_as_of(now()) IS NULL")
    with alembic(engine) as config:
        command.downgrade(config, "0001")
    before = catalog(engine)
    with (
        alembic(engine) as config,
        pytest.raises(
            DatabaseError, match=r"theirs\.own stands on function anam_reporting\.personas_as_of"
        ),
    ):
        command.downgrade(config, "base")
    assert catalog(engine) == before


def test_while_the_views_are_paused_a_function_tells_so_too(engine):
    with engine.begin() as connection:
        run_script(connection, pause_views("anam"))
    with engine.connect() as connection, pytest.raises(sa.exc.DataError, match="about to be made"):
        connection.execute(sa.text("SELECT * FROM anam_reporting.personas_as_of(now())"))


def test_the_functions_of_two_schemas_of_any_name_are_each_their_own(engine, database_url):
    name = 'it\'s "$body$"'
    other = make_engine(database_url, name)
    migrate(other, name)
    query = 'SELECT * FROM "it\'s ""$body$""_reporting".personas_as_of(now())'
    with other.connect() as connection:
        run_script(connection, query)
    before = catalog(engine, "anam_reporting")
    with alembic(other, name) as config:
        command.downgrade(config, "base")
    assert catalog(engine, "anam_reporting") == before


HARDENED = "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"


@pytest.mark.parametrize("hardening", ["SELECT 1", HARDENED])
def test_a_reader_has_views_and_functions_and_nothing_else(
    role, empty_database_url, hardening, tmp_path
):
    engine = make_engine(empty_database_url, "anam")
    change(engine, hardening)
    migrate(engine, "anam", readers=[role])
    # As later releases will have them.
    change(engine, "CREATE FUNCTION anam_reporting.later() RETURNS integer RETURN 1")
    fill(engine)
    with psycopg.connect(url_as(empty_database_url, role), autocommit=True) as session:
        for view in all_views():
            (found,) = session.execute(
                f"SELECT count(shown::text) FROM anam_reporting.{view.name} AS shown".encode()
            ).fetchall()
            assert found == (1,) or view.name not in {"persona_history", "avatar_history"}
        (row,) = session.execute(
            "SELECT name, avatar_name FROM anam_reporting.personas_as_of(now())"
        ).fetchall()
        assert row == ("Ada", "Liv")
        session.execute("SELECT anam_reporting.later()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT FROM anam.personas")


def fill(engine: sa.Engine) -> None:
    """A persona with an avatar, as `sync` would leave them."""
    change(
        engine,
        """
        WITH made AS (VALUES
            ('persona', gen_random_uuid(), jsonb_build_object('name', 'Ada', 'voiceSpeed', 1.5,
                'createdAt', '2026-04-20T10:00:00Z', 'avatar', jsonb_build_object('id',
                    md5('avatar')::uuid))),
            ('avatar', md5('avatar')::uuid, jsonb_build_object('displayName', 'Liv'))
        ), stored AS (
            INSERT INTO documents (kind, entity_id, document, content_hash)
            SELECT column1, column2, column3, sha256(convert_to(column1, 'UTF8')) FROM made
            RETURNING kind, entity_id, content_hash
        ), persona AS (
            INSERT INTO personas (persona_id) SELECT column2 FROM made WHERE column1 = 'persona'
        )
        INSERT INTO document_versions (kind, entity_id, version, valid_from, last_observed_at,
                                       content_hash, change, changed_paths)
        SELECT kind, entity_id, 1, now() - interval '1 hour', now(), content_hash, 'created', '{}'
        FROM stored
        """,
    )
