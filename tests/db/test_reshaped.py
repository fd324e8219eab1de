"""The API's shape moves under real syncs: what is called `reshaped`, and what is not.

The rule itself is tested on two documents, in tests/unit/test_reshaped and test_differences.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from etl.sandbox import Reshape

if TYPE_CHECKING:
    from tests.db.conftest import Target

# A pure comparison of two documents decides it.
pytestmark = pytest.mark.one_server

KINDS = {"avatar": "avatars", "voice": "voices", "tools": "tools", "knowledge": "knowledge"}


def opened(target: Target, run_id: object) -> dict[str, tuple[str, list[str]]]:
    """The versions that a run opened: by entity, what each is called and in which paths."""
    return {
        str(row["entity_id"]): (row["change"], row["changed_paths"])
        for row in target.rows("document_versions", run_id=run_id)
    }


def edited(target: Target) -> list[str]:
    """The history as one reads it who leaves the API's moves out."""
    rows = target.query("""
        SELECT changed_paths FROM document_versions
         WHERE change <> 'reshaped' AND version > 1
         ORDER BY valid_from, kind, entity_id
    """)
    return [", ".join(row["changed_paths"]) for row in rows]


def user_of(target: Target, *members: str) -> str:
    """A persona that has these."""
    found = target.world.persona_ids
    return next(i for i in found if all(map(target.world.payload(i).get, members)))


# Everywhere at once: null and not, flat and nested, come and gone, and renamed.
EVERYWHERE = Reshape(
    rename={"voiceSpeed": "pace"},
    remove=["personaPreset", "avatar.variantName", "voice.country", "brain.personality"],
    add={
        "mood": None,
        "brain.temperament": {"calm": {"by": [1, None]}},
        "avatar.style": None,
        "avatar.pose": {"angle": 3},
        "voice.accent": "soft",
        "voice.config": {"on": True},
        "tools.icon": None,
        "knowledge.colour": ["red"],
        "shareLinks.label": None,
        "primaryShareLink.kind": 1,
    },
)


@pytest.fixture
def wide(copying):
    """Enough personas that all documented things are in use, copied once."""
    with copying(count=8, seed=9) as made:
        made.sync()
        payloads = [made.world.payload(persona_id) for persona_id in made.world.persona_ids]
        for member in (*KINDS, "shareLinks", "primaryShareLink", "widgetConfig"):
            assert any(payload[member] for payload in payloads)
        yield made


def test_members_that_come_and_go_everywhere_reshape_everything(wide):
    before = [wide.world.payload(persona_id) for persona_id in wide.world.persona_ids]
    expected: dict[str, list[str]] = {}
    for payload in before:
        paths = ["brain.personality", "brain.temperament", "mood", "pace"]
        paths += ["personaPreset", "voiceSpeed"]
        paths += ["primaryShareLink.kind"] if payload["primaryShareLink"] else []
        paths += [f"shareLinks[{link['id']}].label" for link in payload["shareLinks"] or []]
        expected[payload["id"]] = sorted(paths)
        for name, fields in (
            ("avatar", ["pose", "style", "variantName"]),
            ("voice", ["accent", "config", "country"]),
        ):
            if payload[name]:
                expected[payload[name]["id"]] = fields
        expected |= {tool["id"]: ["icon"] for tool in payload["tools"]}
        expected |= {group["id"]: ["colour"] for group in payload["knowledge"]}

    wide.world.reshape(EVERYWHERE)
    said, foreseen = wide.dry_run()
    summary = wide.sync()
    assert (summary.status, summary.exit_code, summary.counts["reshaped"]) == ("succeeded", 0, 8)
    assert said.counts == summary.counts
    assert {str(c.entity_id): c.outcome for c in foreseen} == dict.fromkeys(expected, "reshaped")
    versions = opened(wide, summary.run_id)
    assert {i: (change, sorted(paths)) for i, (change, paths) in versions.items()} == {
        i: ("reshaped", paths) for i, paths in expected.items()
    }
    items = wide.rows("run_items", run_id=summary.run_id)
    assert Counter(item["outcome"] for item in items) == {"reshaped": 8}
    assert edited(wide) == []

    # It stands still, then moves back.
    assert wide.sync().counts["unchanged"] == 8
    wide.world.reshape(None)
    assert wide.sync().counts["reshaped"] == 8
    assert edited(wide) == []
    assert [wide.world.payload(payload["id"]) for payload in before] == before


@pytest.mark.parametrize("name", KINDS)
def test_a_shared_thing_alone_is_reshaped_and_its_personas_are_unchanged(wide, name):
    wide.world.reshape(Reshape(add={f"{name}.new": None, f"{name}.other": {"a": {"b": []}}}))
    summary = wide.sync()
    assert (summary.exit_code, summary.counts["unchanged"]) == (0, 8)
    versions = opened(wide, summary.run_id)
    assert set(map(str, versions.values())) == {"('reshaped', ['new', 'other'])"}
    in_use = {thing["id"] for payload in _payloads(wide) for thing in _each(payload[name])}
    assert versions.keys() == in_use
    assert wide.rows("run_items", run_id=summary.run_id) == []


def _payloads(target: Target) -> list[Any]:
    return [target.world.payload(persona_id) for persona_id in target.world.persona_ids]


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def test_what_is_observed_may_vanish_and_reshapes_nothing(wide):
    """Counters and updatedAt are beside the documents."""
    names = ["updatedAt", *(f"{name}.updatedAt" for name in KINDS)]
    names += ["tools.usageCount", "knowledge.documentCount", "shareLinks.usageCount"]
    before = wide.rows("document_versions")
    for shape in (Reshape(remove=names), None):
        wide.world.reshape(shape)
        assert wide.sync().counts["unchanged"] == 8
        kept = [{**row, "last_observed_at": None} for row in wide.rows("document_versions")]
        assert kept == [{**row, "last_observed_at": None} for row in before]


@pytest.mark.parametrize(
    ("path", "member"),
    [
        ("widgetConfig.new", "widgetConfig"),
        ("voiceDetectionOptions.new", "voiceDetectionOptions"),
        ("voiceGenerationOptions.new", "voiceGenerationOptions"),
    ],
)
def test_members_below_what_people_fill_in_are_edits_even_on_all(wide, path, member):
    having = [payload["id"] for payload in _payloads(wide) if payload[member] is not None]
    assert having
    wide.world.reshape(Reshape(add={path: None}))
    summary = wide.sync()
    assert (summary.counts["updated"], summary.counts["reshaped"]) == (len(having), 0)
    assert opened(wide, summary.run_id) == dict.fromkeys(having, ("updated", [path]))


def test_a_tools_config_is_filled_in_by_people_and_may_itself_come_and_go(wide):
    wide.world.reshape(Reshape(add={"tools.config.retries": None}))
    summary = wide.sync()
    assert set(map(str, opened(wide, summary.run_id).values())) == {
        "('updated', ['config.retries'])"
    }
    for shape in (Reshape(remove=["tools.config"]), Reshape(add={"tools.config.retries": None})):
        wide.world.reshape(shape)
        summary = wide.sync()
        assert set(map(str, opened(wide, summary.run_id).values())) == {"('reshaped', ['config'])"}


def test_an_edit_beside_a_new_member_is_an_update_of_that_document_alone(wide):
    world = wide.world
    persona_id = user_of(wide, "avatar")
    avatar = world.payload(persona_id)["avatar"]["id"]
    world.edit(persona_id, {"name": "Both"})
    world.edit(avatar, {"displayName": "Both"}, "avatars")
    world.reshape(Reshape(add={"mood": None, "avatar.mood": None}))
    summary = wide.sync()
    assert (summary.counts["updated"], summary.counts["reshaped"]) == (1, 7)
    versions = opened(wide, summary.run_id)
    assert versions.pop(persona_id) == ("updated", ["mood", "name"])
    assert versions.pop(avatar) == ("updated", ["displayName", "mood"])
    assert set(map(str, versions.values())) == {"('reshaped', ['mood'])"}


def test_a_removed_persona_that_returns_in_a_new_shape_is_restored(wide):
    gone, *others = wide.world.persona_ids
    wide.world.delete(gone)
    wide.sync([gone, *others])
    wide.world.reshape(Reshape(add={"mood": None}))
    summary = wide.sync([gone, *others])
    assert (summary.counts["reshaped"], summary.counts["missing"]) == (7, 1)
    wide.world.restore(gone)
    summary = wide.sync([gone, *others])
    assert (summary.counts["restored"], summary.counts["unchanged"]) == (1, 7)
    assert opened(wide, summary.run_id) == {gone: ("restored", ["mood"])}
    assert wide.changes(gone) == ["created", "removed", "restored"]


def test_servers_of_two_shapes_in_turn_update_nothing(wide):
    """A rollout: whoever answers decides on the shape, of what is shared too."""
    totals: Counter[str] = Counter()
    for turn in range(4):
        wide.world.reshape(
            lambda p, turn=turn: EVERYWHERE(p) if (int(p["id"][:2], 16) + turn) % 3 else p
        )
        summary = wide.sync()
        assert summary.exit_code == 0
        totals += Counter(summary.counts)
    assert totals["reshaped"] > 8
    assert totals["requested"] == totals["reshaped"] + totals["unchanged"] == 32
    assert edited(wide) == []
    # At the end of it all have the new one, whatever copies of shared things still went around.
    wide.world.reshape(EVERYWHERE)
    wide.sync()
    assert wide.sync().counts["unchanged"] == 8
    assert edited(wide) == []


LINK = {"id": "00000000-0000-4000-8000-00000000000a", "token": "t", "type": "LINK", "enabled": True}

# What a person can do to a persona, and the paths that it changes; {avatar}, {tool} and {group}
# are others than it has.
EDITS: list[tuple[dict[str, Any], str]] = [
    ({"name": "Ada"}, "name"),
    ({"description": None}, "description"),
    ({"description": "Back"}, "description"),
    ({"avatar": "{avatar}"}, "avatar.id"),
    ({"avatar": None}, "avatar"),
    ({"avatar": "{avatar}"}, "avatar"),
    ({"brain": {"personality": None, "systemPrompt": ""}}, "brain.systemPrompt"),
    ({"brain": {"systemPrompt": None}}, "brain.systemPrompt"),
    ({"tools": ["{tool}"]}, "tools[{tool}]"),
    ({"tools": []}, "tools[{tool}]"),
    ({"knowledge": ["{group}"]}, "knowledge[{group}]"),
    ({"knowledge": []}, "knowledge[{group}]"),
    ({"shareLinks": []}, "shareLinks"),
    ({"shareLinks": [LINK]}, f"shareLinks[{LINK['id']}]"),
    ({"shareLinks": [LINK | {"enabled": None}]}, f"shareLinks[{LINK['id']}].enabled"),
    ({"shareLinks": []}, f"shareLinks[{LINK['id']}]"),
    ({"primaryShareLink": {"token": "t", "enabled": True}}, "primaryShareLink"),
    ({"widgetConfig": {"theme": None}}, "widgetConfig.theme"),
    ({"widgetConfig": {"labels": {"a": {"b": 1}}}}, "widgetConfig.labels"),
    ({"voiceDetectionOptions": {}}, "voiceDetectionOptions"),
    ({"voiceDetectionOptions": {"new": 1}}, "voiceDetectionOptions.new"),
    ({"voiceGenerationOptions": {"style": 1}}, "voiceGenerationOptions"),
    ({"voiceGenerationOptions": {"emotion": "calm"}}, "voiceGenerationOptions.emotion"),
    ({"voiceGenerationOptions": None}, "voiceGenerationOptions"),
]

PLAIN = "00000000-0000-4000-8000-000000000001"


def test_of_edits_and_moves_in_turn_the_edits_are_left_without_the_reshaped(wide):
    """Each run sees one edit; every fourth time the shape moves first, of everything."""
    world = wide.world
    names = {
        kind: world.shared_ids(kinds)[0]
        for kind, kinds in (("avatar", "avatars"), ("tool", "tools"), ("group", "knowledge"))
    }
    before = {"description": "Once", "avatar": world.shared_ids("avatars")[1], "brain": {}}
    before["brain"] = {"personality": None, "systemPrompt": "Be brief."}
    world.add({"id": PLAIN, "name": "Plain", **before})
    wide.sync()
    expected = []
    for number, (changes, path) in enumerate(EDITS):
        if number % 4 == 0:
            world.reshape(EVERYWHERE if number % 8 == 0 else None)
            assert wide.sync().counts["reshaped"] == 9
        world.edit(PLAIN, _filled(changes, names))
        summary = wide.sync([PLAIN])
        assert (summary.counts["updated"], summary.counts["reshaped"]) == (1, 0)
        expected.append(path.format(**names))
    assert edited(wide) == expected


def _filled(value: Any, names: dict[str, str]) -> Any:
    """With the ids that stand for `{avatar}` and the like."""
    if isinstance(value, dict):
        return {key: _filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, names) for item in value]
    return value.format(**names) if isinstance(value, str) else value
