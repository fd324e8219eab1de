"""The main job: fetch the given personas, load them batch by batch, account for each.

The run has its row before work starts, and it is closed on every way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl.jobs.arrival import DatabaseClock
from etl.jobs.asking import Asking
from etl.jobs.batches import Loader
from etl.jobs.garbage import seldom_collected
from etl.jobs.opened_run import close, concluded, opened_run
from etl.jobs.removal import remove_missing
from etl.jobs.settling import settle
from etl.jobs.summary import Summary, Tally, log_new_drift, verdict
from etl.payload.decode import loads
from etl.store.engine import make_engine, translated
from etl.store.erasures import lift
from etl.store.mapped import at_head
from etl.tables import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from etl.errors import EtlError, LockedError
    from etl.jobs.asking import Choose
    from etl.jobs.opened_run import OpenedRun
    from etl.settings import Settings


def sync(
    settings: Settings,
    ids: Sequence[UUID],
    *,
    url: str,
    command: str = "sync",
    discover: bool = False,
    choose: Choose = lambda _, known: known,
    keeps_list: bool = False,
    resumes: UUID | None = None,
    strict: bool = False,
    allow_mass_removal: bool = False,
    unforget: bool = False,
    wait_seconds: float = 0,
    run_id: UUID | None = None,
    begun: Callable[[], None] = lambda: None,
    report: Callable[[Summary], None],
    watch: Callable[[Tally], None] = lambda _: None,
) -> None:
    """Copies these personas. Calls `report` once, on every way out on which the run exists.

    Args:
        settings: Where from, where to, and how carefully.
        ids: The personas.
        url: The database, served already when it is an embedded one.
        command: What the run is called in the ledger.
        discover: Adds those that the API lists and all live ones.
        choose: Whom of all of them to ask for.
        keeps_list: The run can be resumed, as it enters whom it asks for before it does.
        resumes: The run whose rest `choose` chooses.
        strict: That the API has moved is an error.
        allow_mass_removal: However many are missing, they are removed.
        unforget: Forgotten personas are let in again rather than left out.
        wait_seconds: Waits so long for the lock.
        run_id: What the run is called; None: any new id.
        begun: Is called when the run is open, unless it is skipped.
        report: Is told how the run ended.
        watch: Is called as the run goes on, from any thread.

    Raises:
        DatabaseError: before the run exists: Postgres is unreachable or its schema not at head.
        UsageError: before the run exists: the API's address or the key can't be used.
    """
    schema = settings.database.schema_
    asking = Asking(settings, ids, discover=discover, choose=choose, unforget=unforget)
    engine = make_engine(url, schema, json_deserializer=loads)
    engine = at_head(engine, schema)
    with opened_run(
        engine,
        url,
        schema,
        command=command,
        requested=len(ids),
        resumes=resumes,
        wait_seconds=wait_seconds,
        run_id=run_id,
    ) as run:
        if run.locked is not None:
            report(_skipped(run, run.locked, len(ids)))
            return
        begun()
        under_way = _Sync(
            settings, run, asking=asking, keeps_list=keeps_list, unforget=unforget, watch=watch
        )
        concluded(
            run.halt,
            lambda: under_way.copy(strict=strict, allow_mass_removal=allow_mass_removal),
            lambda *ending: report(under_way.closed(*ending)),
        )


def _skipped(run: OpenedRun, locked: LockedError, requested: int) -> Summary:
    return Summary(
        run_id=run.run_id,
        command=run.command,
        status="skipped",
        started_at=run.started_at,
        finished_at=run.started_at,
        counts=Tally(requested).counts(),
        error=locked,
    )


class _Sync:
    """One run, from its open ledger row to its closed one."""

    def __init__(
        self,
        settings: Settings,
        run: OpenedRun,
        *,
        asking: Asking,
        keeps_list: bool,
        unforget: bool,
        watch: Callable[[Tally], None],
    ) -> None:
        self.settings = settings
        self.run = run
        self.asking = asking
        self.keeps_list = keeps_list
        self.has_list = False
        self.unforget = unforget
        self.tally = Tally(len(asking.ids))
        self.watch = watch

    def copy(self, *, strict: bool, allow_mass_removal: bool) -> EtlError | None:
        """Fetches, loads and removes. Returns why the run did not end well, if it did not."""
        safety = self.settings.safety
        loader = Loader(
            self.run,
            self.tally,
            http_requests=lambda: self.asking.http_requests,
            watch=self.watch,
            keeps_list=self.keeps_list,
        )
        stopwatch = self.asking.stopwatch
        refused: EtlError | None = None
        max_percent = None if allow_mass_removal else safety.max_removed_percent
        try:
            with translated(self.run.engine), seldom_collected():
                with stopwatch.timing("settle"):
                    settle(self.run)
                clock = DatabaseClock.read(self.run.connection)
                self.run.connection.rollback()
                stopped = self.asking.ask(
                    self.run.engine,
                    clock,
                    halt=self.run.halt,
                    known=lambda _: self._enter(loader),
                    load=loader.load,
                )
                if stopped is None:
                    with stopwatch.timing("remove"):
                        refused = remove_missing(loader, self.asking.ids, max_percent=max_percent)
                        loader.look_for_vanished()
        finally:
            self.tally = loader.tally
            log_new_drift(self.tally.new_drift_paths, safety)
        told = verdict(self.tally, stopped, safety, strict=strict, run_id=self.run.run_id)
        return told or refused

    def _enter(self, loader: Loader) -> None:
        """It is known who is asked for, and nobody was asked yet."""
        loader.known(self.asking.ids)
        self.has_list = self.keeps_list
        if self.unforget:
            with self.run.writing():
                lift(self.run.connection, self.asking.ids)

    def closed(self, status: str, told: str | None, error: EtlError | None) -> Summary:
        """Closes the ledger's row. Returns how the run ended."""
        requests = self.asking.http_requests
        ended = close(self.run, status, told, error, http_requests=requests)
        # Not the tally: of a batch whose connection broke at its commit only Postgres knows.
        row: dict[str, Any] = ended.row or {"finished_at": None, **self.tally.columns(requests)}
        left = row["not_attempted"] + row["failed"] if self.has_list else 0
        return Summary(
            run_id=self.run.run_id,
            command=self.run.command,
            status=ended.status,
            started_at=self.run.started_at,
            finished_at=row["finished_at"],
            counts={name: row[name] for name in ("requested", *OUTCOMES)},
            value_issues=row["value_issues"],
            new_drift_paths=row["new_drift_paths"],
            http_requests=row["http_requests"],
            error=ended.error,
            left=left,
            stages=dict(self.asking.stopwatch.seconds),
        )
