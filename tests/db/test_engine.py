"""Engines, and from the driver's errors to ours."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from etl.errors import DatabaseError
from etl.store.engine import (
    database_now,
    is_data_error,
    is_retryable,
    make_engine,
    translated,
)

NOBODY_LISTENS = "postgresql://someone:hunter2@127.0.0.1:1/db"


def one(engine: sa.Engine, sql: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(sa.text(sql)).scalar()


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+asyncpg", "POSTGRES"]
)
def test_any_way_to_write_the_scheme_is_taken(scheme):
    engine = make_engine(f"{scheme}://u@h/db", "anam")
    assert engine.url.drivername == "postgresql+psycopg"
    assert (engine.url.host, engine.url.database) == ("h", "db")


def test_a_session_sees_its_schema_alone_in_utc(database_url):
    engine = make_engine(database_url, 'odd "name" %s:x', lock_timeout_seconds=2.5)
    assert one(engine, "SHOW search_path") == '"odd ""name"" %s:x"'
    assert one(engine, "SHOW timezone") == "UTC"
    assert one(engine, "SHOW lock_timeout") == "2500ms"
    assert one(engine, "SHOW application_name") == "persona-etl"


def test_the_settings_of_a_session_survive_a_rollback(engine):
    with engine.connect() as connection:
        connection.rollback()
        assert connection.execute(sa.text("SHOW search_path")).scalar() == '"anam"'


def test_our_schema_is_the_default_one_of_the_dialect(engine):
    assert one(engine, "SELECT current_schema()") == "anam"
    assert engine.dialect.default_schema_name == "anam"


def test_a_connection_ends_with_its_with(engine):
    first = one(engine, "SELECT pg_backend_pid()")
    assert one(engine, "SELECT pg_backend_pid()") != first


def test_json_is_read_by_the_function_that_was_given(database_url):
    exact = make_engine(
        database_url, "anam", json_deserializer=lambda text: json.loads(text, parse_float=Decimal)
    )
    assert one(exact, "SELECT '0.10000000000000000001'::jsonb") == Decimal("0.10000000000000000001")


def test_the_databases_clock_moves_within_a_transaction(engine):
    with engine.connect() as connection:
        first, second = database_now(connection), database_now(connection)
    assert first < second
    assert abs(second - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_repr_of_an_engine_shows_no_password():
    assert "hunter2" not in repr(make_engine(NOBODY_LISTENS, "anam"))


def told(engine: sa.Engine, sql: str) -> str:
    with pytest.raises(DatabaseError) as caught, translated():
        one(engine, sql)
    message = str(caught.value)
    assert "\n" not in message
    assert "hunter2" not in message
    return message


def test_a_missing_table_leads_to_migrate(engine):
    assert "persona-etl migrate" in told(engine, "SELECT 'hunter2' FROM no_such_table")


def test_a_missing_privilege_is_named(engine):
    message = told(engine, "SET ROLE pg_monitor; SELECT * FROM anam.personas")
    assert "permission denied for schema anam" in message
    assert "grant the privilege" in message


def test_a_terminated_session_is_told(engine):
    assert "run again" in told(engine, "SELECT pg_terminate_backend(pg_backend_pid())")


def raised(engine: sa.Engine, sql: str, **values: object) -> BaseException:
    with (
        engine.connect() as connection,
        pytest.raises((sa.exc.DBAPIError, UnicodeEncodeError)) as caught,
        translated(),
    ):
        connection.execute(sa.text(sql), values)
    return caught.value


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("SELECT CAST(:value AS uuid)", "x"),
        ("SELECT CAST(:value AS bigint)", "1" + "0" * 40),
        ("CREATE TEMP TABLE t (i text CHECK (i <> 'x')); INSERT INTO t VALUES ('x')", None),
        ("SELECT CAST(:value AS jsonb)", "[" * 100_000),
        ("SELECT CAST(:value AS text)", "a\0b"),
        ("SELECT CAST(:value AS text)", "\ud800"),
    ],
    ids=["22", "22 too big", "23", "54 too deep", "NUL", "lone surrogate"],
)
def test_an_error_of_the_data_is_told_from_the_others(engine, sql, value):
    error = raised(engine, sql, **({} if value is None else {"value": value}))
    assert is_data_error(error)
    assert not is_retryable(error)


def test_a_syntax_error_is_a_bug_and_not_of_the_data(engine):
    error = raised(engine, "SELEKT 1")
    assert not is_data_error(error)
    assert not is_retryable(error)


def test_raw_errors_of_the_driver_are_told_apart_too():
    assert is_data_error(psycopg.errors.UniqueViolation())
    assert is_retryable(psycopg.errors.DeadlockDetected())
    assert is_retryable(psycopg.errors.SerializationFailure())
    assert not is_data_error(psycopg.errors.DeadlockDetected())
    assert not is_data_error(KeyError())


def test_the_text_of_an_error_holds_no_parameter(engine):
    error = raised(engine, "SELECT CAST(:value AS text) || 1/0", value="hunter2")
    assert "hunter2" not in str(error)
