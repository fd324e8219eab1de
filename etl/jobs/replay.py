"""Versions from the observations, tables from the versions: compares, and mends what differs.

Both are pure functions, so the same code says what should be for `--check` and for a replay, batch
by batch; the one only tells, the other writes what differs and nothing else.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from etl.errors import DatabaseError, DiscrepancyError, EtlError, SafetyStopError, UsageError
from etl.jobs.chains import replay_chains
from etl.jobs.findings import Findings, differs, left_over, not_folded
from etl.jobs.garbage import seldom_collected
from etl.jobs.links import contested_links
from etl.jobs.opened_run import close, concluded, opened_run
from etl.jobs.removal import is_mass_removal
from etl.jobs.rows import next_batch, replay_rows
from etl.jobs.settling import settle
from etl.map import SHIPPED
from etl.store.chains import next_span, unobserved_personas
from etl.store.engine import database_now, make_engine, translated
from etl.store.faithful import loads_faithfully, read_faithfully
from etl.store.links import tables_of_links
from etl.store.mapped import at_head, map_of
from etl.store.rows import delete_unused
from etl.store.snapshot import snapshot
from etl.store.states import doubt_all_bodies
from etl.store.unfolded import count_unfolded
from etl.tables import KINDS, document_versions, documents, share_links

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, Table

    from etl.jobs.opened_run import OpenedRun
    from etl.map import Map
    from etl.settings import Settings
    from etl.store.rows import Key, Standing
    from etl.tables import Kind

    Watch = Callable[[int, int], None]

T = TypeVar("T")

_ENTITIES_AT_ONCE = 200
_DELETED_AT_ONCE = 500


@dataclass(slots=True)
class Replayed:
    """How a replay or a check ended, and what it found."""

    run_id: UUID | None
    """None for a check, which is not in the ledger."""
    status: str
    started_at: datetime
    finished_at: datetime | None
    findings: Findings
    tables: Sequence[str]
    error: EtlError | None

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return 0 if self.error is None else self.error.exit_code


def replayed_tables(names: Collection[str] = (), the_map: Map = SHIPPED) -> tuple[str, ...]:
    """These tables, and those that they refer to; no names: all that can be replayed.

    Raises UsageError for a name of another table.
    """
    found = (the_map.tables[document_versions.name], *the_map.projections())
    known = {table.name: table for table in found}
    wanted = set(names or known)
    if unknown := sorted(wanted - known.keys()):
        near = difflib.get_close_matches(unknown[0], known, n=1)
        meant = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
        raise UsageError(f"--table: no table {unknown[0]!r} is replayed. {meant}")
    if share_links.name in wanted:
        # A link can't go before what belongs to it.
        wanted |= {table.name for table in tables_of_links(the_map)}
    for name, table in reversed(known.items()):
        if name in wanted:
            wanted |= {key.column.table.name for key in table.foreign_keys} - {documents.name}
    return tuple(name for name in known if name in wanted)


def check(
    settings: Settings,
    *,
    url: str,
    tables: Sequence[str] = (),
    watch: Watch = lambda _done, _total: None,
) -> Replayed:
    """Compares only: in one snapshot, read-only, without lock and ledger.

    Raises DatabaseError when Postgres is unreachable or its schema not at head, and UsageError for
    a name of no such table; none: all.
    """
    schema = settings.database.schema_
    with snapshot(url, schema, json_deserializer=loads_faithfully) as connection:
        tables = replayed_tables(tables, map_of(connection))
        started_at = database_now(connection)
        replay_of = _Replay(connection, tables, None, watch=watch)
        lost = _lost(connection, settings.safety.max_removed_percent)
        unfolded = count_unfolded(connection)
        replay_of.go()
        finished_at = database_now(connection)
    found = replay_of.found
    error: EtlError | None = None
    if lost and found.differences:
        error = DiscrepancyError(lost)
    elif unfolded and found.differences:
        waiting = f"{not_folded(unfolded)}; until then there are differences"
        error = DiscrepancyError(f"{waiting} ({found.differences.total()})")
    elif found.differences:
        error = differs(found)
    return Replayed(
        None,
        "failed" if error else "succeeded",
        started_at,
        finished_at,
        found,
        tables,
        error,
    )


def replay(
    settings: Settings,
    *,
    url: str,
    tables: Sequence[str] = (),
    wait_seconds: float = 0,
    run_id: UUID | None = None,
    report: Callable[[Replayed], None],
    watch: Watch = lambda _done, _total: None,
) -> None:
    """Compares and writes what differs. Calls `report` once, on every way out.

    It waits for the lock up to `wait_seconds`. `run_id` is what the run is called.

    Raises, before the run exists, what `check` raises.
    """
    schema = settings.database.schema_
    engine = make_engine(url, schema, json_deserializer=loads_faithfully)
    engine = at_head(engine, schema)
    with translated(engine), engine.connect() as connection:
        tables = replayed_tables(tables, map_of(connection))
    with opened_run(
        engine, url, schema, command="backfill replay", wait_seconds=wait_seconds, run_id=run_id
    ) as run:
        if run.locked is not None:
            nothing = Findings()
            at = run.started_at
            report(Replayed(run.run_id, "skipped", at, at, nothing, tables, run.locked))
            return
        under_way = _Replay(run.connection, tables, run, watch=watch)

        def work() -> EtlError | None:
            with translated(run.engine):
                with run.connection.begin():
                    lost = _lost(run.connection, settings.safety.max_removed_percent)
                if lost:
                    raise SafetyStopError(f"{lost}; nothing was changed")
                settle(run)
                try:
                    under_way.go()
                except DiscrepancyError as exc:
                    return exc
            return left_over(under_way.found) if under_way.found.left else None

        def end(status: str, told: str | None, error: EtlError | None) -> None:
            ended = close(run, status, told, error)
            report(
                Replayed(
                    run.run_id,
                    ended.status,
                    run.started_at,
                    ended.row["finished_at"] if ended.row else None,
                    under_way.found,
                    tables,
                    ended.error,
                )
            )

        concluded(run.halt, work, end)


class _Replay:
    """One pass over everything: first the versions of all, then the rows."""

    def __init__(
        self,
        connection: Connection,
        tables: Sequence[str],
        run: OpenedRun | None,
        *,
        watch: Watch,
    ) -> None:
        """`run`: None for a check, of which everything is one transaction."""
        read_faithfully(connection)
        self.connection = connection
        self.map = map_of(connection)
        self.tables = tables
        self.run = run
        self.watch = watch
        self.found = Findings()
        self.done = 0
        self.total = 0
        # Only for a check: once the versions are mended, they say so themselves.
        self.mended: dict[Kind, dict[UUID, Standing | None]] = {}
        self.contested: dict[UUID, UUID | None] = {}

    def go(self) -> None:
        """Goes through all. Raises LockedError when the lock is lost and another has written."""
        kinds = [k for k in KINDS if any(t.name in self.tables for t in self.map.projections(k))]
        passes = kinds
        if document_versions.name in self.tables:
            passes = [*KINDS, *kinds]
        self.total = self._in_batch(partial(self._expected, passes))
        self.watch(0, self.total)
        with seldom_collected():
            if document_versions.name in self.tables:
                for kind in KINDS:
                    self._go_through(partial(self._chains, kind))
            for kind in kinds:
                if kind == "persona":
                    self.contested = self._in_batch(lambda _: contested_links(self.connection))
                self._go_through(partial(self._rows, kind))
        if self.run is not None:
            self._delete_surplus()
            if self.found.missing:
                # History has no observed columns: the next answers are to be read for them.
                self._in_batch(lambda _: doubt_all_bodies(self.connection))

    def _expected(self, passes: Sequence[Kind], _found: Findings) -> int:
        v = document_versions.c
        statement = (
            select(v.kind, func.count().label("entities"))
            .where(v.valid_to.is_(None))
            .group_by(v.kind)
        )
        known = {row.kind: row.entities for row in self.connection.execute(statement)}
        return sum(known.get(kind, 0) for kind in passes)

    def _go_through(self, work: Callable[[UUID | None, Findings], tuple[UUID | None, int]]) -> None:
        """Does the work from the first entity to the last, batch by batch."""
        after: UUID | None = None
        while True:
            after, entities = self._in_batch(partial(work, after))
            self.done += entities
            self.watch(self.done, self.total)
            if after is None:
                return

    def _chains(self, kind: Kind, after: UUID | None, found: Findings) -> tuple[UUID | None, int]:
        span = next_span(self.connection, kind, after, _ENTITIES_AT_ONCE)
        mended = replay_chains(self.connection, kind, span, found, write=self.run is not None)
        if self.run is None:
            self.mended.setdefault(kind, {}).update(mended)
        return span.until, found.checked["entities"]

    def _rows(self, kind: Kind, after: UUID | None, found: Findings) -> tuple[UUID | None, int]:
        mended = self.mended.get(kind, {})
        batch, until = next_batch(
            self.connection, kind, after, mended=mended, contested=self.contested
        )
        run_id = self.run.run_id if self.run else None
        replay_rows(self.connection, batch, self.tables, found, run_id=run_id)
        if document_versions.name not in self.tables:
            found.checked["entities"] += len(batch.standings)
        return until, len(batch.standings)

    def _delete_surplus(self) -> None:
        """Rows of entities that were never observed; what others still refer to is left."""
        for table in reversed(self.map.projections()):
            keys = self.found.surplus.get(table.name, [])
            for start in range(0, len(keys), _DELETED_AT_ONCE):
                self._in_batch(partial(self._delete, table, keys[start:][:_DELETED_AT_ONCE]))

    def _delete(self, table: Table, keys: Sequence[Key], found: Findings) -> None:
        gone = delete_unused(self.connection, table, keys)
        found.left[table.name] += len(keys) - len(gone)

    def _in_batch(self, work: Callable[[Findings], T]) -> T:
        """Does a part of the work: in a replay in a transaction of its own, tried again if need be.

        What it finds counts when it is committed.
        """

        def attempt() -> tuple[T, Findings]:
            found = Findings()
            return work(found), found

        if self.run is None:
            result, found = attempt()
        else:
            self.run.halt.check()
            try:
                result, found = self.run.in_transaction(attempt)
            except IntegrityError as exc:
                broken = getattr(getattr(exc.orig, "diag", None), "constraint_name", None)
                raise DatabaseError(
                    f"Postgres refuses what follows from the observations ({broken}): something"
                    " that is referred to was lost; restore observations and documents from a"
                    " backup"
                ) from exc
        self.found.include(found)
        return result


def _lost(connection: Connection, max_percent: float) -> str | None:
    """What to say when too many personas have no observation left: a replay would wipe them out."""
    known, lost = unobserved_personas(connection)
    if not is_mass_removal(lost, known - lost, known, max_percent):
        return None
    return (
        f"the observations of {lost} of {known} personas are lost, and history can't be made"
        " without them; restore observations and documents from a backup"
    )
