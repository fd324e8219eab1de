"""What the map expects of the API, path by path: where something may stand, and in which form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Boolean, DateTime, Double, Integer
from sqlalchemy.dialects.postgresql import JSONB, UUID

from etl.map import JSON_TYPES, ways
from etl.tables import source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Column
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

    def takes(self, json_type: str, shape: str | None) -> bool:
        """Whether some column is made for such a value."""
        return json_type in self.json_types and (self.shapes is None or shape in self.shapes)


@cache
def expected(the_map: Map, kind: Kind) -> Mapping[str, Expected]:
    """By path, relative to the kind's document, `[]` for any element."""
    found: dict[str, Expected] = {}
    wholes: list[str] = []

    def expect(path: str, json_types: frozenset[str], **more: Any) -> None:  # noqa: ANN401  fields
        before = found.get(path, Expected())
        found[path] = Expected(
            before.json_types | json_types,
            before.members | more.get("members", frozenset()),
            before.is_filled or more.get("is_filled", False),
            before.is_observed or more.get("is_observed", False),
            _either(before.shapes, more.get("shapes")),
        )

    def expect_around(path: str) -> None:
        """An array or an object on the way."""
        for inner, outer in pairwise(ways(path)):
            expect(outer, frozenset({"array" if inner == f"{outer}[]" else "object"}))

    for table in the_map.projections(kind):
        here = the_map.origin(table)
        expect_around(here.path)
        if here.path and here.shape not in {"values", "list"}:
            expect(here.path, frozenset({"object"}))
        for column in table.columns:
            path, filled_from = the_map.path(column), source(column)
            if path is None or filled_from is None:
                continue
            expect_around(path)
            expect(
                path,
                frozenset(filled_from.json_types or JSON_TYPES),
                members=frozenset(filled_from.members),
                is_filled=True,
                is_observed=filled_from.observed,
                shapes=_shapes(column),
            )
            if isinstance(column.type, JSONB):
                wholes.append(path)
    for path in wholes:
        # A column beside a list takes the array as it is.
        if f"{path}[]" in found:
            expect(f"{path}[]", frozenset(JSON_TYPES), shapes=None)
    return found


def _either(some: frozenset[str] | None, others: frozenset[str] | None) -> frozenset[str] | None:
    return None if some is None or others is None else some | others


def _shapes(column: Column[Any]) -> frozenset[str] | None:
    """How what fits a column looks. None of a key: an id that is none has no wider column."""
    found = source(column)
    if column.primary_key or column.foreign_keys or (found is not None and found.observed):
        return None
    return next((s for type_, s in _SHAPES.items() if isinstance(column.type, type_)), None)
