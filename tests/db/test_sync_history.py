"""What changed, when, and what it is called: versions and observations of personas."""

from __future__ import annotations

from uuid import UUID

import pytest

from etl.sandbox import Fault

# What a version is called is decided here, not there: others that sync send the same statements.
pytestmark = pytest.mark.one_server


@pytest.fixture
def one(copying):
    """A target with one persona, copied once."""
    with copying(count=1) as made:
        made.sync()
        yield made


def brings(target, entity_id: str, persona_id: str | None = None):
    """When which content was observed: (observed_at, content_hash, run_id)."""
    found = target.rows("observations", entity_id=UUID(entity_id))
    return [
        (row["observed_at"], row["content_hash"], row["run_id"])
        for row in found
        if persona_id is None or row["persona_id"] == UUID(persona_id)
    ]


def test_an_edit_opens_a_version_with_the_paths_that_differ(target):
    persona_id, bystander = target.world.persona_ids[:2]
    payload = target.world.payload(persona_id)
    target.world.edit(
        persona_id,
        {"name": "Ada", "brain": {"systemPrompt": "Be brief."}, "widgetConfig": {"new": [1]}},
    )
    before = target.persona(bystander)
    summary = target.sync()
    assert summary.counts["updated"] == 1
    assert summary.counts["unchanged"] == 5
    first, second = target.versions(persona_id)
    assert second["change"] == "updated"
    assert second["changed_paths"] == ["brain.systemPrompt", "name", "widgetConfig.new"]
    assert first["valid_to"] == second["valid_from"]
    assert second["valid_to"] is None
    assert second["run_id"] == summary.run_id
    row = target.persona(persona_id)
    assert (row["name"], row["last_changed_at"]) == ("Ada", second["valid_from"])
    assert row["first_seen_at"] == first["valid_from"]
    assert row["widget_config"] == payload["widgetConfig"] | {"new": [1]}
    assert target.row("brains", persona_id=UUID(persona_id))["system_prompt"] == "Be brief."
    assert target.persona(bystander) == before
    assert target.outcome(persona_id)["outcome"] == "updated"
    assert target.state(persona_id)["last_outcome"] == "updated"


def test_an_edit_writes_only_the_rows_that_differ(target):
    stamps = target.stamps()
    for persona_id in target.world.persona_ids:
        target.world.edit(persona_id, {"name": "Edited"})
    assert target.sync().counts["updated"] == 6
    after = target.stamps()
    written = {name for name in stamps if after[name] != stamps[name]}
    assert written == {
        "documents",
        "document_versions",
        "observations",
        "persona_sync_state",
        "personas",
        "run_items",
        "runs",
    }


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({"description": None}, ["description"]),
        ({"voiceSpeed": 1.375}, ["voiceSpeed"]),
        ({"llmId": "CUSTOMER_CLIENT_V9"}, ["llmId"]),
        ({"skipGreeting": True, "zeroDataRetention": True}, ["skipGreeting", "zeroDataRetention"]),
        ({"widgetConfig": {"theme": "sepia"}}, ["widgetConfig.theme"]),
        ({"knowledge": []}, ["knowledge[{group}]"]),
        (
            {"voiceDetectionOptions": {"speechEnhancementLevel": 0.125}},
            ["voiceDetectionOptions.speechEnhancementLevel"],
        ),
        ({"shareLinks": None}, ["shareLinks"]),
    ],
)
def test_each_edit_is_named_by_its_path(copying, changes, paths):
    with copying(count=6, seed=9) as target:
        world = target.world
        persona_id = next(
            i
            for i in world.persona_ids
            if (p := world.payload(i))["voiceDetectionOptions"]
            and p["widgetConfig"] == {}
            and p["shareLinks"]
        )
        (group,) = world.shared_ids("knowledge")[:1]
        world.edit(
            persona_id,
            {
                "description": "There.",
                "knowledge": [group],
                "skipGreeting": False,
                "zeroDataRetention": False,
                "widgetConfig": {"theme": "light"},
            },
        )
        target.sync([persona_id])
        world.edit(persona_id, changes)
        assert target.sync([persona_id]).counts["updated"] == 1
        found = target.versions(persona_id)[-1]["changed_paths"]
        assert found == [path.format(group=group) for path in paths]


def test_a_share_links_edit_is_named_by_its_id(target):
    persona_id = next(i for i in target.world.persona_ids if target.world.payload(i)["shareLinks"])
    links = target.world.payload(persona_id)["shareLinks"]
    edited = [links[0] | {"usageLimit": 7777}, *links[1:]]
    target.world.edit(persona_id, {"shareLinks": edited})
    target.sync()
    path = f"shareLinks[{links[0]['id']}].usageLimit"
    assert target.versions(persona_id)[-1]["changed_paths"] == [path]
    row = target.row("share_links", share_link_id=UUID(links[0]["id"]))
    assert row["usage_limit"] == 7777


def test_a_touched_persona_without_a_difference_is_unchanged(target):
    persona_id = target.world.persona_ids[0]
    target.world.edit(persona_id, {})
    assert target.sync().counts["unchanged"] == 6
    assert target.changes(persona_id) == ["created"]
    edited = target.world.payload(persona_id)["updatedAt"]
    assert target.persona(persona_id)["updated_at"].isoformat(timespec="milliseconds") == (
        edited.replace("Z", "+00:00")
    )


def test_an_edit_that_does_not_move_updated_at_is_seen_all_the_same(target):
    persona_id = target.world.persona_ids[0]
    target.world.edit(persona_id, {"name": "Quiet"}, touch=False)
    assert target.sync().counts["updated"] == 1
    assert target.persona(persona_id)["name"] == "Quiet"


def test_a_field_that_the_api_adds_everywhere_is_a_reshaping(target):
    target.world.reshape(lambda payload: payload | {"mood": {"today": "calm"}})
    summary = target.sync()
    assert (summary.counts["reshaped"], summary.new_drift_paths) == (6, 1)
    for persona_id in target.world.persona_ids:
        assert target.versions(persona_id)[-1]["changed_paths"] == ["mood"]
        assert target.persona(persona_id)["extra"] == {"mood": {"today": "calm"}}
    path = target.row("drift_paths")
    assert (path["kind"], path["path"], path["json_types"]) == ("persona", "mood", ["object"])
    assert (path["occurrences"], path["status"]) == (6, "open")

    target.world.reshape(None)
    summary = target.sync()
    assert (summary.counts["reshaped"], summary.new_drift_paths) == (6, 0)
    assert target.persona(target.world.persona_ids[0])["extra"] is None


def test_a_reshaping_beside_an_edit_is_an_update(target):
    target.world.reshape(lambda payload: payload | {"mood": None})
    target.world.edit(target.world.persona_ids[0], {"name": "Both"})
    counts = target.sync().counts
    assert (counts["reshaped"], counts["updated"]) == (5, 1)
    assert target.versions(target.world.persona_ids[0])[-1]["changed_paths"] == ["mood", "name"]


def test_flapping_is_three_versions(one):
    (persona_id,) = one.world.persona_ids
    name = one.world.payload(persona_id)["name"]
    for new in ("Other", name):
        one.world.edit(persona_id, {"name": new})
        one.sync()
    first, second, third = one.versions(persona_id)
    assert [v["version"] for v in (first, second, third)] == [1, 2, 3]
    assert first["content_hash"] == third["content_hash"] != second["content_hash"]
    assert (first["valid_to"], second["valid_to"]) == (second["valid_from"], third["valid_from"])
    assert len(one.rows("documents", kind="persona")) == 2


def test_two_edits_between_syncs_are_one_version(one):
    (persona_id,) = one.world.persona_ids
    for name in ("One", "Two"):
        one.world.edit(persona_id, {"name": name})
    one.sync()
    assert one.changes(persona_id) == ["created", "updated"]


def test_a_confirmation_is_no_observation_until_the_stretch_ends(one):
    (persona_id,) = one.world.persona_ids
    ((first_at, content, first_run),) = brings(one, persona_id)
    confirmed = [(one.sync(), one.state(persona_id)["last_success_at"]) for _ in range(3)]
    assert len(brings(one, persona_id)) == 1
    assert one.versions(persona_id)[0]["last_observed_at"] == first_at

    one.world.edit(persona_id, {"name": "Ada"})
    changed = one.sync()
    observed = brings(one, persona_id)
    (last_run, last_at) = confirmed[-1]
    assert observed[:2] == [(first_at, content, first_run), (last_at, content, last_run.run_id)]
    assert observed[2][2] == changed.run_id
    assert len(observed) == 3
    first, second = one.versions(persona_id)
    assert first["last_observed_at"] == last_at
    assert first["valid_to"] == second["valid_from"] == observed[2][0]
    assert second["last_observed_at"] == second["valid_from"]


def test_a_stretch_of_one_observation_ends_without_another(one):
    (persona_id,) = one.world.persona_ids
    one.world.edit(persona_id, {"name": "Ada"})
    one.sync()
    assert len(brings(one, persona_id)) == 2


def test_a_failed_attempt_confirms_nothing(one):
    (persona_id,) = one.world.persona_ids
    one.sync()
    confirmed = one.state(persona_id)["last_success_at"]
    one.sandbox.order(Fault(status=400, target=persona_id))
    one.sync()
    one.world.edit(persona_id, {"name": "Ada"})
    one.sync()
    times = [at for at, _, _ in brings(one, persona_id)]
    assert times[1] == confirmed
    assert len(times) == 3


def test_a_persona_seen_first_in_a_later_run_has_its_own_first_time(target):
    before = target.now()
    new = target.world.add({"name": "New", "id": "00000000-0000-4000-8000-000000000009"})
    counts = target.sync().counts
    assert (counts["created"], counts["unchanged"]) == (1, 6)
    assert target.persona(new)["first_seen_at"] > before


def test_an_id_that_is_not_asked_for_is_left_as_it_is(target):
    asked, left = target.world.persona_ids[:2]
    before = (target.persona(left), target.state(left))
    target.world.edit(left, {"name": "Unseen"})
    assert target.sync([asked]).counts["requested"] == 1
    assert (target.persona(left), target.state(left)) == before


def test_a_clock_that_was_set_back_loses_nothing(one):
    """As if all so far had been dated by a clock that was an hour ahead."""
    (persona_id,) = one.world.persona_ids
    with one.admin.transaction():
        one.query("UPDATE observations SET observed_at = observed_at + interval '1 hour'")
        for table in ("avatars", "voices", "tools", "knowledge_groups", "personas"):
            for column in ("first_seen_at", "last_changed_at"):
                one.query(f"UPDATE {table} SET {column} = {column} + interval '1 hour'")
        for column in ("valid_from", "last_observed_at"):
            one.query(f"UPDATE document_versions SET {column} = {column} + interval '1 hour'")
        for column in ("last_attempt_at", "last_success_at"):
            one.query(f"UPDATE persona_sync_state SET {column} = {column} + interval '1 hour'")
    for number, name in enumerate(["Ada", "Grace"], start=1):
        one.world.edit(persona_id, {"name": name})
        assert one.sync().counts["updated"] == 1
        assert one.persona(persona_id)["name"] == name
        assert one.changes(persona_id) == ["created", *["updated"] * number]
    one.world.delete(persona_id)
    one.sync([persona_id])
    assert one.changes(persona_id)[-1] == "removed"


def test_no_version_overlaps_another_after_many_runs(target):
    world = target.world
    for turn in range(4):
        for number, persona_id in enumerate(world.persona_ids):
            if (turn + number) % 2:
                world.edit(persona_id, {"name": f"{turn % 2}"})
        world.edit(world.shared_ids("avatars")[0], {"displayName": f"{turn % 2}"}, "avatars")
        target.sync()
    overlapping = target.query("""
        SELECT a.entity_id FROM document_versions a JOIN document_versions b USING (kind, entity_id)
         WHERE a.version < b.version
           AND coalesce(a.valid_to, 'infinity') > b.valid_from
    """)
    assert overlapping == []
    assert target.query("""
        SELECT entity_id FROM document_versions GROUP BY kind, entity_id
        HAVING count(*) FILTER (WHERE valid_to IS NULL) <> 1
            OR max(version) <> count(*)
    """) == []  # fmt: skip
