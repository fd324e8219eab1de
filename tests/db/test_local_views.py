"""The views carry the lines that a target has of its own, and tell about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from etl import tables
from etl.errors import DatabaseError
from etl.jobs.migrate import migrate
from etl.map import SHIPPED, extended
from etl.report.catalogue import all_views
from etl.report.fields import fields
from etl.sandbox import World
from tests.db.local_lines import add_lines, drop_lines, line
from tests.db.revisions import catalog, change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.db.conftest import Row, Target

FIRST = "00000000-0000-4000-8000-000000000001"
AVATAR = "00000000-0000-4000-8000-00000000000a"
MOOD = line("persona", "mood", "personas", column="mood")


def names(kind: Any, *lines: Any) -> list[str]:
    return [field.name for field in fields(extended(lines) if lines else SHIPPED, kind)]


# ── What a field is called ───────────────────────────────────────────────────────────────────────


def test_options_bear_the_name_of_what_they_are_for():
    found = names("persona")
    assert found[:3] == ["name", "description", "persona_preset"]
    assert {"personality", "system_prompt", "extra"} <= set(found)
    assert "voice_detection_end_of_speech_sensitivity" in found
    assert {"voice_generation_stability", "voice_generation_model"} <= set(found)
    options = (*tables.voice_detection_options.c, *tables.voice_generation_options.c)
    assert sum(name.startswith(("voice_det", "voice_gen")) for name in found) == len(options) - 4
    assert "display_tags" in names("voice")
    assert "available_versions" in names("avatar")


def test_a_name_that_is_taken_is_given_with_the_table_s_before_it():
    lines = (
        line("persona", "mood", "personas", column="mood"),
        line("persona", "toolCount", "personas", column="tool_count"),
        line("persona", "moment", "personas", column="moment"),
        line("persona", "brain.mood", "brains", column="mood"),
        line("persona", "brain.name", "brains", column="name"),
        line("persona", "brain.keywords[]", "persona_brain_keywords"),
        line("persona", "languages", "personas", column="languages"),
        line("persona", "languages[]", "persona_languages"),
        line("avatar", "version", "avatars", column="version"),
    )
    found = names("persona", *lines)
    new = ["persona_tool_count", "persona_moment", "brain_mood", "brain_name", "brain_keywords"]
    assert {"mood", "languages", "persona_languages", *new} <= set(found)
    assert len(found) == len(set(found))
    assert "avatar_version" in names("avatar", *lines)
    long = line(
        "persona", "voiceGenerationOptions.long", "voice_generation_options", column="l" * 63
    )
    also = line(
        "persona", "voiceGenerationOptions.also", "voice_generation_options", column="l" * 62
    )
    lengths = [len(name) for name in names("persona", long, also)]
    assert max(lengths) <= 63
    assert len(set(names("persona", long, also))) == len(lengths)


def test_a_list_is_shown_under_a_name_that_needs_no_quotes():
    listed = {"select[]": "persona_select", '["0x"][]': "persona_0x", "tags[]": "persona_tags"}
    found = names("persona", *(line("persona", path, table) for path, table in listed.items()))
    assert {"persona_select", "persona_0x", "tags"} <= set(found)
    assert not {"select", "0x"} & set(found)


def test_a_field_of_any_name_is_told_of_now_and_then_alike(copying):
    world = World()
    lines = (
        *(line("persona", name, "personas", column=name) for name in ("order", "moment", "change")),
        line("persona", "brain.name", "brains", column="name"),
        line("avatar", "moment", "avatars", column="moment", type_="timestamptz"),
        line("avatar", "version", "avatars", column="version"),
        line("persona", "languages[]", "persona_languages"),
    )
    shown = {
        "id": FIRST,
        "order": "o",
        "moment": "m",
        "change": "c",
        "languages": ["l"],
        "brain": {"name": "n"},
        "avatar": {"id": AVATAR, "moment": "2026-01-01T00:00:00Z", "version": "2"},
        "voiceGenerationOptions": {"stability": 0.3},
    }
    with copying(world) as target:
        add_lines(target.url, *lines)
        world.set_payload(FIRST, shown)
        target.sync([FIRST])
        (row,) = target.query("SELECT * FROM anam_reporting.personas")
        (was,) = target.query("SELECT * FROM anam_reporting.personas_as_of(now())")
        (past,) = target.query("SELECT * FROM anam_reporting.persona_history")
        told = {
            "order": "o",
            "persona_moment": "m",
            "persona_change": "c",
            "brain_name": "n",
            "languages": ["l"],
            "voice_generation_stability": 0.3,
        }
        for found in (row, was, past):
            assert {name: found[name] for name in told} == told
        (face,) = target.query("SELECT * FROM anam_reporting.avatar_history")
        assert (face["avatar_version"], face["version"]) == ("2", 1)


# ── What a query costs ───────────────────────────────────────────────────────────────────────────


def read_by(target: Target, columns: str, source: str) -> set[str]:
    """The tables that a query reads."""
    explain = f"EXPLAIN (FORMAT JSON) SELECT {columns} FROM anam_reporting.{source}"
    (explained,) = target.query(explain)
    ((plan,),) = [explained.values()]

    def tables_in(node: Row) -> Iterator[str]:
        if "Relation Name" in node:
            yield node["Relation Name"]
        for below in node.get("Plans", []):
            yield from tables_in(below)

    return set(tables_in(plan[0]["Plan"]))


def test_what_is_not_asked_for_is_not_read(target):
    add_lines(target.url, MOOD, line("persona", "languages[]", "persona_languages"))
    # The version in force is looked up in any case: its index is a partial one.
    least = {"personas", "document_versions"}
    assert read_by(target, "name, mood", "personas") == least
    asked = "name, voice_generation_stability"
    assert read_by(target, asked, "personas") == {*least, "voice_generation_options"}
    assert read_by(target, "languages", "personas") == {*least, "persona_languages", "documents"}


# ── What was built on the views ──────────────────────────────────────────────────────────────────


def test_somebody_s_own_view_survives_a_line_and_stands_in_the_way_of_its_going(
    engine, database_url
):
    change(engine, "CREATE SCHEMA theirs")
    change(engine, "CREATE VIEW theirs.own AS SELECT * FROM anam_reporting.personas")
    before = catalog(engine, "theirs")
    lines = (MOOD, line("persona", "brain.mood", "brains", column="mood"))
    add_lines(database_url, *lines, line("persona", "languages[]", "persona_languages"))
    assert catalog(engine, "theirs") == before
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT * FROM anam_reporting.personas LIMIT 0"))
        assert list(found.keys())[-3:] == ["mood", "brain_mood", "languages"]
    with pytest.raises(sa.exc.DBAPIError, match="other objects depend on it"):
        drop_lines(database_url, MOOD)
    change(engine, "DELETE FROM local_columns WHERE table_name = 'personas'")
    with pytest.raises(DatabaseError, match=r"theirs\.own depends on .*personas; drop what is in"):
        migrate(engine, "anam")
    change(engine, "DROP VIEW theirs.own")
    migrate(engine, "anam")
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT * FROM anam_reporting.personas LIMIT 0"))
        assert "brain_mood" not in list(found.keys())


def test_what_was_built_on_the_function_is_named_when_that_gets_a_column(engine, database_url):
    change(engine, "CREATE SCHEMA theirs")
    change(engine, "CREATE VIEW theirs.own AS SELECT * FROM anam_reporting.personas_as_of(now())")
    with pytest.raises(
        DatabaseError, match=r"function anam_reporting\.personas_as_of.*theirs\.own"
    ):
        add_lines(database_url, MOOD)
    change(engine, "DROP VIEW theirs.own")
    migrate(engine, "anam")
    change(
        engine, "CREATE VIEW theirs.own AS SELECT mood FROM anam_reporting.personas_as_of(now())"
    )


# ── What is there, and where the API has moved ───────────────────────────────────────────────────


def dictionary(target: Target, **where: object) -> list[Row]:
    conditions = " AND ".join(f"{name} = %s" for name in where)
    query = f"SELECT * FROM anam_reporting.dictionary WHERE {conditions}"
    return target.query(query, list(where.values()))


def test_the_dictionary_has_each_column_once_as_the_database_has_it(target):
    lines = (MOOD, line("persona", "languages[]", "persona_languages", "bigint"))
    add_lines(target.url, *lines)
    the_map = extended(lines)
    rows = target.query("SELECT * FROM anam_reporting.dictionary")
    told = {(row["schema_name"], row["table_name"], row["column_name"]): row for row in rows}
    assert len(told) == len(rows)
    expected = {("anam", t.name, c.name) for t in the_map.projections() for c in t.columns}
    for view in all_views(the_map):
        expected |= {("anam_reporting", view.name, column) for column in view.columns}
    assert told.keys() == expected
    assert all(row["type"] for row in rows)
    assert [key for key, row in told.items() if not row["comment"]] == []
    assert all(row["no_longer_sent_since"] is None for row in rows)
    column = told["anam", "voices", "provider"]
    known = {"type": "text", "kind": "voice", "path": "provider", "is_observed": False}
    assert (
        column.items()
        >= {
            **known,
            "is_local": False,
            "comment": SHIPPED.tables["voices"].c.provider.comment,
        }.items()
    )
    assert told["anam", "tools", "usage_count"]["is_observed"]
    assert told["anam_reporting", "runs", "status"]["kind"] is None
    generation = told["anam_reporting", "persona_history", "voice_generation_speed"]
    assert generation["path"] == "voiceGenerationOptions.speed"
    local = {key[1:] for key, row in told.items() if row["is_local"]}
    assert local >= {("personas", "mood"), ("persona_languages", "value")}
    languages = {key[1]: row["type"] for key, row in told.items() if key[2] == "languages"}
    assert {languages[view] for view in ("personas", "persona_history")} == {"bigint[]"}


MISSING = """
    INSERT INTO drift_paths (kind, path, problem, json_types, first_seen_at, last_seen_at,
                             occurrences, status)
    VALUES ({}, 'missing', '{{string}}', '2026-01-01', '2026-04-01', 1, '{}')
"""


@pytest.mark.parametrize(
    ("kind_and_path", "status", "gone"),
    [
        ("'persona', 'llmId'", "open", {"llm_id"}),
        ("'persona', 'llmId'", "accepted", {"llm_id"}),
        ("'persona', 'llmId'", "mapped", set()),
        ("'persona', 'brain'", "open", {"personality", "system_prompt"}),
        ("'voice', 'displayTags'", "open", {"tag", "display_tags"}),
        ("'voice', 'displayTags[]'", "ignored", {"tag", "display_tags"}),
        ("'persona', 'mood'", "open", {"mood"}),
        ("'avatar', 'llmId'", "open", set()),
    ],
)
def test_the_dictionary_says_since_when_a_field_is_sent_no_more(
    database_url, engine, kind_and_path, status, gone
):
    add_lines(database_url, MOOD)
    change(engine, MISSING.format(kind_and_path, status))
    query = "SELECT * FROM anam_reporting.dictionary WHERE no_longer_sent_since IS NOT NULL"
    with engine.connect() as connection:
        rows = connection.execute(sa.text(query)).mappings().all()
    columns = {row["column_name"] for row in rows if not row["path"].startswith("brain.")}
    if "brain" in kind_and_path:
        # A checkout may have columns of its own of what is in there: they come no more either.
        assert {row["path"].partition(".")[0] for row in rows} == {"brain"}
        columns = {row["column_name"] for row in rows} & gone
    assert columns - {"extra"} == gone
    assert {row["no_longer_sent_since"].isoformat()[:10] for row in rows} <= {"2026-04-01"}


def test_drift_says_what_the_map_has_where_the_api_moved(target):
    lines = (MOOD, line("persona", "languages[]", "persona_languages"))
    add_lines(target.url, *lines)
    places = {
        ("persona", "unheard.of"): (None, None),
        ("persona", "mood"): ("personas", "mood"),
        ("persona", "avatar.id"): ("personas", "avatar_id"),
        ("persona", "brain"): ("brains", None),
        ("persona", "brain.systemPrompt"): ("brains", "system_prompt"),
        ("persona", "languages"): ("persona_languages", "value"),
        ("persona", "languages[]"): ("persona_languages", "value"),
        ("persona", "shareLinks[].usageLimit"): ("share_links", "usage_limit"),
        ("persona", "tools[]"): ("persona_tools", None),
        ("voice", "displayTags"): ("voice_display_tags", "tag"),
        ("voice", "mood"): (None, None),
    }
    target.query("DELETE FROM drift_paths")
    for kind, path in places:
        target.query(MISSING.format("%s, %s", "open"), [kind, path])
    rows = target.query("SELECT * FROM anam_reporting.drift")
    found = {(row["kind"], row["path"]): (row["table_name"], row["column_name"]) for row in rows}
    assert found == places
    assert len(rows) == len(places)
    assert {row["meaning"][:33] for row in rows} == {"The API sends this field no more;"}
    stored = target.query("SELECT * FROM drift_paths WHERE path = 'mood' AND kind = 'voice'")[0]
    shown = next(row for row in rows if (row["kind"], row["path"]) == ("voice", "mood"))
    assert shown.items() >= stored.items()


@pytest.mark.parametrize("problem", ["unknown", "missing", "type_changed", "new_value"])
def test_each_problem_has_its_words(engine, problem):
    change(engine, MISSING.replace("missing", problem).format("'voice', 'provider'", "open"))
    with engine.connect() as connection:
        (told,) = connection.execute(sa.text("SELECT meaning FROM anam_reporting.drift")).scalars()
    assert told
    change(engine, "UPDATE drift_paths SET status = 'mapped'")
    with engine.connect() as connection:
        (settled,) = connection.execute(
            sa.text("SELECT meaning FROM anam_reporting.drift")
        ).scalars()
    assert settled.startswith("Settled")
