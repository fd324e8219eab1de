"""Who stands in the way of a statement that waited for a lock in vain."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa

from etl.errors import DatabaseError

if TYPE_CHECKING:
    from sqlalchemy import Engine

# Afterwards pg_blocking_pids knows nothing any more. Hence: who holds a lock on one of our tables
# that a writer may wait for. The stronger ones exclude all writers, the other two may have locked
# a row. A prepared transaction has no session.
_BLOCKERS = sa.text("""
    SELECT lock.pid, lock.mode, class.relname, activity.application_name, activity.usename,
           activity.state, activity.xact_start
      FROM pg_locks AS lock
      JOIN pg_class AS class ON class.oid = lock.relation
      LEFT JOIN pg_stat_activity AS activity USING (pid)
     WHERE lock.granted AND lock.locktype = 'relation'
       AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND class.relnamespace = to_regnamespace(quote_ident(current_schema()))
       AND class.relkind IN ('r', 'p')
       AND lock.pid IS DISTINCT FROM pg_backend_pid()
       AND lock.mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock')
     ORDER BY lock.mode IN ('RowShareLock', 'RowExclusiveLock'), activity.xact_start, lock.pid
     LIMIT 1
""")


def who_blocks(engine: Engine) -> str | None:
    """The oldest session that may be it, in words, and what to do; None when there is none."""
    found = None
    with suppress(DatabaseError, sa.exc.DBAPIError, psycopg.Error), engine.connect() as connection:
        found = connection.execute(_BLOCKERS).first()
    if found is None:
        return None
    if found.pid is None:
        return (
            f"a prepared transaction holds a {found.mode} on {found.relname};"
            " commit it or roll it back (pg_prepared_xacts), then run again"
        )
    known = [
        found.application_name,
        found.usename and f"role {found.usename}",
        found.state,
        found.xact_start and f"in a transaction since {found.xact_start:%Y-%m-%dT%H:%M:%SZ}",
    ]
    told = ", ".join(part for part in known if part)
    return (
        f"session {found.pid}{f' ({told})' if told else ''} holds a {found.mode} on"
        f" {found.relname}; wait for it, or SELECT pg_terminate_backend({found.pid}),"
        " then run again"
    )
