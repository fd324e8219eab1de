"""The ledger: runs, what they did to whom, what was rejected, and where each persona stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import any_, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.store.recordset import as_row, insert_all, insert_new, upsert
from etl.tables import (
    UUID_,
    persona_sync_state,
    personas,
    rejected_payloads,
    run_items,
    runs,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Column, ColumnElement, Connection

    from etl.payload.decode import Json


@dataclass(frozen=True, slots=True)
class Run:
    """A run on its way into the ledger."""

    run_id: UUID
    command: str
    host: str
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class State:
    """Where a persona stands: the narrow row that an unchanged one touches."""

    persona_id: UUID
    last_attempt_at: datetime
    last_success_at: datetime | None
    last_outcome: str
    consecutive_failures: int
    last_run_id: UUID
    body_sha256: bytes | None
    content_sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Item:
    """What a run did to one persona."""

    persona_id: UUID
    outcome: str
    http_status: int | None
    attempts: int
    duration_ms: int
    message: str | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """An answer that is no persona."""

    id: UUID
    persona_id: UUID
    observed_at: datetime
    reason: str
    body: Json
    """Cleaned; None when it does not parse."""
    length: int
    sha256: bytes | None
    content_type: str | None


_LAST_REJECTED = text("""
    SELECT k.persona_id, r.reason, r.sha256
      FROM unnest(CAST(:ids AS uuid[])) AS k(persona_id)
     CROSS JOIN LATERAL (
           SELECT reason, sha256
             FROM rejected_payloads
            WHERE persona_id = k.persona_id
            ORDER BY observed_at DESC
            LIMIT 1) AS r
""")


def close_orphans(connection: Connection) -> int:
    """Closes runs that never came to their end. Only the holder of the lock may say so."""
    statement = (
        runs.update()
        .where(runs.c.status == "running")
        .values(
            status="crashed",
            finished_at=func.clock_timestamp(),
            error="the process died, or lost the database, before it could close its run",
        )
        .returning(runs.c.run_id)
    )
    return len(connection.execute(statement).all())


def open_run(
    connection: Connection, run: Run, *, status: str, requested: int, error: str | None = None
) -> datetime:
    """Writes a run's row, before its work starts. Returns when that was, by the database."""
    statement = (
        runs.insert()
        .values(
            **as_row(run),
            status=status,
            started_at=func.statement_timestamp(),
            finished_at=None if status == "running" else func.statement_timestamp(),
            requested=requested,
            not_attempted=requested,
            error=error,
        )
        .returning(runs.c.started_at)
    )
    started_at: datetime = connection.execute(statement).scalar_one()
    return started_at


def set_counts(connection: Connection, run_id: UUID, counts: Mapping[str, int]) -> None:
    """What the run has come to so far, in the same transaction as the rows it counts."""
    connection.execute(runs.update().where(runs.c.run_id == run_id).values(**counts))


def close_run(
    connection: Connection, run_id: UUID, status: str, http_requests: int, error: str | None
) -> dict[str, Any]:
    """Closes a run. Returns its row: what was counted stands there already, batch by batch."""
    statement = (
        runs.update()
        .where(runs.c.run_id == run_id)
        .values(
            status=status,
            finished_at=func.clock_timestamp(),
            http_requests=http_requests,
            error=error,
        )
        .returning(runs)
    )
    return dict(connection.execute(statement).mappings().one())


def is_open(connection: Connection, run_id: UUID) -> bool:
    """Whether nobody has closed this run; nor can anybody before the transaction ends."""
    statement = select(runs.c.run_id).where(runs.c.run_id == run_id, runs.c.status == "running")
    return connection.execute(statement.with_for_update()).first() is not None


def running(connection: Connection, run_id: UUID | None) -> dict[str, object] | None:
    """The row of this run while it is under way; None: of the youngest, as there may be orphans."""
    statement = select(runs).where(runs.c.status == "running")
    if run_id is not None:
        statement = statement.where(runs.c.run_id == run_id)
    found = connection.execute(statement.order_by(runs.c.started_at.desc()).limit(1)).mappings()
    return next((dict(row) for row in found), None)


def written_since(connection: Connection, run_id: UUID) -> bool:
    """Whether another run has started to write after this one."""
    mine = select(runs.c.started_at).where(runs.c.run_id == run_id).scalar_subquery()
    statement = select(func.count()).where(
        runs.c.started_at >= mine, runs.c.run_id != run_id, runs.c.status != "skipped"
    )
    return bool(connection.execute(statement).scalar_one())


def latest_attempt(connection: Connection) -> datetime | None:
    """The time of the last answer that any run has entered."""
    latest: datetime | None = connection.execute(
        select(func.max(persona_sync_state.c.last_attempt_at))
    ).scalar_one()
    return latest


def states(connection: Connection, persona_ids: Sequence[UUID]) -> dict[UUID, State]:
    """Where these personas stand; those never asked for are absent."""
    columns = [persona_sync_state.c[name] for name in State.__dataclass_fields__]
    found = connection.execute(
        select(*columns).where(_among(persona_ids, persona_sync_state.c.persona_id))
    )
    return {row.persona_id: State(*row) for row in found}


def live_personas(connection: Connection, persona_ids: Sequence[UUID]) -> dict[UUID, bool]:
    """Of these personas those ever seen, and whether each is live."""
    found = connection.execute(
        select(personas.c.persona_id, personas.c.removed_at.is_(None).label("live")).where(
            _among(persona_ids, personas.c.persona_id)
        )
    )
    return {row.persona_id: row.live for row in found}


def last_attempts(connection: Connection, persona_ids: Sequence[UUID]) -> dict[UUID, datetime]:
    """When these personas were last asked for; those never asked for are absent."""
    state = persona_sync_state.c
    found = connection.execute(
        select(state.persona_id, state.last_attempt_at).where(_among(persona_ids, state.persona_id))
    )
    return {row.persona_id: row.last_attempt_at for row in found}


def all_live_personas(connection: Connection) -> list[UUID]:
    """All personas that are not removed, in key order."""
    statement = select(personas.c.persona_id).where(personas.c.removed_at.is_(None))
    return list(connection.execute(statement.order_by(personas.c.persona_id)).scalars())


def persona_names(connection: Connection, persona_ids: Sequence[UUID]) -> dict[UUID, str | None]:
    """The names of these personas, as last seen."""
    statement = select(personas.c.persona_id, personas.c.name)
    found = connection.execute(statement.where(_among(persona_ids, personas.c.persona_id)))
    return {row.persona_id: row.name for row in found}


def latest_updates(
    connection: Connection, persona_ids: Sequence[UUID]
) -> dict[UUID, datetime | None]:
    """The `updatedAt` that came with the last payload of each of these personas."""
    statement = select(personas.c.persona_id, personas.c.updated_at)
    found = connection.execute(statement.where(_among(persona_ids, personas.c.persona_id)))
    return {row.persona_id: row.updated_at for row in found}


def save_states(connection: Connection, found: Iterable[State]) -> None:
    """Moves the narrow rows."""
    upsert(connection, persona_sync_state, [as_row(state) for state in found])


def distrust(connection: Connection, persona_ids: Sequence[UUID]) -> None:
    """Makes the next answer of these personas be read in full."""
    connection.execute(
        persona_sync_state.update()
        .where(_among(persona_ids, persona_sync_state.c.persona_id))
        .values(body_sha256=None, content_sha256=None)
    )


def doubt_all_bodies(connection: Connection) -> None:
    """Makes the next answer of each persona be read, though it be the same as the last."""
    state = persona_sync_state
    connection.execute(
        state.update().where(state.c.body_sha256.is_not(None)).values(body_sha256=None)
    )


def add_items(connection: Connection, run_id: UUID, items: Iterable[Item]) -> None:
    """What the run did to each; unchanged personas have no row."""
    rows = [{"run_id": run_id, **as_row(i)} for i in items if i.outcome != "unchanged"]
    insert_all(connection, run_items, rows)


def add_rejections(connection: Connection, run_id: UUID, found: Sequence[Rejection]) -> None:
    """Keeps what was rejected, but for what is the same as the persona's last that is kept.

    A broken persona would else be kept once a run for ever; that it was rejected again is told by
    the run's items and by its state.
    """
    ids = [rejection.persona_id for rejection in found]
    kept = connection.execute(_LAST_REJECTED, {"ids": ids}) if ids else ()
    last = {(row.persona_id, row.reason, row.sha256) for row in kept}
    news = [r for r in found if (r.persona_id, r.reason, r.sha256) not in last]
    insert_new(connection, rejected_payloads, [{"run_id": run_id, **as_row(r)} for r in news])


def _among(persona_ids: Sequence[UUID], column: Column[Any]) -> ColumnElement[bool]:
    # One parameter, however many there are: IN would be another statement for each number.
    return column == any_(bindparam("ids", list(persona_ids), type_=ARRAY(UUID_)))
