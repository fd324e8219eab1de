"""A replay finds and mends whatever is not what history says, and touches nothing else."""

from __future__ import annotations

import gc
import itertools
import re
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import tuple_row
from sqlalchemy import BigInteger, Boolean, DateTime, Double, Integer, LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from etl.errors import DatabaseError, DiscrepancyError
from etl.jobs.grants import writer_grants
from etl.jobs.replay import replayed_tables
from etl.sandbox import running_sandbox
from etl.store.lock import WriterLock
from etl.tables import document_versions, documents, is_observed, metadata, origin, projections
from tests.db.conftest import LEDGER, Target, session
from tests.db.test_report_plans import every_node
from tests.torture.striking import ANSWER_LOST, KILLED, Strike, striking

if TYPE_CHECKING:
    from collections.abc import Iterator

# What the sandbox has something for. A list that came later is tested where lists are.
TABLES = [document_versions, *(t for t in projections() if origin(t).shape != "list")]
LINK = "00000000-0000-4000-8000-00000000000a"

# What to write in the place of a value, by its type.
OTHER = {
    ARRAY: "ARRAY['corrupted']",
    JSONB: "'[1.5]'",
    Boolean: "NOT coalesce({0}, false)",
    BigInteger: "coalesce({0}, 0) + 1000",
    Integer: "{0} + 1000",
    Double: "coalesce({0}, 0) + 0.5",
    DateTime: "coalesce({0}, '2020-01-01') + interval '1 second'",
    LargeBinary: "'\\xdead'",
    Text: "'corrupted'",
    sa.UUID: "gen_random_uuid()",
}
# Where that would be no value that could stand there.
SPECIAL = {
    "document_versions.kind": "CASE kind WHEN 'voice' THEN 'tool' ELSE 'voice' END",
    "document_versions.change": "CASE change WHEN 'updated' THEN 'reshaped' ELSE 'updated' END",
    "document_versions.content_hash": """(
        SELECT content_hash FROM documents AS d
         WHERE d.kind = document_versions.kind AND d.content_hash <> document_versions.content_hash
         LIMIT 1)""",
    "documents.kind": "CASE kind WHEN 'voice' THEN 'tool' ELSE 'voice' END",
    "share_link_allowed_origins.share_link_id": """(
        SELECT l.share_link_id FROM share_links AS l
         WHERE NOT EXISTS (SELECT FROM share_link_allowed_origins AS o
                            WHERE o.share_link_id = l.share_link_id) LIMIT 1)""",
}


def leave_unfolded(target: Target, persona_id: str) -> None:
    """As a load from files does that dies before it folds: here of a 404."""
    target.query(
        "INSERT INTO observations (kind, entity_id, observed_at, persona_id)"
        " VALUES ('persona', %s, clock_timestamp(), %s)",
        [UUID(persona_id)] * 2,
    )
    target.query("INSERT INTO unfolded (kind, entity_id) VALUES ('persona', %s)", [persona_id])
    # What it brought last is not what the API showed last.
    target.query(
        "UPDATE persona_sync_state SET body_sha256 = NULL, content_sha256 = NULL"
        " WHERE persona_id = %s",
        [persona_id],
    )


@pytest.fixture(scope="module")
def history(new_database, template, tmp_path_factory):
    """The name of a database with rows in every table, and a history with one of everything."""
    with new_database(template) as url:
        folder = tmp_path_factory.mktemp("history")
        with running_sandbox(count=12, seed=3, moving=False) as sandbox:
            with session(url, "anam") as admin:
                made = Target(url, sandbox, folder, "anam", admin)
                make_history(made)
                made.check_replay()
                assert [table.name for table in TABLES if not made.rows(table.name)] == []
            yield sa.make_url(url).database, sandbox


def make_history(target: Target) -> None:
    world, ids = target.world, target.world.persona_ids
    target.sync()
    for turn in range(3):
        world.edit(ids[0], {"name": f"Edited {turn % 2}", "voiceSpeed": "fast"})
        world.edit(ids[turn], {"brain": {"systemPrompt": f"Prompt {turn}"}})
        world.edit(world.payload(ids[1])["voice"]["id"], {"displayName": f"{turn}"}, "voices")
        target.sync()
    world.set_payload(ids[1], world.payload(ids[1]) | {"new": {"member": 1}})
    shown = [{"id": LINK, "type": "LINK", "token": "t", "allowedOrigins": ["https://a"]}]
    for persona_id in ids[2:5]:
        world.edit(persona_id, {"shareLinks": shown})
        target.sync([persona_id])
    target.sync()
    for persona_id in ids[4:7]:
        world.delete(persona_id)
    target.sync(allow_mass_removal=True)
    world.restore(ids[6])
    target.sync()


@pytest.fixture
def written(history, new_database, tmp_path):
    """A target with that history, which a test may spoil."""
    template, sandbox = history
    with new_database(template) as url, session(url, "anam") as admin:
        made = Target(url, sandbox, tmp_path, "anam", admin)
        # Constraints are not what is tested here: neither foreign keys nor their triggers.
        made.query("SET session_replication_role TO replica")
        yield made
        if not made.is_corrupted:
            made.check_replay()


def stable(target: Target) -> dict[str, list[dict[str, object]]]:
    """Every table but the ledger, without the columns that replay leaves alone."""
    return {
        name: [
            {c: v for c, v in row.items() if not is_observed(metadata.tables[name].columns[c])}
            for row in rows
        ]
        for name, rows in target.dump().items()
        if name not in LEDGER
    }


def corrupt(target: Target, column: sa.Column[object]) -> None:
    """Writes something else into a column of one row: the last by its key that has a value."""
    table = column.table
    other = next(value for type_, value in OTHER.items() if isinstance(column.type, type_))
    other = SPECIAL.get(f"{table.name}.{column.name}", other).format(column.name)
    key = ", ".join(c.name for c in table.primary_key.columns)
    changed = target.query(
        f"UPDATE {table.name} SET {column.name} = {other} WHERE ctid = (SELECT ctid FROM"
        f" {table.name} ORDER BY {column.name} IS NULL, ({key}) DESC LIMIT 1) RETURNING 1"
    )
    assert len(changed) == 1


def columns_of(*tables: sa.Table) -> list[pytest.ParameterSet]:
    return [
        pytest.param(column, id=f"{table.name}.{column.name}")
        for table in tables
        for column in table.columns
        if not is_observed(column)
    ]


def rounds(tables: list[sa.Table], *, keys: bool) -> Iterator[list[sa.Column[object]]]:
    """Of each table a column, until all of each have had their turn."""
    columns = [
        [c for c in table.columns if c.primary_key == keys and not is_observed(c)]
        for table in tables
    ]
    for found in itertools.zip_longest(*columns):
        yield [column for column in found if column is not None]


# Which value is wrong makes no other statement: a row too few and one too many do.
@pytest.mark.one_server
@pytest.mark.parametrize(
    ("tables", "keys"),
    [
        (TABLES, False),
        # Of differences the first 20 are named, and another key makes two.
        (TABLES[:1], True),
        (TABLES[1::2], True),
        (TABLES[2::2], True),
    ],
    ids=["values", "keys of versions", "keys of half the tables", "keys of the others"],
)
def test_a_corrupted_column_is_found_and_mended(written, tables, keys):
    before = stable(written)
    for columns in rounds(tables, keys=keys):
        stamps = written.stamps()
        for column in columns:
            corrupt(written, column)
        checked = written.check()
        assert (checked.exit_code, checked.run_id) == (8, None), columns
        names = {column.table.name for column in columns}
        assert {difference.table for difference in checked.findings.first} == names, columns
        for column in columns:
            table = column.table
            found = [d for d in checked.findings.first if d.table == table.name]
            if keys:
                assert {difference.problem for difference in found} == {"missing", "surplus"}
                continue
            (one,) = found
            assert (one.problem, one.column) == ("differs", column.name)
            row = written.row(table.name, **one.key)
            assert row[column.name] == one.is_ != one.should_be, column
            assert f": {column.name} is " in one.as_line()
        replayed = written.replay()
        assert (replayed.status, replayed.exit_code) == ("succeeded", 0), columns
        assert replayed.findings.mended == checked.findings.differences, columns
        assert stable(written) == before, columns
        # And nothing else was written.
        rewritten = {
            name: len(set(rows) - set(stamps[name]))
            for name, rows in written.stamps().items()
            if name not in LEDGER and rows != stamps[name]
        }
        assert set(rewritten) == names, columns
        assert max(rewritten.values()) <= 2, columns


# The next test and the first sync of a target write to each table with the same statements.
@pytest.mark.one_server
@pytest.mark.parametrize("table", TABLES, ids=str)
def test_a_row_too_few_is_found_and_mended(written, table):
    before = stable(written)
    key = {c.name: written.rows(table.name)[-1][c.name] for c in table.primary_key.columns}
    where = " AND ".join(f"{name} = %s" for name in key)
    written.query(f"DELETE FROM {table.name} WHERE {where}", [*key.values()])
    (found,) = written.check().findings.first
    assert (found.table, found.key, found.problem) == (table.name, key, "missing")
    assert written.replay().findings.mended == {table.name: 1}
    assert stable(written) == before


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_a_row_too_many_is_found_and_mended(written, table):
    before = stable(written)
    row = written.rows(table.name)[-1]
    for column in table.primary_key.columns:
        if isinstance(column.type, Integer):
            row[column.name] += 1000
        elif column.name in ("tag", "origin", "version"):
            row[column.name] = "surplus"
        elif len(table.primary_key.columns) == 1 or column.name in (
            "tool_id",
            "knowledge_group_id",
        ):
            row[column.name] = uuid4()
    if table is document_versions:
        later = row["valid_from"] + timedelta(days=1)
        row |= {"valid_from": later, "valid_to": later + timedelta(days=1)}
    names = ", ".join(row)
    values = [psycopg.types.json.Jsonb(v) if isinstance(v, dict) else v for v in row.values()]
    marks = ", ".join(["%s"] * len(row))
    written.query(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", values)
    (found,) = written.check().findings.first
    assert (found.table, found.problem) == (table.name, "surplus")
    assert written.replay().findings.mended == {table.name: 1}
    assert stable(written) == before


@pytest.mark.parametrize("column", columns_of(documents))
def test_a_corrupted_document_is_found_and_what_hangs_on_it_left(written, column):
    written.is_corrupted = True
    corrupt(written, column)
    before = stable(written)
    checked = written.check()
    assert checked.exit_code == 8
    assert "restore it from a backup" in str(checked.error)
    (found,) = checked.findings.first
    assert found.table == "documents"
    if column.primary_key:
        assert found.problem == "missing"
    else:
        assert (found.problem, found.column) == ("differs", column.name)
    replayed = written.replay()
    assert (replayed.status, replayed.exit_code) == ("partial", 8)
    assert replayed.findings.mended == {}
    assert stable(written) == before


def test_a_document_that_never_won_is_looked_at_too(written):
    written.is_corrupted = True
    avatar = written.rows("avatars")[0]["avatar_id"]
    (seen,) = written.query(
        "SELECT min(observed_at) AS first, max(source_updated_at) AS updated FROM observations"
        " WHERE entity_id = %s",
        [avatar],
    )
    content = b"\x01" * 32
    written.query(
        "INSERT INTO documents VALUES ('avatar', %s, %s, %s)",
        [content, avatar, psycopg.types.json.Jsonb({"id": str(avatar), "displayName": "stale"})],
    )
    written.query(
        "INSERT INTO observations VALUES ('avatar', %s, %s, %s, %s, %s, NULL)",
        [
            avatar,
            seen["first"] + timedelta(microseconds=1),
            uuid4(),
            content,
            seen["updated"] - timedelta(days=1),
        ],
    )
    (found,) = written.check().findings.first
    assert (found.table, found.column) == ("documents", "document")
    assert found.key["content_hash"] == content


def test_a_right_database_gets_no_write_but_the_ledgers(written):
    before, stamps = written.dump(), written.stamps()
    replayed = written.replay()
    assert (replayed.status, replayed.findings.differences) == ("succeeded", {})
    run = written.row("runs", run_id=replayed.run_id)
    assert (run["command"], run["status"]) == ("backfill replay", "succeeded")
    assert run["finished_at"] == replayed.finished_at
    assert {name: n for name, n in run.items() if isinstance(n, int) and n and name != "pid"} == {}
    after, restamped = written.dump(), written.stamps()
    for name in metadata.tables.keys() - {"runs"}:
        assert (after[name], restamped[name]) == (before[name], stamps[name]), name
    assert after["runs"][:-1] == before["runs"] or len(after["runs"]) == len(before["runs"]) + 1


@pytest.mark.parametrize(
    "emptied",
    [
        [document_versions],
        TABLES[1:],
        TABLES,
        [table for table in TABLES if table.name.startswith(("persona_", "share_"))],
    ],
    ids=["versions", "tables", "everything", "some"],
)
def test_emptied_tables_are_made_again(written, emptied):
    before = stable(written)
    names = [table.name for table in emptied]
    lost = {name: len(before[name]) for name in names}
    for name in names:
        written.query(f"DELETE FROM {name}")
    checked = written.check().findings
    # To whom a link belongs is told when the versions of its personas are right.
    assert checked.differences.items() <= lost.items()
    assert len(checked.first) == 20
    assert {difference.problem for difference in checked.first} == {"missing"}
    assert written.replay().findings.mended == lost
    assert stable(written) == before


def test_a_chain_that_is_shifted_is_mended(written):
    """Rows that are right in everything but their rank stand in one another's way."""
    before = stable(written)
    written.query("UPDATE document_versions SET version = version + 100")
    written.query("UPDATE document_versions SET version = version - 99")
    written.query("DELETE FROM document_versions WHERE version = 2 AND kind = 'persona'")
    assert written.replay().exit_code == 0
    assert stable(written) == before


def test_everything_wrong_at_once_is_mended(written):
    before = stable(written)
    for table in TABLES[1:]:
        for column in table.columns:
            if not is_observed(column) and not column.primary_key:
                corrupt(written, column)
    for name in ("change", "changed_paths", "run_id", "source_updated_at", "last_observed_at"):
        corrupt(written, document_versions.columns[name])
    checked = written.check()
    assert checked.findings.differences.total() > 80
    assert len(checked.findings.first) == 20
    assert written.replay().findings.mended.keys() == {table.name for table in TABLES}
    assert stable(written) == before


def test_what_has_no_observations_goes_with_all_its_rows(written):
    persona_id = uuid4()
    stray = {"persona_id": persona_id, "name": "never seen"}
    written.query(
        "INSERT INTO personas (persona_id, name) VALUES (%(persona_id)s, %(name)s)", stray
    )
    written.query("INSERT INTO brains (persona_id) VALUES (%(persona_id)s)", stray)
    link = {"link": uuid4(), **stray}
    written.query(
        "INSERT INTO share_links (share_link_id, persona_id) VALUES (%(link)s, %(persona_id)s)",
        link,
    )
    written.query("INSERT INTO share_link_allowed_origins VALUES (%(link)s, 'https://x', 0)", link)
    written.query("SET session_replication_role TO DEFAULT")
    assert written.check().findings.differences.total() == 4
    assert written.replay().exit_code == 0
    assert written.rows("personas", persona_id=persona_id) == []


def test_a_link_under_another_persona_is_given_back_with_its_origins(written):
    before = stable(written)
    link = written.row("share_links", share_link_id=UUID(LINK))
    other = next(
        row["persona_id"]
        for row in written.rows("personas")
        if row["persona_id"] != link["persona_id"]
    )
    written.query("UPDATE share_links SET persona_id = %s WHERE share_link_id = %s", [other, LINK])
    (found,) = written.check().findings.first
    assert (found.column, found.is_, found.should_be) == ("persona_id", other, link["persona_id"])
    assert written.replay().exit_code == 0
    assert stable(written) == before


# How it is cut into batches is decided in Python.
@pytest.mark.one_server
def test_a_link_under_a_persona_of_another_batch_is_given_back(written, monkeypatch):
    monkeypatch.setattr("etl.jobs.rows._ENTITIES_AT_ONCE", 1)
    before = stable(written)
    personas = [row["persona_id"] for row in written.rows("personas")]
    links = {row["share_link_id"]: row["persona_id"] for row in written.rows("share_links")}
    assert len(set(links.values())) > 2
    for link, owned_by in links.items():
        # Its owner's batch comes before the other's, and after it.
        for other in {personas[0], personas[-1]} - {owned_by}:
            written.query(
                "UPDATE share_links SET persona_id = %s WHERE share_link_id = %s", [other, link]
            )
            assert written.check("share_links").findings.differences == {"share_links": 1}
            assert written.replay("share_links").findings.mended == {"share_links": 1}
    assert stable(written) == before


def test_observed_columns_are_neither_compared_nor_touched(written):
    observed = {table: [c.name for c in table.columns if is_observed(c)] for table in TABLES}
    for table, names in observed.items():
        for name in names:
            is_time = isinstance(table.columns[name].type, DateTime)
            value = "'2001-01-01'" if is_time else "4711"
            written.query(f"UPDATE {table.name} SET {name} = {value}")
    before = written.dump()
    corrupt(written, metadata.tables["tools"].columns["description"])
    assert written.replay().findings.mended == {"tools": 1}
    after = written.dump()
    for table, names in observed.items():
        for name in names:
            was = [row[name] for row in before[table.name]]
            assert [row[name] for row in after[table.name]] == was


def test_an_infinite_moment_and_a_null_in_json_are_differences_too(written):
    before = stable(written)
    written.query("UPDATE personas SET created_at = '-infinity', extra = 'null'")
    written.query("UPDATE voice_generation_options SET speed = 'NaN', volume = 'infinity'")
    written.query("UPDATE document_versions SET last_observed_at = 'infinity'")
    assert set(written.check().findings.differences) == {
        "personas",
        "voice_generation_options",
        "document_versions",
    }
    assert written.replay().exit_code == 0
    assert stable(written) == before


def test_however_it_is_cut_into_batches_the_same_is_found_and_mended(written, monkeypatch):
    before = stable(written)
    spoil(written)
    at_once = written.check().findings
    for name in ("replay._ENTITIES_AT_ONCE", "rows._ENTITIES_AT_ONCE", "chains._READ_AT_ONCE"):
        monkeypatch.setattr(f"etl.jobs.{name}", 2)
    monkeypatch.setattr("etl.jobs.chains._WRITTEN_AT_ONCE", 1)
    monkeypatch.setattr("etl.jobs.replay._DELETED_AT_ONCE", 1)
    for name in ("jobs.rows", "store.chains"):
        monkeypatch.setattr(f"etl.{name}.BYTES_AT_ONCE", 1000)
    cut = written.check().findings
    # What is told first hangs on which tables come together.
    assert (cut.checked, cut.differences) == (at_once.checked, at_once.differences)
    assert written.replay().exit_code == 0
    assert stable(written) == before


FILL = """
    INSERT INTO documents (kind, content_hash, entity_id, document)
    SELECT 'persona', sha256((n || ' ' || v)::text::bytea), i,
           jsonb_build_object('id', i, 'filler', rpad('', 1500, 'x'),
                              'shareLinks', jsonb_build_array(jsonb_build_object('id', i)))
      FROM (SELECT n, gen_random_uuid() AS i FROM generate_series(1, 3000) AS n) AS p,
           generate_series(1, 3) AS v;
    INSERT INTO observations (kind, entity_id, observed_at, persona_id, content_hash)
    SELECT kind, entity_id, '2026-01-01'::timestamptz + row_number() OVER () * interval '1 second',
           entity_id, content_hash
      FROM documents WHERE document ? 'filler';
    INSERT INTO document_versions (kind, entity_id, version, valid_from, valid_to,
                                   last_observed_at, content_hash, change, changed_paths)
    SELECT kind, entity_id, row_number() OVER entity, observed_at, lead(observed_at) OVER entity,
           observed_at, content_hash, 'updated', '{}'
      FROM observations WHERE observed_at < '2026-01-10'
    WINDOW entity AS (PARTITION BY entity_id ORDER BY observed_at);
    INSERT INTO personas (persona_id) SELECT DISTINCT entity_id FROM document_versions
     WHERE kind = 'persona' ON CONFLICT DO NOTHING;
    INSERT INTO brains (persona_id) SELECT persona_id FROM personas ON CONFLICT DO NOTHING;
    INSERT INTO share_links (share_link_id, persona_id)
    SELECT DISTINCT entity_id, entity_id FROM documents WHERE document ? 'filler';
    ANALYZE;
"""


def test_no_batch_reads_more_of_a_table_than_its_own(written):
    """By the plans of whatever it reads; those that are kept for all batches stand for any."""
    written.is_corrupted = True
    written.query(FILL)
    sent: dict[str, list[dict[str, object]]] = {}

    def note(_connection, _cursor, statement, parameters, *_more):
        sent.setdefault(statement, []).append(parameters)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        written.check()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    large = {"observations", "documents", "document_versions", "personas", "brains", "share_links"}
    seen: set[str] = set()
    for statement, parameters in sent.items():
        # How many there are, which links two personas show, and whose those are, is asked once.
        if "count(" not in statement and "DISTINCT ON" not in statement:
            # The driver prepares what it sends the sixth time, the server then keeps the plan.
            mode = "force_generic_plan" if len(parameters) > 5 else "force_custom_plan"
            written.query(f"SET plan_cache_mode TO {mode}")
            plan = plan_of(written, statement, parameters[-1])
            read = {node["Relation Name"]: node for node in plan}
            scans = {name for name, node in read.items() if node["Node Type"] == "Seq Scan"}
            assert not scans & large, statement
            seen |= read.keys()
    assert seen >= large


def plan_of(target: Target, statement: str, parameters: dict[str, object]):
    """The nodes that read a table, of the plan for any parameters."""
    names = dict.fromkeys(re.findall(r"%\((\w+)\)s", statement))
    numbers = {name: f"${number}" for number, name in enumerate(names, start=1)}
    prepared = re.sub(r"%\((\w+)\)s", lambda match: numbers[match[1]], statement)
    target.query(f"PREPARE told AS {prepared.replace('%%', '%')}")
    values = ", ".join(["%s"] * len(names))
    execute = f"EXECUTE told({values})" if names else "EXECUTE told"
    cursor = psycopg.ClientCursor(target.admin, row_factory=tuple_row)
    cursor.execute(f"EXPLAIN (FORMAT JSON) {execute}", [parameters[name] for name in names])
    ((plan,),) = cursor.fetchall()
    target.query("DEALLOCATE told")
    return [node for node in every_node(plan[0]["Plan"]) if "Relation Name" in node]


# ── Some tables only ─────────────────────────────────────────────────────────────────────────────


def test_only_the_tables_asked_for_and_what_they_refer_to_are_looked_at(written):
    for name in ("voices", "personas", "brains"):
        corrupt(written, metadata.tables[name].columns["extra"])
    corrupt(written, document_versions.columns["changed_paths"])
    assert set(written.check("voices").findings.differences) == {"voices"}
    assert set(written.check("personas").findings.differences) == {"voices", "personas"}
    assert set(written.check("document_versions").findings.differences) == {"document_versions"}
    assert written.replay("voice_display_tags").findings.mended == {"voices": 1}
    left = written.check().findings.differences
    assert set(left) == {"document_versions", "personas", "brains"}
    written.replay()


def test_a_row_that_others_still_refer_to_is_left_and_told(written):
    stray = uuid4()
    written.query("INSERT INTO avatars (avatar_id) VALUES (%s)", [stray])
    written.query("UPDATE personas SET avatar_id = %s", [stray])
    replayed = written.replay("avatars")
    assert (replayed.status, replayed.exit_code) == ("partial", 8)
    assert "run again without --table" in str(replayed.error)
    assert replayed.findings.left == {"avatars": 1}
    assert written.replay().exit_code == 0


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("avatars", {"avatars"}),
        ("persona_tools", {"avatars", "voices", "tools", "personas", "persona_tools"}),
        (
            "share_links",
            {"avatars", "voices", "personas", "share_links", "share_link_allowed_origins"},
        ),
        ("document_versions", {"document_versions"}),
    ],
)
def test_a_table_brings_those_that_it_refers_to(name, tables):
    later = {table.name for table in projections() if origin(table).shape == "list"}
    assert set(replayed_tables([name])) - later == tables


# ── Beside others ────────────────────────────────────────────────────────────────────────────────


def test_a_reader_of_long_standing_is_not_disturbed(written):
    with session(written.url, "anam") as reader, reader.transaction():
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        names = [table.name for table in TABLES]
        read = {name: reader.execute(f"SELECT * FROM {name}").fetchall() for name in names}
        for name in ("brains", "persona_tools", "document_versions"):
            written.query(f"DELETE FROM {name}")
        corrupt(written, metadata.tables["personas"].columns["name"])
        # The reader holds its locks all the while.
        assert written.replay().exit_code == 0
        again = {name: reader.execute(f"SELECT * FROM {name}").fetchall() for name in names}
        assert again == read


def test_a_check_sees_one_moment_however_long_it_takes(written):
    turns = itertools.count()

    def meanwhile(*_sent):
        if next(turns) == 8:
            written.query("UPDATE brains SET system_prompt = 'x'")

    sa.event.listen(sa.Engine, "before_cursor_execute", meanwhile)
    try:
        assert written.check().findings.differences == {}
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", meanwhile)
    assert set(written.check().findings.differences) == {"brains"}
    written.replay()


def test_a_check_needs_no_more_than_to_read_and_no_lock(written, new_role):
    role = new_role()
    written.query("SET session_replication_role TO DEFAULT")
    written.query(f'GRANT USAGE ON SCHEMA anam TO "{role}"')
    written.query(f'GRANT SELECT ON ALL TABLES IN SCHEMA anam TO "{role}"')
    owners, before = written.url, (written.dump(), written.stamps())
    written.url = (
        sa.make_url(owners)
        .set(username=role, password="p@ss")
        .render_as_string(hide_password=False)
    )
    try:
        with locked(owners):
            assert written.check().exit_code == 0
        assert (written.dump(), written.stamps()) == before
    finally:
        written.query(f'DROP OWNED BY "{role}"')


def test_a_writer_by_its_grants_can_replay(written, new_role):
    role = new_role()
    written.query("SET session_replication_role TO DEFAULT")
    for grant in writer_grants("anam", role):
        written.query(grant)
    before = stable(written)
    for spoil_it in (
        "UPDATE brains SET system_prompt = 'x'",
        "DELETE FROM share_link_allowed_origins",
        "INSERT INTO avatars (avatar_id) VALUES (gen_random_uuid())",
    ):
        written.query(spoil_it)
    made = sa.make_url(written.url).set(username=role, password="p@ss")
    written.url = made.render_as_string(hide_password=False)
    try:
        assert written.replay().status == "succeeded"
        assert stable(written) == before
    finally:
        written.query(f'DROP OWNED BY "{role}"')


@contextmanager
def locked(url: str):
    """Another run writes to the target meanwhile."""
    with WriterLock(url, "anam", command="sync", run_id=UUID(int=1)):
        yield


def test_a_replay_is_skipped_while_another_run_holds_the_lock(written):
    corrupt(written, metadata.tables["personas"].columns["name"])
    with locked(written.url):
        replayed = written.replay()
    assert (replayed.status, replayed.exit_code) == ("skipped", 75)
    row = written.row("runs", run_id=replayed.run_id)
    assert (row["command"], row["status"]) == ("backfill replay", "skipped")
    assert row["error"] == str(replayed.error)
    assert written.replay().findings.mended == {"personas": 1}


def test_a_replay_closes_what_died_before_it(written):
    orphan = written.rows("runs")[0]["run_id"]
    written.query(
        "UPDATE runs SET status = 'running', finished_at = NULL WHERE run_id = %s", [orphan]
    )
    written.replay()
    assert written.row("runs", run_id=orphan)["status"] == "crashed"


def test_a_deadlock_is_tried_again_and_counted_once(written):
    corrupt(written, metadata.tables["personas"].columns["name"])
    written.query("""
        CREATE SEQUENCE turns;
        CREATE FUNCTION in_the_way() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('turns') < 3 THEN RAISE deadlock_detected; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER in_the_way BEFORE UPDATE ON personas
           FOR EACH ROW EXECUTE FUNCTION in_the_way();
    """)
    replayed = written.replay()
    assert (replayed.status, replayed.findings.mended) == ("succeeded", {"personas": 1})


def test_a_replay_stops_when_another_run_wrote_while_it_had_no_lock(written):
    corrupt(written, metadata.tables["personas"].columns["name"])
    written.query("""
        CREATE FUNCTION meanwhile() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_terminate_backend(pid, 5000) FROM pg_locks
                WHERE locktype = 'advisory' AND pid <> pg_backend_pid()
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
            INSERT INTO runs (run_id, command, status, started_at, host, pid, version)
            VALUES (gen_random_uuid(), 'sync', 'succeeded', clock_timestamp(), 'h', 1, 'v');
            RETURN NULL;
        END $$;
        CREATE TRIGGER meanwhile AFTER UPDATE ON tools
           FOR EACH STATEMENT EXECUTE FUNCTION meanwhile();
    """)
    corrupt(written, metadata.tables["tools"].columns["name"])
    replayed = written.replay()
    assert (replayed.status, replayed.exit_code) == ("failed", 75)
    # Tools come before personas, which were not got to.
    assert replayed.findings.mended == {"tools": 1}
    assert written.replay().findings.mended == {"personas": 1}


def spoil(target: Target) -> None:
    """Something of everything that a replay may have to mend."""
    for name in ("personas", "share_links", "voice_display_tags"):
        for column in target.rows(name)[0]:
            found = metadata.tables[name].columns[column]
            if not found.primary_key and not is_observed(found):
                corrupt(target, found)
    # Of removed personas a check, which mends nothing on its way, takes the last version as it is.
    target.query(
        "DELETE FROM document_versions AS v WHERE kind = 'persona' AND version < 3 AND NOT EXISTS ("
        "SELECT FROM document_versions AS last WHERE last.entity_id = v.entity_id"
        " AND last.valid_to IS NULL AND last.content_hash IS NULL)"
    )
    target.query("DELETE FROM brains")
    target.query("INSERT INTO avatars (avatar_id) VALUES (gen_random_uuid())")


# As in test_sync_killed.
@pytest.mark.one_server
# Of a connection that is gone SQLAlchemy does not close the cursor; it goes with the connection.
@pytest.mark.filterwarnings("ignore:.*ServerCursor.* was deleted while still open:ResourceWarning")
@pytest.mark.parametrize(("step", "afterwards"), [(5, False), (2, True)])
def test_killed_at_any_statement_the_next_replay_ends_where_it_would_have(
    written, new_database, step, afterwards
):
    before = stable(written)
    spoil(written)
    template = sa.make_url(written.url).database
    written.admin.close()
    written.is_corrupted = True
    for nth in range(1, 999, step):
        with new_database(template) as url, written.at(url):
            strike = Strike(url, nth, ANSWER_LOST if afterwards else KILLED)
            with striking(strike), suppress(DatabaseError):
                killed = written.replay()
                assert not strike.has_struck or killed.exit_code == 6
            assert written.replay().exit_code == 0
            assert stable(written) == before
            statuses = {row["status"] for row in written.rows("runs")}
            assert "running" not in statuses
        if not strike.has_struck:
            break
    assert nth > 10
    # Here, and not in the midst of another test, which would not know that warning.
    gc.collect()


def test_an_issue_of_a_document_is_opened_again_when_its_rows_are_written(written):
    (issue, *_) = written.rows("value_issues", kind="persona", path="voiceSpeed")
    written.query("DELETE FROM value_issues")
    assert written.replay().exit_code == 0
    assert written.rows("value_issues") == []
    written.query("UPDATE personas SET name = 'x'")
    replayed = written.replay()
    (again,) = written.rows("value_issues", path="voiceSpeed")
    for name in ("kind", "entity_id", "path", "problem", "expected", "got", "resolved_at"):
        assert again[name] == issue[name]
    assert again["run_id"] == replayed.run_id
    written.query("UPDATE personas SET name = 'x'")
    written.replay()
    assert written.rows("value_issues", path="voiceSpeed") == [again]


def test_without_their_observations_nobody_is_wiped_out(written):
    written.is_corrupted = True
    written.query("DELETE FROM observations WHERE kind = 'persona'")
    before = stable(written)
    checked = written.check()
    assert checked.exit_code == 8
    assert "restore observations and documents from a backup" in str(checked.error)
    replayed = written.replay()
    assert (replayed.exit_code, replayed.findings.mended) == (7, {})
    assert "nothing was changed" in str(replayed.error)
    assert stable(written) == before


def test_the_next_sync_fills_what_history_does_not_have(target):
    before = target.rows("personas"), target.rows("share_links")
    target.query("TRUNCATE personas CASCADE")
    assert target.replay().exit_code == 0
    assert target.rows("personas") != before[0]
    assert target.sync().counts["unchanged"] == 6
    assert (target.rows("personas"), target.rows("share_links")) == before


@pytest.mark.parametrize("column", ["observed_at", "source_updated_at"])
@pytest.mark.parametrize("moment", ["infinity", "-infinity", "20000-01-01"])
def test_an_observation_out_of_time_is_told(written, column, moment):
    written.is_corrupted = True
    written.query(
        f"UPDATE observations SET {column} = %s WHERE (kind, entity_id, observed_at) ="
        " (SELECT kind, entity_id, min(observed_at) FROM observations"
        "   WHERE kind = 'avatar' GROUP BY kind, entity_id LIMIT 1)",
        [moment],
    )
    replayed = written.replay()
    assert replayed.exit_code == 8
    assert "is dated" in str(replayed.error)
    with pytest.raises(DiscrepancyError, match="is dated"):
        written.check()


def test_a_check_of_a_load_that_was_cut_short_says_that_first(target):
    leave_unfolded(target, target.world.persona_ids[0])
    checked = target.check()
    assert checked.exit_code == 8
    assert str(checked.error).startswith(
        "a load from files has not folded 1 document yet: run `persona-etl backfill replay`"
    )
    assert target.replay().exit_code == 0
    assert target.changes(target.world.persona_ids[0]) == ["created", "removed"]
    assert target.check().error is None


def test_a_check_that_finds_nothing_is_content_though_documents_wait(target):
    target.query(
        "INSERT INTO unfolded (kind, entity_id) SELECT 'persona', persona_id FROM personas"
    )
    assert target.check().error is None
