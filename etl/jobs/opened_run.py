"""A run of any command: its lock, its row in the ledger from the start to every way out.

What the run does, and how it is reported, its own job knows.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from etl.errors import DatabaseError, EtlError, LockedError, RunError
from etl.jobs.halt import Halt, stopped_by_signals
from etl.jobs.summary import status_of
from etl.store.engine import driver_connection, is_retryable, translated
from etl.store.ledger import (
    Run,
    close_orphans,
    close_run,
    is_open,
    open_run,
    running,
    written_since,
)
from etl.store.lock import WriterLock, take_turn
from etl.store.mapped import keep_map, stamp_of
from etl.store.revisions import require_head
from etl.store.session import break_off

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sqlalchemy import Connection, Engine

T = TypeVar("T")

logger = logging.getLogger(__name__)

# How long a run that was told twice to stop may wait to close its row.
_URGENT_MS = 500

# A deadlock or a serialization failure goes away by itself, unless something is badly wrong.
_ATTEMPTS = 3

_STAYS = "what was done stays, run again when that one has ended"


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run that has its row, and the lock unless another holds it."""

    engine: Engine
    connection: Connection
    lock: WriterLock
    halt: Halt
    run_id: UUID
    command: str
    started_at: datetime
    stamp: tuple[str, ...]
    """Of the schema, as it was when the run began."""
    locked: LockedError | None
    """Why it is skipped: another run is in the way."""

    def keep_lock(self) -> None:
        """Goes on after a lost lock only if nobody else has written since."""
        if self.lock.is_alive():
            return
        if not self.lock.reacquire():
            raise LockedError(f"the lock was lost and another run has taken it; {_STAYS}")
        with self.connection.begin():
            if written_since(self.connection, self.run_id):
                raise LockedError(f"the lock was lost and another run has written since; {_STAYS}")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction, which waits for the lock and for its turn, and is alone with the tables.

        They are as they were when the run began: a run never writes by a map that is not in force.

        Who takes the lock closes the runs that are open. So a run whose lock was lost, and who
        does not know it yet, finds its own row closed and writes nothing more.
        """
        self.keep_lock()
        with self.connection.begin():
            take_turn(self.connection)
            if not is_open(self.connection, self.run_id):
                raise LockedError(f"the lock was lost and another run has written since; {_STAYS}")
            if stamp_of(self.connection) != self.stamp:
                raise DatabaseError(
                    "the schema was migrated while this run was under way; what was done stays,"
                    " run again"
                )
            yield

    def in_transaction(self, work: Callable[[], T]) -> T:
        """Does a part of the run's work, `writing`; again when another session was in the way."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self.writing():
                    return work()
            except DBAPIError as exc:
                if not is_retryable(exc) or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("each attempt returns or raises")


@contextmanager
def opened_run(
    engine: Engine,
    url: str,
    schema: str,
    *,
    command: str,
    requested: int = 0,
    resumes: UUID | None = None,
    wait_seconds: float = 0,
    run_id: UUID | None = None,
) -> Iterator[OpenedRun]:
    """Takes the lock and writes the run's row; where another holds the lock, one that says so.

    It waits for the lock up to so long, and has no row as yet; a signal ends that at once. `run_id`
    is what to call the run; None: any new one.
    """
    run = Run(
        run_id or uuid4(),
        command,
        socket.gethostname(),
        os.getpid(),
        version("persona-etl"),
        resumes,
    )
    lock = WriterLock(url, schema, command=run.command, run_id=run.run_id)
    halt = Halt()
    try:
        with translated(engine), engine.connect() as connection:
            locked = _locked_out(connection, lock, wait_seconds)
            if locked is None and wait_seconds:
                # Another release may have migrated meanwhile.
                require_head(engine, schema)
            session = driver_connection(connection)
            with (
                stopped_by_signals(halt),
                halt.breaking(partial(break_off, session)),
                halt.breaking(lock.break_off),
            ):
                with connection.begin():
                    stamp = keep_map(connection)
                    if locked is None:
                        close_orphans(connection)
                    started_at = open_run(
                        connection,
                        run,
                        status="skipped" if locked else "running",
                        requested=requested,
                        error=str(locked) if locked else None,
                    )
                yield OpenedRun(
                    engine, connection, lock, halt, run.run_id, command, started_at, stamp, locked
                )
    finally:
        lock.release()


def concluded(
    halt: Halt,
    work: Callable[[], EtlError | None],
    end: Callable[[str, str | None, EtlError | None], None],
) -> None:
    """Does a run's work and ends it, whatever happens.

    Args:
        halt: Knows of signals: of all errors, that one counts.
        work: Returns why it did not end well, if it did not.
        end: Closes the row and reports: the status, what is told, and the error of a run that
            ended in good order.
    """
    error: EtlError | None = None
    try:
        error = work()
    except RunError as exc:
        error = exc
    except BaseException as exc:
        # What was broken off ends with any error.
        if not halt.is_urgent:
            # A bug: whoever reads the ledger should know that the run ended.
            end("failed", f"{type(exc).__name__}, see the traceback", None)
            raise
    error = halt.interruption or error
    end(status_of(error), str(error) if error else None, error)


@dataclass(frozen=True, slots=True)
class Closed:
    """How a run ended by its books: not at all, when Postgres is gone; the next run closes it."""

    status: str
    error: EtlError | None
    row: dict[str, Any] | None


def close(
    run: OpenedRun, status: str, told: str | None, error: EtlError | None, *, http_requests: int = 0
) -> Closed:
    """Closes a run's row. That needs no lock: nobody else has a say in how this run ended."""
    halt = run.halt
    if not halt.is_answered:
        return Closed(status, error, None)
    try:
        with translated(run.engine), _session_of_books(run) as connection:
            if halt.is_urgent:
                for limit in ("lock_timeout", "statement_timeout"):
                    connection.execute(sa.text(f"SET LOCAL {limit} = {_URGENT_MS}"))
            with halt.breaking(partial(break_off, driver_connection(connection))):
                row = close_run(connection, run.run_id, status, http_requests, told)
    except BaseException as exc:
        # A run whose books stay open has not succeeded.
        if halt.interruption is not None:
            return Closed("interrupted", halt.interruption, None)
        if isinstance(exc, DatabaseError):
            return Closed("failed", exc, None)
        raise
    return Closed(status, error, row)


@contextmanager
def _session_of_books(run: OpenedRun) -> Iterator[Connection]:
    """A transaction of a new session, as the run's own may be broken or busy.

    Where none is let in any more, as the password was changed meanwhile, it is the run's own.
    """
    try:
        new = run.engine.connect()
    except DatabaseError:
        if run.halt.is_urgent or run.connection.invalidated:
            raise
        run.connection.rollback()
        with run.connection.begin():
            yield run.connection
    else:
        with new, new.begin():
            yield new


def _locked_out(
    connection: Connection, lock: WriterLock, wait_seconds: float
) -> LockedError | None:
    """None once the lock is taken, else why there is no run."""
    if lock.acquire():
        return None
    if wait_seconds:
        who = _in_the_way(connection, lock)
        logger.info("another run holds the lock: %s; waiting up to %g s", who, wait_seconds)
        if lock.acquire_within(wait_seconds):
            return None
    who = _in_the_way(connection, lock)
    waited = f" within {wait_seconds:g} s" if wait_seconds else ""
    return LockedError(f"another run holds the lock: {who}; nothing was done{waited}")


def _in_the_way(connection: Connection, lock: WriterLock) -> str:
    holder = lock.holder()
    under_way = running(connection, holder.run_id if holder else None)
    connection.rollback()
    if under_way is not None:
        return (
            f"{under_way['command']} run {under_way['run_id']} on {under_way['host']}"
            f" since {under_way['started_at']:%Y-%m-%dT%H:%M:%SZ}"
        )
    return str(holder or "a session that has just ended")
