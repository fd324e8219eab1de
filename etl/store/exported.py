"""What an export reads, in its order: what each persona brought when, and what tables know besides.

Everything comes as a stream, or for a few hundred entities at once; of documents, which may be
large, only some are held.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import any_, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.errors import DiscrepancyError
from etl.store.chains import BYTES_AT_ONCE, documents_in_order, sizes_of
from etl.tables import (
    UUID_,
    is_observed,
    observations,
    owner_of,
    persona_sync_state,
    projections,
    pruned_history,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.payload.decode import JsonObject
    from etl.store.observations import ContentKey, EntityKey
    from etl.store.recordset import Row
    from etl.tables import Kind

# Rows a round trip.
_ROWS_AT_ONCE = 2000

_SEEN = """
    SELECT persona_id, observed_at, kind, entity_id, content_hash, source_updated_at,
           coalesce(observed_at < valid_to, false)
      FROM observations
      LEFT JOIN pruned_history USING (kind, entity_id)
     WHERE {of_these}
     UNION ALL
    SELECT persona_id, last_success_at, NULL, NULL, NULL, NULL, false
      FROM persona_sync_state
     WHERE last_success_at IS NOT NULL AND {of_these}
     ORDER BY persona_id, observed_at, kind NULLS LAST, entity_id
"""
_OF_ALL = "true"
_OF_SOME = "persona_id = ANY(:personas)"

# Of a removed persona the tables keep the last document, with what was observed of it.
_SHOWN = text("""
    SELECT k.entity_id, v.content_hash, v.valid_from
      FROM unnest(:ids) AS k(entity_id)
     CROSS JOIN LATERAL (
           SELECT content_hash, valid_from FROM document_versions AS v
            WHERE v.kind = :kind AND v.entity_id = k.entity_id AND v.content_hash IS NOT NULL
            ORDER BY v.version DESC
            LIMIT 1) AS v
""").bindparams(bindparam("ids", type_=ARRAY(UUID_)))


class Seen(NamedTuple):
    """An observation; without a kind that a persona was last seen to be as it was."""

    persona_id: UUID
    observed_at: datetime
    kind: Kind | None
    entity_id: UUID | None
    content_hash: bytes | None
    source_updated_at: datetime | None
    is_outdated: bool
    """Older than all that is kept of its entity."""


class Shown(NamedTuple):
    """What the tables show of an entity."""

    content_hash: bytes
    valid_from: datetime
    rows: Mapping[str, Sequence[Row]]
    """By table: keys and observed columns."""


def unknown_personas(connection: Connection, personas: Sequence[UUID]) -> list[UUID]:
    """Those of these personas that were never asked for, and never observed."""
    known: set[UUID] = set()
    for column in (observations.c.persona_id, persona_sync_state.c.persona_id):
        among = column == any_(bindparam("personas", list(personas), type_=ARRAY(UUID_)))
        known |= set(connection.execute(select(column).where(among).distinct()).scalars())
    return [persona_id for persona_id in personas if persona_id not in known]


def count_personas(connection: Connection) -> int:
    """About how many personas were observed: those that have a version in force."""
    statement = "SELECT count(*) FROM document_versions WHERE kind = 'persona' AND valid_to IS NULL"
    return int(connection.execute(text(statement)).scalar_one())


def seen_in_order(connection: Connection, personas: Sequence[UUID]) -> Iterator[Seen]:
    """What these personas brought, by persona, then time; no personas: all.

    A confirmation comes behind the observations of its moment.
    """
    statement = text(_SEEN.format(of_these=_OF_SOME if personas else _OF_ALL))
    if personas:
        statement = statement.bindparams(
            bindparam("personas", list(personas), type_=ARRAY(UUID_)),
        )
    found = connection.execute(statement, execution_options={"yield_per": _ROWS_AT_ONCE})
    with found:
        for row in found:
            yield Seen(*row)


def pruned_in_order(connection: Connection, personas: Sequence[UUID]) -> Iterator[Row]:
    """Whose beginning is not kept, by their key; of personas: what those have brought."""
    p, o = pruned_history.c, observations.c
    columns = [column for column in pruned_history.columns if column is not p.run_id]
    statement = select(*columns).order_by(p.kind, p.entity_id)
    if personas:
        among = o.persona_id == any_(bindparam("personas", list(personas), type_=ARRAY(UUID_)))
        brought = select(o.persona_id).where(among, o.kind == p.kind, o.entity_id == p.entity_id)
        statement = statement.where(brought.exists())
    found = connection.execute(statement.execution_options(yield_per=_ROWS_AT_ONCE))
    with found:
        for row in found.mappings():
            yield dict(row)


def shown_now(connection: Connection, keys: Iterable[EntityKey]) -> dict[EntityKey, Shown]:
    """What the tables show of these entities; those that were never in force are absent."""
    by_kind: dict[Kind, list[UUID]] = {}
    for kind, entity_id in keys:
        by_kind.setdefault(kind, []).append(entity_id)
    shown: dict[EntityKey, Shown] = {}
    for kind, ids in by_kind.items():
        rows = _observed_rows(connection, kind, ids)
        for entity_id, content, valid_from in connection.execute(
            _SHOWN, {"kind": kind, "ids": ids}
        ):
            shown[kind, entity_id] = Shown(content, valid_from, rows.get(entity_id, {}))
    return shown


def _observed_rows(
    connection: Connection, kind: Kind, ids: Sequence[UUID]
) -> dict[UUID, dict[str, list[Row]]]:
    """The observed columns of these entities' rows, and the keys of those."""
    rows: dict[UUID, dict[str, list[Row]]] = {}
    for table in projections(kind):
        observed = [column for column in table.columns if is_observed(column)]
        owner = owner_of(table)
        if not observed or owner is None:
            continue
        columns = dict.fromkeys((owner, *table.primary_key.columns, *observed))
        among = owner == any_(bindparam("ids", list(ids), type_=ARRAY(UUID_)))
        for row in connection.execute(select(*columns).where(among)).mappings():
            rows.setdefault(row[owner], {}).setdefault(table.name, []).append(dict(row))
    return rows


class DocumentShelf:
    """Documents by their hash, of which those that were asked for last are held."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: OrderedDict[ContentKey, tuple[int, JsonObject]] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: ContentKey) -> bool:
        return key in self._held

    def get(self, key: ContentKey) -> JsonObject:
        """A document. One that is not held is fetched, in a round trip of its own."""
        if key not in self._held:
            self.fetch([key])
        if key not in self._held:
            kind, content = key
            raise DiscrepancyError(
                f"documents: {kind} {content.hex()} is gone; restore documents from a backup"
            )
        self._held.move_to_end(key)
        return self._held[key][1]

    def fetch(self, keys: Iterable[ContentKey]) -> None:
        """Fetches these, as far as they may be held at once; the first of them in any case."""
        missing: dict[Kind, list[bytes]] = {}
        for key in dict.fromkeys(keys):
            if key in self._held:
                self._held.move_to_end(key)
            else:
                missing.setdefault(key[0], []).append(key[1])
        room = BYTES_AT_ONCE
        for kind, contents in missing.items():
            sizes = sizes_of(self._connection, kind, contents)
            chosen: list[bytes] = []
            for content in contents:
                size = sizes.get(content, 0)
                if size > room and (chosen or room < BYTES_AT_ONCE):
                    room = 0
                    break
                chosen.append(content)
                room -= size
            read = documents_in_order(self._connection, kind, chosen)
            for content, stored in zip(chosen, read, strict=True):
                if stored is not None:
                    self._hold((kind, content), sizes[content], stored.document)

    def _hold(self, key: ContentKey, size: int, document: JsonObject) -> None:
        self._held[key] = (size, document)
        self._bytes += size
        # Twice: what is fetched for a portion does not drive out the portion before.
        while self._bytes > 2 * BYTES_AT_ONCE and len(self._held) > 1:
            _, (gone, _) = self._held.popitem(last=False)
            self._bytes -= gone
