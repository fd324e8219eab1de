"""From what drifted to what is proposed, out of what was really served."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from etl.flatten import flatten
from etl.jobs.proposing import propose
from etl.map import SHIPPED, Line, extended
from etl.payload.paths import member
from etl.proposal.inference import Inferred
from etl.proposal.model import Drift, Proposal, Refusal, Rename
from etl.proposal.naming import name_line
from etl.sandbox.reshape import Reshape
from etl.store.engine import make_engine

# How values are read on each server has test_stored_values; what is made of them is Python.
pytestmark = pytest.mark.one_server

SINCE = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOSTILE = 'mood\'; DROP TABLE personas; --""" %s {x} :y \\'


def drift(path, kind="persona", problem="unknown"):
    return Drift(kind, path, problem, ("string",), SINCE, SINCE, 1, "open")


@pytest.fixture
def ask(target):
    """What asks for proposals at what was copied, by drift or by the path of an unknown field."""

    def proposed(*found, the_map=SHIPPED, **options):
        engine = make_engine(target.url, target.schema)
        if the_map is not SHIPPED:
            engine = engine.execution_options(persona_etl_map=the_map)
        drifts = [drift(one) if isinstance(one, str) else one for one in found]
        with engine.connect() as connection:
            return propose(connection, drifts, **options)

    return proposed


def lines(proposals):
    assert all(isinstance(one, Proposal) for one in proposals), proposals
    return [one.line for one in proposals]


def reason(proposals):
    (refusal,) = proposals
    assert isinstance(refusal, Refusal), refusal
    assert "\n" not in refusal.reason
    return refusal.reason


def test_every_field_that_came_gets_a_line_of_its_type_and_keeps_its_values(target, ask):
    added: dict[str, Any] = {
        "moodGrade": 0.75,
        "languages": ["en", None, "en"],
        "limits": {"a": 1},
        "ownerId": "0f0f0f0f-0000-4000-8000-00000000000a",
        "reviewedAt": "2026-11-23T10:00:00.000Z",
        "brain.catchwords": ["a", "b"],
        "brain.isCalm": True,
        "primaryShareLink.note": "hello",
        "avatar.poses": [1, 2],
        "avatar.heightPixels": 720,
        HOSTILE: "x",
    }
    target.world.reshape(Reshape(add=added))
    target.sync()
    found = [
        Drift(row["kind"], row["path"], row["problem"], (), SINCE, SINCE, 1, "open")
        for row in target.rows("drift_paths")
    ]
    proposals = ask(*found)
    assert {(one.table, one.column, one.path): one.type for one in lines(proposals)} == {
        ("personas", "mood_grade", "moodGrade"): "double precision",
        ("persona_languages", "value", "languages[]"): "text",
        ("personas", "limits", "limits"): "jsonb",
        ("personas", "owner_id", "ownerId"): "uuid",
        ("personas", "reviewed_at", "reviewedAt"): "timestamptz",
        ("persona_brain_catchwords", "value", "brain.catchwords[]"): "text",
        ("brains", "is_calm", "brain.isCalm"): "boolean",
        ("personas", "primary_share_link_note", "primaryShareLink.note"): "text",
        ("avatar_poses", "value", "poses[]"): "bigint",
        ("avatars", "height_pixels", "heightPixels"): "bigint",
        ("personas", "mood_drop_table_personas_s_x_y", member("", HOSTILE)): "text",
    }
    the_map = extended(tuple(lines(proposals)))
    stored = target.query("SELECT * FROM documents WHERE document ? 'moodGrade'")
    for row in stored:
        rows = flatten("persona", row["entity_id"], row["document"], the_map=the_map).rows
        assert rows["personas"][0]["mood_grade"] == 0.75
        assert rows["personas"][0]["limits"] == {"a": 1}
        assert rows["personas"][0]["mood_drop_table_personas_s_x_y"] == "x"
        assert [one["value"] for one in rows["persona_languages"]] == ["en", None, "en"]
        assert [one["value"] for one in rows["persona_brain_catchwords"]] == ["a", "b"]
        assert rows["personas"][0]["extra"] is None
    assert len(stored) == 6
    (mood,) = (one for one in proposals if one.drift.path == "moodGrade")
    assert (mood.values, mood.renamed) == (6, None)
    assert mood.line.json_types == ("number",)
    assert mood.line.comment == "moodGrade, since 2026-11-23."


def test_values_that_are_no_longer_in_force_count_as_well(target, ask):
    id_ = target.world.persona_ids[0]
    for value in ("quite a text", 7, None):
        target.world.reshape(Reshape(add={"mood": value}))
        target.sync()
    (proposal,) = ask("mood")
    assert (proposal.line.type, proposal.line.json_types) == ("text", ("number", "string"))
    assert proposal.values == 12
    target.world.delete(id_)


def test_a_field_that_is_null_wherever_it_came_waits(target, ask):
    target.world.reshape(Reshape(add={"mood": None, "moods": []}))
    target.sync()
    assert "only null so far" in reason(ask("mood"))
    assert "only null so far" in reason(ask("moods"))
    assert "only null so far" in reason(ask("neverCame"))


def test_a_renamed_field_says_what_it_was(target, ask):
    target.world.reshape(Reshape(rename={"voiceSpeed": "speechRate"}))
    target.sync()
    (proposal,) = ask("speechRate")
    assert proposal.renamed == Rename("voiceSpeed", "personas", "voice_speed", 6, 6)
    assert proposal.line.comment == "speechRate, since 2026-11-23. Formerly voiceSpeed, it seems."


def test_of_several_with_its_values_one_alone_is_what_a_field_was_renamed_to(target, ask):
    for id_ in target.world.persona_ids:
        target.world.edit(id_, {"skipGreeting": False})
    target.sync()
    flags = dict.fromkeys(("bargeInYy", "isPinnedYy", "recordSessionsYy"), False)
    target.world.reshape(Reshape(rename={"skipGreeting": "greetingSkippedYy"}, add=flags))
    target.sync()
    barge_in, greeting_skipped, *others = ask("bargeInYy", "greetingSkippedYy", *list(flags)[1:])
    assert greeting_skipped.renamed.path == "skipGreeting"
    assert "skipGreeting" in greeting_skipped.line.comment
    assert [one.renamed for one in (barge_in, *others)] == [None, None, None]
    assert "skipGreeting" not in barge_in.line.comment


def test_names_collide_neither_with_each_other_nor_with_what_waits(target, ask):
    target.world.reshape(Reshape(add={"moodGrade": 1, "mood_grade": 2, "tags": ["a"], "Tags": [1]}))
    target.sync()
    waiting = Line("persona", "elsewhere", "personas", "mood_grade", "text", (), "It.")
    found = lines(ask("moodGrade", "mood_grade", "tags", "Tags", pending=[waiting]))
    assert [(one.table, one.column) for one in found] == [
        ("personas", "persona_mood_grade"),
        ("personas", "mood_grade_2"),
        ("persona_tags", "value"),
        ("persona_tags_2", "value"),
    ]
    assert extended((waiting, *found))


def test_what_somebody_has_made_by_hand_keeps_its_name(target, ask):
    target.query("ALTER TABLE personas ADD mood text; CREATE TABLE persona_tags ()")
    target.world.reshape(Reshape(add={"mood": "x", "tags": ["a"]}))
    target.sync()
    assert [(one.table, one.column) for one in lines(ask("mood", "tags"))] == [
        ("personas", "persona_mood"),
        ("persona_tags_2", "value"),
    ]
    assert "mood is taken" in reason(ask("mood", name="mood"))


def test_what_is_proposed_already_is_not_proposed_again(target, ask):
    target.world.reshape(Reshape(add={"mood": "x", "tags": ["a"]}))
    target.sync()
    waiting = lines(ask("mood", "tags"))
    for path in ("mood", "tags", "tags[]"):
        assert "waits for `persona-etl migrate`" in reason(ask(path, pending=waiting))
        assert "persona-etl backfill replay" in reason(ask(path, the_map=extended(tuple(waiting))))
    again = ask("mood", "mood")
    assert isinstance(again[0], Proposal)
    assert "migrate" in again[1].reason


def test_a_name_can_be_given_for_one_field_alone(target, ask):
    target.world.reshape(Reshape(add={"настроение": "x", "tags": ["a"], "mood": 1}))
    target.sync()
    path = member("", "настроение")
    assert "--name NAME" in reason(ask(path))
    (proposal,) = ask(path, name="mood")
    assert proposal.line.column == "mood"
    assert proposal.line.comment == "[?], since 2026-11-23."
    assert lines(ask("tags", name="labels"))[0].table == "labels"
    assert "avatars" in reason(ask("tags", name="avatars"))
    first, second = ask(path, "mood", name="mood")
    assert isinstance(first, Proposal)
    assert "is taken" in second.reason


def test_keys_that_are_data_get_no_column(target, ask):
    target.world.reshape(Reshape(add={"brain.00000000-0000-4000-8000-000000000001": 7}))
    target.sync()
    (row,) = target.rows("drift_paths")
    assert row["path"] == "brain.*"
    assert "keys are data" in reason(ask(row["path"], name="given"))


def test_a_retyped_field_gets_a_second_column_and_keeps_its_first(target, ask):
    late = target.world.persona_ids[0]
    target.world.edit(late, {"skipGreeting": "late"})
    target.sync()
    found = drift("skipGreeting", problem="type_changed")
    (proposal,) = ask(found)
    line = proposal.line
    assert (line.table, line.column, line.type) == ("personas", "skip_greeting_text", "text")
    assert (line.path, line.json_types) == ("skipGreeting", ("boolean", "string"))
    assert line.comment == "skipGreeting as text, since 2026-11-23."
    assert proposal.beside == "skip_greeting"
    the_map = extended((line,))
    for row in target.query("SELECT * FROM documents WHERE kind = 'persona'"):
        (persona,) = flatten("persona", row["entity_id"], row["document"], the_map=the_map).rows[
            "personas"
        ]
        skips = row["document"]["skipGreeting"]
        assert persona["skip_greeting_text"] == ("late" if skips == "late" else str(skips).lower())
        assert persona["skip_greeting"] == (None if skips == "late" else skips)
    assert "takes all that came" in reason(ask(found, the_map=the_map))
    assert "migrate" in reason(ask(found, pending=[line]))


def test_the_second_column_holds_all_that_ever_came(target, ask):
    added = {
        "voiceSpeed": [1],
        "brain.systemPrompt": {"text": "x"},
        "skipGreeting": "after 5 seconds",
        "createdAt": 1_774_000_000,
    }
    target.world.reshape(Reshape(add=added))
    target.sync()
    found = lines(ask(*(drift(path, problem="type_changed") for path in added)))
    assert [(line.path, line.column, line.type) for line in found] == [
        ("voiceSpeed", "voice_speed_json", "jsonb"),
        ("brain.systemPrompt", "system_prompt_json", "jsonb"),
        ("skipGreeting", "skip_greeting_text", "text"),
        ("createdAt", "created_at_text", "text"),
    ]


NOTHING = (
    ("llmId", "persona", "missing", "personas.llm_id stays"),
    ("displayTags", "voice", "missing", "voice_display_tags.tag stays"),
    ("brain", "persona", "missing", "its table stays"),
    ("provider", "voice", "new_value", "voices.provider takes it"),
    ("llmId", "persona", "type_changed", "personas.llm_id takes all"),
    ("widgetConfig", "persona", "type_changed", "personas.widget_config takes all"),
    ("brain", "persona", "type_changed", "rows are made of it"),
    ("displayTags[]", "voice", "type_changed", "rows are made of it"),
    ("shareLinks[].id", "persona", "type_changed", "rows are made of it"),
    ("usageCount", "tool", "type_changed", "observed"),
)


def test_where_there_is_nothing_to_propose_it_says_why(ask):
    found = ask(*(drift(path, kind, problem) for path, kind, problem, _ in NOTHING))
    for (path, *_, words), refusal in zip(NOTHING, found, strict=True):
        told = reason([refusal])
        assert words in told, path
        assert len(told) <= 90


def test_what_postgres_reserves_anywhere_is_no_name(engine):
    inferred = Inferred("text", is_list=False, json_types=("string",), values=1)
    words = text("SELECT word FROM pg_get_keywords() WHERE catcode <> 'U'")
    with engine.connect() as connection:
        reserved = connection.execute(words).scalars().all()
    assert len(reserved) > 140
    for word in reserved:
        found = name_line("tool", word, inferred, "It.", SHIPPED)
        assert found.column == f"tool_{word}"
