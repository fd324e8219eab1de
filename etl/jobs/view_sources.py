"""What a view is read from by whoever may be the tables' owner, or a reader of the views alone."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from etl.errors import DatabaseError
from etl.report.ours import in_schema, name, reporting_schema
from etl.store.standing import relations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from etl.report.views import View


def sources_of(
    connection: Connection,
    schema: str,
    tables: Mapping[str, bool],
    views: Sequence[View],
    read: Iterable[str],
) -> dict[str, str]:
    """What stands for the views: the tables, when the role may read them, as views may be older.

    Args:
        connection: Of the role.
        schema: That of the tables.
        tables: Those that are there, and whether the role may read each.
        views: Of the reporting schema.
        read: The tables that they read.

    Raises:
        DatabaseError: the role may read neither.
    """
    reporting = reporting_schema(schema)
    if all(tables.get(table) for table in read):
        return {view.name: f"({in_schema(view.query, schema)})" for view in views}
    readable = relations(connection, reporting)
    if not all(readable.get(view.name) for view in views):
        role = connection.exec_driver_sql("SELECT current_user").scalar_one()
        raise DatabaseError(
            f"role {role} may read neither the tables in {schema} nor the views in {reporting};"
            f" as their owner run `persona-etl migrate --grant-reader {shlex.quote(role)}`"
        )
    # A colon in a schema's name starts no parameter.
    prefix = name(reporting).replace(":", r"\:")
    return {view.name: f"{prefix}.{name(view.name)}" for view in views}
