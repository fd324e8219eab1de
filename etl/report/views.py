"""What a reporting view is, and the words that it takes over from the map.

Views read tables and call functions, never another view of ours, so that any of them can be made
anew without the others. Which there are is `catalogue.py`; making them is `views_sql.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl.report.ours import name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Column, Table


@dataclass(frozen=True, slots=True)
class View:
    """A view of the reporting schema."""

    name: str
    comment: str
    columns: dict[str, str]
    """The names and the comments, in the order that a new view has them in."""
    query: str
    """Gives exactly these columns, in any order. Tables stand without their schema."""
    mapped: Mapping[str, Column[Any]] = field(default_factory=dict)
    """Those of them that come from the API, each with the map's column for it."""


def comments(*columns: Column[Any], **renamed: Column[Any]) -> dict[str, str]:
    """The comments that columns have in the map, by name, or by the name that a view gives them."""
    named = {column.name: column for column in columns} | renamed
    return {called: column.comment or "" for called, column in named.items()}


def listed(alias: str, table: Table) -> str:
    """All columns of a table, for a SELECT."""
    return ",\n       ".join(f"{alias}.{name(c.name)}" for c in table.columns)
