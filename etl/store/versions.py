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
from etl.store.past import brought_by_entity, heads, newest_updates
from etl.store.recordset import as_row, encode_rows, insert_all, update
from etl.tables import document_versions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection

    from etl.fold import Change, Observation
    from etl.payload.decode import JsonObject
    from etl.store.observations import Bringing, ContentKey, EntityKey
    from etl.store.past import Head

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


def confirm(connection: Connection, found: Mapping[EntityKey, list[Observation]]) -> None:
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


def extend(
    connection: Connection,
    new: Mapping[EntityKey, list[Observation]],
    brought: Mapping[Bringing, Observation],
    at_hand: Mapping[ContentKey, JsonObject],
) -> dict[EntityKey, Moved]:
    """Stores new observations and folds them into the chains of their entities.

    Args:
        connection: In the batch's transaction.
        new: The new observations by entity; their documents are stored already.
        brought: What each persona had brought last of each entity.
        at_hand: Documents that need not be read again.

    Returns:
        The entities with another version in force than before.
    """
    known = heads(connection, new)
    newest = newest_updates(connection, new, known)
    add_observations(connection, new)
    brought_of = brought_by_entity(brought)
    chains: dict[EntityKey, list[Version]] = {}
    late: list[EntityKey] = []
    for key, group in new.items():
        head = known[key]
        if head.latest is not None and min(o.observed_at for o in group) <= head.latest:
            late.append(key)
            continue
        memory = Memory(head.version, newest.get(key[0], {}), brought_of.get(key, {}))
        chains[key] = fold(group, owned=key[0] == "persona", memory=memory)
    rebuilt = {
        key: fold(group, owned=key[0] == "persona")
        for key, group in (observations_of(connection, late) if late else {}).items()
    }
    opened = {
        **{key: chain[1:] if known[key].version else chain for key, chain in chains.items()},
        **rebuilt,
    }
    past = {key: known[key] for key in chains}
    changes = _changes(connection, opened, past, at_hand)
    _write(connection, past, chains, rebuilt, changes)
    return {
        key: Moved(
            chain[-1],
            changes[key][chain[-1].version],
            first_seen_at,
            is_opened=_is_opened(chain[-1], known[key].version),
            is_first=known[key].version is None,
        )
        for key, chain in {**chains, **rebuilt}.items()
        if chain
        and (first_seen_at := _first_seen_at(chain, known[key], whole=key in rebuilt))
        and (first_seen_at != known[key].first_seen_at or _is_opened(chain[-1], known[key].version))
    }


def _first_seen_at(chain: list[Version], head: Head, *, whole: bool) -> datetime:
    if whole or head.first_seen_at is None:
        return chain[0].valid_from
    return head.first_seen_at


def _is_opened(now: Version, before: Version | None) -> bool:
    return before is None or (now.valid_from, now.content_hash) != (
        before.valid_from,
        before.content_hash,
    )


def _changes(
    connection: Connection,
    opened: Mapping[EntityKey, list[Version]],
    past: Mapping[EntityKey, Head],
    at_hand: Mapping[ContentKey, JsonObject],
) -> dict[EntityKey, dict[int, Change]]:
    """What each opened version is, by its number. Chains without a past begin with the first."""
    steps: list[tuple[EntityKey, Version, bytes | None, bool]] = []
    for key, versions in opened.items():
        head = past.get(key)
        before = head.last_content if head else None
        was_removed = bool(head and head.version and head.version.content_hash is None)
        for version in versions:
            steps.append((key, version, before, was_removed))
            was_removed = version.content_hash is None
            before = version.content_hash or before
    # Only a content that replaces another is compared.
    wanted = {
        (key[0], content)
        for key, version, before, _ in steps
        if before is not None and version.content_hash is not None
        for content in (before, version.content_hash)
    }
    missing = wanted - at_hand.keys()
    documents = {**at_hand, **(stored_documents(connection, missing) if missing else {})}
    changes: dict[EntityKey, dict[int, Change]] = {}
    for key, version, before, was_removed in steps:
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
        changes.setdefault(key, {})[version.version] = change
    return changes


def _write(
    connection: Connection,
    past: Mapping[EntityKey, Head],
    chains: Mapping[EntityKey, list[Version]],
    rebuilt: Mapping[EntityKey, list[Version]],
    changes: Mapping[EntityKey, dict[int, Change]],
) -> None:
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
        for key, chain in chains.items()
        if past[key].version is not None
    ]
    update(connection, document_versions, confirmed, on=("kind", "entity_id", "version"))
    if rebuilt:
        gone = encode_rows({"kind": kind, "entity_id": entity_id} for kind, entity_id in rebuilt)
        connection.execute(_FORGET, {"rows": gone})
    rows = [
        {"kind": key[0], "entity_id": key[1], **as_row(version), **as_row(change)}
        for key, chain in {**chains, **rebuilt}.items()
        for version in chain
        if (change := changes.get(key, {}).get(version.version))
    ]
    insert_all(connection, document_versions, rows)
