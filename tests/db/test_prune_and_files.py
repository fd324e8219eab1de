"""Files that hold a pruned history, and files that are older than what is kept of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given

from etl.jobs.lines import LINES_A_BATCH
from etl.jobs.prune import Keep
from tests.db.story import Story
from tests.db.test_backfill_files import comparable, day, edited, gone, history, seen
from tests.db.test_export import assert_a_load_comes_to_the_same, elsewhere, exported
from tests.db.test_forget import forget_in
from tests.db.test_prune import pruned, pruned_stories, with_prunes
from tests.db.test_time_told_by_an_oracle import BACK, REPEATED, STALE
from tests.unit.strategies import properties

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.db.conftest import Target

# What lines tell is decided here, not there: other files send the same statements.
pytestmark = pytest.mark.one_server

VOICE = str(uuid4())


def persona(**members: Any) -> dict[str, Any]:
    return {"id": str(uuid4()), "name": "One"} | members


def voice(name: str, **members: Any) -> dict[str, Any]:
    return {"id": VOICE, "displayName": name} | members


@pytest.fixture
def empty(copying) -> Iterator[Target]:
    with copying(count=0) as made:
        yield made


# ── An export of a pruned history ────────────────────────────────────────────────────────────────


# Random stories are made of statements that other tests run on each server.
@pytest.mark.one_server
@properties(1)
@given(told=pruned_stories)
@example(told=with_prunes([*STALE, *REPEATED[1:], *BACK[1:]]))
def test_a_load_of_a_pruned_history_comes_to_the_same(copying, new_database, template, told):
    with (
        new_database(template) as url,
        new_database(template) as other_url,
        copying(count=0, url=url) as target,
    ):
        story = Story(target)
        for changes, run, keep in told:
            for name, *about in changes:
                getattr(story, name)(*about)
            story.run(**run)
            if keep is not None:
                pruned(target, keep)
        assert_a_load_comes_to_the_same(target, other_url)


def test_what_prune_had_to_leave_stands_beside_the_payload(empty, new_database, template):
    """Else a load would take it for what is older than all that is kept."""
    one, two = persona(voice=voice("A")), persona(voice=voice("A"))
    empty.load(seen(1, one), seen(2, two), seen(3, edited(two, voice__displayName="B")))
    pruned(empty)
    lines = [line for line in exported(empty)[0] if VOICE.encode() in line]
    assert sum(b'"pruned"' in line for line in lines) == 1
    assert sum(b'"documents"' in line for line in lines) == 1
    with new_database(template) as url:
        assert_a_load_comes_to_the_same(empty, url)


@pytest.mark.every_server
def test_once_more_it_changes_nothing_and_is_unchanged(empty):
    one = persona(voice=voice("A"))
    empty.load(seen(1, one), gone(2, one["id"]), seen(3, edited(one, voice=voice("B"))))
    pruned(empty)
    lines, _ = exported(empty)
    before = comparable(empty)
    summary = empty.load(*lines)
    assert {n: c for n, c in summary.counts.items() if c} == {
        "requested": len(lines),
        "unchanged": len(lines),
    }
    assert (summary.observations, summary.not_kept) == (0, 0)
    assert comparable(empty) == before


def test_who_knows_more_of_the_past_keeps_it(empty, new_database, template):
    one, two = persona(), persona()
    past = [seen(n, edited(p, name=f"of {n}")) for p in (one, two) for n in range(1, 5)]
    empty.load(*past)
    pruned(empty)
    lines, _ = exported(empty)
    with new_database(template) as url, elsewhere(empty, url) as other:
        other.load(*past[:4])
        other.load(*lines)
        assert other.changes(one["id"]) == ["created", "updated", "updated", "updated"]
        assert other.changes(two["id"]) == ["pruned", "updated"]
    with new_database(template) as url, elsewhere(empty, url) as other:
        other.load(*past)
        pruned(other, Keep(history_versions=3))
        before = comparable(other)
        other.load(*lines)
        assert comparable(other) == before


@pytest.mark.every_server
def test_a_beginning_goes_before_what_is_known_here(empty, new_database, template):
    """The other database came later: it has only what was observed since."""
    one = persona()
    past = [seen(n, edited(one, name=f"of {n}")) for n in range(1, 5)]
    empty.load(*past)
    pruned(empty)
    lines, _ = exported(empty)
    with new_database(template) as url, elsewhere(empty, url) as other:
        other.load(seen(5, edited(one, name="of 5")))
        summary = other.load(*lines)
        assert summary.counts["unchanged"] == 1
        assert history(other, one["id"]) == [
            ("pruned", 1, 4, []),
            ("updated", 4, 5, ["name"]),
            ("updated", 5, None, ["name"]),
        ]
        assert other.persona(one["id"])["first_seen_at"] == day(1)


def test_bad_ones_are_rejected_and_nothing_of_them_is_stored(empty):
    one = persona()
    empty.load(*(seen(n, edited(one, name=f"of {n}")) for n in (1, 2)))
    pruned(empty)
    line, *_ = exported(empty)[0]
    future = line.replace(b'"valid_to":"2026-01-03T', b'"valid_to":"2999-01-03T')
    summary = empty.load(line.replace(b'"persona"', b'"ghost"'), future)
    assert summary.counts["rejected"] == 2
    assert "no kind but avatar" in summary.rejected[0]
    assert "lies in the future" in summary.rejected[1]


@pytest.mark.every_server
def test_the_beginning_of_who_was_forgotten_stays_out_and_so_does_its_own_voice(
    empty, new_database, template
):
    # The voice is nobody else's.
    one, two = persona(voice=voice("A")), persona()
    empty.load(seen(1, one), seen(2, edited(one, name="Two", voice=voice("B"))))
    empty.load(seen(1, two), seen(2, edited(two, name="Two")))
    pruned(empty)
    lines, _ = exported(empty)
    with new_database(template) as url, elsewhere(empty, url) as other:
        other.load(seen(1, one))
        forget_in(other, one["id"])
        summary = other.load(*lines)
        (kept,) = other.rows("pruned_history")
        assert kept["entity_id"] == UUID(two["id"])
        assert other.versions(VOICE) == other.versions(one["id"]) == []
        assert summary.forgotten == 2
        other.load(*lines, unforget=True)
        assert other.changes(one["id"]) == ["pruned", "updated"]


# ── What is older than all that is kept ──────────────────────────────────────────────────────────


@pytest.fixture
def young(empty):
    """Pruned: kept since the third day."""
    one = persona(voice=voice("A"))
    lines = [
        seen(1, one),
        seen(2, edited(one, name="Two", voice=voice("B"))),
        seen(3, edited(one, name="Three", voice=voice("C"))),
    ]
    empty.load(*lines)
    pruned(empty)
    return empty, one, lines


def test_what_is_older_than_all_that_is_kept_is_not_stored(young):
    target, one, lines = young
    before = comparable(target)
    summary = target.load(
        *lines,
        seen(1.5, edited(one, name="Late", voice=voice("L"))),
        gone(1.7, one["id"]),
        seen(1.8, edited(one, name="Seen"), observations=[]),
        seen(1.9, edited(one, name="Own"), observations=[f"persona {one['id']}"]),
    )
    assert {n: c for n, c in summary.counts.items() if c} == {"requested": 7, "unchanged": 7}
    assert (summary.not_kept, summary.observations) == (6, 0)
    assert comparable(target) == before


def test_of_a_line_what_is_not_older_is_stored(young):
    """The voice is kept since the third day, the tool as long as anybody likes."""
    target, one, _ = young
    tool: dict[str, Any] = {"id": str(uuid4()), "name": "Search", "usageCount": 3}
    summary = target.load(seen(1.5, edited(one, tools=[tool])))
    assert (summary.not_kept, summary.observations) == (0, 1)
    assert history(target, tool["id"]) == [("created", 1.5, None, [])]
    assert target.row("tools")["usage_count"] == 3
    assert target.changes(VOICE) == ["pruned", "updated"]


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_what_comes_to_nothing_in_a_batch_is_stored_in_a_later_one(young, is_forgotten):
    target, one, _ = young
    again = voice("As long ago")
    other = persona(voice=voice("C"))
    target.load(seen(4, other))
    if is_forgotten:
        forget_in(target, one["id"])
    # As many as make a batch, of which none brings anything.
    old = seen(1.5, edited(one, name="Three", voice=again))
    summary = target.load(*[old] * LINES_A_BATCH, seen(5, edited(other, voice=again)))
    assert summary.counts["rejected"] == 0
    assert target.row("voices")["display_name"] == "As long ago"
