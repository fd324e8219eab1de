"""The documents that were seen, and who saw which when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Raw
from sqlalchemy import select, text

from etl.fold import Observation
from etl.store.recordset import as_row, encode_rows, insert_new, recordset
from etl.tables import documents, observations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
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


# Each observation is looked up through the key: the planner, which can't know how few come, would
# rather read all that are there. Of one that comes twice one row goes in. Nobody else writes:
# ON CONFLICT, which looks each up once more and logs more, is for what is there already.
_MERGE = text("""
    WITH incoming AS MATERIALIZED (
        SELECT DISTINCT ON (d.kind, d.entity_id, m.observed_at, m.persona_id)
               m.nth, d.kind, d.entity_id, m.observed_at, m.persona_id, d.content_hash,
               d.source_updated_at, m.run_id, known.content_hash AS was,
               known.kind IS NULL AS is_new
          FROM json_to_recordset(CAST(:rows AS json))
               AS m(nth integer, observed_at timestamptz, persona_id uuid, run_id uuid,
                    documents json)
         CROSS JOIN LATERAL json_to_recordset(m.documents)
               AS d(kind text, entity_id uuid, content_hash bytea, source_updated_at timestamptz)
          LEFT JOIN LATERAL (
               SELECT o.kind, o.content_hash, o.source_updated_at
                 FROM observations AS o
                WHERE o.kind = d.kind AND o.entity_id = d.entity_id
                  AND o.observed_at = m.observed_at AND o.persona_id = m.persona_id
               OFFSET 0) AS known ON true
         WHERE known.kind IS NULL
            OR (coalesce(d.source_updated_at, '-infinity'), coalesce(d.content_hash, ''))
               > (coalesce(known.source_updated_at, '-infinity'),
                  coalesce(known.content_hash, ''))
         ORDER BY d.kind, d.entity_id, m.observed_at, m.persona_id,
                  d.source_updated_at DESC NULLS LAST, d.content_hash DESC NULLS LAST),
    added AS (
        INSERT INTO observations (kind, entity_id, observed_at, persona_id, content_hash,
                                  source_updated_at, run_id)
        SELECT kind, entity_id, observed_at, persona_id, content_hash, source_updated_at, run_id
          FROM incoming
         WHERE is_new),
    replaced AS (
        INSERT INTO observations AS o (kind, entity_id, observed_at, persona_id, content_hash,
                                       source_updated_at, run_id)
        SELECT kind, entity_id, observed_at, persona_id, content_hash, source_updated_at, run_id
          FROM incoming
         WHERE NOT is_new
            ON CONFLICT (kind, entity_id, observed_at, persona_id) DO UPDATE
           SET content_hash = excluded.content_hash,
               source_updated_at = excluded.source_updated_at, run_id = excluded.run_id)
    SELECT kind, entity_id, NULL AS nth, CAST(NULL AS bytea) AS was, count(*) AS number
      FROM incoming GROUP BY kind, entity_id
     UNION ALL
    SELECT NULL, NULL, nth, NULL, 0 FROM incoming GROUP BY nth
     UNION ALL
    SELECT kind, NULL, NULL, was, 0 FROM incoming WHERE was IS NOT NULL
""")

# In the manner of `_MERGE`, as the plan is kept from when the table was small.
_AT = text("""
    SELECT k.persona_id, k.observed_at, o.source_updated_at, o.content_hash
      FROM json_to_recordset(CAST(:rows AS json)) AS k(persona_id uuid, observed_at timestamptz)
     CROSS JOIN LATERAL (
           SELECT source_updated_at, content_hash
             FROM observations
            WHERE kind = 'persona' AND entity_id = k.persona_id AND observed_at = k.observed_at
              AND persona_id = k.persona_id
           OFFSET 0) AS o
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

_UNOBSERVED = text("""
    SELECT kind, entity_id
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid)
     WHERE NOT EXISTS (SELECT FROM observations AS o
                        WHERE o.kind = k.kind AND o.entity_id = k.entity_id)
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


class Seen(NamedTuple):
    """What a persona brought at a moment."""

    observed_at: datetime
    persona_id: UUID
    run_id: UUID | None
    documents: Raw
    """As `encoded` has them."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of observations that came in any order."""

    entities: set[EntityKey]
    """Those that have another observation now."""
    news: set[int]
    """Which of what was given, by its place, brought anything that was not there."""
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


def encoded(brought: Iterable[tuple[EntityKey, bytes | None, datetime | None]]) -> Raw:
    """Documents by entity, with hash and `updatedAt`, on their way into the observations."""
    rows = [
        {
            "kind": kind,
            "entity_id": entity_id,
            "content_hash": content_hash,
            "source_updated_at": updated_at,
        }
        for (kind, entity_id), content_hash, updated_at in brought
    ]
    return Raw(encode_rows(rows).encode())


def merge_observations(connection: Connection, seen: Sequence[Seen]) -> Merged:
    """Stores observations that come in any order, of which some may be there already.

    Of two contents that one persona brought at one moment the greater stays, by `updatedAt` and
    then by hash: in whatever order they come it is the same one.
    """
    rows = encode_rows({"nth": nth, **found._asdict()} for nth, found in enumerate(seen))
    entities: set[EntityKey] = set()
    news: set[int] = set()
    replaced: set[ContentKey] = set()
    added = 0
    for kind, entity_id, nth, was, number in (
        connection.execute(_MERGE, {"rows": rows}) if seen else ()
    ):
        if was is not None:
            replaced.add((kind, was))
        elif kind is not None:
            entities.add((kind, entity_id))
            added += number
        else:
            news.add(nth)
    return Merged(entities, news, replaced, added)


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


def unobserved(connection: Connection, keys: Iterable[EntityKey]) -> set[EntityKey]:
    """Those of these entities that nobody has observed."""
    rows = encode_rows({"kind": kind, "entity_id": entity_id} for kind, entity_id in keys)
    return {(row.kind, row.entity_id) for row in connection.execute(_UNOBSERVED, {"rows": rows})}


def drop_unused_documents(connection: Connection, keys: Iterable[ContentKey]) -> None:
    """Deletes those of these documents to which no observation and no version refers."""
    rows = encode_rows({"kind": kind, "content_hash": digest} for kind, digest in keys)
    connection.execute(_DROP_UNUSED, {"rows": rows})
