"""What the reporting views show."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from psycopg.types.json import Json

from etl import tables
from etl.report.catalogue import all_views
from etl.sandbox import Fault
from tests.db.odd_documents import nothing_fits

if TYPE_CHECKING:
    from tests.db.conftest import Row, Target


def shown(target: Target, view: str, **where: object) -> list[Row]:
    """The rows of a view that have these values."""
    conditions = " AND ".join(f"{name} = %s" for name in where) or "true"
    query = f"SELECT * FROM anam_reporting.{view} WHERE {conditions}"
    return target.query(query, list(where.values()))


def persona(target: Target, persona_id: str) -> Row:
    (found,) = shown(target, "personas", persona_id=UUID(persona_id))
    return found


def test_a_persona_is_one_wide_row(target):
    for row in target.rows("personas"):
        seen = persona(target, str(row["persona_id"]))
        assert {name: seen[name] for name in row} == row
        brain = target.row("brains", persona_id=row["persona_id"])
        for name in ("personality", "system_prompt"):
            assert seen[name] == brain[name]
        if row["avatar_id"]:
            avatar = target.row("avatars", avatar_id=row["avatar_id"])
            assert seen["avatar_name"] == avatar["display_name"]
        if row["voice_id"]:
            voice = target.row("voices", voice_id=row["voice_id"])
            assert seen["voice_name"] == voice["display_name"]
            assert seen["voice_provider"] == voice["provider"]
        for count, table in {
            "tool_count": "persona_tools",
            "knowledge_group_count": "persona_knowledge_groups",
            "share_link_count": "share_links",
        }.items():
            assert seen[count] == len(target.rows(table, persona_id=row["persona_id"]))
    counts = ("tool_count", "knowledge_group_count", "share_link_count")
    rows = shown(target, "personas")
    assert len(rows) == 6
    # Otherwise the sandbox has nothing to count, and the test proves nothing.
    assert all(any(row[count] for row in rows) for count in counts)


@pytest.mark.parametrize("view", all_views(), ids=lambda view: view.name)
def test_a_view_has_the_columns_and_comments_that_it_declares(target, view):
    columns = """
        SELECT attname, col_description(attrelid, attnum) AS comment FROM pg_attribute
        WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum
    """
    found = target.query(columns, [f"anam_reporting.{view.name}"])
    assert [(row["attname"], row["comment"]) for row in found] == list(view.columns.items())


def test_the_views_carry_every_column_of_personas_and_runs_with_the_map_s_words():
    views = {view.name: view for view in all_views()}
    for table in (tables.personas, tables.runs):
        comments = {column.name: column.comment for column in table.columns}
        assert comments.items() <= views[table.name].columns.items()


def test_a_confirmation_makes_a_persona_fresh_and_a_failure_does_not(target):
    one, *_ = target.world.persona_ids
    created = persona(target, one)
    (version,) = target.versions(one)
    assert created["last_observed_at"] == version["last_observed_at"]
    assert created["last_outcome"] == "created"
    target.sync([one])
    confirmed = persona(target, one)
    assert confirmed["last_observed_at"] == target.state(one)["last_success_at"]
    assert confirmed["last_observed_at"] > created["last_observed_at"]
    assert confirmed["last_outcome"] == "unchanged"
    target.sandbox.order(Fault(status=403, target=one))
    target.sync([one])
    failed = persona(target, one)
    assert failed["last_observed_at"] == confirmed["last_observed_at"]
    assert failed["last_attempt_at"] > confirmed["last_attempt_at"]
    assert failed["last_outcome"] == "forbidden"


def test_a_removed_persona_stays_and_says_so(target):
    ids = target.world.persona_ids
    gone = ids[0]
    target.world.delete(gone)
    target.sync(ids)
    row = persona(target, gone)
    assert row["removed_at"] == target.persona(gone)["removed_at"] is not None
    assert row["name"] is not None
    assert row["last_observed_at"] == target.versions(gone)[-1]["last_observed_at"]
    (fresh,) = shown(target, "freshness", persona_id=UUID(gone))
    assert (fresh["is_live"], fresh["last_outcome"]) == (False, "missing")
    assert fresh["removed_at"] == row["removed_at"]


def test_freshness_has_a_row_for_whoever_was_asked_for(target):
    never_seen = "00000000-0000-4000-8000-0000000000ff"
    target.sync([*target.world.persona_ids, never_seen])
    rows = {str(row["persona_id"]): row for row in shown(target, "freshness")}
    assert rows.keys() == {*target.world.persona_ids, never_seen}
    unseen = rows.pop(never_seen)
    assert (unseen["name"], unseen["is_live"], unseen["last_outcome"]) == (None, False, "missing")
    assert unseen["age"] is unseen["last_success_at"] is unseen["last_observed_at"] is None
    for persona_id, row in rows.items():
        state = target.state(persona_id)
        assert {name: state[name] for name in state.keys() & row.keys()} == {
            name: row[name] for name in state.keys() & row.keys()
        }
        assert row["is_live"]
        assert row["name"] == target.persona(persona_id)["name"]
        assert timedelta(0) <= row["age"] < timedelta(minutes=5)


def test_freshness_has_a_row_for_whom_only_files_tell_of(target):
    loaded, *_ = ids = target.world.persona_ids
    (before,) = shown(target, "freshness", persona_id=UUID(loaded))
    target.query("DELETE FROM persona_sync_state WHERE persona_id = %s", [loaded])
    assert {str(row["persona_id"]) for row in shown(target, "freshness")} == set(ids)
    (row,) = shown(target, "freshness", persona_id=UUID(loaded))
    known = {"persona_id", "name", "is_live", "removed_at", "last_observed_at"}
    assert {name: before[name] for name in known - {"last_observed_at"}} == {
        name: row[name] for name in known - {"last_observed_at"}
    }
    assert row["last_observed_at"] == target.versions(loaded)[-1]["last_observed_at"]
    assert {name for name, value in row.items() if value is not None} == known - {"removed_at"}


def test_a_run_says_how_long_it_took_once_it_is_over(target):
    (run,) = shown(target, "runs")
    (row,) = target.rows("runs")
    assert {name: run[name] for name in row} == row
    took = (run["finished_at"] - run["started_at"]).total_seconds()
    assert float(run["duration_seconds"]) == pytest.approx(took)
    target.query("UPDATE runs SET status = 'running', finished_at = NULL")
    assert shown(target, "runs")[0]["duration_seconds"] is None


def test_one_bad_value_fails_no_view(target):
    target.world.edit(target.world.persona_ids[0], {"name": "Edited", "unheardOf": 1})
    target.sync()
    target.is_corrupted = True
    odd = Json({"a": [None, {"b": "\U0001f600"}]})
    target.query("UPDATE personas SET extra = %s, widget_config = %s", [odd, odd])
    target.query(
        "UPDATE personas SET voice_speed = 'NaN', avatar_id = NULL, updated_at = '-infinity'"
    )
    target.query(
        "UPDATE share_links SET expires_at = 'infinity', usage_limit = -9223372036854775807"
    )
    target.query("UPDATE runs SET finished_at = 'infinity'")
    target.query("UPDATE persona_sync_state SET last_success_at = '-infinity'")
    nothing_fits(target)
    for view in all_views():
        # Not `SELECT *`: Python has no infinite moments.
        rows = target.query(f"SELECT v::text AS row FROM anam_reporting.{view.name} AS v")
        assert rows


def test_our_views_do_not_stand_on_one_another(target):
    found = target.query("""
        SELECT rule.ev_class::regclass::text AS upper, stands.refobjid::regclass::text AS lower
        FROM pg_depend AS stands JOIN pg_rewrite AS rule ON rule.oid = stands.objid
             JOIN pg_class AS lower ON lower.oid = stands.refobjid
        WHERE stands.refclassid = 'pg_class'::regclass AND lower.relkind = 'v'
          AND lower.relnamespace = 'anam_reporting'::regnamespace
          AND rule.ev_class <> lower.oid
    """)
    assert found == []


FILL = """
    INSERT INTO personas (persona_id, name)
    SELECT gen_random_uuid(), 'Persona ' || n FROM generate_series(1, 3000) AS n;
    INSERT INTO brains (persona_id) SELECT persona_id FROM personas ON CONFLICT DO NOTHING;
    INSERT INTO voice_detection_options (persona_id) SELECT persona_id FROM personas
    ON CONFLICT DO NOTHING;
    INSERT INTO voice_generation_options (persona_id) SELECT persona_id FROM personas
    ON CONFLICT DO NOTHING;
    INSERT INTO tools (tool_id, name) SELECT gen_random_uuid(), n FROM generate_series(1, 10) AS n;
    INSERT INTO persona_tools (persona_id, tool_id)
    SELECT persona_id, tool_id FROM personas, tools ON CONFLICT DO NOTHING;
    INSERT INTO share_links (share_link_id, persona_id)
    SELECT gen_random_uuid(), persona_id FROM personas;
    INSERT INTO knowledge_groups (knowledge_group_id) VALUES (gen_random_uuid());
    INSERT INTO persona_knowledge_groups (persona_id, knowledge_group_id)
    SELECT persona_id, knowledge_group_id FROM personas, knowledge_groups ON CONFLICT DO NOTHING;
    INSERT INTO persona_sync_state (persona_id, last_attempt_at, last_outcome,
                                    consecutive_failures, last_run_id)
    SELECT persona_id, now(), 'unchanged', 0, gen_random_uuid() FROM personas
    ON CONFLICT DO NOTHING;
    INSERT INTO document_versions (kind, entity_id, version, valid_from, last_observed_at,
                                   content_hash, change, changed_paths)
    SELECT 'persona', persona_id, 1, now(), now(), NULL, 'removed', '{}' FROM personas
    ON CONFLICT DO NOTHING;
    INSERT INTO runs (run_id, command, status, started_at, host, pid, version)
    SELECT gen_random_uuid(), 'sync', 'succeeded', now(), '', 1, '' FROM generate_series(1, 3000);
    INSERT INTO run_items (run_id, persona_id, outcome, attempts, duration_ms)
    SELECT run_id, gen_random_uuid(), 'created', 1, 1 FROM runs;
    ANALYZE;
"""


@pytest.mark.parametrize(
    ("view", "key"),
    [("personas", "persona_id"), ("freshness", "persona_id"), ("runs", "run_id")],
)
def test_one_row_of_a_view_is_found_by_indexes_alone(target, view, key):
    target.is_corrupted = True
    target.admin.execute(FILL)
    (wanted,) = target.query(f"SELECT {key} FROM anam_reporting.{view} LIMIT 1")
    query = f"EXPLAIN (FORMAT JSON) SELECT * FROM anam_reporting.{view} WHERE {key} = %s"
    (explained,) = target.query(query, [wanted[key]])
    ((plan,),) = [explained.values()]
    nodes = list(every_node(plan[0]["Plan"]))
    read = {node["Relation Name"] for node in nodes if "Relation Name" in node}
    scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    # What fits on a page, as the few shared avatars and voices, is read as a whole.
    large = target.query("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > 1000")
    assert {"personas", "runs"} <= {row["relname"] for row in large}
    assert scanned.isdisjoint(row["relname"] for row in large)
    assert read >= {"runs"} or read >= {"personas", "persona_sync_state", "document_versions"}


def every_node(plan):
    yield plan
    for below in plan.get("Plans", []):
        yield from every_node(below)
