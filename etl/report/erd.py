"""Tables and the foreign keys between them as a diagram, in Mermaid's language of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint

from etl.report.view_columns import short_type
from etl.tables import origins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Column, ForeignKeyConstraint, Table

# Its names can't be quoted, and types have no spaces.
_NO_NAME = re.compile(r"[^A-Za-z0-9_]")


def diagram(tables: Iterable[Table], *, keys_only: bool = False) -> str:
    """The tables, and the foreign keys among them.

    A line's ends say how many: `||` one, `|o` one or none, `o{` any number.
    """
    shown = {table.name: table for table in tables}
    # Much refers to personas: side by side that would be too wide to read.
    lines = ["erDiagram", "    direction LR"]
    for table in shown.values():
        lines += [f"    {_name(table.name)} {{", *_attributes(table, keys_only=keys_only), "    }"]
    lines += [
        f"    {line}"
        for table in shown.values()
        for key in foreign_keys(table)
        if key.referred_table.name in shown
        for line in [_relation(table, key)]
    ]
    return "\n".join(lines) + "\n"


def foreign_keys(table: Table) -> list[ForeignKeyConstraint]:
    """A table's foreign keys, in the order of its columns."""
    places = {column.name: place for place, column in enumerate(table.columns)}
    return sorted(
        table.foreign_key_constraints, key=lambda key: [places[name] for name in key.column_keys]
    )


def _attributes(table: Table, *, keys_only: bool) -> Iterator[str]:
    for column in table.columns:
        marks = _marks(column)
        if marks or not keys_only:
            type_ = short_type(column).replace(" ", "_")
            yield f"        {type_} {_name(column.name)} {', '.join(marks)}".rstrip()


def _marks(column: Column[Any]) -> list[str]:
    return ["PK"] * column.primary_key + ["FK"] * bool(column.foreign_keys)


def _relation(table: Table, key: ForeignKeyConstraint) -> str:
    """The table that is referred to stands on the left."""
    parent = "|o" if any(column.nullable for column in key.columns) else "||"
    child = "o{"
    if {column.name for column in key.columns} in _unique(table):
        found = origins().get(table.name)
        child = "||" if found and found.always else "o|"
    label = ", ".join(key.column_keys)
    return f'{_name(key.referred_table.name)} {parent}--{child} {_name(table.name)} : "{label}"'


def _unique(table: Table) -> list[set[str]]:
    """The sets of columns of which no two rows have the same values."""
    return [
        {column.name for column in constraint.columns}
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint | PrimaryKeyConstraint)
    ]


def _name(name: str) -> str:
    return _NO_NAME.sub("_", name)
