"""What the views show of the map: its columns, and its lists as arrays, and what they call them.

The views of today, of a moment and of the past call a field the same. How it is read out of the
tables is `present.py`, out of the stored documents `history.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import postgresql

from etl.payload.plans import mapped_columns, plans
from etl.proposal.naming import is_plain
from etl.tables import EXTRA, SELF, owner_of, source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column, Table

    from etl.map import Map
    from etl.tables import Kind

_OF_A_VERSION: Final = {
    *("version", "valid_from", "valid_to", "last_observed_at"),
    *("change", "changed_paths", "source_updated_at", "run_id"),
    "persona_count",
}
# The moment is what `personas_as_of` is asked for.
_OF_A_PERSONA: Final = _OF_A_VERSION | {
    *("avatar_name", "voice_name", "voice_provider", "prompt_length"),
    *("last_success_at", "last_attempt_at", "last_outcome", "age"),
    *("tool_count", "knowledge_group_count", "share_link_count", "moment", "observed_until"),
}
_LONGEST: Final = 63


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the map, in the views of its kind."""

    name: str
    column: Column[Any]
    """Of a list that of its elements."""
    is_list: bool

    @property
    def comment(self) -> str:
        """What it says, in the map's words."""
        told = self.column.table.comment if self.is_list else self.column.comment
        return told or ""

    @property
    def type(self) -> str:
        """Its type in SQL."""
        return type_of(self.column) + ("[]" if self.is_list else "")


def type_of(column: Column[Any]) -> str:
    """A column's type in SQL."""
    return column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so


def fields(the_map: Map, kind: Kind) -> tuple[Field, ...]:
    """The columns and lists with one value a document; the key and what is observed not.

    Nothing of share links, which are many: that is in their tables, and in `changes`.

    A name that the views use for something else, or for a field further up in the map, is given
    with its table's before it: the member `version` of an avatar is `avatar_version`.
    """
    taken = set(_OF_A_PERSONA if kind == "persona" else _OF_A_VERSION)
    entity = the_map.entity_table(kind)
    taken |= {c.name for c in entity.columns} - {c.name for c in _stored(entity)}
    found = []
    for wanted, longer, column in _columns(the_map, kind):
        name = free_name(wanted, longer, taken)
        taken.add(name)
        found.append(Field(name, column, is_list=the_map.origin(column.table).path.endswith("[]")))
    return tuple(found)


def _columns(the_map: Map, kind: Kind) -> Iterator[tuple[str, str, Column[Any]]]:
    """Each with the name that it should have, and a longer one."""
    entity = the_map.entity_table(kind)
    for column in _stored(entity):
        yield column.name, f"{one_of(entity)}_{column.name}", column
    others = [t for t in the_map.projections(kind) if the_map.origin(t).shape != "entity"]
    for table in others:
        if the_map.origin(table).shape == "part":
            # The brain is the persona's own; of the options there are several.
            prefix = "" if table.name == "brains" else f"{one_of(table)}_"
            for column in _stored(table):
                if not is_extra(column):
                    yield f"{prefix}{column.name}", f"{one_of(table)}_{column.name}", column
    for table in others:
        if the_map.origin(table).shape in {"values", "list"} and owner_of(table) is not None:
            name = table.name.removeprefix(f"{kind}_")
            longer = f"{kind}_{name}"
            yield name if is_plain(name) else longer, longer, element_of(table)


def element_of(table: Table) -> Column[Any]:
    """The column of a list's table that has its elements."""
    return next(c for c in table.columns if (s := source(c)) and s.path == SELF)


def array_keys(the_map: Map, table: Table) -> tuple[str, ...]:
    """Where the array that a list's table is filled from stands in the document."""
    kind = the_map.origin(table).kind
    return next(p.keys for p in plans(the_map, kind, "stored") if p.table == table.name)


def is_extra(column: Column[Any]) -> bool:
    """Whether it has what the map does not know."""
    found = source(column)
    return found is not None and found.path == EXTRA


def _stored(table: Table) -> list[Column[Any]]:
    stored = set(mapped_columns(table, "stored"))
    return [c for c in table.columns if c.name in stored and not c.primary_key]


def one_of(table: Table) -> str:
    """What one row of a table is called, e.g. `share_link`."""
    return table.name.removesuffix("_options").removesuffix("s")


def free_name(wanted: str, longer: str, taken: set[str]) -> str:
    """A name that is not taken and that Postgres keeps whole."""
    numbered = (f"{longer[: _LONGEST - 6]}_{number}" for number in count(2))
    return next(
        name
        for name in chain([wanted, longer], numbered)
        if name not in taken and len(name) <= _LONGEST
    )
