"""The function that reads a value at a path, held against what writes the paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.payload.canonical import with_sorted_sets
from etl.payload.decode import dumps
from etl.payload.differences import ABSENT, differences
from etl.payload.paths import path_of, usable_uuid
from tests.db.odd_documents import A, B, odd_documents, odd_texts, odd_values, pairs
from tests.unit.strategies import decoded, documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from etl.payload.decode import Json, Location
    from etl.payload.differences import Absence

Expectation = tuple["Json", str, "Json | Absence"]

UNLIKE = """
    SELECT document, path, expected, found
    FROM unnest(%s::bigint[], %s::text[], %s::jsonb[]) AS asked (place, path, expected)
    JOIN unnest(%s::jsonb[]) WITH ORDINALITY AS told (document, place) USING (place)
    CROSS JOIN LATERAL (
        SELECT anam_reporting.persona_etl_value_at(document, path) AS found OFFSET 0) AS _
    WHERE found IS DISTINCT FROM expected
"""


@pytest.fixture(scope="module")
def connection(new_database, template) -> Iterator[psycopg.Connection[Any]]:
    with new_database(template) as url, psycopg.connect(url, autocommit=True) as opened:
        yield opened


def unlike(connection: psycopg.Connection[Any], expected: Iterable[Expectation]) -> list[Any]:
    """Where the function finds something else, asked in one statement."""
    places: dict[str, int] = {}
    rows = [
        (
            places.setdefault(written(document), len(places) + 1),
            path,
            None if value is ABSENT else written(value),
        )
        for document, path, value in expected
    ]
    columns = [[row[column] for row in rows] for column in range(3)]
    return connection.execute(UNLIKE, [*columns, list(places)]).fetchall()


def written(value: Json) -> str:
    return dumps(value).decode()


many = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@given(st.lists(pairs(), min_size=3, max_size=8))
@many
def test_each_difference_is_found_in_both_documents(connection, several):
    expected: list[Expectation] = []
    for kind, old, new in several:
        before, after = with_sorted_sets(kind, old), with_sorted_sets(kind, new)
        for found in differences(kind, old, new):
            expected += [(before, found.path, found.old), (after, found.path, found.new)]
    assert unlike(connection, expected) == []


def places(value: Json, location: Location = ()) -> Iterator[tuple[Location, Json]]:
    """All locations in a value; of elements with the same id only the first has a path."""
    yield location, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*location, key))
    elif isinstance(value, list):
        seen = set()
        for index, item in enumerate(value):
            found = usable_uuid(item.get("id")) if isinstance(item, dict) else None
            if found not in seen:
                yield from places(item, (*location, index))
            seen |= {found} - {None}


@given(st.lists(odd_documents | documents["persona"], max_size=4))
@many
def test_each_place_in_a_document_is_found_by_its_path(connection, several):
    expected: list[Expectation] = [
        (document, path, value)
        for document in several
        for location, value in places(document)
        if not (path := path_of(document, location)).endswith("…")
    ]
    assert unlike(connection, expected) == []


@given(st.lists(st.tuples(odd_values, odd_texts), max_size=20))
@many
def test_no_text_is_a_path_that_fails(connection, several):
    documents_, paths = [written(decoded(d)) for d, _ in several], [decoded(p) for _, p in several]
    asked = """
        SELECT anam_reporting.persona_etl_value_at(document, path)
        FROM unnest(%s::jsonb[], %s::text[]) AS _ (document, path)
    """
    assert len(connection.execute(asked, [documents_, paths]).fetchall()) == len(several)


DOCUMENT: Any = {
    "a": {"b": None, "": 1, "0": 2, "\\": 3, '"]': 4, "a\nb": 5, "x y": 6},
    "list": ["zero", ["inner"]],
    "links": [7, {"id": B, "n": 8}, {"id": B.lower(), "n": 9}, {"id": 1}],
    A: 10,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("", DOCUMENT),
        ("a.b", None),
        ("a.c", ABSENT),
        ("a.b.c", ABSENT),
        ('a[""]', 1),
        ('a["0"]', 2),
        ("a[0]", ABSENT),
        ('a["\\\\"]', 3),
        ('a["\\"]"]', 4),
        ('a["a\nb"]', 5),
        ('a["x y"]', 6),
        ("list[0]", "zero"),
        ('list["0"]', ABSENT),
        ("list[1][0]", "inner"),
        ("list[0][0]", ABSENT),
        ("list[2]", ABSENT),
        ("list[-1]", ABSENT),
        ("list[99999999999999999999]", ABSENT),
        (f"links[{B}].n", 8),
        (f"links[{B.lower()}].n", 8),
        (f"links[{A}]", ABSENT),
        (f"a[{B}]", ABSENT),
        (f'["{A}"]', 10),
        (A, 10),
        (f"[{A}]", ABSENT),
        (".a", ABSENT),
        ("a.", ABSENT),
        ("a..b", ABSENT),
        ("a b", ABSENT),
        ("a.b\n", ABSENT),
        ('a["x y"]b', ABSENT),
        ('a["x y"', ABSENT),
        ('a["\\x y"]', ABSENT),
        ("list[0", ABSENT),
        ("list[*]", ABSENT),
        (f"{'a' * 400}…", ABSENT),
    ],
)
def test_a_path_is_read_as_it_is_written_and_anything_else_leads_nowhere(connection, path, value):
    assert unlike(connection, [(DOCUMENT, path, value)]) == []


@pytest.mark.parametrize("document", [None, "a", 1, [], [1], True])
def test_a_document_that_is_no_object_has_nothing(connection, document):
    paths = ["a", "[0].a", f"[{A}]", '["a"]']
    assert unlike(connection, [(document, path, ABSENT) for path in paths]) == []


@pytest.mark.parametrize(
    "path",
    [
        '["' * 150_000,
        '["' + '\\"' * 150_000,
        '["' + '\\"' * 150_000 + '"]',
        '["a"]' * 100_000,
        "a" + ".a" * 150_000,
        "a" * 300_000,
        "[" * 300_000,
        "a" + f"[{A}]" * 6_000,
        "\\" * 300_000,
    ],
    ids=lambda path: path[:5],
)
def test_a_long_path_takes_no_longer_than_its_length(connection, path):
    """Quadratic ones would take minutes: the server stops after ten seconds."""
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = '10s'")
        assert unlike(connection, [({"a": {"a": 1}}, path, ABSENT)]) == []


def test_as_deep_as_documents_get(connection):
    """Even where the server gives a statement little stack."""
    deep: Json = 7
    for _ in range(250):
        deep = [{"id": A, "a": deep}]
    with connection.transaction():
        connection.execute(
            "CREATE TEMPORARY TABLE deep ON COMMIT DROP AS SELECT %s::jsonb AS deep",
            [written(deep)],
        )
        connection.execute("SET LOCAL max_stack_depth = '100kB'")
        found = connection.execute(
            "SELECT anam_reporting.persona_etl_value_at(deep, %s) FROM deep", [f"[{A}].a" * 250]
        ).fetchone()
    assert found == (7,)


@pytest.mark.parametrize(
    "setting",
    [
        "SET LOCAL standard_conforming_strings = off",
        "SET LOCAL search_path = pg_temp",
        "SET LOCAL plan_cache_mode = force_generic_plan",
    ],
)
def test_it_does_not_hang_on_the_session(connection, setting):
    with connection.transaction():
        connection.execute(setting)
        paths = ['a["\\\\"]', 'a["\\"]"]', f"links[{B}].n"]
        expected: list[Expectation] = [
            (DOCUMENT, path, value) for path, value in zip(paths, [3, 4, 8], strict=True)
        ]
        assert unlike(connection, expected) == []
