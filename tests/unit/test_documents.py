"""Payloads taken apart: which documents there are, what they hold, what stays inline."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from etl.errors import PayloadRejectedError
from etl.payload.documents import (
    Part,
    overlay,
    put_together,
    referenced,
    references,
    take_apart,
    unescaped,
)
from tests.unit.strategies import PERSONA_ID, SHARED, exactly, read_payload

TOOL = "c0000000-0000-4000-8000-000000000001"
ONE: dict[str, Any] = {"id": TOOL, "name": "one"}
OTHER: dict[str, Any] = {"id": TOOL, "name": "other"}


def apart_with(**members: Any) -> tuple[Part, list[Part]]:
    payload = {"id": str(PERSONA_ID), **members}
    before = copy.deepcopy(payload)
    apart = take_apart(payload, PERSONA_ID)
    assert payload == before
    assert exactly(put_together(apart.persona, apart.shared)) == exactly(payload)
    return apart.persona, apart.shared


def test_everything_in_use_gives_a_document_for_each_shared_thing():
    payload = read_payload("everything_in_use")
    apart = take_apart(payload, UUID(payload["id"]))
    assert [(part.kind, str(part.entity_id)[0], part.location) for part in apart.parts()] == [
        ("avatar", "a", ("avatar",)),
        ("voice", "b", ("voice",)),
        ("tool", "c", ("tools", 0)),
        ("tool", "c", ("tools", 1)),
        ("knowledge_group", "d", ("knowledge", 0)),
        ("knowledge_group", "d", ("knowledge", 1)),
        ("persona", "2", ()),
    ]
    persona = apart.persona.document
    assert persona["avatar"] == {"id": payload["avatar"]["id"]}
    assert persona["tools"] == [{"id": tool["id"]} for tool in payload["tools"]]
    assert references(persona) == {(part.kind, part.entity_id) for part in apart.shared}


def test_what_is_observed_is_kept_beside_the_documents():
    payload = read_payload("everything_in_use")
    observed = {
        (part.kind, str(part.entity_id)[-1]): part.observed
        for part in take_apart(payload, UUID(payload["id"])).parts()
    }
    assert observed == {
        ("avatar", "1"): {("updatedAt",): "2026-01-02T00:00:00.000Z"},
        ("voice", "1"): {("updatedAt",): "2026-01-04T00:00:00.000Z"},
        ("tool", "1"): {("updatedAt",): "2026-01-06T00:00:00.000Z", ("usageCount",): 3},
        ("tool", "2"): {("updatedAt",): None, ("usageCount",): 120},
        ("knowledge_group", "1"): {
            ("updatedAt",): "2026-01-09T00:00:00.000Z",
            ("documentCount",): 7,
        },
        ("knowledge_group", "2"): {("updatedAt",): None, ("documentCount",): 1},
        ("persona", "2"): {
            ("updatedAt",): "2026-01-14T00:00:00.000Z",
            ("shareLinks", 0, "usageCount"): 17,
            ("shareLinks", 1, "usageCount"): 0,
        },
    }


def test_updated_at_comes_along_as_a_moment():
    moments = [
        apart_with(avatar={"id": TOOL, "updatedAt": value})[1][0].source_updated_at
        for value in ("2026-01-02T03:04:05.678Z", None, "yesterday", 7)
    ]
    assert moments == [datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), None, None, None]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ([], "the body is not a JSON object"),
        (None, "the body is not a JSON object"),
        ({}, "the body has no id that is a uuid"),
        ({"id": "cara"}, "the body has no id that is a uuid"),
        ({"id": {"id": str(PERSONA_ID)}}, "the body has no id that is a uuid"),
        ({"id": TOOL}, f"the body is of another persona, {TOOL}"),
    ],
)
def test_what_is_no_persona_is_rejected(payload, reason):
    with pytest.raises(PayloadRejectedError) as caught:
        take_apart(payload, PERSONA_ID)
    assert str(caught.value) == reason


def test_an_id_in_capitals_is_the_same_persona():
    apart = take_apart({"id": str(PERSONA_ID).upper()}, PERSONA_ID)
    assert apart.persona.entity_id == PERSONA_ID
    assert apart.shared == []


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize(
    "value",
    [
        {},
        {"id": None},
        {"id": "liv", "name": "x"},
        {"id": TOOL.replace("-", "")},
        [],
        "liv",
        7,
        True,
        [None, "x", 7, [], [{"id": TOOL}]],
        {"id": [TOOL]},
    ],
)
def test_what_has_no_usable_id_stays_inline(name, value):
    persona, shared = apart_with(**{name: value})
    assert shared == []
    assert persona.document[name] == value


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("as_array", [False, True])
def test_an_embedded_object_becomes_a_document_whether_alone_or_in_an_array(name, as_array):
    persona, (part,) = apart_with(**{name: [ONE] if as_array else ONE})
    assert (part.kind, part.entity_id, part.document) == (SHARED[name], UUID(TOOL), ONE)
    assert persona.document[name] == ([{"id": TOOL}] if as_array else {"id": TOOL})


def test_a_bare_id_is_a_document_that_says_nothing_more():
    persona, (part,) = apart_with(tools=[{"id": TOOL}])
    assert part.document == {"id": TOOL}
    assert persona.document["tools"] == [{"id": TOOL}]


def test_a_reference_holds_the_id_in_its_usual_form():
    persona, (part,) = apart_with(avatar={"id": TOOL.upper()})
    assert persona.document["avatar"] == {"id": TOOL}
    assert part.document == {"id": TOOL.upper()}


def test_a_repeated_tool_is_one_document():
    persona, shared = apart_with(tools=[ONE, dict(ONE), ONE])
    assert len(shared) == 1
    assert persona.document["tools"] == [{"id": TOOL}] * 3


@pytest.mark.parametrize(
    "tools",
    [
        [ONE, OTHER],
        [ONE, {"id": TOOL}],
        [{"id": TOOL.upper()}, {"id": TOOL}],
        [{**ONE, "n": True}, {**ONE, "n": 1}],
    ],
    ids=["another name", "a bare id", "letter case", "another type"],
)
def test_of_a_tool_repeated_with_other_content_the_same_one_is_the_document_in_any_order(tools):
    persona, (part,) = apart_with(tools=tools)
    reversed_persona, (reversed_part,) = apart_with(tools=tools[::-1])
    assert part.document in tools
    assert reversed_part.document == part.document
    assert reversed_persona.content_hash == persona.content_hash
    assert len([value for value in persona.document["tools"] if referenced(value)]) == 1  # type: ignore[union-attr]


def test_what_would_read_as_ours_is_escaped():
    persona, shared = apart_with(
        tools=[ONE, {"id": TOOL.upper()}, {"$inline": ONE}, {"$inline": 1}]
    )
    assert len(shared) == 1
    tools: Any = persona.document["tools"]
    assert {"$inline": {"$inline": ONE}} in tools
    assert {"$inline": {"$inline": 1}} in tools
    assert [unescaped(tool) for tool in tools[2:]] == [{"$inline": ONE}, {"$inline": 1}]


def test_the_count_of_a_tool_that_stays_inline_does_not_make_a_new_persona():
    hashes = {
        apart_with(tools=[{"id": "nano", "name": "t", "usageCount": n, "updatedAt": n}])[
            0
        ].content_hash
        for n in range(3)
    }
    assert len(hashes) == 1


def test_a_repetition_with_another_count_is_no_other_content_of_the_document():
    bare: dict[str, Any] = {"id": TOOL}
    persona, (part,) = apart_with(tools=[{**bare, "usageCount": 1}, {**bare, "usageCount": 2}])
    assert part.document == bare
    assert persona.document["tools"] == [bare, {"$inline": bare}]
    assert list(persona.observed) == [("tools", 1, "$inline", "usageCount")]


def test_an_object_called_like_an_array_element_is_left_alone():
    links = {"[]": {"usageCount": 1}}
    persona, _ = apart_with(shareLinks=links)
    assert persona.document["shareLinks"] == links


def test_overlay_leaves_the_document_alone():
    document: Any = {"shareLinks": [{"id": 1}, {"id": 2}]}
    before = copy.deepcopy(document)
    whole = overlay(document, {("updatedAt",): "now", ("shareLinks", 1, "usageCount"): 3})
    assert whole == {"shareLinks": [{"id": 1}, {"id": 2, "usageCount": 3}], "updatedAt": "now"}
    assert document == before


def test_only_a_lone_id_is_a_reference():
    assert referenced({"id": TOOL.upper()}) == UUID(TOOL)
    others: list[Any] = [TOOL, {"id": "liv"}, {}, ONE, [{"id": TOOL}], None]
    assert not [other for other in others if referenced(other)]
    assert references({"avatar": ONE, "tools": [{"id": TOOL}, ONE, None], "x": {"id": TOOL}}) == {
        ("tool", UUID(TOOL))
    }
