"""Rows of whatever might come: storable, with exactly their columns, the same when replayed."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.flatten import flatten
from etl.payload.documents import take_apart
from etl.payload.plans import mapped_columns
from etl.tables import KINDS, metadata, origin, projections, source
from tests.unit.strategies import (
    PERSONA_ID,
    decoded,
    documents,
    payload_files,
    personas,
    properties,
    read_payload,
)

if TYPE_CHECKING:
    from pathlib import Path

    from etl.payload.plans import Columns

AN_ID = UUID("c0000000-0000-4000-8000-000000000001")
any_document = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind), documents[kind])
)


def assert_storable(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            assert_storable(key)
            assert_storable(item)
    elif isinstance(value, list):
        for item in value:
            assert_storable(item)
    elif isinstance(value, str):
        assert "\x00" not in value
        value.encode()
    elif isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, int):
        assert -(2**63) <= value < 2**63


@properties(100)
@given(any_document)
def test_rows_of_any_document_have_exactly_their_columns_and_can_be_stored(found):
    kind, document = found
    for columns in ("all", "stored", "observed"):
        flat = flatten(kind, AN_ID, document, columns)
        expected = {t.name for t in projections(kind) if columns != "observed" or has_observed(t)}
        assert set(flat.rows) == expected
        for name, rows in flat.rows.items():
            assert_good_rows(name, rows, columns)


def has_observed(table: Any) -> bool:
    return any((found := source(column)) and found.observed for column in table.columns)


def assert_good_rows(name: str, rows: list[dict[str, Any]], columns: Columns) -> None:
    table = metadata.tables[name]
    key = [column.name for column in table.primary_key.columns]
    for row in rows:
        assert list(row) == mapped_columns(table, columns)
        assert all(row[column] is not None for column in key)
        assert_storable(row)
        indexed = [column.name for column in table.columns if column.index or column.primary_key]
        assert all(len(str(row.get(column, "")).encode()) <= 2000 for column in indexed)
    assert len({tuple(row[column] for column in key) for row in rows}) == len(rows)
    if origin(table).shape == "entity" or origin(table).always:
        assert len(rows) == 1


@properties(100)
@given(any_document)
def test_stored_rows_are_all_rows_without_the_observed_columns(found):
    kind, document = found
    everything = flatten(kind, AN_ID, document, "all").rows
    for name, stored in flatten(kind, AN_ID, document, "stored").rows.items():
        kept = mapped_columns(metadata.tables[name], "stored")
        assert stored == [{column: row[column] for column in kept} for row in everything[name]]


@properties(100)
@given(personas)
def test_a_stored_persona_gives_the_rows_that_the_live_one_gave(payload):
    for part in take_apart(payload, PERSONA_ID).parts():
        live = flatten(part.kind, part.entity_id, part.whole(), "all")
        replayed = flatten(part.kind, part.entity_id, part.document, "stored")
        for name, rows in replayed.rows.items():
            kept = mapped_columns(metadata.tables[name], "stored")
            assert rows == [{column: row[column] for column in kept} for row in live.rows[name]]


@properties(100)
@given(personas)
def test_every_reference_leads_to_a_document(payload):
    apart = take_apart(payload, PERSONA_ID)
    there = {(part.kind, part.entity_id) for part in apart.shared}
    rows = flatten("persona", PERSONA_ID, apart.persona.whole()).rows
    (persona,) = rows["personas"]
    referred = {(kind, persona[f"{kind}_id"]) for kind in ("avatar", "voice")}
    referred |= {("tool", row["tool_id"]) for row in rows["persona_tools"]}
    referred |= {
        ("knowledge_group", row["knowledge_group_id"]) for row in rows["persona_knowledge_groups"]
    }
    assert {(kind, found) for kind, found in referred if found} <= there


@properties(100)
@given(any_document)
def test_issues_have_a_path_each_and_never_a_value(found):
    kind, document = found
    marked = json.loads(json.dumps(document, default=str).replace("fast", "marked-secret"))
    flat = flatten(kind, AN_ID, decoded(marked))
    assert len({issue.path for issue in flat.issues}) == len(flat.issues)
    for issue in flat.issues:
        assert (issue.kind, issue.entity_id) == (kind, AN_ID)
        assert "marked-secret" not in f"{issue.path} {issue.problem} {issue.expected} {issue.got}"
        assert issue.path
        assert len(issue.path.encode()) <= 2000
    assert all(len(path.encode()) <= 2000 for path in {found.path for found in flat.findings})


@pytest.mark.parametrize("path", payload_files(), ids=lambda path: path.stem)
def test_each_payload_file_becomes_rows(path: Path):
    payload = read_payload(path.stem)
    for part in take_apart(payload, UUID(payload["id"])).parts():
        flat = flatten(part.kind, part.entity_id, part.whole())
        for name, rows in flat.rows.items():
            assert_good_rows(name, rows, "all")
