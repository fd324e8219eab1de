"""`backfill files`: observations out of files, each of which slots into history where it belongs.

Lines are read in a thread of their own, while those before them are on their way into Postgres.
Their observations are stored batch by batch and folded at the end, so that it costs the same in
whatever order they come.
"""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl.errors import PersonaError
from etl.jobs.garbage import seldom_collected
from etl.jobs.intake import Intake
from etl.jobs.lines import LineReader
from etl.jobs.opened_run import close, concluded, opened_run
from etl.jobs.settling import settle
from etl.jobs.summary import log_new_drift
from etl.payload.decode import loads
from etl.report.text import counted
from etl.store.engine import database_now, make_engine, translated
from etl.store.ledger import add_items_of_opened, opened_by, set_counts
from etl.store.mapped import at_head, map_of
from etl.store.observations import drop_unused_documents
from etl.store.pasts import drop_stray_pasts
from etl.tables import OUTCOMES, SUCCESSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from uuid import UUID

    from etl.errors import EtlError
    from etl.files.lines import Line
    from etl.jobs.line_tally import LineTally
    from etl.jobs.opened_run import OpenedRun
    from etl.jobs.taken import Taking
    from etl.settings import Settings

    Batches = queue.Queue[Taking | BaseException | None]

# One that is read, beside the one that is being loaded and the one that waits.
_BATCHES_AHEAD = 1
# How soon a signal is noticed while a pipe brings nothing.
_LOOKS_EVERY_SECONDS = 0.2


@dataclass(slots=True)
class FilesSummary:
    """What `--json` prints: how a load ended and what it did."""

    run_id: UUID
    command: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    counts: dict[str, int]
    value_issues: int = 0
    new_drift_paths: int = 0
    observations: int = 0
    """New rows."""
    forgotten: int = 0
    """Lines of personas that are kept out. They are not among those requested."""
    not_kept: int = 0
    """Lines older than the history that is kept: nothing of them is stored. They are unchanged."""
    rejected: list[str] = field(default_factory=list)
    """The first lines that were rejected, each with its file and number, and why."""
    error: EtlError | None = None
    """Why it ended otherwise than well."""

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return 0 if self.error is None else self.error.exit_code


def backfill_files(
    settings: Settings,
    lines: Iterable[Line],
    *,
    url: str,
    unforget: bool = False,
    wait_seconds: float = 0,
    run_id: UUID | None = None,
    report: Callable[[FilesSummary], None],
    watch: Callable[[LineTally], None] = lambda _: None,
    watch_folding: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Loads these lines. Calls `report` once, on every way out on which the run exists.

    Lines of forgotten personas are left out; with `unforget` those are let in again. It waits for
    the lock up to `wait_seconds`; `run_id` is what the run is called. `watch` is called as
    lines are loaded, and `watch_folding` as their entities are folded: how many, of how many.

    Raises DatabaseError before the run exists: Postgres is unreachable or its schema not at head.
    """
    schema = settings.database.schema_
    engine = at_head(make_engine(url, schema, json_deserializer=loads), schema)
    with opened_run(
        engine, url, schema, command="backfill files", wait_seconds=wait_seconds, run_id=run_id
    ) as run:
        if run.locked is not None:
            counts = dict.fromkeys(("requested", *OUTCOMES), 0)
            at = run.started_at
            report(
                FilesSummary(run.run_id, run.command, "skipped", at, at, counts, error=run.locked)
            )
            return
        load = _Load(settings, run, unforget=unforget, watch=watch, watch_folding=watch_folding)
        concluded(run.halt, lambda: load.go(lines), lambda *ending: report(load.closed(*ending)))


class _Load:
    """One run, from its open ledger row to its closed one."""

    def __init__(
        self,
        settings: Settings,
        run: OpenedRun,
        *,
        unforget: bool,
        watch: Callable[[LineTally], None],
        watch_folding: Callable[[int, int], None],
    ) -> None:
        self.settings = settings
        self.run = run
        self.unforget = unforget
        self.watch = watch
        self.watch_folding = watch_folding
        self.intake: Intake | None = None

    def go(self, lines: Iterable[Line]) -> EtlError | None:
        """Loads and folds. Returns why the run did not end well, if it did not."""
        run = self.run
        with translated(run.engine), seldom_collected():
            # What an earlier load has left is not of this run.
            settle(run, watch=self.watch_folding)
            with run.connection.begin():
                reader = LineReader(map_of(run.connection), now=database_now(run.connection))
            self.intake = Intake(run, reader, unforget=self.unforget, watch=self.watch)
            try:
                with _read_ahead(reader.batches(lines)) as batches:
                    for batch in _until_told(run, batches):
                        self.intake.load(batch)
                issues = settle(run, watch=self.watch_folding)
                if self.intake.tally.forgotten:
                    with run.writing():
                        drop_stray_pasts(run.connection)
                self._conclude(self.intake, issues)
            finally:
                log_new_drift(self.intake.tally.new_drift_paths, self.settings.safety)
        return _rejections(self.intake.tally)

    def _conclude(self, intake: Intake, issues: int) -> None:
        """Enters what the lines came to, now that versions tell it."""
        tally = intake.tally
        with self.run.writing():
            connection, run_id = self.run.connection, self.run.run_id
            # What a greater copy took the place of was still in force when that came.
            drop_unused_documents(connection, intake.unused)
            opened = {c: n for c, n in opened_by(connection, run_id).items() if c in SUCCESSES}
            add_items_of_opened(connection, run_id)
            settled = sum(opened.values()) + tally.missing + tally.rejected
            counts = tally.columns() | opened
            counts |= {"unchanged": tally.lines - settled, "not_attempted": 0}
            set_counts(connection, run_id, counts | {"value_issues": issues})

    def closed(self, status: str, told: str | None, error: EtlError | None) -> FilesSummary:
        """Closes the ledger's row. Returns how the run ended."""
        ended = close(self.run, status, told, error)
        tally = self.intake.tally if self.intake else None
        row: dict[str, Any] = {"finished_at": None, "value_issues": 0, "new_drift_paths": 0}
        row |= dict.fromkeys(("requested", *OUTCOMES), 0)
        row |= ended.row or (tally.columns() if tally else {})
        return FilesSummary(
            run_id=self.run.run_id,
            command=self.run.command,
            status=ended.status,
            started_at=self.run.started_at,
            finished_at=row["finished_at"],
            counts={name: row[name] for name in ("requested", *OUTCOMES)},
            value_issues=row["value_issues"],
            new_drift_paths=row["new_drift_paths"],
            observations=tally.observations if tally else 0,
            forgotten=tally.forgotten if tally else 0,
            not_kept=tally.not_kept if tally else 0,
            rejected=tally.first_rejected if tally else [],
            error=ended.error,
        )


def _rejections(tally: LineTally) -> PersonaError | None:
    if not tally.rejected:
        return None
    lines = counted(tally.lines, "line")
    rest = "the rest is loaded" if tally.rejected < tally.lines else "nothing is loaded"
    return PersonaError(
        f"{tally.rejected} of {lines} rejected, {rest}; first: {tally.first_rejected[0]}"
    )


@contextmanager
def _read_ahead(batches: Iterator[Taking]) -> Iterator[Batches]:
    """A queue that a thread fills with batches, then with None, or with what went wrong."""
    ahead: Batches = queue.Queue(_BATCHES_AHEAD)
    over = threading.Event()

    def put(item: Taking | BaseException | None) -> None:
        while not over.is_set():
            try:
                ahead.put(item, timeout=_LOOKS_EVERY_SECONDS)
            except queue.Full:
                continue
            return

    def read() -> None:
        try:
            for batch in batches:
                put(batch)
                if over.is_set():
                    return
        except BaseException as exc:  # noqa: BLE001  it is raised where it is waited for
            put(exc)
        else:
            put(None)

    # Nobody waits for it: it may hang in a pipe that brings nothing.
    threading.Thread(target=read, name="lines", daemon=True).start()
    try:
        yield ahead
    finally:
        over.set()


def _until_told(run: OpenedRun, ahead: Batches) -> Iterator[Taking]:
    """The batches, one after the other; raises when the run is told to stop."""
    while True:
        run.halt.check()
        try:
            item = ahead.get(timeout=_LOOKS_EVERY_SECONDS)
        except queue.Empty:
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item
