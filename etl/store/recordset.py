"""Sets of rows in and out of Postgres, one JSON parameter a statement.

The server takes the JSON apart, so nothing is formatted cell by cell in Python, and no temporary
table is needed: a role with DML alone is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import JSON, Text, bindparam, cast, column, func, or_, select, true
from sqlalchemy.dialects.postgresql import insert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Column, Connection, FromClause, Table
    from sqlalchemy.sql import ColumnElement

Row = dict[str, Any]

_encoder = msgspec.json.Encoder(decimal_format="number")


def encode_rows(rows: Iterable[Row]) -> str:
    """Rows as the JSON array that `recordset` reads: bytes as Postgres's hex form."""
    return _encoder.encode(
        [
            {
                name: "\\x" + value.hex() if isinstance(value, bytes) else value
                for name, value in row.items()
            }
            for row in rows
        ]
    ).decode()


def recordset(columns: Sequence[Column[Any]]) -> FromClause:
    """`incoming`: the rows of the statement's parameter `rows`, typed as these columns."""
    parameter = cast(bindparam("rows", type_=Text), JSON)
    typed = [column(c.name, c.type) for c in columns]
    return (
        func.json_to_recordset(parameter)
        .table_valued(*typed)
        .render_derived(name="incoming", with_types=True)
    )


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> int:
    """Inserts the rows whose key is not there yet, in key order. Returns how many."""
    if not rows:
        return 0
    columns = [table.columns[name] for name in rows[0]]
    statement = (
        insert(table)
        .from_select(columns, _in_key_order(table, columns))
        .on_conflict_do_nothing()
        .returning(*table.primary_key.columns)
    )
    return len(connection.execute(statement, {"rows": encode_rows(rows)}).all())


def insert_all(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Inserts the rows, in key order; a key that is there already is an error."""
    if rows:
        columns = [table.columns[name] for name in rows[0]]
        statement = insert(table).from_select(columns, _in_key_order(table, columns))
        connection.execute(statement, {"rows": encode_rows(rows)})


def upsert(
    connection: Connection, table: Table, rows: Sequence[Row], *, keep: Sequence[str] = ()
) -> None:
    """Inserts the rows, or updates those whose key is there and which differ, in key order.

    Columns in `keep` are set on insert only.
    """
    if not rows:
        return
    columns = [table.columns[name] for name in rows[0]]
    statement = insert(table).from_select(columns, _in_key_order(table, columns))
    key = [c.name for c in table.primary_key.columns]
    updated = [c for c in columns if c.name not in key and c.name not in keep]
    if updated:
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=key,
            set_={c.name: new[c.name] for c in updated},
            where=or_(*(c.is_distinct_from(new[c.name]) for c in updated)),
        )
    else:
        statement = statement.on_conflict_do_nothing()
    connection.execute(statement, {"rows": encode_rows(rows)})


def update(
    connection: Connection,
    table: Table,
    rows: Sequence[Row],
    *,
    on: Sequence[str],
    guard: Callable[[FromClause], ColumnElement[bool]] | None = None,
) -> int:
    """Updates the rows that are there and differ; `on` names the columns that they match by.

    `guard` says, of the incoming rows, which may update at all. Returns how many were written.
    """
    if not rows:
        return 0
    incoming = recordset([table.columns[name] for name in rows[0]])
    changed = [name for name in rows[0] if name not in on]
    statement = (
        table.update()
        .where(*(table.columns[name] == incoming.columns[name] for name in on))
        .where(or_(*(table.columns[n].is_distinct_from(incoming.columns[n]) for n in changed)))
        .where(guard(incoming) if guard else true())
        .values({name: incoming.columns[name] for name in changed})
        .returning(*table.primary_key.columns)
    )
    return len(connection.execute(statement, {"rows": encode_rows(rows)}).all())


def _in_key_order(table: Table, columns: Sequence[Column[Any]]) -> Any:  # noqa: ANN401
    incoming = recordset(columns)
    names = {c.name for c in columns}
    key = [incoming.columns[c.name] for c in table.primary_key.columns if c.name in names]
    return select(*incoming.columns).order_by(*key)
