"""Lines of the map that a target has of its own: made by plain SQL, as a local revision would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from psycopg.sql import Literal

from etl.jobs.migrate import migrate
from etl.map import VALUE, Line, extended
from etl.store.engine import make_engine, quote_identifier
from etl.store.migration import run_script

if TYPE_CHECKING:
    from etl.tables import Kind

_ENTER = sa.text("""
    INSERT INTO local_columns (table_name, column_name, kind, path, type, json_types, comment,
                               revision)
    VALUES (:table, :column, :kind, :path, :type, :json_types, :comment, 'local_0001')
""")


def line(
    kind: Kind,
    path: str,
    table: str,
    type_: str = "text",
    *,
    column: str = VALUE,
    json_types: tuple[str, ...] = (),
) -> Line:
    """A line; without a column that of a list, in a table of its own."""
    return Line(kind, path, table, column, type_, json_types, f"What {path} says.")


def add_lines(url: str, *lines: Line, schema: str = "anam") -> None:
    """Makes the columns and tables, enters the lines, and makes the views anew."""
    engine = make_engine(url, schema)
    with engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE local_columns IN ACCESS EXCLUSIVE MODE"))
        for added in lines:
            if added.is_list:
                extended(lines).tables[added.table].create(connection)
            else:
                column, comment = quote_identifier(added.column), Literal(added.comment)
                for statement in (
                    f"ALTER TABLE {added.table} ADD COLUMN {column} {added.type}",
                    f"COMMENT ON COLUMN {added.table}.{column} IS {comment.as_string()}",
                ):
                    run_script(connection, statement)
            values = {name: getattr(added, name) for name in Line.__slots__}
            connection.execute(_ENTER, values | {"json_types": list(added.json_types)})
    migrate(engine, schema)
    engine.dispose()


def drop_lines(url: str, *lines: Line, schema: str = "anam") -> None:
    """Takes back what `add_lines` did, but for the views."""
    engine = make_engine(url, schema)
    with engine.begin() as connection:
        for dropped in lines:
            table = quote_identifier(dropped.table)
            gone = f"DROP COLUMN {quote_identifier(dropped.column)}"
            run_script(
                connection,
                f"DROP TABLE {table}" if dropped.is_list else f"ALTER TABLE {table} {gone}",
            )
            statement = sa.text(
                "DELETE FROM local_columns WHERE (table_name, column_name) = (:table, :column)"
            )
            connection.execute(statement, {"table": dropped.table, "column": dropped.column})
    engine.dispose()
