"""Brings a schema to the head of the revisions.

The revisions and their environment are in `migrations/`; the views are built elsewhere.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from psycopg.sql import Literal
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_fixed

from etl.errors import LockedError, UsageError
from etl.settings import BODY_TAG
from etl.store.engine import quote_identifier, translated
from etl.store.lock import current_migrator, lock_key
from etl.store.revision_files import BASE
from etl.store.revisions import (
    LOCAL_TABLE,
    current_revision,
    installed_in,
    known_revisions,
    refuse_unknown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

# How long another `migrate` may keep us waiting.
LOCK_SECONDS: float = 60
# A DDL statement that waits for a table makes everybody else wait behind it: give up soon and
# come back, leaving the readers a gap.
_TABLE_LOCK_TIMEOUT = "5s"
_ATTEMPTS = 5
_PAUSE_SECONDS = 2

_CREATE_SCHEMA = """DO {tag}
BEGIN
    IF EXISTS (SELECT FROM pg_namespace WHERE nspname = {literal}) THEN
        RETURN;
    END IF;
    IF NOT has_database_privilege(current_database(), 'CREATE') THEN
        RAISE insufficient_privilege USING MESSAGE = format(
            'role %1$I may not create schema %2$I; as one that may, run'
            || ' CREATE SCHEMA %2$I AUTHORIZATION %1$I', current_user, {literal});
    END IF;
    CREATE SCHEMA {name};
END
{tag};"""

_CHECK = """DO {tag}
DECLARE
    present text;
BEGIN
    IF NOT pg_try_advisory_lock({key}) THEN
        RAISE EXCEPTION 'another migrate is running; run this when it is done';
    END IF;
{stands}
END
{tag};"""

_STANDS = """
    present := NULL;
    IF to_regclass('{table}') IS NOT NULL THEN
        SELECT string_agg(version_num, ', ') FROM {table} INTO present;
    END IF;
    IF coalesce(present, 'base') <> {since} THEN
        RAISE EXCEPTION 'the {what} is at revision %, this script starts at %; print it again',
            coalesce(present, 'base'), {since};
    END IF;
"""

# A table of lines that went down and came up again would be empty, and the columns not filled.
_LOCAL_ENDS = """DO {tag}
BEGIN
    IF to_regclass('local_columns') IS NULL AND to_regclass('{table}') IS NOT NULL THEN
        IF EXISTS (SELECT FROM {table}) THEN
            RAISE EXCEPTION USING MESSAGE = 'local revisions stand on what this takes away; '
                || 'run `persona-etl migrate --local-to base` first';
        END IF;
        DROP TABLE {table};
    END IF;
END
{tag};"""


def alembic_config() -> Config:
    """Alembic's configuration of the release's own revisions."""
    return Config(installed_in() / "alembic.ini")


def upgrade(connection: sa.Connection, schema: str) -> None:
    """Runs the revisions that `schema` lacks, a transaction each, inside of `migrating`.

    What was committed before a failure stays, so running it again goes on from there.
    """
    config = alembic_config()
    config.attributes.update(connection=connection, schema=schema)
    with connection.begin():
        refuse_unknown(current_revision(connection), schema)
    patiently(lambda: command.upgrade(config, "heads"))
    # When there is nothing to run, Alembic leaves the transaction open in which it looked.
    connection.rollback()


def upgrade_sql(schema: str, since: str = BASE, local_since: str | None = None) -> str:
    """The SQL of the revisions after `since`, for somebody else to run in one session.

    With `local_since` it stops at once where the local history is at another revision. Raises
    UsageError when there is no such revision as `since`.
    """
    config = alembic_config()
    if since not in {BASE, *known_revisions()}:
        raise UsageError(
            f"{since}: no revision of this program; write base or one of its revisions"
        )
    config.attributes.update(schema=schema, local_since=local_since)
    return offline_sql(config, command.upgrade, f"{since}:heads")


def offline_sql(config: Config, move: Callable[..., None], span: str) -> str:
    """What Alembic's upgrade or downgrade prints for the revisions from:to."""
    config.output_buffer = written = StringIO()
    move(config, span, sql=True)
    return written.getvalue()


def session_sql(schema: str, since: str, local_since: str | None = None) -> list[str]:
    """What precedes the revisions when they are run as a script, which may lie around for weeks."""
    stands = _STANDS.format(table="alembic_version", what="schema", since=quote_literal(since))
    if local_since is not None:
        stands += _STANDS.format(
            table=LOCAL_TABLE, what="local history", since=quote_literal(local_since)
        )
    return [
        *_session_settings(),
        create_schema_sql(schema),
        f"SET search_path = {quote_identifier(schema)};",
        _CHECK.format(tag=BODY_TAG, key=lock_key(schema, "migrate"), stands=stands.strip("\n")),
    ]


def session_end_sql(schema: str) -> str:
    """What follows the last statement of a script, as its session may go on."""
    key = lock_key(schema, "migrate")
    return f"DO $done$ BEGIN PERFORM pg_advisory_unlock({key}); END $done$;"


def local_ends_sql() -> str:
    """What follows a downgrade: none leaves a local history behind that has lost its lines."""
    return _LOCAL_ENDS.format(tag=BODY_TAG, table=LOCAL_TABLE)


def create_schema_sql(schema: str) -> str:
    """Makes a schema unless it is there. IF NOT EXISTS always needs a right on the database."""
    return _CREATE_SCHEMA.format(
        tag=BODY_TAG, literal=quote_literal(schema), name=quote_identifier(schema)
    )


def quote_literal(text: str) -> str:
    """A text as SQL spells it."""
    return Literal(text).as_string()


def run_script(connection: sa.Connection, script: str) -> sa.CursorResult[*tuple[Any, ...]]:
    """Runs SQL as it stands: no colon and no percent sign in it means anything."""
    return connection.exec_driver_sql(script, execution_options={"no_parameters": True})


def patiently(work: Callable[[], None]) -> None:
    """Does work that locks tables or views; again after a while when somebody was in the way."""
    for attempt in Retrying(
        retry=retry_if_exception(_is_lock_timeout),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_fixed(_PAUSE_SECONDS),
        reraise=True,
    ):
        with attempt:
            work()


@contextmanager
def migrating(
    engine: sa.Engine, schema: str, *, wait_seconds: float = LOCK_SECONDS
) -> Iterator[sa.Connection]:
    """A connection, not in a transaction, that alone may migrate `schema`, which exists.

    The lock is its session's own: who loses it loses the transaction with it.
    """
    with translated(), engine.connect() as connection:
        run_script(connection, "\n".join(_session_settings()))
        connection.commit()
        _lock(connection, schema, wait_seconds)
        run_script(connection, create_schema_sql(schema))
        connection.commit()
        yield connection


def _session_settings() -> list[str]:
    return [
        f"SET lock_timeout = '{_TABLE_LOCK_TIMEOUT}';",
        # A revision may rewrite a big table; a role's own limit is meant for queries.
        "SET statement_timeout = 0;",
        "SET idle_in_transaction_session_timeout = 0;",
    ]


def _lock(connection: sa.Connection, schema: str, wait_seconds: float) -> None:
    """Takes the migration lock, for as long as the connection lives.

    Polled, not awaited: a session that waits is a transaction that CREATE INDEX CONCURRENTLY
    waits for, in the very migration that holds the lock.
    """
    take = sa.select(sa.func.pg_try_advisory_lock(lock_key(schema, "migrate")))
    deadline = time.monotonic() + wait_seconds
    is_told = False
    while True:
        taken = connection.execute(take).scalar_one()
        if taken:
            connection.commit()
            return
        holder = current_migrator(connection, schema)
        connection.commit()
        who = f"another migrate is running: {holder or 'it has just ended'}"
        left = deadline - time.monotonic()
        if left <= 0:
            raise LockedError(f"schema {schema}: {who}; wait for it to end")
        if not is_told:
            logger.info("schema %s: %s; waiting up to %g s", schema, who, wait_seconds)
            is_told = True
        time.sleep(min(0.25, left))


def _is_lock_timeout(exc: BaseException) -> bool:
    return isinstance(exc, sa.exc.DBAPIError) and isinstance(
        exc.orig, psycopg.errors.LockNotAvailable
    )
