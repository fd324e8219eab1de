"""The normalized tables: rows of the documents in force, and the observed columns beside them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import any_, bindparam, delete, or_, select, text, true
from sqlalchemy.dialects.postgresql import ARRAY

from etl.flatten import flatten
from etl.store.recordset import encode_rows, recordset, update, upsert
from etl.tables import (
    OWNER,
    UUID_,
    entity_table,
    origin,
    personas,
    projections,
    share_link_allowed_origins,
    share_links,
    source,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, FromClause, Table
    from sqlalchemy.sql import ColumnElement

    from etl.flatten import Flat, Row
    from etl.payload.decode import JsonObject
    from etl.tables import Kind

RowsByTable = dict[str, list["Row"]]
Owners = dict["UUID", tuple["UUID", "JsonObject"]]

# A share link that two personas show belongs to the one whose open version is younger. The index on
# documents finds the claimants; a link's id is looked for in lower case, as the API writes it.
_CLAIMS = text("""
    SELECT DISTINCT ON (k.share_link_id) k.share_link_id, v.entity_id, d.document
      FROM json_to_recordset(CAST(:rows AS json)) AS k(share_link_id uuid)
      JOIN documents AS d
        ON d.kind = 'persona'
       AND d.document -> 'shareLinks'
           @> jsonb_build_array(jsonb_build_object('id', CAST(k.share_link_id AS text)))
      JOIN document_versions AS v
        ON v.kind = d.kind AND v.content_hash = d.content_hash AND v.valid_to IS NULL
     ORDER BY k.share_link_id, v.valid_from DESC, v.entity_id DESC
""")


@dataclass(frozen=True, slots=True)
class Projected:
    """A document in force, on its way into the tables."""

    kind: Kind
    entity_id: UUID
    flat: Flat
    first_seen_at: datetime
    last_changed_at: datetime
    is_new: bool
    """There are no rows of it yet, hence none to take away."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A persona that the API says is gone. Its rows stay."""

    persona_id: UUID
    removed_at: datetime


def project(connection: Connection, documents: Sequence[Projected]) -> None:
    """Makes the tables say what these documents say. Their versions are written already."""
    changed = [document for document in documents if not document.is_new]
    contested = _contested(connection, documents, _ids(changed, "persona"))
    owners = _owners(connection, contested)
    _drop_links_of_others(documents, {link: owner for link, (owner, _) in owners.items()})
    rows = _rows(documents)
    regained = _rows_of_owners(owners, without=set(_ids(documents, "persona")))
    for table in reversed(projections()):
        ids = _ids(changed, origin(table).kind)
        if (ids or contested) and origin(table).shape != "entity":
            kept = rows[table.name] + regained.get(table.name, [])
            _take_away(connection, table, ids, kept, contested)
    for table in projections():
        upsert(connection, table, rows[table.name])
        upsert(connection, table, regained.get(table.name, []))


def mark_removed(connection: Connection, removed: Sequence[Removed]) -> None:
    """Dates the removal of personas; their share links go to another that shows them, if any."""
    rows = [
        {
            "persona_id": gone.persona_id,
            "removed_at": gone.removed_at,
            "last_changed_at": gone.removed_at,
        }
        for gone in removed
    ]
    update(connection, personas, rows, on=("persona_id",))
    ids = [gone.persona_id for gone in removed]
    owners = _owners(connection, _links_of(connection, ids))
    regained = _rows_of_owners(owners, without=set(ids))
    origins = regained.get(share_link_allowed_origins.name, [])
    _take_away(connection, share_link_allowed_origins, [], origins, owners.keys())
    for table in projections("persona"):
        upsert(connection, table, regained.get(table.name, []))


def update_observed(connection: Connection, flats: Iterable[Flat]) -> None:
    """Sets the observed columns where they moved. The flats hold keys and those alone."""
    rows: RowsByTable = {}
    for flat in flats:
        for name, found in flat.rows.items():
            rows.setdefault(name, []).extend(found)
    for table in projections():
        observed = [c.name for c in table.columns if (s := source(c)) and s.observed]
        for_table = rows.get(table.name, [])
        on = tuple(name for name in (for_table[0] if for_table else ()) if name not in observed)
        update(connection, table, for_table, on=on, guard=_no_older_copy)


def _no_older_copy(table: Table, incoming: FromClause) -> ColumnElement[bool]:
    """Of a shared document an older copy says nothing about the present."""
    if origin(table).kind == "persona":
        return true()
    seen, known = incoming.c.updated_at, table.c.updated_at
    return or_(seen.is_(None), known.is_(None), seen >= known)


def _rows(documents: Sequence[Projected]) -> RowsByTable:
    """The rows to write, by table, those of entities with their history columns."""
    rows: RowsByTable = {table.name: [] for table in projections()}
    for document in documents:
        entity = entity_table(document.kind)
        for name, found in document.flat.rows.items():
            rows[name].extend(found)
        row = rows[entity.name][-1]
        row["first_seen_at"] = document.first_seen_at
        row["last_changed_at"] = document.last_changed_at
        if entity is personas:
            row["removed_at"] = None
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
    keep = recordset(list(table.primary_key.columns))
    matches = [table.c[c.name] == keep.c[c.name] for c in table.primary_key.columns]
    connection.execute(
        delete(table)
        .where(_owned_by(table))
        .where(~select(1).select_from(keep).where(*matches).exists()),
        {"owners": owners, "links": list(links), "rows": encode_rows(rows)},
    )


def _owned_by(table: Table) -> ColumnElement[bool]:
    """Whether a row stems from one of the documents in the parameter `owners`.

    An origin also does when its link, which may come from another persona, is among `links`.
    """
    owners = bindparam("owners", type_=ARRAY(UUID_))
    for column in table.columns:
        if (found := source(column)) and found.path == OWNER:
            return column == any_(owners)
    links = bindparam("links", type_=ARRAY(UUID_))
    return or_(
        table.c.share_link_id == any_(links),
        table.c.share_link_id.in_(
            select(share_links.c.share_link_id).where(share_links.c.persona_id == any_(owners))
        ),
    )


def _contested(
    connection: Connection, documents: Iterable[Projected], changed: list[UUID]
) -> set[UUID]:
    """The share links that two personas may claim.

    Those shown twice in the batch, those that another persona has in the table, and those that a
    changed persona does not show any more.
    """
    rows = [row for d in documents for row in d.flat.rows.get(share_links.name, ())]
    shown = {row["share_link_id"]: row["persona_id"] for row in rows}
    times = Counter(row["share_link_id"] for row in rows)
    contested = {link for link, count in times.items() if count > 1}
    if shown:
        incoming = recordset([share_links.c.share_link_id])
        known = connection.execute(
            select(share_links.c.share_link_id, share_links.c.persona_id).join(
                incoming, incoming.c.share_link_id == share_links.c.share_link_id
            ),
            {"rows": encode_rows({"share_link_id": link} for link in shown)},
        )
        contested |= {link for link, owner in known if owner != shown[link]}
    return contested | (_links_of(connection, changed) - shown.keys())


def _links_of(connection: Connection, owners: list[UUID]) -> set[UUID]:
    statement = select(share_links.c.share_link_id).where(_owned_by(share_links))
    return set(connection.execute(statement, {"owners": owners}).scalars()) if owners else set()


def _owners(connection: Connection, links: set[UUID]) -> Owners:
    """To whom each of these links belongs, with that persona's document."""
    if not links:
        return {}
    wanted = encode_rows({"share_link_id": link} for link in links)
    return {
        row.share_link_id: (row.entity_id, row.document)
        for row in connection.execute(_CLAIMS, {"rows": wanted})
    }


def _drop_links_of_others(documents: Iterable[Projected], owners: dict[UUID, UUID]) -> None:
    """Leaves each link to its owner: by age, where its claimants could not be looked up."""
    shown = sorted(
        (d for d in documents if d.kind == "persona"),
        key=lambda d: (d.last_changed_at, d.entity_id),
    )
    by_age = {r["share_link_id"]: d.entity_id for d in shown for r in d.flat.rows[share_links.name]}
    owner_of = by_age | owners
    for document in shown:
        for table in (share_links, share_link_allowed_origins):
            rows = document.flat.rows[table.name]
            rows[:] = [r for r in rows if owner_of[r["share_link_id"]] == document.entity_id]


def _rows_of_owners(owners: Owners, *, without: set[UUID]) -> RowsByTable:
    """The rows of links whose owners are not being written themselves.

    Without the observed columns: nobody has seen those just now.
    """
    rows: RowsByTable = {}
    for link, (owner, document) in owners.items():
        if owner not in without:
            flat = flatten("persona", owner, document, "stored")
            for table in (share_links, share_link_allowed_origins):
                found = [row for row in flat.rows[table.name] if row["share_link_id"] == link]
                rows.setdefault(table.name, []).extend(found)
    return rows
