"""The API's shape moves: members added, removed and renamed, also inside of arrays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from etl.sandbox import Reshape, generate


def persona() -> dict[str, Any]:
    return {
        "name": "Ada",
        "voiceSpeed": 1,
        "avatar": None,
        "voice": {"id": "v", "gender": None},
        "tools": [{"config": {"url": "u"}}, {"config": {}}, 7],
    }


@pytest.mark.parametrize(
    ("reshape", "path", "expected"),
    [
        (Reshape(add={"mood": {"now": 1}}), "mood", {"now": 1}),
        (Reshape(add={"name": None}), "name", None),
        (Reshape(add={"voice.accent": "en"}), "voice", {"id": "v", "gender": None, "accent": "en"}),
        (Reshape(add={"avatar.mood": 1}), "avatar", None),
        (
            Reshape(add={"tools.config.retries": 2}),
            "tools",
            [{"config": {"url": "u", "retries": 2}}, {"config": {"retries": 2}}, 7],
        ),
        (Reshape(remove=["voice.gender"]), "voice", {"id": "v"}),
        (Reshape(remove=["tools.config", "nothing.here"]), "tools", [{}, {}, 7]),
        (
            Reshape(rename={"voice.id": "voiceId", "no": "yes"}),
            "voice",
            {"voiceId": "v", "gender": None},
        ),
    ],
)
def test_one_place_changes_and_no_other(reshape, path, expected):
    after = reshape(persona())
    assert after[path] == expected
    assert {k: v for k, v in after.items() if k != path} == {
        k: v for k, v in persona().items() if k != path
    }


def test_a_renamed_member_keeps_its_value_and_its_place():
    after = Reshape(rename={"voiceSpeed": "pace"})(persona())
    assert list(after) == ["name", "pace", "avatar", "voice", "tools"]
    assert after["pace"] == 1


def test_it_renames_then_removes_then_adds():
    reshape = Reshape(rename={"name": "title"}, remove=["title"], add={"name": "new"})
    after = reshape(persona())
    assert "title" not in after
    assert after["name"] == "new"


def test_what_is_added_to_one_place_is_not_the_same_object_as_elsewhere():
    reshape = Reshape(add={"tools.meta": {}, "tools.meta.seen": []})
    tools = reshape(persona())["tools"]
    tools[0]["meta"]["seen"].append(1)
    assert tools[1]["meta"] == {"seen": []}
    assert reshape.add["tools.meta"] == {}


@pytest.mark.parametrize("path", ["", ".a", "a..b", "a."])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(ValueError, match="is no path"):
        Reshape(add={path: 1})


def test_every_persona_comes_in_the_new_shape_and_the_shared_things_stay_as_they_are():
    world = generate(10, seed=1)
    world.moving = False
    before = [world.payload(id_) for id_ in world.persona_ids]
    world.reshape(Reshape(add={"voice.mood": "calm"}, remove=["voiceSpeed"]))
    for id_ in world.persona_ids:
        payload = json.loads(world.body(id_) or b"")
        assert "voiceSpeed" not in payload
        assert payload["voice"] is None or payload["voice"]["mood"] == "calm"
    world.reshape(None)
    assert [world.payload(id_) for id_ in world.persona_ids] == before
