"""Whoever asks a view for one thing, or for a stretch of time, is answered through indexes.

The plans, not the times. What a page or two hold, as the few shared avatars and voices, is read as
a whole; the past has its own (`test_history_plans.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.db.conftest import session

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.db.conftest import Row

# The nth of each kind has an id made of kind and n; of shared things there are fewer.
FILL = """
    CREATE TEMPORARY TABLE made AS
    SELECT n, md5('persona' || n)::uuid AS persona_id, md5('avatar' || n % 1000)::uuid AS avatar_id,
           md5('voice' || n % 1000)::uuid AS voice_id, md5('tool' || n % 1000)::uuid AS tool_id,
           md5('knowledge_group' || n % 1000)::uuid AS knowledge_group_id,
           md5('run' || n)::uuid AS run_id,
           timestamptz '2026-01-01 00:00Z' + n * interval '1 minute' AS moment
      FROM generate_series(0, 4999) AS n;
    INSERT INTO avatars (avatar_id) SELECT DISTINCT avatar_id FROM made;
    INSERT INTO voices (voice_id, display_name)
    SELECT voice_id, 'Voice ' || n FROM made WHERE n < 1000;
    INSERT INTO tools (tool_id, name) SELECT tool_id, 'Tool ' || n FROM made WHERE n < 1000;
    INSERT INTO knowledge_groups (knowledge_group_id) SELECT DISTINCT knowledge_group_id FROM made;
    INSERT INTO personas (persona_id, name, avatar_id, voice_id, llm_id)
    SELECT persona_id, 'Persona ' || n, avatar_id, voice_id, 'llm ' || n % 1000 FROM made;
    INSERT INTO brains (persona_id, system_prompt) SELECT persona_id, repeat('p', 200) FROM made;
    INSERT INTO voice_detection_options (persona_id) SELECT persona_id FROM made;
    INSERT INTO voice_generation_options (persona_id) SELECT persona_id FROM made;
    INSERT INTO persona_tools (persona_id, tool_id) SELECT persona_id, tool_id FROM made;
    INSERT INTO persona_knowledge_groups (persona_id, knowledge_group_id)
    SELECT persona_id, knowledge_group_id FROM made;
    INSERT INTO share_links (share_link_id, persona_id)
    SELECT md5('link' || n)::uuid, persona_id FROM made;
    INSERT INTO share_link_allowed_origins (share_link_id, origin)
    SELECT md5('link' || n)::uuid, 'https://example.com' FROM made;
    INSERT INTO runs (run_id, command, status, started_at, host, pid, version)
    SELECT run_id, 'sync', 'succeeded', moment, '', 1, '' FROM made;
    INSERT INTO run_items (run_id, persona_id, outcome, attempts, duration_ms)
    SELECT run_id, persona_id, 'created', 1, 1 FROM made;
    INSERT INTO persona_sync_state (persona_id, last_attempt_at, last_success_at, last_outcome,
                                    consecutive_failures, last_run_id)
    SELECT persona_id, moment, moment, 'unchanged', 0, run_id FROM made;
    INSERT INTO documents (kind, content_hash, entity_id, document)
    SELECT 'persona', uuid_send(persona_id), persona_id, '{}'::jsonb FROM made
    UNION ALL SELECT 'tool', uuid_send(tool_id), tool_id, '{}' FROM made WHERE n < 1000;
    INSERT INTO document_versions (kind, entity_id, version, valid_from, last_observed_at,
                                   content_hash, change, changed_paths)
    SELECT kind, entity_id, 1, '2026-01-01', '2026-01-01', content_hash, 'created', '{}'
      FROM documents;
    INSERT INTO observations (kind, entity_id, observed_at, persona_id, content_hash)
    SELECT 'tool', tool_id, moment, persona_id, uuid_send(tool_id) FROM made;
    INSERT INTO value_issues (kind, entity_id, path, problem, first_seen_at, last_seen_at)
    SELECT 'persona', persona_id, 'x', '', moment, moment FROM made;
    INSERT INTO rejected_payloads (id, persona_id, run_id, observed_at, reason, length)
    SELECT md5('rejected' || n)::uuid, persona_id, run_id, moment, '', 0 FROM made;
    DROP TABLE made;
    ANALYZE;
"""


@pytest.fixture(scope="module")
def filled(new_database, template) -> Iterator[psycopg.Connection[Row]]:
    with new_database(template) as url, session(url, "anam") as admin:
        admin.execute(FILL.encode())
        yield admin


def every_node(plan: Row) -> Iterator[Row]:
    yield plan
    for below in plan.get("Plans", []):
        yield from every_node(below)


PERSONA = "persona_id = md5('persona7')::uuid"
MOMENTS = "started_at BETWEEN '2026-01-02' AND '2026-01-02 00:03'"


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        (f"personas WHERE {PERSONA}", 1),
        ("personas WHERE avatar_id = md5('avatar7')::uuid", 5),
        ("personas WHERE voice_id = md5('voice7')::uuid", 5),
        ("personas WHERE voice_name = 'Voice 7'", 5),
        ("personas WHERE llm_id = 'llm 7'", 5),
        ("avatars WHERE avatar_id = md5('avatar7')::uuid", 1),
        ("tools WHERE tool_id = md5('tool7')::uuid", 1),
        (
            "knowledge_groups WHERE knowledge_group_id = md5('knowledge_group7')::uuid",
            1,
        ),
        (f"persona_tools WHERE {PERSONA}", 1),
        ("persona_tools WHERE tool_id = md5('tool7')::uuid", 5),
        ("persona_tools WHERE tool_name = 'Tool 7'", 5),
        (f"persona_knowledge_groups WHERE {PERSONA}", 1),
        (
            "persona_knowledge_groups WHERE knowledge_group_id = md5('knowledge_group7')::uuid",
            5,
        ),
        (f"share_links WHERE {PERSONA}", 1),
        ("share_links WHERE share_link_id = md5('link7')::uuid", 1),
        (f"voice_detection_options WHERE {PERSONA}", 1),
        (f"voice_generation_options WHERE {PERSONA}", 1),
        ("runs WHERE run_id = md5('run7')::uuid", 1),
        (f"runs WHERE {MOMENTS}", 4),
        ("run_items WHERE run_id = md5('run7')::uuid", 1),
        (f"run_items WHERE {PERSONA}", 1),
        (f"run_items WHERE {MOMENTS}", 4),
        ("value_issues WHERE kind = 'persona' AND entity_id = md5('persona7')::uuid", 1),
        (f"rejected_payloads WHERE {PERSONA}", 1),
        (f"freshness WHERE {PERSONA}", 1),
        ("(SELECT * FROM personas LIMIT 10) AS some_of_them", 10),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_one_thing_and_a_stretch_of_time_are_found_by_indexes(filled, query, rows):
    filled.execute("SET search_path TO anam_reporting")
    (explained,) = filled.execute(
        f"EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM {query}".encode()
    ).fetchall()
    ((plan,),) = explained.values()
    nodes = list(every_node(plan["Plan"]))
    assert plan["Plan"]["Actual Rows"] == rows
    large = filled.execute("SELECT relname FROM pg_class WHERE reltuples > 1000").fetchall()
    names = {row["relname"] for row in large}
    assert {"personas", "runs", "share_links", "persona_tools", "observations"} <= names
    # Not only is no table read as a whole, but of a LIMIT: no index is gone through either.
    read = {
        (node["Relation Name"], node["Node Type"]): sum(
            node.get(what, 0) * node["Actual Loops"]
            for what in ("Actual Rows", "Rows Removed by Filter")
        )
        for node in nodes
        if node.get("Relation Name") in names
    }
    assert {of: many for of, many in read.items() if many > 50} == {}


def test_a_shared_thing_is_not_looked_up_by_each_of_its_users(filled):
    """The latest that was asked for nearly always shows the very copy."""
    filled.execute("SET search_path TO anam_reporting")
    query = "SELECT last_observed_at FROM tools WHERE tool_id = md5('tool7')::uuid"
    (explained,) = filled.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}".encode()).fetchall()
    ((plan,),) = explained.values()
    looked_up = [
        node["Actual Loops"]
        for node in every_node(plan["Plan"])
        if node.get("Relation Name") == "observations"
    ]
    assert sum(looked_up) == 1
    # Its users have a copy each: 4007 is the last of them.
    (row,) = filled.execute(query.encode()).fetchall()
    assert row["last_observed_at"].isoformat() == "2026-01-03T18:47:00+00:00"
