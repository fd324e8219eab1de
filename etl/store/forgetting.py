"""All rows about a persona: which they are, and the statements that take them away.

What is shared goes only when nobody else brought it. Of the rest the persona's part goes, and what
follows from the others' observations is for the caller to fold anew, between the two deletions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    LargeBinary,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    delete,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from etl.store.engine import quote_identifier
from etl.store.links import links_of, owners_of, rows_of_owners, tables_of_links
from etl.store.mapped import map_of
from etl.store.recordset import upsert
from etl.store.untold import Untold, untold
from etl.tables import (
    KINDS,
    UUID_,
    document_versions,
    documents,
    drift_paths,
    is_observed,
    name_column,
    observations,
    owner_of,
    persona_sync_state,
    pruned_history,
    rejected_payloads,
    run_items,
    share_links,
    unfolded,
    value_issues,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from uuid import UUID

    from sqlalchemy import Column, Connection, Table
    from sqlalchemy.sql import ColumnElement

    from etl.store.observations import EntityKey
    from etl.tables import Kind

    # Rows that go together: of which table, and which.
    Condition = tuple[Table, ColumnElement[bool]]

FORGOTTEN = "(forgotten)"
"""What stands in the place of an id in texts that stay."""

# LIMIT keeps each a look into an index: as EXISTS it may become a join with all observations.
_SHARED = text("""
    WITH brought AS MATERIALIZED (
           SELECT DISTINCT kind, entity_id FROM observations
            WHERE persona_id = :id AND kind <> 'persona')
    SELECT kind, entity_id,
           (SELECT o.persona_id FROM observations AS o
             WHERE o.kind = b.kind AND o.entity_id = b.entity_id AND o.persona_id <> :id
             LIMIT 1) IS NULL AS is_sole
      FROM brought AS b
     ORDER BY kind, entity_id
""")

_OWN_CONTENTS = text("""
    WITH brought AS MATERIALIZED (
           SELECT DISTINCT kind, entity_id, content_hash FROM observations
            WHERE persona_id = :id AND content_hash IS NOT NULL)
    SELECT kind, entity_id, content_hash
      FROM brought AS b
     WHERE (SELECT o.persona_id FROM observations AS o
             WHERE o.kind = b.kind AND o.content_hash = b.content_hash AND o.persona_id <> :id
             LIMIT 1) IS NULL
     ORDER BY kind, entity_id, content_hash
""")

_OTHERS_CONTENTS = text("""
    SELECT DISTINCT content_hash FROM observations
     WHERE kind = :kind AND entity_id = :entity_id AND persona_id <> :id
       AND content_hash IS NOT NULL
""")

# The message of a failure may quote what the API says of the persona, and runs quote messages.
_CUT_ERRORS = text("""
    UPDATE runs AS r
       SET error = regexp_replace(
               CASE WHEN i.message <> '' THEN replace(r.error, i.message, CAST(:instead AS text))
                    ELSE r.error END, CAST(:named AS text), CAST(:instead AS text), 'gi')
      FROM runs AS same
      LEFT JOIN run_items AS i ON i.run_id = same.run_id AND i.persona_id = :id
     WHERE same.run_id = r.run_id AND r.error ILIKE '%' || CAST(:named AS text) || '%'
""")
_CUT_MESSAGES = text("""
    UPDATE run_items
       SET message = regexp_replace(message, CAST(:named AS text), CAST(:instead AS text), 'gi')
     WHERE message ILIKE '%' || CAST(:named AS text) || '%' AND persona_id <> :id
""")

_DOUBT_USERS = text("""
    UPDATE persona_sync_state
       SET body_sha256 = NULL
     WHERE body_sha256 IS NOT NULL
       AND persona_id IN (SELECT persona_id FROM observations
                           WHERE kind = :kind AND entity_id = ANY(:ids))
""").bindparams(bindparam("ids", type_=ARRAY(UUID_)))


@dataclass(frozen=True, slots=True)
class Shared:
    """A shared document that the persona brought."""

    kind: Kind
    entity_id: UUID
    name: str | None
    is_sole: bool
    """Nobody else ever brought it: it goes."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """All that there is about a persona."""

    persona_id: UUID
    name: str | None
    shared: list[Shared]
    contents: dict[EntityKey, list[bytes]]
    """What nobody else brought, by its entity."""
    links: list[UUID]
    """Share links under it in the table."""
    untold: Untold
    rows: dict[str, int]
    """How many rows go, by table; those that have none are absent."""

    def ids(self, kind: Kind, *, sole: bool) -> list[UUID]:
        """The shared documents of a kind that go, or those that stay."""
        return [s.entity_id for s in self.shared if s.kind == kind and s.is_sole == sole]


def belongings(connection: Connection, persona_id: UUID) -> Belongings:
    """Finds all that there is. Writes nothing."""
    asked = {"id": persona_id}
    shared = [
        Shared(row.kind, row.entity_id, _name(connection, row.kind, row.entity_id), row.is_sole)
        for row in connection.execute(_SHARED, asked).all()
    ]
    contents: dict[EntityKey, list[bytes]] = {}
    for kind, entity_id, content in connection.execute(_OWN_CONTENTS, asked):
        contents.setdefault((kind, entity_id), []).append(content)
    staying = {
        (s.kind, s.entity_id): _others_contents(connection, persona_id, s)
        for s in shared
        if not s.is_sole
    }
    keys: list[EntityKey] = [("persona", persona_id), *((s.kind, s.entity_id) for s in shared)]
    found = Belongings(
        persona_id,
        _name(connection, "persona", persona_id),
        shared,
        contents,
        sorted(links_of(connection, [persona_id])),
        untold(connection, contents, staying, pruned=_are_pruned(connection, keys)),
        {},
    )
    found.rows.update(_counted(connection, found))
    return found


def delete_rows_of(connection: Connection, found: Belongings) -> Counter[str]:
    """Deletes what was found but for documents, and cuts it out of what stays.

    Share links go to those who show them as well. Returns how many rows went, by table.
    """
    persona_id = found.persona_id
    cut = {"id": persona_id, "named": str(persona_id), "instead": FORGOTTEN}
    # While the messages are there that they quote.
    connection.execute(_CUT_ERRORS, cut)
    connection.execute(_CUT_MESSAGES, cut)
    gone = _delete(connection, _before_the_fold(connection, found))
    the_map = map_of(connection)
    owners = owners_of(connection, found.links)
    regained = rows_of_owners(connection, owners, without=())
    for table in tables_of_links(the_map):
        upsert(connection, table, regained.get(table.name, []))
    _doubt(connection, {owner for owner, _ in owners.values()})
    return gone


def delete_documents_of(connection: Connection, found: Belongings) -> Counter[str]:
    """Deletes the documents, to which nothing refers any more. Returns how many went.

    The observed columns of what stays may be what this persona's payload said: of those only
    `updated_at` is known of the others, the rest is NULL until their next answers are read.
    """
    for kind in KINDS:
        if kind != "persona" and (ids := found.ids(kind, sole=False)):
            _clear_observed(connection, kind, ids)
    return _delete(connection, _contents(found))


def forget_statistics(connection: Connection) -> None:
    """Makes the planner's samples of all tables anew: they hold values.

    A table that somebody else is analyzing now is left out: it is being made anew. Of one that is
    empty, or not ours, the samples stay.
    """
    # What is checked at the end is checked before: a planner that knows of few rows would look for
    # each version among all that are just gone.
    connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    names = ", ".join(quote_identifier(name) for name in sorted(map_of(connection).tables))
    connection.execute(text(f"ANALYZE (SKIP_LOCKED) {names}"))


def _name(connection: Connection, kind: Kind, entity_id: UUID) -> str | None:
    table = map_of(connection).entity_table(kind)
    (key,) = table.primary_key.columns
    column = table.c[name_column(kind).name]
    found: str | None = connection.execute(select(column).where(key == entity_id)).scalar()
    return found


def _others_contents(connection: Connection, persona_id: UUID, shared: Shared) -> list[bytes]:
    asked = {"kind": shared.kind, "entity_id": shared.entity_id, "id": persona_id}
    return list(connection.execute(_OTHERS_CONTENTS, asked).scalars())


def _are_pruned(connection: Connection, keys: Sequence[EntityKey]) -> bool:
    p = pruned_history
    wanted = or_(*(and_(p.c.kind == kind, p.c.entity_id == id_) for kind, id_ in keys))
    return connection.execute(select(p.c.kind).where(wanted).limit(1)).first() is not None


def _counted(connection: Connection, found: Belongings) -> Counter[str]:
    counted = Counter[str]()
    for table, condition in (*_before_the_fold(connection, found), *_contents(found)):
        statement = select(func.count()).select_from(table).where(condition)
        counted[table.name] += connection.execute(statement).scalar_one()
    counted[drift_paths.name] += len(found.untold.paths)
    counted[value_issues.name] += len(found.untold.issues)
    return +counted


def _delete(connection: Connection, conditions: Iterator[Condition]) -> Counter[str]:
    gone = Counter[str]()
    for table, condition in conditions:
        gone[table.name] += connection.execute(delete(table).where(condition)).rowcount
    return +gone


def _before_the_fold(connection: Connection, found: Belongings) -> Iterator[Condition]:
    """The rows that go, those that refer to others first."""
    the_map = map_of(connection)
    persona_id = found.persona_id
    for table in reversed(the_map.projections("persona")):
        yield table, _is_owned(table, [persona_id], found.links)
    sole: dict[Kind, list[UUID]] = {"persona": [persona_id]}
    for kind in KINDS:
        if kind != "persona" and (ids := found.ids(kind, sole=True)):
            sole[kind] = ids
            for table in reversed(the_map.projections(kind)):
                yield table, _is_owned(table, ids, [])
    for table in (value_issues, unfolded, pruned_history, document_versions):
        yield table, or_(*(_is_of(table, kind, ids) for kind, ids in sole.items()))
    for table in (persona_sync_state, run_items, observations):
        yield table, table.c.persona_id == persona_id
    r = rejected_payloads.c
    # Another's, if it was answered with this one's body.
    named = f"%{persona_id}%"
    is_named = or_(cast(r.body, Text).ilike(named), r.reason.ilike(named))
    yield rejected_payloads, or_(r.persona_id == persona_id, is_named)


def _contents(found: Belongings) -> Iterator[Condition]:
    d = documents.c
    for kind in KINDS:
        of_kind = [
            c for key, contents in found.contents.items() if key[0] == kind for c in contents
        ]
        if of_kind:
            contents = literal(of_kind, ARRAY(LargeBinary))
            yield documents, and_(d.kind == kind, d.content_hash == any_(contents))


def _is_of(table: Table, kind: Kind, ids: list[UUID]) -> ColumnElement[bool]:
    return and_(table.c.kind == kind, table.c.entity_id == any_(literal(ids, ARRAY(UUID_))))


def _is_owned(table: Table, ids: list[UUID], links: list[UUID]) -> ColumnElement[bool]:
    """Whether a row stems from one of these documents; what belongs to a link, from its own."""
    column: Column[Any] | None = owner_of(table)
    if column is None:
        column, ids = table.c[share_links.c.share_link_id.name], links
    return column == any_(literal(ids, ARRAY(UUID_))) if ids else false()


def _clear_observed(connection: Connection, kind: Kind, ids: list[UUID]) -> None:
    table = map_of(connection).entity_table(kind)
    (key,) = table.primary_key.columns
    o = observations.c
    newest = (
        select(func.max(o.source_updated_at))
        .where(o.kind == kind, o.entity_id == key)
        .scalar_subquery()
    )
    values: dict[str, Any] = {
        c.name: newest if c.name == "updated_at" else literal_column("NULL")
        for c in table.columns
        if is_observed(c)
    }
    differs = or_(*(table.c[name].is_distinct_from(value) for name, value in values.items()))
    of_these = key == any_(literal(ids, ARRAY(UUID_)))
    statement = table.update().where(of_these, differs).values(values).returning(key)
    cleared = list(connection.execute(statement).scalars())
    if cleared:
        connection.execute(_DOUBT_USERS, {"kind": kind, "ids": cleared})


def _doubt(connection: Connection, persona_ids: Collection[UUID]) -> None:
    """Makes the next answers of these be read: a link has lost its counter."""
    s = persona_sync_state
    of_these = s.c.persona_id == any_(literal(list(persona_ids), ARRAY(UUID_)))
    connection.execute(s.update().where(of_these).values(body_sha256=None))
