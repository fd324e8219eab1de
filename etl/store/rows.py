"""What the normalized tables say of a span of entities, and where those stand by their versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, any_, bindparam, delete, exists, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

from etl.payload.paths import usable_uuid
from etl.store.mapped import map_of
from etl.store.recordset import encode_rows, recordset
from etl.tables import UUID_, is_observed, owner_of, share_links

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, Table

    from etl.flatten import Row
    from etl.store.chains import Picked, Span
    from etl.tables import Kind

Key = tuple[Any, ...]

_STANDINGS = """
    SELECT v.entity_id,
           coalesce(v.content_hash,
                    (SELECT b.content_hash
                       FROM document_versions AS b
                      WHERE b.kind = v.kind AND b.entity_id = v.entity_id
                        AND b.version = v.version - 1)) AS content_hash,
           (SELECT f.valid_from
              FROM document_versions AS f
             WHERE f.kind = v.kind AND f.entity_id = v.entity_id
             ORDER BY f.version
             LIMIT 1) AS first_seen_at,
           v.valid_from AS last_changed_at,
           v.content_hash IS NULL AS is_removed
      FROM document_versions AS v
     WHERE v.kind = :kind AND v.valid_to IS NULL {after}
     ORDER BY v.entity_id
     LIMIT :limit
"""
# Two statements: of one for both, a plan that is kept would begin at the first entity each time.
_FIRST_STANDINGS = text(_STANDINGS.format(after=""))
_NEXT_STANDINGS = text(_STANDINGS.format(after="AND v.entity_id > :after"))
_PICKED_STANDINGS = text(_STANDINGS.format(after="AND v.entity_id = ANY(:ids)")).bindparams(
    bindparam("ids", type_=ARRAY(UUID_))
)

# In any letters: a link's id is a uuid.
_SHOWN_TWICE = text("""
    SELECT lower(link ->> 'id') AS id
      FROM document_versions AS v
      JOIN documents AS d
        ON d.kind = v.kind
       AND d.content_hash = coalesce(
               v.content_hash,
               (SELECT b.content_hash
                  FROM document_versions AS b
                 WHERE b.kind = v.kind AND b.entity_id = v.entity_id
                   AND b.version = v.version - 1))
     CROSS JOIN LATERAL jsonb_array_elements(
           CASE jsonb_typeof(d.document -> 'shareLinks')
                WHEN 'array' THEN d.document -> 'shareLinks' ELSE '[]' END) AS link
     WHERE v.kind = 'persona' AND v.valid_to IS NULL
     GROUP BY lower(link ->> 'id')
    HAVING count(DISTINCT v.entity_id) > 1
""")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an entity stands by its versions."""

    entity_id: UUID
    content_hash: bytes | None
    """Its document, of a removed one the last. None only where versions were lost."""
    first_seen_at: datetime | None
    last_changed_at: datetime
    is_removed: bool


def standings(connection: Connection, kind: Kind, after: UUID | None, size: int) -> list[Standing]:
    """Where the next entities stand, in the order of their ids."""
    wanted = {"kind": kind, "after": after, "limit": size}
    statement = _FIRST_STANDINGS if after is None else _NEXT_STANDINGS
    return [Standing(*row) for row in connection.execute(statement, wanted)]


def standings_of(connection: Connection, kind: Kind, ids: Sequence[UUID]) -> list[Standing]:
    """Where these entities stand, in the order of their ids; those without versions are absent."""
    wanted = {"kind": kind, "ids": list(ids), "limit": None}
    return [Standing(*row) for row in connection.execute(_PICKED_STANDINGS, wanted)]


def links_shown_twice(connection: Connection) -> set[UUID]:
    """The share links that more than one persona shows, of a removed one as it last did."""
    found = connection.execute(_SHOWN_TWICE).scalars()
    return {link for text_ in found if (link := usable_uuid(text_)) is not None}


def key_of(table: Table, row: Row) -> Key:
    """The values of its key."""
    return tuple(row[c.name] for c in table.primary_key.columns)


def rows_of(
    connection: Connection, table: Table, span: Span | Picked, links: Collection[UUID] = ()
) -> dict[Key, Row]:
    """The rows that stem from these entities, and those of these share links; without ° columns."""
    owned_by = owner_of(table)
    columns = [c for c in table.columns if not is_observed(c)]
    wanted = [] if owned_by is None else [span.holds(owned_by)]
    if share_links.c.share_link_id.name in table.columns:
        of_links = bindparam("links", list(links), type_=ARRAY(UUID_))
        wanted.append(table.c.share_link_id == any_(of_links))
    statement = select(*columns).where(or_(*wanted))
    found = (dict(row) for row in connection.execute(statement).mappings())
    return {key_of(table, row): row for row in found}


def rows_with(connection: Connection, table: Table, like: Sequence[Row]) -> dict[Key, Row]:
    """Of the rows that agree with these in all but the ° columns: the columns that these have."""
    on = [table.columns[name] for name in like[0] if not is_observed(table.columns[name])]
    incoming = recordset(on)
    statement = select(*(table.columns[name] for name in like[0])).join(
        incoming, and_(*(column == incoming.c[column.name] for column in on))
    )
    wanted = encode_rows({column.name: row[column.name] for column in on} for row in like)
    found = (dict(row) for row in connection.execute(statement, {"rows": wanted}).mappings())
    return {key_of(table, row): row for row in found}


def delete_rows(connection: Connection, table: Table, keys: Collection[Key]) -> None:
    """Deletes the rows with these keys."""
    if keys:
        connection.execute(*_deletion(table, keys))


def delete_entities(connection: Connection, kind: Kind, ids: Collection[UUID]) -> None:
    """Deletes all rows of these shared entities, which nobody refers to any more."""
    for table in reversed(map_of(connection).projections(kind)):
        owned_by = owner_of(table)
        if owned_by is not None:
            wanted = bindparam("ids", list(ids), type_=ARRAY(UUID_))
            connection.execute(delete(table).where(owned_by == any_(wanted)))


def delete_unused(connection: Connection, table: Table, keys: Sequence[Key]) -> set[Key]:
    """Deletes those of the rows to which no other row refers. Returns their keys."""
    statement, parameters = _deletion(table, keys)
    for other in map_of(connection).projections():
        for reference in other.foreign_keys:
            if reference.column.table.name == table.name:
                used = exists().where(reference.parent == reference.column)
                statement = statement.where(~used)
    statement = statement.returning(*table.primary_key.columns)
    return {tuple(row) for row in connection.execute(statement, parameters)}


def _deletion(table: Table, keys: Collection[Key]) -> tuple[Any, dict[str, str]]:
    columns = list(table.primary_key.columns)
    names = [c.name for c in columns]
    stale = select(*recordset(columns).columns)
    rows = encode_rows(dict(zip(names, key, strict=True)) for key in keys)
    return delete(table).where(tuple_(*columns).in_(stale)), {"rows": rows}
