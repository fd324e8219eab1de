"""A JSON value → the Python value of a column's type, or why it does not fit.

The reporting views decide the same in SQL, from the stored value: `report/casts.py`.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, DateTime, Double, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from etl.payload.paths import usable_uuid
from etl.payload.times import parse_time

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.types import TypeEngine

    from etl.payload.decode import Json

MAX_INDEXED_BYTES = 2000
"""A btree entry of Postgres holds at most 2704 bytes, other key columns and headers included."""

# As JSON writes numbers: Decimal itself also takes `1_000`, blanks and other scripts' digits.
_SPELLED_NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,6})?")


class MisfitError(Exception):
    """A value does not fit its column. Holds what would fit, never the value."""

    def __init__(self, problem: str, expected: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.expected = expected


def converter(type_: TypeEngine[Any], *, indexed: bool) -> Callable[[Json], Any]:
    """The function that turns a value into what a column of this type takes.

    It raises MisfitError for a value that the type can't hold without loss, null included.
    """
    if isinstance(type_, JSONB):
        return _as_is
    if isinstance(type_, Text):
        return _indexed_text if indexed else _text
    return next(convert for known, convert in _CONVERTERS.items() if isinstance(type_, known))


def describe(value: Json) -> str:
    """Type and shape of a value, fit for a report: never the value."""
    match value:
        case None:
            shape = "null"
        case bool():
            shape = "boolean"
        case str():
            shape = f"string of {len(value)} characters"
        case list():
            shape = f"array of {len(value)} elements"
        case dict():
            shape = f"object of {len(value)} members"
        case _:
            shape = _describe_number(Decimal(value))
    return shape


def json_type(value: Json) -> str:
    """The JSON type of a value, as `jsonb_typeof` names it."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "number"


def _describe_number(number: Decimal) -> str:
    if number != number.to_integral_value():
        return "number with a fraction"
    return f"integer of {number.adjusted() + 1} digits"


def _as_is(value: Json) -> Json:
    return value


def _text(value: Json) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    number = _number(value)
    if number is None:
        raise MisfitError("not a text", "text")
    # All digits, as Postgres writes the number that it stored: 1e22 has 23 of them.
    return format(number, "f")


def _indexed_text(value: Json) -> str:
    text = _text(value)
    if len(text.encode()) > MAX_INDEXED_BYTES:
        raise MisfitError("too long for a key", f"text of at most {MAX_INDEXED_BYTES} bytes")
    return text


def _uuid(value: Json) -> uuid.UUID:
    found = usable_uuid(value)
    if found is None:
        raise MisfitError("not a uuid", "uuid")
    return found


def _time(value: Json) -> datetime:
    found = parse_time(value) if isinstance(value, str) else None
    if found is None:
        raise MisfitError("not a time", "timestamptz, as in 2026-04-20T10:00:00.000Z")
    return found


def _boolean(value: Json) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    raise MisfitError("not a boolean", "boolean")


def _number(value: Json) -> Decimal | None:
    """The exact number that a value is or spells; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    if isinstance(value, str) and not _SPELLED_NUMBER.fullmatch(value):
        return None
    return Decimal(repr(value) if isinstance(value, float) else value)


def _integer(value: Json) -> int:
    number = _number(value)
    if number is None:
        raise MisfitError("not a number", "bigint")
    if not number:
        return 0  # Spelled 0e999999 it would seem large.
    # The size is tested first: the integer of 1e1000000 would be a million digits.
    if number.adjusted() > 18 or number != number.to_integral_value() or not _is_bigint(number):  # noqa: PLR2004  of a bigint
        raise MisfitError("not a 64-bit integer", "bigint")
    return int(number)


def _is_bigint(number: Decimal) -> bool:
    return -(2**63) <= number < 2**63


def _double(value: Json) -> float:
    number = _number(value)
    if number is None:
        raise MisfitError("not a number", "double precision")
    rounded = float(number)
    if math.isinf(rounded):
        raise MisfitError("out of range", "double precision")
    return rounded + 0.0  # A negative zero is a zero.


_CONVERTERS: dict[type[TypeEngine[Any]], Callable[[Json], Any]] = {
    UUID: _uuid,
    DateTime: _time,
    Boolean: _boolean,
    Integer: _integer,
    Double: _double,
    Text: _text,
}
