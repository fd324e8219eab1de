"""Where the API's confirmations and observations from files meet.

Of a stretch in which a persona brings the same content, only its beginning is an observation, and
where it ended so far is `last_success_at`. What a file tells of such a persona may fall into the
stretch or end it: then its last confirmation has to become an observation, as in a sync.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from etl.jobs.observe import date_confirmed, end_stretch, held_by
from etl.store.observations import (
    Bringing,
    Merged,
    Seen,
    encoded,
    last_brought,
    merge_observations,
)
from etl.store.states import confirm_states, states

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.fold import Observation
    from etl.jobs.taken import Taken
    from etl.store.observations import Observations
    from etl.store.states import State


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What personas were last seen to bring, by the API, before anything more is stored."""

    connection: Connection
    states: dict[UUID, State]
    brought: dict[UUID, dict[Bringing, Observation]]

    def ended_by(self, latest: Mapping[UUID, datetime]) -> list[Seen]:
        """The last confirmations that become observations, as something is observed after.

        `latest`: by persona the latest moment at which it is observed otherwise than before.
        """
        ended: Observations = {}
        for persona_id, at in latest.items():
            for bringing, was in self.brought.get(persona_id, {}).items():
                if at > was.observed_at:
                    end_stretch(bringing, was, self.states[persona_id], ended)
        date_confirmed(self.connection, ended)
        return [
            Seen(
                seen.observed_at,
                seen.persona_id,
                seen.run_id,
                encoded([(key, seen.content_hash, seen.source_updated_at)]),
            )
            for key, group in ended.items()
            for seen in group
        ]


def last_confirmations(connection: Connection, persona_ids: Collection[UUID]) -> Confirmed:
    """What the API last confirmed of these personas."""
    known = {
        persona_id: state
        for persona_id, state in states(connection, sorted(persona_ids)).items()
        if state.last_success_at is not None
    }
    brought: dict[UUID, dict[Bringing, Observation]] = {}
    if known:
        own: dict[Bringing, datetime | None] = {Bringing(p, "persona", p): None for p in known}
        last = last_brought(connection, own)
        held = [b for group in held_by(connection, last).values() for b in group]
        last |= last_brought(connection, dict.fromkeys(held)) if held else {}
        for bringing, was in last.items():
            brought.setdefault(bringing.persona_id, {})[bringing] = was
    return Confirmed(connection, known, brought)


def confirm(connection: Connection, lines: Sequence[Taken], run_id: UUID) -> Merged:
    """Enters that personas were seen to be as they were: in their state, which costs no row.

    Only where something else is known of them since then, or nothing before, it is observed. The
    news are places in `lines`.
    """
    merged = Merged(set(), set(), set(), 0)
    left = sorted(enumerate(lines), key=lambda numbered: numbered[1].observed_at)
    while left:
        # One a persona: what is stored for it tells what the next one comes to.
        now = {taken.persona_id: (nth, taken) for nth, taken in reversed(left)}
        left = [(nth, taken) for nth, taken in left if now[taken.persona_id][0] != nth]
        found = _confirm(connection, list(now.values()), run_id)
        merged = Merged(
            merged.entities | found.entities,
            merged.news | found.news,
            merged.replaced | found.replaced,
            merged.added + found.added,
        )
    return merged


def _confirm(connection: Connection, lines: Sequence[tuple[int, Taken]], run_id: UUID) -> Merged:
    behind = timedelta(microseconds=1)
    until: dict[Bringing, datetime | None] = {
        Bringing(taken.persona_id, *brought.key): taken.observed_at + behind
        for _, taken in lines
        for brought in taken.known
    }
    before = last_brought(connection, until)
    last = last_brought(connection, dict.fromkeys(until))
    seen: list[Seen] = []
    confirmed: dict[UUID, datetime] = {}
    for _, taken in lines:
        new = []
        for brought in taken.known:
            bringing = Bringing(taken.persona_id, *brought.key)
            was = before.get(bringing)
            holds = was is not None and was.content_hash == brought.content_hash
            if not holds or last[bringing] != was:
                new.append((brought.key, brought.content_hash, brought.source_updated_at))
            elif bringing.kind == "persona":
                confirmed[taken.persona_id] = taken.observed_at
        seen.append(Seen(taken.observed_at, taken.persona_id, run_id, encoded(new)))
    merged = merge_observations(connection, seen)
    raised = confirm_states(connection, confirmed, run_id) if confirmed else set()
    news = {
        nth
        for place, (nth, taken) in enumerate(lines)
        if place in merged.news or taken.persona_id in raised
    }
    return Merged(merged.entities, news, merged.replaced, merged.added)
