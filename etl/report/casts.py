"""From a stored JSON value to a column's type, in SQL: what `payload/values.py` makes of it.

Never an error: what does not fit is NULL. Postgres before 16 can't ask whether a text would fit,
and a block that catches the error can't run in a parallel worker, so each function looks first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Boolean, DateTime, Double, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from etl.payload.values import MAX_INDEXED_BYTES
from etl.report.functions import REPORTING, Function

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.types import TypeEngine

_NUMBER_OF = Function(
    "persona_etl_number",
    "value jsonb",
    "numeric",
    "The number that a JSON value is, or that a JSON text spells; otherwise NULL.",
    """
DECLARE
    found text[];
BEGIN
    IF jsonb_typeof(value) = 'number' THEN
        RETURN value::numeric;
    END IF;
    IF jsonb_typeof(value) <> 'string' OR length(value #>> '{}') > 900 THEN
        RETURN NULL;
    END IF;
    found := regexp_match(value #>> '{}',
        '^(-?)([0-9]+)(?:[.]([0-9]+))?(?:[eE]([+-]?[0-9]{1,6}))?$');
    IF found IS NULL OR length(found[2]) > 400 OR length(found[3]) > 400 THEN
        RETURN NULL;
    END IF;
    -- A numeric holds no exponent of six digits. One of this size is out of all columns' bounds,
    -- or next to nothing, just as well.
    RETURN (found[1] || found[2] || '.' || coalesce(found[3], '0') || 'e'
        || least(greatest(coalesce(found[4], '0')::integer, -1500), 1500))::numeric;
END
""",
    "plpgsql",
    "IMMUTABLE",
)

_BIGINT_OF = Function(
    "persona_etl_bigint",
    "value jsonb",
    "bigint",
    "The whole number that a JSON value is or spells; NULL where it is none or too large.",
    f"""
DECLARE
    number CONSTANT numeric := {REPORTING}.persona_etl_number(value);
BEGIN
    IF number = trunc(number) AND number BETWEEN -9223372036854775808 AND 9223372036854775807 THEN
        RETURN number::bigint;
    END IF;
    RETURN NULL;
END
""",
    "plpgsql",
    "IMMUTABLE",
)

_DOUBLE_OF = Function(
    "persona_etl_double",
    "value jsonb",
    "double precision",
    "The number that a JSON value is or spells, as a double; NULL where it is none or too large.",
    f"""
DECLARE
    number CONSTANT numeric := {REPORTING}.persona_etl_number(value);
BEGIN
    -- What rounds to infinity, and what rounds to nothing, is an error to the cast.
    IF number = 0 OR abs(number) < 1e-300 AND abs(number) * 2::numeric ^ 1075 <= 1 THEN
        RETURN 0;
    ELSIF abs(number) >= 2::numeric ^ 1024 - 2::numeric ^ 970 THEN
        RETURN NULL;
    END IF;
    RETURN number::double precision;
END
""",
    "plpgsql",
    "IMMUTABLE",
)

_TIME_OF = Function(
    "persona_etl_time",
    "value jsonb",
    "timestamp with time zone",
    "The moment that a JSON text spells as RFC 3339 has it, UTC without an offset; otherwise NULL.",
    """
DECLARE
    found CONSTANT text[] := regexp_match(value #>> '{}',
        '^([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]'
        '([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])'
        '(?:[.]([0-9]+))?(?:[Zz]|([+-])([01][0-9]|2[0-3]):?([0-5][0-9]))?$');
    days CONSTANT interval := (found[3]::integer - 1) * interval '1 day';
    first date;
    moment timestamp;
BEGIN
    IF found IS NULL OR found[1] = '0000' THEN
        RETURN NULL;
    END IF;
    first := make_date(found[1]::integer, found[2]::integer, 1);
    IF first + days >= first + interval '1 month' THEN
        RETURN NULL;  -- There is no such day.
    END IF;
    moment := first + days
        + make_interval(hours => found[4]::integer, mins => found[5]::integer)
        + found[6]::integer * interval '1 second'
        -- rpad also cuts.
        + coalesce(rpad(found[7], 6, '0')::integer, 0) * interval '1 microsecond'
        - coalesce((found[8] || '1')::integer, 0)
          * make_interval(hours => coalesce(found[9]::integer, 0),
                          mins => coalesce(found[10]::integer, 0));
    IF extract(year FROM moment) NOT BETWEEN 1 AND 9999 THEN
        RETURN NULL;
    END IF;
    RETURN moment AT TIME ZONE 'UTC';
END
""",
    "plpgsql",
    "IMMUTABLE",
)

CASTS = (_NUMBER_OF, _BIGINT_OF, _DOUBLE_OF, _TIME_OF)
"""In the order in which they are made."""

_UUID = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


def cast_to(type_: TypeEngine[Any], value: str, *, indexed: bool = False) -> str:
    """SQL that makes of `value`, an expression of type jsonb, what a column of this type holds."""
    if isinstance(type_, Text) and indexed:
        fits = f"octet_length({text_of(value)}) <= {MAX_INDEXED_BYTES}"
        return f"CASE WHEN {fits} THEN {value} #>> '{{}}' END"
    return next(cast(value) for known, cast in _CASTS.items() if isinstance(type_, known))


def text_of(value: str) -> str:
    """SQL of a scalar's text."""
    scalar = f"jsonb_typeof({value}) IN ('string', 'number', 'boolean')"
    return f"CASE WHEN {scalar} THEN {value} #>> '{{}}' END"


def uuid_of(value: str) -> str:
    """SQL of the uuid that a text is in its usual form, in either case."""
    # No other value reads like one.
    return f"CASE WHEN {value} #>> '{{}}' ~ '{_UUID}' THEN CAST({value} #>> '{{}}' AS uuid) END"


def _boolean_of(value: str) -> str:
    """SQL of a boolean, or of a text that says it: the same in every locale."""
    said = f"lower(({value} #>> '{{}}') COLLATE \"C\")"
    return f"CASE {said} WHEN 'true' THEN true WHEN 'false' THEN false END"


def _json_of(value: str) -> str:
    return f"nullif({value}, 'null')"


def _called(function: Function) -> Callable[[str], str]:
    return lambda value: f"{REPORTING}.{function.name}({value})"


_CASTS: dict[type[TypeEngine[Any]], Callable[[str], str]] = {
    JSONB: _json_of,
    UUID: uuid_of,
    DateTime: _called(_TIME_OF),
    Boolean: _boolean_of,
    BigInteger: _called(_BIGINT_OF),
    Double: _called(_DOUBLE_OF),
    Text: text_of,
}
