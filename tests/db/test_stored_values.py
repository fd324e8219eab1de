"""The values of a field out of all stored documents, and whether SQL reads them as Python does."""

from __future__ import annotations

import tracemalloc
from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from etl.map import TYPES
from etl.payload.decode import dumps, loads
from etl.payload.paths import member
from etl.payload.values import converter
from etl.proposal.inference import infer
from etl.report.casts import cast_to
from etl.report.functions import REPORTING
from etl.store.engine import make_engine
from etl.store.stored_values import stored_values
from tests.unit.strategies import exactly, properties
from tests.unit.test_inference import fields

if TYPE_CHECKING:
    from etl.tables import Kind

HOSTILE = [
    *("mood", "odd key", "a.b", "[]", "*", "", "ключ", 'q"\\', "'; DROP TABLE documents; --"),
    *("%s", "%", ":kind", "{value}", "-1", "0", "$$", "x\ny"),
]
STORE = text("""
    INSERT INTO documents (kind, content_hash, entity_id, document)
    SELECT :kind, sha256(convert_to(ordinality::text, 'UTF8')), gen_random_uuid(), document
      FROM jsonb_array_elements(CAST(:documents AS jsonb)) WITH ORDINALITY AS _ (document)
""")


@pytest.fixture(scope="module")
def connection(new_database, template):
    with new_database(template) as url:
        engine = make_engine(url, "anam", json_deserializer=loads)
        with engine.connect() as connection:
            yield connection


@pytest.fixture
def values_at(connection):
    """What reads the values at a path when these are the documents of their kind."""

    def read(documents: list[Any], path: str, kind: Kind = "persona") -> list[Any]:
        stored = {"kind": "persona", "documents": dumps(documents).decode()}
        connection.execute(STORE, stored)
        try:
            return list(stored_values(connection, kind, path))
        finally:
            connection.rollback()

    return read


def test_the_values_of_all_documents_of_the_kind_come_without_nulls(values_at):
    documents = [{"mood": "happy"}, {"mood": None}, {}, {"mood": 7}, {"mood": True}]
    assert values_at(documents, "mood") == ["happy", 7, True]
    assert values_at(documents, "mood", kind="voice") == []


def test_what_is_long_comes_short_and_arrays_an_element_at_a_time(values_at):
    documents = [{"x": value} for value in ["é" * 33, {"a": 1}, [1, "b", None, [2], {}], []]]
    assert values_at(documents, "x") == [*("é" * 33 + "…", {}, [1], ["b"], [None], [[]], [{}], [])]


def test_numbers_come_exactly(values_at):
    documents = [{"x": loads(n)} for n in ("9007199254740993", "1e400", "0.1", "1" + "0" * 30)]
    assert values_at(documents, "x") == [document["x"] for document in documents]


@pytest.mark.parametrize("key", HOSTILE)
def test_any_key_is_but_a_key(values_at, key):
    for around, document in (
        ("", {key: "top"}),
        ("brain", {"brain": {key: "top"}}),
        ("shareLinks[]", {"shareLinks": [{key: "top"}, {}, 7]}),
        (member("", key), {key: {key: "top"}}),
    ):
        others = [{"shareLinks": {key: 1}}, {"brain": [1]}, {key: None}, {"brain": "x"}]
        found = values_at([document, *others], member(around, key))
        assert found == ["top"], around


def test_elements_within_elements_are_reached(values_at):
    documents = [{"a": [{"b": [{"c": 1}, {"c": 2}]}, {"b": 3}]}, {"a": {}}]
    assert values_at(documents, "a[].b[].c") == [1, 2]
    assert values_at(documents, "a[].b[]") == [{}, {}]


@pytest.mark.parametrize("path", ["x.*", "*", ".x", "x[0]"])
def test_a_path_of_no_one_field_is_refused(values_at, path):
    with pytest.raises(ValueError, match="is no path"):
        values_at([], path)


@properties(60)
@given(keys=st.lists(st.sampled_from(HOSTILE) | st.text(max_size=3).filter(str.isprintable)))
def test_any_path_of_keys_is_followed(values_at, keys):
    document: Any = "there"
    for key in reversed(keys):
        document = {key: document}
    path = reduce(member, keys, "")
    assert values_at([document, {}, 7], path) == (["there"] if keys else ["there", {}, 7])


def test_neither_large_values_nor_many_are_held(connection):
    """20 MB of prompts and 2 MB of tags: a small part of that at any time."""
    documents: list[Any] = [{"x": "p" * 5_000_000, "y": n} for n in range(4)]
    documents.append({"x": [f"{number:060}" for number in range(20_000)]})
    connection.execute(STORE, {"kind": "persona", "documents": dumps(documents).decode()})
    tracemalloc.start()
    values = stored_values(connection, "persona", "x")
    next(values)
    # The driver's own memory is not traced: what is not fetched yet has to be on the server.
    cursors = connection.execute(text("SELECT count(*) FROM pg_cursors")).scalar_one()
    found = infer(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    connection.rollback()
    assert found is not None
    assert (found.type, found.values) == ("jsonb", 20_003)
    assert cursors == 1
    assert peak < 2_000_000


@properties(60)
@given(values=fields)
def test_the_views_read_the_column_as_it_was_inferred(connection, values_at, values):
    """Of the stored values the same is inferred, and the cast in SQL agrees with the converter."""
    found = infer(values)
    stored = infer(values_at([{"x": value} for value in values], "x"))
    assert stored == found
    if found is None:
        return
    items = [item for value in values for item in (value or [])] if found.is_list else values
    present = [item for item in items if item is not None]
    type_ = TYPES[found.type]
    cast = cast_to(type_, "item.value", indexed=False).replace(REPORTING, "anam_reporting")
    array = "jsonb_array_elements(CAST(%s AS jsonb)) WITH ORDINALITY AS item"
    query = f"SELECT {cast} FROM {array} ORDER BY ordinality"
    rows = connection.exec_driver_sql(query, (dumps(present).decode(),)).scalars().all()
    convert = converter(type_, indexed=False)
    assert [exactly(row) for row in rows] == [exactly(convert(item)) for item in present]
