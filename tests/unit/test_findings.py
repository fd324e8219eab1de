"""Each member of a document is held against the map: unknown, of another type, a new value."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given

from etl.flatten import MEMBER_CHARACTERS, flatten
from etl.map import SHIPPED, Line, extended, steps
from etl.payload.expected import expected
from etl.tables import KINDS
from tests.unit.strategies import json_values, properties, read_payload

ONE, OTHER = (f"{digit * 8}-aaaa-4aaa-8aaa-aaaaaaaaaaaa" for digit in "ab")


def findings(kind: Any, document: Any, **options: Any) -> set[str]:
    """As `problem path json_type`, and the new member."""
    flat = flatten(kind, UUID(ONE), document, **options)
    return {
        f"{f.problem} {f.path} {f.json_type}" + (f" {f.member}" if f.member else "")
        for f in flat.findings
    }


@pytest.mark.parametrize(
    ("kind", "document", "found"),
    [
        ("persona", {"name": 7}, {"type_changed name number"}),
        ("persona", {"skipGreeting": "no"}, {"type_changed skipGreeting string"}),
        ("persona", {"skipGreeting": "true"}, {"type_changed skipGreeting string"}),
        ("persona", {"brain": "You are"}, {"type_changed brain string"}),
        ("persona", {"brain": [{}]}, {"type_changed brain array"}),
        ("persona", {"avatar": ONE}, {"type_changed avatar string"}),
        ("persona", {"avatar": {"id": 5}}, {"type_changed avatar.id number"}),
        ("persona", {"primaryShareLink": "x"}, {"type_changed primaryShareLink string"}),
        ("persona", {"tools": {}}, {"type_changed tools object"}),
        ("persona", {"tools": [ONE]}, {"type_changed tools[] string"}),
        ("persona", {"tools": [{"id": 5}]}, {"type_changed tools[].id number"}),
        ("persona", {"shareLinks": "none"}, {"type_changed shareLinks string"}),
        ("persona", {"shareLinks": [7]}, {"type_changed shareLinks[] number"}),
        ("persona", {"shareLinks": [{"id": 7}]}, {"type_changed shareLinks[].id number"}),
        ("persona", {"widgetConfig": [1]}, {"type_changed widgetConfig array"}),
        (
            "persona",
            {"shareLinks": [{"id": ONE, "enabled": 1, "allowedOrigins": "a"}, {"id": OTHER}]},
            {"type_changed shareLinks[].enabled number",
             "type_changed shareLinks[].allowedOrigins string"},
        ),
        (
            "persona",
            {"shareLinks": [{"id": ONE, "allowedOrigins": ["a", 1]}]},
            {"type_changed shareLinks[].allowedOrigins[] number"},
        ),
        ("voice", {"displayTags": {"a": 1}}, {"type_changed displayTags object"}),
        ("voice", {"displayTags": ["a", 1]}, {"type_changed displayTags[] number"}),
        ("voice", {"provider": 7}, {"type_changed provider number"}),
        ("voice", {"provider": "AZURE"}, {"new_value provider string AZURE"}),
        ("voice", {"gender": "female"}, {"new_value gender string female"}),
        (
            "persona",
            {"shareLinks": [{"id": ONE, "type": "POPUP"}, {"id": OTHER, "type": "LINK"}]},
            {"new_value shareLinks[].type string POPUP"},
        ),
        ("tool", {"type": "M" * 500}, {f"new_value type string {'M' * MEMBER_CHARACTERS}"}),
        ("tool", {"usageCount": "3"}, {"type_changed usageCount string"}),
        ("tool", {"config": {"free": [1]}, "brandNew": 1}, {"unknown brandNew number"}),
    ],
)  # fmt: skip
def test_what_differs_from_the_map_is_found(kind, document, found):
    assert findings(kind, document) == found


@pytest.mark.parametrize("kind", KINDS)
def test_null_is_no_type_of_its_own(kind):
    ways = (steps(path) for path in expected(SHIPPED, kind))
    assert findings(kind, dict.fromkeys(way[0] for way in ways if len(way) == 1)) == set()


def test_null_elements_are_none_either():
    document = {"tools": [None], "shareLinks": [None], "displayTags": [None]}
    assert findings("persona", {**document, "knowledge": None}) == {"unknown displayTags array"}
    assert findings("voice", {"displayTags": [None]}) == set()


def test_a_path_with_two_columns_may_come_as_either_takes_it():
    line = Line("persona", "voiceSpeed", "personas", "voice_speed_name", "text", ("string",), "?")
    for value in ("fast", 1.25, None):
        assert findings("persona", {"voiceSpeed": value}, the_map=extended((line,))) == set()
    assert findings("persona", {"voiceSpeed": [1]}, the_map=extended((line,))) == {
        "type_changed voiceSpeed array"
    }


def test_a_column_without_json_types_takes_any():
    line = Line("persona", "mood", "personas", "mood", "jsonb", (), "?")
    for value in (1, "a", True, [1], {"a": 1}, None):
        assert findings("persona", {"mood": value}, the_map=extended((line,))) == set()


def test_an_added_list_is_held_against_its_own_types():
    line = Line("persona", "primaryShareLink.labels[]", "labels", "value", "text", ("string",), "?")
    the_map = extended((line,))
    link: dict[str, Any] = {"labels": ["a", None]}
    assert findings("persona", {"primaryShareLink": link}, the_map=the_map) == set()
    link["labels"] = [1]
    assert findings("persona", {"primaryShareLink": link}, the_map=the_map) == {
        "type_changed primaryShareLink.labels[] number"
    }
    link["labels"] = "a"
    assert findings("persona", {"primaryShareLink": link}, the_map=the_map) == {
        "type_changed primaryShareLink.labels string"
    }


def test_an_object_that_only_a_list_stands_in_is_held_too():
    line = Line("persona", "look.labels[]", "labels", "value", "text", ("string",), "?")
    assert findings("persona", {"look": "plain"}, the_map=extended((line,))) == {
        "type_changed look string"
    }


@properties(200)
@given(json_values)
def test_findings_hold_no_values(value):
    marked: dict[str, Any] = {
        "name": [value, "marked-secret"],
        "new": {"marked-secret": ["marked-secret"]},
    }
    flat = flatten("persona", UUID(ONE), {**marked, "brain": "marked-secret"})
    assert "marked-secret" not in repr(flat.findings)


def test_all_that_a_documented_payload_holds_is_expected():
    paths = {f"{path}" for kind in KINDS for path in expected(SHIPPED, kind)}
    assert {"brain", "brain.systemPrompt", "tools", "tools[]", "tools[].id", "avatar.id"} <= paths
    assert {
        "shareLinks[].allowedOrigins",
        "shareLinks[].allowedOrigins[]",
        "displayTags[]",
    } <= paths
    payload = read_payload("unknown_members")
    assert "unknown mood string" in findings("persona", payload)
