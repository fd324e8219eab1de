"""The sandbox's state: edits, deletion, and what moves or stands still between two fetches."""

from __future__ import annotations

import json

import pytest

from etl.sandbox import World, generate
from etl.sandbox.world import KINDS


@pytest.fixture
def world():
    world = generate(30, seed=1)
    world.moving = False
    return world


def users_of(world: World, kind: str) -> tuple[str, list[str]]:
    """The avatar or voice that most personas use, and these."""
    users: dict[str, list[str]] = {}
    for id_ in world.persona_ids:
        if thing := world.payload(id_)[kind]:
            users.setdefault(thing["id"], []).append(id_)
    return max(users.items(), key=lambda item: len(item[1]))


def test_an_edit_merges_objects_and_replaces_everything_else(world):
    id_ = world.persona_ids[0]
    before = world.payload(id_)
    world.edit(id_, {"brain": {"systemPrompt": "Be brief."}, "tools": [], "description": None})
    after = world.payload(id_)
    assert after["brain"] == before["brain"] | {"systemPrompt": "Be brief."}
    assert after["tools"] == []
    assert after["description"] is None
    assert {**after, **{k: before[k] for k in ("brain", "tools", "description", "updatedAt")}} == (
        before
    )


def test_every_edit_moves_updated_at_even_within_one_millisecond(world):
    id_ = world.persona_ids[0]
    stamps = [world.payload(id_)["updatedAt"]]
    for name in "abc":
        world.edit(id_, {"name": name})
        stamps.append(world.payload(id_)["updatedAt"])
    assert stamps == sorted(set(stamps))


def test_an_edit_can_leave_updated_at_alone(world):
    id_ = world.persona_ids[0]
    before = world.payload(id_)
    world.edit(id_, {"name": "Ada"}, touch=False)
    assert world.payload(id_) == before | {"name": "Ada"}


def test_an_edited_avatar_shows_in_all_its_personas_and_does_not_move_their_updated_at(world):
    avatar_id, users = users_of(world, "avatar")
    before = {id_: world.payload(id_) for id_ in world.persona_ids}
    world.edit(avatar_id, {"displayName": "Renamed"}, "avatars")
    assert len(users) > 1
    for id_, old in before.items():
        new = world.payload(id_)
        assert new["updatedAt"] == old["updatedAt"]
        if id_ in users:
            assert new["avatar"]["displayName"] == "Renamed"
            assert new["avatar"]["updatedAt"] > old["avatar"]["updatedAt"]
        else:
            assert new == old


@pytest.mark.parametrize("kind", ["tools", "knowledge"])
def test_an_edited_tool_or_knowledge_group_shows_where_it_is_attached(world, kind):
    first, second = world.persona_ids[:2]
    thing_id = world.shared_ids(kind)[0]
    for id_ in (first, second):
        world.edit(id_, {kind: [thing_id]})
    world.edit(thing_id, {"name": "Renamed"}, kind)
    assert [world.payload(id_)[kind][0]["name"] for id_ in (first, second)] == ["Renamed"] * 2


def test_an_edited_voice_shows_in_its_personas(world):
    voice_id, users = users_of(world, "voice")
    world.edit(voice_id, {"gender": "OTHER"}, "voices")
    assert {world.payload(id_)["voice"]["gender"] for id_ in users} == {"OTHER"}


def test_a_shared_thing_is_named_as_it_was_spelled():
    world = World(tools=[{"id": "ABC", "name": "old"}])
    id_ = world.add({"id": "PERSONA", "tools": ["ABC"]})
    world.edit("ABC", {"name": "new"}, "tools")
    world.edit(id_, {"name": "Ada"})
    assert world.payload("persona")["tools"][0]["name"] == "new"
    world.delete("ABC", "tools")
    assert world.payload("Persona")["tools"] == []


def test_a_new_voice_resets_the_generation_options(world):
    id_ = world.persona_ids[0]
    world.edit(id_, {"voiceGenerationOptions": {"speed": 1.1}})
    world.edit(id_, {"voice": world.shared_ids("voices")[-1]})
    assert world.payload(id_)["voice"]["id"] == world.shared_ids("voices")[-1]
    assert world.payload(id_)["voiceGenerationOptions"] is None


def test_a_deleted_persona_is_gone_until_it_is_restored(world):
    ids = world.persona_ids
    before = world.body(ids[3])
    world.delete(ids[3])
    assert world.body(ids[3]) is None
    assert world.payload(ids[3]) is None
    assert world.persona_ids == ids[:3] + ids[4:]
    world.restore(ids[3])
    assert world.body(ids[3]) == before
    assert world.persona_ids == ids


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_id_is_an_error_for_whoever_orders(world, kind):
    with pytest.raises(KeyError, match="nobody"):
        world.edit("nobody", {}, kind)
    with pytest.raises(KeyError, match="nobody"):
        world.delete("nobody", kind)
    with pytest.raises(KeyError, match="nobody"):
        world.restore("nobody", kind)


def test_an_added_persona_is_blank_but_for_what_was_given(world):
    id_ = world.add({"name": "Ada", "tools": world.shared_ids("tools")[:1]})
    payload = world.payload(id_)
    assert payload["id"] == id_
    assert payload["name"] == "Ada"
    assert payload["avatar"] is None
    assert payload["tools"][0]["id"] == world.shared_ids("tools")[0]
    assert world.persona_ids[-1] == id_
    assert world.add({}) != world.add({})


def test_adding_an_id_again_replaces_the_persona(world):
    id_ = world.persona_ids[0]
    assert world.payload(id_)["name"] != "Ada"
    world.add({"id": id_, "name": "Ada"})
    assert world.payload(id_)["name"] == "Ada"
    assert len(world.persona_ids) == 30


def test_the_documented_example_can_be_added_and_comes_back_as_it_was(world, request):
    text = (request.config.rootpath / "tests/payloads/documented.json").read_text()
    example = json.loads(text)
    assert world.payload(world.add(example)) == example


def test_an_object_in_the_place_of_a_shared_thing_is_served_as_it_is(world):
    id_ = world.persona_ids[0]
    world.edit(id_, {"avatar": {"displayName": "No id"}, "tools": [7, None], "voice": "not an id"})
    payload = world.payload(id_)
    assert payload["avatar"] == {"displayName": "No id"}
    assert payload["tools"] == [7, None]
    assert payload["voice"] == "not an id"


def test_a_set_payload_is_served_verbatim_until_it_is_taken_back(world):
    id_ = world.persona_ids[0]
    before = world.body(id_)
    world.set_payload(id_, b'{"a": NaN, "a": 1} junk')
    assert world.body(id_) == b'{"a": NaN, "a": 1} junk'
    world.set_payload(id_, {"id": "\ud800", "n": 1})
    assert world.body(id_) == rb'{"id":"\ud800","n":1}'
    world.set_payload(id_, None)
    assert world.body(id_) == before


def test_a_payload_can_be_set_for_an_id_that_is_not_listed(world):
    world.set_payload("elsewhere", {"id": "elsewhere"})
    assert world.payload("elsewhere") == {"id": "elsewhere"}
    assert "elsewhere" not in world.persona_ids


def test_a_reshaped_api_shows_in_every_persona_and_leaves_the_world_itself_alone(world):
    before = [world.body(id_) for id_ in world.persona_ids]

    def newer(payload):
        del payload["voiceSpeed"]
        if payload["voice"]:
            payload["voice"]["mood"] = "calm"
        return payload

    world.reshape(newer)
    for id_ in world.persona_ids:
        payload = world.payload(id_)
        assert "voiceSpeed" not in payload
        assert payload["voice"] is None or payload["voice"]["mood"] == "calm"
    world.reshape(None)
    assert [world.body(id_) for id_ in world.persona_ids] == before


def test_nothing_moves_in_a_static_world(world):
    assert [world.body(id_) for id_ in world.persona_ids] == [
        world.body(id_) for id_ in world.persona_ids
    ]
    assert "X-Amz-Signature=" in world.payload(world.persona_ids[0])["avatar"]["videoUrl"]


def test_only_signatures_and_counters_move_between_two_fetches(world):
    world.moving = True
    id_ = next(id_ for id_ in world.persona_ids if world.payload(id_)["shareLinks"])
    tool, group = world.shared_ids("tools")[0], world.shared_ids("knowledge")[0]
    avatar = world.shared_ids("avatars")[0]
    world.edit(avatar, {"videoUrl": "https://cdn.example/idle.mp4"}, "avatars")
    world.edit(id_, {"tools": [tool], "knowledge": [group], "avatar": avatar})
    first, second = world.payload(id_), world.payload(id_)
    moved = [
        ("avatar", "videoUrl"),
        ("tools", 0, "usageCount"),
        ("knowledge", 0, "documentCount"),
        *(("shareLinks", i, "usageCount") for i in range(len(first["shareLinks"]))),
    ]
    for *way, last in moved:
        old, new = first, second
        for step in way:
            old, new = old[step], new[step]
        assert old.pop(last) != new.pop(last), (*way, last)
    assert first == second


def test_a_new_signature_changes_only_the_query_of_the_video_url(world):
    world.moving = True
    urls = [world.payload(world.persona_ids[0])["avatar"]["videoUrl"] for _ in range(2)]
    (base, query), (base_again, query_again) = (url.split("?") for url in urls)
    assert base == base_again
    old, new = (dict(p.split("=") for p in q.split("&")) for q in (query, query_again))
    assert {name for name in old if old[name] != new[name]} == {"X-Amz-Date", "X-Amz-Signature"}


def test_shuffled_keys_change_the_bytes_and_not_the_value(world):
    id_ = world.persona_ids[0]
    value = world.payload(id_)
    world.shuffle_keys = True
    bodies = [world.body(id_) for _ in range(3)]
    assert len(set(bodies)) == 3
    assert all(json.loads(body) == value for body in bodies)


def test_pages_cover_the_list_once_with_the_documented_meta(world):
    pages = [json.loads(world.page(page=n, per_page=12)) for n in (1, 2, 3)]
    assert [item["id"] for page in pages for item in page["data"]] == world.persona_ids
    assert [page["meta"] for page in pages] == [
        {"total": 30, "lastPage": 3, "currentPage": 1, "perPage": 12, "prev": None, "next": 2},
        {"total": 30, "lastPage": 3, "currentPage": 2, "perPage": 12, "prev": 1, "next": 3},
        {"total": 30, "lastPage": 3, "currentPage": 3, "perPage": 12, "prev": 2, "next": None},
    ]


def test_listed_personas_are_trimmed_and_deleted_ones_left_out(world):
    world.delete(world.persona_ids[0])
    page = json.loads(world.page(page=1, per_page=100))
    assert page["meta"]["total"] == 29
    for item in page["data"]:
        assert not {"brain", "tools", "knowledge", "shareLinks", "llmId"} & set(item)
        assert item == {key: world.payload(item["id"])[key] for key in item}


def test_a_search_looks_at_names_without_regard_to_case(world):
    world.edit(world.persona_ids[4], {"name": "Zaphod the SECOND"})
    page = json.loads(world.page(page=1, per_page=10, search="zaphod"))
    assert [item["id"] for item in page["data"]] == [world.persona_ids[4]]
    assert page["meta"]["total"] == 1
