"""What was observed as lines of a file, in one snapshot: read-only, without lock and ledger.

By persona, then time, so what is held is what one persona brought last, and the documents of a few
hundred lines, as far as they may be held at once.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import groupby, islice, zip_longest
from typing import TYPE_CHECKING, cast

from etl.errors import UsageError
from etl.files.observed import observed_fields
from etl.files.writing import Copy, bare_line, payload_line, pruned_line
from etl.jobs.garbage import seldom_collected
from etl.payload.decode import loads
from etl.payload.documents import references
from etl.store.exported import (
    DocumentShelf,
    count_personas,
    pruned_in_order,
    seen_in_order,
    shown_now,
    unknown_personas,
)
from etl.store.snapshot import snapshot
from etl.store.unfolded import count_unfolded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.settings import Settings
    from etl.store.exported import Seen, Shown
    from etl.store.observations import ContentKey, EntityKey
    from etl.tables import Kind

logger = logging.getLogger(__name__)

# Moments that are looked at together, to ask Postgres once for what they need.
_MOMENTS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which observations are exported."""

    personas: Sequence[UUID] = ()
    """No ids: all."""
    since: datetime | None = None
    until: datetime | None = None
    """The first moment that is not exported."""

    def holds(self, moment: datetime) -> bool:
        """Whether what was observed then is exported."""
        is_early = self.since is not None and moment < self.since
        return not is_early and not self.is_later(moment)

    def is_later(self, moment: datetime) -> bool:
        """Whether it is left out because it came later."""
        return self.until is not None and moment >= self.until


@dataclass(slots=True)
class Exported:
    """How much was written."""

    lines: int = 0
    observations: int = 0
    personas: int = 0


@dataclass(slots=True)
class _Moment:
    """What a persona brought at a moment; nothing: it was seen to be as it was."""

    persona_id: UUID
    observed_at: datetime
    seen: list[Seen]
    own: Seen | None
    """What its own document was then; None: that is not kept."""
    shared: list[Seen] = field(default_factory=list)
    """What it referred to, as it had last brought that."""

    @property
    def held(self) -> list[Seen]:
        """All that its payload was made of; nothing when there is none."""
        return [self.own, *self.shared] if self.has_payload and self.own else []

    @property
    def has_payload(self) -> bool:
        """Whether it is known, and no 404."""
        return self.own is not None and self.own.content_hash is not None

    @property
    def is_confirmation(self) -> bool:
        """Whether nothing in it is an observation."""
        return not self.seen


def export(
    settings: Settings,
    *,
    url: str,
    wanted: Wanted,
    write: Callable[[bytes], object],
    watch: Callable[[int, int], None] = lambda _done, _total: None,
) -> Exported:
    """Writes a line a persona and moment, in an order that hangs on nothing but the data.

    Raises UsageError for a persona that nobody has asked for, before anything is written, and
    DatabaseError when Postgres is unreachable or its schema not at head.
    """
    schema = settings.database.schema_
    with snapshot(url, schema, json_deserializer=loads) as connection, seldom_collected():
        if unknown := unknown_personas(connection, wanted.personas):
            raise UsageError(
                f"--persona: {', '.join(map(str, unknown))} was never observed here;"
                " `persona-etl status` names those that were"
            )
        if unfolded := count_unfolded(connection):
            logger.warning(
                "a load has not come to its end: all that it brought is exported, but tables and"
                " versions do not tell it yet; the next run goes on with it",
                extra={"entities": unfolded},
            )
        return _Export(connection, wanted, write, watch).run()


class _Export:
    """One pass over what was observed."""

    def __init__(
        self,
        connection: Connection,
        wanted: Wanted,
        write: Callable[[bytes], object],
        watch: Callable[[int, int], None],
    ) -> None:
        self.connection = connection
        self.wanted = wanted
        self.write = write
        self.watch = watch
        self.shelf = DocumentShelf(connection)
        self.exported = Exported()
        self.last: UUID | None = None

    def run(self) -> Exported:
        total = len(self.wanted.personas) or count_personas(self.connection)
        moments = _moments(seen_in_order(self.connection, self.wanted.personas))
        self.watch(0, total)
        waiting: list[_Moment] = []
        for portion in self._with_payloads(moments):
            # The last one waits until it is known what it was followed by.
            known = [*waiting, *portion]
            self._write(known[:-1], known[1:])
            waiting = known[-1:]
            self.watch(self.exported.personas, total)
        self._write(waiting, [])
        self.watch(self.exported.personas, total)
        return self.exported

    def _with_payloads(self, moments: Iterator[_Moment]) -> Iterator[list[_Moment]]:
        """The moments that are to be written, with what their payloads referred to.

        And those that came later: what was seen before may go on in them.
        """
        brought: dict[EntityKey, Seen] = {}
        persona_id: UUID | None = None
        while batch := list(islice(moments, _MOMENTS_AT_ONCE)):
            portion = []
            owns = [[moment.own] if moment.own else [] for moment in batch]
            for at, moment in enumerate(batch):
                if moment.persona_id != persona_id:
                    persona_id, brought = moment.persona_id, {}
                brought.update((_key(seen), seen) for seen in moment.seen)
                is_wanted = self.wanted.holds(moment.observed_at)
                if is_wanted and moment.own is not None and moment.has_payload:
                    self._have(owns, at)
                    found = references(self.shelf.get(_content(moment.own)))
                    moment.shared = [brought[key] for key in found if key in brought]
                if is_wanted or self.wanted.is_later(moment.observed_at):
                    portion.append(moment)
            if portion:
                yield portion

    def _have(self, needed: Sequence[Sequence[Seen]], at: int) -> None:
        """Has at hand what the one at this place needs; if it fetches, for those behind as well."""
        if any(s.content_hash and _content(s) not in self.shelf for s in needed[at]):
            behind = (seen for group in needed[at:] for seen in group)
            self.shelf.fetch(_content(seen) for seen in behind if seen.content_hash)

    def _write(self, moments: Sequence[_Moment], following: Sequence[_Moment]) -> None:
        ending = [
            self._ending(moment, behind) for moment, behind in zip_longest(moments, following)
        ]
        shown = shown_now(self.connection, sorted(set().union(*ending)))
        needed = [[*moment.seen, *moment.held] for moment in moments]
        for at, moment in enumerate(moments):
            if not self.wanted.holds(moment.observed_at):
                continue
            self._have(needed, at)
            known = {key: shown[key] for key in ending[at] if key in shown}
            self._write_line(moment, known)

    def _ending(self, moment: _Moment, behind: _Moment | None) -> set[EntityKey]:
        """Of which documents this is the last that is known of the same copy.

        What the tables show of them was observed then, or later and not otherwise.
        """
        at = moment.persona_id, moment.observed_at
        if behind is None or behind.persona_id != at[0] or behind.observed_at == at[1]:
            return {_key(seen) for seen in moment.held}
        if self.wanted.is_later(behind.observed_at):
            return set()
        goes_on = {(_key(s), s.content_hash, s.source_updated_at) for s in behind.held}
        return {
            _key(s)
            for s in moment.held
            if (_key(s), s.content_hash, s.source_updated_at) not in goes_on
        }

    def _write_line(self, moment: _Moment, shown: Mapping[EntityKey, Shown]) -> None:
        if not self.exported.lines:
            for row in pruned_in_order(self.connection, self.wanted.personas):
                self.write(pruned_line(row))
        at = moment.persona_id, moment.observed_at
        held = {_key(s): self._copy(s, moment, shown.get(_key(s))) for s in moment.held}
        seen = [
            held.get(_key(s)) or self._copy(s, moment, None)
            for s in moment.seen
            if s.content_hash is not None
        ]
        if held:
            own, *shared = held.values()
            outdated = {_key(s) for s in moment.seen if s.is_outdated}
            self.write(payload_line(*at, own, shared, seen, outdated=outdated))
        else:
            self.write(bare_line(*at, seen, is_gone=moment.own in moment.seen))
        self.exported.lines += 1
        self.exported.observations += len(moment.seen)
        self.exported.personas += moment.persona_id != self.last
        self.last = moment.persona_id

    def _copy(self, seen: Seen, moment: _Moment, shown: Shown | None) -> Copy:
        """A document as it came, with what the tables know besides if it is what they show."""
        key = _content(seen)
        document = self.shelf.get(key)
        updated_at, observed = seen.source_updated_at, {}
        if shown and shown.content_hash == key[1] and shown.valid_from <= moment.observed_at:
            observed = observed_fields(key[0], document, shown.rows)
            if moment.is_confirmation:
                # It may have moved since the observation, which stays as it was.
                updated_at = None
            else:
                observed.pop(("updatedAt",), None)
        return Copy(*_key(seen), key[1], document, updated_at, observed)


def _moments(seen: Iterable[Seen]) -> Iterator[_Moment]:
    """What came together: by persona, then time."""
    own: Seen | None = None
    confirmation: _Moment | None = None
    by_moment = groupby(seen, key=lambda s: (s.persona_id, s.observed_at, s.kind is None))
    for (persona_id, observed_at, is_confirmation), group in by_moment:
        if confirmation is not None and confirmation.persona_id != persona_id:
            yield confirmation
        # What is observed later has made an observation of it, as far as it was one.
        confirmation = None
        found = [] if is_confirmation else list(group)
        if own is not None and own.persona_id != persona_id:
            own = None
        own = next((s for s in found if _key(s) == ("persona", persona_id)), own)
        moment = _Moment(persona_id, observed_at, found, own)
        if not is_confirmation:
            yield moment
        elif moment.has_payload:
            confirmation = moment
    if confirmation is not None:
        yield confirmation


def _key(seen: Seen) -> EntityKey:
    return cast("Kind", seen.kind), cast("UUID", seen.entity_id)


def _content(seen: Seen) -> ContentKey:
    return cast("Kind", seen.kind), cast("bytes", seen.content_hash)
