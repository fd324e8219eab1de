"""Avatars, voices, tools and knowledge groups: one history each, whoever brings them."""

from __future__ import annotations

from uuid import UUID

import pytest

from etl.sandbox import World

# Whose copy counts is decided here, not there: others that sync send the same statements.
pytestmark = pytest.mark.one_server

AVATAR = "00000000-0000-4000-8000-0000000000a1"
OTHER_AVATAR = "00000000-0000-4000-8000-0000000000a2"
VOICE = "00000000-0000-4000-8000-0000000000b1"
TOOL = "00000000-0000-4000-8000-0000000000c1"
GROUP = "00000000-0000-4000-8000-0000000000d1"
FIRST = "00000000-0000-4000-8000-000000000001"
SECOND = "00000000-0000-4000-8000-000000000002"
THIRD = "00000000-0000-4000-8000-000000000003"

OLD = "2026-04-20T10:00:00.000Z"
NEW = "2026-04-21T10:00:00.000Z"
NEWER = "2026-04-22T10:00:00.000Z"


def thing(entity_id: str, **members: object) -> dict[str, object]:
    return {"id": entity_id, "createdAt": OLD, "updatedAt": NEW, **members}


@pytest.fixture
def sharing(copying):
    """Three personas that share an avatar, a voice, a tool and a knowledge group; copied once."""
    world = World(
        avatars=[
            thing(AVATAR, displayName="Liv", videoUrl=None, availableVersions=["v1", "v2"]),
            thing(OTHER_AVATAR, displayName="Leo", videoUrl=None, availableVersions=[]),
        ],
        voices=[thing(VOICE, displayName="Lucy", displayTags=["fast"])],
        tools=[thing(TOOL, name="map", config={}, usageCount=3)],
        knowledge=[thing(GROUP, name="Prices", documentCount=7)],
    )
    for persona_id in (FIRST, SECOND, THIRD):
        shared = {"avatar": AVATAR, "voice": VOICE, "tools": [TOOL], "knowledge": [GROUP]}
        world.add({"id": persona_id, "name": persona_id[-1], **shared})
    # One connection: the personas are then seen in the order of their ids.
    with copying(world) as made:
        made.sync(API__CONCURRENCY="1")
        yield made


def again(target, ids=(FIRST, SECOND, THIRD)):
    return target.sync(ids, API__CONCURRENCY="1")


def avatar(target):
    return target.row("avatars", avatar_id=UUID(AVATAR))


def bringers(target, entity_id: str) -> list[str]:
    rows = target.rows("observations", entity_id=UUID(entity_id))
    return [str(row["persona_id"])[-1] for row in rows]


def serve(target, persona_id: str, **members: object) -> None:
    """Lets one persona alone show another copy of the avatar."""
    payload = target.world.payload(persona_id)
    target.world.set_payload(persona_id, payload | {"avatar": payload["avatar"] | members})


@pytest.mark.parametrize("entity_id", [AVATAR, VOICE, TOOL, GROUP])
def test_the_first_sync_makes_one_version_that_all_confirm(sharing, entity_id):
    (version,) = sharing.versions(entity_id)
    seen = [row["observed_at"] for row in sharing.rows("observations", entity_id=UUID(entity_id))]
    assert bringers(sharing, entity_id) == ["1", "2", "3"]
    assert (version["valid_from"], version["last_observed_at"]) == (min(seen), max(seen))
    assert version["source_updated_at"].isoformat() == "2026-04-21T10:00:00+00:00"


@pytest.mark.parametrize(
    ("entity_id", "kind", "table", "path"),
    [
        (AVATAR, "avatars", "avatars", "displayName"),
        (VOICE, "voices", "voices", "displayName"),
        (TOOL, "tools", "tools", "name"),
        (GROUP, "knowledge", "knowledge_groups", "name"),
    ],
)
def test_an_edit_is_one_version_and_its_personas_are_unchanged(
    sharing, entity_id, kind, table, path
):
    before = {name: sharing.rows(name) for name in ("personas", "brains", "persona_tools")}
    sharing.world.edit(entity_id, {path: "Edited"}, kind)
    summary = again(sharing)
    assert summary.counts["unchanged"] == 3
    first, second = sharing.versions(entity_id)
    assert (second["change"], second["changed_paths"]) == ("updated", [path])
    assert first["valid_to"] == second["valid_from"]
    row = sharing.rows(table)[0]
    assert "Edited" in row.values()
    assert row["last_changed_at"] == second["valid_from"] > row["first_seen_at"]
    assert row["first_seen_at"] == first["valid_from"]
    assert {name: sharing.rows(name) for name in before} == before
    assert sharing.rows("run_items", run_id=summary.run_id) == []
    for persona_id in (FIRST, SECOND, THIRD):
        assert sharing.changes(persona_id) == ["created"]


def test_an_array_of_a_shared_thing_is_replaced(sharing):
    sharing.world.edit(AVATAR, {"availableVersions": ["v2", "v3"]}, "avatars")
    again(sharing)
    rows = sharing.rows("avatar_available_versions")
    assert [(row["version"], row["position"]) for row in rows] == [("v2", 0), ("v3", 1)]


def test_the_order_of_a_set_is_no_change(sharing):
    sharing.world.edit(AVATAR, {"availableVersions": ["v2", "v1"]}, "avatars", touch=False)
    stamps = sharing.stamps()
    again(sharing)
    for name in ("avatars", "avatar_available_versions", "observations", "document_versions"):
        assert sharing.stamps()[name] == stamps[name]


def test_each_persona_ends_its_own_stretch_when_the_shared_thing_changes(sharing):
    again(sharing)
    confirmed = {i: sharing.state(i)["last_success_at"] for i in (FIRST, SECOND, THIRD)}
    sharing.world.edit(AVATAR, {"displayName": "Edited"}, "avatars")
    again(sharing)
    rows = sharing.rows("observations", entity_id=UUID(AVATAR))
    assert len(rows) == 9
    old = sharing.versions(AVATAR)[0]
    for persona_id, at in confirmed.items():
        mine = [row for row in rows if row["persona_id"] == UUID(persona_id)]
        assert [row["content_hash"] == old["content_hash"] for row in mine] == [True, True, False]
        assert mine[1]["observed_at"] == at
    assert old["last_observed_at"] == max(confirmed.values())


def test_the_same_content_with_a_newer_updated_at_is_observed_without_a_version(sharing):
    sharing.world.edit(AVATAR, {}, "avatars")
    again(sharing)
    assert sharing.changes(AVATAR) == ["created"]
    assert bringers(sharing, AVATAR) == ["1", "2", "3", "1", "2", "3"]
    (version,) = sharing.versions(AVATAR)
    assert version["source_updated_at"].isoformat() == "2026-04-21T10:00:00+00:00"
    assert avatar(sharing)["updated_at"] > version["source_updated_at"]


def test_letting_go_ends_the_stretch_and_keeps_the_row(sharing):
    again(sharing)
    confirmed = sharing.state(SECOND)["last_success_at"]
    sharing.world.edit(SECOND, {"avatar": None})
    summary = again(sharing)
    assert summary.counts["updated"] == 1
    assert sharing.versions(SECOND)[-1]["changed_paths"] == ["avatar"]
    assert sharing.persona(SECOND)["avatar_id"] is None
    rows = sharing.rows("observations", entity_id=UUID(AVATAR), persona_id=UUID(SECOND))
    assert [row["observed_at"] for row in rows][1:] == [confirmed]
    assert sharing.versions(AVATAR)[0]["last_observed_at"] == confirmed
    assert avatar(sharing)["display_name"] == "Liv"


def test_taking_up_again_what_was_let_go_brings_nothing_new(sharing):
    sharing.world.edit(SECOND, {"avatar": None})
    again(sharing)
    observed = bringers(sharing, AVATAR)
    sharing.world.edit(SECOND, {"avatar": AVATAR})
    again(sharing)
    assert sharing.persona(SECOND)["avatar_id"] == UUID(AVATAR)
    assert sharing.changes(SECOND) == ["created", "updated", "updated"]
    assert (sharing.changes(AVATAR), bringers(sharing, AVATAR)) == (["created"], observed)


def test_a_persona_that_takes_another_avatar_swaps_the_reference(sharing):
    sharing.world.edit(FIRST, {"avatar": OTHER_AVATAR})
    again(sharing)
    assert sharing.versions(FIRST)[-1]["changed_paths"] == ["avatar.id"]
    assert sharing.persona(FIRST)["avatar_id"] == UUID(OTHER_AVATAR)
    assert sharing.changes(OTHER_AVATAR) == ["created"]


def test_a_stale_copy_never_overwrites_a_newer_one(sharing):
    before = avatar(sharing)
    serve(sharing, THIRD, displayName="Stale", updatedAt=OLD)
    assert again(sharing).counts["unchanged"] == 3
    assert (avatar(sharing), sharing.changes(AVATAR)) == (before, ["created"])
    # It was seen all the same, and does not win by being seen again.
    assert bringers(sharing, AVATAR) == ["1", "2", "3", "3"]
    again(sharing)
    again(sharing, [THIRD])
    assert (avatar(sharing), len(bringers(sharing, AVATAR))) == (before, 4)


def test_a_stale_copy_with_the_current_content_leaves_updated_at_alone(sharing):
    serve(sharing, THIRD, updatedAt=OLD)
    again(sharing)
    assert avatar(sharing)["updated_at"].isoformat() == "2026-04-21T10:00:00+00:00"
    # Yet the content is as old as that copy says.
    (version,) = sharing.versions(AVATAR)
    assert version["source_updated_at"].isoformat() == "2026-04-20T10:00:00+00:00"


def test_a_stale_copy_beside_the_newest_in_one_batch_loses_whoever_is_last(sharing):
    for last in (FIRST, THIRD):
        serve(sharing, FIRST, displayName="Fresh", updatedAt=NEWER)
        serve(sharing, THIRD, displayName="Fresh", updatedAt=NEWER)
        serve(sharing, last, displayName="Stale", updatedAt=OLD)
        again(sharing)
        assert avatar(sharing)["display_name"] == "Fresh"
        assert avatar(sharing)["updated_at"].isoformat() == "2026-04-22T10:00:00+00:00"
    assert sharing.changes(AVATAR) == ["created", "updated"]


def test_an_older_copy_of_new_content_does_not_date_the_row(sharing):
    # Both bring one new content in one batch, the later one with the older updatedAt.
    serve(sharing, FIRST, displayName="Fresh", updatedAt="2026-05-02T00:00:00.000Z")
    serve(sharing, THIRD, displayName="Fresh", updatedAt=NEWER)
    again(sharing)
    assert avatar(sharing)["updated_at"].isoformat() == "2026-05-02T00:00:00+00:00"


def test_a_stale_copy_of_the_first_sighting_is_overwritten_by_a_newer_one(copying):
    world = World(avatars=[thing(AVATAR, displayName="Liv", videoUrl=None)])
    for persona_id in (FIRST, SECOND):
        world.add({"id": persona_id, "avatar": AVATAR})
    with copying(world) as target:
        serve(target, FIRST, displayName="Stale", updatedAt=OLD)
        again(target, [FIRST, SECOND])
        assert avatar(target)["display_name"] == "Liv"
        assert target.changes(AVATAR) == ["created", "updated"]


def test_without_a_newer_updated_at_the_later_new_content_wins(sharing):
    serve(sharing, FIRST, displayName="Other")
    again(sharing)
    # The others go on to bring what they brought: that is no news, and does not win it back.
    assert avatar(sharing)["display_name"] == "Other"
    again(sharing)
    assert avatar(sharing)["display_name"] == "Other"
    assert sharing.changes(AVATAR) == ["created", "updated"]


def test_counters_of_a_stale_copy_are_not_taken(sharing):
    payload = sharing.world.payload(THIRD)
    stale = payload["tools"][0] | {"usageCount": 999, "updatedAt": OLD}
    sharing.world.set_payload(THIRD, payload | {"tools": [stale]})
    again(sharing, [THIRD])
    assert sharing.row("tools", tool_id=UUID(TOOL))["usage_count"] == 3
    fresh = payload["tools"][0] | {"usageCount": 4}
    sharing.world.set_payload(THIRD, payload | {"tools": [fresh]})
    again(sharing, [THIRD])
    assert sharing.row("tools", tool_id=UUID(TOOL))["usage_count"] == 4


def test_flapping_of_a_shared_thing_is_three_versions(sharing):
    for name in ("Other", "Liv"):
        sharing.world.edit(AVATAR, {"displayName": name}, "avatars")
        again(sharing)
    assert sharing.changes(AVATAR) == ["created", "updated", "updated"]


def test_a_member_added_to_a_shared_thing_reshapes_it_alone(sharing):
    def add_style(payload):
        return payload | {"avatar": payload["avatar"] | {"style": "photo"}}

    sharing.world.reshape(add_style)
    assert again(sharing).counts["unchanged"] == 3
    assert sharing.changes(AVATAR) == ["created", "reshaped"]
    assert avatar(sharing)["extra"] == {"style": "photo"}
    assert sharing.row("drift_paths")["kind"] == "avatar"


def test_tools_keep_the_order_of_the_payload_as_first_seen(copying):
    ids = [f"00000000-0000-4000-8000-0000000000c{n}" for n in range(3)]
    world = World(tools=[thing(tool_id, name=tool_id[-1]) for tool_id in ids])
    world.add({"id": FIRST, "tools": ids[::-1]})
    with copying(world) as target:
        again(target, [FIRST])
        world.edit(FIRST, {"tools": ids})
        assert again(target, [FIRST]).counts["unchanged"] == 1
        places = {str(r["tool_id"]): r["position"] for r in target.rows("persona_tools")}
        assert [places[i] for i in ids] == [2, 1, 0]
        world.edit(FIRST, {"tools": ids[1:]})
        assert again(target, [FIRST]).counts["updated"] == 1
        places = {str(r["tool_id"]): r["position"] for r in target.rows("persona_tools")}
        assert places == {ids[1]: 0, ids[2]: 1}


def test_content_that_comes_back_in_another_order_is_shown_as_it_is_stored(copying):
    links = [{"id": f"00000000-0000-4000-8000-0000000000e{n}", "usageCount": n} for n in range(3)]
    world = World(avatars=[thing(AVATAR, availableVersions=["v1", "v2", "v3"])])
    world.add({"id": FIRST, "avatar": AVATAR, "shareLinks": links})
    with copying(world) as target:
        again(target, [FIRST])
        before = target.rows("avatar_available_versions")
        world.edit(AVATAR, {"availableVersions": []}, "avatars")
        world.edit(FIRST, {"name": "Edited"})
        again(target, [FIRST])
        assert target.rows("avatar_available_versions") == []
        world.edit(AVATAR, {"availableVersions": ["v3", "v2", "v1"]}, "avatars")
        counted = [link | {"usageCount": 10 + n} for n, link in enumerate(links)]
        world.set_payload(
            FIRST, {**world.payload(FIRST), "name": None, "shareLinks": counted[::-1]}
        )
        again(target, [FIRST])
        assert target.rows("avatar_available_versions") == before
        assert [row["usage_count"] for row in target.rows("share_links")] == [10, 11, 12]
        # The first document had no name at all, so the set is what came back in a new document.
        world.set_payload(FIRST, {**world.payload(FIRST), "shareLinks": links})
        assert again(target, [FIRST]).counts["unchanged"] == 1
        assert [row["usage_count"] for row in target.rows("share_links")] == [0, 1, 2]
