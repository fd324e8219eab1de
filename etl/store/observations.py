"""The documents that were seen, and who saw which when."""

from __future__ import annotations

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
