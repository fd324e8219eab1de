"""Engines, and from the driver's errors to ours.

Sessions are opened in `session.py`. Here SQLSTATEs are known; no query about personas is.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from etl.errors import DatabaseError
from etl.store.blockers import who_blocks
from etl.store.session import connection_arguments, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

# SQLAlchemy 2.0 reads a bare postgresql:// as psycopg2, 2.1 as psycopg 3: say which.
_DRIVER = "postgresql+psycopg"

# What to do next, by SQLSTATE or its class; the longest match wins. Errors that are not listed
# are bugs of ours, or the data's fault, and are left alone.
_NEXT_STEPS = {
    "": "check that the server is up, then run again",  # the connection broke
    "08": "check that the server is up, then run again",
    "08P01": "look at the pooler's log and limits; a run needs four of its connections",
    "25006": "point database.url at the primary, or set default_transaction_read_only = off",
    "28": "check the user and password in database.url, and the server's pg_hba.conf",
    "3D": "create the database, or correct its name in database.url",
    "3F000": "run `persona-etl migrate`",
    "40": "run again; another session was in the way",
    "42501": "grant the privilege to the role in database.url",
    "42703": "run `persona-etl migrate`",
    "42710": "rename or drop that one, then run `persona-etl migrate` again",
    "42883": "run `persona-etl migrate`",
    "42P01": "run `persona-etl migrate`, or grant USAGE on the schema to the role",
    "53": "free the resource on the server, then run again",
    "55P03": "another session holds a lock; run again when it is done",
    "57014": "the server cancelled a statement, by its timeout or by hand; run again",
    "57P": "the server is starting, stopping or ended the session; run again",
    "58": "look into the server's log",
}


_LOCK_TIMEOUT = "55P03"

# How long what only looks waits for a table that somebody has locked.
LOOKS_FOR_SECONDS = 10


def make_engine(
    url: str,
    schema: str,
    *,
    application_name: str = "persona-etl",
    lock_timeout_seconds: float | None = None,
    json_deserializer: Callable[[str | bytes], Any] | None = None,
    read_only: bool = False,
) -> sa.Engine:
    """An engine whose sessions see `schema` alone, in UTC; `read_only` ones can't write at all.

    Not pooled: a connection lives as long as its `with`. The loader keeps its one for the whole
    run, each of the few others costs milliseconds, and none goes stale in between.
    """
    settings = {"search_path": quote_identifier(schema)}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    if lock_timeout_seconds is not None:
        settings["lock_timeout"] = str(round(lock_timeout_seconds * 1000))
    arguments = connection_arguments(url, application_name)

    # The password stays out of the engine's own URL, hence of its repr.
    engine = sa.create_engine(
        sa.URL.create(
            _DRIVER,
            arguments.get("user"),
            None,
            arguments.get("host"),
            None,
            arguments.get("dbname"),
        ),
        connect_args=arguments,
        poolclass=NullPool,
        hide_parameters=True,
        use_native_hstore=False,
        json_deserializer=json_deserializer,
    )

    @sa.event.listens_for(engine, "do_connect")
    def connect(
        _dialect: object, _record: object, _args: object, arguments: dict[str, Any]
    ) -> psycopg.Connection[Any]:
        # These arguments are ours and what the dialect adds, the adapters for JSON.
        connection = open_session(arguments, settings)
        # Only now, since a ROLLBACK would also undo the settings.
        connection.autocommit = False
        return connection

    return engine


def driver_connection(connection: sa.Connection) -> psycopg.Connection[Any]:
    """The driver's own, for what SQLAlchemy has no words for."""
    own: Any = connection.connection.driver_connection
    return cast("psycopg.Connection[Any]", own)


def quote_identifier(name: str) -> str:
    """A name as SQL spells it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def database_now(connection: sa.Connection) -> datetime:
    """The database's clock, which dates all observations; it moves within a transaction."""
    now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return now


@contextmanager
def translated(engine: sa.Engine | None = None) -> Iterator[None]:
    """Turns what the server or the network did to us into a DatabaseError of one line.

    Bugs, and errors that are the data's fault, pass unchanged: their text may hold data. With
    `engine` it also tells who holds a lock that was waited for in vain.
    """
    try:
        yield
    except (sa.exc.DBAPIError, psycopg.Error) as exc:
        explained = _explain(exc)
        if explained is None:
            raise
        if engine is not None and _sqlstate(_driver_error(exc)) == _LOCK_TIMEOUT:
            blocker = who_blocks(engine)
            explained = f"Postgres: a table stayed locked; {blocker}" if blocker else explained
        raise DatabaseError(explained) from exc


def is_data_error(exc: BaseException) -> bool:
    """Whether the values sent are at fault, so that a smaller batch may pass.

    SQLSTATE classes 22 (bad value), 23 (constraint) and 54 (too big or too deep), and what the
    driver can't send at all: a NUL, a lone surrogate.
    """
    error = _driver_error(exc)
    if isinstance(error, psycopg.DataError) and error.sqlstate is None:
        return True
    return isinstance(exc, UnicodeEncodeError) or _sqlstate(error)[:2] in {"22", "23", "54"}


def is_retryable(exc: BaseException) -> bool:
    """Whether the same transaction may pass if tried again: 40001 serialization, 40P01 deadlock."""
    return _sqlstate(_driver_error(exc)) in {"40001", "40P01"}


def _driver_error(exc: BaseException) -> BaseException:
    """The driver's own error, out of SQLAlchemy's wrapping."""
    if isinstance(exc, sa.exc.DBAPIError) and exc.orig is not None:
        return exc.orig
    return exc


def _sqlstate(error: BaseException) -> str:
    """The server's five-letter code, empty when the server did not speak."""
    return (isinstance(error, psycopg.Error) and error.sqlstate) or ""


def _explain(exc: BaseException) -> str | None:
    """What happened and what to do next, or None when it is not the server's or network's doing."""
    error = _driver_error(exc)
    state = _sqlstate(error)
    if isinstance(error, psycopg.DataError) and str(error).startswith("timestamp too "):
        # What our tables hold is never beyond the year 9999: somebody else wrote it.
        return f"Postgres: a table holds a {error}; correct it there, then run again"
    if not state and not isinstance(error, psycopg.OperationalError):
        return None
    next_step = next((_NEXT_STEPS[state[:n]] for n in (5, 3, 2) if state[:n] in _NEXT_STEPS), None)
    if next_step is None:
        return None
    # Never the DETAIL and CONTEXT lines, which quote rows.
    primary = isinstance(error, psycopg.Error) and error.diag.message_primary
    told = " ".join((primary or str(error)).split())
    return f"Postgres: {told}; {next_step}"
