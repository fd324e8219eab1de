"""What the histories tell of lines of a target's own is what flattening makes of the documents."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.flatten import flatten
from etl.jobs.migrate import migrate
from etl.map import TYPES, extended, steps
from etl.payload.decode import dumps, loads
from etl.payload.paths import member
from etl.report.fields import fields
from etl.store.engine import make_engine
from tests.db.conftest import session
from tests.db.local_lines import add_lines, line
from tests.unit.strategies import decoded, exactly, json_values, properties, scalars

if TYPE_CHECKING:
    from etl.map import Line
    from etl.tables import Kind

AN_ID = UUID("c0000000-0000-4000-8000-000000000001")
SCHEMA = 'it\'s 100% "odd"'
NAMES = [
    *("it's", 'q"uote', "back\\slash", "per%cent %s", "\u00fcn\u0131\u202ecode", "a.b", "[]", ""),
    *("new\nline", "\0reporting\0", "@reporting@", "{known}", ":a", "select", "$query$", "*"),
    *("--", "/*", " padded ", "\t", "\U0001f600", "k" * 300, "$1", "x"),
]
# An object of the document -> the table of its columns. The one in the middle has no table.
PLACES: dict[tuple[Kind, str], str] = {
    ("persona", ""): "personas",
    ("persona", "brain"): "brains",
    ("persona", "voiceGenerationOptions"): "voice_generation_options",
    ("persona", "primaryShareLink"): "personas",
    ("avatar", ""): "avatars",
    ("voice", ""): "voices",
    ("tool", ""): "tools",
    ("knowledge_group", ""): "knowledge_groups",
}


def hostile_lines() -> list[Line]:
    """A column and a list of each type in each object, under names of all sorts."""
    found = []
    names = [decoded(name) for name in NAMES]
    for number, ((kind, place), table) in enumerate(PLACES.items()):
        for n, type_ in enumerate(TYPES):
            one, many = (names[(number * 5 + 2 * n + m) % len(names)] for m in (0, 1))
            found += [
                line(kind, member(place, one), table, type_, column=f"new_{number}_{n}"),
                line(kind, f"{member(place, many)}[]", f"{kind}_list_{number}_{n}", type_),
            ]
    return found


LINES = hostile_lines()
values = st.sampled_from(["1", "2.5", "true", "2026-04-20T10:00:00Z", str(AN_ID), 7, 1e300, True])
members = st.one_of(values, scalars, st.lists(values | scalars, max_size=4), json_values)


@pytest.fixture(scope="module")
def stored(new_database):
    """Where documents are stored, at a target with all of the lines, in a schema of an odd name."""
    with new_database() as url:
        migrate(make_engine(url, SCHEMA), SCHEMA)
        add_lines(url, *LINES, schema=SCHEMA)
        with session(url, SCHEMA) as admin:
            psycopg.types.json.set_json_loads(loads, admin)
            yield admin


@st.composite
def documents_of(draw: st.DrawFn) -> tuple[Kind, dict[str, Any]]:
    """A document in which many of the lines have something, and some more stands about."""
    kind = draw(st.sampled_from(sorted({kind for kind, _ in PLACES})))
    names = st.sampled_from(NAMES)
    document: dict[str, Any] = draw(st.dictionaries(names, members, max_size=12))
    for of_kind, place in PLACES:
        if of_kind == kind and place:
            inner = st.dictionaries(names, members, max_size=12)
            document[place] = draw(inner | inner | inner | scalars)
    document["displayTags"] = document["availableVersions"] = draw(members)
    return kind, decoded(document)


@properties(20)
@given(st.lists(documents_of(), min_size=20, max_size=20))
def test_the_past_is_what_flattening_makes_of_each_document(stored, found):
    the_map = extended(tuple(LINES))
    stored.execute("DELETE FROM document_versions")
    stored.execute("DELETE FROM documents")
    for number, (kind, document) in enumerate(found):
        stored.execute(
            "INSERT INTO documents VALUES (%(kind)s, %(hash)s, %(id)s, %(document)s::jsonb)",
            row := {
                "kind": kind,
                "hash": bytes([number]),
                "id": UUID(int=number),
                "document": dumps(document).decode(),
            },
        )
        stored.execute(
            "INSERT INTO document_versions (kind, entity_id, version, valid_from,"
            " last_observed_at, content_hash, change, changed_paths)"
            " VALUES (%(kind)s, %(id)s, 1, now(), now(), %(hash)s, 'created', '{}')",
            row,
        )
    reporting = psycopg.sql.Identifier(f"{SCHEMA}_reporting")
    for kind in {kind for kind, _ in found}:
        query = psycopg.sql.SQL("SELECT * FROM {}.{}").format(
            reporting, psycopg.sql.Identifier(f"{kind}_history")
        )
        shown = {row[f"{kind}_id"]: row for row in stored.execute(query)}
        for number, (of_kind, document) in enumerate(found):
            if of_kind == kind:
                row = shown[UUID(int=number)]
                expected = expected_of(kind, document, the_map)
                assert {name: comparable(row[name]) for name in expected} == expected


def expected_of(kind: Kind, document: dict[str, Any], the_map: Any) -> dict[str, Any]:
    """What flattening makes of it, by the names of the view."""
    rows = flatten(kind, AN_ID, document, "stored", the_map=the_map).rows
    expected = {}
    for field in fields(the_map, kind):
        found = rows[field.column.table.name]
        if field.is_list:
            place: Any = document
            *around, last, _ = steps(the_map.path(field.column))
            for key in around:
                place = place.get(key) if isinstance(place, dict) else None
            is_there = isinstance(place, dict) and isinstance(place.get(last), list)
            value = [row[field.column.name] for row in found] if is_there else None
        else:
            value = found[0][field.column.name] if found else None
        expected[field.name] = comparable(value)
    return expected


def comparable(value: Any) -> Any:
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return exactly(value)
