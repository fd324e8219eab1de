"""One writer per target: a session advisory lock, released by death, and who holds it.

A target is a schema of a database. The lock has a connection of its own, straight from the
driver: a pool would keep the lock after close(), and SQLAlchemy reconnects silently without it.
"""

from __future__ import annotations

import re
import select
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import psycopg
import sqlalchemy as sa

from etl.errors import LockedError
from etl.store.engine import driver_connection, translated
from etl.store.session import break_off, connection_arguments, open_session, server_session

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

# How often to ask for a lock that another run holds. Not awaited in Postgres: that would be a
# transaction, which holds up VACUUM and CREATE INDEX CONCURRENTLY.
_POLL_SECONDS = 0.2

# How long to wait for a backend of ours to die, whose client connection the network lost.
_GHOST_SECONDS = 10

# pg_locks shows a bigint key as two oids, which compare as numbers only through a cast.
_HOLDER = """
    SELECT activity.pid, activity.application_name, activity.backend_start,
           host(activity.client_addr)
    FROM pg_locks AS lock JOIN pg_stat_activity AS activity USING (pid)
    WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
      AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND lock.classid::bigint = %s AND lock.objid::bigint = %s
"""


# Within a transaction, on the schema that the session sees: the lock of one run would not be
# enough if the network hid its loss from us.
_TURN = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended('persona-etl batch ' || current_schema(), 0))"
)

# A session's name is cut at 63 bytes: the id goes without its dashes.
_RUN_NAME = re.compile(r"persona-etl (?P<command>.+) (?P<run_id>[0-9a-f]{32})")


@dataclass(frozen=True)
class Holder:
    """The session that holds a lock; `since` and `client` are None where the role may not look."""

    pid: int
    application_name: str
    since: datetime | None
    client: str | None  # An IP address, None on a Unix socket.

    @property
    def command(self) -> str | None:
        """The run's command, when the holder may be looked at."""
        named = _RUN_NAME.fullmatch(self.application_name)
        return named["command"] if named else None

    @property
    def run_id(self) -> UUID | None:
        """The run's id, when the holder may be looked at."""
        named = _RUN_NAME.fullmatch(self.application_name)
        return UUID(named["run_id"]) if named else None

    def __str__(self) -> str:
        who = f"{self.command} run {self.run_id}" if self.run_id else f"session {self.pid}"
        where = self.client or "the database's own host"
        since = f" since {self.since.isoformat(timespec='seconds')}" if self.since else ""
        return f"{who} on {where}{since}"


def lock_key(schema: str, purpose: str) -> int:
    """The same bigint for the same schema in every process and release."""
    digest = blake2b(f"persona-etl {purpose} {schema}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def current_writer(connection: sa.Connection, schema: str) -> Holder | None:
    """Who writes to `schema` right now; for a reader that wants no lock."""
    return _current(connection, lock_key(schema, "write"))


def current_migrator(connection: sa.Connection, schema: str) -> Holder | None:
    """Who migrates `schema` right now."""
    return _current(connection, lock_key(schema, "migrate"))


def _current(connection: sa.Connection, key: int) -> Holder | None:
    session = driver_connection(connection)
    # Within a transaction Postgres answers from the first look it took.
    session.execute("SELECT pg_stat_clear_snapshot()")
    return _holder(session, key)


def take_turn(connection: sa.Connection) -> None:
    """Waits until no other batch is being written to the schema; ends with the transaction."""
    connection.execute(_TURN)


def _holder(connection: psycopg.Connection[Any], key: int) -> Holder | None:
    row = connection.execute(_HOLDER, [(key >> 32) & 0xFFFFFFFF, key & 0xFFFFFFFF]).fetchone()
    if row is None:
        return None
    pid, application_name, since, client = row
    return Holder(pid, application_name or "", since, client)


class WriterLock:
    """The lock of one target, for one run.

    In a `with` it is taken or LockedError is raised; `acquire` only tells.
    """

    def __init__(self, url: str, schema: str, *, command: str, run_id: UUID) -> None:
        self._name = f"persona-etl {command} {run_id.hex}"
        self._arguments = connection_arguments(url, self._name)
        self._key = lock_key(schema, "write")
        self._connection: psycopg.Connection[Any] | None = None
        self._pid: int | None = None

    def __enter__(self) -> Self:
        if not self.acquire():
            held_by = self.holder()
            self.release()
            raise LockedError(
                f"another run holds the lock: {held_by or 'it has just ended'};"
                " run again when it is done"
            )
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.release()

    def acquire(self) -> bool:
        """Connect and try to take the lock; False when another session holds it."""
        with translated():
            if self._connection is None:
                self._connection = open_session(self._arguments)
                self._pid = server_session(self._connection)
            asked = self._connection.execute("SELECT pg_try_advisory_lock(%s)", [self._key])
            return bool(asked.fetchone() == (True,))

    def acquire_within(self, seconds: float) -> bool:
        """Asks for the lock again and again; False when another holds it all the time."""
        deadline = time.monotonic() + seconds
        while not self.acquire():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(_POLL_SECONDS, left))
        return True

    def holder(self) -> Holder | None:
        """Who holds the lock, ourselves included. Between `acquire` and `release` only."""
        if self._connection is None:
            return None
        with translated():
            return _holder(self._connection, self._key)

    def is_alive(self) -> bool:
        """Whether our session, and with it the lock, still stands.

        Costs microseconds, so fit for each batch: an idle session's socket is silent until the
        server says farewell or the network gives up. Only what it says costs a round trip.
        """
        if self._connection is None or self._connection.closed:
            return False
        watcher = select.poll()
        watcher.register(self._connection.fileno(), select.POLLIN)
        if not watcher.poll(0):
            return True
        try:
            self._connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def reacquire(self) -> bool:
        """After a loss: connect anew and take the lock again; False when another run has it.

        The caller still has to find out whether another run has written in between.
        """
        ghost = self._pid
        self.release()
        if self.acquire():
            return True
        holder = self.holder()
        if holder is None or (holder.pid, holder.application_name) != (ghost, self._name):
            return False
        # It is ourselves: the network lost us, and the server has not noticed.
        self._terminate(holder.pid)
        return self.acquire_within(_GHOST_SECONDS)

    def _terminate(self, pid: int) -> None:
        if self._connection is not None:
            with translated():
                self._connection.execute("SELECT pg_terminate_backend(%s)", [pid])

    def break_off(self) -> bool:
        """Ends what another thread waits for here. Returns whether the server took notice."""
        connection = self._connection
        return connection is None or break_off(connection)

    def release(self) -> None:
        """Give the lock up and close the connection; twice is once."""
        if self._connection is not None:
            # Closing gives it up as well, but later: the next command may be there first.
            if self.is_alive():
                with suppress(psycopg.Error):
                    self._connection.execute("SELECT pg_advisory_unlock(%s)", [self._key])
            self._connection.close()
            self._connection = None
