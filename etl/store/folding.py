"""Folds new observations into the chains of their entities. Reads the database, writes nothing.

Observations that are later than all known ones extend their entity's chain; a late one makes its
chain anew from all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl.fold import CREATED, REMOVED, Memory, change_of, fold
from etl.store.observations import observations_of, stored_documents
from etl.store.past import Head, brought_by_entity, heads, newest_updates
from etl.store.pasts import pruned_pasts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from etl.fold import Change, Observation, Pruned, Version
    from etl.payload.decode import JsonObject
    from etl.store.ahead import Ahead
    from etl.store.observations import Bringing, ContentKey, EntityKey, Observations
    from etl.tables import Kind


@dataclass(frozen=True, slots=True)
class Moved:
    """An entity of which the tables must say something else now."""

    version: Version
    """The one in force."""
    change: Change
    content: bytes | None
    """What the tables show: of a removed one the last content."""
    first_seen_at: datetime
    is_opened: bool
    """False when only its past was put right."""
    is_first: bool
    """It had no version before, hence has no rows yet."""


@dataclass(frozen=True, slots=True)
class Step:
    """A version that a fold opened, and what it replaces."""

    key: EntityKey
    version: Version
    before: bytes | None
    """The content that it replaces, looking through a removal."""
    change: Change


@dataclass(frozen=True, slots=True)
class Folded:
    """New observations, folded into the chains of their entities; not yet written."""

    new: Observations
    confirmed: Observations
    """Those of contents that had been known: they open nothing."""
    known: dict[EntityKey, Head]
    newest: dict[Kind, dict[bytes, datetime]]
    chains: dict[EntityKey, list[Version]]
    """The version in force before, if any, closed or confirmed, and what was opened after it."""
    rebuilt: dict[EntityKey, list[Version]]
    """The whole chains of entities that got a late observation."""
    steps: list[Step]
    documents: Mapping[ContentKey, JsonObject]
    """Of the contents that replace another, and of those replaced."""

    def moved(self) -> dict[EntityKey, Moved]:
        """The entities with another version in force than before, or another past."""
        changes = {(step.key, step.version.version): step.change for step in self.steps}
        moved: dict[EntityKey, Moved] = {}
        for key, chain in {**self.chains, **self.rebuilt}.items():
            head = self.known[key]
            if not chain:
                continue
            first_seen_at = head.first_seen_at
            if first_seen_at is None or key in self.rebuilt:
                first_seen_at = chain[0].valid_from
            is_opened = _is_opened(chain[-1], head.version)
            content = _last_content(chain, head)
            if is_opened or (content, first_seen_at) != (head.last_content, head.first_seen_at):
                moved[key] = Moved(
                    chain[-1],
                    changes[key, chain[-1].version],
                    content,
                    first_seen_at,
                    is_opened=is_opened,
                    is_first=head.version is None,
                )
        return moved

    def head(self, key: EntityKey) -> Head:
        """Where an entity stands then."""
        before = self.known[key]
        chain = self.rebuilt.get(key) or self.chains.get(key) or []
        seen = [*self.confirmed.get(key, ()), *self.new[key]]
        times = [before.latest, *(observation.observed_at for observation in seen)]
        return Head(
            chain[-1] if chain else before.version,
            _last_content(chain, before),
            chain[0].valid_from if before.first_seen_at is None and chain else before.first_seen_at,
            max(time for time in times if time is not None),
        )


def fold_in(
    connection: Connection,
    new: Observations,
    confirmed: Observations,
    brought: Mapping[Bringing, Observation],
    *,
    at_hand: Mapping[ContentKey, JsonObject],
    ahead: Ahead,
) -> Folded:
    """Folds new observations into the chains of their entities. Writes nothing.

    Args:
        connection: Where the chains are.
        new: The new observations by entity.
        confirmed: Last confirmations that become observations now.
        brought: What each persona had brought last of each entity.
        at_hand: Documents that need not be read.
        ahead: What else is known of the entities.
    """
    known = heads(connection, new) | {key: ahead.heads[key] for key in new if key in ahead.heads}
    newest = newest_updates(connection, new, known)
    for kind, contents in ahead.newest.items():
        here = newest.setdefault(kind, {})
        here |= {c: max(at, here.get(c, at)) for c, at in contents.items()}
    brought_of = brought_by_entity(brought)
    chains: dict[EntityKey, list[Version]] = {}
    late: list[EntityKey] = []
    for key, group in new.items():
        kind, head = key[0], known[key]
        past = [o.observed_at for o in confirmed.get(key, ())]
        if head.latest is not None:
            past.append(head.latest)
        if past and min(o.observed_at for o in group) <= max(past):
            late.append(key)
            continue
        memory = Memory(head.version, newest.setdefault(kind, {}), brought_of.get(key, {}))
        chains[key] = fold(group, owned=kind == "persona", memory=memory)
    rebuilt: dict[EntityKey, list[Version]] = {}
    stored = observations_of(connection, late) if late else {}
    pasts = pruned_pasts(connection, late) if late else {}
    for key in late:
        others = confirmed, ahead.observations, stored
        groups = [new[key], *(found.get(key, []) for found in others)]
        # One that is there already stays as it is.
        unique = {(o.observed_at, o.persona_id): o for group in groups for o in group}
        rebuilt[key] = fold(unique.values(), owned=key[0] == "persona", pruned=pasts.get(key))
    opened = {
        **{key: chain[1:] if known[key].version else chain for key, chain in chains.items()},
        **rebuilt,
    }
    steps, documents = _steps(
        connection,
        opened,
        {key: known[key] for key in chains},
        pasts,
        {**ahead.documents, **at_hand},
    )
    return Folded(new, confirmed, known, newest, chains, rebuilt, steps, documents)


def _last_content(chain: list[Version], before: Head) -> bytes | None:
    contents = [before.last_content, *(version.content_hash for version in chain)]
    return next((content for content in reversed(contents) if content is not None), None)


def _is_opened(now: Version, before: Version | None) -> bool:
    return before is None or (now.valid_from, now.content_hash) != (
        before.valid_from,
        before.content_hash,
    )


def _steps(
    connection: Connection,
    opened: Mapping[EntityKey, list[Version]],
    past: Mapping[EntityKey, Head],
    pasts: Mapping[EntityKey, Pruned],
    at_hand: Mapping[ContentKey, JsonObject],
) -> tuple[list[Step], dict[ContentKey, JsonObject]]:
    """What each opened version is. Chains without a past begin with the first, or a stub.

    Returns the documents that were compared beside it.
    """
    found: list[tuple[EntityKey, Version, bytes | None, bool]] = []
    for key, versions in opened.items():
        head = past.get(key)
        before = head.last_content if head else None
        was_removed = bool(head and head.version and head.version.content_hash is None)
        for version in versions:
            found.append((key, version, before, was_removed))
            was_removed = version.content_hash is None
            before = version.content_hash or before
    # Only a content that replaces another is compared.
    wanted = {
        (key[0], content)
        for key, version, before, _ in found
        if before is not None and version.content_hash is not None
        for content in (before, version.content_hash)
    }
    missing = wanted - at_hand.keys()
    documents = stored_documents(connection, missing) if missing else {}
    documents |= {key: at_hand[key] for key in wanted - missing}
    steps: list[Step] = []
    for key, version, before, was_removed in found:
        told = pasts[key].told(version) if key in pasts else None
        if told is not None:
            change = told
        elif version.content_hash is None:
            change = REMOVED
        elif before is None:
            change = CREATED
        else:
            change = change_of(
                key[0],
                documents[key[0], before],
                documents[key[0], version.content_hash],
                was_removed=was_removed,
            )
        steps.append(Step(key, version, before, change))
    return steps, documents
