"""Where each persona stands: live or not, when it was last asked for, and what came of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import any_, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.store.recordset import as_row, encode_rows, upsert
from etl.tables import UUID_, persona_sync_state, personas

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Column, ColumnElement, Connection


# Later than whatever a sync has entered, it is the last that is known of the API.
_CONFIRM = text("""
    INSERT INTO persona_sync_state AS s (persona_id, last_attempt_at, last_success_at,
                                         last_outcome, consecutive_failures, last_run_id)
    SELECT persona_id, confirmed_at, confirmed_at, 'unchanged', 0, :run_id
      FROM json_to_recordset(CAST(:rows AS json)) AS k(persona_id uuid, confirmed_at timestamptz)
     ORDER BY persona_id
        ON CONFLICT (persona_id) DO UPDATE
       SET last_success_at = excluded.last_success_at,
           last_attempt_at = greatest(s.last_attempt_at, excluded.last_attempt_at),
           last_outcome = CASE WHEN excluded.last_attempt_at > s.last_attempt_at
                               THEN excluded.last_outcome ELSE s.last_outcome END,
           consecutive_failures = CASE WHEN excluded.last_attempt_at > s.last_attempt_at
                                       THEN 0 ELSE s.consecutive_failures END,
           body_sha256 = NULL, content_sha256 = NULL
     WHERE excluded.last_success_at > coalesce(s.last_success_at, '-infinity')
    RETURNING persona_id
""")


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


def confirm_states(
    connection: Connection, confirmed: Mapping[UUID, datetime], run_id: UUID
) -> set[UUID]:
    """Personas were seen at these moments to be as they were. Of whom that is news."""
    rows = encode_rows({"persona_id": id_, "confirmed_at": at} for id_, at in confirmed.items())
    return set(connection.execute(_CONFIRM, {"rows": rows, "run_id": run_id}).scalars())


def _among(persona_ids: Sequence[UUID], column: Column[Any]) -> ColumnElement[bool]:
    # One parameter, however many there are: IN would be another statement for each number.
    return column == any_(bindparam("ids", list(persona_ids), type_=ARRAY(UUID_)))
