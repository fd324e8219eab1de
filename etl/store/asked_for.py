"""Whom a run that can be resumed asks for: its list in `run_items`, and what is left of it.

Each persona is on the list as not attempted from the moment that the run knows it, until a batch
says in its place what became of it. So a run may die anywhere, and what is left of it is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import any_, bindparam, delete, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.tables import UUID_, run_items

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

# One transaction takes any number, one parameter should stay small.
_LISTED_AT_ONCE = 10_000

_LIST = text("""
    INSERT INTO run_items (run_id, persona_id, outcome, attempts, duration_ms)
    SELECT :run_id, persona_id, 'not_attempted', 0, 0
      FROM unnest(:ids) AS wanted(persona_id)
     ORDER BY persona_id
""").bindparams(bindparam("ids", type_=ARRAY(UUID_)), bindparam("run_id", type_=UUID_))

# Settled is who was asked for since the run began, by whichever run, and gave an answer to go by.
# A 404 is one when its removal was judged: that is done at the end of a run.
_LEFT = """
      FROM run_items AS item
      JOIN runs AS run ON run.run_id = item.run_id
      LEFT JOIN persona_sync_state AS state ON state.persona_id = item.persona_id
      LEFT JOIN personas AS persona ON persona.persona_id = item.persona_id
     WHERE item.run_id = :run_id
       AND item.outcome IN ('not_attempted', 'failed', 'missing')
       AND (    state.last_attempt_at >= run.started_at
            AND state.last_outcome <> 'failed'
            AND NOT (    state.last_outcome = 'missing'
                     AND persona.persona_id IS NOT NULL
                     AND persona.removed_at IS NULL)) IS NOT TRUE
"""
_ALL_LEFT = text(f"SELECT item.persona_id {_LEFT} ORDER BY item.persona_id")
_COUNT_LEFT = text(f"SELECT count(*) {_LEFT}")

_NOT_CONFIRMED = text("""
    SELECT wanted.persona_id
      FROM unnest(:ids) WITH ORDINALITY AS wanted(persona_id, position)
      LEFT JOIN persona_sync_state AS state ON state.persona_id = wanted.persona_id
     WHERE (state.last_success_at >= :since) IS NOT TRUE
     ORDER BY wanted.position
""").bindparams(bindparam("ids", type_=ARRAY(UUID_)))


def enter_list(connection: Connection, run_id: UUID, persona_ids: Sequence[UUID]) -> None:
    """Enters whom the run is going to ask for, each once."""
    for start in range(0, len(persona_ids), _LISTED_AT_ONCE):
        part = list(persona_ids[start : start + _LISTED_AT_ONCE])
        connection.execute(_LIST, {"run_id": run_id, "ids": part})


def strike_off(connection: Connection, run_id: UUID, persona_ids: Sequence[UUID]) -> None:
    """Takes these off the list, in the transaction that enters what became of them."""
    wanted = bindparam("ids", list(persona_ids), type_=ARRAY(UUID_))
    connection.execute(
        delete(run_items).where(
            run_items.c.run_id == run_id, run_items.c.persona_id == any_(wanted)
        )
    )


def left_of(connection: Connection, run_id: UUID) -> list[UUID]:
    """Whom the run did not settle, nor anybody since, in key order.

    Those that it did not come to, and those that failed; also those that are missing and still
    live, as the run ended before it removed them, or did not dare to.
    """
    return list(connection.execute(_ALL_LEFT, {"run_id": run_id}).scalars())


def count_left(connection: Connection, run_id: UUID) -> int:
    """How many those are."""
    return int(connection.execute(_COUNT_LEFT, {"run_id": run_id}).scalar_one())


def has_list(connection: Connection, run_id: UUID) -> bool:
    """Whether anything is known of whom the run asked for; unchanged personas have no row."""
    query = text("SELECT EXISTS (SELECT FROM run_items WHERE run_id = :run_id)")
    return bool(connection.execute(query, {"run_id": run_id}).scalar_one())


def not_confirmed_since(
    connection: Connection, persona_ids: Sequence[UUID], since: datetime
) -> list[UUID]:
    """Those of these that were last copied, or found unchanged, before then; or never."""
    asked = {"ids": list(persona_ids), "since": since}
    return list(connection.execute(_NOT_CONFIRMED, asked).scalars())
