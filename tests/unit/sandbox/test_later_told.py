"""The oracle of `LATER`, `tests/db/later.py`, tells what was served."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from etl.payload.clean import clean
from etl.payload.differences import differences, is_reshaped
from etl.payload.documents import take_apart
from etl.sandbox import World, generate, running_sandbox
from tests.db.later import LATER, NEW, ONLY_SHAPE, RENAMED, Field, fetched, told, told_over_time

if TYPE_CHECKING:
    from etl.sandbox import Reshape

FIRST, SECOND, THIRD = (datetime(2026, 6, day, tzinfo=UTC) for day in (1, 2, 3))

PAYLOAD = {
    "id": "p",
    "toneYy": "warm",
    "brain": {"goalYy": "sell", "keywordsYy": ["a", "a"]},
    "voiceDetectionOptions": None,
    "avatar": None,
    "voice": {"id": "v", "languagesYy": ["en"], "countryCodeYy": "GB"},
    "tools": [{"id": "t", "timeoutSecondsYy": 2.5}, {"id": "u"}],
    "knowledge": [],
    "shareLinks": [{"id": "l", "labelYy": "fair"}, {"id": "m", "labelYy": None}],
}


def test_each_field_is_told_by_the_id_of_what_has_it():
    expected = told([PAYLOAD])
    assert set(expected) == set(NEW)
    assert expected[Field("persona", "toneYy")] == {"p": "warm"}
    assert expected[Field("persona", "brain.keywordsYy")] == {"p": ["a", "a"]}
    assert expected[Field("persona", "voiceDetectionOptions.engineYy")] == {"p": None}
    assert expected[Field("persona", "versionYy")] == {"p": None}
    assert expected[Field("persona", "shareLinks[].labelYy")] == {"l": "fair", "m": None}
    assert expected[Field("voice", "languagesYy")] == {"v": ["en"]}
    assert expected[Field("tool", "timeoutSecondsYy")] == {"t": 2.5, "u": None}
    assert expected[Field("avatar", "posterUrlYy")] == {}


def test_a_renamed_field_is_told_with_the_old_one():
    assert RENAMED[Field("voice", "countryCodeYy")] == Field("voice", "country")
    assert told([PAYLOAD])[Field("voice", "countryCodeYy")] == {"v": "GB"}


def test_each_moment_has_the_value_that_was_served_at_it():
    before = PAYLOAD | {"voice": {"id": "v"}, "shareLinks": None}
    gone = PAYLOAD | {"voice": None}
    over_time = told_over_time({SECOND: [PAYLOAD], FIRST: [before], THIRD: [gone]})
    assert over_time[Field("voice", "languagesYy")] == {"v": {FIRST: None, SECOND: ["en"]}}
    assert over_time[Field("persona", "shareLinks[].labelYy")]["l"] == {
        SECOND: "fair",
        THIRD: "fair",
    }
    assert list(over_time[Field("persona", "toneYy")]["p"]) == [FIRST, SECOND, THIRD]


def test_what_is_fetched_is_what_the_world_serves_cleaned():
    world = World(voices=[{"id": "v", "country": "GB"}], avatars=[{"id": "a"}])
    world.add({"id": "p", "voice": "v", "avatar": "a", "skipGreeting": True})
    with running_sandbox(world=world) as sandbox:
        first = fetched(sandbox)
        world.reshape(LATER)
        later = fetched(sandbox)
    assert told(first, [Field("voice", "country")]) == {Field("voice", "country"): {"v": "GB"}}
    expected = told(later)
    assert expected[Field("persona", "greetingSkippedYy")] == {"p": True}
    assert expected[Field("voice", "countryCodeYy")] == {"v": "GB"}
    assert expected[Field("voice", "pitchYy")]["v"] in LATER.choose["voice.pitchYy"]
    assert expected[Field("avatar", "posterUrlYy")]["a"] in LATER.choose["avatar.posterUrlYy"]
    assert expected[Field("persona", "webhookSecretYy")]["p"] in ("[redacted]", None)


def documents(world: World) -> dict[tuple[Any, UUID], Any]:
    payloads = [(UUID(id_), clean(world.payload(id_))) for id_ in world.persona_ids]
    parts = [part for id_, payload in payloads for part in take_apart(payload, id_).parts()]
    return {(part.kind, part.entity_id): part.document for part in parts}


@pytest.mark.parametrize(
    ("shape", "edited"), [(ONLY_SHAPE, set()), (LATER, {"persona", "tool", "voice"})]
)
def test_what_is_only_a_new_shape_can_be_had_without_edits(shape: Reshape, edited: set[str]):
    world = generate(25, seed=1)
    before = documents(world)
    world.reshape(shape)
    found = {
        entity: is_reshaped(differences(entity[0], before[entity], after))
        for entity, after in documents(world).items()
    }
    assert {kind for (kind, _), reshaped in found.items() if not reshaped} == edited
    assert len({kind for kind, _ in found}) == 5
