"""The ledger: runs, what they did to whom, and what was rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.store.recordset import as_row, encode_rows, insert_all, insert_new
from etl.tables import SUCCESSES, rejected_payloads, run_items, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.payload.decode import Json


@dataclass(frozen=True, slots=True)
class Run:
    """A run on its way into the ledger."""

    run_id: UUID
    command: str
    host: str
    pid: int
    version: str
    resumes: UUID | None = None
    """The run whose rest it asks for."""


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
    persona_id: UUID | None
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


# What a load from files has come to, told by the versions that its observations opened.
_OPENED = text("""
    SELECT change, count(*) AS number
      FROM document_versions
     WHERE kind = 'persona' AND run_id = :run_id
     GROUP BY change
""")

# A persona's gravest outcome stands; what is there already, rejected or missing, is graver.
_ITEMS_OF_OPENED = text("""
    INSERT INTO run_items (run_id, persona_id, outcome, attempts, duration_ms)
    SELECT DISTINCT ON (entity_id) :run_id, entity_id, change, 0, 0
      FROM document_versions
     WHERE kind = 'persona' AND run_id = :run_id AND change = ANY(:successes)
     ORDER BY entity_id, array_position(CAST(:successes AS text[]), change) DESC
        ON CONFLICT (run_id, persona_id) DO NOTHING
""")

_WORST_ITEMS = text("""
    INSERT INTO run_items AS i (run_id, persona_id, outcome, attempts, duration_ms, message)
    SELECT :run_id, persona_id, outcome, 0, 0, message
      FROM json_to_recordset(CAST(:rows AS json))
           AS k(persona_id uuid, outcome text, message text)
     ORDER BY persona_id
        ON CONFLICT (run_id, persona_id) DO UPDATE
       SET outcome = excluded.outcome, message = excluded.message
     WHERE i.outcome <> 'rejected' AND excluded.outcome = 'rejected'
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


def opened_by(connection: Connection, run_id: UUID) -> dict[str, int]:
    """How many versions of personas the observations of a run have opened, by what they are."""
    return {row.change: row.number for row in connection.execute(_OPENED, {"run_id": run_id})}


def add_items_of_opened(connection: Connection, run_id: UUID) -> None:
    """A row for each persona of which a run's observations opened versions: the gravest change."""
    successes = bindparam("successes", [*SUCCESSES], type_=ARRAY(Text))
    connection.execute(_ITEMS_OF_OPENED.bindparams(successes), {"run_id": run_id})


def add_worst_items(
    connection: Connection, run_id: UUID, items: Mapping[UUID, tuple[str, str | None]]
) -> None:
    """Outcome and message by persona, some of which have a row already: the gravest stays."""
    rows = encode_rows(
        {"persona_id": id_, "outcome": outcome, "message": message}
        for id_, (outcome, message) in items.items()
    )
    connection.execute(_WORST_ITEMS, {"rows": rows, "run_id": run_id})


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
