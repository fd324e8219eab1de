"""Which map is in force at a target: it travels with the target's connections.

An engine that comes out of `at_head` hands its map to each of its connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, text

from etl.errors import DatabaseError
from etl.map import SHIPPED, extended, lines_of
from etl.store.engine import translated
from etl.store.revisions import require_head
from etl.tables import local_columns

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from etl.map import Map

_STAMP = text("""
    SELECT version_num FROM alembic_version
    UNION ALL
    SELECT concat_ws(' ', table_name, column_name, kind, path, type) FROM local_columns
     ORDER BY 1
""")
_AS_IT_IS = text("""
    SELECT line.table_name, line.column_name, line.type,
           format_type(attribute.atttypid, attribute.atttypmod) AS found
      FROM local_columns AS line
      LEFT JOIN pg_attribute AS attribute
        ON attribute.attrelid = to_regclass(quote_ident(line.table_name))
       AND attribute.attname = line.column_name AND NOT attribute.attisdropped
     WHERE attribute.atttypid IS DISTINCT FROM to_regtype(line.type)
     ORDER BY line.table_name, line.column_name
""")
_OPTION = "persona_etl_map"


def at_head(engine: Engine, schema: str) -> Engine:
    """The engine with the map that is in force. Raises DatabaseError unless `schema` is at head."""
    require_head(engine, schema)
    with translated(), engine.connect() as connection:
        return engine.execution_options(**{_OPTION: read_map(connection)})


def read_map(connection: Connection) -> Map:
    """The release's map with the lines that were added at this target.

    Raises DatabaseError when somebody has written a line there that is none, or has altered or
    dropped its column.
    """
    rows = connection.execute(select(local_columns)).mappings()
    try:
        the_map = extended(lines_of(dict(row) for row in rows))
    except ValueError as exc:
        raise DatabaseError(f"local_columns: {exc}; correct the line or delete it") from exc
    if the_map.lines:
        _require_columns(connection, the_map)
    return the_map


def _require_columns(connection: Connection, the_map: Map) -> None:
    local = {(line.table, line.column) for line in the_map.lines}
    for table, column, type_, found in connection.execute(_AS_IT_IS):
        if (table, column) in local:
            raise DatabaseError(
                f"{table}.{column} is {found or 'gone'}, but {type_} in local_columns; put it back,"
                " or delete that line; then run `persona-etl migrate`"
            )


def keep_map(connection: Connection) -> tuple[str, ...]:
    """Gives this connection the map that is in force now. Returns the schema's stamp."""
    connection.execution_options(**{_OPTION: read_map(connection)})
    return stamp_of(connection)


def map_of(connection: Connection) -> Map:
    """The map of a connection's engine; the release's own where nobody has asked for one."""
    found: Map = connection.get_execution_options().get(_OPTION, SHIPPED)
    return found


def stamp_of(connection: Connection) -> tuple[str, ...]:
    """What tells one state of the schema from another: `migrate` has been at work in between.

    A revision that adds a column locks `local_columns` first. So what is read here holds until the
    end of the transaction.
    """
    return tuple(connection.execute(_STAMP).scalars())
