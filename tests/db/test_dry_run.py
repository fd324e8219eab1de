"""A dry run writes nothing, and says what the next real run does."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from etl.errors import DatabaseError
from etl.sandbox import Fault, World
from etl.store.lock import WriterLock

if TYPE_CHECKING:
    from etl.jobs.summary import Summary
    from etl.report.foreseen import Foreseen

# What is foreseen is decided here, not there: other files send the same statements.
pytestmark = pytest.mark.one_server

NOBODY = "00000000-0000-4000-8000-0000000000ff"
TOLD = ("command", "status", "counts", "value_issues", "new_drift_paths", "exit_code")


def assert_came_true(target, said: tuple[Summary, list[Foreseen]], did: Summary) -> None:
    """What was foreseen is what the run then did, version by version and field by field."""
    summary, foreseen = said
    assert {name: getattr(summary, name) for name in TOLD} == {
        name: getattr(did, name) for name in TOLD
    }
    by_outcome = ("failed", "forbidden", "rejected")
    versions = sorted(
        (change.kind, change.entity_id, change.outcome, [field.path for field in change.fields])
        for change in foreseen
        if change.outcome not in by_outcome
    )
    assert versions == sorted(
        (version["kind"], version["entity_id"], version["change"], version["changed_paths"])
        for version in target.rows("document_versions", run_id=did.run_id)
    )
    assert sorted(
        (change.entity_id, change.outcome, change.message)
        for change in foreseen
        if change.outcome in by_outcome
    ) == sorted(
        (item["persona_id"], item["outcome"], item["message"])
        for item in target.rows("run_items", run_id=did.run_id)
        if item["outcome"] in by_outcome
    )


def test_it_foresees_a_first_load(copying):
    with copying(count=6) as target:
        said = target.dry_run()
        assert said[0].counts["created"] == 6
        assert {change.outcome for change in said[1]} == {"created"}
        assert {change.kind for change in said[1]} >= {"persona", "avatar", "voice"}
        assert_came_true(target, said, target.sync())


def test_it_foresees_nothing_where_nothing_changed(target):
    summary, foreseen = target.dry_run()
    assert (summary.counts["unchanged"], foreseen, summary.exit_code) == (6, [], 0)


def test_it_says_field_by_field_what_would_change(target):
    changed = target.world.persona_ids[0]
    before = target.persona(changed)["name"]
    target.world.edit(changed, {"name": "Ada", "brain": {"systemPrompt": "Be brief."}})
    said = target.dry_run()
    (foreseen,) = said[1]
    assert (str(foreseen.entity_id), foreseen.name, foreseen.outcome) == (changed, "Ada", "updated")
    assert [(field.path, field.new) for field in foreseen.fields] == [
        ("brain.systemPrompt", "Be brief."),
        ("name", "Ada"),
    ]
    assert foreseen.fields[1].old == before
    assert_came_true(target, said, target.sync())


def test_it_foresees_removals_returns_and_failures(target):
    world = target.world
    gone, forbidden, broken, *_ = world.persona_ids
    ids = world.persona_ids
    world.delete(gone)
    target.sandbox.order(Fault(status=403, target=forbidden, times=2))
    world.set_payload(broken, b"<html>")
    said = target.dry_run(ids)
    assert {str(change.entity_id): change.outcome for change in said[1]} == {
        gone: "removed",
        forbidden: "forbidden",
        broken: "rejected",
    }
    assert said[0].exit_code == 3
    assert "run_items" not in str(said[0].error)
    assert_came_true(target, said, target.sync(ids))
    world.restore(gone)
    world.edit(gone, {"name": "Back"})
    world.set_payload(broken, None)
    said = target.dry_run(ids)
    assert [(str(c.entity_id), c.outcome) for c in said[1]] == [(gone, "restored")]
    assert_came_true(target, said, target.sync(ids))


def test_it_stops_where_a_run_would(target):
    ids = target.world.persona_ids
    for persona_id in ids:
        target.world.delete(persona_id)
    summary, foreseen = target.dry_run(ids)
    assert (summary.exit_code, foreseen) == (7, [])
    assert target.sync(ids).exit_code == 7
    said = target.dry_run(ids, allow_mass_removal=True)
    assert [change.outcome for change in said[1]] == ["removed"] * 6
    assert_came_true(target, said, target.sync(ids, allow_mass_removal=True))


def test_it_foresees_fields_that_are_new_to_us(target):
    target.world.reshape(lambda payload: payload | {"mood": "calm"})
    said = target.dry_run(strict=True)
    assert (said[0].exit_code, said[0].new_drift_paths) == (7, 1)
    assert {change.outcome for change in said[1]} == {"reshaped"}
    assert_came_true(target, said, target.sync(strict=True))


def test_it_foresees_each_difference_once_however_many_batches_bring_it(target, monkeypatch):
    monkeypatch.setattr("etl.jobs.fetching.BATCH_ITEMS", 1)
    target.world.reshape(lambda payload: payload | {"mood": "calm", "name": 7})
    for number, voice in enumerate(target.world.shared_ids("voices")):
        target.world.edit(voice, {"provider": f"ACME{number % 2}"}, "voices")
    said = target.dry_run(API__CONCURRENCY="1")
    assert said[0].new_drift_paths >= 3
    assert_came_true(target, said, target.sync(API__CONCURRENCY="1"))


@pytest.mark.every_server
def test_it_needs_no_more_than_to_read(target, plain_role):
    url, execute = plain_role
    execute("GRANT USAGE ON SCHEMA anam TO {role}")
    execute("GRANT SELECT ON ALL TABLES IN SCHEMA anam TO {role}")
    target.world.edit(target.world.persona_ids[0], {"name": "Ada"})
    target.url = url
    summary, foreseen = target.dry_run()
    assert (summary.exit_code, len(foreseen)) == (0, 1)


def test_it_runs_beside_a_real_run(target):
    with WriterLock(target.url, "anam", command="sync", run_id=UUID(int=1)):
        assert target.dry_run()[0].exit_code == 0


def test_it_wants_the_schema_at_head(target):
    target.is_corrupted = True
    target.query("UPDATE alembic_version SET version_num = 'from-the-future'")
    with pytest.raises(DatabaseError, match="does not know"):
        target.dry_run()


# Random edits are told by statements that other tests run on each server.
@pytest.mark.one_server
@pytest.mark.parametrize("seed", range(6))
def test_what_it_says_comes_true_whatever_happens(copying, seed, monkeypatch):
    """Batches of two: what one brings of a shared thing, the next one must know."""
    monkeypatch.setattr("etl.jobs.fetching.BATCH_ITEMS", 2)
    monkeypatch.setattr("etl.jobs.fetching.PATIENCE_SECONDS", 0.01)
    chance = random.Random(seed)
    with copying(count=9, seed=seed + 1) as target:
        ids = [*target.world.persona_ids, NOBODY]
        for _ in range(5):
            said = target.dry_run(ids, API__CONCURRENCY="1")
            assert_came_true(target, said, target.sync(ids, API__CONCURRENCY="1"))
            for _ in range(chance.randint(0, 5)):
                edit_something(target.world, chance, ids[:-1])


def test_an_old_copy_in_a_later_batch_does_not_count(copying, monkeypatch):
    monkeypatch.setattr("etl.jobs.fetching.BATCH_ITEMS", 1)
    with copying(count=2) as target:
        world, (first, late) = target.world, target.world.persona_ids
        avatar = world.shared_ids("avatars")[0]
        for persona_id in (first, late):
            world.edit(persona_id, {"avatar": avatar})
        world.set_payload(late, world.payload(late))
        world.edit(avatar, {"displayName": "Between"}, "avatars")
        target.sync([first])
        world.edit(avatar, {"displayName": "Newest"}, "avatars")
        said = target.dry_run([first, late], API__CONCURRENCY="1")
        assert [c.name for c in said[1] if c.kind == "avatar"] == ["Newest"]
        assert_came_true(target, said, target.sync([first, late], API__CONCURRENCY="1"))


def edit_something(world: World, chance: random.Random, ids: list[str]) -> None:
    """One thing that may happen between two runs."""
    persona_id = chance.choice(ids)
    word = chance.choice(["calm", "bold", "terse"])
    edits: list[Any] = [
        lambda: world.edit(persona_id, {"name": word}),
        lambda: world.edit(persona_id, {"brain": {"systemPrompt": word}}, touch=False),
        lambda: world.edit(persona_id, {"avatar": chance.choice(world.shared_ids("avatars"))}),
        lambda: world.edit(
            chance.choice(world.shared_ids("avatars")),
            {"displayName": word},
            "avatars",
            touch=chance.random() < 0.5,
        ),
        lambda: world.edit(
            chance.choice(world.shared_ids("voices")),
            {"isZdr": "perhaps", word: chance.random()},
            "voices",
        ),
        lambda: world.edit(chance.choice(world.shared_ids("tools")), {"usageCount": word}, "tools"),
        lambda: world.edit(persona_id, {"voiceSpeed": word, f"new_{word}": [1]}),
        lambda: world.set_payload(persona_id, chance.choice([b"", b"[]", b'{"id": 1}'])),
        lambda: world.set_payload(persona_id, None),
        # An old copy of its shared things, that goes on to be served while they change.
        lambda: world.set_payload(persona_id, world.payload(persona_id)),
    ]
    if persona_id in world.persona_ids:
        edits.append(lambda: world.delete(persona_id))
    else:
        edits.append(lambda: world.restore(persona_id))
    chance.choice(edits)()
