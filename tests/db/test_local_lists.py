"""Lists that a target has of its own, through everything that befalls them: sync, replay, verify.

They stand wherever a list can: at the top, in a part, in an object without a table, in share links;
and in a shared thing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from etl.sandbox import World
from tests.db.local_lines import add_lines, line

if TYPE_CHECKING:
    from tests.db.conftest import Target

FIRST, SECOND = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))
LINK, OTHER, AVATAR = (f"00000000-0000-4000-8000-00000000000{n}" for n in "abc")
LINES = (
    line("persona", "languages[]", "persona_languages"),
    line("persona", "brain.levels[]", "persona_brain_levels", "bigint"),
    line("persona", "primaryShareLink.tags[]", "persona_primary_share_link_tags"),
    line("persona", "shareLinks[].captions[]", "share_link_captions"),
    line("avatar", "looks[]", "avatar_looks", "boolean"),
)
# What stands in all of them from step to step, and what each type makes of it.
STEPS: list[tuple[Any, list[Any], list[Any], list[Any]]] = [
    (["b", "1", "true"], ["b", "1", "true"], [None, 1, None], [None, None, True]),
    (["true", "b", "1"], ["true", "b", "1"], [None, None, 1], [True, None, None]),
    (["1"], ["1"], [1], [None]),
    (["1", "1", None, "1"], ["1", "1", None, "1"], [1, 1, None, 1], [None] * 4),
    ([[1], {"a": 1}, 2.5, False], [None, None, "2.5", "false"], [None] * 4, [None] * 3 + [False]),
    ("1", [], [], []),
    (["x"], ["x"], [None], [None]),
    ([], [], [], []),
    (None, [], [], []),
    ([True], ["true"], [None], [True]),
    ("absent", [], [], []),
]


def persona(persona_id: str, value: Any) -> dict[str, Any]:
    """A persona with this in each list, or without any."""

    def listed(name: str) -> dict[str, Any]:
        return {} if value == "absent" else {name: value}

    return {
        "id": persona_id,
        **listed("languages"),
        "brain": {"systemPrompt": "Be kind.", **listed("levels")},
        "primaryShareLink": {"token": "t", **listed("tags")},
        "shareLinks": [{"id": LINK, "token": "t", "usageCount": 1, **listed("captions")}],
        "avatar": {"id": AVATAR, **listed("looks")},
    }


def values(target: Target, table: str) -> list[Any]:
    """The list's elements by its rows, which are numbered from 0 for each owner."""
    rows = target.query(f"SELECT * FROM {table} ORDER BY 1, position")
    places: dict[Any, int] = {}
    for row in rows:
        owner = next(iter(row.values()))
        assert row["position"] == places.get(owner, 0)
        places[owner] = row["position"] + 1
    return [row["value"] for row in rows]


@pytest.fixture
def listing(copying):
    """A target with lists of its own, and nobody there yet."""
    with copying(World()) as target:
        add_lines(target.url, *LINES)
        yield target


def test_a_list_follows_whatever_the_api_shows(listing):
    for value, texts, numbers, booleans in STEPS:
        listing.world.set_payload(FIRST, persona(FIRST, value))
        assert listing.sync([FIRST]).exit_code == 0
        assert values(listing, "persona_languages") == texts
        assert values(listing, "persona_brain_levels") == numbers
        assert values(listing, "persona_primary_share_link_tags") == texts
        assert values(listing, "share_link_captions") == texts
        assert values(listing, "avatar_looks") == booleans
        listing.check_replay()
    assert listing.verify([FIRST]).exit_code == 0
    # All of that is what the histories tell, too.
    past = listing.query("SELECT * FROM anam_reporting.persona_history ORDER BY version")
    lists = [step[1] if isinstance(step[0], list) else None for step in STEPS]
    seen = [row["languages"] for row in past]
    assert seen == [row["primary_share_link_tags"] for row in past] == lists
    assert [row["brain_levels"] for row in past][:4] == [step[2] for step in STEPS[:4]]
    looks = listing.query("SELECT looks FROM anam_reporting.avatar_history ORDER BY version")
    assert looks[4]["looks"] == [None, None, None, False]


@pytest.mark.parametrize("value", [["de", "fr"], [], "absent"])
def test_a_list_that_was_copied_before_its_table_is_filled_by_a_replay(copying, value):
    world = World()
    with copying(world) as target:
        world.set_payload(FIRST, persona(FIRST, ["old", None]))
        target.sync([FIRST])
        world.set_payload(FIRST, persona(FIRST, value))
        target.sync([FIRST])
        add_lines(target.url, *LINES)
        # The past is there at once, the present with the replay.
        past = target.query("SELECT languages FROM anam_reporting.persona_history ORDER BY version")
        expected = value if isinstance(value, list) else None
        assert [row["languages"] for row in past] == [["old", None], expected]
        target.replay()
        (today,) = target.query("SELECT languages FROM anam_reporting.personas")
        assert today["languages"] == expected
        assert values(target, "share_link_captions") == (expected or [])


def test_the_labels_of_a_link_move_with_it(copying):
    world = World()
    for persona_id in (FIRST, SECOND):
        world.add({"id": persona_id, "shareLinks": []})

    def show(persona_id: str, *links: dict[str, Any]) -> None:
        world.edit(persona_id, {"shareLinks": [{"token": link["id"], **link} for link in links]})
        target.sync([persona_id])

    def labels(link: str = LINK) -> list[str]:
        rows = target.query(
            "SELECT value FROM share_link_captions WHERE share_link_id = %s ORDER BY position",
            [UUID(link)],
        )
        target.check_replay()
        return [row["value"] for row in rows]

    with copying(world) as target:
        add_lines(target.url, *LINES)
        show(FIRST, {"id": LINK, "captions": ["a", "b", "a"]}, {"id": OTHER, "captions": ["o"]})
        assert (labels(), labels(OTHER)) == (["a", "b", "a"], ["o"])
        show(SECOND, {"id": LINK, "captions": ["c"]})
        assert (labels(), labels(OTHER)) == (["c"], ["o"])
        show(SECOND)
        assert labels() == ["a", "b", "a"]
        show(SECOND, {"id": LINK})
        assert labels() == []
        world.delete(SECOND)
        target.sync([FIRST, SECOND], allow_mass_removal=True)
        assert labels() == ["a", "b", "a"]
        world.restore(SECOND)
        target.sync([FIRST, SECOND])
        assert labels() == []
        show(FIRST, {"id": LINK, "captions": ["d", "e"]})
        assert (labels(), labels(OTHER)) == (["d", "e"], [])
        assert target.verify().exit_code == 0


def test_a_removed_persona_keeps_its_lists_as_they_last_were(listing):
    def today() -> Any:
        (row,) = listing.query("SELECT languages, brain_levels FROM anam_reporting.personas")
        return tuple(row.values())

    for value, shown in ((["de"], (["de"], [None])), ([], ([], []))):
        listing.world.set_payload(FIRST, persona(FIRST, value))
        listing.sync([FIRST])
        assert today() == shown
        listing.world.set_payload(FIRST, None)
        listing.sync([FIRST])
        assert today() == shown
        gone = "SELECT languages FROM anam_reporting.persona_history WHERE change = 'removed'"
        assert {row["languages"] for row in listing.query(gone)} == {None}
        listing.check_replay()


def test_a_new_shape_of_every_persona_fills_its_list(target):
    add_lines(target.url, *LINES)
    target.world.reshape(lambda payload: payload | {"languages": [payload["name"], None]})
    summary = target.sync()
    assert summary.counts["reshaped"] == 6
    rows = target.query("SELECT name, languages FROM anam_reporting.personas")
    assert len(rows) == 6
    assert all(row["languages"] == [row["name"], None] for row in rows)
    assert target.verify().exit_code == 0
