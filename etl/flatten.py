"""Document → rows, driven by the map. Pure: no clock, network, environment or database.

A value that does not fit its column becomes NULL and one value issue; what converts without loss is
converted. Rounding to what a column can hold at all (a microsecond, a double) is no loss.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from etl.payload.documents import referenced
from etl.payload.paths import element, member, usable_uuid
from etl.payload.values import MisfitError, converter, describe, json_type
from etl.tables import (
    EXTRA,
    OWNER,
    PARENT,
    POSITION,
    SELF,
    SHARED,
    origin,
    projections,
    source,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from sqlalchemy import Column, Table

    from etl.payload.decode import Json, JsonObject
    from etl.tables import Kind, Origin

Row = dict[str, Any]
Columns = Literal["all", "stored", "observed"]
Known = dict[str, "Known"]

# Keys that are data rather than names: a uuid, a number, a long hex string.
_ID_LIKE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+|[0-9a-f]{16,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ValueIssue:
    """A value that did not fit. Says its type and shape, never the value."""

    kind: Kind
    entity_id: UUID
    path: str
    problem: str
    expected: str
    got: str


@dataclass(slots=True)
class Flat:
    """The rows of one document by table, what did not fit, and what the map does not know."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    issues: list[ValueIssue] = field(default_factory=list)
    unknown: set[tuple[str, str]] = field(default_factory=set)
    """Path (`[]` for any element, `*` for an id) and JSON type of each unknown member."""


def flatten(kind: Kind, entity_id: UUID, document: JsonObject, columns: Columns = "all") -> Flat:
    """The rows that a document stands for.

    Args:
        kind: The document's kind.
        entity_id: Its entity.
        document: With its observed fields, unless only the stored columns are asked for.
        columns: `stored` leaves the observed columns out, `observed` keeps the keys and those.
    """
    return _Flattening(kind, entity_id, document, columns).run()


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


@dataclass(frozen=True, slots=True)
class _Cell:
    """How one column is filled."""

    name: str
    path: str
    keys: tuple[str, ...]
    convert: Callable[[Json], Any]
    token: bool
    required: bool
    """The object that it stands in must have it: the id of an embedded object."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one table is filled."""

    table: str
    origin: Origin
    key: str
    """The column whose value tells one row of a document from another."""
    cells: tuple[_Cell, ...]
    known: Known


@cache
def _plans(kind: Kind, columns: Columns) -> list[_Plan]:
    tables = projections(kind)
    if columns == "observed":
        tables = [t for t in tables if any((s := source(c)) and s.observed for c in t.columns)]
    return [_plan(table, columns) for table in tables]


def _plan(table: Table, columns: Columns) -> _Plan:
    cells = []
    for column in table.columns:
        found = source(column)
        if found is None or not _is_wanted(column, columns):
            continue
        indexed = bool(column.primary_key or column.index)
        cells.append(
            _Cell(
                name=column.name,
                path=found.path,
                keys=tuple(found.path.split(".")),
                convert=converter(column.type, indexed=indexed),
                token=found.token,
                required=bool(column.foreign_keys) and "." in found.path,
            )
        )
    return _Plan(
        table=table.name,
        origin=origin(table),
        key=list(table.primary_key.columns)[-1].name,
        cells=tuple(cells),
        known=_known(table),
    )


def _known(table: Table) -> Known:
    """The members of a table's objects that the map takes, as a tree; a leaf is taken whole."""
    here = origin(table)
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
    for other in projections(here.kind):
        path = origin(other).path
        if path != here.path and path.startswith(here.path):
            tree[path[len(here.path) :].strip(".").split(".")[0].removesuffix("[]")] = {}
    return tree


class _Flattening:
    """One document on its way to rows."""

    def __init__(self, kind: Kind, entity_id: UUID, document: JsonObject, columns: Columns) -> None:
        self.kind = kind
        self.entity_id = entity_id
        self.document = document
        self.columns: Columns = columns
        self.flat = Flat()
        self.paths: set[str] = set()
        self.elements: dict[str, list[tuple[UUID, str, JsonObject]]] = {}

    def run(self) -> Flat:
        for plan in _plans(self.kind, self.columns):
            rows = self.flat.rows[plan.table] = []
            match plan.origin.shape:
                case "entity":
                    rows.append(self._row(plan, self.document, ""))
                case "part":
                    rows.extend(self._part(plan))
                case "elements":
                    rows.extend(self._elements(plan))
                case "references":
                    rows.extend(self._references(plan))
                case "values":
                    rows.extend(self._values(plan))
        return self.flat

    def _part(self, plan: _Plan) -> Iterator[Row]:
        value = self.document.get(plan.origin.path)
        if isinstance(value, dict):
            yield self._row(plan, value, plan.origin.path)
            return
        if value is not None:
            self._issue(plan.origin.path, "not an object", "object", value)
        if plan.origin.always:
            yield self._row(plan, {}, plan.origin.path)

    def _elements(self, plan: _Plan) -> Iterator[Row]:
        """A row an element with a usable id; of two with one id the first counts."""
        accepted = self.elements[plan.origin.path] = []
        seen = set()
        for _, path, value in self._array(self.document, plan.origin.path.removesuffix("[]")):
            if not isinstance(value, dict):
                self._issue(path, "not an object", "object", value)
            elif (found := usable_uuid(value.get("id"))) is None:
                self._issue(member(path, "id"), "not a uuid", "uuid", value.get("id"))
            elif found in seen:
                self._issue(path, "repeated", "each once", value)
            else:
                seen.add(found)
                accepted.append((found, path, value))
                yield self._row(plan, value, path)

    def _references(self, plan: _Plan) -> Iterator[Row]:
        """A row a reference. What stayed inline has no usable id, or repeats one."""
        seen = set()
        for index, path, value in self._array(self.document, plan.origin.path.removesuffix("[]")):
            found = referenced(value)
            if found is not None and found not in seen:
                seen.add(found)
                yield {
                    cell.name: index if cell.path == POSITION else self._own(cell, found)
                    for cell in plan.cells
                }
            elif found is not None:
                self._issue(path, "repeated", "each once", value)
            elif isinstance(value, dict) and usable_uuid(value.get("id")) is not None:
                self._issue(path, "repeated with other content", "each once", value)
            elif isinstance(value, dict):
                self._issue(member(path, "id"), "not a uuid", "uuid", value.get("id"))
            else:
                self._issue(path, "not an object", "object", value)

    def _own(self, cell: _Cell, found: UUID) -> UUID:
        return self.entity_id if cell.path == OWNER else found

    def _values(self, plan: _Plan) -> Iterator[Row]:
        """A row a distinct scalar of each array; a repeated one keeps its first place."""
        parent, _, name = plan.origin.path.rpartition("[].")
        name = name.removesuffix("[]")
        objects = (
            self.elements.get(f"{parent}[]", [])
            if parent
            else [(self.entity_id, "", self.document)]
        )
        cell = next(cell for cell in plan.cells if cell.path == SELF)
        for parent_id, prefix, value in objects:
            seen = set()
            for index, path, item in self._array(value, name, prefix):
                converted = self._convert(cell, item, path)
                if converted is None:
                    continue
                if converted in seen:
                    self._issue(path, "repeated", "each once", item)
                    continue
                seen.add(converted)
                fill = {OWNER: self.entity_id, PARENT: parent_id, POSITION: index, SELF: converted}
                yield {column.name: fill[column.path] for column in plan.cells}

    def _array(
        self, value: JsonObject, name: str, prefix: str = ""
    ) -> Iterator[tuple[int, str, Json]]:
        """The elements of a member that should be an array, each with its place and path."""
        path = member(prefix, name)
        array = value.get(name)
        if isinstance(array, list):
            for index, item in enumerate(array):
                yield index, element(path, item, index), item
        elif array is not None:
            self._issue(path, "not an array", "array", array)

    def _row(self, plan: _Plan, value: JsonObject, path: str) -> Row:
        row: Row = {}
        for cell in plan.cells:
            if cell.path == OWNER:
                row[cell.name] = self.entity_id
            elif cell.path == EXTRA:
                row[cell.name] = self._unknown(value, plan.known, plan.origin.path)
            else:
                row[cell.name] = self._cell(cell, value, path)
        return row

    def _cell(self, cell: _Cell, value: JsonObject, path: str) -> Any:  # noqa: ANN401
        found: Json = value
        for key in cell.keys[:-1]:
            found = found.get(key) if isinstance(found, dict) else None
            path = member(path, key)
            if found is None:
                return None
            if not isinstance(found, dict):
                self._issue(path, "not an object", "object", found)
                return None
        if not isinstance(found, dict):
            return None
        found, path = found.get(cell.keys[-1]), member(path, cell.keys[-1])
        if found is None and not cell.required:
            return None
        return self._convert(cell, found, path)

    def _convert(self, cell: _Cell, value: Json, path: str) -> Any:  # noqa: ANN401
        """The column's value, or NULL and an issue."""
        try:
            converted = cell.convert(value)
        except MisfitError as misfit:
            self._issue(path, misfit.problem, misfit.expected, value)
            return None
        if cell.token and isinstance(converted, str):
            return converted.removeprefix("sha256:")
        return converted

    def _issue(self, path: str, problem: str, expected: str, value: Json) -> None:
        issue = ValueIssue(self.kind, self.entity_id, path, problem, expected, describe(value))
        if path not in self.paths:
            self.paths.add(path)
            self.flat.issues.append(issue)

    def _unknown(self, value: JsonObject, known: Known, path: str) -> JsonObject | None:
        """The members that the map does not know, nested ones too; None when there are none."""
        rest: JsonObject = {}
        for key, item in value.items():
            if key not in known:
                rest[key] = item
                place = member(path, "*" if _ID_LIKE.fullmatch(key) else key)
                self.flat.unknown.add((place, json_type(item)))
            elif known[key] and isinstance(item, dict):
                below = self._unknown(item, known[key], member(path, key))
                if below:
                    rest[key] = below
        return rest or None
