"""The map in force at a target, as a reader learns it: from the reporting views alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import text

from etl.errors import DatabaseError
from etl.jobs.view_session import reading_views
from etl.map import Line, extended

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from etl.map import Map

# Of a list the key and the place are local too; they have no path.
_ADDED: Final = text("""
    SELECT table_name, column_name, type, comment, kind, path
      FROM dictionary
     WHERE is_local AND path IS NOT NULL AND schema_name || '_reporting' = current_schema()
     ORDER BY table_name, column_name
""")


def local_map(url: str, schema: str) -> Map:
    """The release's map with the lines that were added there, as of the last `migrate`.

    Which JSON types a line takes no view tells: it takes any. Raises DatabaseError when the views
    are not there, or not to be read.
    """
    with reading_views(url, schema) as connection:
        rows = connection.execute(_ADDED).mappings().all()
    try:
        return extended(tuple(map(_line, rows)))
    except ValueError as exc:
        told = f"schema {schema}: a local column is no longer what its line says: {exc}"
        raise DatabaseError(f"{told}; put it back, then run `persona-etl migrate`") from exc


def _line(row: RowMapping) -> Line:
    return Line(
        kind=cast("Any", row["kind"]),
        path=row["path"],
        table=row["table_name"],
        column=row["column_name"],
        type=row["type"].replace("timestamp with time zone", "timestamptz"),
        json_types=(),
        comment=row["comment"] or "",
    )
