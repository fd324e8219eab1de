"""What a role needs that reads the reports, and one that runs `sync`, as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from etl.errors import UsageError
from etl.report.catalogue import all_functions, all_views
from etl.report.ours import reporting_schema
from etl.store.engine import quote_identifier, translated
from etl.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def writer_grants(schema: str, role: str) -> list[str]:
    """The tables, and those of later releases; which revision they are at may only be read."""
    name, tables = quote_identifier(role), quote_identifier(schema)
    written = ", ".join(f"{tables}.{quote_identifier(table)}" for table in metadata.tables)
    rights = "SELECT, INSERT, UPDATE, DELETE"
    return [
        f"GRANT USAGE ON SCHEMA {tables} TO {name};",
        f"GRANT {rights} ON {written} TO {name};",
        f"GRANT SELECT ON {tables}.alembic_version TO {name};",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA {tables} GRANT {rights} ON TABLES TO {name};",
    ]


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
