"""Rows as they follow from the versions in force, held against those of the normalized tables.

The second half of a replay. Columns that the latest observation sets are no part of it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from etl.flatten import flatten
from etl.jobs.chains import sound
from etl.jobs.links import add_links, settle_links
from etl.store.ahead import Ahead
from etl.store.chains import BYTES_AT_ONCE, Picked, Span, documents_in_order, sizes_of
from etl.store.issues import Found, issues_of, record_issues
from etl.store.links import tables_of_links
from etl.store.mapped import map_of
from etl.store.recordset import upsert
from etl.store.rows import delete_rows, key_of, rows_of, standings, standings_of
from etl.tables import document_versions, owner_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Table

    from etl.flatten import Row, ValueIssue
    from etl.jobs.findings import Findings
    from etl.store.rows import Key, Standing
    from etl.tables import Kind

    Rows = dict[Key, Row]

_ENTITIES_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Entities:
    """Entities whose documents may be held at once, and where they stand by their versions."""

    kind: Kind
    span: Span | Picked
    standings: Mapping[UUID, Standing]
    foretold: Collection[UUID]
    """Those that the versions, as they are written, have elsewhere."""
    are_versions_right: bool
    """Of all of the kind: no entity at all is foretold."""
    contested: Mapping[UUID, UUID | None] | None
    """The owners of all share links that more than one persona shows; None: they don't tell.

    None instead of all: they are looked up, where anything speaks for another owner.
    """


@dataclass(slots=True)
class Follow:
    """What follows from the documents of a batch."""

    rows: dict[Table, Rows]
    """But for those of share links."""
    links: dict[UUID, dict[UUID, dict[Table, list[Row]]]] = field(default_factory=dict)
    """By share link and persona that shows it: its row, and those of what belongs to it."""
    issues: dict[UUID, list[ValueIssue]] = field(default_factory=dict)
    untold: set[UUID] = field(default_factory=set)
    """Entities of whose document nobody can tell any more what it was."""


def next_batch(
    connection: Connection,
    kind: Kind,
    after: UUID | None,
    *,
    mended: Mapping[UUID, Standing | None],
    contested: Mapping[UUID, UUID | None],
) -> tuple[Entities, UUID | None]:
    """The next entities, and the last of them; None: there is nobody behind it.

    Where they should stand instead, `mended` says, in the order of ids.
    """
    stored = {s.entity_id: s for s in standings(connection, kind, after, _ENTITIES_AT_ONCE)}
    ahead = list(mended)
    start = 0 if after is None else bisect_right(ahead, after)
    ahead = ahead[start : start + _ENTITIES_AT_ONCE]
    ids = sorted({*stored, *ahead})[:_ENTITIES_AT_ONCE]
    found = {id_: mended.get(id_, stored.get(id_)) for id_ in ids}
    contents = [s.content_hash for s in found.values() if s and s.content_hash]
    fitting = _fitting(found, sizes_of(connection, kind, contents))
    # Fewer than might have been: behind them there is nobody.
    is_last = len(fitting) < _ENTITIES_AT_ONCE and len(fitting) == len(ids)
    until = None if is_last else fitting[-1]
    batch = Entities(
        kind,
        Span(after, until),
        {id_: standing for id_ in fitting if (standing := found[id_])},
        {id_ for id_ in fitting if id_ in mended and mended[id_] != stored.get(id_)},
        not mended,
        contested,
    )
    return batch, until


def picked_batches(
    connection: Connection,
    kind: Kind,
    ids: Sequence[UUID],
    *,
    mended: Mapping[UUID, Standing | None],
) -> Iterator[Entities]:
    """These entities, whether there are such or not; `mended` as above."""
    stored = {s.entity_id: s for s in standings_of(connection, kind, ids)}
    found = {id_: mended.get(id_, stored.get(id_)) for id_ in ids}
    contents = [s.content_hash for s in found.values() if s and s.content_hash]
    sizes = sizes_of(connection, kind, contents)
    while found:
        fitting = _fitting(found, sizes)
        yield Entities(
            kind,
            Picked(fitting),
            {id_: standing for id_ in fitting if (standing := found.pop(id_))},
            {id_ for id_ in fitting if id_ in mended and mended[id_] != stored.get(id_)},
            not mended,
            None,
        )


def _fitting(found: Mapping[UUID, Standing | None], sizes: Mapping[bytes, int]) -> list[UUID]:
    """As many of them as may be held at once, one at least."""
    fitting: list[UUID] = []
    size = 0
    for id_, standing in found.items():
        size += sizes.get(standing.content_hash or b"", 0) if standing else 0
        if fitting and size > BYTES_AT_ONCE:
            break
        fitting.append(id_)
    return fitting


def replay_rows(
    connection: Connection,
    batch: Entities,
    tables: Collection[str],
    found: Findings,
    *,
    run_id: UUID | None,
) -> None:
    """Compares the rows of a batch in these tables; in a run, makes them what they should be.

    Rows of entities that should not be there are only noted: others may still refer to them.
    """
    the_map = map_of(connection)
    follow = _follow(connection, batch, found, tell=document_versions.name not in tables)
    wanted = [table for table in the_map.projections(batch.kind) if table.name in tables]
    of_links = tables_of_links(the_map)
    there = {t: rows_of(connection, t, batch.span) for t in wanted if t not in of_links}
    if not set(wanted).isdisjoint(of_links):
        settle_links(connection, batch, follow, there)
    changed: dict[Table, list[Row]] = {table: [] for table in wanted}
    surplus: dict[Table, list[Key]] = {table: [] for table in wanted}
    for table in wanted:
        rows = {k: r for k, r in there[table].items() if _entity(table, r) not in follow.untold}
        found.checked["rows"] += len(rows)
        for key in sorted(rows.keys() | follow.rows[table].keys()):
            should_be = follow.rows[table].get(key)
            if not found.compare(table, rows.get(key), should_be):
                continue
            if should_be is None:
                surplus[table].append(key)
            else:
                changed[table].append(should_be)
    entities = the_map.entity_table(batch.kind)
    found.surplus[entities.name] = surplus.pop(entities, [])
    if run_id is not None:
        _write(connection, wanted, changed, surplus)
        _record_issues(connection, batch, follow, changed, run_id)


def _write(
    connection: Connection,
    tables: Sequence[Table],
    changed: Mapping[Table, Sequence[Row]],
    surplus: Mapping[Table, Sequence[Key]],
) -> None:
    """`tables`: referenced ones before those that refer to them."""
    for table in reversed(tables):
        delete_rows(connection, table, surplus.get(table, []))
    for table in tables:
        upsert(connection, table, changed.get(table, []))


def _follow(connection: Connection, batch: Entities, found: Findings, *, tell: bool) -> Follow:
    """The rows that follow from the documents in force; with `tell`, enters what is wrong there."""
    kind = batch.kind
    the_map = map_of(connection)
    tables = the_map.projections(kind)
    of_links = tables_of_links(the_map)
    follow = Follow({table: {} for table in tables})
    contents = {id_: s.content_hash for id_, s in batch.standings.items() if s.content_hash}
    follow.untold.update(batch.standings.keys() - contents.keys())
    read = documents_in_order(connection, kind, list(contents.values()))
    for (entity_id, content), stored in zip(contents.items(), read, strict=True):
        document = sound(kind, entity_id, content, stored, found if tell else None)
        if document is None:
            follow.untold.add(entity_id)
            continue
        flat = flatten(kind, entity_id, document, "stored", the_map=the_map)
        if flat.issues:
            follow.issues[entity_id] = flat.issues
        flat.rows[the_map.entity_table(kind).name][0].update(
            _history(kind, batch.standings[entity_id])
        )
        for table in tables:
            if table not in of_links:
                rows = {key_of(table, row): row for row in flat.rows[table.name]}
                follow.rows[table].update(rows)
        if kind == "persona":
            add_links(of_links, follow, entity_id, flat.rows)
    return follow


def _history(kind: Kind, standing: Standing) -> Row:
    """What an entity's row takes from its versions rather than from the document."""
    row: Row = {
        "first_seen_at": standing.first_seen_at,
        "last_changed_at": standing.last_changed_at,
    }
    if kind == "persona":
        row["removed_at"] = standing.last_changed_at if standing.is_removed else None
    return row


def _entity(table: Table, row: Row) -> UUID | None:
    """The entity that a row stems from; None of an origin, which has a link for that."""
    found = owner_of(table)
    return None if found is None else row[found.name]


def _record_issues(
    connection: Connection,
    batch: Entities,
    follow: Follow,
    changed: Mapping[Table, Sequence[Row]],
    run_id: UUID,
) -> None:
    """Opens the issues of documents of which rows were written. What is open already stays."""
    written = {_entity(table, row) for table, rows in changed.items() for row in rows}
    found = [
        Found(batch.kind, id_, batch.standings[id_].last_changed_at, issues, whole=False)
        for id_, issues in follow.issues.items()
        if id_ in written
    ]
    # What is gone can't be told: mended bytes and observed fields are in no stored document.
    issues = issues_of(connection, found, run_id, Ahead())
    record_issues(connection, replace(issues, gone=[]))
