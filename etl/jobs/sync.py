"""The main job: fetch the given personas, load them batch by batch, account for each.

The run has its row before work starts, and it is closed on every way out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy.exc import DBAPIError

from etl.errors import (
    DatabaseError,
    DeferredError,
    EtlError,
    InterruptedRunError,
    KeyRefusedError,
    LockedError,
    PersonaError,
    RunError,
    SafetyStopError,
    SourceDownError,
)
from etl.jobs.arrival import DatabaseClock
from etl.jobs.fetching import Pace, fetch_and_load
from etl.jobs.load import FAILURES, Loaded, load
from etl.jobs.observe import remove
from etl.payload.decode import loads
from etl.source.client import PersonaClient
from etl.store.engine import is_data_error, is_retryable, make_engine, translated
from etl.store.ledger import (
    Run,
    close_orphans,
    close_run,
    live_personas,
    open_run,
    running,
    set_counts,
    written_since,
)
from etl.store.lock import WriterLock
from etl.store.migration import require_head
from etl.tables import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, Engine

    from etl.jobs.arrival import Arrival
    from etl.settings import Settings
    from etl.store.ledger import Item

logger = logging.getLogger(__name__)

# Removals are few, or a safety stop: one transaction must not grow with the run all the same.
REMOVALS_AT_ONCE = 500
# A deadlock or a serialization failure goes away by itself, unless something is badly wrong.
ATTEMPTS_A_BATCH = 3


@dataclass(slots=True)
class Summary:
    """What `--json` prints: how a run ended and what it did."""

    run_id: UUID
    command: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    counts: dict[str, int]
    value_issues: int = 0
    new_drift_paths: int = 0
    http_requests: int = 0
    error: EtlError | None = None
    """Why it ended otherwise than well."""

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return 0 if self.error is None else self.error.exit_code


@dataclass(slots=True)
class _Tally:
    """What a run has come to so far."""

    requested: int
    outcomes: Counter[str] = field(default_factory=Counter)
    value_issues: int = 0
    new_drift_paths: list[str] = field(default_factory=list)
    missing: dict[UUID, datetime] = field(default_factory=dict)
    first_failure: Item | None = None

    def plus(self, loaded: Loaded, arrivals: Sequence[Arrival]) -> _Tally:
        """With a batch on top."""
        times = {arrival.persona_id: arrival.observed_at for arrival in arrivals}
        gone = {i.persona_id: times[i.persona_id] for i in loaded.items if i.outcome == "missing"}
        return _Tally(
            self.requested,
            self.outcomes + Counter(item.outcome for item in loaded.items),
            self.value_issues + loaded.value_issues,
            self.new_drift_paths + loaded.new_drift_paths,
            self.missing | gone,
            self.first_failure
            or next((item for item in loaded.items if item.outcome in FAILURES), None),
        )

    def counts(self) -> dict[str, int]:
        """By outcome, with `requested` as their sum."""
        counts = {outcome: self.outcomes[outcome] for outcome in OUTCOMES}
        counts["not_attempted"] = self.requested - self.outcomes.total()
        return {"requested": self.requested, **counts}

    def columns(self, client: PersonaClient) -> dict[str, int]:
        """As the ledger has them."""
        return {
            **self.counts(),
            "value_issues": self.value_issues,
            "new_drift_paths": len(self.new_drift_paths),
            "http_requests": client.http_requests,
        }


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
        _Tally(requested).counts(),
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
        self.tally = _Tally(len(ids))
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
            error = self._copy(connection, allow_mass_removal=allow_mass_removal)
            drifted = strict or self.settings.safety.drift == "fail"
            if error is None and drifted and self.tally.new_drift_paths:
                error = SafetyStopError(
                    "the API shows fields that the map does not know: "
                    + ", ".join(self.tally.new_drift_paths)
                    + "; everything is loaded, they are kept in `extra`"
                )
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
        error = error or _failures(self.tally, self.run_row.run_id)
        status = _status(error)
        report(self._closed(status, str(error) if error else None, error))

    def _copy(self, connection: Connection, *, allow_mass_removal: bool) -> RunError | None:
        """Fetches and loads. Returns why the run did not end well, if it did not."""
        with translated():
            clock = DatabaseClock.read(connection)
            connection.rollback()
            stopped = asyncio.run(self._fetch_and_load(connection, clock))
            if stopped is None:
                stopped = self._remove_missing(connection, allow_mass=allow_mass_removal)
        return stopped or _refusal(self.tally)

    async def _fetch_and_load(
        self, connection: Connection, clock: DatabaseClock
    ) -> RunError | None:
        async with self.client:
            return await fetch_and_load(
                self.ids,
                self.client,
                clock,
                lambda batch: self._load(connection, batch),
                concurrency=self.settings.api.concurrency,
                pace=Pace(self.settings.api.requests_per_second),
                deadline_seconds=self.settings.safety.run_deadline_seconds,
            )

    def _load(self, connection: Connection, batch: Sequence[Arrival]) -> None:
        """Loads a batch; one that fails for its data is split until the culprit is alone."""
        self._keep_lock(connection)
        for attempt in range(1, ATTEMPTS_A_BATCH + 1):
            try:
                with connection.begin():
                    loaded = load(connection, batch, self.run_row.run_id)
                    tally = self.tally.plus(loaded, batch)
                    set_counts(connection, self.run_row.run_id, tally.columns(self.client))
            except (DBAPIError, UnicodeEncodeError) as exc:
                if is_retryable(exc) and attempt < ATTEMPTS_A_BATCH:
                    continue
                if not is_data_error(exc) or batch[0].refused is not None:
                    raise
                self._split(connection, batch, exc)
            else:
                self.tally = tally
                for path in loaded.new_drift_paths:
                    level = (
                        logging.INFO if self.settings.safety.drift == "record" else logging.WARNING
                    )
                    logger.log(level, "the API shows a field that is unmapped: %s", path)
            return

    def _split(self, connection: Connection, batch: Sequence[Arrival], exc: Exception) -> None:
        if len(batch) > 1:
            middle = len(batch) // 2
            self._load(connection, batch[:middle])
            self._load(connection, batch[middle:])
            return
        state = getattr(getattr(exc, "orig", None), "sqlstate", None) or type(exc).__name__
        refused = replace(batch[0], refused=f"Postgres does not take it ({state})")
        self._load(connection, [refused])

    def _keep_lock(self, connection: Connection) -> None:
        """Goes on after a lost lock only if nobody else has written since."""
        if self.lock.is_alive():
            return
        if not self.lock.reacquire():
            raise LockedError("the lock was lost and another run has taken it")
        with connection.begin():
            if written_since(connection, self.run_row.run_id):
                raise LockedError("the lock was lost and another run has written since")

    def _remove_missing(self, connection: Connection, *, allow_mass: bool) -> RunError | None:
        """Removes the live personas that the API says are gone, unless they are too many."""
        missing = self.tally.missing
        if not missing:
            return None
        with connection.begin():
            seen = live_personas(connection, self.ids)
        for persona_id in missing.keys() - seen.keys():
            logger.warning(
                "persona %s was never seen and the API does not know it: is the id right?",
                persona_id,
            )
        live = [persona_id for persona_id, is_live in seen.items() if is_live]
        gone = sorted(set(missing) & set(live))
        percent = self.settings.safety.max_removed_percent
        if not allow_mass and _is_mass_removal(len(gone), len(live), percent):
            return SafetyStopError(
                f"{len(gone)} of {len(live)} live personas are missing; none was removed."
                " Check that the key is of the right organisation; if they are really gone,"
                " run again with --allow-mass-removal"
            )
        for start in range(0, len(gone), REMOVALS_AT_ONCE):
            self._keep_lock(connection)
            with connection.begin():
                part = [(gone_id, missing[gone_id]) for gone_id in gone[start:][:REMOVALS_AT_ONCE]]
                remove(connection, part, self.run_row.run_id)
        return None

    def _closed(self, status: str, told: str | None, error: EtlError | None) -> Summary:
        """Closes the ledger's row; when Postgres is gone, the next run will."""
        row: dict[str, Any] = {"finished_at": None, **self.tally.columns(self.client)}
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


def _is_mass_removal(gone: int, live: int, percent: float) -> bool:
    """Design, section 6: more than both 5 and the limit, or all of two or more."""
    return (gone > 5 and gone * 100 > live * percent) or gone == live >= 2  # noqa: PLR2004


def _refusal(tally: _Tally) -> RunError | None:
    """Whether the answers together say that it is not about single personas."""
    outcomes, requested = tally.outcomes, tally.requested
    if requested >= 2 and outcomes["forbidden"] == requested:  # noqa: PLR2004
        return KeyRefusedError(
            f"the API answers 403 for all {requested} personas;"
            " check the key's permissions and plan"
        )
    if requested and outcomes["failed"] == requested:
        return SourceDownError(
            f"none of {requested} personas could be fetched; first: {_told(tally.first_failure)}"
        )
    return None


def _failures(tally: _Tally, run_id: UUID) -> PersonaError | None:
    """What to tell when some personas were not copied."""
    first = tally.first_failure
    if first is None:
        return None
    failed = {outcome: tally.outcomes[outcome] for outcome in FAILURES if tally.outcomes[outcome]}
    return PersonaError(
        f"{sum(failed.values())} of {tally.requested} personas were not copied"
        f" ({', '.join(f'{count} {outcome}' for outcome, count in failed.items())});"
        f" first: {_told(first)};"
        f" all are in run_items, run_id {run_id}"
    )


def _told(item: Item | None) -> str:
    """What went wrong with one persona, and with which."""
    if item is None or item.message is None:
        return "no error was recorded"
    id_ = str(item.persona_id)
    return item.message if id_ in item.message else f"persona {id_}: {item.message}"


def _status(error: EtlError | None) -> str:
    """How a run that ended with this error is entered."""
    match error:
        case None:
            return "succeeded"
        case PersonaError():
            return "partial"
        case InterruptedRunError():
            return "interrupted"
        case DeferredError():
            return "deferred"
        case _:
            return "failed"
