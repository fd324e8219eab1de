"""What a value looks like, in a few coarse words: never the value, nor a key of free data."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

from etl.payload.paths import usable_uuid
from etl.payload.secret_urls import BLANK
from etl.payload.times import parse_time
from etl.payload.values import json_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.payload.decode import Json

# What is longer, or has several lines, is prose rather than a name.
_LONGEST_NAME = 200

_HASHED = re.compile(r"sha256:[0-9a-f]{64}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S", re.IGNORECASE | re.ASCII)

# The first that fits.
_SHAPES_OF_TEXT: dict[str, Callable[[str], object]] = {
    "empty text": lambda text: not text,
    "blanked secret": lambda text: text == BLANK,
    "hashed secret": _HASHED.fullmatch,
    "uuid": usable_uuid,
    "time": parse_time,
    "date": _DATE.fullmatch,
    "URL": _URL.match,
    "long text": lambda text: len(text) > _LONGEST_NAME or "\n" in text,
}


def shape_of(value: Json) -> str | None:
    """One of about twenty: uuid, time, whole number, array of objects, …; None of null."""
    match value:
        case None:
            return None
        case bool():
            return "boolean"
        case str():
            return _shape_of_text(value)
        case list():
            return _shape_of_array(value)
        case dict():
            return "object" if value else "empty object"
        case _:
            return _shape_of_number(Decimal(value))


def _shape_of_number(number: Decimal) -> str:
    if number != number.to_integral_value():
        return "number with a fraction"
    return "whole number" if -(2**63) <= number < 2**63 else "huge whole number"


def _shape_of_text(text: str) -> str:
    for shape, fits in _SHAPES_OF_TEXT.items():
        if fits(text):
            return shape
    return "text"


def _shape_of_array(array: list[Json]) -> str:
    found = {json_type(item) for item in array} - {"null"}
    if not found:
        return "array of nulls" if array else "empty array"
    return f"array of {found.pop()}s" if len(found) == 1 else "array of several types"
