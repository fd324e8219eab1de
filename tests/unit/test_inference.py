"""The type of a column, out of all values that came."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.map import TYPES
from etl.payload.canonical import same
from etl.payload.decode import decode
from etl.payload.values import converter, json_type
from etl.proposal.inference import Inferred, infer
from tests.unit.strategies import decoded, json_values, properties

AN_ID = "0F0F0F0F-0000-4000-8000-00000000000a"
NOON = "2026-04-20T12:00:00"


def numbers(*spelled: str) -> list[Any]:
    return [decode(number.encode()).value for number in spelled]


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([AN_ID, AN_ID.lower(), None], "uuid"),
        ([AN_ID, ""], "text"),
        ([AN_ID.replace("-", "")], "text"),
        ([f"{NOON}.000Z", f"{NOON}+05:30", f"{NOON}-0200", f"{NOON}z"], "timestamptz"),
        ([f"{NOON}Z", NOON], "text"),
        ([NOON], "text"),
        (["2026-04-20"], "text"),
        ([f"{NOON}Z", AN_ID], "text"),
        (["2026-02-30T10:00:00Z"], "text"),
        ([True, None, False], "boolean"),
        (["true"], "text"),
        ([True, 1], "text"),
        ([True, "yes"], "text"),
        ([0, 2**63 - 1, -(2**63)], "bigint"),
        (numbers("1.0", "1e3", "-0.0"), "bigint"),
        (numbers("1", "1.5"), "double precision"),
        (numbers("0.12345678901234567890123"), "double precision"),
        (numbers("9007199254740992", "0.5"), "double precision"),
        (numbers("9007199254740993", "0.5"), "text"),
        (numbers("9007199254740993", "5"), "bigint"),
        (numbers("9223372036854775807", "0.5"), "text"),
        (numbers("9223372036854775808"), "double precision"),
        (numbers("9223372036854775809"), "text"),
        (numbers("1e300", "1e22", "0"), "double precision"),
        (numbers("123456789012345678.5"), "text"),
        (numbers("1e400"), "text"),
        (numbers("-1e400", "1"), "text"),
        (numbers("1e-400"), "text"),
        (numbers("1.23456789e-320"), "text"),
        (numbers("5e-324"), "double precision"),
        ([1, "1"], "text"),
        ([{}], "jsonb"),
        ([{"a": 1}, None], "jsonb"),
        ([{}, "x"], "jsonb"),
        ([[], {}], "jsonb"),
        ([[1], 1], "jsonb"),
        ([[], "x"], "jsonb"),
        ([[[1]]], "jsonb"),
        ([[], [{}], ["x"]], "jsonb"),
    ],
)
def test_the_type_that_holds_all_of_them(values, type_):
    found = infer(values)
    assert found is not None
    assert (found.type, found.is_list) == (type_, False)


@pytest.mark.parametrize(
    ("values", "type_", "json_types", "count"),
    [
        ([["a", "b"], [], None, [None]], "text", ("string",), 2),
        ([[1, None, 2], [3]], "bigint", ("number",), 3),
        ([[1], [0.5]], "double precision", ("number",), 2),
        ([[1], ["x"]], "text", ("number", "string"), 2),
        ([[AN_ID]], "uuid", ("string",), 1),
    ],
)
def test_an_array_of_scalars_is_a_list_of_what_its_elements_are(values, type_, json_types, count):
    assert infer(values) == Inferred(type_, is_list=True, json_types=json_types, values=count)


@pytest.mark.parametrize("values", [[], [None], [None, []], [[None], []]])
def test_nothing_but_nulls_waits(values):
    assert infer(values) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, "x", True], ("boolean", "number", "string")),
        ([{}, [1], [2]], ("array", "object")),
        ([[{}], [1]], ("array",)),
    ],
)
def test_the_json_types_that_came_are_told(values, expected):
    found = infer(values)
    assert found is not None
    assert found.json_types == expected


def test_objects_are_counted_one_by_one():
    found = infer([{}, [1, 2], None])
    assert found is not None
    assert found.values == 3


def test_all_values_are_looked_at_and_none_is_kept():
    found = infer(x for x in [*range(100_000), "x"])
    assert found is not None
    assert (found.type, found.values) == ("text", 100_001)


times = st.datetimes().map(lambda at: f"{at.isoformat()}Z") | st.builds(
    lambda at, offset: f"{at.isoformat(timespec='milliseconds')}{offset}",
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001  (the offset is next)
    st.sampled_from(["Z", "+05:30", "-0800", "+00:00"]),
)
json_numbers = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40)
).map(lambda number: decode(str(number).encode()).value)
wide_numbers = st.builds(
    lambda digits, power: decode(f"{digits}e{power}".encode()).value,
    st.integers(-(10**25), 10**25),
    st.integers(-500, 500),
)
some = [
    st.uuids().map(str) | st.uuids().map(lambda found: str(found).upper()),
    times,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    json_numbers,
    json_numbers | wide_numbers,
    st.text(max_size=5),
    st.booleans() | json_numbers | st.text(max_size=5) | times,
    json_values.map(decoded),
]
fields = st.sampled_from(some).flatmap(
    lambda one: (
        st.lists(st.none() | one, max_size=6)
        | st.lists(st.lists(st.none() | one, max_size=4), max_size=4)
    )
)
"""Lists of the values of a field, most of one sort."""


def is_kept(value: Any, held: Any, type_: str) -> bool:
    """Whether what the column holds is the payload's value, but for what is no loss."""
    match type_:
        case "uuid":
            return bool(str(held) == value.lower())
        case "timestamptz":
            return bool(datetime.fromisoformat(value).astimezone(UTC) == held)
        case "double precision":
            nearest = Decimal(repr(held))
            distance = abs(nearest - Decimal(value))
            return bool(held == value or distance <= abs(nearest) * Decimal("3e-16"))
        case "text" if json_type(value) != "string":
            return same(decode(held.encode()).value, value)
        case _:
            return same(held, value)


@properties(400)
@given(values=fields)
@example(values=numbers("9007199254740993", "0.5"))
@example(values=numbers("1e-330", "1"))
def test_the_column_takes_every_value_without_loss(values):
    found = infer(values)
    if found is None:
        assert all(value in (None, []) or set(value) == {None} for value in values)
        return
    convert = converter(TYPES[found.type], indexed=False)
    items = [item for value in values for item in (value or [])] if found.is_list else values
    present = [item for item in items if item is not None]
    assert all(is_kept(item, convert(item), found.type) for item in present)
    if found.type != "jsonb":
        assert found.values == len(present)
    assert {json_type(item) for item in present} == set(found.json_types)
