"""The map, made ready for flattening: which cell of which table is filled from where, and how."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from etl.payload.values import converter
from etl.tables import OWNER, SHARED, source

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column, Table

    from etl.map import Map
    from etl.payload.decode import Json
    from etl.tables import Kind, Origin

Columns = Literal["all", "stored", "observed"]
"""`stored` leaves the observed columns out, `observed` keeps the keys and those."""
Known = dict[str, "Known"]


@dataclass(frozen=True, slots=True)
class Cell:
    """How one column is filled."""

    name: str
    path: str
    keys: tuple[str, ...]
    convert: Callable[[Json], Any]
    token: bool
    required: bool
    """The object that it stands in must have it: the id of an embedded object."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one table is filled."""

    table: str
    origin: Origin
    cells: tuple[Cell, ...]
    known: Known


@cache
def plans(the_map: Map, kind: Kind, columns: Columns) -> list[Plan]:
    """How the tables of a kind are filled, referenced ones before those that refer to them."""
    tables = list(the_map.projections(kind))
    if columns == "observed":
        tables = [t for t in tables if any((s := source(c)) and s.observed for c in t.columns)]
    return [_plan(the_map, table, columns) for table in tables]


def mapped_columns(table: Table, columns: Columns = "all") -> list[str]:
    """The columns that flattening fills."""
    return [c.name for c in table.columns if _is_wanted(c, columns)]


def _is_wanted(column: Column[Any], columns: Columns) -> bool:
    found = source(column)
    if found is None:
        return False
    if columns == "observed":
        return found.observed or column.primary_key or found.path == OWNER
    return columns == "all" or not found.observed


def _plan(the_map: Map, table: Table, columns: Columns) -> Plan:
    cells = []
    for column in table.columns:
        found = source(column)
        if found is None or not _is_wanted(column, columns):
            continue
        indexed = bool(column.primary_key or column.index)
        cells.append(
            Cell(
                name=column.name,
                path=found.path,
                keys=tuple(found.path.split(".")),
                convert=converter(column.type, indexed=indexed),
                token=found.token,
                required=bool(column.foreign_keys) and "." in found.path,
            )
        )
    return Plan(
        table=table.name,
        origin=the_map.origin(table),
        cells=tuple(cells),
        known=_known(the_map, table),
    )


def _known(the_map: Map, table: Table) -> Known:
    """The members of a table's objects that the map takes, as a tree; a leaf is taken whole."""
    here = the_map.origin(table)
    tree: Known = {"id": {}} if here.shape == "entity" else {}
    for column in table.columns:
        found = source(column)
        if found is None or found.path.startswith("("):
            continue
        node = tree
        for step in found.path.split("."):
            node = node.setdefault(step, {})
            if here.kind == "persona" and step in SHARED:
                break
    # Arrays, and objects that have a table of their own, are that table's.
    others = {the_map.origin(table).path for table in the_map.projections(here.kind)} - {here.path}
    for other in sorted(others):
        steps = other.removeprefix(here.path).strip(".").split(".")
        if not other.startswith(here.path):
            continue
        node = tree
        for depth, step in enumerate(steps, 1):
            node = node.setdefault(step.removesuffix("[]"), {})
            around = ".".join([*([here.path] if here.path else []), *steps[:depth]])
            if (depth < len(steps) and around in others) or step.endswith("[]"):
                break
    return tree
