"""The normalized tables: rows of the documents in force, and the observed columns beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import any_, bindparam, delete, or_, select, true, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

from etl.store.links import (
    contested_links,
    leave_to_owners,
    links_of,
    links_shown,
    owners_of,
    rows_of_owners,
    tables_of_links,
)
from etl.store.mapped import map_of
from etl.store.recordset import encode_rows, recordset, update, upsert
from etl.tables import UUID_, is_observed, origin, owner_of, personas, share_links

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, FromClause, Table
    from sqlalchemy.sql import ColumnElement

    from etl.flatten import Flat, Row
    from etl.map import Map
    from etl.tables import Kind

RowsByTable = dict[str, list["Row"]]


@dataclass(frozen=True, slots=True)
class Projected:
    """The document that the tables show of an entity, on its way into them."""

    kind: Kind
    entity_id: UUID
    flat: Flat
    first_seen_at: datetime
    last_changed_at: datetime
    removed_at: datetime | None
    """Of a removed persona, whose last document this is."""
    is_new: bool
    """There are no rows of it yet, hence none to take away."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A persona that the API says is gone. Its rows stay."""

    persona_id: UUID
    removed_at: datetime | None
    """None: it was back before this came to be known."""
    last_changed_at: datetime


def project(
    connection: Connection, documents: Sequence[Projected], *, are_late: bool = False
) -> None:
    """Makes the tables say what these documents say. Their versions are written already.

    A late observation can make the version in force older than it was, and so lose a share link.
    """
    changed = [document for document in documents if not document.is_new]
    shown = [d for d in documents if d.kind == "persona"]
    shown.sort(key=lambda document: (document.last_changed_at, document.entity_id))
    flats = {document.entity_id: document.flat for document in shown}
    contested = contested_links(connection, flats.values(), _ids(changed, "persona"))
    if are_late:
        contested |= links_shown(flats.values())
    owners = owners_of(connection, contested)
    the_map = map_of(connection)
    leave_to_owners(the_map, flats, owners)
    rows = _rows(the_map, documents)
    regained = rows_of_owners(connection, owners, without=flats.keys())
    for table in reversed(the_map.projections()):
        ids = _ids(changed, the_map.origin(table).kind)
        if (ids or contested) and the_map.origin(table).shape != "entity":
            kept = rows[table.name] + regained.get(table.name, [])
            _take_away(connection, table, ids, kept, contested)
    for table in the_map.projections():
        upsert(connection, table, rows[table.name])
        upsert(connection, table, regained.get(table.name, []))


def mark_removed(connection: Connection, removed: Sequence[Removed]) -> None:
    """Dates the removal of personas; their share links go to another that shows them, if any.

    Their versions are written already.
    """
    rows = [
        {
            "persona_id": gone.persona_id,
            "removed_at": gone.removed_at,
            "last_changed_at": gone.last_changed_at,
        }
        for gone in removed
    ]
    update(connection, personas, rows, on=("persona_id",))
    the_map = map_of(connection)
    ids = [gone.persona_id for gone in removed]
    owners = owners_of(connection, links_of(connection, ids))
    regained = rows_of_owners(connection, owners, without=())
    for table in tables_of_links(the_map)[1:]:
        _take_away(connection, table, [], regained.get(table.name, []), owners.keys())
    for table in the_map.projections("persona"):
        upsert(connection, table, regained.get(table.name, []))


def update_observed(connection: Connection, flats: Iterable[Flat]) -> None:
    """Sets the observed columns where they moved. The flats hold keys and those alone."""
    rows: RowsByTable = {}
    for flat in flats:
        for name, found in flat.rows.items():
            rows.setdefault(name, []).extend(found)
    the_map = map_of(connection)
    for table in the_map.projections():
        observed = [c.name for c in table.columns if is_observed(c)]
        for_table = rows.get(table.name, [])
        on = tuple(name for name in (for_table[0] if for_table else ()) if name not in observed)
        update(connection, table, for_table, on=on, guard=_no_older_copy)


def _no_older_copy(table: Table, incoming: FromClause) -> ColumnElement[bool]:
    """Of a shared document an older copy says nothing about the present."""
    if origin(table).kind == "persona":
        return true()
    seen, known = incoming.c.updated_at, table.c.updated_at
    return or_(seen.is_(None), known.is_(None), seen >= known)


def _rows(the_map: Map, documents: Sequence[Projected]) -> RowsByTable:
    """The rows to write, by table, those of entities with their history columns."""
    rows: RowsByTable = {table.name: [] for table in the_map.projections()}
    for document in documents:
        entity = the_map.entity_table(document.kind)
        for name, found in document.flat.rows.items():
            rows[name].extend(found)
        row = rows[entity.name][-1]
        row["first_seen_at"] = document.first_seen_at
        row["last_changed_at"] = document.last_changed_at
        if document.kind == "persona":
            row["removed_at"] = document.removed_at
    return rows


def _ids(documents: Iterable[Projected], kind: Kind) -> list[UUID]:
    return [document.entity_id for document in documents if document.kind == kind]


def _take_away(
    connection: Connection,
    table: Table,
    owners: list[UUID],
    rows: Sequence[Row],
    links: Collection[UUID],
) -> None:
    """Deletes the rows of these documents, and the origins of these links, but for `rows`."""
    key = list(table.primary_key.columns)
    # A set operation hashes; NOT EXISTS on rows that the planner can't count may be quadratic.
    stale = select(*key).where(_owned_by(table)).except_(select(*recordset(key).columns))
    kept = encode_rows({c.name: row[c.name] for c in key} for row in rows)
    connection.execute(
        delete(table).where(tuple_(*key).in_(stale)),
        {"owners": owners, "links": list(links), "rows": kept},
    )


def _owned_by(table: Table) -> ColumnElement[bool]:
    """Whether a row stems from one of the documents in the parameter `owners`.

    An origin also does when its link, which may come from another persona, is among `links`.
    """
    owners = bindparam("owners", type_=ARRAY(UUID_))
    if (column := owner_of(table)) is not None:
        return column == any_(owners)
    links = bindparam("links", type_=ARRAY(UUID_))
    return or_(
        table.c.share_link_id == any_(links),
        table.c.share_link_id.in_(
            select(share_links.c.share_link_id).where(share_links.c.persona_id == any_(owners))
        ),
    )
