"""What the map expects of the API, path by path: where something may stand, and in which form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from etl.tables import EXTRA, OWNER, PARENT, POSITION, SELF, source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Column, Table

    from etl.map import Map
    from etl.tables import Kind

JSON_TYPES = frozenset({"string", "number", "boolean", "array", "object"})

# A name, one in quotes, any element.
_STEP = re.compile(r'\.?[A-Za-z_$][\w$-]*|\["(?:[^"\\]|\\["\\])*"\]|\[\]', re.ASCII)


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

    for table in the_map.projections(kind):
        here = the_map.origin(table)
        for around, json_type in _around(here.path):
            expect(around, frozenset({json_type}))
        if here.path and here.shape not in {"values", "list"}:
            expect(here.path, frozenset({"object"}))
        for column in table.columns:
            path, filled_from = path_of_column(the_map, table, column), source(column)
            if path is None or filled_from is None:
                continue
            for around, json_type in _around(path):
                expect(around, frozenset({json_type}))
            expect(
                path,
                frozenset(filled_from.json_types) or JSON_TYPES,
                members=frozenset(filled_from.members),
                is_filled=True,
                is_observed=filled_from.observed,
            )
    return found


def path_of_column(the_map: Map, table: Table, column: Column[Any]) -> str | None:
    """Where in its kind's document a column's values stand; None: they are no member of it."""
    here, found = the_map.origin(table).path, source(column)
    if found is None or found.path in {OWNER, PARENT, POSITION, EXTRA}:
        return None
    if found.path == SELF or not here:
        return here if found.path == SELF else found.path
    return here + ("" if found.path.startswith("[") else ".") + found.path


def steps(path: str) -> list[str]:
    """The steps of a path, as they are written: `shareLinks`, `[]`, `.type`."""
    return _STEP.findall(path)


def around(path: str) -> list[str]:
    """The paths of what a path leads through, the outermost first: `shareLinks`, `shareLinks[]`."""
    return [found for found, _ in _around(path)]


def _around(path: str) -> Iterator[tuple[str, str]]:
    """The same, each with the JSON type that it must have."""
    place = ""
    found = steps(path)
    for step, inner in pairwise(found):
        place += step
        yield place, "array" if inner == "[]" else "object"
