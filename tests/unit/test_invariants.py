"""What holds for every payload, documented or hostile."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.payload.canonical import content_hash
from etl.payload.clean import clean
from etl.payload.decode import decode, dumps, loads
from etl.payload.differences import differences
from etl.payload.documents import put_together, take_apart
from tests.unit.strategies import (
    OBSERVED,
    PERSONA_ID,
    SETS,
    SHARED,
    decoded,
    each_embedded,
    exactly,
    payload_files,
    personas,
    properties,
    raw_personas,
    reordered,
    resigned,
    scalars,
    with_moved_observed,
)

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random
    from uuid import UUID

    from etl.payload.documents import Apart

randoms = st.randoms(use_true_random=False)


def hashes(payload: dict[str, Any]) -> dict[tuple[str, UUID], bytes]:
    apart = take_apart(payload, PERSONA_ID)
    return {(part.kind, part.entity_id): part.content_hash for part in apart.parts()}


def essence(payload: dict[str, Any]) -> Any:
    """What should count of a payload, told without the code under test."""
    counting = copy.deepcopy(payload)
    counting.pop("updatedAt", None)
    for name, fields in OBSERVED.items():
        for item in each_embedded(counting, name):
            for field in fields:
                item.pop(field, None)
            if isinstance(tags := item.get(SETS.get(name, "")), list):
                tags.sort(key=text)
    for name in ("tools", "knowledge", "shareLinks"):
        if isinstance(items := counting.get(name), list):
            items.sort(key=text)
    return text(counting)


def text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def assert_lossless(payload: dict[str, Any], apart: Apart) -> None:
    assert exactly(put_together(apart.persona, apart.shared)) == exactly(payload)


@properties(100)
@given(personas)
def test_documents_put_together_are_the_cleaned_payload(payload):
    before = copy.deepcopy(payload)
    assert_lossless(payload, take_apart(payload, PERSONA_ID))
    assert exactly(payload) == exactly(before)


@pytest.mark.parametrize("path", payload_files(), ids=lambda path: path.stem)
def test_each_payload_file_survives_being_taken_apart(path: Path):
    payload: Any = clean(decode(path.read_bytes()).value)
    apart = take_apart(payload, decoded_id(payload))
    assert_lossless(payload, apart)


def decoded_id(payload: Any) -> UUID:
    return type(PERSONA_ID)(payload["id"])


@properties(100)
@given(raw_personas, randoms)
def test_order_signatures_and_the_look_of_numbers_do_not_count(raw: dict[str, Any], random: Random):
    other = clean(decoded(resigned(reordered(raw, random))))
    assert isinstance(other, dict)
    assert hashes(other) == hashes(clean(decoded(raw)))  # type: ignore[arg-type]


@properties(100)
@given(personas)
def test_observed_fields_do_not_count(payload):
    assert hashes(with_moved_observed(payload)) == hashes(payload)


@st.composite
def edited_pairs(draw) -> tuple[dict[str, Any], dict[str, Any]]:
    """A payload without repetitions, and a copy with one thing edited, moved, added or dropped."""
    payload = draw(personas)
    for name in SHARED:
        seen: set[str] = set()
        for item in each_embedded(payload, name):
            key = str(item.get("id")).lower()
            if key in seen:
                item["id"] = f"not a uuid {len(seen)}"
            seen.add(key)
    edited = copy.deepcopy(payload)
    containers = list(all_containers(edited))
    container = draw(st.sampled_from(containers))
    keys = list(container) if isinstance(container, dict) else list(range(len(container)))
    keys = [key for key in keys if container is not edited or key != "id"]
    if not keys:
        if isinstance(container, dict):
            container["added"] = draw(scalars)
        else:
            container.append(draw(scalars.map(decoded)))
        return payload, edited
    key = draw(st.sampled_from(keys))
    match draw(st.sampled_from(["drop", "replace", "reverse", "retype"])):
        case "drop":
            del container[key]
        case "replace":
            container[key] = decoded(draw(scalars))
        case "retype":
            container[key] = retyped(container[key])
        case _ if isinstance(container, list):
            container.reverse()
    return payload, edited


def retyped(value: Any) -> Any:
    """A value of another type that a careless comparison takes for the same."""
    if isinstance(value, bool):
        return int(value)
    if value in (0, 1):
        return bool(value)
    return 1 if value == "1" else str(value)


def all_containers(value: Any):
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from all_containers(item)


@properties(200)
@given(edited_pairs())
def test_everything_else_counts(pair):
    payload, edited = pair
    assert (hashes(payload) == hashes(edited)) == (essence(payload) == essence(edited))


@properties(100)
@given(edited_pairs())
def test_documents_differ_in_some_path_when_their_hashes_differ(pair):
    one, other = (take_apart(payload, PERSONA_ID) for payload in pair)
    others = {(part.kind, part.entity_id): part for part in other.parts()}
    for part in one.parts():
        if now := others.get((part.kind, part.entity_id)):
            found = differences(part.kind, part.document, now.document)
            assert bool(found) == (part.content_hash != now.content_hash)
            paths = [difference.path for difference in found]
            assert len(paths) == len(set(paths))


@properties(100)
@given(personas)
def test_documents_hold_no_observed_field(payload):
    apart = take_apart(payload, PERSONA_ID)
    assert "updatedAt" not in apart.persona.document
    for name, fields in OBSERVED.items():
        for item in each_embedded(apart.persona.document, name):
            assert not fields & item.keys()
    observed = {kind: OBSERVED[name] for name, kind in SHARED.items()}
    for part in apart.shared:
        assert not observed[part.kind] & part.document.keys()


@properties(100)
@given(personas)
def test_a_stored_document_has_the_same_hash(payload):
    for part in take_apart(payload, PERSONA_ID).parts():
        stored = loads(dumps(part.document))
        assert exactly(stored) == exactly(part.document)
        assert isinstance(stored, dict)
        assert content_hash(part.kind, stored) == part.content_hash


@properties(100)
@given(personas)
def test_taking_apart_what_was_put_together_gives_the_same_documents(payload):
    apart = take_apart(payload, PERSONA_ID)
    again = take_apart(put_together(apart.persona, apart.shared), PERSONA_ID)
    assert again == apart
