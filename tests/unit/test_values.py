"""What fits a column, what converts without loss, and how the rest is described."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from sqlalchemy import BigInteger, Boolean, Double, Integer, Text
from sqlalchemy.dialects import postgresql

from etl.payload.decode import decode
from etl.payload.values import MisfitError, converter, describe, json_type
from etl.tables import TIME, UUID_
from tests.unit.strategies import decoded, exactly, json_values

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine

AN_ID = "0f0f0f0f-0000-4000-8000-000000000009"
TYPES: dict[str, TypeEngine[Any]] = {
    "uuid": UUID_,
    "time": TIME,
    "boolean": Boolean(),
    "bigint": BigInteger(),
    "integer": Integer(),
    "double": Double(),
    "text": Text(),
    "jsonb": postgresql.JSONB(),
}


def convert(type_: str, written: str) -> Any:
    """The value of a column of that type, from JSON text."""
    return converter(TYPES[type_], indexed=False)(decode(written.encode()).value)


@pytest.mark.parametrize(
    ("type_", "written", "expected"),
    [
        ("uuid", f'"{AN_ID}"', UUID(AN_ID)),
        ("uuid", f'"{AN_ID.upper()}"', UUID(AN_ID)),
        ("boolean", "true", True),
        ("boolean", '"true"', True),
        ("boolean", '"FALSE"', False),
        ("bigint", "0", 0),
        ("bigint", "2.0", 2),
        ("bigint", "-0.0", 0),
        ("bigint", "1e3", 1000),
        ("bigint", '"7"', 7),
        ("bigint", '"7.0"', 7),
        ("bigint", "9223372036854775807", 2**63 - 1),
        ("bigint", "-9223372036854775808", -(2**63)),
        ("bigint", '"9223372036854775807.000"', 2**63 - 1),
        ("double", "1", 1.0),
        ("double", "0.1", 0.1),
        ("double", '"1.5"', 1.5),
        ("double", '"-1.5e-3"', -0.0015),
        ("double", "1e308", 1e308),
        ("double", "100000000000000000000000000000", 1e29),
        ("double", "1e-400", 0.0),
        ("double", "9007199254740993", 9007199254740992.0),
        ("text", '""', ""),
        ("text", "42", "42"),
        ("text", "1.50", "1.5"),
        ("text", "true", "true"),
        ("text", '"\\u0000"', "\ufffd"),
        ("jsonb", "[1, {}]", [1, {}]),
        ("jsonb", '"dark"', "dark"),
        ("time", '"2026-04-20T10:00:00.000Z"', datetime(2026, 4, 20, 10, tzinfo=UTC)),
        ("time", '"2026-04-20t10:00:00z"', datetime(2026, 4, 20, 10, tzinfo=UTC)),
        ("time", '"2026-04-20 10:00:00"', datetime(2026, 4, 20, 10, tzinfo=UTC)),
        ("time", '"2026-04-20T10:00:00+05:30"', datetime(2026, 4, 20, 4, 30, tzinfo=UTC)),
        ("time", '"2026-04-20T10:00:00-0200"', datetime(2026, 4, 20, 12, tzinfo=UTC)),
        ("time", '"2024-02-29T00:00:00Z"', datetime(2024, 2, 29, tzinfo=UTC)),
        (
            "time",
            '"2026-04-20T10:00:00.123456789Z"',
            datetime(2026, 4, 20, 10, 0, 0, 123456, UTC),
        ),
    ],
)
def test_what_converts_without_loss_is_converted(type_, written, expected):
    assert exactly(convert(type_, written)) == exactly(expected)


@pytest.mark.parametrize(
    ("type_", "written", "problem"),
    [
        ("uuid", '"liv"', "not a uuid"),
        ("uuid", "7", "not a uuid"),
        ("uuid", f'"{{{AN_ID}}}"', "not a uuid"),
        ("boolean", "0", "not a boolean"),
        ("boolean", "1", "not a boolean"),
        ("boolean", '"yes"', "not a boolean"),
        ("boolean", '"true "', "not a boolean"),
        ("boolean", "[true]", "not a boolean"),
        ("bigint", "true", "not a number"),
        ("bigint", '"many"', "not a number"),
        ("bigint", '""', "not a number"),
        ("bigint", '" 1"', "not a number"),
        ("bigint", '"1_000"', "not a number"),
        ("bigint", '"\u0661"', "not a number"),
        ("bigint", '"0x10"', "not a number"),
        ("bigint", '"NaN"', "not a number"),
        ("bigint", '"Infinity"', "not a number"),
        ("bigint", "[1]", "not a number"),
        ("bigint", "{}", "not a number"),
        ("bigint", "1.5", "not a 64-bit integer"),
        ("bigint", "9223372036854775808", "not a 64-bit integer"),
        ("bigint", "-9223372036854775809", "not a 64-bit integer"),
        ("bigint", "123456789012345678901234567890", "not a 64-bit integer"),
        ("bigint", "1e400", "not a 64-bit integer"),
        ("bigint", '"1e999999"', "not a 64-bit integer"),
        ("bigint", '"1e-999999"', "not a 64-bit integer"),
        ("double", "true", "not a number"),
        ("double", '"fast"', "not a number"),
        ("double", '"inf"', "not a number"),
        ("double", "1e400", "out of range"),
        ("double", "-1e400", "out of range"),
        ("double", '"1e999999"', "out of range"),
        ("text", "[]", "not a text"),
        ("text", '{"first": "Cara"}', "not a text"),
        ("time", '"2026-04-20"', "not a time"),
        ("time", '"2026-02-30T10:00:00Z"', "not a time"),
        ("time", '"2026-04-20T25:00:00Z"', "not a time"),
        ("time", '"2026-04-20T10:00:61Z"', "not a time"),
        ("time", '"0000-01-01T00:00:00Z"', "not a time"),
        ("time", '"0001-01-01T00:00:00+05:00"', "not a time"),
        ("time", '"20260420T100000Z"', "not a time"),
        ("time", '"yesterday"', "not a time"),
        ("time", "1767225600", "not a time"),
        *[(type_, "null", None) for type_ in TYPES if type_ != "jsonb"],
    ],
)
def test_what_does_not_fit_is_a_misfit(type_, written, problem):
    with pytest.raises(MisfitError) as caught:
        convert(type_, written)
    assert problem in (caught.value.problem, None)
    assert caught.value.expected


@pytest.mark.parametrize("digits", [5000, 10_000_000])
@pytest.mark.parametrize("type_", ["bigint", "double"])
def test_a_text_of_millions_of_digits_is_no_number(type_, digits):
    with pytest.raises(MisfitError, match="not a number"):
        converter(TYPES[type_], indexed=False)("1" * digits)


@pytest.mark.parametrize("text", ["x" * 2001, "é" * 1001, "x" * 10_000_000])
def test_a_key_holds_no_more_than_a_btree_takes(text):
    with pytest.raises(MisfitError, match="too long for a key"):
        converter(Text(), indexed=True)(text)
    assert converter(Text(), indexed=False)(text) == text
    assert converter(Text(), indexed=True)("é" * 1000) == "é" * 1000


@pytest.mark.parametrize(
    ("written", "type_", "description"),
    [
        ("null", "null", "null"),
        ("true", "boolean", "boolean"),
        ('"secret"', "string", "string of 6 characters"),
        ("[1, 2]", "array", "array of 2 elements"),
        ('{"a": 1}', "object", "object of 1 members"),
        ("0", "number", "integer of 1 digits"),
        ("-123", "number", "integer of 3 digits"),
        ("123456789012345678901234567890", "number", "integer of 30 digits"),
        ("1e400", "number", "integer of 401 digits"),
        ("0.5", "number", "number with a fraction"),
        ("1e-400", "number", "number with a fraction"),
    ],
)
def test_a_value_is_described_by_type_and_shape(written, type_, description):
    value = decode(written.encode()).value
    assert (json_type(value), describe(value)) == (type_, description)


@settings(deadline=None, max_examples=200)
@given(json_values.map(decoded))
def test_whatever_comes_is_storable_or_a_misfit(value):
    assert json_type(value) in describe(value) or json_type(value) == "number"
    for name, type_ in TYPES.items():
        try:
            found = converter(type_, indexed=True)(value)
        except MisfitError:
            continue
        if name in {"bigint", "integer"}:
            assert type(found) is int
            assert -(2**63) <= found < 2**63
        if name == "double":
            assert type(found) is float
            assert math.isfinite(found)
        if name == "text":
            assert len(found.encode()) <= 2000
            assert "\x00" not in found
