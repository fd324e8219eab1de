"""The database says the same as the data dictionary: comments, types and keys."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from etl.map import SHIPPED
from etl.report.catalogue import all_functions, all_views
from etl.report.ours import MARK, name
from etl.report.schema_page import schema_page
from etl.report.view_columns import view_key
from tests.unit.test_schema_page import cells, read

if TYPE_CHECKING:
    from sqlalchemy import Engine

COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod) AS type, NOT attnotnull AS may_be_null,
           col_description(attrelid, attnum) AS comment, obj_description(attrelid) AS about
      FROM pg_attribute
     WHERE attrelid = CAST(:relation AS regclass) AND attnum > 0 AND NOT attisdropped
     ORDER BY attnum
"""
FUNCTIONS = """
    SELECT proname, obj_description(oid, 'pg_proc') FROM pg_proc
     WHERE pronamespace = CAST('anam_reporting' AS regnamespace)
"""


def catalogue(engine: Engine, statement: str, **values: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text(statement), values))


def above(page: str, heading: str) -> str:
    """The paragraph below a heading."""
    return read(page.split(f"\n### {heading}\n\n", 1)[1].split("\n", 1)[0])


def in_full(type_: str) -> str:
    return type_.replace("timestamptz", "timestamp with time zone")


def test_the_tables_are_what_the_dictionary_says(engine) -> None:
    page = schema_page()
    for table in SHIPPED.tables:
        there = catalogue(engine, COLUMNS, relation=f"anam.{table}")
        # A column that came later stands last in the table.
        assert sorted(
            (called.removesuffix(" °"), in_full(type_), null == "yes", comment)
            for called, type_, null, *_, comment in cells(page, f"Table `{table}`")
        ) == sorted((row.attname, row.type, row.may_be_null, row.comment) for row in there)
        assert {row.about for row in there} == {above(page, f"Table `{table}`")}


def test_the_views_are_what_the_dictionary_says(engine) -> None:
    page = schema_page()
    for view in all_views():
        there = catalogue(engine, COLUMNS, relation=f"anam_reporting.{view.name}")
        told = cells(page, f"View `{view.name}`")
        assert [
            (called.removesuffix(" °"), in_full(type_), comment)
            for called, type_, _, comment in told
        ] == [(row.attname, row.type, row.comment) for row in there], view.name
        about = f"{above(page, f'View `{view.name}`')} {MARK}"
        # Which release made them is in the database alone.
        release = f" Of persona-etl {version('persona-etl')}."
        assert {row.about.replace(release, "") for row in there} == {about}


def test_the_functions_are_what_the_dictionary_says(engine) -> None:
    page = schema_page()
    there = dict(map(tuple, catalogue(engine, FUNCTIONS)))
    assert there == {
        function.name: f"{above(page, f'Function `{function.name}`')} {MARK}"
        for function in all_functions()
    }


def test_no_table_or_view_is_left_out(engine) -> None:
    statement = """
        SELECT relname FROM pg_class
         WHERE relnamespace = CAST(:schema AS regnamespace) AND relkind IN ('r', 'v', 'm', 'p')
    """
    tables = {row.relname for row in catalogue(engine, statement, schema="anam")}
    views = {row.relname for row in catalogue(engine, statement, schema="anam_reporting")}
    assert {table for table in tables if not table.startswith("alembic_")} == {*SHIPPED.tables}
    assert views == {view.name for view in all_views()}


def test_the_keys_of_views_tell_their_rows_apart(target) -> None:
    target.world.edit(target.world.persona_ids[0], {"brain": {"systemPrompt": "Be brief."}})
    target.sync(target.world.persona_ids)
    for view in all_views():
        key = view_key(view)
        assert (key == ()) == (view.name == "changes")
        if key:
            (row,) = target.query(
                f"""SELECT count(*) AS rows, count(DISTINCT ({", ".join(map(name, key))})) AS keys,
                           count(*) FILTER (WHERE num_nulls({", ".join(map(name, key))}) > 0) AS odd
                      FROM anam_reporting.{view.name}"""
            )
            assert (row["keys"], row["odd"]) == (row["rows"], 0), view.name
