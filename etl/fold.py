"""The fold: which content was in force when, from who saw what when. Pure.

An entity's observations are taken in the order of (observed_at, source_updated_at, content_hash).
A persona's own document is what was fetched last. A shared document comes with several personas'
payloads, some of them stale: the newest `updatedAt` wins; with an equal one or none the later
observation wins, unless its persona brought the same content last time.

Of a history whose beginning was pruned, the rest follows as if nothing were missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from etl.payload.differences import differences, is_reshaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from uuid import UUID

    from etl.payload.decode import JsonObject
    from etl.tables import Kind

_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Observation:
    """One persona's payload brought this content of an entity; no content: a 404."""

    observed_at: datetime
    persona_id: UUID
    content_hash: bytes | None
    source_updated_at: datetime | None
    run_id: UUID | None


@dataclass(slots=True)
class Version:
    """A content in force from `valid_from` until `valid_to`; None: still."""

    version: int
    valid_from: datetime
    valid_to: datetime | None
    last_observed_at: datetime
    content_hash: bytes | None
    source_updated_at: datetime | None
    run_id: UUID | None


@dataclass(slots=True)
class Memory:
    """What the fold must know of the past to go on from the version in force."""

    head: Version | None = None
    newest: dict[bytes, datetime] = field(default_factory=dict)
    """The greatest `updatedAt` seen with each content."""
    brought: dict[UUID, bytes | None] = field(default_factory=dict)
    """What each persona brought last."""

    def keep(self, seen: Observation) -> None:
        """Remembers an observation that is later than all before."""
        self.brought[seen.persona_id] = seen.content_hash
        if seen.content_hash is not None and seen.source_updated_at is not None:
            newest = self.newest.get(seen.content_hash, _BEFORE_ALL)
            self.newest[seen.content_hash] = max(newest, seen.source_updated_at)


@dataclass(frozen=True, slots=True)
class Change:
    """What a version is, against the one before it."""

    change: str
    """`created`, `updated`, `reshaped`, `removed` or `restored`; `pruned`: it is not kept."""
    changed_paths: list[str]


CREATED = Change("created", [])
REMOVED = Change("removed", [])
PRUNED = Change("pruned", [])


@dataclass(frozen=True, slots=True)
class Pruned:
    """The beginning of a history that is not kept: its last version stands for all of it."""

    version: int
    valid_from: datetime
    """When the first of those versions began."""
    valid_to: datetime
    last_observed_at: datetime
    next_content: bytes
    """What the first kept version is: it can't be told again from what is left."""
    next_change: str
    next_changed_paths: list[str]
    run_id: UUID | None
    """The run that pruned it."""

    def stub(self) -> Version:
        """The version that has no content, since nobody knows it any more."""
        return Version(
            version=self.version,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
            last_observed_at=self.last_observed_at,
            content_hash=None,
            source_updated_at=None,
            run_id=self.run_id,
        )

    def next_version_in(self, same_time: Iterable[Observation]) -> Observation | None:
        """The observation that opens the first kept version, of one moment's; None: none does.

        Which of their contents won hung on the version before. Of copies that are the same, the
        first is taken.
        """
        for seen in same_time:
            if (seen.observed_at, seen.content_hash) == (self.valid_to, self.next_content):
                return seen
        return None

    def told(self, version: Version) -> Change | None:
        """What the two versions are that can't be compared with one before; None of any other."""
        if version.content_hash is None and version.valid_from == self.valid_from:
            return PRUNED
        if version.version != self.version + 1 or version.valid_from < self.valid_to:
            return None
        is_the_next = (version.valid_from, version.content_hash) == (
            self.valid_to,
            self.next_content,
        )
        return Change(self.next_change, self.next_changed_paths) if is_the_next else UNKNOWN


# After a beginning that is not kept, where what came next was lost as well.
UNKNOWN = Change("updated", [])


def fold(
    observations: Iterable[Observation],
    *,
    owned: bool,
    memory: Memory | None = None,
    pruned: Pruned | None = None,
) -> list[Version]:
    """The versions that follow from observations of one entity, the oldest first.

    Args:
        observations: In any order, each later than everything that `memory` stands for.
        owned: Whether it is a persona's own document rather than a shared one.
        memory: The past to go on from. Its head comes first in the result, closed or confirmed.
        pruned: The beginning that is not kept, where all observations are given. What is left of
            those from before then only tells who brought what; the stub comes first in the result.
    """
    in_order = sorted(observations, key=attrgetter("observed_at"))
    return list(fold_in_order(in_order, owned=owned, memory=memory, pruned=pruned))


def fold_in_order(
    observations: Iterable[Observation],
    *,
    owned: bool,
    memory: Memory | None = None,
    pruned: Pruned | None = None,
) -> Iterator[Version]:
    """The same of observations in the order of `observed_at`, version by version.

    Each is given away when no later observation can alter it: however long the history, only one
    moment's observations are held, what `Memory` keeps, and what is left of a pruned beginning.
    """
    past = memory or Memory()
    head = replace(past.head) if past.head else None
    left: list[Observation] = []
    moments = (sorted(g, key=_order) for _, g in groupby(observations, attrgetter("observed_at")))
    for same_time in _kept(moments, pruned, past, left) if pruned else moments:
        winner = _winner(same_time, head, past, owned=owned)
        if pruned is not None:
            winner = pruned.next_version_in(same_time) or winner
            head = head or (pruned.stub() if winner else None)
        if winner is not None:
            if head is not None:
                head.valid_to = winner.observed_at
                yield head
            head = _opened_by(winner, head)
        for observation in same_time:
            if head is not None and observation.content_hash == head.content_hash:
                _confirm(head, observation)
    if head is not None:
        yield head
    elif left:
        # All that was kept was lost, or forgotten: then what is left is all that is known.
        yield from fold_in_order(left, owned=owned)


def _kept(
    moments: Iterable[list[Observation]], pruned: Pruned, past: Memory, left: list[Observation]
) -> Iterator[list[Observation]]:
    """The moments of kept versions. What is `left` of those before is only remembered."""
    for same_time in moments:
        if same_time[0].observed_at >= pruned.valid_to:
            yield same_time
            continue
        left += same_time
        for observation in same_time:
            past.keep(observation)


def change_of(kind: Kind, before: JsonObject, now: JsonObject, *, was_removed: bool) -> Change:
    """What a version with document `now` is.

    Args:
        kind: The document's kind.
        before: The last document before it, looking through a removal.
        now: Its document.
        was_removed: Whether the version right before is a removal: `restored` wins.
    """
    found = differences(kind, before, now)
    paths = [difference.path for difference in found]
    if was_removed:
        return Change("restored", paths)
    return Change("reshaped" if is_reshaped(found) else "updated", paths)


def _winner(
    same_time: list[Observation], head: Version | None, past: Memory, *, owned: bool
) -> Observation | None:
    """The observation that opens a version, if any: of one moment only the last to win does."""
    winner: Observation | None = None
    current = head.content_hash if head else None
    for observation in same_time:
        content = observation.content_hash
        if content != current and (owned or current is None or _wins(observation, current, past)):
            winner, current = observation, content
        past.keep(observation)
    if winner is not None and head is not None and winner.content_hash == head.content_hash:
        return None
    return winner


def _wins(observation: Observation, current: bytes, past: Memory) -> bool:
    """Whether another content of a shared document replaces the current one."""
    content, updated_at = observation.content_hash, observation.source_updated_at
    is_repeated = past.brought.get(observation.persona_id) == content
    newest = past.newest.get(current)
    if newest is None or updated_at is None or updated_at == newest:
        return not is_repeated
    # A mere repetition opens nothing, since from the API it is not even an observation.
    is_known = is_repeated and updated_at <= past.newest.get(content or b"", _BEFORE_ALL)
    return updated_at > newest and not is_known


def _opened_by(winner: Observation, before: Version | None) -> Version:
    return Version(
        version=before.version + 1 if before else 1,
        valid_from=winner.observed_at,
        valid_to=None,
        last_observed_at=winner.observed_at,
        content_hash=winner.content_hash,
        source_updated_at=winner.source_updated_at,
        run_id=winner.run_id,
    )


def _confirm(version: Version, observation: Observation) -> None:
    """The content was seen again: later, and perhaps with a smaller `updatedAt`."""
    version.last_observed_at = max(version.last_observed_at, observation.observed_at)
    known, seen = version.source_updated_at, observation.source_updated_at
    if seen is not None and (known is None or seen < known):
        version.source_updated_at = seen


def _order(observation: Observation) -> tuple[datetime, datetime, bytes, UUID]:
    """The persona comes last, so that even `run_id` does not hang on the order of arrival."""
    return (
        observation.observed_at,
        observation.source_updated_at or _BEFORE_ALL,
        observation.content_hash or b"",
        observation.persona_id,
    )
