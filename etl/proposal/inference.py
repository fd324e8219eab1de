"""Which type holds all values that came at a path, without loss. Pure.

Rounding to a double, digits below a microsecond and the case of a uuid are no loss. That a number
was none but a text, or a text a number, is told by `json_types` where one column holds both.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from etl.payload.paths import usable_uuid
from etl.payload.times import parse_time
from etl.payload.values import json_type

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etl.payload.decode import Json

# A time without an offset is read as UTC where the API documents one. Of a field that nobody has
# documented it may be the caller's own time: that it says nothing of it has to stay visible.
_WITH_OFFSET = re.compile(r"(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})\Z")

# Up to here each whole number is a double.
_WHOLE_DOUBLES = 2**53


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a column for all values of a field is."""

    type: str
    """One of `TYPES` of the map; of a list that of its elements."""
    is_list: bool
    json_types: tuple[str, ...]
    """The JSON types that came besides null, of a list those of its elements; sorted."""
    values: int
    """How many values it was inferred from: nulls left out, elements of arrays one by one."""


def infer(values: Iterable[Json]) -> Inferred | None:
    """The type for a field of which these values came; None where only nulls and empty arrays did.

    All of them are looked at, and none is kept. An array says what its elements say one by one.
    """
    outer: set[str] = set()
    items = _Seen()
    for value in values:
        if value is None:
            continue
        outer.add(json_type(value))
        for item in value if isinstance(value, list) else [value]:
            items.add(item)
    if not items.count and outer <= {"array"}:
        return None
    is_nested = bool(items.json_types & {"array", "object"})
    if is_nested or ("array" in outer and len(outer) > 1):
        return Inferred("jsonb", is_list=False, json_types=_sorted(outer), values=items.count)
    return Inferred(
        items.scalar_type(),
        is_list="array" in outer,
        json_types=_sorted(items.json_types),
        values=items.count,
    )


def _sorted(json_types: set[str]) -> tuple[str, ...]:
    return tuple(sorted(json_types))


class _Seen:
    """What is known of the values so far."""

    def __init__(self) -> None:
        self.count = 0
        self.json_types: set[str] = set()
        self.fits = {"uuid": True, "timestamptz": True, "bigint": True, "double precision": True}

    def add(self, value: Json) -> None:
        if value is None:
            return
        self.count += 1
        self.json_types.add(json_type(value))
        if isinstance(value, str):
            self._narrow("uuid", usable_uuid(value) is not None)
            self._narrow("timestamptz", _is_moment(value))
        elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            number = Decimal(repr(value) if isinstance(value, float) else value)
            self._narrow("bigint", _is_bigint(number))
            self._narrow("double precision", _is_double(number))

    def _narrow(self, type_: str, fits: bool) -> None:
        self.fits[type_] &= fits

    def scalar_type(self) -> str:
        """Of scalars alone. The first that takes all of them; text takes anything."""
        if self.json_types == {"boolean"}:
            return "boolean"
        candidates: tuple[str, ...] = ()
        if self.json_types == {"string"}:
            candidates = ("uuid", "timestamptz")
        if self.json_types == {"number"}:
            candidates = ("bigint", "double precision")
        return next((type_ for type_ in candidates if self.fits[type_]), "text")


def _is_moment(text: str) -> bool:
    return _WITH_OFFSET.search(text) is not None and parse_time(text) is not None


def _is_bigint(number: Decimal) -> bool:
    # The comparison comes first: what is huge is not made an integer.
    return -(2**63) <= number < 2**63 and number == number.to_integral_value()


def _is_double(number: Decimal) -> bool:
    """Whether nothing but rounding is lost: no digit of a whole number, and not the number itself.

    Beyond 2^53 a double leaves whole numbers out, close to zero most digits.
    """
    rounded = float(number)
    if rounded == number or Decimal(repr(rounded)) == number:
        return True
    return sys.float_info.min <= abs(rounded) < _WHOLE_DOUBLES
