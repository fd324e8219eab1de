"""A 404 removes, unless too many do at once; nothing else ever removes."""

from __future__ import annotations

import logging
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from etl.sandbox import Fault

# Who is removed is decided here, not there: syncs, checks and replays in other files send the same
# statements.
pytestmark = pytest.mark.one_server

UNKNOWN = "00000000-0000-4000-8000-0000000000ff"


def test_a_404_closes_the_version_and_keeps_the_rows(target):
    gone, *others = target.world.persona_ids
    kept = {name: target.rows(name) for name in ("brains", "persona_tools", "share_links")}
    before = target.persona(gone)
    target.world.delete(gone)
    summary = target.sync([gone, *others])
    assert (summary.status, summary.exit_code) == ("succeeded", 0)
    assert (summary.counts["missing"], summary.counts["unchanged"]) == (1, 5)
    first, removed = target.versions(gone)
    assert (removed["change"], removed["content_hash"]) == ("removed", None)
    assert (removed["changed_paths"], removed["source_updated_at"]) == ([], None)
    assert first["valid_to"] == removed["valid_from"]
    assert removed["run_id"] == summary.run_id
    row = target.persona(gone)
    assert row["removed_at"] == row["last_changed_at"] == removed["valid_from"]
    assert row | {"removed_at": None, "last_changed_at": before["last_changed_at"]} == before
    assert {name: target.rows(name) for name in kept} == kept
    item = target.outcome(gone)
    assert (item["outcome"], item["http_status"]) == ("missing", 404)
    state = target.state(gone)
    assert (state["last_outcome"], state["consecutive_failures"]) == ("missing", 0)
    assert state["last_success_at"] == first["valid_from"]


def test_a_removal_ends_the_stretch_of_all_that_the_persona_brought(target):
    gone = next(i for i in target.world.persona_ids if target.world.payload(i)["tools"])
    payload = target.world.payload(gone)
    confirming = target.sync()
    confirmed = target.state(gone)["last_success_at"]
    target.world.delete(gone)
    ids = [*target.world.persona_ids, gone]
    target.sync(ids)
    brought = [gone, *(t["id"] for t in payload["tools"])]
    brought += [payload[name]["id"] for name in ("avatar", "voice") if payload[name]]
    for entity_id in brought:
        rows = target.rows("observations", entity_id=UUID(entity_id), persona_id=UUID(gone))
        assert rows[1]["observed_at"] == confirmed
        # The run that confirmed it, or nobody knows: never the one that met the 404.
        assert rows[1]["run_id"] in (confirming.run_id, None)
        assert rows[1]["content_hash"] is not None
    own = target.rows("observations", entity_id=UUID(gone))
    assert [row["content_hash"] is None for row in own] == [False, False, True]
    assert target.versions(gone)[0]["last_observed_at"] == confirmed


def test_a_removed_persona_that_stays_away_is_no_news(target):
    gone, *others = target.world.persona_ids
    target.world.delete(gone)
    target.sync([gone, *others])
    before = target.dump()
    summary = target.sync([gone, *others])
    assert (summary.exit_code, summary.counts["missing"]) == (0, 1)
    after = target.dump()
    for name in before.keys() - {"runs", "run_items", "persona_sync_state"}:
        assert after[name] == before[name], name


@pytest.mark.parametrize("edited", [False, True])
def test_a_persona_that_comes_back_is_restored(target, edited):
    gone, *others = target.world.persona_ids
    target.world.delete(gone)
    target.sync([gone, *others])
    target.world.restore(gone)
    if edited:
        target.world.edit(gone, {"name": "Back"})
    summary = target.sync([gone, *others])
    assert (summary.counts["restored"], summary.counts["unchanged"]) == (1, 5)
    *_, removed, restored = target.versions(gone)
    assert (removed["change"], restored["change"]) == ("removed", "restored")
    assert restored["changed_paths"] == (["name"] if edited else [])
    assert removed["valid_to"] == restored["valid_from"]
    row = target.persona(gone)
    assert (row["removed_at"], row["last_changed_at"]) == (None, restored["valid_from"])
    assert row["first_seen_at"] == target.versions(gone)[0]["valid_from"]
    if edited:
        assert row["name"] == "Back"
    assert target.sync([gone, *others]).counts["unchanged"] == 6


def test_removed_and_restored_again_and_again(target):
    gone, *others = target.world.persona_ids
    for _ in range(2):
        target.world.delete(gone)
        target.sync([gone, *others])
        target.world.restore(gone)
        target.sync([gone, *others])
    assert target.changes(gone) == ["created", *["removed", "restored"] * 2]


def test_a_404_of_one_never_seen_makes_no_version_and_is_named(target, caplog):
    summary = target.sync([UNKNOWN])
    assert (summary.status, summary.exit_code, summary.counts["missing"]) == ("succeeded", 0, 1)
    assert target.versions(UNKNOWN) == target.rows("personas", persona_id=UUID(UNKNOWN)) == []
    assert target.rows("observations", entity_id=UUID(UNKNOWN)) == []
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert UNKNOWN in warning.getMessage()
    assert target.state(UNKNOWN)["last_outcome"] == "missing"
    # Once it exists it is new, not restored.
    target.world.add({"id": UNKNOWN, "name": "At last"})
    assert target.sync([UNKNOWN]).counts["created"] == 1
    assert target.changes(UNKNOWN) == ["created"]


def test_a_known_persona_that_is_missing_is_not_called_a_typo(target, caplog):
    gone, *others = target.world.persona_ids
    target.world.delete(gone)
    for _ in range(2):
        target.sync([gone, *others])
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_when_all_of_two_are_missing_none_is_removed(target):
    gone = target.world.persona_ids[:2]
    for persona_id in gone:
        target.world.delete(persona_id)
    before = target.rows("personas")
    summary = target.sync(gone)
    assert (summary.status, summary.exit_code) == ("failed", 7)
    assert summary.counts["missing"] == 2
    assert "--allow-mass-removal" in str(summary.error)
    assert (target.rows("personas"), target.changes(gone[0])) == (before, ["created"])
    assert target.state(gone[0])["last_outcome"] == "missing"


def test_the_next_run_heals_after_a_safety_stop(target):
    gone = target.world.persona_ids[:2]
    for persona_id in gone:
        target.world.delete(persona_id)
    target.sync(gone)
    for persona_id in gone:
        target.world.restore(persona_id)
    assert target.sync(gone).counts["unchanged"] == 2
    assert target.changes(gone[0]) == ["created"]


def test_mass_removal_is_done_when_it_is_asked_for(target):
    gone = target.world.persona_ids[:2]
    for persona_id in gone:
        target.world.delete(persona_id)
    assert target.sync(gone).exit_code == 7
    assert target.sync(gone, allow_mass_removal=True).exit_code == 0
    for persona_id in gone:
        assert target.changes(persona_id) == ["created", "removed"]


def test_the_only_persona_asked_for_may_be_removed(target):
    gone = target.world.persona_ids[0]
    target.world.delete(gone)
    assert target.sync([gone]).exit_code == 0
    assert target.changes(gone) == ["created", "removed"]


@pytest.mark.parametrize(
    ("count", "gone", "percent", "code"),
    [
        (12, 5, "20", 0),  # More than a fifth, yet no more than five.
        (12, 6, "20", 7),
        (12, 6, "50", 0),  # Six of twelve are not more than half.
        (30, 6, "20", 0),  # Exactly a fifth.
        (30, 7, "20", 7),
        (12, 6, "0", 7),
    ],
)
def test_the_safety_stop_needs_more_than_five_and_more_than_its_share(
    copying, count, gone, percent, code
):
    with copying(count=count) as target:
        ids = target.world.persona_ids
        target.sync(ids)
        for persona_id in ids[:gone]:
            target.world.delete(persona_id)
        summary = target.sync(ids, SAFETY__MAX_REMOVED_PERCENT=percent)
        assert (summary.exit_code, summary.counts["missing"]) == (code, gone)
        removed = target.query("SELECT count(*) FROM personas WHERE removed_at IS NOT NULL")
        assert removed[0]["count"] == (0 if code else gone)


def test_the_share_is_of_the_live_personas_asked_for(copying):
    """Neither those never seen, nor those removed before, nor those not asked for count."""
    with copying(count=20) as target:
        ids = target.world.persona_ids
        target.sync(ids)
        for persona_id in ids[:4]:
            target.world.delete(persona_id)
        assert target.sync(ids).exit_code == 0
        for persona_id in ids[4:6]:
            target.world.delete(persona_id)
        # Both that are live are missing; the removed and the unknown don't make it less than all.
        assert target.sync([*ids[:6], UNKNOWN]).exit_code == 7
        assert target.sync([*ids[:7], UNKNOWN]).exit_code == 0


@pytest.mark.parametrize("status", [401, 403, 400, 500])
def test_no_other_status_is_a_removal(target, status):
    persona_id = target.world.persona_ids[0]
    target.sandbox.order(Fault(status=status, target=persona_id, times=None))
    before = target.dump()
    target.sync([persona_id], API__TIMEOUT_SECONDS="5")
    for name in ("personas", "document_versions", "observations"):
        assert target.rows(name) == before[name]


def test_missing_personas_of_a_run_that_stops_early_are_not_removed(target):
    gone, later = target.world.persona_ids[:2]
    target.world.delete(gone)
    wait = Fault(status=429, headers={"Retry-After": "3600"})
    target.sandbox.order(replace(wait, target=later, times=None))
    summary = target.sync([gone, later], API__CONCURRENCY="1")
    assert (summary.status, summary.exit_code) == ("deferred", 5)
    assert (summary.counts["missing"], summary.counts["not_attempted"]) == (1, 1)
    assert target.changes(gone) == ["created"]
    assert target.persona(gone)["removed_at"] is None


def test_one_persona_removed_while_another_changes(target):
    gone, edited, *others = target.world.persona_ids
    target.world.delete(gone)
    target.world.edit(edited, {"name": "Edited"})
    counts = target.sync([gone, edited, *others]).counts
    assert (counts["missing"], counts["updated"], counts["unchanged"]) == (1, 1, 4)
    assert (target.changes(gone)[-1], target.changes(edited)[-1]) == ("removed", "updated")


def test_a_key_of_another_organisation_removes_nobody(target):
    """All that it lists is new, and would hide that all that was known is gone."""
    ours = target.world.persona_ids
    for persona_id in ours:
        target.world.delete(persona_id)
    for _ in range(40):
        target.world.add({"id": str(uuid4())})
    said, _ = target.dry_run([], discover=True)
    summary = target.sync([], discover=True)
    assert (summary.exit_code, summary.counts["created"], summary.counts["missing"]) == (7, 40, 6)
    assert (said.exit_code, str(said.error)) == (7, str(summary.error))
    assert [target.persona(persona_id)["removed_at"] for persona_id in ours] == [None] * 6


def test_personas_that_came_back_do_not_count_as_known(target):
    *gone, back = target.world.persona_ids
    target.world.delete(back)
    target.sync([back])
    target.world.restore(back)
    for persona_id in gone:
        target.world.delete(persona_id)
    summary = target.sync([*gone, back])
    assert (summary.exit_code, summary.counts["restored"]) == (7, 1)
