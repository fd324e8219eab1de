"""The API's shape moves: members come, go and change, also inside of arrays."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from etl.sandbox import Reshape, World, generate
from etl.sandbox.reshape import JSON_TYPES


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
        (Reshape(retype={"voiceSpeed": "string", "no": "string"}), "voiceSpeed", "1"),
        (Reshape(recode={"voice.id": {"v": "w", "x": "y"}}), "voice", {"id": "w", "gender": None}),
        (Reshape(recode={"voice.gender": {"v": "w"}}), "voice", {"id": "v", "gender": None}),
        (Reshape(recode={"name": {"Eve": "E"}}), "name", "Ada"),
        (Reshape(choose={"mood": [{"now": 1}]}), "mood", {"now": 1}),
        (Reshape(choose={"avatar.mood": [1]}), "avatar", None),
        (Reshape(sign=["voice.gender", "voice.url"]), "voice", {"id": "v", "gender": None}),
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


@pytest.mark.parametrize(
    ("type_", "before", "after"),
    [
        ("string", 1.1, "1.1"),
        ("string", True, "true"),
        ("string", {"a": ["é"]}, '{"a":["é"]}'),
        ("string", "1", "1"),
        ("number", "1.1", 1.1),
        ("number", "-12", -12),
        ("number", False, 0),
        ("number", 3, 3),
        ("object", 5, {"value": 5}),
        ("object", {"a": 1}, {"a": 1}),
        ("array", "x", ["x"]),
        ("array", ["x"], ["x"]),
    ],
)
def test_a_value_comes_as_another_type(type_, before, after):
    shown = Reshape(retype={"x": type_})({"x": before})["x"]
    assert shown == after
    assert type(shown) is type(after)


@pytest.mark.parametrize("type_", JSON_TYPES)
def test_null_is_null_in_every_type(type_):
    assert Reshape(retype={"x": type_})({"x": None}) == {"x": None}


@pytest.mark.parametrize(
    "value",
    ["", "ten", "007", "1.50", "-0", "1e5", "NaN", "0.12345678901234567", "[[[", {"a": 1}, [1]],
)
def test_what_is_no_number_without_loss_stays(value):
    assert Reshape(retype={"x": "number"})({"x": value}) == {"x": value}


def test_each_object_takes_the_value_that_its_id_chooses():
    choose = Reshape(choose={"tools.mood": [1, 2, 3], "tools.tone": [1, 2, 3]})
    ids = [f"{number}" for number in range(40)]
    tools = choose({"id": "p", "tools": [{"id": id_} for id_ in ids]})["tools"]
    assert {tool["mood"] for tool in tools} == {1, 2, 3}
    assert any(tool["mood"] != tool["tone"] for tool in tools)
    backwards = choose({"id": "q", "tools": [{"id": id_} for id_ in reversed(ids)]})["tools"]
    assert backwards[::-1] == tools


def test_an_object_without_an_id_takes_the_choice_of_the_one_around_it():
    choose = Reshape(choose={"brain.mood": [1, 2, 3]})
    moods = [choose({"id": f"{number}", "brain": {}})["brain"]["mood"] for number in range(40)]
    assert set(moods) == {1, 2, 3}


def test_what_is_chosen_in_one_place_is_not_the_same_object_as_elsewhere():
    choose = Reshape(choose={"tools.tags": [[]]})
    tools = choose({"id": "p", "tools": [{}, {}]})["tools"]
    tools[0]["tags"].append(1)
    assert tools[1]["tags"] == []
    assert choose.choose["tools.tags"] == [[]]


def test_a_signed_url_has_another_signature_in_each_fetch():
    sign = Reshape(add={"clip": "https://example.com/a.webp"}, sign=["clip"])
    first, again, second = (sign({}, fetch)["clip"] for fetch in (1, 1, 2))
    assert first == again != second
    assert first.startswith("https://example.com/a.webp?X-Amz-")


def test_it_renames_then_removes_then_changes_then_adds():
    reshape = Reshape(
        rename={"voiceSpeed": "pace"},
        retype={"pace": "string"},
        recode={"pace": {"1": "one"}},
        add={"name": "new"},
        choose={"name": ["newest"]},
        remove=["name"],
    )
    after = reshape(persona())
    assert after["pace"] == "one"
    assert list(after)[-1] == "name"
    assert after["name"] == "newest"


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


@pytest.mark.parametrize(
    ("orders", "told"),
    [
        ({"retype": {"name": "strnig"}}, 'retype: name: "strnig" is none of string, number'),
        ({"choose": {"mood": []}}, "choose: mood: there is nothing to choose from"),
        ({"choose": {".mood": [1]}}, '".mood" is no path'),
        ({"sign": ["a..b"]}, '"a..b" is no path'),
    ],
)
def test_an_order_that_is_none_is_refused(orders, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        Reshape(**orders)


def listed(world: World) -> list[dict[str, Any]]:
    personas: list[dict[str, Any]] = json.loads(world.page(page=1, per_page=100))["data"]
    return personas


def test_the_list_moves_too_and_its_personas_get_no_new_members_of_their_own():
    world = generate(10, seed=1)
    before = listed(world)
    world.reshape(
        Reshape(
            rename={"voiceSpeed": "pace"},
            add={"mood": 1, "brain.mood": 1, "description": "all the same"},
            choose={"tone": [1, 2], "voice.tone": ["warm"]},
        )
    )
    for old, new in zip(before, listed(world), strict=True):
        assert new["pace"] == old["voiceSpeed"]
        assert new["description"] == "all the same"
        assert new["voice"] is None or new["voice"] == old["voice"] | {"tone": "warm"}
        assert len(new) == len(old)
    world.reshape(lambda payload: payload["nothing"])
    assert [new["id"] for new in listed(world)] == [old["id"] for old in before]


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
