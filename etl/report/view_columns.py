"""What a view's columns are, said without a database: their types, and which are its key."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from etl import tables
from etl.report.fields import type_of
from etl.tables import SELF, source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Column

    from etl.report.views import View

# What views have besides the columns of tables: a name is of one type in all of them.
_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "bigint": (
        *("tool_count", "knowledge_group_count", "share_link_count", "persona_count"),
        "prompt_version",
    ),
    "boolean": ("is_live", "is_observed", "is_local"),
    "integer": ("prompt_length", "version"),
    "interval": ("age",),
    "jsonb": ("settings", "old_value", "new_value"),
    "numeric": ("duration_seconds", "uses_left"),
    "text": (
        *("name", "persona_name", "avatar_name", "voice_name", "voice_provider"),
        *("prompt_id", "configuration_id", "state", "last_error", "kind", "path", "change"),
        *("meaning", "schema_name", "table_name", "column_name", "type", "comment"),
    ),
    "text[]": ("persona_names",),
    "timestamptz": (
        *("valid_from", "valid_to", "last_observed_at", "last_changed_at", "removed_at"),
        *("changed_at", "not_before", "no_longer_sent_since", "last_seen_at"),
    ),
    "uuid": ("entity_id",),
    "uuid[]": ("persona_ids",),
}

# Of the views that are not called like the table whose rows they have.
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "prompts": ("prompt_id",),
    "configurations": ("configuration_id",),
    "freshness": ("persona_id",),
    "persona_history": ("persona_id", "version"),
    "prompt_history": ("persona_id", "prompt_version"),
    "avatar_history": ("avatar_id", "version"),
    "voice_history": ("voice_id", "version"),
    "tool_history": ("tool_id", "version"),
    "knowledge_group_history": ("knowledge_group_id", "version"),
    "drift": ("kind", "path", "problem"),
    "dictionary": ("schema_name", "table_name", "column_name"),
}


def short_type(column: Column[Any]) -> str:
    """A column's type as people write it."""
    return type_of(column).lower().replace("timestamp with time zone", "timestamptz")


def view_type(view: View, name: str) -> str:
    """The type of a view's column."""
    column = origin_of(view, name)
    if column is None:
        column = _told_so().get((name, view.columns[name]))
    if column is None:
        types = [type_ for type_, named in _TYPES.items() if name in named]
        if not types:
            raise LookupError(f"{view.name}.{name} is no table's column: say its type in _TYPES")
        return types[0]
    found = source(column)
    # A list is a table of its own in the map, and an array in a view.
    is_array = name in view.mapped and found is not None and found.path == SELF
    return short_type(column) + "[]" * is_array


def origin_of(view: View, name: str) -> Column[Any] | None:
    """The table's column that a view shows; None: none, or one of many that the view joins."""
    table = tables.metadata.tables.get(view.name)
    same = None if table is None else table.columns.get(name)
    is_shown = same is not None and same.comment == view.columns[name]
    return view.mapped.get(name, same if is_shown else None)


def view_key(view: View) -> tuple[str, ...]:
    """What tells the rows of a view apart, and is never NULL; empty: nothing does."""
    table = tables.metadata.tables.get(view.name)
    named = () if table is None else tuple(column.name for column in table.primary_key)
    return _KEYS.get(view.name, named)


@cache
def _told_so() -> Mapping[tuple[str, str], Column[Any]]:
    """The tables' columns by name and comment. Those that share both are of one type."""
    return {
        (column.name, column.comment or ""): column
        for table in reversed(tables.metadata.sorted_tables)
        for column in table.columns
    }
