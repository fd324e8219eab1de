"""The map, made ready for flattening: which cell of which table is filled from where, and how."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from etl import tables
from etl.map import home, names, steps
from etl.payload.expected import expected
from etl.payload.values import converter
from etl.tables import OWNER, SHARED, is_observed, source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Column, Table

    from etl.map import Map
    from etl.payload.decode import Json
    from etl.tables import Kind, Origin

Columns = Literal["all", "stored", "observed"]
"""`stored` leaves the observed columns out, `observed` keeps the keys and those."""
Known = dict[str, "Known"]

_PYTHON_TYPES: dict[str, frozenset[type]] = {
    "string": frozenset({str}),
    "boolean": frozenset({bool}),
    "number": frozenset({int, float, Decimal}),
    "array": frozenset({list}),
    "object": frozenset({dict}),
}


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
    types: frozenset[type]
    """The Python types of what may come; what doesn't is looked at closer."""
    members: frozenset[str]
    """The documented texts, where they are few."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one table is filled."""

    table: str
    origin: Origin
    cells: tuple[Cell, ...]
    known: Known
    parent: str = ""
    """Of an array: the path of the elements that have one each; empty: the document has it."""
    keys: tuple[str, ...] = ()
    """Of an array: where it stands in there."""


@cache
def plans(the_map: Map, kind: Kind, columns: Columns) -> list[Plan]:
    """How the tables of a kind are filled, referenced ones before those that refer to them."""
    found = list(the_map.projections(kind))
    if columns == "observed":
        found = [t for t in found if any(map(is_observed, t.columns))]
    return [_plan(the_map, table, columns) for table in found]


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
    expects = expected(the_map, the_map.origin(table).kind)
    for column in table.columns:
        found = source(column)
        if found is None or not _is_wanted(column, columns):
            continue
        indexed = bool(column.primary_key or column.index)
        expects_here = expects.get(the_map.path(column) or "")
        cells.append(
            Cell(
                name=column.name,
                path=found.path,
                keys=() if found.path.startswith("(") else names(found.path),
                convert=converter(column.type, indexed=indexed),
                token=found.token,
                required=bool(column.foreign_keys) and "." in found.path,
                types=_python_types(expects_here.json_types if expects_here else ()),
                members=expects_here.members if expects_here else frozenset(),
            )
        )
    here = the_map.origin(table)
    parent, keys = _array(here) if here.path.endswith("[]") else ("", ())
    return Plan(table.name, here, tuple(cells), _known(the_map, table), parent, keys)


def _array(origin: Origin) -> tuple[str, tuple[str, ...]]:
    """Where an array stands: the path of the elements around it, if any, and the names in there."""
    around = tables.origin(tables.metadata.tables[home(origin.kind, origin.path)])
    parent = around.path if around.shape == "elements" else ""
    below = steps(origin.path)[len(steps(parent)) : -1]
    return parent, tuple(name for name in below if name is not None)


def _python_types(json_types: Iterable[str]) -> frozenset[type]:
    """The types that decoding gives such values; null always may come."""
    return frozenset({type(None)}).union(*(_PYTHON_TYPES[name] for name in json_types))


def _known(the_map: Map, table: Table) -> Known:
    """The members of a table's objects that the map takes, as a tree; a leaf is taken whole."""
    here = the_map.origin(table)
    base = steps(here.path)
    taken: set[tuple[str, ...]] = {("id",)} if here.shape == "entity" else set()
    for column in table.columns:
        found = source(column)
        if found is not None and not found.path.startswith("("):
            path = names(found.path)
            is_shared = here.kind == "persona" and here.shape == "entity" and path[0] in SHARED
            taken.add(path[:1] if is_shared else path)
    # Arrays, and objects that have a table of their own, are that table's.
    for other in the_map.projections(here.kind):
        place = steps(the_map.origin(other).path)
        below = place[len(base) :]
        if below and place[: len(base)] == base:
            end = below.index(None) if None in below else len(below)
            taken.add(tuple(name for name in below[:end] if name is not None))
    tree: Known = {}
    for path in sorted(taken):
        if not any(path[:length] in taken for length in range(1, len(path))):
            node = tree
            for name in path:
                node = node.setdefault(name, {})
    return tree
