"""The canonical form: one text for equal documents, and for no others."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings

from etl.payload.canonical import canonical, content_hash, same, with_sorted_sets
from etl.payload.decode import decode, dumps, loads
from tests.unit.strategies import decoded, exactly, json_values


def test_the_canonical_form_is_sorted_compact_utf8():
    assert canonical({"b": [1, 0.5], "a": {"ö": None, "o": True}}) == (
        '{"a":{"o":true,"ö":null},"b":[1,0.5]}'.encode()
    )


def test_a_hash_is_the_sha256_of_the_canonical_form_for_ever():
    # Any other hash would make every stored document look changed.
    document: Any = {
        "id": "x",
        "n": Decimal("1e30"),
        "displayTags": ["warm", "fast"],
        "isZdr": True,
    }
    written = b'{"displayTags":["fast","warm"],"id":"x","isZdr":true,"n":1E+30}'
    assert canonical(with_sorted_sets("voice", document)) == written
    assert content_hash("voice", document) == hashlib.sha256(written).digest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("1", "1e0"),
        ("0", "-0.0"),
        ("100", "1E2"),
        ("0.5", "5e-1"),
        ("1e30", "10e29"),
        ('{"a":1,"b":2}', '{ "b": 2, "a": 1 }'),
        ('"\\u00e9"', '"é"'),
    ],
)
def test_equal_values_are_the_same_however_they_are_written(one, other):
    assert same(decode(one.encode()).value, decode(other.encode()).value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        (False, 0),
        ("1", 1),
        (None, False),
        ("null", None),
        ([], {}),
        ([1, 2], [2, 1]),
        ({"a": None}, {}),
        (2**53 + 1, float(2**53)),
        ("a", "A"),
        ([[]], []),
        ("é", "é"),
    ],
)
def test_other_values_are_not_the_same(one, other):
    assert not same(one, other)


@pytest.mark.parametrize(
    ("kind", "document", "other"),
    [
        ("avatar", {"availableVersions": ["a", "b"]}, {"availableVersions": ["b", "a"]}),
        ("voice", {"displayTags": [1, "x", None]}, {"displayTags": [None, "x", 1]}),
        ("persona", {"tools": [{"id": 1}, {"id": 2}]}, {"tools": [{"id": 2}, {"id": 1}]}),
        ("persona", {"knowledge": ["a", "b"]}, {"knowledge": ["b", "a"]}),
        (
            "persona",
            {"shareLinks": [{"id": 1, "allowedOrigins": ["a", "b"]}, {"id": 0}]},
            {"shareLinks": [{"id": 0}, {"allowedOrigins": ["b", "a"], "id": 1}]},
        ),
        (
            "persona",
            {"shareLinks": [{"allowedOrigins": ["a", "z"]}, {"allowedOrigins": ["b"]}]},
            {"shareLinks": [{"allowedOrigins": ["z", "a"]}, {"allowedOrigins": ["b"]}]},
        ),
        (
            "persona",
            {"avatar": {"id": "no uuid", "availableVersions": ["a", "b"]}},
            {"avatar": {"id": "no uuid", "availableVersions": ["b", "a"]}},
        ),
    ],
)
def test_arrays_that_are_sets_have_no_order(kind, document, other):
    assert content_hash(kind, document) == content_hash(kind, other)


@pytest.mark.parametrize(
    ("kind", "document", "other"),
    [
        ("persona", {"displayTags": ["a", "b"]}, {"displayTags": ["b", "a"]}),
        ("tool", {"config": {"enum": ["a", "b"]}}, {"config": {"enum": ["b", "a"]}}),
        ("persona", {"x": {"tools": [1, 2]}}, {"x": {"tools": [2, 1]}}),
        ("voice", {"displayTags": ["a", "a"]}, {"displayTags": ["a"]}),
        ("voice", {"displayTags": [["a", "b"]]}, {"displayTags": [["b", "a"]]}),
        (
            "persona",
            {"shareLinks": {"[]": {"allowedOrigins": [1, 2]}}},
            {"shareLinks": {"[]": {"allowedOrigins": [2, 1]}}},
        ),
    ],
)
def test_all_other_arrays_have_an_order(kind, document, other):
    assert content_hash(kind, document) != content_hash(kind, other)


def test_sorting_sets_leaves_the_document_alone():
    document: Any = {"shareLinks": [{"id": 1, "allowedOrigins": ["b", "a"]}, {"id": 0}]}
    with_sorted_sets("persona", document)
    assert document == {"shareLinks": [{"id": 1, "allowedOrigins": ["b", "a"]}, {"id": 0}]}


@settings(deadline=None, max_examples=100)
@given(json_values.map(decoded), json_values.map(decoded))
def test_same_is_equality_as_json(one, other):
    assert same(one, one)
    assert same(one, other) == (exactly(one) == exactly(other))
    assert same(one, loads(dumps(one)))
