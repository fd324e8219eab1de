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


def test_what_a_run_did_to_whom_is_told_with_names_and_when(target):
    never_seen = "00000000-0000-4000-8000-0000000000ff"
    failing, edited, *_ = target.world.persona_ids
    target.sandbox.order(Fault(status=403, target=failing))
    target.world.edit(edited, {"name": "Edited"})
    summary = target.sync([failing, edited, never_seen])
    rows = {str(row["persona_id"]): row for row in shown(target, "run_items", command="sync")
            if row["run_id"] == summary.run_id}  # fmt: skip
    told = {key: (row["name"], row["outcome"], row["http_status"]) for key, row in rows.items()}
    assert told == {
        failing: (target.persona(failing)["name"], "forbidden", 403),
        edited: ("Edited", "updated", 200),
        never_seen: (None, "missing", 404),
    }
    (run,) = target.rows("runs", run_id=summary.run_id)
    assert {row["started_at"] for row in rows.values()} == {run["started_at"]}
    for item in target.rows("run_items", run_id=summary.run_id):
        assert item.items() <= rows[str(item["persona_id"])].items()


def test_what_did_not_fit_is_told_with_the_name_that_is_kept(target):
    ids = odd, *_ = target.world.persona_ids
    target.world.edit(odd, {"name": "Odd", "voiceSpeed": "fast"})
    shared = next(row for row in target.rows("tools"))
    target.sync(ids)
    target.query("""
        INSERT INTO value_issues (kind, entity_id, path, problem, first_seen_at, last_seen_at)
        VALUES ('tool', %s, 'type', 'odd', now(), now()),
               ('avatar', gen_random_uuid(), 'x', 'odd', now(), now()),
               ('unheard of', gen_random_uuid(), 'x', 'odd', now(), now())
    """, [shared["tool_id"]])  # fmt: skip
    target.world.delete(odd)
    target.sync(ids)
    rows = shown(target, "value_issues")
    names = {(row["kind"], row["path"]): row["name"] for row in rows}
    # Gone, and yet one knows whose value that was.
    assert names["persona", "voiceSpeed"] == "Odd"
    assert names["tool", "type"] == shared["name"]
    assert names["avatar", "x"] is names["unheard of", "x"] is None
    for issue in target.rows("value_issues"):
        assert [row for row in rows if issue.items() <= row.items()] != []
    target.query("DELETE FROM value_issues WHERE problem = 'odd'")


def test_an_answer_that_is_no_persona_is_told_without_what_it_held(target):
    one, *_ = target.world.persona_ids
    target.sandbox.order(Fault(body=["secret"], target=one))
    target.sync([one])
    (row,) = shown(target, "rejected_payloads")
    (stored,) = target.rows("rejected_payloads")
    assert row == {name: value for name, value in stored.items() if name != "body"}
    assert "secret" not in str(row)


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
    target.query("UPDATE tools SET usage_count = 9223372036854775807, config = %s", [odd])
    target.query("UPDATE brains SET system_prompt = repeat(E'\\u263a\\u0001', 2000000)")
    target.query("UPDATE voice_generation_options SET speed = 'infinity', stability = 'NaN'")
    target.query("UPDATE runs SET finished_at = 'infinity'")
    target.query("UPDATE persona_sync_state SET last_success_at = '-infinity'")
    nothing_fits(target)
    target.query("""
        INSERT INTO rejected_payloads (id, run_id, observed_at, reason, length)
        VALUES (gen_random_uuid(), gen_random_uuid(), 'infinity', '', 9223372036854775807)
    """)
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
