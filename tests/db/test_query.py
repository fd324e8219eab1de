"""One statement of somebody's own: it reads what the role may read, and whatever it tries, no more.

The role here is the tables' owner, and a superuser: nothing but the transaction holds it back.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest

from etl.errors import DatabaseError, UsageError
from etl.jobs.grants import reader_grants
from etl.jobs.query import answered
from etl.settings import load_settings

A_MINUTE = timedelta(seconds=60)

# In the place of {} stands what would write.
WRITES = [
    "DELETE FROM anam.kept",
    "/* a remark */ -- and another\n DELETE FROM anam.kept RETURNING n",
    "INSERT INTO anam.kept VALUES (7) RETURNING n",
    "UPDATE anam.kept SET n = 7 RETURNING n",
    "MERGE INTO anam.kept k USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
    "WITH gone AS (DELETE FROM anam.kept RETURNING n) SELECT * FROM gone",
    "WITH some AS (SELECT 1) DELETE FROM anam.kept",
    "EXPLAIN ANALYZE DELETE FROM anam.kept",
    "SELECT * FROM anam.kept FOR UPDATE",
    "SELECT * FROM anam.kept FOR KEY SHARE",
    "SELECT * INTO anam.another FROM anam.kept",
    "CREATE TABLE anam.another AS SELECT 1",
    "CREATE TEMP TABLE another (n int)",
    "DROP TABLE anam.kept",
    "TRUNCATE anam.kept",
    "SELECT nextval('anam.numbers')",
    "SELECT setval('anam.numbers', 70)",
    "SELECT anam.writing()",
    "CALL anam.writing_too(1)",
    "SELECT set_config('transaction_read_only', 'off', true), anam.writing()",
    "SELECT set_config('transaction_read_only', 'off', false) FROM anam.kept",
    "SELECT query_to_xml('DELETE FROM anam.kept', true, true, '')",
    "SELECT 1; DELETE FROM anam.kept",
    "COMMIT; DELETE FROM anam.kept",
    "COMMIT",
    "ROLLBACK",
    "BEGIN READ WRITE",
    "SET TRANSACTION READ WRITE",
    "SET default_transaction_read_only = off",
    "RESET ALL",
    "DISCARD ALL",
    "PREPARE TRANSACTION 'x'",
    "PREPARE x AS DELETE FROM anam.kept",
    "EXECUTE x",
    "DECLARE x CURSOR WITH HOLD FOR SELECT 1",
    "DO $$ BEGIN DELETE FROM anam.kept; END $$",
    "COPY anam.kept TO PROGRAM 'touch {folder}/file'",
    "COPY anam.kept TO '{folder}/file'",
    "COPY anam.kept FROM PROGRAM 'echo 7'",
    "COPY anam.kept TO STDOUT",
    "LOCK TABLE anam.kept",
    "VACUUM anam.kept",
    "REINDEX TABLE anam.kept",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "LISTEN x",
    "NOTIFY x",
    "REFRESH MATERIALIZED VIEW anam.kept",
    "CHECKPOINT",
]


def running(owner: psycopg.Connection[tuple[object, ...]], part: str) -> list[tuple[object, ...]]:
    """The other sessions of this database whose statement has that in it."""
    return owner.execute(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE %s AND pid <> pg_backend_pid()",
        [f"%{part}%"],
    ).fetchall()


@pytest.fixture
def owner(database_url):
    """A session of the owner's, beside what is asked; with something that could be spoilt."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("""
            CREATE TABLE anam.kept AS SELECT generate_series(1, 3) AS n;
            CREATE SEQUENCE anam.numbers;
            CREATE FUNCTION anam.writing() RETURNS void LANGUAGE sql
                AS 'INSERT INTO anam.kept VALUES (7)';
            CREATE PROCEDURE anam.writing_too(INOUT n int) LANGUAGE plpgsql
                AS 'BEGIN COMMIT; SET TRANSACTION READ WRITE; PERFORM anam.writing(); END'
        """)
        yield connection


@pytest.fixture
def ask(database_url, owner, tmp_path):
    """What runs a statement and gives all of its rows."""
    found = load_settings({}, cwd=tmp_path)

    def rows(sql: str, timeout: timedelta = A_MINUTE) -> list[tuple[object, ...]]:
        with answered(found, sql, url=database_url, timeout=timeout) as answer:
            return list(answer.rows)

    return rows


def state(owner) -> object:
    """All that the statements above are after."""
    owner.execute("SELECT pg_stat_clear_snapshot()")
    return [
        owner.execute(query).fetchall()
        for query in (
            "SELECT xmin::text, n FROM anam.kept ORDER BY n",
            "SELECT last_value, is_called FROM anam.numbers",
            "SELECT oid, relname FROM pg_class ORDER BY oid",
            "SELECT oid FROM pg_largeobject_metadata",
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()",
        )
    ]


def test_what_would_write_is_refused_and_leaves_no_trace(ask, owner, tmp_path) -> None:
    tmp_path.chmod(0o777)
    before = state(owner)
    for statement in WRITES:
        with pytest.raises(UsageError):
            pytest.fail(f"{statement}: {ask(statement.format(folder=tmp_path))}")
    assert state(owner) == before
    assert not (tmp_path / "file").exists()


def test_what_postgres_lets_through_is_undone(ask, owner) -> None:
    before = state(owner)
    assert ask("EXPLAIN ANALYZE CREATE TABLE anam.another AS SELECT 1")
    # Refused since Postgres 16.
    with suppress(UsageError):
        ask("SELECT lo_create(0)")
    assert ask("SELECT set_config('default_transaction_read_only', 'off', false)")
    assert state(owner) == before


REFUSALS = [
    ("DELETE FROM personas", "query only reads: it runs no DELETE; write a SELECT"),
    ("do $$ begin end $$", "query only reads: it runs no DO; write a SELECT"),
    ("SELECT * INTO x FROM runs", "this SELECT returns none"),
    ("SELECT * FROM anam.kept FOR UPDATE", "query only reads, and this would write; Postgres"),
    ("SELECT 1; SELECT 2", "query runs one statement at a time"),
    ("SELECT $1::int", "query takes no parameters"),
    ("SELECT '\0'", "the SQL holds a NUL"),
    (" ; -- nothing\n /* at all */", "there is no SQL to run"),
    ("", "there is no SQL to run"),
]


def test_a_refusal_says_why(ask) -> None:
    for statement, told in REFUSALS:
        with pytest.raises(UsageError) as raised:
            ask(statement)
        assert told in str(raised.value), statement


MISTAKES = [
    (
        "SELECT name,\n       nme FROM personas",
        (
            'line 2, column 8: column "nme" does not exist; did you mean personas.name?\n'
            "         nme FROM personas\n"
            "         ^"
        ),
    ),
    (
        "SELECT 1 FROM persona",
        (
            'line 1, column 15: relation "persona" does not exist; did you mean personas?\n'
            "  SELECT 1 FROM persona\n"
            "                ^"
        ),
    ),
    ("SELECT 1 +", "line 1, column 11: syntax error at end of input\n  SELECT 1 +\n" + " " * 12),
    ("\\d", "that is for psql; SELECT * FROM dictionary tells what there is"),
    ("SHOW tables", "SELECT * FROM dictionary tells what there is"),
    ("describe personas", "SELECT * FROM dictionary tells what there is"),
    (
        "SELECT persona_id FROM changes",
        'column "persona_id" does not exist; SELECT * FROM dictionary tells what there is',
    ),
    ("SELECT 'x", "line 1, column 8: unterminated quoted string"),
    ("SELECT lenght(name) FROM personas", "No function matches the given name"),
    ("SELECT 1 / (2 - n) FROM kept", "division by zero"),
    ("SELECT 'x'::int", 'invalid input syntax for type integer: "x"'),
    ("SELECT '漢字', nme FROM personas", "line 1, column 14: column"),
]


def test_a_mistake_is_told_with_its_place_and_what_may_be_meant(ask) -> None:
    for statement, told in MISTAKES:
        with pytest.raises(UsageError) as raised:
            ask(statement)
        assert told in str(raised.value), statement


def test_in_a_long_line_the_place_is_still_shown(ask) -> None:
    with pytest.raises(UsageError) as raised:
        ask(f"SELECT {'name, ' * 500} nme FROM personas")
    _, line, caret = str(raised.value).split("\n")
    assert len(line) <= 80
    assert line[caret.index("^") :].startswith("nme")
    with pytest.raises(UsageError) as raised:
        ask(f"SELECT '{'x' * 10_000}")
    assert max(map(len, str(raised.value).split("\n"))) < 300


def test_bare_names_are_the_views_then_the_tables(ask) -> None:
    assert ask("SELECT n, current_schemas(false)::text FROM kept WHERE n = 1;  -- that is all") == [
        ("1", "{anam_reporting,anam}")
    ]
    assert ask("SELECT prompt_length FROM personas") == []
    assert ask("TABLE documents") == []
    assert ask("VALUES (1)") == [("1",)]
    assert ask("(SELECT 1)") == [("1",)]
    assert ask("SHOW transaction_read_only") == [("on",)]
    assert ask("SHOW TimeZone") == [("UTC",)]
    assert ask("EXPLAIN DELETE FROM kept")[0][0].startswith("Delete on kept")


def test_values_are_postgres_s_own_text(ask) -> None:
    assert ask(
        "SELECT 1.10::numeric, 12345678901234567890, 'NaN'::float8, true, NULL, '',"
        " '20000-01-01'::timestamptz, '0044-03-15 BC'::date, '{\"a\": 1.0}'::jsonb,"
        " '[0:1]={1,2}'::int[], ARRAY['a', NULL, 'b,\"'], '\\x00ff'::bytea, ROW(1, 'a')"
    ) == [
        (
            "1.10",
            "12345678901234567890",
            "NaN",
            "t",
            None,
            "",
            "20000-01-01 00:00:00+00",
            "0044-03-15 BC",
            '{"a": 1.0}',
            ["1", "2"],
            ["a", None, 'b,"'],
            "\\x00ff",
            "(1,a)",
        )
    ]


def test_a_reader_of_the_reports_is_enough(plain_role, ask, tmp_path) -> None:
    url, as_owner = plain_role
    found = load_settings({}, cwd=tmp_path)
    with (
        pytest.raises(DatabaseError, match="migrate --grant-reader"),
        answered(found, "SELECT 1", url=url, timeout=A_MINUTE),
    ):
        pass
    for statement in reader_grants("anam", "THE_ROLE"):
        as_owner(statement.replace('"THE_ROLE"', "{role}"))
    with answered(found, "SELECT count(*) FROM personas", url=url, timeout=A_MINUTE) as answer:
        assert list(answer.rows) == [("0",)]
    with (
        pytest.raises(UsageError, match="it is a table; this role reads the views alone"),
        answered(found, "TABLE documents", url=url, timeout=A_MINUTE),
    ):
        pass
    with (
        pytest.raises(DatabaseError, match="permission denied for schema anam; grant"),
        answered(found, "TABLE anam.documents", url=url, timeout=A_MINUTE),
    ):
        pass


def test_what_takes_too_long_is_cancelled_and_says_how_to_have_more_time(ask, owner) -> None:
    for statement in (
        "SELECT pg_sleep(60)",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(60)",
        "SELECT n, pg_sleep(0.01) FROM generate_series(1, 6000) n",
    ):
        with pytest.raises(UsageError, match=r"not done within 0.2 s, .* --timeout 10m"):
            ask(statement, timedelta(seconds=0.2))
    assert not running(owner, "pg_sleep")


def test_what_the_server_does_to_it_is_no_fault_of_the_statement(ask) -> None:
    with pytest.raises(DatabaseError, match="by hand; run again"):
        ask("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)")
    with pytest.raises(DatabaseError, match="check that the server is up"):
        ask("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)")


def test_it_waits_for_no_table_that_somebody_has_locked(ask, owner, database_url) -> None:
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE anam.kept IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(UsageError, match="not done within"):
            ask("SELECT n FROM kept", timedelta(seconds=0.2))


def test_rows_that_nobody_asks_for_are_not_waited_for(database_url, owner, tmp_path) -> None:
    found = load_settings({}, cwd=tmp_path)
    endless = "SELECT generate_series(1, 1000000000)"
    with answered(found, endless, url=database_url, timeout=A_MINUTE) as answer:
        assert next(answer.rows) == ("1",)
    assert not running(owner, "generate")
