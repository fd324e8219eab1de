"""What was observed and which versions are written, in the order of their entities. And mends.

However many there are of one entity, they are read as a stream; of documents, which may be large,
only a few are held at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, any_, func, literal, literal_column, select, text, true
from sqlalchemy.dialects.postgresql import ARRAY

from etl.errors import DiscrepancyError
from etl.fold import Observation
from etl.store.recordset import encode_rows, insert_all, recordset
from etl.tables import UUID_, document_versions, documents, observations

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Column, Connection
    from sqlalchemy.sql import ColumnElement

    from etl.payload.decode import JsonObject
    from etl.store.recordset import Row
    from etl.tables import Kind

# Rows a round trip.
_ROWS_AT_ONCE = 2000
# Of documents that are held at once, by Postgres's own measure. In Python one that is mostly
# brackets takes some ten times that.
BYTES_AT_ONCE = 4 * 2**20

COLUMNS = tuple(c.name for c in document_versions.columns)

# One look into the index an entity, however many observations it has.
_OBSERVED = """
    WITH RECURSIVE found AS (
        (SELECT entity_id FROM observations
          WHERE kind = :kind {after}
          ORDER BY entity_id LIMIT 1)
        UNION ALL
        SELECT (SELECT o.entity_id FROM observations AS o
                 WHERE o.kind = :kind AND o.entity_id > found.entity_id
                 ORDER BY o.entity_id LIMIT 1)
          FROM found WHERE found.entity_id IS NOT NULL)
    SELECT entity_id FROM found WHERE entity_id IS NOT NULL LIMIT :limit
"""
# Two statements: of one for both, a plan that is kept would begin at the first entity each time.
_FIRST_OBSERVED = text(_OBSERVED.format(after=""))
_NEXT_OBSERVED = text(_OBSERVED.format(after="AND entity_id > :after"))

# Whatever has a time in common with a version that is right, and is not that version, is wrong.
_MAKE_ROOM = text("""
    WITH k AS MATERIALIZED (
           SELECT * FROM json_to_recordset(CAST(:rows AS json))
                      AS k(kind text, entity_id uuid, version integer,
                           valid_from timestamptz, valid_to timestamptz))
    DELETE FROM document_versions
     WHERE (kind, entity_id, version) IN (
           SELECT kind, entity_id, version FROM k
           UNION
           SELECT kind, entity_id, v.version
             FROM k JOIN document_versions AS v USING (kind, entity_id, valid_from)
           UNION
           SELECT kind, entity_id, v.version
             FROM k JOIN document_versions AS v USING (kind, entity_id, valid_to)
           UNION
           SELECT kind, entity_id, v.version
             FROM k JOIN document_versions AS v USING (kind, entity_id)
            WHERE k.valid_to IS NULL AND v.valid_to IS NULL)
""")

_TAKE_AWAY = text("""
    DELETE FROM document_versions AS v
     USING json_to_recordset(CAST(:rows AS json)) AS k(kind text, entity_id uuid, version integer)
     WHERE v.kind = k.kind AND v.entity_id = k.entity_id AND v.version = k.version
""")


class Span(NamedTuple):
    """Entities in the order of their ids: those after one, up to another; None: no limit."""

    after: UUID | None
    until: UUID | None

    def holds(self, column: Column[Any]) -> ColumnElement[bool]:
        """Whether a column's id lies in it."""
        return and_(
            true() if self.after is None else column > self.after,
            true() if self.until is None else column <= self.until,
        )


class Picked(NamedTuple):
    """Entities that were asked for, by their ids."""

    ids: Sequence[UUID]

    def holds(self, column: Column[Any]) -> ColumnElement[bool]:
        """Whether a column's id is one of them."""
        return column == any_(literal(list(self.ids), ARRAY(UUID_)))


class Stored(NamedTuple):
    """A document, and whose it is said to be."""

    entity_id: UUID
    document: JsonObject


_UNOBSERVED = text("""
    SELECT count(*) AS known,
           count(*) FILTER (WHERE NOT EXISTS (
               SELECT FROM observations AS o
                WHERE o.kind = 'persona' AND o.entity_id = k.persona_id)) AS lost
      FROM (SELECT persona_id FROM personas
             UNION
            SELECT entity_id FROM document_versions WHERE kind = 'persona' AND valid_to IS NULL)
           AS k(persona_id)
""")


def unobserved_personas(connection: Connection) -> tuple[int, int]:
    """How many personas there are, and how many of them nobody has ever observed, it seems."""
    known, lost = connection.execute(_UNOBSERVED).one()
    return known, lost


def next_span(connection: Connection, kind: Kind, after: UUID | None, size: int) -> Span:
    """The next entities that were observed. Behind the last of them the span is open."""
    statement = _FIRST_OBSERVED if after is None else _NEXT_OBSERVED
    found = connection.execute(statement, {"kind": kind, "after": after, "limit": size})
    ids = found.scalars().all()
    return Span(after, ids[-1] if len(ids) == size else None)


def observed(
    connection: Connection, kind: Kind, span: Span | Picked
) -> Generator[tuple[UUID, Observation]]:
    """The observations by entity, each one's in the order of time.

    Raises DiscrepancyError for one that is dated as no answer can be.
    """
    o = observations.c
    statement = (
        select(
            o.entity_id,
            o.observed_at,
            o.persona_id,
            o.content_hash,
            o.source_updated_at,
            o.run_id,
        )
        .where(o.kind == kind, span.holds(o.entity_id))
        .order_by(o.entity_id, o.observed_at, o.persona_id)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    with connection.execute(statement) as found:
        for entity_id, *rest in found:
            seen = Observation(*rest)
            # What Python can't hold is read as text.
            for at in (seen.observed_at, seen.source_updated_at):
                if isinstance(at, str):
                    raise DiscrepancyError(
                        f"an observation of {kind} {entity_id} is dated {at}: nothing follows from"
                        " that; correct or delete it, then run again"
                    )
            yield entity_id, seen


def written(connection: Connection, kind: Kind, span: Span | Picked) -> Generator[tuple[Any, ...]]:
    """The versions by entity, the oldest first: their `COLUMNS`."""
    v = document_versions.c
    statement = (
        select(*document_versions.columns)
        .where(v.kind == kind, span.holds(v.entity_id))
        .order_by(v.entity_id, v.version)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    with connection.execute(statement) as found:
        yield from found


def documents_in_order(
    connection: Connection, kind: Kind, contents: Sequence[bytes]
) -> Iterator[Stored | None]:
    """The documents with these hashes, one after the other; None: there is none."""
    sizes = sizes_of(connection, kind, contents)
    for part in _parts(contents, sizes):
        found = _documents(connection, kind, part)
        for content in part:
            yield found.get(content)


def sizes_of(connection: Connection, kind: Kind, contents: Sequence[bytes]) -> dict[bytes, int]:
    """How long these documents are, in bytes of jsonb."""
    if not contents:
        return {}
    # What is at the path of no steps is the document, as it is once it is out of its compression.
    unpacked = documents.c.document.op("#>")(literal_column("'{}'"))
    statement, rows = _among(kind, contents, func.pg_column_size(unpacked).label("size"))
    found = connection.execute(statement, {"rows": rows})
    return {row.content_hash: row.size for row in found}


def mend(connection: Connection, rows: Sequence[Row], gone: Sequence[Row]) -> None:
    """Writes versions as they should be; takes away those that should not be, of which keys do."""
    if gone:
        connection.execute(_TAKE_AWAY, {"rows": encode_rows(gone)})
    if rows:
        # Replaced rather than updated: the unique keys hold at each row, not only at the end.
        connection.execute(_MAKE_ROOM, {"rows": encode_rows(_only_times(row) for row in rows)})
        insert_all(connection, document_versions, rows)


def _only_times(row: Row) -> Row:
    return {n: row[n] for n in ("kind", "entity_id", "version", "valid_from", "valid_to")}


def _documents(
    connection: Connection, kind: Kind, contents: Sequence[bytes]
) -> Mapping[bytes, Stored]:
    statement, rows = _among(kind, contents, documents.c.entity_id, documents.c.document)
    found = connection.execute(statement, {"rows": rows})
    return {content: Stored(*stored) for content, *stored in found}


def _among(kind: Kind, contents: Sequence[bytes], *columns: ColumnElement[Any]) -> Any:  # noqa: ANN401  a Select of any row
    """What reads columns of these documents behind their hashes, and its parameter `rows`."""
    incoming = recordset([documents.c.kind, documents.c.content_hash])
    statement = select(documents.c.content_hash, *columns).join(
        incoming,
        (incoming.c.kind == documents.c.kind)
        & (incoming.c.content_hash == documents.c.content_hash),
    )
    unique = dict.fromkeys(contents)
    return statement, encode_rows({"kind": kind, "content_hash": c} for c in unique)


def _parts(contents: Sequence[bytes], sizes: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    """The contents in their order, in parts that may be held at once."""
    part: list[bytes] = []
    size = 0
    for content in contents:
        more = sizes.get(content, 0)
        if part and size + more > BYTES_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(content)
        size += more
    if part:
        yield part
