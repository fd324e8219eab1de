"""Lines whose payload holds what they do not observe: the context, as an export writes it."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.db.test_backfill_files import comparable, day, edited, history, seen
from tests.db.test_export import elsewhere, exported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.db.conftest import Target

VOICE, TOOL = (str(uuid4()) for _ in range(2))
PERSONA: dict[str, Any] = {
    "id": str(uuid4()),
    "name": "One",
    "voice": {"id": VOICE, "displayName": "A", "updatedAt": "2026-01-01T00:00:00Z"},
    "tools": [{"id": TOOL, "name": "Search", "usageCount": 3}],
}
OWN = [f"persona {PERSONA['id']}"]


@pytest.fixture
def empty(copying) -> Iterator[Target]:
    with copying(count=0) as made:
        yield made


def test_what_only_stands_around_an_observation_is_known_from_there_if_from_nowhere_else(empty):
    summary = empty.load(
        seen(2, edited(PERSONA, name="Two"), observations=OWN),
        seen(3, edited(PERSONA, name="Three"), observations=OWN),
    )
    assert (summary.counts["created"], summary.counts["updated"]) == (1, 1)
    for entity in (VOICE, TOOL):
        assert history(empty, entity) == [("created", 2, None, [])]
    assert empty.row("tools")["usage_count"] == 3
    assert empty.row("voices")["updated_at"] == day(0)
    assert empty.rows("unfolded") == []


# The order is nothing to the server: the tests above send the same statements.
@pytest.mark.one_server
def test_in_whatever_order_lines_come_it_is_left_out_when_one_of_them_observes_it(
    empty, new_database, template
):
    lines = [
        seen(1, PERSONA),
        seen(2, edited(PERSONA, name="Two", voice__displayName="B"), observations=OWN),
        seen(3, edited(PERSONA, name="Three", tools=[]), observations=OWN),
    ]
    empty.load(*lines)
    expected = comparable(empty)
    assert len(expected["documents"]) == 5
    for order in [*permutations(lines)][1:]:
        with new_database(template) as url, elsewhere(empty, url) as other:
            # Each in a batch of its own.
            other.load(*(line for part in order for line in [part] * 1000))
            assert comparable(other) == expected


def test_a_part_of_an_export_can_be_loaded_alone(empty, new_database, template):
    empty.load(seen(1, PERSONA), seen(2, edited(PERSONA, name="Two"), observations=OWN))
    lines, _ = exported(empty, since=day(2))
    with new_database(template) as url, elsewhere(empty, url) as other:
        assert other.load(*lines).counts["created"] == 1
        assert history(other, VOICE) == [("created", 2, None, [])]


def test_what_stands_beside_payloads_alone_has_its_date(empty):
    tool, voice = ({"id": entity, "name": "Of nobody"} for entity in (TOOL, VOICE))
    beside = [
        {"kind": "tool", "entity_id": TOOL, "document": tool, "updated_at": day(0).isoformat()},
        {"kind": "voice", "entity_id": VOICE, "document": voice, "updated_at": None},
    ]
    empty.load(seen(1, {"id": PERSONA["id"], "name": "One"}, documents=beside))
    assert empty.row("tools")["updated_at"] == day(0)
    assert empty.row("voices")["updated_at"] is None
