"""Forgets a persona: everything about it leaves every table, in one transaction, for a receipt."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from etl.errors import UsageError
from etl.jobs.opened_run import close, concluded, opened_run
from etl.jobs.settling import fold_entities, settle
from etl.payload.decode import loads
from etl.store.engine import make_engine, translated
from etl.store.erasures import add_receipt, last_erasure
from etl.store.forgetting import (
    Belongings,
    belongings,
    delete_documents_of,
    delete_rows_of,
    forget_statistics,
)
from etl.store.forgotten_pasts import cut_paths, retell_beginnings
from etl.store.mapped import at_head
from etl.store.snapshot import snapshot
from etl.store.untold import delete_untold
from etl.tables import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from etl.errors import EtlError
    from etl.jobs.opened_run import OpenedRun
    from etl.settings import Settings
    from etl.store.forgetting import Shared


@dataclass(frozen=True, slots=True)
class Found:
    """What there is about a persona."""

    belongings: Belongings
    erased_at: datetime | None
    """When it was forgotten last, if it was."""

    @property
    def is_anything(self) -> bool:
        """Whether there is anything to forget."""
        return bool(self.belongings.rows)


@dataclass(slots=True)
class Forgotten:
    """How it ended, and what went."""

    persona_id: UUID
    run_id: UUID
    status: str
    started_at: datetime
    finished_at: datetime | None
    error: EtlError | None
    rows: dict[str, int] = field(default_factory=dict)
    """By table."""
    shared: Sequence[Shared] = ()
    erased_at: datetime | None = None
    """By the receipt."""

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return 0 if self.error is None else self.error.exit_code


def look(settings: Settings, persona_id: UUID, *, url: str) -> Found:
    """Says what would go. Takes no lock and writes nothing.

    Raises UsageError for a persona of which nothing is known, and DatabaseError.
    """
    with snapshot(url, settings.database.schema_, json_deserializer=loads) as connection:
        found = Found(belongings(connection, persona_id), last_erasure(connection, persona_id))
    if not found.is_anything and found.erased_at is None:
        raise UsageError(
            f"nothing is known of persona {persona_id}; nothing was done: is the id right?"
        )
    return found


def forget(
    settings: Settings,
    persona_id: UUID,
    *,
    url: str,
    wait_seconds: float = 0,
    run_id: UUID | None = None,
    report: Callable[[Forgotten], None],
) -> None:
    """Forgets a persona. Calls `report` once, on every way out on which the run exists.

    It waits for the lock up to `wait_seconds`; `run_id` is what the run is
    called. Raises DatabaseError before the run exists.
    """
    schema = settings.database.schema_
    engine = at_head(make_engine(url, schema, json_deserializer=loads), schema)
    with opened_run(
        engine, url, schema, command="forget", wait_seconds=wait_seconds, run_id=run_id
    ) as run:
        at = run.started_at
        if run.locked is not None:
            report(Forgotten(persona_id, run.run_id, "skipped", at, at, run.locked))
            return
        gone: list[Found] = []

        def work() -> None:
            with translated(run.engine):
                settle(run)
                gone.append(run.in_transaction(partial(_take_away, run, persona_id)))

        def end(status: str, told: str | None, error: EtlError | None) -> None:
            ended = close(run, status, told, error)
            finished_at = ended.row["finished_at"] if ended.row else None
            forgotten = Forgotten(
                persona_id, run.run_id, ended.status, at, finished_at, ended.error
            )
            for found in gone:
                forgotten.rows = found.belongings.rows
                forgotten.shared = found.belongings.shared
                forgotten.erased_at = found.erased_at
            report(forgotten)

        concluded(run.halt, work, end)


def _take_away(run: OpenedRun, persona_id: UUID) -> Found:
    """Returns what went."""
    connection = run.connection
    run.halt.check()
    found = belongings(connection, persona_id)
    if not found.rows:
        # Somebody else was faster: theirs is the receipt.
        return Found(found, last_erasure(connection, persona_id))
    run.halt.check()
    gone = delete_rows_of(connection, found)
    for kind in KINDS:
        run.halt.check()
        if kind != "persona" and (ids := found.ids(kind, sole=False)):
            cut_paths(connection, kind, ids)
            fold_entities(connection, kind, ids, run_id=run.run_id)
            retell_beginnings(connection, kind, ids)
    run.halt.check()
    gone += delete_documents_of(connection, found)
    gone += delete_untold(connection, found.untold)
    found.rows.clear()
    found.rows.update(sorted(gone.items()))
    erased_at = add_receipt(connection, persona_id, found.rows, run.run_id)
    run.halt.check()
    forget_statistics(connection)
    return Found(found, erased_at)
