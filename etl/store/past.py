"""What the fold must know of the past to go on from the version in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from etl.fold import Version
from etl.store.recordset import encode_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.fold import Observation
    from etl.store.observations import Bringing, EntityKey
    from etl.tables import Kind

_HEADS = text("""
    SELECT k.kind, k.entity_id, v.version, v.valid_from, v.valid_to, v.last_observed_at,
           v.content_hash, v.source_updated_at, v.run_id,
           (SELECT content_hash
              FROM document_versions AS b
             WHERE v.content_hash IS NULL AND b.kind = k.kind AND b.entity_id = k.entity_id
               AND b.version = v.version - 1) AS content_before_removal,
           (SELECT valid_from
              FROM document_versions AS f
             WHERE f.kind = k.kind AND f.entity_id = k.entity_id
             ORDER BY f.version
             LIMIT 1) AS first_seen_at,
           (SELECT max(o.observed_at)
              FROM observations AS o
             WHERE o.kind = k.kind AND o.entity_id = k.entity_id) AS latest
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid)
      LEFT JOIN document_versions AS v
        ON v.kind = k.kind AND v.entity_id = k.entity_id AND v.valid_to IS NULL
""")

_IN_FORCE = text("""
    SELECT k.kind, k.entity_id, v.content_hash
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid)
      JOIN document_versions AS v
        ON v.kind = k.kind AND v.entity_id = k.entity_id AND v.valid_to IS NULL
""")

_NEWEST = text("""
    SELECT k.kind, k.content_hash, o.source_updated_at
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, content_hash bytea)
     CROSS JOIN LATERAL (
           SELECT source_updated_at
             FROM observations
            WHERE kind = k.kind AND content_hash = k.content_hash
              AND source_updated_at IS NOT NULL
            ORDER BY source_updated_at DESC
            LIMIT 1) AS o
""")


@dataclass(frozen=True, slots=True)
class Head:
    """The version in force of an entity, if any, and the past that the fold must know."""

    version: Version | None
    last_content: bytes | None
    """Its content, looking through a removal."""
    first_seen_at: datetime | None
    latest: datetime | None
    """The time of the latest known observation."""


def heads(connection: Connection, keys: Iterable[EntityKey]) -> dict[EntityKey, Head]:
    """The versions in force."""
    wanted = encode_rows({"kind": kind, "entity_id": entity_id} for kind, entity_id in keys)
    found: dict[EntityKey, Head] = {}
    for row in connection.execute(_HEADS, {"rows": wanted}):
        kind, entity_id, *columns, before_removal, first_seen_at, latest = row
        version = Version(*columns) if row.version is not None else None
        last_content = row.content_hash or before_removal
        found[kind, entity_id] = Head(version, last_content, first_seen_at, latest)
    return found


def contents_in_force(
    connection: Connection, keys: Iterable[EntityKey]
) -> dict[EntityKey, bytes | None]:
    """The content in force of each of these entities that has a version; None: it is removed."""
    wanted = encode_rows({"kind": kind, "entity_id": entity_id} for kind, entity_id in keys)
    return {
        (row.kind, row.entity_id): row.content_hash
        for row in connection.execute(_IN_FORCE, {"rows": wanted})
    }


def newest_updates(
    connection: Connection,
    new: Mapping[EntityKey, list[Observation]],
    known: Mapping[EntityKey, Head],
) -> dict[Kind, dict[bytes, datetime]]:
    """The greatest updatedAt so far of each content that matters, for shared documents."""
    wanted = {
        (key[0], content)
        for key, group in new.items()
        if key[0] != "persona"
        for content in (known[key].last_content, *(o.content_hash for o in group))
        if content is not None
    }
    found: dict[Kind, dict[bytes, datetime]] = {}
    rows = encode_rows({"kind": kind, "content_hash": content} for kind, content in wanted)
    for kind, content, newest in connection.execute(_NEWEST, {"rows": rows}) if wanted else ():
        found.setdefault(kind, {})[content] = newest
    return found


def brought_by_entity(
    brought: Mapping[Bringing, Observation],
) -> dict[EntityKey, dict[UUID, bytes | None]]:
    """What each persona brought last, by the entity."""
    found: dict[EntityKey, dict[UUID, bytes | None]] = {}
    for key, observation in brought.items():
        by_persona = found.setdefault((key.kind, key.entity_id), {})
        by_persona[key.persona_id] = observation.content_hash
    return found
