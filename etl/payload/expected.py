"""What the map expects of the API, path by path: where something may stand, and in which form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Boolean, DateTime, Double, Integer
from sqlalchemy.dialects.postgresql import UUID

from etl.map import JSON_TYPES, ways
from etl.tables import source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Column, Table
    from sqlalchemy.types import TypeEngine

    from etl.map import Map
    from etl.tables import Kind

# What fits a column, of that JSON type at all. A text column and a jsonb one take anything.
_SHAPES: Final[Mapping[type[TypeEngine[Any]], frozenset[str]]] = {
    Boolean: frozenset({"boolean"}),
    DateTime: frozenset({"time"}),
    Double: frozenset({"whole number", "huge whole number", "number with a fraction"}),
    Integer: frozenset({"whole number"}),
    UUID: frozenset({"uuid"}),
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What may stand at a path, besides null."""

    json_types: frozenset[str] = frozenset()
    """Of what is filled into several columns: all that either takes."""
    members: frozenset[str] = frozenset()
    """The values that the API documents, where they are few."""
    is_filled: bool = False
    """Some column is filled from it; else it only holds what is."""
    is_observed: bool = False
    shapes: frozenset[str] | None = frozenset()
    """How values of these types may look, to fit one of the columns; None: in any way."""

    def __or__(self, other: Expected) -> Expected:
        """What may stand there when either may."""
        shapes = None
        if self.shapes is not None and other.shapes is not None:
            shapes = self.shapes | other.shapes
        return Expected(
            self.json_types | other.json_types,
            self.members | other.members,
            self.is_filled or other.is_filled,
            self.is_observed or other.is_observed,
            shapes,
        )

    def takes(self, json_type: str, shape: str | None) -> bool:
        """Whether some column is made for such a value."""
        return json_type in self.json_types and (self.shapes is None or shape in self.shapes)


_ARRAY = Expected(frozenset({"array"}), shapes=None)
_OBJECT = Expected(frozenset({"object"}), shapes=None)
_ANYTHING = Expected(frozenset(JSON_TYPES), shapes=None)


@cache
def expected(the_map: Map, kind: Kind) -> Mapping[str, Expected]:
    """By path, relative to the kind's document, `[]` for any element."""
    found: dict[str, Expected] = {}
    for table in the_map.projections(kind):
        for path, expects in _of_table(the_map, table):
            found[path] = found[path] | expects if path in found else expects
    for path, expects in list(found.items()):
        if expects.is_filled and f"{path}[]" in found:
            # A column beside a list takes the array as it is.
            found[f"{path}[]"] |= _ANYTHING
    return found


def _of_table(the_map: Map, table: Table) -> Iterator[tuple[str, Expected]]:
    """What the rows of a table are made of, and the arrays and objects on the way."""
    here = the_map.origin(table)
    yield from _around(here.path)
    if here.path and here.shape not in {"values", "list"}:
        yield here.path, _OBJECT
    for column in table.columns:
        path, filled_from = the_map.path(column), source(column)
        if path is not None and filled_from is not None:
            yield from _around(path)
            yield (
                path,
                Expected(
                    frozenset(filled_from.json_types or JSON_TYPES),
                    frozenset(filled_from.members),
                    is_filled=True,
                    is_observed=filled_from.observed,
                    shapes=_shapes(column),
                ),
            )


def _around(path: str) -> Iterator[tuple[str, Expected]]:
    for inner, outer in pairwise(ways(path)):
        yield outer, _ARRAY if inner == f"{outer}[]" else _OBJECT


def _shapes(column: Column[Any]) -> frozenset[str] | None:
    """How what fits a column looks. None of a key: an id that is none has no wider column."""
    found = source(column)
    if column.primary_key or column.foreign_keys or (found is not None and found.observed):
        return None
    return next((s for type_, s in _SHAPES.items() if isinstance(column.type, type_)), None)
