"""What lines of files bring, on its way into Postgres: a transaction a batch.

Observations and documents are stored at once, and who they are of is noted; versions and rows
follow when all is in (`settling.py`), so the order in which lines come does not matter.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

from sqlalchemy.exc import DBAPIError

from etl.flatten import flatten
from etl.jobs.confirmations import confirm, last_confirmations
from etl.jobs.lines import Refused, Taking
from etl.store.ahead import Ahead
from etl.store.drift import record, sightings
from etl.store.engine import database_now, is_data_error
from etl.store.erasures import forgotten, lift
from etl.store.ledger import Rejection, add_rejections, add_worst_items, set_counts
from etl.store.mapped import map_of
from etl.store.observations import (
    Moment,
    Seen,
    drop_unused_documents,
    merge_observations,
    own_observations,
    stored_contents,
    unobserved,
    withdraw,
)
from etl.store.pasts import add_pasts, is_anything_pruned, pruned_before
from etl.store.recordset import insert_new
from etl.store.states import distrust
from etl.store.unfolded import Copy, encoded_copy, note_contexts, note_unfolded
from etl.tables import documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from etl.jobs.lines import Brought, LineReader, Taken
    from etl.jobs.opened_run import OpenedRun
    from etl.store.drift import Novelty
    from etl.store.observations import ContentKey, EntityKey, Merged

# So many rejected lines of a run are kept. The file has them all.
_REJECTIONS_KEPT = 1000
_TOLD = 20
# Contents that are known to be stored: some 100 bytes each.
_CONTENTS_REMEMBERED = 100_000

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class LineTally:
    """What a load from files has come to so far."""

    lines: int = 0
    """But for those of forgotten personas."""
    forgotten: int = 0
    not_kept: int = 0
    """Of which nothing is left, being older than all that is kept of history."""
    missing: int = 0
    rejected: int = 0
    observations: int = 0
    """New rows."""
    first_rejected: list[str] = field(default_factory=list)
    new_drift_paths: list[Novelty] = field(default_factory=list)

    def columns(self) -> dict[str, int]:
        """As the ledger has them before it is folded: what is stored is not settled yet."""
        settled = self.missing + self.rejected
        return {
            "requested": self.lines,
            "missing": self.missing,
            "rejected": self.rejected,
            "not_attempted": self.lines - settled,
            "new_drift_paths": len(self.new_drift_paths),
        }


class Intake:
    """Loads a run's batches, one after the other, and keeps its tally."""

    def __init__(
        self,
        run: OpenedRun,
        reader: LineReader,
        *,
        unforget: bool,
        watch: Callable[[LineTally], None],
    ) -> None:
        self.run = run
        self.connection = run.connection
        self.reader = reader
        self.unforget = unforget
        self.tally = LineTally()
        self.watch = watch
        self.unused: set[ContentKey] = set()
        """To which nothing may refer any more once all is folded."""
        self._stored: set[ContentKey] = set()

    def load(self, batch: Taking) -> None:
        """Loads a batch; one that fails for its data is split until the culprit is alone."""

        def attempt() -> tuple[LineTally, _Loading]:
            loading = _Loading(self, batch)
            tally = loading.load()
            set_counts(self.connection, self.run.run_id, tally.columns())
            return tally, loading

        try:
            tally, loading = self.run.in_transaction(attempt)
        except (DBAPIError, UnicodeEncodeError) as exc:
            if not is_data_error(exc) or not batch.taken:
                raise
            self._split(batch, exc)
            return
        self.tally = tally
        self._stored |= loading.stored
        self._stored -= loading.unused
        if len(self.unused) < _CONTENTS_REMEMBERED:
            self.unused |= loading.unused
        if len(self._stored) > _CONTENTS_REMEMBERED:
            self._stored.clear()
        self.watch(tally)

    def unknown(self, contents: Iterable[ContentKey]) -> set[ContentKey]:
        """Those of these contents that are not stored yet."""
        unsure = set(contents) - self._stored
        there = stored_contents(self.connection, unsure) if unsure else set()
        self._stored |= there
        return unsure - there

    def _split(self, batch: Taking, exc: Exception) -> None:
        lines, middle = batch.taken, len(batch.taken) // 2
        if middle:
            self.load(batch.first(middle))
            self.load(batch.behind(middle))
            return
        state = getattr(getattr(exc, "orig", None), "sqlstate", None) or type(exc).__name__
        taken = lines[0]
        why = f"Postgres does not take it ({state})"
        refused = Refused(taken.line, why, taken.persona_id, taken.observed_at)
        self.load(replace(batch, taken=[], refused=[*batch.refused, refused]))


class _Loading:
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
        self._record(missing, before.rejected)
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

    def _record(self, missing: Sequence[Taken], rejected_before: int) -> None:
        items: dict[UUID, tuple[str, str | None]] = {}
        for taken in missing:
            where = f"{taken.line.name}:{taken.line.number}"
            items[taken.persona_id] = ("missing", f"{where}: the API did not know it")
        for refused in self.refused:
            if refused.persona_id is not None:
                items[refused.persona_id] = ("rejected", str(refused))
        if items:
            add_worst_items(self.connection, self.run_id, items)
        now = database_now(self.connection)
        room = max(_REJECTIONS_KEPT - rejected_before, 0)
        add_rejections(
            self.connection,
            self.run_id,
            [_rejection(refused, now) for refused in self.refused[:room]],
        )


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


def _rejection(refused: Refused, now: datetime) -> Rejection:
    """What is kept of it: the same line, run again, is the same row."""
    digest = hashlib.sha256(refused.line.raw).digest()
    return Rejection(
        id=uuid5(NAMESPACE_OID, f"{refused} {digest.hex()}"),
        persona_id=refused.persona_id,
        observed_at=refused.observed_at or now,
        reason=str(refused),
        body=refused.payload,
        length=len(refused.line.raw),
        sha256=digest,
        content_type=None,
    )
