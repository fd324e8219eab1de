"""What a role needs that reads the reports, and one that runs `sync`, as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from etl.errors import UsageError
from etl.map import SHIPPED
from etl.report.catalogue import all_functions, all_views
from etl.report.ours import reporting_schema
from etl.settings import BODY_TAG
from etl.store.engine import quote_identifier, translated
from etl.store.migration import quote_literal
from etl.store.revisions import LOCAL_TABLE
from etl.tables import local_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etl.map import Map

_ONLY_READ = """DO {tag}
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT DISTINCT format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON %s FROM %s',
               pg_class.oid::regclass,
               CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
          FROM pg_class, aclexplode(relacl)
         WHERE pg_class.oid IN (to_regclass({lines}), to_regclass({local}))
           AND grantee <> relowner
           AND privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
        UNION ALL
        SELECT DISTINCT format('GRANT SELECT ON %s TO %s', to_regclass({local}),
               CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
          FROM pg_class, aclexplode(relacl)
         WHERE pg_class.oid = to_regclass({shipped}) AND to_regclass({local}) IS NOT NULL
           AND grantee <> relowner AND privilege_type = 'SELECT'
    LOOP
        EXECUTE statement;
    END LOOP;
END
{tag};"""


def reader_grants(schema: str, role: str) -> list[str]:
    """The views and functions, and those of later releases; nothing in `schema` itself.

    That everybody may call a function is only a default, which many databases take back.
    """
    name, reporting = quote_identifier(role), quote_identifier(reporting_schema(schema))
    views = ", ".join(f"{reporting}.{quote_identifier(view.name)}" for view in all_views())
    functions = ", ".join(f"{reporting}.{function.signature}" for function in all_functions())
    later = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {reporting} GRANT"
    return [
        f"GRANT USAGE ON SCHEMA {reporting} TO {name};",
        f"GRANT SELECT ON {views} TO {name};",
        f"GRANT EXECUTE ON FUNCTION {functions} TO {name};",
        f"{later} SELECT ON TABLES TO {name};",
        f"{later} EXECUTE ON FUNCTIONS TO {name};",
    ]


def writer_grants(schema: str, role: str, the_map: Map = SHIPPED) -> list[str]:
    """The tables, and those of later revisions; what says where the schema stands is only read."""
    name, tables = quote_identifier(role), quote_identifier(schema)
    written = ", ".join(
        f"{tables}.{quote_identifier(table)}"
        for table in the_map.tables
        if table != local_columns.name
    )
    rights = "SELECT, INSERT, UPDATE, DELETE"
    return [
        f"GRANT USAGE ON SCHEMA {tables} TO {name};",
        f"GRANT {rights} ON {written} TO {name};",
        f"GRANT SELECT ON {tables}.alembic_version, {tables}.local_columns TO {name};",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA {tables} GRANT {rights} ON TABLES TO {name};",
    ]


def only_read(schema: str) -> str:
    """Takes back what writers got by default on later tables: only `migrate` moves a history.

    Who may read where the release's stands may read where the local one does.
    """
    return _ONLY_READ.format(
        tag=BODY_TAG,
        lines=quote_literal(f"{quote_identifier(schema)}.local_columns"),
        shipped=quote_literal(f"{quote_identifier(schema)}.alembic_version"),
        local=quote_literal(f"{quote_identifier(schema)}.{LOCAL_TABLE}"),
    )


def require_roles(engine: sa.Engine, roles: Sequence[str]) -> None:
    """Raises a UsageError that names the roles which are not there."""
    with translated(), engine.connect() as connection:
        present = set(connection.execute(sa.text("SELECT rolname FROM pg_roles")).scalars())
    missing = [role for role in dict.fromkeys(roles) if role not in present]
    if missing:
        raise UsageError(
            f"no such role in Postgres: {', '.join(missing)};"
            f" make it first, e.g. CREATE ROLE {quote_identifier(missing[0])} LOGIN"
        )
