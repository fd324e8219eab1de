"""The versions of a persona and of what it refers to, and their documents, as they are stored.

It only reads, and only what it is asked for: documents are long, and versions are many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from etl.payload.documents import references
from etl.store.recordset import encode_rows
from etl.tables import SHARED

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.payload.decode import JsonObject
    from etl.store.observations import ContentKey, EntityKey

_VERSIONS = text("""
    SELECT v.kind, v.entity_id, v.version, v.valid_from, v.valid_to, v.last_observed_at,
           v.content_hash, v.change, v.changed_paths
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid)
      JOIN document_versions AS v ON v.kind = k.kind AND v.entity_id = k.entity_id
     ORDER BY v.kind, v.entity_id, v.version
""")

# A long document is unpacked once, hence the OFFSET.
_REFERENCES = text(f"""
    SELECT v.version, jsonb_build_object({", ".join(f"'{name}', d -> '{name}'" for name in SHARED)})
      FROM document_versions AS v
      JOIN documents AS stored ON stored.kind = v.kind AND stored.content_hash = v.content_hash
     CROSS JOIN LATERAL (SELECT stored.document || '{{}}' AS d OFFSET 0) AS unpacked
     WHERE v.kind = 'persona' AND v.entity_id = :persona_id AND v.version = ANY(:versions)
""")  # noqa: S608  (names of the API, nobody's input)

_DOCUMENTS = text("""
    SELECT d.kind, d.content_hash, d.document
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, content_hash bytea)
      JOIN documents AS d ON d.kind = k.kind AND d.content_hash = k.content_hash
""")

_UNFOLDED = text("""
    SELECT count(DISTINCT (u.kind, u.entity_id))
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid)
      JOIN unfolded AS u ON u.kind = k.kind AND u.entity_id = k.entity_id
""")


class StoredVersion(NamedTuple):
    """A row of `document_versions`."""

    number: int
    valid_from: datetime
    valid_to: datetime | None
    last_observed_at: datetime
    content_hash: bytes | None
    change: str
    changed_paths: list[str]


def versions_of(
    connection: Connection, keys: Iterable[EntityKey]
) -> dict[EntityKey, list[StoredVersion]]:
    """The versions of these entities, the oldest first; what has none is left out."""
    found: dict[EntityKey, list[StoredVersion]] = {}
    for kind, entity_id, *columns in connection.execute(_VERSIONS, {"rows": _encoded(keys)}):
        found.setdefault((kind, entity_id), []).append(StoredVersion(*columns))
    return found


def references_of(
    connection: Connection, persona_id: UUID, versions: Iterable[int]
) -> dict[int, set[EntityKey]]:
    """What these versions of a persona refer to; one without a document refers to nothing."""
    numbers = list(versions)
    found: dict[int, set[EntityKey]] = {number: set() for number in numbers}
    asked = {"persona_id": persona_id, "versions": numbers}
    for number, shared in connection.execute(_REFERENCES, asked):
        found[number] = references(shared)
    return found


def documents_of(
    connection: Connection, contents: Iterable[ContentKey]
) -> dict[ContentKey, JsonObject]:
    """These documents."""
    rows = encode_rows({"kind": kind, "content_hash": content} for kind, content in contents)
    found = connection.execute(_DOCUMENTS, {"rows": rows})
    return {(kind, bytes(content)): document for kind, content, document in found}


def count_unfolded_of(connection: Connection, keys: Iterable[EntityKey]) -> int:
    """How many of these entities have observations that no version tells of yet."""
    return int(connection.execute(_UNFOLDED, {"rows": _encoded(keys)}).scalar_one())


def _encoded(keys: Iterable[EntityKey]) -> str:
    return encode_rows({"kind": kind, "entity_id": entity_id} for kind, entity_id in keys)
