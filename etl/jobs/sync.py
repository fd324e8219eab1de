"""The main job: fetch the given personas, load them batch by batch, account for each.

The run has its row before work starts, and it is closed on every way out.
"""

from __future__ import annotations

import gc
import os
import socket
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from etl.errors import (
    DatabaseError,
    EtlError,
    InterruptedRunError,
    LockedError,
    RunError,
)
from etl.jobs.arrival import DatabaseClock
from etl.jobs.asking import Asking
from etl.jobs.batches import Loader
from etl.jobs.removal import remove_missing
from etl.jobs.summary import Summary, Tally, drift_level, status_of, verdict
from etl.payload.decode import loads
from etl.store.engine import make_engine, translated
from etl.store.ledger import Run, close_orphans, close_run, open_run, running
from etl.store.lock import WriterLock
from etl.store.migration import require_head
from etl.tables import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, Engine

    from etl.settings import Settings


def sync(
    settings: Settings,
    ids: Sequence[UUID],
    *,
    url: str,
    discover: bool = False,
    strict: bool = False,
    allow_mass_removal: bool = False,
    report: Callable[[Summary], None],
    watch: Callable[[Tally], None] = lambda _: None,
) -> None:
    """Copies these personas. Calls `report` once, on every way out on which the run exists.

    `discover` adds those that the API lists and all live ones. `watch` is called as the run goes
    on, from any thread.

    Raises:
        DatabaseError: before the run exists: Postgres is unreachable or its schema not at head.
        UsageError: before the run exists: the API's address or the key can't be used.
    """
    schema = settings.database.schema_
    asking = Asking(settings, ids, discover=discover)
    engine = make_engine(url, schema, json_deserializer=loads)
    require_head(engine, schema)
    run = Run(uuid4(), "sync", socket.gethostname(), os.getpid(), version("persona-etl"))
    lock = WriterLock(url, schema, command=run.command, run_id=run.run_id)
    try:
        with translated(), engine.connect() as connection:
            if not lock.acquire():
                report(_skipped(connection, run, lock, len(ids)))
                return
            with connection.begin():
                close_orphans(connection)
                started_at = open_run(connection, run, status="running", requested=len(ids))
            under_way = _Sync(
                settings,
                engine,
                lock=lock,
                asking=asking,
                run=run,
                started_at=started_at,
                watch=watch,
            )
            under_way.run(
                connection, strict=strict, allow_mass_removal=allow_mass_removal, report=report
            )
    finally:
        lock.release()


def _skipped(connection: Connection, run: Run, lock: WriterLock, requested: int) -> Summary:
    """Enters in the ledger that another run was in the way."""
    under_way = running(connection)
    who = (
        f"{under_way['command']} run {under_way['run_id']} on {under_way['host']}"
        f" since {under_way['started_at']:%Y-%m-%dT%H:%M:%SZ}"
        if under_way
        else lock.holder() or "a session that has just ended"
    )
    error = LockedError(f"another run holds the lock: {who}; nothing was done")
    connection.rollback()
    with connection.begin():
        started_at = open_run(
            connection, run, status="skipped", requested=requested, error=str(error)
        )
    return Summary(
        run_id=run.run_id,
        command=run.command,
        status="skipped",
        started_at=started_at,
        finished_at=started_at,
        counts=Tally(requested).counts(),
        error=error,
    )


class _Sync:
    """One run, from its open ledger row to its closed one."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        lock: WriterLock,
        asking: Asking,
        run: Run,
        started_at: datetime,
        watch: Callable[[Tally], None],
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.lock = lock
        self.asking = asking
        self.run_row = run
        self.tally = Tally(len(asking.ids))
        self.started_at = started_at
        self.watch = watch

    def run(
        self,
        connection: Connection,
        *,
        strict: bool,
        allow_mass_removal: bool,
        report: Callable[[Summary], None],
    ) -> None:
        """Does the work. Whatever happens, closes the row and reports."""
        error: EtlError | None = None
        try:
            error = self._copy(connection, strict=strict, allow_mass_removal=allow_mass_removal)
        except RunError as exc:
            error = exc
        except (KeyboardInterrupt, SystemExit):
            # Not while fetching, or the second signal. It passes on with its exit code.
            report(self._closed("interrupted", "interrupted by a signal", None))
            raise
        except BaseException as exc:
            # A bug: whoever reads the ledger should know that the run ended.
            report(self._closed("failed", f"{type(exc).__name__}, see the traceback", None))
            raise
        report(self._closed(status_of(error), str(error) if error else None, error))

    def _copy(
        self, connection: Connection, *, strict: bool, allow_mass_removal: bool
    ) -> EtlError | None:
        """Fetches, loads and removes. Returns why the run did not end well, if it did not."""
        safety = self.settings.safety
        loader = Loader(
            connection,
            self.lock,
            self.run_row.run_id,
            self.tally,
            http_requests=lambda: self.asking.http_requests,
            drift_level=drift_level(self.settings),
            watch=self.watch,
        )
        max_percent = None if allow_mass_removal else safety.max_removed_percent
        try:
            with translated(), _seldom_collected():
                clock = DatabaseClock.read(connection)
                connection.rollback()
                stopped = self.asking.ask(self.engine, clock, known=loader.known, load=loader.load)
                if stopped is None:
                    remove_missing(loader, self.asking.ids, max_percent=max_percent)
        finally:
            self.tally = loader.tally
        return verdict(self.tally, stopped, safety, strict=strict, run_id=self.run_row.run_id)

    def _closed(self, status: str, told: str | None, error: EtlError | None) -> Summary:
        """Closes the ledger's row; when Postgres is gone, the next run will."""
        row: dict[str, Any] = {"finished_at": None, **self.tally.columns(self.asking.http_requests)}
        requests = self.asking.http_requests
        try:
            with translated(), self.engine.begin() as connection:
                closed = close_run(connection, self.run_row.run_id, status, requests, told)
            # Not the tally: of a batch whose connection broke at its commit only Postgres knows.
            row = closed
        except DatabaseError as exc:
            # A run whose books stay open has not succeeded.
            if not isinstance(error, InterruptedRunError):
                status, error = "failed", exc
        return Summary(
            run_id=self.run_row.run_id,
            command=self.run_row.command,
            status=status,
            started_at=self.started_at,
            finished_at=row["finished_at"],
            counts={name: row[name] for name in ("requested", *OUTCOMES)},
            value_issues=row["value_issues"],
            new_drift_paths=row["new_drift_paths"],
            http_requests=row["http_requests"],
            error=error,
        )


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Looks for cyclic garbage less often: payloads are many small containers without cycles.

    At Python's own thresholds that search took a tenth of a first load.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
