"""What the map expects of the API, path by path: where something may stand, and in which form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from etl.map import JSON_TYPES, ways
from etl.tables import source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etl.map import Map
    from etl.tables import Kind


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


@cache
def expected(the_map: Map, kind: Kind) -> Mapping[str, Expected]:
    """By path, relative to the kind's document, `[]` for any element."""
    found: dict[str, Expected] = {}

    def expect(path: str, json_types: frozenset[str], **more: Any) -> None:  # noqa: ANN401  fields
        before = found.get(path, Expected())
        found[path] = Expected(
            before.json_types | json_types,
            before.members | more.get("members", frozenset()),
            before.is_filled or more.get("is_filled", False),
            before.is_observed or more.get("is_observed", False),
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
            )
    return found
