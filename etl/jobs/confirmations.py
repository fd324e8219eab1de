"""Where the API's confirmations and observations from files meet.

Of a stretch in which a persona brings the same content, only its beginning is an observation, and
where it ended so far is `last_success_at`. What a file tells of such a persona may fall into the
stretch or end it: then its last confirmation has to become an observation, as in a sync.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from etl.fold import Observation
from etl.jobs.observe import date_confirmed, end_stretch, held_by
from etl.store.ledger import confirm_states, states
from etl.store.observations import Bringing, Merged, Moment, last_brought, merge_observations

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.lines import Taken
    from etl.store.ledger import State
    from etl.store.observations import Observations


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What personas were last seen to bring, by the API, before anything more is stored."""

    connection: Connection
    states: dict[UUID, State]
    brought: dict[UUID, dict[Bringing, Observation]]

    def ended_by(self, latest: Mapping[UUID, datetime]) -> Observations:
        """The last confirmations that become observations, as something is observed after.

        `latest`: by persona the latest moment at which it is observed otherwise than before.
        """
        ended: Observations = {}
        for persona_id, at in latest.items():
            for bringing, was in self.brought.get(persona_id, {}).items():
                if at > was.observed_at:
                    end_stretch(bringing, was, self.states[persona_id], ended)
        date_confirmed(self.connection, ended)
        return ended


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

    Only where something else is known of them since then, or nothing before, it is observed.
    """
    merged = Merged(set(), set(), set(), 0)
    left = sorted(lines, key=lambda taken: taken.observed_at)
    while left:
        # One a persona: what is stored for it tells what the next one comes to.
        now = {taken.persona_id: taken for taken in reversed(left)}
        left = [taken for taken in left if now[taken.persona_id] is not taken]
        found = _confirm(connection, list(now.values()), run_id)
        merged = Merged(
            merged.entities | found.entities,
            merged.moments | found.moments,
            merged.replaced | found.replaced,
            merged.added + found.added,
        )
    return merged


def _confirm(connection: Connection, lines: Sequence[Taken], run_id: UUID) -> Merged:
    behind = timedelta(microseconds=1)
    brings = {
        Bringing(taken.persona_id, *brought.key): (taken, brought)
        for taken in lines
        for brought in taken.known
    }
    until: dict[Bringing, datetime | None] = {
        bringing: taken.observed_at + behind for bringing, (taken, _) in brings.items()
    }
    before = last_brought(connection, until)
    last = last_brought(connection, dict.fromkeys(brings))
    new: Observations = {}
    confirmed: dict[UUID, datetime] = {}
    for bringing, (taken, brought) in brings.items():
        was = before.get(bringing)
        if was is not None and was.content_hash == brought.content_hash and last[bringing] == was:
            if bringing.kind == "persona":
                confirmed[taken.persona_id] = taken.observed_at
            continue
        new.setdefault(brought.key, []).append(
            Observation(
                taken.observed_at,
                taken.persona_id,
                brought.content_hash,
                brought.source_updated_at,
                run_id,
            )
        )
    merged = merge_observations(connection, new)
    raised = confirm_states(connection, confirmed, run_id) if confirmed else set()
    moments = {Moment(persona_id, confirmed[persona_id]) for persona_id in raised}
    return Merged(merged.entities, merged.moments | moments, merged.replaced, merged.added)
