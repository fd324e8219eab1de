"""Retention: lets the beginnings of histories go, and what of the ledger is old.

Small transactions, each of which leaves everything in order: what follows from the observations
that stay is written before it ends. So it can die anywhere, and run again it ends the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from etl.errors import DiscrepancyError, EtlError, UsageError
from etl.jobs.chains import replay_chains
from etl.jobs.opened_run import close, concluded, opened_run
from etl.jobs.settling import settle
from etl.store.chains import Picked
from etl.store.engine import database_now, make_engine, translated
from etl.store.faithful import loads_faithfully, read_faithfully
from etl.store.mapped import at_head
from etl.store.pasts import keep_pasts, pruned_before
from etl.store.pruning import (
    Rule,
    candidates,
    count_entities,
    delete_observations,
    delete_unused,
    foreseen,
    next_entities,
)
from etl.store.retention import count_items, count_old, delete_old, delete_runs, expendable_runs
from etl.store.rows import standings_of
from etl.store.snapshot import snapshot
from etl.tables import (
    KINDS,
    document_versions,
    documents,
    observations,
    rejected_payloads,
    run_items,
    runs,
    value_issues,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.opened_run import OpenedRun
    from etl.settings import Settings
    from etl.tables import Kind

    Watch = Callable[[int, int], None]

T = TypeVar("T")

TABLES = tuple(
    table.name
    for table in (
        document_versions,
        observations,
        documents,
        runs,
        run_items,
        value_issues,
        rejected_payloads,
    )
)
"""What it takes rows from."""

_ENTITIES_AT_ONCE = 200
# Of long histories, fewer of them.
_VERSIONS_AT_ONCE = 2000
_RUNS_AT_ONCE = 100
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Keep:
    """What is kept: days back from now, and versions. None: all."""

    history_days: int | None = None
    history_versions: int | None = None
    runs_days: int | None = None
    issues_days: int | None = None
    rejected_days: int | None = None


@dataclass(slots=True)
class Pruned:
    """How it ended, and what went or, of a dry run, would go."""

    run_id: UUID | None
    """None for a dry run, which is not in the ledger."""
    status: str
    started_at: datetime
    finished_at: datetime | None
    rows: Counter[str]
    """By table. Versions count when nothing is known of them any more."""
    document_bytes: int
    """What the documents took, about, compressed as they are stored."""
    error: EtlError | None

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return 0 if self.error is None else self.error.exit_code


def foresee(
    settings: Settings, keep: Keep, *, url: str, watch: Watch = lambda _done, _total: None
) -> Pruned:
    """Says what would go, of one snapshot: read-only, without lock and ledger.

    Raises UsageError when everything is kept, and DatabaseError when Postgres is unreachable or its
    schema not at head.
    """
    _require_limit(keep)
    schema = settings.database.schema_
    with snapshot(url, schema) as connection:
        started_at = database_now(connection)
        pruning = _Pruning(connection, keep, started_at, None, watch)
        pruning.go()
        finished_at = database_now(connection)
    return Pruned(
        None, "succeeded", started_at, finished_at, pruning.gone.rows, pruning.gone.bytes, None
    )


def prune(
    settings: Settings,
    keep: Keep,
    *,
    url: str,
    wait_seconds: float = 0,
    run_id: UUID | None = None,
    report: Callable[[Pruned], None],
    watch: Watch = lambda _done, _total: None,
) -> None:
    """Lets go of what need not be kept. Calls `report` once, on every way out.

    It waits for the lock up to `wait_seconds`. `run_id` is what the run is called.

    Raises, before the run exists, what `foresee` raises.
    """
    _require_limit(keep)
    schema = settings.database.schema_
    engine = at_head(make_engine(url, schema, json_deserializer=loads_faithfully), schema)
    with opened_run(
        engine, url, schema, command="prune", wait_seconds=wait_seconds, run_id=run_id
    ) as run:
        at = run.started_at
        if run.locked is not None:
            report(Pruned(run.run_id, "skipped", at, at, Counter(), 0, run.locked))
            return
        pruning = _Pruning(run.connection, keep, at, run, watch)

        def work() -> EtlError | None:
            with translated(run.engine):
                settle(run)
                try:
                    pruning.go()
                except DiscrepancyError as exc:
                    return exc
            return None

        def end(status: str, told: str | None, error: EtlError | None) -> None:
            ended = close(run, status, told, error)
            finished_at = ended.row["finished_at"] if ended.row else None
            gone = pruning.gone
            report(
                Pruned(
                    run.run_id,
                    ended.status,
                    at,
                    finished_at,
                    gone.rows,
                    gone.bytes,
                    ended.error,
                )
            )

        concluded(run.halt, work, end)


def _require_limit(keep: Keep) -> None:
    if keep == Keep():
        raise UsageError(
            "nothing is to go: say what is kept, e.g. --keep-history-days 365 --keep-runs-days 90"
        )


@dataclass(slots=True)
class _Gone:
    """What a part of the work lets go."""

    rows: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    def include(self, later: _Gone) -> None:
        self.rows += later.rows
        self.bytes += later.bytes


class _Pruning:
    """One pass over histories and ledger."""

    def __init__(
        self,
        connection: Connection,
        keep: Keep,
        now: datetime,
        run: OpenedRun | None,
        watch: Watch,
    ) -> None:
        """`run`: None for a dry run, of which everything is one transaction."""
        read_faithfully(connection)
        self.connection = connection
        self.keep = keep
        self.now = now
        self.run = run
        self.watch = watch
        self.gone = _Gone()

    def go(self) -> None:
        """Goes through all. Raises DiscrepancyError where a history is not what was observed."""
        if self.keep.history_days is not None or self.keep.history_versions is not None:
            rule = Rule(self._days_ago(self.keep.history_days), self.keep.history_versions)
            self._prune_histories(rule)
        if (before := self._days_ago(self.keep.runs_days)) is not None:
            self._prune_runs(before)
        for table, days in (
            (value_issues.name, self.keep.issues_days),
            (rejected_payloads.name, self.keep.rejected_days),
        ):
            if (before := self._days_ago(days)) is not None:
                self._prune_table(table, before)

    def _days_ago(self, days: int | None) -> datetime | None:
        return None if days is None else self.now - timedelta(days=days)

    def _prune_histories(self, rule: Rule) -> None:
        total = self._in_batch(lambda _: count_entities(self.connection))
        done = 0
        self.watch(done, total)
        for kind in KINDS:
            after: UUID | None = None
            while ids := self._in_batch(partial(self._histories, kind, rule, after)):
                after = ids[-1]
                done += len(ids)
                self.watch(done, total)

    def _histories(self, kind: Kind, rule: Rule, after: UUID | None, gone: _Gone) -> Sequence[UUID]:
        """Lets the beginnings of the next histories go. Returns whose those are."""
        ids = next_entities(self.connection, kind, after, _ENTITIES_AT_ONCE)
        run_id = self.run.run_id if self.run else None
        found = candidates(self.connection, kind, ids, rule, run_id)
        versions = 0
        for place, one in enumerate(found):
            versions += one.versions
            if place and versions > _VERSIONS_AT_ONCE:
                found, ids = found[:place], ids[: ids.index(one.entity_id)]
                break
        gone.rows[document_versions.name] += sum(one.versions for one in found)
        # Also of those that were pruned before: what had to be left then may be of no use now.
        known = pruned_before(self.connection, [(kind, id_) for id_ in ids])
        kept_from = {id_: moment for (_, id_), moment in known.items()}
        kept_from |= {one.entity_id: one.pruned.valid_to for one in found}
        if not kept_from:
            return ids
        if self.run is None:
            seen, unused, size = foreseen(self.connection, kind, kept_from)
        else:
            keep_pasts(self.connection, kind, found)
            seen, contents = delete_observations(self.connection, kind, kept_from)
            self._fold(kind, [one.entity_id for one in found])
            unused, size = delete_unused(self.connection, kind, contents)
        gone.rows.update({observations.name: seen, documents.name: unused})
        gone.bytes += size
        return ids

    def _fold(self, kind: Kind, ids: Sequence[UUID]) -> None:
        """Makes the versions what the observations that are left say: nothing else has changed."""
        before = {
            standing.entity_id: standing for standing in standings_of(self.connection, kind, ids)
        }
        mended = replay_chains(self.connection, kind, Picked(ids), None, write=True)
        for entity_id, standing in mended.items():
            if standing != before[entity_id]:
                raise DiscrepancyError(
                    f"the history of {kind} {entity_id} is not what its observations say, so that"
                    " nothing may go; see `persona-etl backfill replay --check`"
                )

    def _prune_runs(self, before: datetime) -> None:
        ids = self._in_batch(lambda _: expendable_runs(self.connection, before))
        for start in range(0, len(ids), _RUNS_AT_ONCE):
            part = ids[start:][:_RUNS_AT_ONCE]
            while not self._in_batch(partial(self._runs, part)):
                pass

    def _runs(self, ids: Sequence[UUID], gone: _Gone) -> bool:
        """Deletes runs, or some of the items that are in the way. Whether that is all."""
        if self.run is None:
            gone.rows.update(
                {runs.name: len(ids), run_items.name: count_items(self.connection, ids)}
            )
            return True
        deleted = delete_runs(self.connection, ids, limit=_ROWS_AT_ONCE)
        gone.rows.update(deleted)
        return runs.name in deleted

    def _prune_table(self, table: str, before: datetime) -> None:
        while self._in_batch(partial(self._old, table, before)) == _ROWS_AT_ONCE:
            pass

    def _old(self, table: str, before: datetime, gone: _Gone) -> int:
        if self.run is None:
            gone.rows[table] += count_old(self.connection, table, before)
            return 0
        deleted = delete_old(self.connection, table, before, limit=_ROWS_AT_ONCE)
        gone.rows[table] += deleted
        return deleted

    def _in_batch(self, work: Callable[[_Gone], T]) -> T:
        """Does a part of the work: in a run in a transaction of its own, tried again if need be.

        What goes counts when it is committed.
        """

        def attempt() -> tuple[T, _Gone]:
            gone = _Gone()
            return work(gone), gone

        if self.run is None:
            result, gone = attempt()
        else:
            self.run.halt.check()
            result, gone = self.run.in_transaction(attempt)
        self.gone.include(gone)
        return result
