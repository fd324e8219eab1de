"""Whose versions do not tell yet what was observed, and what came with the latest copy of each.

A load from files folds at its end: an entity's observations come in any order, and a popular voice
has one in every line. Until then it is noted here, in the transaction of the observations, so that
whoever runs next goes on if the load dies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import Raw
from sqlalchemy import any_, bindparam, delete, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.store.recordset import encode_row, encode_rows
from etl.tables import UUID_, unfolded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.flatten import Row
    from etl.store.observations import EntityKey
    from etl.tables import Kind

# Of two copies of one content the one that the fold would prefer, in whatever order they come.
# Which content is going to be in force, nobody knows yet.
_NOTE = text("""
    INSERT INTO unfolded AS u (kind, entity_id, content_hash, observed_at, source_updated_at,
                               observed)
    SELECT kind, entity_id, content_hash, observed_at, source_updated_at, observed
      FROM json_to_recordset(CAST(:rows AS json))
           AS k(kind text, entity_id uuid, content_hash bytea, observed_at timestamptz,
                source_updated_at timestamptz, observed jsonb)
     ORDER BY kind, entity_id, content_hash
        ON CONFLICT (kind, entity_id, content_hash) DO UPDATE
       SET observed_at = excluded.observed_at,
           source_updated_at = excluded.source_updated_at, observed = excluded.observed
     WHERE (CASE WHEN excluded.kind = 'persona' THEN '-infinity'
                 ELSE coalesce(excluded.source_updated_at, '-infinity') END,
            excluded.observed_at, coalesce(excluded.source_updated_at, '-infinity'),
            CAST(excluded.observed ->> 'by' AS uuid))
         > (CASE WHEN u.kind = 'persona' THEN '-infinity'
                 ELSE coalesce(u.source_updated_at, '-infinity') END,
            u.observed_at, coalesce(u.source_updated_at, '-infinity'),
            CAST(u.observed ->> 'by' AS uuid))
""")

# The copy speaks for the columns unless another content is in force (of what is removed: was the
# last), or a copy of the same that the fold would prefer, from a file or from the API, has spoken.
_LATEST = """
    SELECT u.entity_id, u.content_hash, u.observed
      FROM unfolded AS u
     CROSS JOIN LATERAL (
           SELECT content_hash
             FROM document_versions
            WHERE kind = u.kind AND entity_id = u.entity_id AND content_hash IS NOT NULL
            ORDER BY version DESC LIMIT 1) AS v
     WHERE u.kind = :kind AND u.entity_id = ANY(:ids) AND u.content_hash = v.content_hash
       AND NOT EXISTS (
           SELECT FROM observations AS o
            WHERE o.kind = u.kind AND o.entity_id = u.entity_id
              AND o.content_hash = u.content_hash
              AND (CASE WHEN o.kind = 'persona' THEN '-infinity'
                        ELSE coalesce(o.source_updated_at, '-infinity') END,
                   o.observed_at, o.persona_id)
                > (CASE WHEN u.kind = 'persona' THEN '-infinity'
                        ELSE coalesce(u.source_updated_at, '-infinity') END,
                   u.observed_at, CAST(u.observed ->> 'by' AS uuid)))
       AND NOT EXISTS (
           SELECT FROM persona_sync_state AS s
            WHERE s.last_success_at > u.observed_at AND s.persona_id IN ({users}))
"""
_USERS = {
    "persona": "SELECT u.entity_id",
    "avatar": "SELECT p.persona_id FROM personas AS p WHERE p.avatar_id = u.entity_id",
    "voice": "SELECT p.persona_id FROM personas AS p WHERE p.voice_id = u.entity_id",
    "tool": "SELECT p.persona_id FROM persona_tools AS p WHERE p.tool_id = u.entity_id",
    "knowledge_group": "SELECT p.persona_id FROM persona_knowledge_groups AS p"
    " WHERE p.knowledge_group_id = u.entity_id",
}


# A content behind a zero stood around an observation and is none, unless it turns out that nobody
# has observed its entity. The first time counts, whenever it comes.
_AROUND = b"\0"
_NOTE_CONTEXT = text("""
    INSERT INTO unfolded AS u (kind, entity_id, content_hash, observed_at, source_updated_at,
                               observed)
    SELECT kind, entity_id, content_hash, observed_at, source_updated_at, observed
      FROM json_to_recordset(CAST(:rows AS json))
           AS k(kind text, entity_id uuid, content_hash bytea, observed_at timestamptz,
                source_updated_at timestamptz, observed jsonb)
     ORDER BY kind, entity_id, content_hash
        ON CONFLICT (kind, entity_id, content_hash) DO UPDATE
       SET observed_at = excluded.observed_at,
           source_updated_at = excluded.source_updated_at, observed = excluded.observed
     WHERE (excluded.observed_at, CAST(excluded.observed ->> 'by' AS uuid))
         < (u.observed_at, CAST(u.observed ->> 'by' AS uuid))
""")
_CONTEXTS = """
    SELECT kind, entity_id, substr(content_hash, 2) AS content_hash, observed_at,
           source_updated_at, CAST(observed ->> 'by' AS uuid) AS persona_id
      FROM unfolded
     WHERE kind = :kind AND entity_id = ANY(:ids) AND substr(content_hash, 1, 1) = '\\x00'
       AND length(content_hash) > 32
"""
_OBSERVE = text(f"""
    INSERT INTO observations (kind, entity_id, observed_at, persona_id, content_hash,
                              source_updated_at, run_id)
    SELECT DISTINCT ON (entity_id)
           kind, entity_id, observed_at, persona_id, content_hash, source_updated_at, :run_id
      FROM ({_CONTEXTS}) AS c
     WHERE NOT EXISTS (SELECT FROM observations AS o
                        WHERE o.kind = c.kind AND o.entity_id = c.entity_id)
     ORDER BY entity_id, observed_at, source_updated_at, content_hash
""").bindparams(bindparam("ids", type_=ARRAY(UUID_)))  # noqa: S608  our own text
_DROP_UNUSED = text(f"""
    DELETE FROM documents AS d
     USING ({_CONTEXTS}) AS c
     WHERE d.kind = c.kind AND d.content_hash = c.content_hash
       AND NOT EXISTS (SELECT FROM observations AS o
                        WHERE o.kind = d.kind AND o.content_hash = d.content_hash)
       AND NOT EXISTS (SELECT FROM document_versions AS v
                        WHERE v.kind = d.kind AND v.content_hash = d.content_hash)
""").bindparams(bindparam("ids", type_=ARRAY(UUID_)))  # noqa: S608  our own text


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a document that was brought, of which the observed fields may count."""

    content_hash: bytes
    observed_at: datetime
    source_updated_at: datetime | None
    persona_id: UUID
    """Who brought it."""
    observed: Raw
    """As `encoded_copy` has it."""


def encoded_copy(
    persona_id: UUID, rows: Mapping[str, list[Row]], issues: Sequence[tuple[str, str, str, str]]
) -> Raw:
    """What a copy says that its stored document does not.

    Args:
        persona_id: Who brought it.
        rows: By table keys and observed columns.
        issues: Values that do not fit: the path, the problem, what was expected, and what came.
    """
    return Raw(encode_row({"by": persona_id, "rows": rows, "issues": issues}))


def note_unfolded(
    connection: Connection,
    entities: Iterable[EntityKey],
    copies: Iterable[tuple[EntityKey, Copy]],
) -> None:
    """Notes entities with new observations, and copies of them, one a content."""
    rows = [_row(key, copy) for key, copy in copies]
    rows += [
        {"kind": kind, "entity_id": entity_id, "content_hash": b""} for kind, entity_id in entities
    ]
    if rows:
        connection.execute(_NOTE, {"rows": encode_rows(rows)})


def note_contexts(connection: Connection, copies: Iterable[tuple[EntityKey, Copy]]) -> None:
    """Notes what stood around observations, of entities that nobody has observed so far.

    Its documents are stored.
    """
    rows = [
        {**_row(key, copy), "content_hash": _AROUND + copy.content_hash} for key, copy in copies
    ]
    if rows:
        connection.execute(_NOTE_CONTEXT, {"rows": encode_rows(rows)})


def _row(key: EntityKey, copy: Copy) -> Row:
    return {
        "kind": key[0],
        "entity_id": key[1],
        "content_hash": copy.content_hash,
        "observed_at": copy.observed_at,
        "source_updated_at": copy.source_updated_at,
        "observed": copy.observed,
    }


def next_unfolded(connection: Connection, kind: Kind, after: UUID | None, size: int) -> list[UUID]:
    """The next entities that are to be folded, in the order of their ids."""
    statement = select(unfolded.c.entity_id).where(unfolded.c.kind == kind).distinct()
    if after is not None:
        statement = statement.where(unfolded.c.entity_id > after)
    found = connection.execute(statement.order_by(unfolded.c.entity_id).limit(size))
    return list(found.scalars())


def count_unfolded(connection: Connection) -> int:
    """How many entities are to be folded."""
    return int(
        connection.execute(
            text("SELECT count(DISTINCT (kind, entity_id)) FROM unfolded")
        ).scalar_one()
    )


def latest_copies(
    connection: Connection, kind: Kind, ids: Sequence[UUID]
) -> dict[UUID, dict[str, Any]]:
    """Of these entities the observed rows and issues of the copies that speak for them."""
    statement = text(_LATEST.format(users=_USERS[kind]))
    found = connection.execute(
        statement.bindparams(bindparam("ids", list(ids), type_=ARRAY(UUID_))), {"kind": kind}
    )
    return {row.entity_id: row.observed for row in found}


def observe_contexts(connection: Connection, kind: Kind, ids: Sequence[UUID], run_id: UUID) -> None:
    """Makes an observation of the context in which these were seen, where nobody observed them.

    Personas refer to them, so they can't be nothing.
    """
    asked = {"kind": kind, "ids": list(ids)}
    connection.execute(_OBSERVE, {**asked, "run_id": run_id})
    connection.execute(_DROP_UNUSED, asked)


def forget_unfolded(connection: Connection, kind: Kind, ids: Sequence[UUID]) -> None:
    """These are folded."""
    wanted = bindparam("ids", list(ids), type_=ARRAY(UUID_))
    connection.execute(
        delete(unfolded).where(unfolded.c.kind == kind, unfolded.c.entity_id == any_(wanted))
    )
