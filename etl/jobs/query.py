"""A query: what somebody wants to know of the target, in SQL of their own. Nothing is written.

The reporting views come first among bare names, the tables after them.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from etl.jobs.view_session import reading_views
from etl.report.catalogue import view_names
from etl.report.ours import reporting_schema
from etl.store.engine import driver_connection, quote_identifier
from etl.store.query import columns_of, rows_of
from etl.store.query_errors import Statement
from etl.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from sqlalchemy import Connection

    from etl.settings import Settings
    from etl.store.query import Column, Value

# statement_timeout is an int of milliseconds.
_LONGEST_MS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement returns. Rows come as they are asked for, and may end in an error."""

    columns: list[Column]
    rows: Iterator[tuple[Value, ...]]


@contextmanager
def answered(settings: Settings, sql: str, *, url: str, timeout: timedelta) -> Iterator[Answer]:
    """Runs one statement up to its first row, in a transaction that can't write; then undoes all.

    Raises:
        UsageError: the statement is wrong, does not only read, or takes longer than `timeout`.
        DatabaseError: what else is in the way, as `reading_views` tells it.
    """
    schema = settings.database.schema_
    with reading_views(url, schema) as connection:
        sees_tables = _settle(connection, schema, timeout)
        views = set(view_names())
        hidden = set() if sees_tables else metadata.tables.keys() - views
        statement = Statement(sql, timeout, sorted(views | metadata.tables.keys()), hidden)
        session = driver_connection(connection)
        columns = columns_of(session, statement)
        with closing(rows_of(session, statement)) as rows:
            # Most errors come before the first row: then nothing was printed yet.
            first = list(islice(rows, 1))
            yield Answer(columns, chain(first, rows))
        # Before Postgres 16 a large object can be written in such a transaction.
        connection.rollback()


def _settle(connection: Connection, schema: str, timeout: timedelta) -> bool:
    """Make the transaction the statement's. Returns whether the role sees the tables."""
    # The session says so already; the statement can't take it back, as a snapshot has been taken.
    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    path = ", ".join(map(quote_identifier, (reporting_schema(schema), schema)))
    milliseconds = min(round(timeout.total_seconds() * 1000), _LONGEST_MS)
    row = connection.exec_driver_sql(
        "SELECT set_config('search_path', %s, true), set_config('statement_timeout', %s, true),"
        " has_schema_privilege(%s, 'USAGE')",
        (path, str(milliseconds), schema),
    ).one()
    return bool(row[-1])
