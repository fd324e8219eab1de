"""Stores a batch of lines in its transaction: documents, observations, and who they are of.

Versions and rows follow when all is in (`settling.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING

from etl.flatten import flatten
from etl.jobs.confirmations import confirm, last_confirmations
from etl.jobs.line_tally import LineTally, record_lines
from etl.jobs.taken import Refused, Taking
from etl.store.ahead import Ahead
from etl.store.drift import record, sightings
from etl.store.erasures import forgotten, lift
from etl.store.mapped import map_of
from etl.store.observations import (
    Moment,
    Seen,
    drop_unused_documents,
    merge_observations,
    own_observations,
    unobserved,
    withdraw,
)
from etl.store.pasts import add_pasts, is_anything_pruned, pruned_before
from etl.store.recordset import insert_new
from etl.store.states import distrust
from etl.store.unfolded import Copy, encoded_copy, note_contexts, note_unfolded
from etl.tables import documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from etl.jobs.intake import Intake
    from etl.jobs.taken import Brought, Taken
    from etl.store.drift import Novelty
    from etl.store.observations import ContentKey, EntityKey, Merged

_TOLD = 20

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


class Storing:
    """One batch in its transaction."""

    def __init__(self, intake: Intake, batch: Taking) -> None:
        self.intake = intake
        self.connection = intake.connection
        self.run_id = intake.run.run_id
        self.batch = batch
        self.refused = list(batch.refused)
        self.entities: set[EntityKey] = set()
        self.stored: set[ContentKey] = set()
        self.unused: set[ContentKey] = set()
        """What nothing may refer to any more, or never did."""
        self.crowded: set[Moment] = set()
        """At which a persona is observed more than once."""

    def load(self) -> LineTally:
        """Stores what is new. Returns the tally with it."""
        before = self.intake.tally
        kept_out = self._kept_out()
        let_in = [taken for taken in self.batch.taken if taken.persona_id not in kept_out]
        pasts = [(key, past) for key, past in self.batch.pruned if key[1] not in kept_out]
        forgotten = self.batch.lines - len(self.batch.refused) - len(let_in) - len(pasts)
        if pasts:
            self.entities |= add_pasts(self.connection, dict(reversed(pasts)), self.run_id)
        dated = self._without_overruled(let_in)
        lines = self._without_outdated(dated)
        contexts = self._unobserved_contexts(lines)
        drift = self._store_documents(lines, contexts)
        known = last_confirmations(self.connection, {taken.persona_id for taken in lines})
        merged = self._merge(
            [Seen(t.observed_at, t.persona_id, self.run_id, t.rows) for t in lines]
        )
        news = [lines[nth] for nth in sorted(merged.news)]
        ended = self._merge(known.ended_by(_latest(news)))
        confirming = [taken for taken in lines if taken.is_confirmation]
        confirmed = confirm(self.connection, confirming, self.run_id)
        self.entities |= confirmed.entities
        news += [confirming[nth] for nth in sorted(confirmed.news)]
        self._note(news)
        note_contexts(self.connection, map(_context, contexts))
        self.unused |= confirmed.replaced
        if self.unused:
            drop_unused_documents(self.connection, self.unused)
        distrust(self.connection, list({taken.persona_id for taken in news}))
        missing = [taken for taken in lines if taken.is_missing]
        record_lines(self.connection, self.run_id, missing, self.refused, before.rejected)
        return LineTally(
            before.lines + self.batch.lines - forgotten,
            before.forgotten + forgotten,
            before.not_kept + len(dated) - len(lines),
            before.missing + len(missing),
            before.rejected + len(self.refused),
            before.observations + merged.added + ended.added + confirmed.added,
            [*before.first_rejected, *map(str, self.refused)][:_TOLD],
            [*before.new_drift_paths, *drift],
        )

    def _kept_out(self) -> set[UUID]:
        """The forgotten personas, unless they are let in again."""
        ids = {taken.persona_id for taken in self.batch.taken}
        ids |= {entity_id for (kind, entity_id), _ in self.batch.pruned if kind == "persona"}
        if self.intake.unforget:
            lift(self.connection, list(ids))
            return set()
        return forgotten(self.connection, list(ids))

    def _without_overruled(self, lines: Sequence[Taken]) -> list[Taken]:
        """But for those that a greater one overrules, of the same persona at the same moment.

        What is stored and overruled is taken back.
        """
        greatest: dict[Moment, tuple[datetime, bytes]] = {}
        for taken in lines:
            if (own := _own(taken)) is not None:
                moment = _moment(taken)
                if moment in greatest:
                    self.crowded.add(moment)
                greatest[moment] = max(greatest.get(moment, _rank(own)), _rank(own))
        stored = own_observations(self.connection, greatest)
        self.crowded |= stored.keys()
        overruled = []
        for moment, (updated_at, content) in stored.items():
            there = (updated_at or _BEFORE_ALL, content or b"")
            if there >= greatest[moment]:
                greatest[moment] = there
            elif there[1] != greatest[moment][1]:
                overruled.append(moment)
        if overruled:
            entities, contents = withdraw(self.connection, overruled)
            self.entities |= entities
            self.unused |= contents
        kept = []
        for taken in lines:
            own = _own(taken)
            if own is None or _rank(own)[1] == greatest[_moment(taken)][1]:
                kept.append(taken)
                continue
            reason = (
                f"another payload of persona {taken.persona_id} has the same observed_at,"
                f" {taken.observed_at.isoformat()}; that one is kept"
            )
            self.refused.append(Refused(taken.line, reason, taken.persona_id, taken.observed_at))
        return kept

    def _without_outdated(self, lines: list[Taken]) -> list[Taken]:
        """But for what is older than all that is kept of its entity, and lines of nothing else."""
        if not is_anything_pruned(self.connection):
            return lines
        keys = {brought.key for taken in lines for brought in (*taken.observed, *taken.known)}
        kept_from = pruned_before(self.connection, keys)
        kept = [(taken, taken.since(kept_from)) for taken in lines]
        return [now for was, now in kept if now is was or not now.is_empty]

    def _unobserved_contexts(self, lines: Sequence[Taken]) -> list[tuple[Taken, Brought]]:
        """What stands around observations and nobody has observed so far, of each content once.

        As long as nobody does it has to be known from there: a persona can't refer to nothing.
        """
        observed = {brought.key for taken in lines for brought in taken.observed}
        first: dict[ContentKey, tuple[Taken, Brought]] = {}
        for taken in sorted(lines, key=attrgetter("observed_at", "persona_id"), reverse=True):
            for brought in () if taken.is_confirmation else taken.known:
                if brought.key not in observed and brought.key[0] != "persona":
                    first[brought.key[0], brought.content_hash or b""] = (taken, brought)
        unknown = unobserved(self.connection, {b.key for _, b in first.values()}) if first else ()
        return [(taken, brought) for taken, brought in first.values() if brought.key in unknown]

    def _store_documents(
        self, lines: Sequence[Taken], contexts: Iterable[tuple[Taken, Brought]]
    ) -> list[Novelty]:
        """Stores those that are not there yet. Returns where they differ from the map."""
        needed = {
            (brought.key[0], brought.content_hash): taken
            for taken in lines
            for brought in (*taken.observed, *(taken.known if taken.is_confirmation else ()))
            if brought.content_hash is not None
        }
        needed |= {(b.key[0], b.content_hash or b""): taken for taken, b in contexts}
        missing = self.intake.unknown(needed)
        self.stored = set(needed)
        rows, flats = [], []
        the_map = map_of(self.connection)
        for content in sorted(missing):
            kind, digest = content
            if content in self.batch.loose:
                entity_id, document = self.batch.loose[content]
                whole = document
            else:
                if content not in self.batch.documents:
                    # Of a body that was met before, in a line that came to nothing.
                    self.batch.documents |= self.intake.reader.documents_of(needed[content].line)
                part = self.batch.documents[content]
                entity_id, document, whole = part.entity_id, part.document, part.whole()
            rows.append(
                {
                    "kind": kind,
                    "content_hash": digest,
                    "entity_id": entity_id,
                    "document": document,
                }
            )
            flats.append((kind, flatten(kind, entity_id, whole, the_map=the_map)))
        insert_new(self.connection, documents, rows)
        # Of one thing that a persona showed twice at one moment only the greater copy is observed.
        self.unused |= {
            content
            for taken in lines
            if _moment(taken) in self.crowded
            for brought in taken.observed
            if (content := (brought.key[0], brought.content_hash or b"")) in missing
        }
        if not flats:
            return []
        latest = max(taken.observed_at for taken in lines)
        found = sightings(self.connection, flats, latest, Ahead())
        record(self.connection, found.rows)
        return found.new

    def _merge(self, seen: Sequence[Seen]) -> Merged:
        merged = merge_observations(self.connection, seen)
        self.entities |= merged.entities
        self.unused |= merged.replaced
        return merged

    def _note(self, lines: Sequence[Taken]) -> None:
        """Notes whom to fold, each with the copy that speaks for its observed fields."""
        # Lines of one body share what it brought, and their persona: the latest speaks for them.
        latest: dict[int, tuple[Brought, Taken]] = {}
        for taken in lines:
            for brought in (*taken.observed, *taken.known):
                known = latest.get(id(brought))
                if known is None or known[1].observed_at < taken.observed_at:
                    latest[id(brought)] = brought, taken
        copies: dict[tuple[EntityKey, bytes], Copy] = {}
        for brought, taken in latest.values():
            if brought.observed is not None and brought.content_hash is not None:
                copy = Copy(
                    brought.content_hash,
                    taken.observed_at,
                    brought.source_updated_at,
                    taken.persona_id,
                    brought.observed,
                )
                place = (brought.key, brought.content_hash)
                other = copies.get(place)
                if other is None or _precedence(brought, copy) > _precedence(brought, other):
                    copies[place] = copy
        alone = self.entities - {key for key, _ in copies}
        found = [(key, copy) for (key, _), copy in copies.items()]
        note_unfolded(self.connection, alone, found)


def _moment(taken: Taken) -> Moment:
    return Moment(taken.persona_id, taken.observed_at)


def _own(taken: Taken) -> Brought | None:
    """The persona's own document, if the line is an observation of it."""
    # It stands last in its payload, if not in the line.
    own = ("persona", taken.persona_id)
    return next((b for b in reversed(taken.observed) if b.key == own), None)


def _rank(brought: Brought) -> tuple[datetime, bytes]:
    """Which of two at one moment stays: the order of the fold."""
    return brought.source_updated_at or _BEFORE_ALL, brought.content_hash or b""


def _latest(lines: Iterable[Taken]) -> dict[UUID, datetime]:
    latest: dict[UUID, datetime] = {}
    for taken in lines:
        known = latest.get(taken.persona_id, taken.observed_at)
        latest[taken.persona_id] = max(known, taken.observed_at)
    return latest


def _context(found: tuple[Taken, Brought]) -> tuple[EntityKey, Copy]:
    taken, brought = found
    return brought.key, Copy(
        brought.content_hash or b"",
        taken.observed_at,
        brought.source_updated_at,
        taken.persona_id,
        encoded_copy(taken.persona_id, {}, []),
    )


def _precedence(brought: Brought, copy: Copy) -> tuple[datetime, datetime, datetime, UUID]:
    """Which of two copies of one content speaks for it: as `store/unfolded.py` has it."""
    updated_at = copy.source_updated_at or _BEFORE_ALL
    by_update = _BEFORE_ALL if brought.key[0] == "persona" else updated_at
    return by_update, copy.observed_at, updated_at, copy.persona_id
