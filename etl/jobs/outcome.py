"""What became of one persona: its line in the ledger, and where it stands after."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from etl.errors import PayloadRejectedError
from etl.store.ledger import Item
from etl.store.states import State
from etl.tables import FAILURES, SUCCESSES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from etl.jobs.arrival import Arrival
    from etl.jobs.reading import Reading
    from etl.store.folding import Moved
    from etl.store.observations import EntityKey


def item_of(arrival: Arrival, reading: Reading | None, moved: Mapping[EntityKey, Moved]) -> Item:
    """What became of a persona; `reading` is of its body, if one came."""
    error, answer = arrival.error, arrival.answer
    if error is not None:
        return Item(
            persona_id=arrival.persona_id,
            outcome="rejected" if isinstance(error, PayloadRejectedError) else "failed",
            http_status=error.http_status,
            attempts=error.attempts,
            duration_ms=error.duration_ms,
            message=str(error),
        )
    if answer is None:
        raise ValueError("an arrival has an answer or an error")
    message = None
    if reading is None:
        outcome = "missing" if answer.status == HTTPStatus.NOT_FOUND else "forbidden"
        message = f"the API answers {answer.status}"
    elif reading.rejection is not None:
        outcome, message = "rejected", reading.rejection.reason
    else:
        own = moved.get(("persona", arrival.persona_id))
        outcome = own.change.change if own is not None and own.is_opened else "unchanged"
    return Item(
        persona_id=arrival.persona_id,
        outcome=outcome,
        http_status=answer.status,
        attempts=answer.attempts,
        duration_ms=answer.duration_ms,
        message=message,
    )


def state_after(
    arrival: Arrival,
    outcome: str,
    reading: Reading | None,
    before: State | None,
    run_id: UUID,
) -> State:
    """Where a persona stands after this attempt; `before`: where it stood."""
    if before is not None and arrival.is_late(before):
        return _state_after_late(arrival, outcome, before)
    now = State(
        persona_id=arrival.persona_id,
        last_attempt_at=arrival.observed_at,
        last_success_at=None,
        last_outcome=outcome,
        consecutive_failures=0,
        last_run_id=run_id,
        body_sha256=None,
        content_sha256=None,
    )
    if outcome in SUCCESSES and reading is not None:
        return replace(
            now,
            last_success_at=arrival.observed_at,
            body_sha256=reading.body_sha256,
            content_sha256=reading.content_sha256,
        )
    if before is None:
        return replace(now, consecutive_failures=int(outcome in FAILURES))
    return replace(
        before,
        last_attempt_at=now.last_attempt_at,
        last_outcome=outcome,
        consecutive_failures=before.consecutive_failures + 1 if outcome in FAILURES else 0,
        last_run_id=run_id,
    )


def _state_after_late(arrival: Arrival, outcome: str, before: State) -> State:
    """What came later stands, but for the time of the last success; the hashes are of that one."""
    known = before.last_success_at
    if outcome not in SUCCESSES or (known is not None and arrival.observed_at <= known):
        return before
    return replace(
        before, last_success_at=arrival.observed_at, body_sha256=None, content_sha256=None
    )
