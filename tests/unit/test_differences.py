"""Which paths differ, and whether only the API's shape moved."""

from __future__ import annotations

from typing import Any

import pytest

from etl.payload.differences import differences, is_reshaped
from etl.payload.paths import element, member, path_of, usable_uuid

A = "aaaaaaaa-0000-4000-8000-000000000000"
B = "bbbbbbbb-0000-4000-8000-000000000000"
LINK = {"id": A, "enabled": True}

SHAPE = True
CONTENT = False

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str], bool]] = {
    "nothing": ({"a": 1}, {"a": 1}, [], CONTENT),
    "a value": ({"name": "a"}, {"name": "b"}, ["name"], CONTENT),
    "a type": ({"name": 1}, {"name": True}, ["name"], CONTENT),
    "a new member": ({}, {"new": 1}, ["new"], SHAPE),
    "a new member that is null": ({}, {"new": None}, ["new"], SHAPE),
    "a member gone": ({"old": {"x": 1}}, {}, ["old"], SHAPE),
    "a renamed member": ({"old": 1}, {"new": 1}, ["new", "old"], SHAPE),
    "a member of a member": ({"brain": {}}, {"brain": {"x": 1}}, ["brain.x"], SHAPE),
    "a member and a value": ({"n": 1}, {"n": 2, "new": 1}, ["n", "new"], CONTENT),
    "null is present": ({"x": None}, {"x": 1}, ["x"], CONTENT),
    "null becomes an object": ({"brain": None}, {"brain": {}}, ["brain"], CONTENT),
    "a whole config": ({}, {"config": {"a": 1}}, ["config"], SHAPE),
    "below config": ({"config": {}}, {"config": {"a": 1}}, ["config.a"], CONTENT),
    "far below config": (
        {"x": {"config": {"a": {"b": {}}}}},
        {"x": {"config": {"a": {"b": {"c": 1}}}}},
        ["x.config.a.b.c"],
        CONTENT,
    ),
    "below widgetConfig": (
        {"widgetConfig": {"a": 1}},
        {"widgetConfig": {}},
        ["widgetConfig.a"],
        CONTENT,
    ),
    "below voiceDetectionOptions": (
        {"voiceDetectionOptions": {}},
        {"voiceDetectionOptions": {"a": 1}},
        ["voiceDetectionOptions.a"],
        CONTENT,
    ),
    "below voiceGenerationOptions": (
        {"voiceGenerationOptions": {"style": 1}},
        {"voiceGenerationOptions": {}},
        ["voiceGenerationOptions.style"],
        CONTENT,
    ),
    "below voice options of any name": (
        {"voice-idle Options": {}},
        {"voice-idle Options": {"a": 1}},
        ['["voice-idle Options"].a'],
        CONTENT,
    ),
    "all voice options": ({"voiceGenerationOptions": {}}, {}, ["voiceGenerationOptions"], SHAPE),
    "below what only sounds like a config": (
        {"configs": {}},
        {"configs": {"a": 1}},
        ["configs.a"],
        SHAPE,
    ),
    "an element more": ({"tools": []}, {"tools": [{"id": A}]}, [f"tools[{A}]"], CONTENT),
    "an element less": (
        {"tools": [{"id": A}, {"id": B}]},
        {"tools": [{"id": B}]},
        [f"tools[{A}]"],
        CONTENT,
    ),
    "a set in another order": (
        {"tools": [{"id": A}, {"id": B}]},
        {"tools": [{"id": B}, {"id": A}]},
        [],
        CONTENT,
    ),
    "elements of another array in another order": (
        {"x": [{"id": A}, {"id": B}]},
        {"x": [{"id": B}, {"id": A}]},
        ["x"],
        CONTENT,
    ),
    "an element more and the rest in order": (
        {"x": [{"id": A}]},
        {"x": [{"id": B}, {"id": A}]},
        [f"x[{B}]"],
        CONTENT,
    ),
    "a value in an element": (
        {"shareLinks": [LINK]},
        {"shareLinks": [{**LINK, "enabled": False}]},
        [f"shareLinks[{A}].enabled"],
        CONTENT,
    ),
    "a member in an element": (
        {"shareLinks": [LINK, {"id": B}]},
        {"shareLinks": [{**LINK, "new": 1}, {"id": B, "new": 2}]},
        [f"shareLinks[{A}].new", f"shareLinks[{B}].new"],
        SHAPE,
    ),
    "a member in an element, which then sorts elsewhere": (
        {"shareLinks": [{"id": A, "allowedOrigins": [{"id": A}, {"id": B}]}]},
        {"shareLinks": [{"id": A, "allowedOrigins": [{"id": A}, {"id": B, "a": 1}]}]},
        [f"shareLinks[{A}].allowedOrigins[{B}].a"],
        SHAPE,
    ),
    "a member in an element below config": (
        {"config": [{"id": A}]},
        {"config": [{"id": A, "new": 1}]},
        [f"config[{A}].new"],
        CONTENT,
    ),
    "the letter case of an id": (
        {"tools": [{"id": A}]},
        {"tools": [{"id": A.upper()}]},
        [f"tools[{A}].id"],
        CONTENT,
    ),
    "elements without ids": ({"x": [{"a": 1}]}, {"x": [{"a": 1, "b": 1}]}, ["x"], CONTENT),
    "an element without an id among others": (
        {"tools": [{"id": A}]},
        {"tools": [{"id": A}, 1]},
        ["tools"],
        CONTENT,
    ),
    "a repeated id": ({"x": [{"id": A}]}, {"x": [{"id": A}, {"id": A}]}, ["x"], CONTENT),
    "scalars in an array": ({"x": ["a"]}, {"x": ["a", "b"]}, ["x"], CONTENT),
    "the order of scalars": ({"x": ["a", "b"]}, {"x": ["b", "a"]}, ["x"], CONTENT),
    "an array becomes an object": ({"x": []}, {"x": {}}, ["x"], CONTENT),
    "an array becomes null": ({"shareLinks": []}, {"shareLinks": None}, ["shareLinks"], CONTENT),
    "a key that would read as a path": (
        {"a": {"b.c": 1}},
        {"a": {"b.c": 2}},
        ['a["b.c"]'],
        CONTENT,
    ),
}


@pytest.mark.parametrize(("old", "new", "paths", "of_shape"), CASES.values(), ids=CASES)
def test_the_paths_that_differ_and_whether_it_is_the_shape(old, new, paths, of_shape):
    for before, after in ((old, new), (new, old)):
        found = differences("persona", before, after)
        assert [difference.path for difference in found] == paths
        assert is_reshaped(found) == of_shape


def test_a_set_is_a_set_only_in_its_own_kind():
    one, other = {"displayTags": ["a", "b"]}, {"displayTags": ["b", "a"]}
    assert differences("voice", one, other) == []  # type: ignore[arg-type]
    assert differences("avatar", one, other) != []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "key", "expected"),
    [
        ("", "name", "name"),
        ("brain", "systemPrompt", "brain.systemPrompt"),
        ("", "$inline", "$inline"),
        ("", "", '[""]'),
        ("a", "b.c", 'a["b.c"]'),
        ("a", "b[]", 'a["b[]"]'),
        ("a", "1", 'a["1"]'),
        ("a", 'q"\\', 'a["q\\"\\\\"]'),
        ("a", "é", 'a["é"]'),
        ("a", "b-c_d", "a.b-c_d"),
    ],
)
def test_a_key_that_would_read_as_a_path_is_quoted(path, key, expected):
    assert member(path, key) == expected


def test_an_element_is_named_by_its_id_else_by_its_place():
    assert element("shareLinks", {"id": A.upper()}, 3) == f"shareLinks[{A}]"
    assert element("shareLinks", {"id": "x"}, 3) == "shareLinks[3]"
    assert element("displayTags", "fast", 0) == "displayTags[0]"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (("shareLinks", 1, "usageLimit"), f"shareLinks[{B}].usageLimit"),
        (("shareLinks", 7, "usageLimit"), "shareLinks[7].usageLimit"),
        (("brain", 0, "x y"), 'brain[0]["x y"]'),
        ((), ""),
    ],
)
def test_a_location_has_a_path_even_when_it_leads_nowhere(location, expected):
    document: Any = {"shareLinks": [LINK, {"id": B}], "brain": {}}
    assert path_of(document, location) == expected


def test_a_path_is_never_too_long_for_a_key_of_a_table():
    path = path_of({}, ("é" * 5000,) * 3)
    assert path.endswith("…")
    assert len(path.encode()) < 2000


@pytest.mark.parametrize(
    "value",
    [
        "",
        "cara",
        A.replace("-", ""),
        f"{{{A}}}",
        f" {A}",
        f"{A}\n",
        f"urn:uuid:{A}",
        7,
        None,
        [A],
        "\N{ARABIC-INDIC DIGIT ZERO}" * 8 + A[8:],
    ],
)
def test_only_the_usual_form_of_a_uuid_is_usable(value):
    assert usable_uuid(value) is None
