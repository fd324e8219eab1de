"""Where the API moves: told once, counted, and decided about."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from etl.map import SHIPPED, Line, extended
from etl.sandbox import Fault
from etl.store.drift import MAX_NEW_MEMBERS, decide, drifts, settle
from etl.store.engine import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.db.conftest import Row, Target

# What is news is decided here, not there: other files send the same statements.
pytestmark = pytest.mark.one_server


def without(*path: str) -> Callable[[Any], Any]:
    """A reshaping that leaves a member out."""

    def reshape(payload: Any) -> Any:
        name, *rest = path
        if not rest:
            return {key: value for key, value in payload.items() if key != name}
        inner = payload[name]
        if isinstance(inner, list):
            return payload | {name: [without(*rest)(item) for item in inner]}
        return payload | {name: without(*rest)(inner)} if isinstance(inner, dict) else payload

    return reshape


def with_(**members: Any) -> Callable[[Any], Any]:
    return lambda payload: payload | members


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of the API since the last call."""
    lines = [r.getMessage() for r in caplog.records if "the API has moved" in r.getMessage()]
    caplog.clear()
    return lines


def found(target: Target, problem: str) -> dict[str, str]:
    """The paths with this problem, each with its status."""
    rows = target.rows("drift_paths", problem=problem)
    return {f"{row['kind']}: {row['path']}": row["status"] for row in rows}


def only(target: Target) -> Row:
    return target.row("drift_paths")


@pytest.fixture
def connection(target) -> Iterator[sa.Connection]:
    engine = make_engine(target.url, target.schema)
    with engine.connect() as opened:
        yield opened.execution_options(isolation_level="AUTOCOMMIT")
    engine.dispose()


@pytest.fixture
def settled(target):
    """What gives the differences the statuses that a map gives them."""

    def run(the_map=SHIPPED) -> None:
        engine = make_engine(target.url, target.schema)
        with engine.begin() as opened:
            settle(opened, the_map)
        engine.dispose()

    return run


@pytest.fixture(autouse=True)
def _every_line(caplog):
    caplog.set_level(logging.INFO)


def test_a_new_field_is_told_once_and_then_counted(target, caplog):
    target.world.reshape(with_(mood="calm"))
    assert target.sync().new_drift_paths == 1
    assert told(caplog) == ["the API has moved: persona: mood (new field); see `persona-etl drift`"]
    target.world.edit(target.world.persona_ids[0], {"name": "Ada"})
    assert target.sync().new_drift_paths == 0
    assert told(caplog) == []
    row = only(target)
    assert (row["json_types"], row["shapes"], row["occurrences"]) == (["string"], ["text"], 7)
    assert row["first_seen_at"] < row["last_seen_at"]


def test_further_types_and_shapes_of_a_new_field_are_added_quietly(target, caplog):
    target.world.reshape(with_(mood="calm"))
    target.sync()
    told(caplog)
    target.world.reshape(with_(mood={"today": "https://example.com"}))
    assert (target.sync().new_drift_paths, told(caplog)) == (0, [])
    row = only(target)
    assert (row["json_types"], row["shapes"]) == (["object", "string"], ["object", "text"])


def test_another_type_is_told_beside_its_value_issue(target, caplog):
    persona_id = target.world.persona_ids[0]
    target.world.edit(persona_id, {"skipGreeting": "fast"})
    summary = target.sync()
    assert (summary.value_issues, summary.new_drift_paths, summary.exit_code) == (1, 1, 0)
    assert "persona: skipGreeting (other type: string);" in told(caplog)[0]
    row = only(target)
    assert (row["problem"], row["json_types"], row["shapes"]) == (
        "type_changed",
        ["string"],
        ["text"],
    )
    assert target.persona(persona_id)["skip_greeting"] is None


def test_a_type_that_still_fits_is_told_all_the_same(target):
    persona_id = target.world.persona_ids[0]
    target.world.edit(persona_id, {"llmId": 12})
    summary = target.sync()
    assert (summary.value_issues, summary.new_drift_paths) == (0, 1)
    assert target.persona(persona_id)["llm_id"] == "12"


def test_an_observed_field_of_another_type_is_told_though_nothing_else_changed(target):
    tool = target.world.shared_ids("tools")[0]
    target.world.edit(tool, {"usageCount": "12"}, "tools", touch=False)
    assert target.sync().new_drift_paths == 1
    assert found(target, "type_changed") == {"tool: usageCount": "open"}


def test_a_copy_that_is_not_in_force_is_held_against_the_map_too(copying):
    with copying(count=2) as target:
        world, (first, late) = target.world, target.world.persona_ids
        avatar = world.shared_ids("avatars")[0]
        for persona_id in (first, late):
            world.edit(persona_id, {"avatar": avatar})
        payload = world.payload(late)
        world.set_payload(late, payload | {"avatar": payload["avatar"] | {"hue": 1}})
        world.edit(avatar, {"displayName": "Newest"}, "avatars")
        target.sync([first, late])
        (shown,) = target.query("SELECT display_name FROM avatars WHERE avatar_id = %s", [avatar])
        assert shown["display_name"] == "Newest"
        assert found(target, "unknown") == {"avatar: hue": "open"}


def edit_voice(target: Target, **members: Any) -> str:
    """Edits the voice of the first persona that has one."""
    payloads = map(target.world.payload, target.world.persona_ids)
    voice: str = next(p["voice"]["id"] for p in payloads if p["voice"])
    target.world.edit(voice, members, "voices")
    return voice


def test_a_new_value_of_a_small_set_is_told_with_the_value(target, caplog):
    voice = edit_voice(target, provider="ACME")
    assert target.sync().new_drift_paths == 1
    assert "voice: provider (new value: ACME);" in told(caplog)[0]
    edit_voice(target, provider="ACME", description="Other.")
    assert (target.sync().new_drift_paths, told(caplog)) == (0, [])
    edit_voice(target, provider="HUME")
    assert target.sync().new_drift_paths == 1
    assert "voice: provider (new value: HUME);" in told(caplog)[0]
    row = only(target)
    assert (row["new_members"], row["occurrences"]) == (["ACME", "HUME"], 3)
    (shown,) = target.query("SELECT provider FROM voices WHERE voice_id = %s", [voice])
    assert shown["provider"] == "HUME"


def test_what_the_first_run_of_a_target_meets_is_no_new_value(copying, caplog):
    with copying(count=6) as target:
        edit_voice(target, provider="ACME")
        assert target.sync().new_drift_paths == 0
        edit_voice(target, description="Other.")
        assert target.sync().new_drift_paths == 0
        assert target.rows("drift_paths") == []


def test_nor_is_what_is_met_after_a_first_run_that_broke_off(copying):
    with copying(count=6) as target:
        first, *others = target.world.persona_ids
        target.sync([first])
        target.query("UPDATE runs SET status = 'crashed'")
        for voice in target.world.shared_ids("voices"):
            target.world.edit(voice, {"provider": "ACME"}, "voices")
        assert target.sync([first, *others]).new_drift_paths == 0
        for voice in target.world.shared_ids("voices"):
            target.world.edit(voice, {"provider": "HUME"}, "voices")
        assert target.sync().new_drift_paths == 1


@pytest.mark.every_server
def test_a_kind_that_comes_later_is_learned_as_quietly(copying):
    with copying(count=2) as target:
        ids = target.world.persona_ids

        def give(persona_id: str, tool_type: str) -> Any:
            tool = {"id": str(uuid4()), "name": "new", "type": tool_type}
            target.world.edit(persona_id, {"tools": [tool]})
            return target.sync([persona_id]).new_drift_paths

        for persona_id in ids:
            target.world.edit(persona_id, {"tools": []})
        target.sync()
        assert give(ids[0], "MCP") == 0
        target.query("UPDATE runs SET status = 'crashed' WHERE requested = 1")
        assert give(ids[1], "A2A") == 0
        assert give(ids[1], "NEW") == 1


def test_a_value_of_long_ago_is_no_news(target):
    edit_voice(target, provider="ACME")
    target.sync()
    edit_voice(target, provider="CARTESIA")
    target.sync()
    target.query("DELETE FROM drift_paths")
    edit_voice(target, provider="ACME")
    assert target.sync().new_drift_paths == 0


@pytest.mark.every_server
def test_so_many_new_values_are_no_small_set_any_more(target):
    persona_id = target.world.persona_ids[0]

    def links(numbers: range) -> list[Row]:
        return [{"id": str(UUID(int=number)), "type": f"T{number:02}"} for number in numbers]

    target.world.edit(persona_id, {"shareLinks": links(range(MAX_NEW_MEMBERS + 5))})
    assert target.sync().new_drift_paths == 1
    assert only(target)["new_members"] == [f"T{n:02}" for n in range(MAX_NEW_MEMBERS)]
    target.world.edit(persona_id, {"shareLinks": links(range(90, 95))})
    assert target.sync().new_drift_paths == 0
    assert len(only(target)["new_members"]) == MAX_NEW_MEMBERS


def test_a_new_value_is_kept_cut(target):
    edit_voice(target, provider="x" * 5000)
    assert target.sync().new_drift_paths == 1
    assert only(target)["new_members"] == ["x" * 100]
    edit_voice(target, description="Other.")
    assert target.sync().new_drift_paths == 0


def test_a_field_that_vanishes_is_told_when_no_version_has_it_any_more(target, caplog):
    first, *others = target.world.persona_ids
    for persona_id in others:
        target.world.set_payload(persona_id, without("llmId")(target.world.payload(persona_id)))
        assert target.sync([persona_id]).new_drift_paths == 0
    target.world.set_payload(first, without("llmId")(target.world.payload(first)))
    assert target.sync().new_drift_paths == 1
    assert "persona: llmId (no longer sent);" in told(caplog)[0]
    row = only(target)
    assert row["problem"] == "missing"
    history = target.rows("document_versions", kind="persona")
    assert row["first_seen_at"] == min(version["valid_from"] for version in history)
    assert row["last_seen_at"] == max(v["valid_to"] for v in history if v["valid_to"])
    assert (target.sync().new_drift_paths, told(caplog)) == (0, [])


def test_a_field_that_comes_again_is_put_away_and_told_when_it_vanishes_again(target):
    for turn in range(2):
        target.world.reshape(without("llmId"))
        assert target.sync().new_drift_paths == 1, turn
        assert target.sync().new_drift_paths == 0
        assert found(target, "missing") == {"persona: llmId": "open"}
        target.world.reshape(None)
        assert target.sync().new_drift_paths == 0
        assert found(target, "missing") == {"persona: llmId": "mapped"}


def test_a_field_that_a_new_persona_brings_again_is_put_away(target):
    first, *others = target.world.persona_ids
    target.sync()
    with_field = target.world.payload(first)
    target.world.reshape(without("llmId"))
    target.sync()
    assert found(target, "missing") == {"persona: llmId": "open"}
    new = "00000000-0000-4000-8000-000000000009"
    target.world.reshape(None)
    for persona_id in (first, *others):
        bare = without("llmId")(target.world.payload(persona_id))
        target.world.set_payload(persona_id, bare)
    target.world.add({"name": "New", "id": new, "llmId": with_field["llmId"]})
    target.sync([new])
    assert found(target, "missing") == {"persona: llmId": "mapped"}


def test_of_an_object_that_vanishes_all_fields_vanish(target):
    target.world.reshape(without("brain"))
    assert target.sync().new_drift_paths == 2
    assert found(target, "missing") == {
        "persona: brain.personality": "open",
        "persona: brain.systemPrompt": "open",
    }


# One place is looked for as the other: the tests above send the same statements.
@pytest.mark.one_server
@pytest.mark.parametrize(
    ("path", "kind", "told_as"),
    [
        (("voice", "displayTags"), "voice", "displayTags[]"),
        (("avatar", "imageUrl"), "avatar", "imageUrl"),
        (("tools", "description"), "tool", "description"),
        (("shareLinks", "type"), "persona", "shareLinks[].type"),
        (("shareLinks", "allowedOrigins"), "persona", "shareLinks[].allowedOrigins[]"),
        (("avatar",), "persona", "avatar.id"),
    ],
)
def test_fields_vanish_wherever_they_stand(target, path, kind, told_as):
    target.world.reshape(without(*path))
    target.sync()
    assert found(target, "missing") == {f"{kind}: {told_as}": "open"}


def test_who_empties_an_object_makes_no_field_vanish(target):
    for persona_id in target.world.persona_ids:
        emptied: dict[str, Any] = {
            "shareLinks": [],
            "tools": [],
            "avatar": None,
            "primaryShareLink": None,
            "voiceDetectionOptions": None,
            "llmId": None,
        }
        target.world.edit(persona_id, emptied)
    assert target.sync().counts["updated"] == 6
    assert target.rows("drift_paths") == []


def test_the_options_of_another_voice_are_no_vanished_ones(copying):
    with copying(count=2) as target:
        one, other = target.world.persona_ids
        voices = target.world.shared_ids("voices")
        for persona_id in (one, other):
            options = {"stability": 0.5, "style": 0.1}
            edited = {"voice": voices[0], "voiceGenerationOptions": None}
            target.world.edit(persona_id, edited)
            target.world.edit(persona_id, {"voiceGenerationOptions": options})
        target.sync()
        for persona_id in (one, other):
            payload = target.world.payload(persona_id)
            other_voice = payload["voice"] | {"id": str(uuid4()), "provider": "CARTESIA"}
            edited = {"voice": other_voice, "voiceGenerationOptions": {"volume": 1}}
            target.world.set_payload(persona_id, payload | edited)
        target.sync()
        assert found(target, "missing") == {}
        for persona_id in (one, other):
            payload = target.world.payload(persona_id)
            edited = {"voiceGenerationOptions": {"speed": 1}}
            target.world.set_payload(persona_id, payload | edited)
        target.sync()
        assert found(target, "missing") == {"persona: voiceGenerationOptions.volume": "open"}


def test_removed_personas_make_no_field_vanish(target):
    for persona_id in target.world.persona_ids:
        target.world.delete(persona_id)
    target.sync(target.world.persona_ids or None)
    assert found(target, "missing") == {}


# The next look is like any other.
@pytest.mark.one_server
@pytest.mark.parametrize("ended", ["crashed", "interrupted", "failed"])
def test_what_a_run_that_broke_off_did_not_look_for_the_next_one_finds(target, ended):
    target.world.reshape(without("llmId"))
    assert target.sync().new_drift_paths == 1
    as_if_it_had_not_looked = "DELETE FROM drift_paths"
    target.query(as_if_it_had_not_looked)
    assert target.sync().new_drift_paths == 0
    target.query(f"UPDATE runs SET status = '{ended}' WHERE new_drift_paths = 1")
    target.query("DELETE FROM runs WHERE new_drift_paths = 0 AND created = 0")
    assert target.sync().new_drift_paths == 1
    assert found(target, "missing") == {"persona: llmId": "open"}


def test_all_four_are_told_in_one_line_and_fail_a_strict_run_once_all_is_loaded(target, caplog):
    edit_voice(target, provider="ACME")
    target.world.reshape(
        lambda payload: without("llmId")(payload) | {"mood": 1, "skipGreeting": "yes"}
    )
    summary = target.sync(strict=True)
    assert (summary.exit_code, summary.new_drift_paths) == (7, 4)
    assert summary.counts["updated"] == 6
    for novelty in (
        "persona: mood (new field)",
        "persona: skipGreeting (other type: string)",
        "voice: provider (new value: ACME)",
        "persona: llmId (no longer sent)",
    ):
        assert novelty in str(summary.error)
    assert len(told(caplog)) == 1
    assert target.sync(strict=True).exit_code == 0


def test_of_many_the_first_few_are_named(target, caplog):
    target.world.reshape(with_(**{f"new{number}": 1 for number in range(9)}))
    assert target.sync().new_drift_paths == 9
    (line,) = told(caplog)
    assert line.count("(new field)") == 5
    assert line.endswith(" and 4 more; see `persona-etl drift`")


def test_what_was_met_before_a_run_broke_off_is_told(target, caplog):
    first, *others = target.world.persona_ids
    target.world.reshape(with_(mood=1))
    target.sandbox.order(*(Fault(status=401, target=persona_id) for persona_id in others))
    assert target.sync([first], API__CONCURRENCY="1").exit_code == 0
    assert len(told(caplog)) == 1


@pytest.mark.parametrize("status", ["accepted", "ignored"])
def test_what_was_decided_about_is_not_told_again(target, connection, caplog, status):
    target.world.reshape(lambda payload: without("llmId")(payload) | {"mood": 1})
    edit_voice(target, provider="ACME")
    target.sync()
    told(caplog)
    keys = [("persona", "mood"), ("persona", "llmId"), ("voice", "provider"), ("voice", "no")]
    assert decide(connection, keys, status) == 3
    assert decide(connection, keys, status) == 0
    assert {drift.status for drift in drifts(connection)} == {status}
    target.world.edit(target.world.persona_ids[0], {"name": "Ada"})
    edit_voice(target, description="Other.")
    assert (target.sync().new_drift_paths, told(caplog)) == (0, [])
    edit_voice(target, provider="HUME")
    news = status == "accepted"
    assert target.sync().new_drift_paths == news
    expected = {"voice: provider": "open" if news else "ignored"}
    assert found(target, "new_value") == expected


def test_differences_are_listed_in_order(target, connection):
    edit_voice(target, provider="ACME", isZdr="no")
    target.world.reshape(with_(mood=1, art=2))
    target.sync()
    listed = drifts(connection)
    assert [(drift.kind, drift.path, drift.problem) for drift in listed] == [
        ("persona", "art", "unknown"),
        ("persona", "mood", "unknown"),
        ("voice", "isZdr", "type_changed"),
        ("voice", "provider", "new_value"),
    ]
    (provider,) = [drift for drift in listed if drift.path == "provider"]
    assert (provider.new_members, provider.status) == (("ACME",), "open")


MOOD = Line("persona", "mood", "personas", "mood", "text", ("string",), "How it feels.")


@contextmanager
def added(target: Target, line: Line) -> Iterator[None]:
    """A column that somebody added by hand."""
    target.query(f"ALTER TABLE {line.table} ADD COLUMN {line.column} {line.type}")
    target.query(
        "INSERT INTO local_columns (table_name, column_name, kind, path, type, json_types, comment,"
        " revision) VALUES (%s, %s, %s, %s, %s, %s, %s, 'local_0001')",
        [line.table, line.column, line.kind, line.path, line.type, [*line.json_types], "?"],
    )
    yield
    target.query("DELETE FROM local_columns")
    target.query(f"ALTER TABLE {line.table} DROP COLUMN {line.column}")


def test_a_local_column_is_part_of_the_map(target, settled):
    target.is_corrupted = True  # what the column holds goes with it
    with added(target, MOOD):
        target.world.reshape(with_(mood="calm"))
        assert target.sync().new_drift_paths == 0
        target.world.reshape(with_(mood=["calm"]))
        assert target.sync().new_drift_paths == 1
        assert found(target, "type_changed") == {"persona: mood": "open"}
        target.world.reshape(None)
        assert target.sync().new_drift_paths == 1
        assert found(target, "missing") == {"persona: mood": "open"}


def test_what_a_column_takes_now_is_settled_and_opened_again_without_it(target, settled, caplog):
    target.is_corrupted = True
    target.world.reshape(with_(mood="calm"))
    target.sync()
    settled()
    assert found(target, "unknown") == {"persona: mood": "open"}
    with added(target, MOOD):
        settled(extended((MOOD,)))
        assert found(target, "unknown") == {"persona: mood": "mapped"}
    settled()
    assert found(target, "unknown") == {"persona: mood": "open"}
    target.query("UPDATE drift_paths SET status = 'mapped'")
    told(caplog)
    target.world.edit(target.world.persona_ids[0], {"name": "Ada"})
    assert target.sync().new_drift_paths == 1
    assert found(target, "unknown") == {"persona: mood": "open"}
    assert len(told(caplog)) == 1


def test_another_type_is_settled_once_a_column_takes_it(target, settled):
    target.world.edit(target.world.persona_ids[0], {"skipGreeting": "fast"})
    target.sync()
    settled()
    assert found(target, "type_changed") == {"persona: skipGreeting": "open"}
    line = Line("persona", "skipGreeting", "personas", "greeting_name", "text", ("string",), "?")
    settled(extended((line,)))
    assert found(target, "type_changed") == {"persona: skipGreeting": "mapped"}


@pytest.mark.every_server
def test_unchanged_personas_cost_two_statements_a_run(target):
    target.sync()
    statements: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM drift_paths" in statement or "document" in statement:
            statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        target.sync()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert len(statements) == 2


def test_a_voice_that_nobody_uses_any_more_keeps_no_field_alive(target):
    world = target.world
    first, *others = world.persona_ids
    shown = next(p["voice"] for p in map(world.payload, others) if p["voice"])
    lone = world.add({"displayName": "Lone", "country": "de", "displayTags": []}, "voices")
    world.edit(first, {"voice": lone})
    target.sync()
    world.edit(first, {"voice": shown["id"]})
    world.reshape(without("voice", "country"))
    assert target.sync().new_drift_paths == 1
    assert found(target, "missing") == {"voice: country": "open"}
    world.reshape(lambda p: p if p["id"] == first else without("voice", "country")(p))
    world.edit(first, {"voice": lone})
    target.sync()
    assert found(target, "missing") == {"voice: country": "mapped"}
