"""Document versions in Postgres: the fold's results, written where they differ.

Observations that are later than all known ones extend their entity's chain; a late one makes its
chain anew from all of them. What merely confirms moves `last_observed_at`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from etl.fold import CREATED, REMOVED, Memory, Version, change_of, fold
from etl.store.observations import add_observations, observations_of, stored_documents
from etl.store.past import Head, brought_by_entity, heads, newest_updates
from etl.store.recordset import as_row, encode_rows, insert_all, update
from etl.tables import document_versions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from etl.fold import Change, Observation
    from etl.payload.decode import JsonObject
    from etl.store.ahead import Ahead
    from etl.store.observations import Bringing, ContentKey, EntityKey, Observations
    from etl.tables import Kind

_CONFIRM = text("""
    UPDATE document_versions AS v
       SET last_observed_at = greatest(v.last_observed_at, k.observed_at),
           source_updated_at = least(v.source_updated_at, k.source_updated_at)
      FROM (SELECT i.kind, i.entity_id, v.version, max(i.observed_at) AS observed_at,
                   min(i.source_updated_at) AS source_updated_at
              FROM json_to_recordset(CAST(:rows AS json))
                   AS i(kind text, entity_id uuid, observed_at timestamptz, content_hash bytea,
                        source_updated_at timestamptz)
              JOIN document_versions AS v USING (kind, entity_id, content_hash)
             WHERE v.valid_from <= i.observed_at
               AND (v.valid_to IS NULL OR v.valid_to > i.observed_at)
             GROUP BY i.kind, i.entity_id, v.version) AS k
     WHERE v.kind = k.kind AND v.entity_id = k.entity_id AND v.version = k.version
""")

_FORGET = text("""
    DELETE FROM document_versions AS v
     USING json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid)
     WHERE v.kind = k.kind AND v.entity_id = k.entity_id
""")


@dataclass(frozen=True, slots=True)
class Moved:
    """An entity whose version in force is another one now."""

    version: Version
    change: Change
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
        """The entities with another version in force than before."""
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
            if is_opened or first_seen_at != head.first_seen_at:
                moved[key] = Moved(
                    chain[-1],
                    changes[key, chain[-1].version],
                    first_seen_at,
                    is_opened=is_opened,
                    is_first=head.version is None,
                )
        return moved

    def head(self, key: EntityKey) -> Head:
        """Where an entity stands then."""
        before = self.known[key]
        chain = self.rebuilt.get(key) or self.chains.get(key) or []
        contents = [before.last_content, *(version.content_hash for version in chain)]
        times = [before.latest, *(o.observed_at for o in self.new[key])]
        return Head(
            chain[-1] if chain else before.version,
            next((content for content in reversed(contents) if content is not None), None),
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
    for key in late:
        others = confirmed, ahead.observations, stored
        groups = [new[key], *(found.get(key, []) for found in others)]
        # One that is there already stays as it is.
        unique = {(o.observed_at, o.persona_id): o for group in groups for o in group}
        rebuilt[key] = fold(unique.values(), owned=key[0] == "persona")
    opened = {
        **{key: chain[1:] if known[key].version else chain for key, chain in chains.items()},
        **rebuilt,
    }
    steps, documents = _steps(
        connection, opened, {key: known[key] for key in chains}, {**ahead.documents, **at_hand}
    )
    return Folded(new, confirmed, known, newest, chains, rebuilt, steps, documents)


def write(connection: Connection, folded: Folded) -> None:
    """Stores the observations and makes the chains say what was folded.

    The documents that they refer to are stored already.
    """
    add_observations(connection, folded.confirmed)
    add_observations(connection, folded.new)
    _write_chains(connection, folded)
    # After the chains, whose heads were read before.
    _confirm(connection, folded.confirmed)


def _confirm(connection: Connection, found: Observations) -> None:
    """Moves `last_observed_at` of the versions that these observations fall into and repeat."""
    rows = [
        {
            "kind": kind,
            "entity_id": entity_id,
            "observed_at": observation.observed_at,
            "content_hash": observation.content_hash,
            "source_updated_at": observation.source_updated_at,
        }
        for (kind, entity_id), group in found.items()
        for observation in group
    ]
    if rows:
        connection.execute(_CONFIRM, {"rows": encode_rows(rows)})


def _is_opened(now: Version, before: Version | None) -> bool:
    return before is None or (now.valid_from, now.content_hash) != (
        before.valid_from,
        before.content_hash,
    )


def _steps(
    connection: Connection,
    opened: Mapping[EntityKey, list[Version]],
    past: Mapping[EntityKey, Head],
    at_hand: Mapping[ContentKey, JsonObject],
) -> tuple[list[Step], dict[ContentKey, JsonObject]]:
    """What each opened version is. Chains without a past begin with the first.

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
        if version.content_hash is None:
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


def _write_chains(connection: Connection, folded: Folded) -> None:
    """Closes or confirms heads, then inserts what was opened; a rebuilt chain is replaced."""
    confirmed = [
        {
            "kind": key[0],
            "entity_id": key[1],
            "version": chain[0].version,
            "valid_to": chain[0].valid_to,
            "last_observed_at": chain[0].last_observed_at,
            "source_updated_at": chain[0].source_updated_at,
        }
        for key, chain in folded.chains.items()
        if folded.known[key].version is not None
    ]
    update(connection, document_versions, confirmed, on=("kind", "entity_id", "version"))
    if folded.rebuilt:
        gone = encode_rows({"kind": kind, "entity_id": id_} for kind, id_ in folded.rebuilt)
        connection.execute(_FORGET, {"rows": gone})
    rows = [
        {
            "kind": step.key[0],
            "entity_id": step.key[1],
            **as_row(step.version),
            **as_row(step.change),
        }
        for step in folded.steps
    ]
    insert_all(connection, document_versions, rows)
