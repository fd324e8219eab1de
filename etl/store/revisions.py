"""Which revisions this program has, and which of them a schema is at.

Every command asks that, and only those that migrate need Alembic, whose import takes longer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

import etl
from etl.errors import DatabaseError
from etl.store.engine import quote_identifier, translated
from etl.store.revision_files import read_revisions
from etl.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

# Says where the local history is, as alembic_version does for the release's.
LOCAL_TABLE = "alembic_version_local"

_STRANGERS = sa.text("""
    SELECT c.relname
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = :schema AND c.relname = ANY (:names)
     ORDER BY c.relname
""")


def installed_in() -> Path:
    """Where alembic.ini and migrations/ are: in the package of a wheel, else in the checkout."""
    package = Path(etl.__file__).parent
    for folder in (package, package.parent):
        if (folder / "alembic.ini").exists() and (folder / "migrations").exists():
            return folder
    raise DatabaseError(f"no migrations in {package} or beside it; install persona-etl again")


def known_revisions() -> Sequence[str]:
    """The revisions of this program, from the first to the newest."""
    versions = installed_in() / "migrations" / "versions"
    known = [one.revision for one in read_revisions(versions)] if versions.exists() else []
    if not known:
        raise DatabaseError("no revisions were installed; install persona-etl again")
    return known


def head_revision() -> str:
    """The newest revision of this program."""
    return known_revisions()[-1]


def current_and_head(engine: sa.Engine, schema: str) -> tuple[str | None, str]:
    """The revision that `schema` is at, None before the first `migrate`; and the newest known."""
    with translated(), engine.connect() as connection:
        visible = sa.text(
            "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :schema"
        )
        if connection.execute(visible, {"schema": schema}).scalar() is False:
            raise DatabaseError(
                f"schema {schema}: the role in database.url may not use it;"
                f" its owner can GRANT USAGE ON SCHEMA {quote_identifier(schema)}"
            )
        current = current_revision(connection)
    return current, head_revision()


def current_revision(
    connection: sa.Connection, version_table: str = "alembic_version"
) -> str | None:
    """The revision that a history is at, by its table; None before its first."""
    if connection.scalar(sa.select(sa.func.to_regclass(version_table))) is None:
        return None
    rows = connection.scalars(sa.text(f"SELECT version_num FROM {version_table}")).all()  # noqa: S608  a name of ours
    if len(rows) > 1:
        raise DatabaseError(
            f"{version_table} has more than one row; restore the one revision that was run last"
        )
    return rows[0] if rows else None


def refuse_strangers(connection: sa.Connection, schema: str) -> None:
    """Raises when a schema that no revision has made has relations of the names of ours."""
    if current_revision(connection) is not None:
        return
    ours = [*metadata.tables, LOCAL_TABLE]
    names = connection.execute(_STRANGERS, {"schema": schema, "names": ours})
    if found := ", ".join(names.scalars()):
        raise DatabaseError(
            f"schema {schema} has {found} already, and no revision of persona-etl in it;"
            " name another in database.schema"
        )


def require_head(engine: sa.Engine, schema: str) -> None:
    """Raises a DatabaseError that tells what to do, unless `schema` is at the head."""
    current, head = current_and_head(engine, schema)
    if current == head:
        return
    if current is None:
        with translated(), engine.connect() as connection:
            refuse_strangers(connection, schema)
        raise DatabaseError(f"schema {schema} has no tables yet; run `persona-etl migrate`")
    refuse_unknown(current, schema)
    raise DatabaseError(
        f"schema {schema} is at revision {current}, this program needs {head};"
        " run `persona-etl migrate`"
    )


def refuse_unknown(current: str | None, schema: str) -> None:
    """Raises when a newer release, or another program, has migrated the schema."""
    if current is not None and current not in known_revisions():
        raise DatabaseError(
            f"schema {schema} is at revision {current}, which this program does not know;"
            " install the persona-etl that made it, or name another in database.schema"
        )
