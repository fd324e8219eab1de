"""A long history is asked through indexes: the plans, not the times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from etl.jobs.report_changes import change_days, happenings
from etl.store.engine import make_engine
from etl.store.pasts import keep_pasts
from etl.store.pruning import (
    Rule,
    candidates,
    delete_observations,
    delete_unused,
    foreseen,
    next_entities,
)
from tests.db.conftest import session

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.db.conftest import Row

PERSONAS, VERSIONS = 2000, 20

# Twenty versions a persona, an hour apart; three each of ten avatars, voices and tools. The nth of
# each kind is n seconds late.
FILL = """
    CREATE TEMPORARY TABLE versions AS
    SELECT kind, md5(kind || n)::uuid AS entity_id, version, made.valid_from,
           nullif(made.valid_to, 'infinity') AS valid_to,
           sha256(convert_to(kind || n || ' ' || version, 'UTF8')) AS content_hash,
           CASE kind WHEN 'persona' THEN jsonb_build_object(
               'name', 'Persona ' || n || ' at ' || version,
               'brain', jsonb_build_object('systemPrompt', (
                   SELECT string_agg(md5(n || ' ' || version / 3 || ' ' || line), ' ')
                   FROM generate_series(1, 10) AS line)),
               'avatar', jsonb_build_object('id', md5('avatar' || (n % 10 + 1))::uuid),
               'voice', jsonb_build_object('id', md5('voice' || (n % 10 + 1))::uuid),
               'tools', jsonb_build_array(
                   jsonb_build_object('id', md5('tool' || (n % 10 + 1))::uuid)))
           ELSE jsonb_build_object('displayName', kind || n || ' at ' || version)
           END AS document
      FROM (VALUES ('persona', {personas}, {versions}, interval '1 hour'),
                   ('avatar', 10, 3, interval '6 hours'), ('voice', 10, 3, interval '6 hours'),
                   ('tool', 10, 3, interval '6 hours'))
           AS each (kind, entities, versions, length),
           generate_series(1, entities) AS n, generate_series(1, versions) AS version,
           LATERAL (SELECT timestamptz '2026-01-01 00:00Z' + n * interval '1 second' AS first) AS _,
           LATERAL (SELECT first + (version - 1) * length AS valid_from,
                           CASE WHEN version < versions THEN first + version * length
                                ELSE 'infinity' END AS valid_to) AS made;
    INSERT INTO documents (kind, content_hash, entity_id, document)
    SELECT kind, content_hash, entity_id, document FROM versions;
    INSERT INTO observations (kind, entity_id, observed_at, persona_id, content_hash)
    SELECT kind, entity_id, valid_from, entity_id, content_hash FROM versions;
    INSERT INTO document_versions (kind, entity_id, version, valid_from, valid_to,
                                   last_observed_at, content_hash, change, changed_paths)
    SELECT kind, entity_id, version, valid_from, valid_to, valid_from + interval '30 minutes',
           content_hash, CASE version WHEN 1 THEN 'created' ELSE 'updated' END,
           CASE version WHEN 1 THEN '{{}}'::text[] ELSE '{{name}}' END
      FROM versions;
    INSERT INTO avatars (avatar_id) SELECT DISTINCT entity_id FROM versions WHERE kind = 'avatar';
    INSERT INTO voices (voice_id) SELECT DISTINCT entity_id FROM versions WHERE kind = 'voice';
    INSERT INTO tools (tool_id) SELECT DISTINCT entity_id FROM versions WHERE kind = 'tool';
    INSERT INTO personas (persona_id, avatar_id, voice_id)
    SELECT entity_id, (document #>> '{{avatar,id}}')::uuid, (document #>> '{{voice,id}}')::uuid
      FROM versions WHERE kind = 'persona' AND valid_to IS NULL;
    INSERT INTO persona_tools (persona_id, tool_id, position)
    SELECT entity_id, (document #>> '{{tools,0,id}}')::uuid, 0
      FROM versions WHERE kind = 'persona' AND valid_to IS NULL;
    INSERT INTO brains (persona_id) SELECT persona_id FROM personas;
    INSERT INTO persona_sync_state (persona_id, last_attempt_at, last_success_at, last_outcome,
                                    consecutive_failures, last_run_id)
    SELECT persona_id, '2026-01-02', '2026-01-02', 'unchanged', 0, gen_random_uuid() FROM personas;
    DROP TABLE versions;
    ANALYZE;
"""


@pytest.fixture(scope="module")
def filled_url(new_database, template) -> Iterator[str]:
    with new_database(template) as url, session(url, "anam") as admin:
        admin.execute(FILL.format(personas=PERSONAS, versions=VERSIONS).encode())
        yield url


@pytest.fixture(scope="module")
def filled(filled_url) -> Iterator[psycopg.Connection[Row]]:
    with session(filled_url, "anam") as admin:
        yield admin


def nodes_of(filled: psycopg.Connection[Row], query: str) -> list[Row]:
    """The plan of a query, node by node."""
    (row,) = filled.execute(f"EXPLAIN (FORMAT JSON) SELECT * FROM {query}".encode()).fetchall()
    ((plan,),) = row.values()
    return list(every_node(plan["Plan"]))


def every_node(plan: Row) -> Iterator[Row]:
    yield plan
    for below in plan.get("Plans", []):
        yield from every_node(below)


LONG = {"document_versions", "documents", "observations"}


def assert_by_index(nodes: list[Row]) -> None:
    read = {node["Relation Name"] for node in nodes if "Relation Name" in node}
    assert read >= {"document_versions", "documents"}
    scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    assert not scanned & LONG


@pytest.mark.parametrize(
    ("view", "kind", "versions"),
    [
        ("persona_history", "persona", VERSIONS),
        ("prompt_history", "persona", 7),
        ("avatar_history", "avatar", 3),
        ("voice_history", "voice", 3),
        ("tool_history", "tool", 3),
    ],
)
def test_the_history_of_one_is_found_by_indexes(filled, view, kind, versions):
    query = f"anam_reporting.{view} WHERE {kind}_id = md5('{kind}7')::uuid"
    assert len(filled.execute(f"SELECT FROM {query}").fetchall()) == versions
    assert_by_index(nodes_of(filled, query))


@pytest.mark.parametrize("moment", ["'2026-01-01 07:30Z'", "now()", "'infinity'"])
@pytest.mark.parametrize(
    ("where", "personas"), [("true", PERSONAS), ("persona_id = md5('persona7')::uuid", 1)]
)
def test_a_moment_is_found_by_indexes(filled, moment, where, personas):
    query = f"anam_reporting.personas_as_of({moment}) WHERE {where}"
    assert len(filled.execute(f"SELECT FROM {query}").fetchall()) == personas
    nodes = nodes_of(filled, query)
    assert_by_index(nodes)
    # It is part of the query that calls it, and whom that asks for is looked up first.
    assert "personas_as_of" not in {node.get("Function Name") for node in nodes}
    if personas == 1:
        rows = [node["Plan Rows"] for node in nodes if node.get("Relation Name") in LONG]
        assert max(rows) <= VERSIONS


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("kind = 'persona' AND entity_id = md5('persona7')::uuid", 19),
        ("kind = 'persona' AND entity_id = md5('persona7')::uuid AND path = 'name'", 19),
        ("kind = 'persona' AND entity_id = md5('persona7')::uuid AND version = 3", 1),
        ("entity_id = md5('persona7')::uuid", 19),
        ("changed_at BETWEEN '2026-01-01 09:00Z' AND '2026-01-01 09:01Z'", 60),
        ("kind = 'persona' AND changed_at > '2026-01-01 19:30Z'", 200),
        ("kind = 'persona' AND changed_at BETWEEN '2026-01-01 09:00Z' AND '2026-01-01 09:01Z'", 60),
    ],
)
def test_some_changes_are_found_by_indexes(filled, where, rows):
    query = f"anam_reporting.changes WHERE {where}"
    assert len(filled.execute(f"SELECT FROM {query}").fetchall()) == rows
    nodes = nodes_of(filled, query)
    assert_by_index(nodes)
    assert [node for node in nodes if node["Node Type"] == "Seq Scan"] == []


def test_only_the_columns_that_are_asked_for_are_taken_out_of_documents(filled):
    """Each document is unpacked once, and not at all for the times alone."""
    explain = "EXPLAIN (VERBOSE, FORMAT JSON) SELECT {} FROM anam_reporting.persona_history"
    outputs = {}
    for columns in ("valid_from, valid_to", "name, llm_id, extra"):
        (row,) = filled.execute(explain.format(columns).encode()).fetchall()
        ((plan,),) = row.values()
        results = [node for node in every_node(plan["Plan"]) if node["Node Type"] == "Result"]
        outputs[columns] = [node["Output"] for node in results]
    assert "||" not in str(outputs["valid_from, valid_to"])
    assert str(outputs["name, llm_id, extra"]).count("||") == 1


@pytest.mark.parametrize(
    "query",
    [
        "(SELECT count(*) FROM {} WHERE valid_from > '2026-01-01 19:30Z') AS _",
        "(SELECT change, unnest(changed_paths), last_observed_at FROM {}) AS _",
    ],
)
@pytest.mark.parametrize("view", ["persona_history", "voice_history"])
def test_what_shows_nothing_of_the_documents_reads_none(filled, view, query):
    nodes = nodes_of(filled, query.format(f"anam_reporting.{view}"))
    read = {node["Relation Name"] for node in nodes if "Relation Name" in node}
    assert "document_versions" in read
    assert "documents" not in read


def test_a_first_load_of_long_ago_is_told_without_going_through_what_came_since(filled_url):
    """Postgres itself counts what it fetches."""
    fetched = (
        "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'document_versions'"
    )
    with make_engine(filled_url, "anam_reporting").connect() as connection:
        connection.exec_driver_sql(
            "UPDATE anam.document_versions SET valid_from = valid_from - interval '9 days'"
            " WHERE kind = 'persona' AND version = 1"
        )
        since = datetime(2025, 12, 1, tzinfo=UTC)
        days = change_days(connection, since)
        created = [day for day in days if (day.kind, day.change) == ("persona", "created")]
        before = connection.exec_driver_sql(fetched).scalar_one()
        found = happenings(connection, since, created, listed=5)
        assert {one.version for one in found.first} == {1}
        assert connection.exec_driver_sql(fetched).scalar_one() - before < VERSIONS * 5
        connection.rollback()


@pytest.mark.parametrize(("kind", "kept", "gone"), [("persona", 3, 20 * 17), ("voice", 2, 10)])
def test_what_is_to_be_pruned_is_found_by_indexes(filled_url, kind, kept, gone):
    """A hundredth of all, as a batch of many is. Postgres itself counts what it scans."""
    with make_engine(filled_url, "anam").connect() as connection:
        ids = next_entities(connection, kind, None, 20)
        found = candidates(connection, kind, ids, Rule(None, kept), None)
        assert sum(one.versions for one in found) == gone
        kept_from = {one.entity_id: one.pruned.valid_to for one in found}
        assert foreseen(connection, kind, kept_from)[:2] == (gone, gone)
        keep_pasts(connection, kind, found)
        observed, contents = delete_observations(connection, kind, kept_from)
        # In the place of the fold, which takes the versions.
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql(f"DELETE FROM document_versions WHERE kind = '{kind}'")
        connection.exec_driver_sql("SET LOCAL enable_seqscan = on")
        assert (observed, delete_unused(connection, kind, contents)[0]) == (gone, gone)
        scanned = connection.exec_driver_sql(
            "SELECT relname FROM pg_stat_xact_user_tables WHERE seq_scan > 0"
        )
        assert LONG.isdisjoint(scanned.scalars())
        connection.rollback()
