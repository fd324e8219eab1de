"""Document → rows, driven by the map. Pure: no clock, network, environment or database.

A value that does not fit its column becomes NULL and one value issue; what converts without loss is
converted. Rounding to what a column can hold at all (a microsecond, a double) is no loss.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from etl.map import SHIPPED
from etl.payload.documents import referenced, unescaped
from etl.payload.expected import expected
from etl.payload.paths import any_member, element, member, usable_uuid
from etl.payload.plans import plans
from etl.payload.shapes import shape_of
from etl.payload.values import MisfitError, describe, json_type
from etl.tables import EXTRA, OWNER, PARENT, POSITION, SELF

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from etl.map import Map
    from etl.payload.decode import Json, JsonObject
    from etl.payload.expected import Expected
    from etl.payload.plans import Cell, Columns, Known, Plan
    from etl.tables import Kind

Row = dict[str, Any]

# Keys that are data rather than names: a uuid, a number, a long hex string, a text.
_ID_LIKE = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+|[0-9a-f]{16,}|.{101,}",
    re.IGNORECASE | re.DOTALL,
)
# An element in a path, by its id or its place.
_ELEMENT = re.compile(r"\[([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d+)\]")

MEMBER_CHARACTERS = 100
"""What is longer is no member of a small set: so much of it tells it from others."""


class Finding(NamedTuple):
    """Where a document differs from what the map expects. Only of a new member is it the value."""

    problem: Literal["unknown", "type_changed", "new_value"]
    path: str
    """With `[]` for any element, `*` for an id."""
    json_type: str
    shape: str | None
    member: str | None = None


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
    """The rows of one document by table, what did not fit, and what the map does not expect."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    issues: list[ValueIssue] = field(default_factory=list)
    findings: set[Finding] = field(default_factory=set)


def flatten(
    kind: Kind,
    entity_id: UUID,
    document: JsonObject,
    columns: Columns = "all",
    *,
    the_map: Map = SHIPPED,
) -> Flat:
    """The rows that a document stands for.

    Args:
        kind: The document's kind.
        entity_id: Its entity.
        document: With its observed fields, unless only the stored columns are asked for.
        columns: `stored` leaves the observed columns out, `observed` keeps the keys and those.
        the_map: The one in force at the target.
    """
    to_fill, expects = plans(the_map, kind, columns), expected(the_map, kind)
    return _Flattening(kind, entity_id, document, to_fill, expects).run()


def _id_of(value: Json) -> UUID | None:
    return usable_uuid(value.get("id")) if isinstance(value, dict) else None


def _below(path: str, keys: tuple[str, ...]) -> str:
    """Put together only where something is wrong, as a document has a hundred paths."""
    return reduce(member, keys, path)


class _Flattening:
    """One document on its way to rows."""

    def __init__(
        self,
        kind: Kind,
        entity_id: UUID,
        document: JsonObject,
        to_fill: list[Plan],
        expects: Mapping[str, Expected],
    ) -> None:
        self.kind = kind
        self.entity_id = entity_id
        self.document = document
        self.plans = to_fill
        self.expected = expects
        self.flat = Flat()
        self.paths: set[str] = set()
        self.elements: dict[str, list[tuple[UUID, str, JsonObject]]] = {}

    def run(self) -> Flat:
        for plan in self.plans:
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
                case "list":
                    rows.extend(self._list(plan))
        return self.flat

    def _part(self, plan: Plan) -> Iterator[Row]:
        value = self.document.get(plan.origin.path)
        if isinstance(value, dict):
            yield self._row(plan, value, plan.origin.path)
            return
        if value is not None:
            self._issue(plan.origin.path, "not an object", "object", value)
            self._hold(plan.origin.path, value)
        if plan.origin.always:
            yield self._row(plan, {}, plan.origin.path)

    def _elements(self, plan: Plan) -> Iterator[Row]:
        """A row an element with a usable id; of two with one id the first counts."""
        accepted = self.elements[plan.origin.path] = []
        seen = set()
        name = plan.origin.path.removesuffix("[]")
        for index, value in self._array(self.document, name):
            path = element(name, value, index)
            if not isinstance(value, dict):
                self._issue(path, "not an object", "object", value)
                self._hold(path, value)
            elif (found := usable_uuid(value.get("id"))) is None:
                self._issue(member(path, "id"), "not a uuid", "uuid", value.get("id"))
                self._hold(member(path, "id"), value.get("id"))
            elif found in seen:
                self._issue(path, "repeated", "each once", value)
            else:
                seen.add(found)
                accepted.append((found, path, value))
                yield self._row(plan, value, path)

    def _references(self, plan: Plan) -> Iterator[Row]:
        """A row a reference. What stayed inline has no usable id, or repeats one."""
        name = plan.origin.path.removesuffix("[]")
        items = [(i, left, unescaped(left)) for i, left in self._array(self.document, name)]
        references = {referenced(left) for _, left, _ in items}
        inline = {_id_of(value) for _, left, value in items if referenced(left) is None}
        seen = set()
        for index, _, value in items:
            found = _id_of(value)
            if found is not None and found in references and found not in seen:
                seen.add(found)
                fill = {OWNER: self.entity_id, POSITION: index}
                yield {cell.name: fill.get(cell.path, found) for cell in plan.cells}
                continue
            path = element(name, value, index)
            if not isinstance(value, dict):
                self._issue(path, "not an object", "object", value)
                self._hold(path, value)
            elif found is None:
                self._issue(member(path, "id"), "not a uuid", "uuid", value.get("id"))
                self._hold(member(path, "id"), value.get("id"))
            else:
                problem = "repeated with other content" if found in inline else "repeated"
                self._issue(path, problem, "each once", value)

    def _values(self, plan: Plan) -> Iterator[Row]:
        """A row a distinct scalar of each array; a repeated one keeps its first place."""
        cell = next(cell for cell in plan.cells if cell.path == SELF)
        for parent_id, at, array in self._arrays(plan):
            seen = set()
            for index, item in array:
                path = element(at, item, index)
                converted = self._convert(cell, item, path)
                if converted is None:
                    continue
                if converted in seen:
                    self._issue(path, "repeated", "each once", item)
                    continue
                seen.add(converted)
                fill = {OWNER: self.entity_id, PARENT: parent_id, POSITION: index, SELF: converted}
                yield {column.name: fill[column.path] for column in plan.cells}

    def _list(self, plan: Plan) -> Iterator[Row]:
        """A row a place of each array, repeated values too; NULL for what does not fit."""
        cell = next(cell for cell in plan.cells if cell.path == SELF)
        for parent_id, at, array in self._arrays(plan):
            for index, item in array:
                path = element(at, item, index)
                value = None if item is None else self._convert(cell, item, path)
                fill = {OWNER: self.entity_id, PARENT: parent_id, POSITION: index, SELF: value}
                yield {column.name: fill[column.path] for column in plan.cells}

    def _arrays(self, plan: Plan) -> Iterator[tuple[UUID, str, Iterator[tuple[int, Json]]]]:
        """The arrays of a table, each with the id of the object that has it, and its own path."""
        objects = [(self.entity_id, "", self.document)]
        if plan.parent:
            objects = self.elements.get(plan.parent, [])
        *around, name = plan.keys
        for parent_id, prefix, value in objects:
            inner: Json = value
            path = prefix
            for key in around:
                inner, path = inner.get(key) if isinstance(inner, dict) else None, member(path, key)
                if inner is not None and not isinstance(inner, dict):
                    self._issue(path, "not an object", "object", inner)
            if isinstance(inner, dict):
                yield parent_id, member(path, name), self._array(inner, name, path)

    def _array(self, value: JsonObject, name: str, prefix: str = "") -> Iterator[tuple[int, Json]]:
        """The elements of a member that should be an array, each with its place."""
        array = value.get(name)
        if isinstance(array, list):
            yield from enumerate(array)
        elif array is not None:
            path = member(prefix, name)
            self._issue(path, "not an array", "array", array)
            self._hold(path, array)

    def _row(self, plan: Plan, value: JsonObject, path: str) -> Row:
        row: Row = {}
        for cell in plan.cells:
            if cell.path == OWNER:
                row[cell.name] = self.entity_id
            elif cell.path == EXTRA:
                row[cell.name] = self._unknown(value, plan.known, plan.origin.path)
            else:
                row[cell.name] = self._cell(cell, value, path)
        return row

    def _cell(self, cell: Cell, value: JsonObject, path: str) -> Any:  # noqa: ANN401  a column of any type
        found: Json = value
        for depth, key in enumerate(cell.keys):
            if not isinstance(found, dict):
                if found is not None and depth:
                    at = _below(path, cell.keys[:depth])
                    self._issue(at, "not an object", "object", found)
                    self._hold(at, found)
                return None
            found = found.get(key)
        if found is None and not cell.required:
            return None
        return self._convert(cell, found, path, cell.keys)

    def _convert(self, cell: Cell, value: Json, path: str, keys: tuple[str, ...] = ()) -> Any:  # noqa: ANN401  a column of any type
        """The column's value, or NULL and an issue. It stands at `keys` below `path`."""
        kind_of = type(value)
        if kind_of not in cell.types or (
            cell.members and kind_of is str and value not in cell.members
        ):
            self._hold(_below(path, keys), value)
        try:
            converted = cell.convert(value)
        except MisfitError as misfit:
            at = _below(path, keys)
            self._issue(at, misfit.problem, misfit.expected, value)
            self._hold(at, value)
            return None
        if cell.token and isinstance(converted, str):
            return converted.removeprefix("sha256:")
        return converted

    def _issue(self, path: str, problem: str, expected: str, value: Json) -> None:
        issue = ValueIssue(self.kind, self.entity_id, path, problem, expected, describe(value))
        if path not in self.paths:
            self.paths.add(path)
            self.flat.issues.append(issue)

    def _hold(self, path: str, value: Json) -> None:
        """Holds what stands at a mapped path against what the map expects there."""
        place = _ELEMENT.sub("[]", path)
        expects = self.expected.get(place)
        if expects is None or value is None:
            return
        found, shape = json_type(value), shape_of(value)
        if not expects.takes(found, shape):
            self.flat.findings.add(Finding("type_changed", place, found, shape))
        elif isinstance(value, str) and expects.members and value not in expects.members:
            named = value[:MEMBER_CHARACTERS]
            self.flat.findings.add(Finding("new_value", place, found, shape, named))

    def _unknown(self, value: JsonObject, known: Known, path: str) -> JsonObject | None:
        """The members that the map does not know, nested ones too; None when there are none."""
        rest: JsonObject = {}
        for key, item in value.items():
            if key not in known:
                rest[key] = item
                place = any_member(path) if _ID_LIKE.fullmatch(key) else member(path, key)
                found = Finding("unknown", place, json_type(item), shape_of(item))
                self.flat.findings.add(found)
            elif known[key] and isinstance(item, dict):
                below = self._unknown(item, known[key], member(path, key))
                if below:
                    rest[key] = below
            elif known[key]:
                self._hold(member(path, key), item)
        return rest or None
