"""What a value looks like is one of a few words, and tells nothing of the value."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given

from etl.payload.clean import clean
from etl.payload.shapes import shape_of
from tests.unit.strategies import json_values, properties

SHAPES: list[tuple[Any, str | None]] = [
    (None, None),
    (True, "boolean"),
    (7, "whole number"),
    (2**63 - 1, "whole number"),
    (-(2**63) - 1, "huge whole number"),
    (Decimal("1e30"), "huge whole number"),
    (Decimal("2.0"), "whole number"),
    (Decimal("0.5"), "number with a fraction"),
    ("", "empty text"),
    ("calm", "text"),
    ("x" * 201, "long text"),
    ("two\nlines", "long text"),
    ("A0000000-0000-4000-8000-000000000001", "uuid"),
    ("2026-04-20T10:00:00.000Z", "time"),
    ("2026-04-20", "date"),
    ("https://cdn.example.com/a.mp4", "URL"),
    ("s3://bucket/key", "URL"),
    ({}, "empty object"),
    ({"k": "v"}, "object"),
    ([], "empty array"),
    ([None], "array of nulls"),
    (["a", None], "array of strings"),
    ([{"a": 1}], "array of objects"),
    ([1, "a"], "array of several types"),
]


@pytest.mark.parametrize(("value", "shape"), SHAPES)
def test_a_shape_is_a_coarse_word(value, shape):
    assert shape_of(value) == shape


def test_what_cleaning_took_away_is_told_as_that():
    cleaned: Any = clean({"apiKey": "canary", "shareLinks": [{"token": "canary"}]})
    assert shape_of(cleaned["apiKey"]) == "blanked secret"
    assert shape_of(cleaned["shareLinks"][0]["token"]) == "hashed secret"


@properties(200)
@given(json_values)
def test_there_are_few_shapes_whatever_comes(value):
    words = {shape for _, shape in SHAPES} | {"blanked secret", "hashed secret"}
    words |= {f"array of {each}s" for each in ("string", "number", "boolean", "array", "object")}
    assert shape_of(value) in words
