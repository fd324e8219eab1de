"""A run of any command: its lock, its row in the ledger from the start to every way out.

What the run does, and how it is reported, its own job knows.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from etl.errors import DatabaseError, EtlError, InterruptedRunError, LockedError, RunError
from etl.jobs.summary import status_of
from etl.store.engine import translated
from etl.store.ledger import Run, close_orphans, close_run, open_run, running, written_since
from etl.store.lock import WriterLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from sqlalchemy import Connection, Engine


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run that has its row, and the lock unless another holds it."""

    engine: Engine
    connection: Connection
    lock: WriterLock
    run_id: UUID
    command: str
    started_at: datetime
    locked: LockedError | None
    """Why it is skipped: another run is in the way."""

    def keep_lock(self) -> None:
        """Goes on after a lost lock only if nobody else has written since."""
        if self.lock.is_alive():
            return
        if not self.lock.reacquire():
            raise LockedError("the lock was lost and another run has taken it")
        with self.connection.begin():
            if written_since(self.connection, self.run_id):
                raise LockedError("the lock was lost and another run has written since")


@contextmanager
def opened_run(
    engine: Engine, url: str, schema: str, *, command: str, requested: int = 0
) -> Iterator[OpenedRun]:
    """Takes the lock and writes the run's row; where another holds the lock, one that says so."""
    run = Run(uuid4(), command, socket.gethostname(), os.getpid(), version("persona-etl"))
    lock = WriterLock(url, schema, command=run.command, run_id=run.run_id)
    try:
        with translated(), engine.connect() as connection:
            locked = None if lock.acquire() else _in_the_way(connection, lock)
            with connection.begin():
                if locked is None:
                    close_orphans(connection)
                started_at = open_run(
                    connection,
                    run,
                    status="skipped" if locked else "running",
                    requested=requested,
                    error=str(locked) if locked else None,
                )
            yield OpenedRun(engine, connection, lock, run.run_id, command, started_at, locked)
    finally:
        lock.release()


def concluded(
    work: Callable[[], EtlError | None],
    end: Callable[[str, str | None, EtlError | None], None],
) -> None:
    """Does a run's work and ends it, whatever happens.

    Args:
        work: Returns why it did not end well, if it did not.
        end: Closes the row and reports: the status, what is told, and the error of a run that
            ended in good order.
    """
    error: EtlError | None = None
    try:
        error = work()
    except RunError as exc:
        error = exc
    except (KeyboardInterrupt, SystemExit):
        # A signal that the work did not wait for. It passes on with its exit code.
        end("interrupted", "interrupted by a signal", None)
        raise
    except BaseException as exc:
        # A bug: whoever reads the ledger should know that the run ended.
        end("failed", f"{type(exc).__name__}, see the traceback", None)
        raise
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
    """Closes a run's row."""
    try:
        with translated(), run.engine.begin() as connection:
            row = close_run(connection, run.run_id, status, http_requests, told)
    except DatabaseError as exc:
        # A run whose books stay open has not succeeded.
        if isinstance(error, InterruptedRunError):
            return Closed(status, error, None)
        return Closed("failed", exc, None)
    return Closed(status, error, row)


def _in_the_way(connection: Connection, lock: WriterLock) -> LockedError:
    under_way = running(connection)
    connection.rollback()
    who = (
        f"{under_way['command']} run {under_way['run_id']} on {under_way['host']}"
        f" since {under_way['started_at']:%Y-%m-%dT%H:%M:%SZ}"
        if under_way
        else lock.holder() or "a session that has just ended"
    )
    return LockedError(f"another run holds the lock: {who}; nothing was done")
