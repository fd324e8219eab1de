"""What the role in database.url finds, and what it may do there. Reads the catalog, writes nothing.

Which privileges `sync` and `backfill api` need on which table is written down here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from etl.map import SHIPPED
from etl.store.engine import translated
from etl.store.mapped import read_map
from etl.store.migration import run_script
from etl.tables import (
    document_versions,
    documents,
    local_columns,
    observations,
    rejected_payloads,
    run_items,
    unfolded,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

    from etl.map import Map

# What was seen and what was done is added to, never altered; but `backfill api` lists whom it is
# going to ask for among the items, and puts what became of them in the place of that.
_ONLY_ADDED_TO = {documents.name, observations.name, run_items.name, rejected_payloads.name}
# A late observation makes a history anew, and what is folded waits no more.
_TAKEN_FROM = {document_versions.name, run_items.name, unfolded.name}

# What to do about a table that was dropped: no revision makes it twice.
PUT_BACK = "somebody has dropped that; restore it from a backup"

_SERVER = sa.text("""
    SELECT split_part(current_setting('server_version'), ' ', 1) AS version,
           current_setting('server_version_num')::integer / 10000 AS major,
           current_setting('transaction_read_only') = 'on' AS read_only,
           current_database() AS database,
           current_user AS role
""")

_SCHEMA = sa.text("""
    SELECT n.oid IS NOT NULL AS exists,
           EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid
                                               AND c.relname = 'persona_sync_state') AS has_tables,
           coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS may_use,
           coalesce(has_schema_privilege(n.oid, 'CREATE'),
                    has_database_privilege(current_database(), 'CREATE'))
           AND coalesce(has_schema_privilege(r.oid, 'CREATE'),
                        has_database_privilege(current_database(), 'CREATE'))
           AND NOT EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace IN (n.oid, r.oid)
                                                       AND NOT pg_has_role(c.relowner, 'USAGE'))
           AS may_migrate
      FROM (VALUES (:schema, :reporting)) AS wanted(name, reporting)
      LEFT JOIN pg_namespace AS n ON n.nspname = wanted.name
      LEFT JOIN pg_namespace AS r ON r.nspname = wanted.reporting
""")

_LACKING = sa.text("""
    SELECT needed.privilege, needed.name
      FROM unnest(CAST(:names AS text[]), CAST(:privileges AS text[]))
           WITH ORDINALITY AS needed(name, privilege, position)
      JOIN (pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace)
        ON c.relname = needed.name AND n.nspname = :schema
     WHERE NOT has_table_privilege(c.oid, needed.privilege)
     ORDER BY needed.position
""")

_ABSENT = sa.text("""
    SELECT DISTINCT CASE WHEN c.oid IS NULL THEN wanted.name
                         ELSE wanted.name || '.' || wanted.member END
      FROM unnest(CAST(:names AS text[]), CAST(:members AS text[])) AS wanted(name, member)
      LEFT JOIN (pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace)
        ON c.relname = wanted.name AND n.nspname = :schema
      LEFT JOIN pg_attribute AS a
        ON a.attrelid = c.oid AND a.attname = wanted.member AND NOT a.attisdropped
     WHERE a.attnum IS NULL
     ORDER BY 1
""")


# Before revision 0002 there is no such table.
_LINES_READABLE = sa.text("""
    SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relname = 'local_columns' AND n.nspname = :schema
""")


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers at database.url, and as whom we are there."""

    version: str
    major: int
    read_only: bool
    database: str
    role: str


@dataclass(frozen=True, slots=True)
class Access:
    """What the role may do with a schema.

    `lacking`: (privilege, table) that are needed; `absent`: as `absent_from` has it.
    """

    exists: bool
    has_tables: bool
    may_use: bool
    may_migrate: bool
    lacking: list[tuple[str, str]]
    absent: list[str]


def look_at_server(engine: Engine) -> Server:
    """Who answers there, and as whom we are in. Raises DatabaseError."""
    with translated(), engine.connect() as connection:
        return Server(**connection.execute(_SERVER).mappings().one())


def look_at_schema(engine: Engine, schema: str, reporting: str) -> Access:
    """What the role may do with `schema`, which need not be there, nor the one of its views.

    Raises DatabaseError.
    """
    with translated(), engine.connect() as connection:
        readable = connection.scalar(_LINES_READABLE, {"schema": schema})
        the_map = read_map(connection) if readable else SHIPPED
        needed = [
            (table.name, privilege)
            for table in the_map.metadata.sorted_tables
            for privilege in needed_privileges(table, the_map)
        ]
        names, privileges = zip(*needed, strict=True)
        asked: dict[str, object] = {"schema": schema, "reporting": reporting}
        asked |= {"names": [*names], "privileges": [*privileges]}
        row = connection.execute(_SCHEMA, asked).mappings().one()
        lacking = connection.execute(_LACKING, asked)
        return Access(
            **row,
            lacking=[(privilege, name) for privilege, name in lacking],
            absent=absent_from(connection, schema, the_map),
        )


def absent_from(connection: Connection, schema: str, the_map: Map = SHIPPED) -> list[str]:
    """Tables of the map that `schema` has not got, and columns as `table.column`.

    At the head of the revisions there are none, unless somebody has dropped them.
    """
    columns = [
        (table.name, column.name)
        for table in the_map.metadata.sorted_tables
        for column in table.columns
    ]
    names, members = zip(*columns, strict=True)
    asked = {"schema": schema, "names": [*names], "members": [*members]}
    return list(connection.execute(_ABSENT, asked).scalars())


def views_there(engine: Engine, query: str) -> set[str]:
    """The names that a query gives, which asks for our views."""
    with translated(), engine.connect() as connection:
        return set(run_script(connection, query).scalars())


def needed_privileges(table: Table, the_map: Map = SHIPPED) -> list[str]:
    """What `sync` and `backfill api` need on a table. The map's lines are revisions' alone."""
    if table.name == local_columns.name:
        return ["SELECT"]
    projected = {one.name for one in the_map.projections()}
    is_taken_from = table.name in projected and the_map.origin(table).shape != "entity"
    return [
        "SELECT",
        "INSERT",
        *(["UPDATE"] if table.name not in _ONLY_ADDED_TO else []),
        *(["DELETE"] if is_taken_from or table.name in _TAKEN_FROM else []),
    ]
