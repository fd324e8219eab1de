"""The main job: fetch the given personas, load them batch by batch, account for each.

The run has its row before work starts, and it is closed on every way out.
"""

from __future__ import annotations

import asyncio
import gc
import logging
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
    SafetyStopError,
)
from etl.jobs.arrival import DatabaseClock
from etl.jobs.batches import Loader
from etl.jobs.fetching import Pace, fetch_and_load
from etl.jobs.load import read_batch
from etl.jobs.removal import remove_missing
from etl.jobs.summary import Summary, Tally, failures, refusal, status_of
from etl.payload.decode import loads
from etl.source.client import PersonaClient
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
    strict: bool = False,
    allow_mass_removal: bool = False,
    report: Callable[[Summary], None],
) -> None:
    """Copies these personas. Calls `report` once, on every way out on which the run exists.

    Raises:
        DatabaseError: before the run exists: Postgres is unreachable or its schema not at head.
        UsageError: before the run exists: the API's address or the key can't be used.
    """
    schema = settings.database.schema_
    api = settings.api
    client = PersonaClient(
        base_url=api.base_url,
        api_key=settings.require_key().get_secret_value(),
        concurrency=api.concurrency,
        timeout_seconds=api.timeout_seconds,
        max_wait_seconds=api.max_wait_seconds,
    )
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
                client=client,
                run=run,
                ids=ids,
                started_at=started_at,
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
        run.run_id,
        run.command,
        "skipped",
        started_at,
        started_at,
        Tally(requested).counts(),
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
        client: PersonaClient,
        run: Run,
        ids: Sequence[UUID],
        started_at: datetime,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.lock = lock
        self.client = client
        self.run_row = run
        self.ids = ids
        self.tally = Tally(len(ids))
        self.started_at = started_at

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
            http_requests=lambda: self.client.http_requests,
            drift_level=logging.INFO if safety.drift == "record" else logging.WARNING,
        )
        max_percent = None if allow_mass_removal else safety.max_removed_percent
        try:
            with translated(), _seldom_collected():
                clock = DatabaseClock.read(connection)
                connection.rollback()
                stopped: RunError | None = asyncio.run(self._fetch_and_load(loader, clock))
                if stopped is None:
                    stopped = remove_missing(loader, self.ids, max_percent=max_percent)
        finally:
            self.tally = loader.tally
        return (
            stopped
            or refusal(self.tally)
            or _unmapped(self.tally, strict=strict or safety.drift == "fail")
            or failures(self.tally, self.run_row.run_id)
        )

    async def _fetch_and_load(self, loader: Loader, clock: DatabaseClock) -> RunError | None:
        # Batches are read ahead on a connection of their own: the loader's is in a transaction.
        with self.engine.connect() as connection:
            reader = connection.execution_options(isolation_level="AUTOCOMMIT")
            async with self.client:
                return await fetch_and_load(
                    self.ids,
                    self.client,
                    clock,
                    read=lambda arrivals: read_batch(reader, arrivals),
                    load=loader.load,
                    concurrency=self.settings.api.concurrency,
                    pace=Pace(self.settings.api.requests_per_second),
                    deadline_seconds=self.settings.safety.run_deadline_seconds,
                )

    def _closed(self, status: str, told: str | None, error: EtlError | None) -> Summary:
        """Closes the ledger's row; when Postgres is gone, the next run will."""
        row: dict[str, Any] = {"finished_at": None, **self.tally.columns(self.client.http_requests)}
        requests = self.client.http_requests
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
            self.run_row.run_id,
            self.run_row.command,
            status,
            self.started_at,
            row["finished_at"],
            {name: row[name] for name in ("requested", *OUTCOMES)},
            row["value_issues"],
            row["new_drift_paths"],
            row["http_requests"],
            error,
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


def _unmapped(tally: Tally, *, strict: bool) -> SafetyStopError | None:
    """Whether a field that is new to us should be looked at by a person."""
    if not strict or not tally.new_drift_paths:
        return None
    return SafetyStopError(
        "the API shows fields that the map does not know: "
        + ", ".join(tally.new_drift_paths)
        + "; everything is loaded, they are kept in `extra`"
    )
