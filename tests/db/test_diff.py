"""What changed of a persona between two moments: its own fields, and those of what it shares."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from etl.errors import DatabaseError, UsageError
from etl.jobs.diff import diff
from etl.jobs.grants import reader_grants
from etl.jobs.prune import Keep
from etl.payload.differences import ABSENT
from etl.settings import load_settings
from tests.db.test_changes_view import (
    AVATAR,
    LINK,
    OTHER_AVATAR,
    OTHER_PERSONA,
    OTHER_TOOL,
    PERSONA,
    TOOL,
    VOICE,
    link,
    sharing,
)
from tests.db.test_prune import pruned

if TYPE_CHECKING:
    from etl.jobs.diff import Diff
    from etl.jobs.lifeline import When
    from tests.db.conftest import Target

# What is told of two documents is decided here, not there: other files send the same statements.
pytestmark = pytest.mark.one_server

EVERYBODY = [PERSONA, OTHER_PERSONA]
JUST = timedelta(microseconds=1)


@pytest.fixture
def made(copying):
    """Two personas that share all they have, copied once."""
    with copying(sharing({PERSONA: "Ada", OTHER_PERSONA: "Grace"})) as target:
        target.sync()
        yield target


def asked(target: Target, since: When | None = None, until: When = "now") -> Diff:
    settings = load_settings(target.environment(), cwd=target.folder)
    return diff(settings, UUID(PERSONA), url=target.url, since=since, until=until)


def fields(found: Diff) -> list[tuple[str, Any, Any]]:
    """Each field by its path in the payload, with the old and the new value."""
    return [
        (comparison.full_path(change.path), change.old, change.new)
        for comparison in found.comparisons
        for change in comparison.changes
    ]


def happened(found: Diff) -> list[str]:
    return [f"{event.key[0]} {event.version} {event.change}" for event in found.events]


def edited(target: Target, changes: dict[str, Any], entity_id: str = PERSONA, *kind: str) -> None:
    target.world.edit(entity_id, changes, *kind)
    target.sync(EVERYBODY)


def test_without_more_it_is_the_last_change_of_the_persona(made):
    edited(made, {"name": "Bea"})
    edited(made, {"name": "Cleo"})
    found = asked(made)
    assert (found.name, happened(found)) == ("Cleo", ["persona 3 updated"])
    assert fields(found) == [("name", "Bea", "Cleo")]
    (_, _, last) = made.versions(PERSONA)
    assert (found.before.at, found.before.version) == (last["valid_from"] - JUST, 2)
    assert found.events[0].not_before == made.versions(PERSONA)[1]["last_observed_at"]


def test_or_of_a_shared_thing_that_it_refers_to(made):
    edited(made, {"name": "Bea"})
    edited(made, {"displayTags": ["warm", "calm"]}, VOICE, "voices")
    # That one is nobody's.
    edited(made, {"displayName": "Leopold"}, OTHER_AVATAR, "avatars")
    found = asked(made)
    assert happened(found) == ["voice 2 updated"]
    assert fields(found) == [("voice.displayTags", ["fast", "warm"], ["calm", "warm"])]
    (comparison,) = found.comparisons
    assert (comparison.kind, comparison.name, comparison.versions) == ("voice", "Lucy", (1, 2))
    assert (found.before.version, found.after.version) == (2, 2)


def test_what_was_exchanged_is_no_longer_followed(made):
    edited(made, {"avatar": OTHER_AVATAR, "tools": [OTHER_TOOL]})
    edited(made, {"displayName": "Olivia"}, AVATAR, "avatars")
    edited(made, {"name": "atlas"}, TOOL, "tools")
    found = asked(made)
    (comparison,) = found.comparisons
    assert fields(found) == [
        ("avatar.id", AVATAR, OTHER_AVATAR),
        (f"tools[{TOOL}]", {"id": TOOL}, ABSENT),
        (f"tools[{OTHER_TOOL}]", ABSENT, {"id": OTHER_TOOL}),
    ]
    assert [found.names(comparison, change) for change in comparison.changes] == [
        ("Liv", "Leo"),
        ("map", None),
        (None, "search"),
    ]


def test_all_that_lies_between_two_versions_is_one_comparison(made):
    edited(made, {"name": "Bea", "description": "One"})
    edited(made, {"config": {"steps": ["a"]}}, TOOL, "tools")
    edited(made, {"name": "Ada", "shareLinks": [link(LINK, allowedOrigins=["https://b"])]})
    found = asked(made, since=1, until=3)
    assert happened(found) == ["persona 2 updated", "tool 2 updated", "persona 3 updated"]
    assert [path for path, _, _ in fields(found)] == [
        "description",
        f"shareLinks[{LINK}].allowedOrigins",
        f"tools[{TOOL}].config.steps",
    ]


def test_without_a_start_it_is_what_changed_last_by_the_end(made):
    edited(made, {"name": "Bea"})
    edited(made, {"displayName": "Luce"}, VOICE, "voices")
    between = made.now()
    edited(made, {"name": "Cleo"})
    assert fields(asked(made, until=between)) == [("voice.displayName", "Lucy", "Luce")]
    assert fields(asked(made, until=2)) == [("name", "Ada", "Bea")]
    assert fields(asked(made, since=between)) == [("name", "Bea", "Cleo")]
    assert [path for path, _, _ in fields(asked(made, since=1))] == ["name", "voice.displayName"]


def test_a_moment_is_the_first_of_the_version_that_began_then(made):
    edited(made, {"name": "Bea"})
    began = made.versions(PERSONA)[1]["valid_from"]
    assert asked(made, since=began - JUST, until=began).comparisons != []
    assert asked(made, since=began, until=began).comparisons == []
    assert asked(made, until=began - JUST).after.version == 1


@pytest.mark.every_server
def test_where_nothing_changed_it_is_as_first_seen_and_asking_leaves_no_trace(made):
    before = made.stamps()
    found = asked(made)
    assert made.stamps() == before
    assert (found.comparisons, found.events) == ([], [])
    assert found.before.at == found.first_seen_at
    assert (found.before.version, found.after.version) == (1, 1)


def test_there_and_back_again_is_no_difference(made):
    edited(made, {"name": "Bea"})
    edited(made, {"name": "Ada"})
    found = asked(made, since=1)
    assert found.comparisons == []
    assert happened(found) == ["persona 2 updated", "persona 3 updated"]


def test_a_removal_is_told_and_what_came_back_is_compared_with_what_was_shown_last(made):
    edited(made, {"name": "Bea"})
    made.world.delete(PERSONA)
    made.sync(EVERYBODY)
    gone = asked(made)
    assert (happened(gone), gone.after.state) == (["persona 3 removed"], "removed")
    assert (gone.after.version, gone.after.shown_version, gone.comparisons) == (3, 2, [])
    # This it did not show.
    edited(made, {"displayName": "Luce"}, VOICE, "voices")
    assert happened(asked(made)) == ["persona 3 removed"]
    assert asked(made, since=3).comparisons == []
    made.world.restore(PERSONA)
    edited(made, {"name": "Cleo"})
    found = asked(made)
    assert happened(found) == ["persona 4 restored"]
    assert (found.before.state, found.after.state) == ("removed", "live")
    assert fields(found) == [("name", "Bea", "Cleo"), ("voice.displayName", "Lucy", "Luce")]
    assert [path for path, _, _ in fields(asked(made, since=1, until=3))] == ["name"]


def test_before_it_was_seen_there_is_nothing_to_compare(made):
    long_ago = made.now() - timedelta(days=9)
    found = asked(made, since=long_ago)
    assert (found.before.state, found.after.state, found.comparisons) == ("unseen", "live", [])
    assert happened(found) == ["persona 1 created"]
    assert asked(made, until=long_ago).after.state == "unseen"


def test_a_shape_that_moved_is_not_an_edit(made):
    made.world.reshape(lambda persona: {**persona, "mood": "fine"})
    made.sync()
    found = asked(made)
    assert happened(found) == ["persona 2 reshaped"]
    assert [comparison.is_reshaped for comparison in found.comparisons] == [True]


def test_what_was_pruned_is_not_kept(made):
    for name in ("Bea", "Cleo", "Dora"):
        edited(made, {"name": name, "voiceSpeed": 1.5})
    first, _, third, _ = made.versions(PERSONA)
    before = asked(made)
    pruned(made, Keep(history_versions=2))
    assert asked(made).comparisons == before.comparisons
    assert fields(asked(made)) == [("name", "Cleo", "Dora")]
    for since in (1, 2, first["valid_from"]):
        found = asked(made, since=since, until=3)
        assert (found.before.state, found.comparisons) == ("pruned", [])
        assert found.kept_since == third["valid_from"]
    assert asked(made, until=2).after.state == "pruned"
    assert asked(made, since=first["valid_from"] - JUST).before.state == "unseen"


def test_a_shared_thing_whose_history_was_pruned_is_named(made):
    edited(made, {"displayName": "Luce"}, VOICE, "voices")
    pruned(made)
    (comparison,) = asked(made, since=1).comparisons
    assert (comparison.kind, comparison.is_kept, comparison.changes) == ("voice", False, [])
    assert comparison.name == "Luce"


@pytest.mark.every_server
def test_observations_that_no_version_tells_of_are_counted(made):
    assert asked(made).unfolded == 0
    made.query("INSERT INTO unfolded (kind, entity_id) VALUES ('voice', %s)", [UUID(VOICE)])
    made.query("INSERT INTO unfolded (kind, entity_id) VALUES ('voice', %s)", [UUID(PERSONA)])
    made.is_corrupted = True
    assert asked(made).unfolded == 1


def test_what_is_not_known_is_an_error_that_says_what_is(made):
    edited(made, {"name": "Bea"})
    settings = load_settings(made.environment(), cwd=made.folder)
    with pytest.raises(UsageError, match=f"nothing is known of persona {VOICE}"):
        diff(settings, UUID(VOICE), url=made.url)
    made.query("INSERT INTO unfolded (kind, entity_id) VALUES ('persona', %s)", [UUID(VOICE)])
    with pytest.raises(UsageError, match=r"as yet; a load from files has not folded 1 document"):
        diff(settings, UUID(VOICE), url=made.url)
    for version in (0, 3):
        with pytest.raises(UsageError, match=f"has no version {version}: its last is 2"):
            asked(made, until=version)
    with pytest.raises(UsageError, match="later than --to"):
        asked(made, since=2, until=1)
    with pytest.raises(UsageError, match="later than now"):
        asked(made, since=made.now() + timedelta(days=1))


@pytest.mark.every_server
def test_a_report_s_reader_is_told_that_it_may_not(made, plain_role):
    url, grant = plain_role
    for statement in reader_grants("anam", "THE_ROLE"):
        grant(statement.replace('"THE_ROLE"', "{role}"))
    settings = load_settings(made.environment(), cwd=made.folder)
    with pytest.raises(DatabaseError, match=r"may not read document_versions, documents, unfolded"):
        diff(settings, UUID(PERSONA), url=url)
