"""The map in force at a target: the release's, `tables.py`, and the lines that were added there.

A line names one field of the API and the column that it is filled into. What a team adds never
touches how documents are compared or hashed, so that a release may take its lines over later:
the observed fields and the sets are the release's alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from etl import tables
from etl.tables import EXTRA, OWNER, PARENT, POSITION, SELF, Origin, Source, source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy.types import TypeEngine

    from etl.tables import Kind

TYPES: Final[Mapping[str, TypeEngine[Any]]] = {
    "uuid": UUID(as_uuid=True),
    "timestamptz": DateTime(timezone=True),
    "boolean": Boolean(),
    "bigint": BigInteger(),
    "double precision": Double(),
    "text": Text(),
    "jsonb": JSONB(),
}
"""What an added column can be, by its name in SQL."""

JSON_TYPES: Final = ("string", "number", "boolean", "array", "object")
"""What a field can come in besides null."""

VALUE: Final = "value"
"""The column of a list's table that holds its elements."""

# A step of a path: a plain name, one in quotes, any element. As `payload/paths.py` writes them.
_STEP: Final = re.compile(
    r"""(?P<dot>\.?)(?P<plain>[A-Za-z_$][\w$-]*)|\["(?P<quoted>(?:[^"\\]|\\["\\])*)"\]|\[\]""",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Line:
    """A field that was added to the map: what it is filled into, and how.

    Attributes:
        path: Relative to the kind's document, `brain.mood`, `shareLinks[].label`. One that ends in
            `[]` is a list: a table of its own, a row an element, in the column `value`.
        table: The table that has the column, or the list's own.
        type: One of `TYPES`; of a list that of its elements.
        json_types: Those of `JSON_TYPES` that it comes in; empty: any.
        comment: The column's; of a list the table's as well.
    """

    kind: Kind
    path: str
    table: str
    column: str
    type: str
    json_types: tuple[str, ...]
    comment: str

    @property
    def is_list(self) -> bool:
        """Whether it makes a table of its own."""
        return steps(self.path)[-1:] == (None,)


class Map:
    """Tables and what they are filled from. Immutable; two are equal only if they are the same."""

    def __init__(
        self, metadata: MetaData, origins: Mapping[str, Origin], lines: tuple[Line, ...] = ()
    ) -> None:
        self.metadata = metadata
        self.lines = lines
        self._origins = origins

    @property
    def tables(self) -> Mapping[str, Table]:
        """All of them by name, the ledger's too."""
        return self.metadata.tables

    def origin(self, table: Table) -> Origin:
        """What a projected table's rows are made from."""
        return self._origins[table.name]

    def projections(self, kind: Kind | None = None) -> tuple[Table, ...]:
        """The normalized tables, referenced ones before those that refer to them."""
        return self._projections[kind]

    def entity_table(self, kind: Kind) -> Table:
        """The table with one row an entity of this kind."""
        return next(t for t in self.projections(kind) if self.origin(t).shape == "entity")

    def path(self, column: Column[Any]) -> str | None:
        """Where in its kind's document a column's values stand; None: they are no member of it."""
        here, found = self._origins[column.table.name], source(column)
        if found is None or found.path in {OWNER, PARENT, POSITION, EXTRA}:
            return None
        if found.path == SELF or not here.path:
            return here.path if found.path == SELF else found.path
        return here.path + ("" if found.path.startswith("[") else ".") + found.path

    def columns_at(self, kind: Kind, path: str) -> tuple[Column[Any], ...]:
        """The columns that are filled from a path."""
        return self._columns.get((kind, path), ())

    @cached_property
    def _columns(self) -> dict[tuple[Kind, str], tuple[Column[Any], ...]]:
        found: dict[tuple[Kind, str], tuple[Column[Any], ...]] = {}
        for table in self.projections():
            for column in table.columns:
                if (path := self.path(column)) is not None:
                    place = self.origin(table).kind, path
                    found[place] = (*found.get(place, ()), column)
        return found

    @cached_property
    def _projections(self) -> dict[Kind | None, tuple[Table, ...]]:
        found = tuple(t for t in self.metadata.sorted_tables if t.name in self._origins)
        by_kind: dict[Kind | None, tuple[Table, ...]] = {None: found}
        for kind in tables.KINDS:
            by_kind[kind] = tuple(t for t in found if self.origin(t).kind == kind)
        return by_kind


SHIPPED: Final = Map(tables.metadata, tables.origins())
"""The release's own."""


@cache
def extended(lines: tuple[Line, ...]) -> Map:
    """The release's map and these lines. A line that the release has a column for is passed over.

    Raises:
        ValueError: A line says what none can say, or its table has no rows of the object that its
            path leads into.
    """
    lines = tuple(line for line in lines if not is_shipped(line))
    if not lines:
        return SHIPPED
    metadata = MetaData(naming_convention=tables.metadata.naming_convention)
    for table in tables.metadata.sorted_tables:
        table.to_metadata(metadata)
    origins = dict(tables.origins())
    for line in lines:
        around = table_around(line)
        if line.is_list:
            origins[line.table] = Origin(line.kind, line.path, "list")
            _list_table(metadata.tables[around], origins[around], line)
        else:
            source = Source(below(line.kind, line.path), json_types=line.json_types)
            metadata.tables[around].append_column(
                Column(line.column, TYPES[line.type], comment=line.comment, info={"source": source})
            )
    return Map(metadata, origins, lines)


def table_around(line: Line) -> str:
    """The table that a line's column is in; that of the rows to which a list belongs.

    Raises:
        ValueError: There is none, or the line names another; or it has no kind or type of ours.
    """
    said = [("kind", line.kind, tables.KINDS), ("type", line.type, TYPES)]
    for what, value, known in [*said, *(("json type", t, JSON_TYPES) for t in line.json_types)]:
        if value not in known:
            named = f"{line.table}.{line.column}"
            raise ValueError(f"{named}: {what} {value!r}; write one of {', '.join(known)}")
    if not steps(line.path):
        raise ValueError(f"{line.table}.{line.column} has no path")
    around = home(line.kind, line.path)
    names(below(line.kind, line.path).removesuffix("[]"))
    if line.table != around and not line.is_list:
        raise ValueError(f"{line.path} is a member of what {around} has rows of: {line.table}")
    return around


def is_shipped(line: Line) -> bool:
    """Whether the release has this table or column itself."""
    if line.is_list:
        return line.table in tables.metadata.tables
    table = tables.metadata.tables.get(line.table)
    return table is not None and line.column in table.columns


def steps(path: str) -> tuple[str | None, ...]:
    """The names that a path leads through; None is any element of an array.

    Raises:
        ValueError: It is no path, or one with a `*`, which stands for no name.
    """
    return tuple(step for step, _ in _walk(path))


def ways(path: str) -> tuple[str, ...]:
    """The path and those of what is around it, the longest first: `a.b[]`, `a.b`, `a`."""
    return tuple(path[:end] for _, end in _walk(path))[::-1]


def _walk(path: str) -> Iterator[tuple[str | None, int]]:
    """Each step of a path, and where it ends."""
    end = 0
    while end < len(path):
        step = _STEP.match(path, end)
        if step is None or (step["plain"] and bool(step["dot"]) == (end == 0)):
            raise ValueError(f"{path} is no path of a member")
        end = step.end()
        quoted = step["quoted"]
        unquoted = None if quoted is None else re.sub(r'\\(["\\])', r"\1", quoted)
        yield unquoted if step["plain"] is None else step["plain"], end


def names(path: str) -> tuple[str, ...]:
    """The names that a path leads through, none of them an array's. Raises ValueError otherwise."""
    found = tuple(name for name in steps(path) if name is not None)
    if len(found) != len(steps(path)):
        raise ValueError(f"{path} leads through an array")
    return found


def home(kind: Kind, path: str) -> str:
    """The table whose rows have the field at this path: that of the innermost object around it."""
    wanted = steps(path)
    around = {
        name: len(place)
        for name, origin in tables.origins().items()
        if origin.kind == kind
        and origin.shape in {"entity", "part", "elements"}
        and (place := steps(origin.path)) == wanted[: len(place)] != wanted
    }
    return max(around, key=lambda name: around[name])


def below(kind: Kind, path: str) -> str:
    """The same path from the object that `home` has rows of: what the column's `Source` says."""
    around = tables.origins()[home(kind, path)]
    return path.removeprefix(around.path).removeprefix(".")


def _list_table(parent: Table, around: Origin, line: Line) -> None:
    """Makes the table of a list: its owner, the place and the element."""
    (key,) = parent.primary_key.columns
    # Of a part of a document the document's own id; below an element that element's.
    owner = PARENT if around.shape == "elements" else OWNER
    if around.shape == "part":
        (reference,) = key.foreign_keys
        key = reference.column

    def filled(name: str, type_: TypeEngine[Any], path: str, comment: str) -> Column[Any]:
        types = line.json_types if path == SELF else ()
        info = {"source": Source(path, json_types=types)}
        references = [ForeignKey(f"{key.table.name}.{key.name}")] if path == owner else []
        return Column(name, type_, *references, comment=comment, info=info)

    Table(
        line.table,
        parent.metadata,
        filled(key.name, key.type, owner, f"The {key.name.removesuffix('_id').replace('_', ' ')}."),
        filled("position", Integer(), POSITION, "Place in the API's array, from 0."),
        filled(VALUE, TYPES[line.type], SELF, line.comment),
        PrimaryKeyConstraint(key.name, "position"),
        comment=line.comment,
    )


def lines_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Line, ...]:
    """Lines as `local_columns` keeps them, in an order that does not hang on who reads."""
    found = [
        Line(
            kind=row["kind"],
            path=row["path"],
            table=row["table_name"],
            column=row["column_name"],
            type=row["type"],
            json_types=tuple(row["json_types"]),
            comment=row["comment"],
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda line: (line.table, line.column)))
