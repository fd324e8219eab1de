"""Brings a schema to the head of the revisions, and tells where it stands.

The revisions and their environment are in `migrations/`; the views are built elsewhere.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.schema import CreateSchema
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

import etl
from etl.errors import DatabaseError, LockedError
from etl.store.engine import quote_identifier, translated
from etl.store.lock import lock_key

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long another `migrate` may keep us waiting.
_LOCK_SECONDS = 60
# A DDL statement that waits for a table makes everybody else wait behind it: give up soon and
# come back, leaving the readers a gap.
_TABLE_LOCK_TIMEOUT = "5s"
_ATTEMPTS = 5
_PAUSE_SECONDS = 2


def alembic_config() -> Config:
    """Alembic's configuration: in the package when installed from a wheel, else in the checkout."""
    package = Path(etl.__file__).parent
    for folder in (package, package.parent):
        if (folder / "alembic.ini").exists() and (folder / "migrations").exists():
            return Config(folder / "alembic.ini")
    raise DatabaseError(f"no migrations in {package} or beside it; install persona-etl again")


def upgrade(engine: sa.Engine, schema: str) -> None:
    """Create `schema` if it is missing and run what revisions it lacks, a transaction each.

    Raises DatabaseError, or LockedError while another `migrate` runs. What was committed before
    stays, so running it again goes on from there.
    """
    config = alembic_config()
    with migrating(engine, schema) as connection:
        config.attributes.update(connection=connection, schema=schema)
        with connection.begin():
            _refuse_unknown(_current(connection), schema)
        for attempt in Retrying(
            retry=retry_if_exception(_is_lock_timeout),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_fixed(_PAUSE_SECONDS),
            reraise=True,
        ):
            with attempt:
                command.upgrade(config, "heads")


def upgrade_sql(schema: str, since: str = "base") -> str:
    """The SQL of the revisions after `since`, for somebody else to run in one session."""
    config = alembic_config()
    config.attributes.update(schema=schema)
    config.output_buffer = written = StringIO()
    command.upgrade(config, f"{since}:heads", sql=True)
    return written.getvalue()


def session_sql(schema: str) -> list[str]:
    """What precedes the revisions when they are run as a script."""
    return [
        f"CREATE SCHEMA IF NOT EXISTS {quote_identifier(schema)};",
        f"SET search_path TO {quote_identifier(schema)};",
        f"SET lock_timeout TO '{_TABLE_LOCK_TIMEOUT}';",
    ]


@contextmanager
def migrating(engine: sa.Engine, schema: str) -> Iterator[sa.Connection]:
    """A connection, not in a transaction, that alone may migrate `schema`, which exists."""
    with translated(), engine.connect() as connection:
        connection.execute(
            sa.select(
                sa.func.set_config("lock_timeout", _TABLE_LOCK_TIMEOUT, False),  # noqa: FBT003
                # A revision may rewrite a big table; a role's own limit is meant for queries.
                sa.func.set_config("statement_timeout", "0", False),  # noqa: FBT003
                sa.func.set_config("idle_in_transaction_session_timeout", "0", False),  # noqa: FBT003
            )
        )
        connection.commit()
        _lock(connection, schema)
        # Asked first, since even IF NOT EXISTS needs a privilege on the database.
        named = sa.text("SELECT count(*) FROM pg_namespace WHERE nspname = :schema")
        if not connection.execute(named, {"schema": schema}).scalar_one():
            connection.execute(CreateSchema(schema))
        connection.commit()
        yield connection


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
        current = _current(connection)
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if head is None:
        raise DatabaseError("no revisions were installed; install persona-etl again")
    return current, head


def require_head(engine: sa.Engine, schema: str) -> None:
    """Raise a DatabaseError that tells what to do, unless `schema` is at the head."""
    current, head = current_and_head(engine, schema)
    if current == head:
        return
    if current is None:
        raise DatabaseError(f"schema {schema} has no tables yet; run `persona-etl migrate`")
    _refuse_unknown(current, schema)
    raise DatabaseError(
        f"schema {schema} is at revision {current}, this program needs {head};"
        " run `persona-etl migrate`"
    )


def _lock(connection: sa.Connection, schema: str) -> None:
    """Take the migration lock, for as long as the connection lives.

    Polled, not awaited: a session that waits is a transaction that CREATE INDEX CONCURRENTLY
    waits for, in the very migration that holds the lock.
    """
    take = sa.select(sa.func.pg_try_advisory_lock(lock_key(schema, "migrate")))
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        taken = connection.execute(take).scalar_one()
        connection.commit()
        if taken:
            return
        if time.monotonic() > deadline:
            raise LockedError(f"schema {schema}: another migrate is running; wait for it to end")
        time.sleep(0.25)


def _current(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_unknown(current: str | None, schema: str) -> None:
    """Raise when a newer release has migrated the schema: its revisions are not ours to judge."""
    if current is None:
        return
    try:
        ScriptDirectory.from_config(alembic_config()).get_revision(current)
    except CommandError as exc:
        raise DatabaseError(
            f"schema {schema} is at revision {current}, which is newer than this program;"
            " install the persona-etl that migrated it, or a later one"
        ) from exc


def _is_lock_timeout(exc: BaseException) -> bool:
    return isinstance(exc, sa.exc.DBAPIError) and isinstance(
        exc.orig, psycopg.errors.LockNotAvailable
    )
