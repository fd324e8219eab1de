"""A column made for what came first, and then what it can't hold: told, and widened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from etl.sandbox import Reshape
from tests.db.shape_story import ShapeStory

if TYPE_CHECKING:
    from collections.abc import Iterator

AN_ID = "0f6b1c52-7a1e-4a55-9c0d-2f1f3f0c8b11"


@pytest.fixture
def story(copying) -> Iterator[ShapeStory]:
    with copying(count=0) as target:
        made = ShapeStory(target)
        yield made
        made.engine.dispose()


def show(story: ShapeStory, value: Any) -> Any:
    """Serves it in the place of the last one, and copies it."""
    story.world.reshape(Reshape(add={"mood": value}))
    return story.sync(None, strict=False, rehearsed=True)


def follow(story: ShapeStory) -> None:
    story.propose(None)
    story.migrate(None)
    story.replay()


def columns(story: ShapeStory) -> dict[str, str]:
    return {line["column_name"]: line["type"] for line in story.lines()}


OUTGROWN = [
    (1, 1.5, "number with a fraction", ("mood_number", "double precision")),
    (AN_ID, "ws_3kTqzZ", "text", ("mood_text", "text")),
]


@pytest.mark.parametrize(("first", "then", "shape", "wider"), OUTGROWN)
def test_what_outgrows_a_column_is_told_once_and_offered_a_wider_one(
    story, first, then, shape, wider
):
    show(story, first)
    follow(story)
    summary = show(story, then)
    assert (summary.new_drift_paths, summary.value_issues) == (1, 4)
    assert story.foretold.new_drift_paths == 1
    told = story.target.row("drift_paths", problem="type_changed")
    assert (told["path"], told["shapes"], told["status"]) == ("mood", [shape], "open")
    follow(story)
    (first_column, *_), (name, type_) = columns(story).items()
    assert (name, type_) == wider
    assert story.target.row("drift_paths", problem="type_changed")["status"] == "mapped"
    (values,) = story.target.query(f"SELECT DISTINCT mood, {name} AS wider FROM personas")
    assert (values["mood"], values["wider"]) == (None, then)
    assert first_column == "mood"
    assert show(story, first).new_drift_paths == 0
    assert show(story, then).new_drift_paths == 0
    story.migrate(None)
    assert story.target.row("drift_paths", problem="type_changed")["status"] == "mapped"


def test_what_comes_between_proposal_and_migration_is_not_passed_over(story):
    show(story, 1)
    story.propose(None)
    assert show(story, "often").new_drift_paths == 0
    story.migrate(None)
    story.replay()
    told = story.target.row("drift_paths", problem="type_changed")
    assert (told["path"], told["json_types"], told["status"]) == ("mood", ["string"], "open")
    follow(story)
    assert columns(story) == {"mood": "bigint", "mood_text": "text"}
    assert story.target.row("drift_paths", problem="type_changed")["status"] == "mapped"


def test_nor_is_a_fraction(story):
    show(story, 1)
    story.propose(None)
    show(story, 1.5)
    story.migrate(None)
    story.replay()
    told = story.target.row("drift_paths", problem="type_changed")
    assert (told["json_types"], told["shapes"]) == (["number"], ["number with a fraction"])
    follow(story)
    assert columns(story) == {"mood": "bigint", "mood_number": "double precision"}


def test_a_documented_column_is_outgrown_alike(story):
    story.sync(None, strict=False, rehearsed=False)
    story.world.edit(story.voices[0], {"createdAt": "soon"}, "voices")
    summary = story.sync(None, strict=True, rehearsed=True)
    assert summary.exit_code == 7
    assert "voice: createdAt (other type: text)" in str(summary.error)
    follow(story)
    assert columns(story) == {"created_at_text": "text"}


LISTS = [
    ([1, 2], [1.5, None], {"persona_mood": "bigint", "persona_mood_number": "double precision"}),
    (["a"], [{"a": 1}], {"persona_mood": "text", "personas": "jsonb"}),
]


@pytest.mark.parametrize(("first", "then", "tables"), LISTS)
def test_a_list_that_is_outgrown_gets_a_second_one_or_a_column_for_the_whole(
    story, first, then, tables
):
    show(story, first)
    follow(story)
    assert show(story, then).new_drift_paths == 1
    follow(story)
    assert {line["table_name"]: line["type"] for line in story.lines()} == tables
    assert story.target.row("drift_paths", problem="type_changed")["status"] == "mapped"
    (line,) = (line for line in story.lines() if line["table_name"] != "persona_mood")
    if line["type"] == "jsonb":
        shown = story.target.query("SELECT DISTINCT mood_json AS value FROM personas")
        assert [row["value"] for row in shown] == [then]
    else:
        shown = story.target.query(
            f"SELECT value FROM {line['table_name']} WHERE persona_id = %s ORDER BY position",
            [story.personas[0]],
        )
        assert [row["value"] for row in shown] == then
    assert show(story, first).new_drift_paths == 0
    assert show(story, then).new_drift_paths == 0
    story.target.check_replay()


def test_an_id_that_is_none_has_no_wider_column(story):
    story.sync(None, strict=False, rehearsed=False)
    story.world.edit(story.personas[0], {"avatar": {"id": "liv"}})
    summary = story.sync(None, strict=True, rehearsed=True)
    assert (summary.exit_code, summary.value_issues) == (0, 1)
