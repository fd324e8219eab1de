"""The documents that were seen, and who saw which when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select, text

from etl.fold import Observation
from etl.store.recordset import as_row, encode_rows, insert_new, recordset
from etl.tables import documents, observations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.payload.decode import JsonObject
    from etl.payload.documents import Part
    from etl.tables import Kind

EntityKey = tuple["Kind", "UUID"]
ContentKey = tuple["Kind", bytes]
Observations = dict[EntityKey, list[Observation]]


class Bringing(NamedTuple):
    """A persona and an entity that its payloads have brought."""

    persona_id: UUID
    kind: Kind
    entity_id: UUID


_LAST_BROUGHT = text("""
    SELECT k.persona_id, k.kind, k.entity_id,
           o.observed_at, o.content_hash, o.source_updated_at, o.run_id
      FROM json_to_recordset(CAST(:rows AS json))
           AS k(persona_id uuid, kind text, entity_id uuid, before timestamptz)
     CROSS JOIN LATERAL (
           SELECT observed_at, content_hash, source_updated_at, run_id
             FROM observations
            WHERE persona_id = k.persona_id AND kind = k.kind AND entity_id = k.entity_id
              AND (k.before IS NULL OR observed_at < k.before)
            ORDER BY observed_at DESC
            LIMIT 1) AS o
""")

_ALL_OF_ENTITIES = text("""
    SELECT o.kind, o.entity_id,
           o.observed_at, o.persona_id, o.content_hash, o.source_updated_at, o.run_id
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid)
      JOIN observations AS o USING (kind, entity_id)
""")


_MERGE = text("""
    WITH incoming AS MATERIALIZED (
        SELECT k.*, known.content_hash AS was
          FROM json_to_recordset(CAST(:rows AS json))
               AS k(kind text, entity_id uuid, observed_at timestamptz, persona_id uuid,
                    content_hash bytea, source_updated_at timestamptz, run_id uuid)
          LEFT JOIN observations AS known USING (kind, entity_id, observed_at, persona_id)
         WHERE known.kind IS NULL
            OR (coalesce(k.source_updated_at, '-infinity'), coalesce(k.content_hash, ''))
               > (coalesce(known.source_updated_at, '-infinity'),
                  coalesce(known.content_hash, ''))),
    added AS (
        INSERT INTO observations AS o (kind, entity_id, observed_at, persona_id, content_hash,
                                       source_updated_at, run_id)
        SELECT kind, entity_id, observed_at, persona_id, content_hash, source_updated_at, run_id
          FROM incoming
         ORDER BY kind, entity_id, observed_at, persona_id
            ON CONFLICT (kind, entity_id, observed_at, persona_id) DO UPDATE
           SET content_hash = excluded.content_hash,
               source_updated_at = excluded.source_updated_at, run_id = excluded.run_id
        RETURNING kind)
    SELECT kind, entity_id, CAST(NULL AS timestamptz) AS observed_at,
           CAST(NULL AS uuid) AS persona_id, CAST(NULL AS bytea) AS was, count(*) AS number
      FROM incoming GROUP BY kind, entity_id
     UNION ALL
    SELECT NULL, NULL, observed_at, persona_id, NULL, 0
      FROM incoming GROUP BY observed_at, persona_id
     UNION ALL
    SELECT kind, NULL, NULL, NULL, was, 0 FROM incoming WHERE was IS NOT NULL
""")

_AT = text("""
    SELECT o.persona_id, o.observed_at, o.source_updated_at, o.content_hash
      FROM json_to_recordset(CAST(:rows AS json)) AS k(persona_id uuid, observed_at timestamptz)
      JOIN observations AS o
        ON o.kind = 'persona' AND o.entity_id = k.persona_id AND o.observed_at = k.observed_at
       AND o.persona_id = k.persona_id
""")

_WITHDRAW = text("""
    DELETE FROM observations AS o
     USING json_to_recordset(CAST(:rows AS json)) AS k(persona_id uuid, observed_at timestamptz)
     WHERE o.persona_id = k.persona_id AND o.observed_at = k.observed_at
    RETURNING o.kind, o.entity_id, o.content_hash
""")

_STORED = text("""
    SELECT kind, content_hash
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, content_hash bytea)
      JOIN documents USING (kind, content_hash)
""")

_DROP_UNUSED = text("""
    DELETE FROM documents AS d
     USING json_to_recordset(CAST(:rows AS json)) AS k(kind text, content_hash bytea)
     WHERE d.kind = k.kind AND d.content_hash = k.content_hash
       AND NOT EXISTS (SELECT FROM observations AS o
                        WHERE o.kind = d.kind AND o.content_hash = d.content_hash)
       AND NOT EXISTS (SELECT FROM document_versions AS v
                        WHERE v.kind = d.kind AND v.content_hash = d.content_hash)
""")


class Moment(NamedTuple):
    """When a persona was observed."""

    persona_id: UUID
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of observations that came in any order."""

    entities: set[EntityKey]
    """Those that have another observation now."""
    moments: set[Moment]
    """Those at which anything is observed otherwise than before."""
    replaced: set[ContentKey]
    """What was there in the place of another content."""
    added: int


def last_brought(
    connection: Connection, keys: Mapping[Bringing, datetime | None]
) -> dict[Bringing, Observation]:
    """The last observation of each entity by each persona before a time; None: the last of all.

    Those never brought before are absent.
    """
    rows = encode_rows({**key._asdict(), "before": before} for key, before in keys.items())
    return {
        Bringing(row.persona_id, row.kind, row.entity_id): Observation(
            observed_at=row.observed_at,
            persona_id=row.persona_id,
            content_hash=row.content_hash,
            source_updated_at=row.source_updated_at,
            run_id=row.run_id,
        )
        for row in connection.execute(_LAST_BROUGHT, {"rows": rows})
    }


def observations_of(
    connection: Connection, keys: Iterable[EntityKey]
) -> dict[EntityKey, list[Observation]]:
    """All observations of these entities, in no order."""
    rows = encode_rows({"kind": kind, "entity_id": entity_id} for kind, entity_id in keys)
    found: dict[EntityKey, list[Observation]] = {}
    for kind, entity_id, *rest in connection.execute(_ALL_OF_ENTITIES, {"rows": rows}):
        found.setdefault((kind, entity_id), []).append(Observation(*rest))
    return found


def stored_documents(
    connection: Connection, keys: Iterable[ContentKey]
) -> dict[ContentKey, JsonObject]:
    """The documents with these hashes."""
    wanted = encode_rows({"kind": kind, "content_hash": digest} for kind, digest in keys)
    incoming = recordset([documents.c.kind, documents.c.content_hash])
    statement = select(documents.c.kind, documents.c.content_hash, documents.c.document).join(
        incoming,
        (incoming.c.kind == documents.c.kind)
        & (incoming.c.content_hash == documents.c.content_hash),
    )
    return {
        (row.kind, row.content_hash): row.document
        for row in connection.execute(statement, {"rows": wanted})
    }


def add_documents(connection: Connection, parts: Iterable[Part]) -> None:
    """Stores documents; one that is there already stays as it is."""
    rows = [
        {
            "kind": part.kind,
            "content_hash": part.content_hash,
            "entity_id": part.entity_id,
            "document": part.document,
        }
        for part in parts
    ]
    insert_new(connection, documents, rows)


def add_observations(connection: Connection, found: Mapping[EntityKey, list[Observation]]) -> None:
    """Stores observations; one that is there already stays as it is."""
    rows = [
        {"kind": kind, "entity_id": entity_id, **as_row(observation)}
        for (kind, entity_id), group in found.items()
        for observation in group
    ]
    insert_new(connection, observations, rows)


def merge_observations(
    connection: Connection, found: Mapping[EntityKey, list[Observation]]
) -> Merged:
    """Stores observations that come in any order, of which some may be there already.

    Of two contents that one persona brought at one moment the greater stays, by `updatedAt` and
    then by hash: in whatever order they come it is the same one. `found` holds each moment once.
    """
    rows = [
        {"kind": kind, "entity_id": entity_id, **as_row(observation)}
        for (kind, entity_id), group in found.items()
        for observation in group
    ]
    entities: set[EntityKey] = set()
    moments: set[Moment] = set()
    replaced: set[ContentKey] = set()
    added = 0
    for row in connection.execute(_MERGE, {"rows": encode_rows(rows)}) if rows else ():
        if row.was is not None:
            replaced.add((row.kind, row.was))
        elif row.kind is not None:
            entities.add((row.kind, row.entity_id))
            added += row.number
        else:
            moments.add(Moment(row.persona_id, row.observed_at))
    return Merged(entities, moments, replaced, added)


def own_observations(
    connection: Connection, moments: Iterable[Moment]
) -> dict[Moment, tuple[datetime | None, bytes | None]]:
    """The `updatedAt` and hash that are stored of these personas' own documents at these moments.

    Those at which nothing was observed are absent.
    """
    rows = encode_rows(moment._asdict() for moment in moments)
    return {
        Moment(row.persona_id, row.observed_at): (row.source_updated_at, row.content_hash)
        for row in connection.execute(_AT, {"rows": rows})
    }


def withdraw(
    connection: Connection, moments: Iterable[Moment]
) -> tuple[set[EntityKey], set[ContentKey]]:
    """Deletes all that personas brought at these moments. Returns the entities and contents."""
    rows = encode_rows(moment._asdict() for moment in moments)
    gone = connection.execute(_WITHDRAW, {"rows": rows}).all()
    contents = {(row.kind, row.content_hash) for row in gone if row.content_hash is not None}
    return {(row.kind, row.entity_id) for row in gone}, contents


def stored_contents(connection: Connection, keys: Iterable[ContentKey]) -> set[ContentKey]:
    """Those of these documents that are stored."""
    wanted = encode_rows({"kind": kind, "content_hash": digest} for kind, digest in keys)
    return {(row.kind, row.content_hash) for row in connection.execute(_STORED, {"rows": wanted})}


def drop_unused_documents(connection: Connection, keys: Iterable[ContentKey]) -> None:
    """Deletes those of these documents to which no observation and no version refers."""
    rows = encode_rows({"kind": kind, "content_hash": digest} for kind, digest in keys)
    connection.execute(_DROP_UNUSED, {"rows": rows})
