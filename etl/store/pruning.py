"""The beginnings of histories that may go, and all that goes with them.

Of an entity's versions the oldest go, up to one that stays as a stub without a document. Their
observations go with them, but for those of shared documents that tell what each persona brought
last and how new a content was: what is seen later hangs on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA

from etl.fold import Pruned
from etl.store.recordset import encode_rows
from etl.tables import UUID_

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.tables import Kind

_ENTITIES = """
    SELECT entity_id
      FROM document_versions
     WHERE kind = :kind AND valid_to IS NULL {after}
     ORDER BY entity_id
     LIMIT :limit
"""

# Two statements: of one for both, a plan that is kept would begin at the first entity each time.
_FIRST_ENTITIES = text(_ENTITIES.format(after=""))

_NEXT_ENTITIES = text(_ENTITIES.format(after="AND entity_id > :after"))

_COUNT_ENTITIES = text("SELECT count(*) FROM document_versions WHERE valid_to IS NULL")

# The last version that may go, by each of the rules that are given. What follows it has content,
# so the last content stays, also of what was removed, and nothing is compared with what is gone.
_CANDIDATES = text("""
    SELECT head.entity_id, gone.version, first.valid_from, gone.valid_to, gone.last_observed_at,
           gone.next_content_hash, gone.next_change, gone.next_changed_paths,
           gone.version - CASE first.change WHEN 'pruned' THEN first.version ELSE 0 END AS versions
      FROM document_versions AS head
     CROSS JOIN LATERAL (
           SELECT version, valid_from, change
             FROM document_versions
            WHERE kind = head.kind AND entity_id = head.entity_id
            ORDER BY version
            LIMIT 1) AS first
     CROSS JOIN LATERAL (
           SELECT v.version, v.valid_to, v.last_observed_at, next.content_hash AS next_content_hash,
                  next.change AS next_change, next.changed_paths AS next_changed_paths
             FROM document_versions AS v
             JOIN document_versions AS next
               ON next.kind = v.kind AND next.entity_id = v.entity_id
              AND next.version = v.version + 1
            WHERE v.kind = head.kind AND v.entity_id = head.entity_id
              AND v.version <= head.version - CAST(:versions AS integer)
              AND v.valid_to <= CAST(:before AS timestamptz)
              AND v.change <> 'pruned'
              AND next.content_hash IS NOT NULL
            ORDER BY v.version DESC
            LIMIT 1) AS gone
     WHERE head.kind = :kind AND head.entity_id = ANY(:ids) AND head.valid_to IS NULL
     ORDER BY head.entity_id
""").bindparams(bindparam("ids", type_=ARRAY(UUID_)))

# `past` is all that was observed of these entities before their kept versions begin. Here and below
# OFFSET keeps the planner from reading whole tables rather than looking each row up.
_PAST = """
    WITH e AS MATERIALIZED (
           SELECT * FROM json_to_recordset(CAST(:rows AS json))
                      AS e(entity_id uuid, valid_to timestamptz)),
         past AS MATERIALIZED (
           SELECT e.entity_id, o.*,
                  lead(observed_at) OVER (PARTITION BY entity_id, persona_id
                                          ORDER BY observed_at) IS NULL AS is_last
             FROM e
            CROSS JOIN LATERAL (
                  SELECT ctid AS place, observed_at, persona_id, content_hash, source_updated_at
                    FROM observations
                   WHERE kind = :kind AND entity_id = e.entity_id AND observed_at < e.valid_to
                  OFFSET 0) AS o)"""

# A persona's own document is what was fetched last: nothing hangs on what was before.
_OWN = """,
         going AS MATERIALIZED (SELECT * FROM past)"""

# What a persona brought last counts as long as it has brought nothing else; how new a content was,
# as long as it may come again. A row that stays for its date must not pass for the persona's last:
# that one stays with it.
_SHARED = """,
         brought AS MATERIALIZED (
           SELECT past.*, later.content_hash AS next_content
             FROM past
             JOIN e USING (entity_id)
             LEFT JOIN LATERAL (
                  SELECT o.content_hash
                    FROM observations AS o
                   WHERE o.persona_id = past.persona_id AND o.kind = :kind
                     AND o.entity_id = past.entity_id AND o.observed_at >= e.valid_to
                   ORDER BY o.observed_at
                   LIMIT 1) AS later ON true
            WHERE past.is_last),
         alive AS (
           SELECT o.content_hash
             FROM e
            CROSS JOIN LATERAL (
                  SELECT content_hash
                    FROM observations
                   WHERE kind = :kind AND entity_id = e.entity_id AND observed_at >= e.valid_to
                  OFFSET 0) AS o
           UNION
           SELECT content_hash FROM brought WHERE next_content IS NULL),
         newest AS MATERIALIZED (
           SELECT DISTINCT ON (content_hash) entity_id, observed_at, persona_id
             FROM past
             JOIN alive USING (content_hash)
            WHERE source_updated_at IS NOT NULL
            ORDER BY content_hash, source_updated_at DESC, is_last DESC, observed_at DESC,
                     persona_id),
         staying AS MATERIALIZED (
           SELECT entity_id, observed_at, persona_id
             FROM newest
           UNION
           SELECT entity_id, observed_at, persona_id
             FROM brought
            WHERE next_content IS NULL OR next_content = content_hash
               OR (entity_id, persona_id) IN (SELECT entity_id, persona_id FROM newest)),
         going AS MATERIALIZED (
           SELECT *
             FROM past
            WHERE (entity_id, observed_at, persona_id) NOT IN (TABLE staying))"""

_DELETE = """,
         gone AS (
           DELETE FROM observations
            WHERE ctid = ANY (ARRAY(SELECT place FROM going))
           RETURNING content_hash)
    SELECT content_hash, count(*) AS observations FROM gone GROUP BY content_hash"""

# A content is one entity's alone: documents hold its id.
_COUNT = """
    SELECT content_hash, observations, size
      FROM (SELECT content_hash, count(*) AS observations FROM going GROUP BY content_hash) AS found
      LEFT JOIN LATERAL (
           SELECT pg_column_size(d.document) AS size
             FROM documents AS d
            WHERE d.kind = :kind AND d.content_hash = found.content_hash
              AND found.observations = (
                  SELECT count(*) FROM observations AS o
                   WHERE o.kind = :kind AND o.content_hash = found.content_hash)
           OFFSET 0) AS unused ON true"""

_GOING = {"persona": _PAST + _OWN, "shared": _PAST + _SHARED}

_DELETE_OF = {of: text(going + _DELETE) for of, going in _GOING.items()}

_COUNT_OF = {of: text(going + _COUNT) for of, going in _GOING.items()}

_DELETE_UNUSED = text("""
    WITH gone AS (
           DELETE FROM documents AS d
            WHERE d.kind = :kind AND d.content_hash = ANY(:contents)
              AND NOT EXISTS (
                  SELECT FROM observations AS o
                   WHERE o.kind = d.kind AND o.content_hash = d.content_hash OFFSET 0)
              AND NOT EXISTS (
                  SELECT FROM document_versions AS v
                   WHERE v.kind = d.kind AND v.content_hash = d.content_hash OFFSET 0)
           RETURNING pg_column_size(d.document) AS size)
    SELECT count(*), coalesce(sum(size), 0) FROM gone
""").bindparams(bindparam("contents", type_=ARRAY(BYTEA)))


@dataclass(frozen=True, slots=True)
class Rule:
    """How much of a history is kept. Versions go that neither limit holds; None: it holds none."""

    before: datetime | None
    """Versions that ended after this stay."""
    versions: int | None
    """So many of the last stay."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A beginning that may go."""

    entity_id: UUID
    pruned: Pruned
    versions: int
    """How many go that have not gone before."""


def count_entities(connection: Connection) -> int:
    """How many entities have a history."""
    return int(connection.execute(_COUNT_ENTITIES).scalar_one())


def next_entities(connection: Connection, kind: Kind, after: UUID | None, size: int) -> list[UUID]:
    """The next entities that have a history, in the order of their ids."""
    statement = _FIRST_ENTITIES if after is None else _NEXT_ENTITIES
    found = connection.execute(statement, {"kind": kind, "after": after, "limit": size})
    return list(found.scalars())


def candidates(
    connection: Connection, kind: Kind, ids: Sequence[UUID], rule: Rule, run_id: UUID | None
) -> list[Candidate]:
    """The beginnings of these entities' histories that may go, in the order of their ids."""
    found = connection.execute(
        _CANDIDATES,
        {
            "kind": kind,
            "ids": list(ids),
            "before": rule.before or "infinity",
            "versions": rule.versions or 0,
        },
    )
    return [
        Candidate(
            row.entity_id,
            Pruned(
                row.version,
                row.valid_from,
                row.valid_to,
                row.last_observed_at,
                row.next_content_hash,
                row.next_change,
                row.next_changed_paths,
                run_id,
            ),
            row.versions,
        )
        for row in found
    ]


def delete_observations(
    connection: Connection, kind: Kind, kept_from: Mapping[UUID, datetime]
) -> tuple[int, list[bytes]]:
    """Deletes what was observed of these entities before, unless something hangs on it.

    Returns how many observations those were, and the contents they were of.
    """
    statement = _DELETE_OF[_which(kind)]
    found = connection.execute(statement, _boundaries(kind, kept_from)).all()
    contents = [row.content_hash for row in found if row.content_hash is not None]
    return sum(row.observations for row in found), contents


def delete_unused(connection: Connection, kind: Kind, contents: Sequence[bytes]) -> tuple[int, int]:
    """Deletes those of these documents to which nothing refers. Returns how many, and their size.

    The size is about what they took, in bytes.
    """
    asked = {"kind": kind, "contents": list(contents)}
    documents, size = connection.execute(_DELETE_UNUSED, asked).one()
    return documents, size


def foreseen(
    connection: Connection, kind: Kind, kept_from: Mapping[UUID, datetime]
) -> tuple[int, int, int]:
    """How many observations and documents would go, and the size of those. Writes nothing."""
    found = connection.execute(_COUNT_OF[_which(kind)], _boundaries(kind, kept_from)).all()
    sizes = [row.size for row in found if row.size is not None]
    return sum(row.observations for row in found), len(sizes), sum(sizes)


def _which(kind: Kind) -> str:
    return "persona" if kind == "persona" else "shared"


def _boundaries(kind: Kind, kept_from: Mapping[UUID, datetime]) -> dict[str, Any]:
    rows = ({"entity_id": id_, "valid_to": moment} for id_, moment in kept_from.items())
    return {"kind": kind, "rows": encode_rows(rows)}
