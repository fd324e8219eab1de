"""Beginnings of histories that are not kept: what the fold goes on from, read and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select, text

from etl.fold import Pruned
from etl.store.recordset import encode_rows, upsert
from etl.tables import pruned_history

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.store.chains import Picked, Span
    from etl.store.observations import EntityKey
    from etl.store.pruning import Candidate
    from etl.tables import Kind

_COLUMNS = (
    "version",
    "valid_from",
    "valid_to",
    "last_observed_at",
    "next_content_hash",
    "next_change",
    "next_changed_paths",
    "run_id",
)

_PASTS = text(f"""
    SELECT kind, entity_id, {", ".join(_COLUMNS)}
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid)
      JOIN pruned_history USING (kind, entity_id)
""")  # noqa: S608  names of columns

# Who has seen it before then knows more.
_ADD_PASTS = text(f"""
    INSERT INTO pruned_history (kind, entity_id, {", ".join(_COLUMNS)})
    SELECT kind, entity_id, {", ".join(_COLUMNS)}
      FROM json_to_recordset(CAST(:rows AS json))
           AS k(kind text, entity_id uuid, version integer, valid_from timestamptz,
                valid_to timestamptz, last_observed_at timestamptz, next_content_hash bytea,
                next_change text, next_changed_paths text[], run_id uuid)
     WHERE NOT EXISTS (
           SELECT FROM observations AS o
            WHERE o.kind = k.kind AND o.entity_id = k.entity_id AND o.observed_at < k.valid_to)
     ORDER BY kind, entity_id
        ON CONFLICT DO NOTHING
    RETURNING kind, entity_id
""")  # noqa: S608  names of columns

# It came with what was observed of somebody who is kept out.
_DROP_STRAY = text("""
    DELETE FROM pruned_history AS p
     WHERE NOT EXISTS (
           SELECT FROM observations AS o WHERE o.kind = p.kind AND o.entity_id = p.entity_id)
""")


def pruned_pasts(connection: Connection, keys: Iterable[EntityKey]) -> dict[EntityKey, Pruned]:
    """What is known of the beginnings of these entities' histories; those kept whole are absent."""
    rows = encode_rows({"kind": kind, "entity_id": entity_id} for kind, entity_id in keys)
    return {
        (kind, entity_id): Pruned(*rest)
        for kind, entity_id, *rest in connection.execute(_PASTS, {"rows": rows})
    }


def pruned_before(connection: Connection, keys: Iterable[EntityKey]) -> dict[EntityKey, datetime]:
    """When the kept history of these entities begins; those kept whole are absent.

    What was observed before then can't be told of any more: whoever loads the past leaves it out.
    """
    return {key: past.valid_to for key, past in pruned_pasts(connection, keys).items()}


def is_anything_pruned(connection: Connection) -> bool:
    """Whether the history of anything is not kept whole."""
    statement = text("SELECT EXISTS (SELECT FROM pruned_history)")
    return bool(connection.execute(statement).scalar_one())


def pruned_within(connection: Connection, kind: Kind, span: Span | Picked) -> dict[UUID, Pruned]:
    """The same of a span of entities."""
    columns = pruned_history.columns
    statement = select(columns.entity_id, *(columns[name] for name in _COLUMNS)).where(
        columns.kind == kind, span.holds(columns.entity_id)
    )
    return {entity_id: Pruned(*rest) for entity_id, *rest in connection.execute(statement)}


def keep_pasts(connection: Connection, kind: Kind, found: Sequence[Candidate]) -> None:
    """Writes down what the fold goes on from."""
    rows = [_row((kind, one.entity_id), one.pruned) for one in found]
    upsert(connection, pruned_history, rows)


def add_pasts(
    connection: Connection, found: Mapping[EntityKey, Pruned], run_id: UUID
) -> set[EntityKey]:
    """Takes over beginnings that another database has let go, unless more is known here.

    Returns whose those are that were taken over.
    """
    rows = encode_rows({**_row(key, pruned), "run_id": run_id} for key, pruned in found.items())
    added = connection.execute(_ADD_PASTS, {"rows": rows})
    return {(row.kind, row.entity_id) for row in added}


def drop_stray_pasts(connection: Connection) -> None:
    """Drops the beginnings of which nothing followed."""
    connection.execute(_DROP_STRAY)


def _row(key: EntityKey, pruned: Pruned) -> dict[str, Any]:
    fields = {name: getattr(pruned, _FIELDS.get(name, name)) for name in _COLUMNS}
    return {"kind": key[0], "entity_id": key[1], **fields}


_FIELDS = {"next_content_hash": "next_content"}
