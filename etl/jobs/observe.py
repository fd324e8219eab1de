"""Tells what changed payloads bring that is new, and hands it to the fold. Also removals.

An observation from the API is a row when it brings something new; when the stretch in which a
persona brings the same content ends, its last confirmation becomes a row too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etl.fold import Observation
from etl.payload.documents import references
from etl.store.ahead import Ahead
from etl.store.folding import fold_in
from etl.store.observations import Bringing, last_brought, stored_documents
from etl.store.projections import Removed, mark_removed
from etl.store.states import distrust, latest_updates, states
from etl.store.versions import write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.reading import Reading
    from etl.payload.decode import JsonObject
    from etl.payload.documents import Part
    from etl.store.folding import Folded
    from etl.store.observations import ContentKey, Observations
    from etl.store.states import State


@dataclass(frozen=True, slots=True)
class News:
    """What changed payloads bring that is new, and the versions that follow. Not yet written."""

    documents: list[Part]
    """Those that are not stored yet."""
    contents: dict[ContentKey, JsonObject]
    """Each document that is news to some persona, as it is stored, or will be."""
    folded: Folded


def news_of(
    connection: Connection, changed: Sequence[Reading], run_id: UUID, ahead: Ahead
) -> News | None:
    """Tells what changed payloads bring that is new. Writes nothing."""
    if not changed:
        return None
    brings = {
        Bringing(reading.arrival.persona_id, part.kind, part.entity_id): (reading, part)
        for reading in changed
        for part in reading.parts
    }
    arrived = {reading.arrival.persona_id: reading.arrival.observed_at for reading in changed}
    last = last_brought(connection, {b: arrived[b.persona_id] for b in brings})
    held = held_by(connection, last)
    let_go = [b for group in held.values() for b in group if b not in brings]
    last |= last_brought(connection, {b: arrived[b.persona_id] for b in let_go}) if let_go else {}
    stretches = _stretches(connection, last, changed)
    new: Observations = {}
    confirmed: Observations = {}
    first: dict[ContentKey, Part] = {}
    for bringing, (reading, part) in brings.items():
        was = last.get(bringing)
        if was is not None and was.content_hash != part.content_hash:
            holds = bringing.kind == "persona" or bringing in held.get(bringing.persona_id, ())
            end_stretch(bringing, was if holds else None, stretches.get(bringing), confirmed)
        if _is_news(part, was):
            first.setdefault((part.kind, part.content_hash), part)
            new.setdefault((part.kind, part.entity_id), []).append(
                Observation(
                    observed_at=reading.arrival.observed_at,
                    persona_id=reading.arrival.persona_id,
                    content_hash=part.content_hash,
                    source_updated_at=part.source_updated_at,
                    run_id=run_id,
                )
            )
    for bringing in let_go:
        end_stretch(bringing, last.get(bringing), stretches.get(bringing), confirmed)
    date_confirmed(connection, confirmed)
    stored = {key: ahead.documents[key] for key in first if key in ahead.documents}
    stored |= stored_documents(connection, first) if first else {}
    contents = {key: part.document for key, part in first.items()} | stored
    folded = fold_in(connection, new, confirmed, last, at_hand=contents, ahead=ahead)
    return News([part for key, part in first.items() if key not in stored], contents, folded)


def remove(connection: Connection, missing: Sequence[tuple[UUID, datetime]], run_id: UUID) -> None:
    """Closes the versions of live personas that the API said, at that time, are gone."""
    known = states(connection, [persona_id for persona_id, _ in missing])
    own: dict[Bringing, datetime | None] = {Bringing(p, "persona", p): None for p, _ in missing}
    last = last_brought(connection, own)
    held = held_by(connection, last)
    last |= last_brought(connection, {b: None for group in held.values() for b in group})
    new: Observations = {}
    confirmed: Observations = {}
    for persona_id, observed_at in missing:
        new["persona", persona_id] = [Observation(observed_at, persona_id, None, None, run_id)]
        for bringing in [Bringing(persona_id, "persona", persona_id), *held.get(persona_id, ())]:
            end_stretch(bringing, last.get(bringing), known.get(persona_id), confirmed)
    date_confirmed(connection, confirmed)
    folded = fold_in(connection, new, confirmed, last, at_hand={}, ahead=Ahead())
    write(connection, folded)
    distrust(connection, [persona_id for persona_id, _ in missing])
    mark_removed(
        connection,
        [
            Removed(
                entity_id,
                found.version.valid_from if found.version.content_hash is None else None,
                found.version.valid_from,
            )
            for (_, entity_id), found in folded.moved().items()
        ],
    )


def _is_news(part: Part, was: Observation | None) -> bool:
    """Whether an observation is worth a row: design, section 6."""
    if was is None or was.content_hash != part.content_hash:
        return True
    return part.kind != "persona" and was.source_updated_at != part.source_updated_at


def _stretches(
    connection: Connection, last: dict[Bringing, Observation], changed: Sequence[Reading]
) -> dict[Bringing, State]:
    """Where each persona stands of which `last` is still the last, also for one that came late."""
    state_of = {r.arrival.persona_id: r.state for r in changed if r.state is not None}
    late = {reading.arrival.persona_id for reading in changed if reading.is_late}
    asked: dict[Bringing, datetime | None] = {b: None for b in last if b.persona_id in late}
    latest = last_brought(connection, asked) if asked else {}
    return {
        bringing: state_of[bringing.persona_id]
        for bringing, was in last.items()
        if bringing.persona_id in state_of and latest.get(bringing, was) == was
    }


def held_by(
    connection: Connection, last: dict[Bringing, Observation]
) -> dict[UUID, list[Bringing]]:
    """The shared documents that each persona's last own document refers to."""
    own = {
        bringing.persona_id: was.content_hash
        for bringing, was in last.items()
        if bringing.kind == "persona" and was.content_hash is not None
    }
    wanted: set[ContentKey] = {("persona", content) for content in own.values()}
    found = stored_documents(connection, wanted) if wanted else {}
    return {
        persona_id: [Bringing(persona_id, *key) for key in references(found["persona", content])]
        for persona_id, content in own.items()
    }


def end_stretch(
    bringing: Bringing, was: Observation | None, state: State | None, confirmed: Observations
) -> None:
    """The last confirmation of a content that a persona brings no more becomes an observation."""
    if was is None or was.content_hash is None or state is None:
        return
    at = state.last_success_at
    if at is not None and at > was.observed_at:
        # Only the last attempt's run is known.
        seen_by = state.last_run_id if at == state.last_attempt_at else None
        confirmed.setdefault((bringing.kind, bringing.entity_id), []).append(
            replace(was, observed_at=at, run_id=seen_by)
        )


def date_confirmed(connection: Connection, confirmed: Observations) -> None:
    """Gives personas' last confirmations the `updatedAt` that came with them.

    It may move while all else stays as it was; of a shared document it is then an observation.
    """
    own = [entity_id for kind, entity_id in confirmed if kind == "persona"]
    for persona_id, updated_at in latest_updates(connection, own).items() if own else ():
        found = confirmed["persona", persona_id]
        found[:] = [replace(seen, source_updated_at=updated_at) for seen in found]
