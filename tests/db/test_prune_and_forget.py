"""A persona that is forgotten after a prune: nothing of it is left in what stands for the past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from etl.jobs.prune import Keep
from tests.canaries import Canaries, leaks_in_database
from tests.db.test_backfill_files import day, edited, history, seen
from tests.db.test_forget import everything, forget_in
from tests.db.test_prune import pruned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.db.conftest import Target

GONE, STAYS, VOICE = (str(uuid4()) for _ in range(3))
LAST_TWO = Keep(history_versions=2)


@pytest.fixture
def empty(copying) -> Iterator[Target]:
    with copying(count=0) as made:
        yield made


def shows(persona_id: str, name: str, **members: Any) -> dict[str, Any]:
    """A persona with the voice, of this name."""
    voice = {"id": VOICE, "displayName": name, "displayTags": ["warm"], **members}
    return {"id": persona_id, "name": "One", "voice": voice}


def assert_it_is_gone(target: Target) -> None:
    target.check_replay()
    assert GONE not in everything(target)
    assert leaks_in_database(target.url) == []
    before = target.rows("document_versions")
    target.query("TRUNCATE document_versions")
    target.replay()
    assert target.rows("document_versions") == before


def test_what_came_first_of_what_is_kept_was_its_own(empty):
    say = Canaries()
    empty.load(
        seen(1, shows(STAYS, "A")),
        seen(2, shows(GONE, say(), displayTags=[say()], **{say("new{}"): 1})),
        seen(3, shows(STAYS, "C")),
        seen(4, edited(shows(STAYS, "C"), name="Two")),
    )
    pruned(empty, LAST_TWO)
    assert [(change, at) for change, at, *_ in history(empty, VOICE)] == [
        ("pruned", 1),
        ("updated", 2),
        ("updated", 3),
    ]
    assert leaks_in_database(empty.url)
    forget_in(empty, GONE)
    assert history(empty, VOICE) == [("pruned", 1, 3, []), ("updated", 3, None, [])]
    (past,) = empty.rows("pruned_history", kind="voice")
    kept = empty.versions(VOICE)[1]
    assert (past["valid_to"], past["next_content_hash"]) == (day(3), kept["content_hash"])
    assert_it_is_gone(empty)


def test_a_field_that_only_it_had_is_not_named_where_the_others_come_first(empty):
    say = Canaries()
    empty.load(
        seen(1, shows(GONE, say(), **{say("new{}"): 1}, gender="x")),
        seen(2, shows(STAYS, "B")),
        seen(3, edited(shows(STAYS, "B"), name="Two")),
    )
    pruned(empty)
    (_, _, _, paths) = history(empty, VOICE)[1]
    assert len(paths) == 3
    assert leaks_in_database(empty.url)
    forget_in(empty, GONE)
    assert history(empty, VOICE) == [
        ("pruned", 1, 2, []),
        ("updated", 2, None, ["displayName"]),
    ]
    assert_it_is_gone(empty)


def test_when_nothing_that_was_kept_is_left_what_prune_had_to_leave_is_all_there_is(empty):
    say = Canaries()
    empty.load(seen(1, shows(STAYS, "A")), seen(2, shows(GONE, say())))
    pruned(empty)
    assert [change for change, *_ in history(empty, VOICE)] == ["pruned", "updated"]
    forget_in(empty, GONE)
    assert history(empty, VOICE) == [("created", 1, None, [])]
    assert empty.rows("pruned_history") == []
    assert empty.row("voices")["display_name"] == "A"
    assert_it_is_gone(empty)


def test_its_own_beginning_goes_and_that_of_what_only_it_had(empty):
    say = Canaries()
    own = shows(GONE, say())
    empty.load(
        *(seen(n, edited(own, name=say(), voice__displayName=say())) for n in (1, 2, 3)),
        seen(4, {"id": STAYS, "name": "A"}),
        seen(5, {"id": STAYS, "name": "B"}),
    )
    pruned(empty)
    forget_in(empty, GONE)
    (past,) = empty.rows("pruned_history")
    assert past["entity_id"] == UUID(STAYS)
    assert empty.changes(STAYS) == ["pruned", "updated"]
    assert_it_is_gone(empty)


def test_what_others_are_known_by_stays_as_it_was(empty):
    """It had brought the same as they: that tells of nobody."""
    for nth, name in enumerate("ABC", start=1):
        empty.load(seen(nth, shows(STAYS, name)), seen(nth + 0.5, shows(GONE, name)))
    pruned(empty, LAST_TWO)
    before = empty.versions(VOICE)
    assert before[0]["change"] == "pruned"
    forget_in(empty, GONE)
    after = [{**row, "last_observed_at": None} for row in empty.versions(VOICE)]
    assert after == [{**row, "last_observed_at": None} for row in before]
    assert_it_is_gone(empty)
