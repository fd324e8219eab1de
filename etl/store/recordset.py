"""Sets of rows in and out of Postgres, one JSON parameter a statement.

The server takes the JSON apart, so nothing is formatted cell by cell in Python, and no temporary
table is needed: a role with DML alone is enough.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import (
    JSON,
    LargeBinary,
    Text,
    bindparam,
    cast,
    column,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from _typeshed import DataclassInstance
    from sqlalchemy import Column, Connection, FromClause, Select, Table, Update
    from sqlalchemy.dialects.postgresql import Insert
    from sqlalchemy.sql import ColumnElement

    Guard = Callable[[Table, FromClause], ColumnElement[bool]]

Row = dict[str, Any]

_encoder = msgspec.json.Encoder(decimal_format="number")


def as_row(record: DataclassInstance) -> Row:
    """A record's fields by name. `asdict` would copy each value, deeply."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


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


def encode_row(row: Row) -> bytes:
    """One row as a JSON object, to be put into others as it is. It holds no bytes."""
    return _encoder.encode(row)


def _parameters(table: Table, rows: Sequence[Row]) -> dict[str, str]:
    """The same, but only tables that have binary columns pay for looking at each cell."""
    if any(isinstance(table.columns[name].type, LargeBinary) for name in rows[0]):
        return {"rows": encode_rows(rows)}
    return {"rows": _encoder.encode(rows).decode()}


def recordset(columns: Sequence[Column[Any]]) -> FromClause:
    """`incoming`: the rows of the statement's parameter `rows`, typed as these columns."""
    parameter = cast(bindparam("rows", type_=Text), JSON)
    typed = [column(c.name, c.type) for c in columns]
    return (
        func.json_to_recordset(parameter)
        .table_valued(*typed)
        .render_derived(name="incoming", with_types=True)
    )


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Inserts the rows whose key is not there yet, in key order."""
    if rows:
        connection.execute(_insert(table, tuple(rows[0]), strict=False), _parameters(table, rows))


def insert_all(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Inserts the rows, in key order; a key that is there already is an error."""
    if rows:
        connection.execute(_insert(table, tuple(rows[0]), strict=True), _parameters(table, rows))


def upsert(
    connection: Connection, table: Table, rows: Sequence[Row], *, keep: tuple[str, ...] = ()
) -> None:
    """Inserts the rows, or updates those whose key is there and which differ, in key order.

    Columns in `keep` are set on insert only.
    """
    if rows:
        connection.execute(_upsert(table, tuple(rows[0]), keep), _parameters(table, rows))


def update(
    connection: Connection,
    table: Table,
    rows: Sequence[Row],
    *,
    on: tuple[str, ...],
    guard: Guard | None = None,
) -> None:
    """Updates the rows that are there and differ; `on` names the columns that they match by.

    `guard` says, of the table's and the incoming rows, which may update at all.
    """
    if rows:
        connection.execute(_update(table, tuple(rows[0]), on, guard), _parameters(table, rows))


# A statement costs more to put together than to run on a small batch: each is made once.


@cache
def _insert(table: Table, names: tuple[str, ...], *, strict: bool) -> Insert:
    columns = [table.columns[name] for name in names]
    statement = insert(table).from_select(columns, _in_key_order(table, columns))
    return statement if strict else statement.on_conflict_do_nothing()


@cache
def _upsert(table: Table, names: tuple[str, ...], keep: tuple[str, ...]) -> Insert:
    statement = _insert(table, names, strict=True)
    key = [c.name for c in table.primary_key.columns]
    updated = [table.columns[n] for n in names if n not in key and n not in keep]
    if not updated:
        return statement.on_conflict_do_nothing()
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=key,
        set_={c.name: new[c.name] for c in updated},
        where=or_(*(c.is_distinct_from(new[c.name]) for c in updated)),
    )


@cache
def _update(
    table: Table, names: tuple[str, ...], on: tuple[str, ...], guard: Guard | None
) -> Update:
    incoming = recordset([table.columns[name] for name in names])
    changed = [name for name in names if name not in on]
    return (
        table.update()
        .where(*(table.columns[name] == incoming.columns[name] for name in on))
        .where(or_(*(table.columns[n].is_distinct_from(incoming.columns[n]) for n in changed)))
        .where(guard(table, incoming) if guard else true())
        .values({name: incoming.columns[name] for name in changed})
    )


def _in_key_order(table: Table, columns: Sequence[Column[Any]]) -> Select[Any]:
    incoming = recordset(columns)
    names = {c.name for c in columns}
    key = [incoming.columns[c.name] for c in table.primary_key.columns if c.name in names]
    return select(*incoming.columns).order_by(*key)
