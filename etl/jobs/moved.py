"""The observed columns, held against what the API shows of the same content now.

Counters and times move there by themselves, so a difference says nothing of right and wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.flatten import flatten
from etl.report.discrepancy import Discrepancy
from etl.store.mapped import map_of
from etl.store.rows import key_of, rows_with
from etl.tables import is_observed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Table

    from etl.flatten import Row
    from etl.payload.documents import Part
    from etl.store.rows import Key

    # The copies of a row that answers show.
    Copies = dict[Key, list[Row]]


def moved_values(connection: Connection, parts: Iterable[Part]) -> Iterator[Discrepancy]:
    """The values that no answer shows; `parts`: documents of which the content is in force."""
    the_map = map_of(connection)
    shown: dict[str, Copies] = {}
    for part in parts:
        flat = flatten(part.kind, part.entity_id, part.whole(), "observed", the_map=the_map)
        for name, rows in flat.rows.items():
            for row in rows:
                key = key_of(the_map.tables[name], row)
                shown.setdefault(name, {}).setdefault(key, []).append(row)
    for name, copies in shown.items():
        table = the_map.tables[name]
        first = [rows[0] for rows in copies.values()]
        for key, row in rows_with(connection, table, first).items():
            yield from _moved(table, row, copies[key])


def _moved(table: Table, row: Row, copies: list[Row]) -> Iterator[Discrepancy]:
    key = {c.name: row[c.name] for c in table.primary_key.columns}
    known = row.get("updated_at")
    # An older copy, as it comes with some personas, says nothing of the present.
    fresh = [c for c in copies if not known or not c["updated_at"] or c["updated_at"] >= known]
    for name in row:
        values = [copy[name] for copy in fresh]
        if is_observed(table.columns[name]) and values and row[name] not in values:
            yield Discrepancy(table.name, key, "differs", name, row[name], values[-1])
