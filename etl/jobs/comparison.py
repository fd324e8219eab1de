"""Holds answers of the API against the versions in force, and those against the tables.

A batch is compared in one snapshot, which is younger than its answers. What another run has copied
since then is no difference. Writes nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from etl.fold import Observation
from etl.jobs.chains import replay_chains
from etl.jobs.dry_run import foreseen_versions
from etl.jobs.findings import FIRST, Findings
from etl.jobs.moved import moved_values
from etl.jobs.outcome import item_of
from etl.jobs.reading import read
from etl.jobs.replay import replayed_tables
from etl.jobs.rows import picked_batches, replay_rows
from etl.report.foreseen import Foreseen
from etl.store.ahead import Ahead
from etl.store.chains import Picked
from etl.store.folding import fold_in
from etl.store.mapped import map_of
from etl.store.observations import Bringing, last_brought
from etl.store.states import live_personas, persona_names, states
from etl.tables import KINDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.reading import Reading
    from etl.jobs.reckoning import Batch
    from etl.store.ledger import Item
    from etl.store.observations import ContentKey, EntityKey, Observations
    from etl.store.states import State
    from etl.tables import Kind

logger = logging.getLogger(__name__)

COMPARED = ("equal", "behind", "differing", "overtaken")
"""What may become of a persona that was answered."""


@dataclass(slots=True)
class Changes:
    """What the API shows and no version in force holds: the first, and how many."""

    first: list[Foreseen] = field(default_factory=list)
    number: int = 0

    def add(self, change: Foreseen) -> None:
        """Enters one."""
        self.number += 1
        if len(self.first) < FIRST:
            self.first.append(change)


class Comparison:
    """What the batches so far have come to."""

    def __init__(self) -> None:
        self.found = Findings()
        """Where versions and tables are not what follows from the observations."""
        self.ahead = Changes()
        """What the API shows and was never copied."""
        self.lost = Changes()
        """What was copied, as `persona_sync_state` knows, and is not there."""
        self.moved = Findings()
        """Counters and times that the API has moved by itself: no difference."""
        self._wrong: set[EntityKey] = set()
        # Shared things come with many personas: they are checked, and told, once.
        self._checked: set[EntityKey] = set()
        self._told: set[ContentKey] = set()

    def take(self, connection: Connection, batch: Batch) -> list[Item]:
        """What became of each persona of a batch: one of `COMPARED`, or why it can't be compared.

        The connection is at the beginning of a transaction that sees one moment.
        """
        known = states(connection, [arrival.persona_id for arrival in batch.arrivals])
        readings = {reading.arrival.persona_id: _whole(reading) for reading in batch.readings}
        items = [item_of(a, readings.get(a.persona_id), {}) for a in batch.arrivals]
        readings = {p: reading for p, reading in readings.items() if reading.apart is not None}
        missing = [item.persona_id for item in items if item.outcome == "missing"]
        uses = {p: _keys(p, readings.get(p)) for p in (*readings, *missing)}
        self._check_tables(connection, {key for keys in uses.values() for key in keys})
        overtaken = {
            arrival.persona_id
            for arrival in batch.arrivals
            if (state := known.get(arrival.persona_id)) and arrival.is_late(state)
        }
        left = {p: reading for p, reading in readings.items() if p not in overtaken}
        behind, lost = self._compare(connection, left, known)
        behind |= self._gone(connection, [p for p in missing if p not in overtaken])
        self._note_what_moved(connection, [r for p, r in left.items() if p not in behind | lost])

        def outcome(persona_id: UUID) -> str:
            if persona_id in lost or not self._wrong.isdisjoint(uses[persona_id]):
                return "differing"
            if persona_id in behind:
                return "behind"
            return "overtaken" if persona_id in overtaken else "equal"

        return [
            replace(item, outcome=outcome(item.persona_id)) if item.persona_id in uses else item
            for item in items
        ]

    def _check_tables(self, connection: Connection, keys: Collection[EntityKey]) -> None:
        for kind in KINDS:
            ids = sorted(key[1] for key in keys if key[0] == kind and key not in self._checked)
            if kind != "persona":
                self._checked.update((kind, entity_id) for entity_id in ids)
            if ids:
                self._narrow_down(connection, kind, ids)

    def _narrow_down(self, connection: Connection, kind: Kind, ids: Sequence[UUID]) -> bool:
        """Enters what is wrong with these entities, split until it is known with which. Any?"""
        found = Findings()
        mended = replay_chains(connection, kind, Picked(ids), found, write=False)
        for batch in picked_batches(connection, kind, ids, mended=mended):
            tables = replayed_tables((), map_of(connection))
            replay_rows(connection, batch, tables, found, run_id=None)
        half = len(ids) // 2
        if found.differences and half:
            parts = [self._narrow_down(connection, kind, p) for p in (ids[:half], ids[half:])]
            if any(parts):
                return True
        if found.differences:
            self._wrong.update((kind, entity_id) for entity_id in ids)
        self.found.include(found)
        return bool(found.differences)

    def _compare(
        self,
        connection: Connection,
        readings: Mapping[UUID, Reading],
        known: Mapping[UUID, State],
    ) -> tuple[set[UUID], set[UUID]]:
        """Who brings what would open a version, and who of them had brought it before."""
        by_content: dict[ContentKey, list[UUID]] = {}
        for persona_id, reading in readings.items():
            for part in reading.parts:
                by_content.setdefault((part.kind, part.content_hash), []).append(persona_id)
        behind: set[UUID] = set()
        lost: set[UUID] = set()
        for content, change in self._would_open(connection, readings.values()):
            personas = by_content[content]
            # A sync goes no further than the hash of what it has read last.
            is_lost = all(_is_copied(readings[p], known.get(p)) for p in personas)
            (lost if is_lost else behind).update(personas)
            if content not in self._told:
                self._told.add(content)
                (self.lost if is_lost else self.ahead).add(change)
        return behind, lost

    def _would_open(
        self, connection: Connection, readings: Iterable[Reading]
    ) -> Iterable[tuple[ContentKey, Foreseen]]:
        """The versions that would follow if these were observations too.

        Not of what is wrong already: against what is that to be held?
        """
        new: Observations = {}
        arrived = {}
        contents = {}
        for reading in readings:
            arrival = reading.arrival
            for part in reading.parts:
                key = part.kind, part.entity_id
                if key in self._wrong:
                    continue
                arrived[Bringing(arrival.persona_id, *key)] = arrival.observed_at
                contents[part.kind, part.content_hash] = part.document
                new.setdefault(key, []).append(
                    Observation(
                        observed_at=arrival.observed_at,
                        persona_id=arrival.persona_id,
                        content_hash=part.content_hash,
                        source_updated_at=part.source_updated_at,
                        run_id=None,
                    )
                )
        if not new:
            return []
        brought = last_brought(connection, arrived)
        folded = fold_in(connection, new, {}, brought, at_hand=contents, ahead=Ahead())
        return foreseen_versions(folded, contents)

    def _note_what_moved(self, connection: Connection, readings: Iterable[Reading]) -> None:
        parts = [
            part
            for reading in readings
            for part in reading.parts
            if (part.kind, part.entity_id) not in self._wrong
        ]
        for moved in moved_values(connection, parts):
            self.moved.add(moved)
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("moved: %s", moved.as_line())

    def _gone(self, connection: Connection, missing: Sequence[UUID]) -> set[UUID]:
        """Who of those that the API does not know is live in the tables."""
        if not missing:
            return set()
        seen = live_personas(connection, missing)
        for persona_id in sorted(set(missing) - seen.keys()):
            logger.warning(
                "persona %s was never seen and the API does not know it: is the id right?",
                persona_id,
            )
        gone = {p for p, live in seen.items() if live and ("persona", p) not in self._wrong}
        for persona_id, name in persona_names(connection, sorted(gone)).items():
            self.ahead.add(Foreseen("persona", persona_id, name, "removed"))
        return gone


def _whole(reading: Reading) -> Reading:
    """Taken apart, also where the body is the one of last time."""
    answer = reading.arrival.answer
    if reading.apart is not None or answer is None or answer.body is None:
        return reading
    return read(reading.arrival, answer, answer.body, None)


def _keys(persona_id: UUID, reading: Reading | None) -> set[EntityKey]:
    """The entities that an answer speaks of."""
    parts = reading.parts if reading is not None else []
    return {("persona", persona_id), *((part.kind, part.entity_id) for part in parts)}


def _is_copied(reading: Reading, state: State | None) -> bool:
    return state is not None and state.content_sha256 == reading.content_sha256
