"""The reporting views' casts in SQL and the loader's conversions in Python are one rule."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, Double, Text
from sqlalchemy.dialects.postgresql import JSONB

from etl.payload.decode import decode, dumps, loads
from etl.payload.values import MisfitError, converter
from etl.report.casts import CASTS, cast_to
from etl.report.functions import REPORTING
from etl.tables import TIME, UUID_
from tests.unit.strategies import exactly, json_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.types import TypeEngine

AN_ID = "0f0f0f0f-0000-4000-8000-00000000000A"
TYPES: dict[str, tuple[TypeEngine[Any], bool]] = {
    "uuid": (UUID_, False),
    "time": (TIME, False),
    "boolean": (Boolean(), False),
    "bigint": (BigInteger(), False),
    "double": (Double(), False),
    "text": (Text(), False),
    "indexed": (Text(), True),
    "jsonb": (JSONB(), False),
}
# As text, since Python's times and their loader know less than Postgres.
AS_TEXT = {"time": """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')"""}
COLUMNS = ", ".join(
    AS_TEXT.get(name, "{}")
    .replace("{}", cast_to(type_, "item.value", indexed=indexed))
    .replace(REPORTING, "anam_reporting")
    + f" AS {name}"
    for name, (type_, indexed) in TYPES.items()
)
QUERY = f"""
    SELECT {COLUMNS} FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS item
    ORDER BY ordinality
"""


@pytest.fixture(scope="module")
def session(new_database, template):
    with new_database(template) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET TimeZone TO 'Asia/Kathmandu'")
        connection.execute("SET DateStyle TO 'SQL, DMY'")
        psycopg.types.json.set_json_loads(loads, connection)
        yield connection


def loaded(value: Any, type_: TypeEngine[Any], *, indexed: bool) -> Any:
    """What the loader puts into a column of this type."""
    try:
        found = None if value is None else converter(type_, indexed=indexed)(value)
    except MisfitError:
        return None
    if isinstance(found, datetime):
        return found.replace(tzinfo=None).isoformat(timespec="microseconds")
    return found


def compare(session: psycopg.Connection[Any], values: Sequence[Any]) -> None:
    text = dumps(list(values)).decode()
    for value, row in zip(values, session.execute(QUERY.encode(), [text]), strict=True):
        for (name, (type_, indexed)), found in zip(TYPES.items(), row, strict=True):
            expected = loaded(value, type_, indexed=indexed)
            assert exactly(found) == exactly(expected), (name, value, found, expected)
            assert repr(found) == repr(expected) or name == "jsonb", (name, value)


NUMBERS = [
    *("0", "-0", "0.0", "-0.0", "1", "-1", "1.0", "1.50", "0.1", "-1.5", "1e3", "1E+3", "1e-3"),
    *("1e22", "1e23", "123456789012345678901234567890", "1e-7", "1.5e-7", "1e16", "1e17", "1e21"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808"),
    *("-9223372036854775809", "9223372036854775807.5", "9223372036854775806.5", "1e18", "1e19"),
    *("1e308", "1.7976931348623157e308", "1.7976931348623158e308", "1.7976931348623159e308"),
    *("1.8e308", "1e309", "-1e309", "1e400", "1e999", "1e-307", "1e-308", "1e-320", "5e-324"),
    *("2.4703282292062327e-324", "2.4703282292062328e-324", "2.5e-324", "1e-324", "1e-999"),
    # Halfway to the first double beyond all, and halfway from zero to the first one.
    str(2**1024 - 2**970),
    str(2**1024 - 2**970 - 1),
    f"{5**1075}e-1075",
    f"{5**1075 - 1}e-1075",
    f"{5**1075 + 1}e-1075",
]
SPELLED = [
    *NUMBERS,
    *("0e999999", "-0e999999", "0e-999999", "0.000e5", "1e999999", "-1e999999", "1e-999999"),
    *("1e-1001", "1e1001", "1e1000000", "1e+5", "01", "-01.50", "+1", "1.", ".5", "1e", "1e5.5"),
    *("1_000", " 1", "1 ", "1\n", "\u0661", "0x10", "NaN", "Infinity", "-Infinity", "inf", "--1"),
    *("9" * 400, "9" * 401, "0" * 400, "0" * 400 + "." + "0" * 399 + "1", "0." + "1" * 401),
    *("1" * 400 + "e-400", "1" * 400 + "e-390", "0." + "0" * 399 + "1e400", "1" * 900, "1" * 5000),
    "",
]
TIMES = [
    *("2026-04-20T10:00:00.000Z", "2026-04-20t10:00:00z", "2026-04-20 10:00:00", "2026-04-20"),
    *("2026-04-20T10:00:00+05:30", "2026-04-20T10:00:00-0200", "2026-04-20T10:00:00+0530"),
    *("2026-04-20T10:00:00.1Z", "2026-04-20T10:00:00.123456Z", "2026-04-20T10:00:00.1234569Z"),
    *("2026-04-20T10:00:00.999999999Z", "2026-12-31T23:59:59.9999999Z", "2026-04-20T10:00:00.Z"),
    *("2024-02-29T00:00:00Z", "2026-02-29T00:00:00Z", "2000-02-29T00:00:00Z"),
    *("1900-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-12-31T00:00:00Z"),
    *("2026-00-10T00:00:00Z", "2026-13-10T00:00:00Z", "2026-01-00T00:00:00Z"),
    *("2026-01-32T00:00:00Z", "2026-04-20T24:00:00Z", "2026-04-20T23:59:60Z"),
    *("2026-04-20T23:60:00Z", "2026-04-20T10:00:00+24:00", "2026-04-20T10:00:00+23:59"),
    *("2026-04-20T10:00:00-23:59", "2026-04-20T10:00:00+10:60", "2026-04-20T10:00:00+1"),
    *("2026-04-20T10:00:00-00:00", "2026-04-20T10:00:00+10", "2026-04-20T10:00:00 Z"),
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "0001-01-01T00:00:00-00:01"),
    *("0000-01-01T00:00:00Z", "0000-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999999Z"),
    *("9999-12-31T23:59:59-00:01", "9999-12-31T23:59:59+00:01", "99999-01-01T00:00:00Z"),
    *("0099-03-01T00:00:00Z", "2026-04-20T10:00:00.5", "2026-04-20T10:00", "20260420T100000Z"),
    *("2026-04-20T10:00:00Z\n", " 2026-04-20T10:00:00Z", "2026-W17-1T10:00:00Z", "infinity"),
    *("2026-04-20T10:00:00\u00b9Z", "\u0662026-04-20T10:00:00Z", "now", "yesterday", "epoch"),
    "2026-04-20T10:00:00." + "1" * 1000 + "Z",
]
OTHERS: list[Any] = [
    *(None, True, False, [], {}, [1], {"a": 1}, [None], [AN_ID], {"id": AN_ID}),
    *("true", "TRUE", "False", "tRuE", "true ", "t", "yes", "on", "1", "\u0130", "FALSE\u0131"),
    *(AN_ID, AN_ID.lower(), f"{{{AN_ID}}}", AN_ID.replace("-", ""), f" {AN_ID}", f"{AN_ID}\n"),
    *("0f0f0f0f0-000-4000-8000-00000000000a", AN_ID.replace("0", "\u0660"), "g" + AN_ID[1:]),
    *("x" * 2000, "x" * 2001, "é" * 1000, "é" * 1001, "\U0001f600" * 500, "\U0001f600" * 501),
    *("null", '"', "\\", "\u2028", "\ufffd", "\x01", "[]", "{}", "$1", "%s", "'", "a" * 100_000),
]


def test_corner_cases(session):
    numbers = [decode(number.encode()).value for number in NUMBERS]
    compare(session, [*numbers, *SPELLED, *TIMES, *OTHERS])


@pytest.mark.parametrize(
    ("value", "column", "expected"),
    [
        # What the two agree on is what it should be, too.
        ("0e999999", "bigint", "0"),
        ("-0", "double", "0"),
        ("1e-999999", "double", "0"),
        ("1e999999", "double", None),
        (Decimal("1e22"), "text", "1" + "0" * 22),
        (1e-7, "text", "0.0000001"),
        ("2026-04-20T24:00:00Z", "time", None),
        ("2026-04-20T10:00:00.1234569Z", "time", "2026-04-20T10:00:00.123456"),
    ],
)
def test_what_they_agree_on(session, value, column, expected):
    query = f"SELECT ({column})::text FROM ({QUERY}) AS casts"
    ((found,),) = session.execute(query.encode(), [dumps([value]).decode()]).fetchall()
    assert found == expected


digits = st.text("0123456789", min_size=1, max_size=30) | st.sampled_from(["0" * 400, "9" * 400])
exponents = st.sampled_from(["", "e", "E", "e+", "e-"]).flatmap(
    lambda e: (
        st.integers(0, 1_100_000).map(lambda n: f"{e}{n}" if e else "")
        | st.integers(0, 400).map(lambda n: f"{e}{n}" if e else "")
    )
)
spelled_numbers = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{whole}{fraction}{exponent}",
    st.sampled_from(["", "-", "+"]),
    digits,
    st.just("") | digits.map(lambda fraction: f".{fraction}"),
    exponents,
)
json_numbers = st.builds(
    lambda sign, whole, fraction, exponent: (
        decode(f"{sign}{whole.lstrip('0') or '0'}{fraction}{exponent}".encode()).value
    ),
    st.sampled_from(["", "-"]),
    digits,
    st.just("") | digits.map(lambda fraction: f".{fraction}"),
    st.just("") | st.integers(-700, 580).map(lambda n: f"e{n}"),
)
near_doubles = st.builds(
    lambda number, power: decode(str(Decimal(number) * Decimal(10) ** power).encode()).value,
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-20, 20),
)
two = st.integers(0, 70).map(lambda n: f"{n:02}")
spelled_times = st.builds(
    lambda year, *parts: (
        f"{year:04}-{parts[0]}-{parts[1]}{parts[2]}{':'.join(parts[3:6])}{parts[6]}{parts[7]}"
    ),
    st.integers(0, 10_000),
    st.integers(0, 13).map(lambda n: f"{n:02}"),
    st.integers(0, 32).map(lambda n: f"{n:02}"),
    st.sampled_from(["T", "t", " ", "_"]),
    st.integers(0, 25).map(lambda n: f"{n:02}"),
    two,
    two,
    st.just("") | digits.map(lambda fraction: f".{fraction}"),
    st.sampled_from(["", "Z", "z", "+00:00", "-23:59", "+2359", "+24:00", "-05:60", "+5", "-1200"]),
)
close_to_something = st.sampled_from([AN_ID, "true", "FALSE", *TIMES[:8]]).flatmap(
    lambda text: st.builds(
        lambda at, put: text[:at] + put + text[at + 1 :],
        st.integers(0, len(text)),
        st.sampled_from(["", " ", "\n", "0", "9", "A", "\u0661", "\u0130", "-"]),
    )
)
hostile = st.one_of(
    json_numbers,
    near_doubles,
    spelled_numbers,
    spelled_times,
    close_to_something,
    json_values.map(lambda value: decode(json.dumps(value).encode()).value),
)


@settings(deadline=None, max_examples=60)
@given(values=st.lists(hostile, min_size=1, max_size=60))
def test_any_value(session, values):
    compare(session, values)


def test_they_run_in_parallel_workers_and_within_an_index(session):
    kept = [function.name for function in CASTS]
    query = """
        SELECT provolatile::text, proparallel::text FROM pg_proc
        WHERE pronamespace = 'anam_reporting'::regnamespace AND proname = ANY (%s)
    """
    assert session.execute(query, [kept]).fetchall() == [("i", "s")] * len(kept)
    forced = "debug_parallel_query" if server_version(session) >= 16 else "force_parallel_mode"
    session.execute(f"SET {forced} TO on".encode())
    compare(session, [*SPELLED, *TIMES])
    explained = session.execute(b"EXPLAIN " + QUERY.encode(), ["[]"]).fetchall()
    session.execute(f"SET {forced} TO off".encode())
    assert "Gather" in str(explained)


def server_version(session: psycopg.Connection[Any]) -> int:
    return session.info.server_version // 10_000
