"""The views that tell what there is: each column, and where the API and the map differ.

What the map says stands in them as values, as of the last `migrate`; types and comments are the
catalog's, and whether a field still comes is asked of `drift_paths` when the view is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl import tables
from etl.map import ways
from etl.report.fields import element_of
from etl.report.ours import text
from etl.report.views import View, comments
from etl.tables import is_observed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Column

    from etl.map import Map

_MEANINGS = {
    "unknown": "The API sends a field that no column has; it is kept in extra and the document.",
    "missing": "The API sends this field no more; its column stays, and the past keeps its values.",
    "type_changed": "The API sends values of a type that this column was not made for.",
    "new_value": "A value has come that is not among the few that were known.",
    "mapped": "Settled: the API and the map agree on it again.",
}

_DRIFT = """
SELECT drift.kind,
       drift.path,
       drift.problem,
       CASE CASE drift.status WHEN 'mapped' THEN drift.status ELSE drift.problem END
{meanings}
       END AS meaning,
       drift.json_types,
       drift.shapes,
       drift.new_members,
       drift.first_seen_at,
       drift.last_seen_at,
       drift.occurrences,
       drift.status,
       mapped.table_name,
       mapped.column_name
  FROM drift_paths AS drift
  LEFT JOIN (VALUES {mapped}) AS mapped (kind, path, table_name, column_name)
    ON mapped.kind = drift.kind AND mapped.path = drift.path
"""

# The schemas are found by a table of ours: they may have any name. Names have a collation of their
# own, which a paused view would not keep.
_DICTIONARY = """
SELECT CAST(schema.nspname AS text) COLLATE "default" AS schema_name,
       known.table_name,
       known.column_name,
       format_type(attribute.atttypid, attribute.atttypmod) AS type,
       col_description(relation.oid, attribute.attnum) AS comment,
       known.kind,
       known.paths[1] AS path,
       known.is_observed,
       known.is_local,
       (SELECT min(gone.last_seen_at)
          FROM drift_paths AS gone
         WHERE gone.kind = known.kind AND gone.path = ANY (known.paths)
           AND gone.problem = 'missing' AND gone.status <> 'mapped') AS no_longer_sent_since
  FROM (VALUES {known}) AS known (is_view, table_name, column_name, kind, paths, is_observed,
                                  is_local)
  JOIN pg_class AS ours ON ours.oid = 'personas'::regclass
  JOIN pg_namespace AS own ON own.oid = ours.relnamespace
  JOIN pg_namespace AS schema
    ON schema.nspname = own.nspname || CASE WHEN known.is_view THEN '_reporting' ELSE '' END
  JOIN pg_class AS relation
    ON relation.relnamespace = schema.oid AND relation.relname = known.table_name
  JOIN pg_attribute AS attribute
    ON attribute.attrelid = relation.oid AND attribute.attname = known.column_name
"""


def drift_view(the_map: Map) -> View:
    """A row a path, with what the map has there."""
    columns = {
        **comments(*tables.drift_paths.c),
        "last_seen_at": (
            "When it last came in new content; of a missing field, when the last version that had"
            " it ended."
        ),
        "meaning": "The problem, in words.",
        "table_name": "The table that is filled from there; NULL: the map has nothing.",
        "column_name": "Its column; NULL: the table has the members of what stands there.",
    }
    meanings = "\n".join(f"           WHEN {text(p)} THEN {text(m)}" for p, m in _MEANINGS.items())
    mapped = ",\n               ".join(_row(*row) for row in _mapped(the_map))
    comment = "Where the API and the map differ: a row a path and problem, with what to make of it."
    return View("drift", comment, columns, _DRIFT.format(meanings=meanings, mapped=mapped))


def dictionary_view(the_map: Map, views: Iterable[View]) -> View:
    """A row a column of each normalized table, of these views, and of this one."""
    columns = {
        "schema_name": "The schema: that of the tables, or that of the views.",
        "table_name": "The table or view.",
        "column_name": "The column.",
        "type": "Its type in SQL.",
        "comment": "What it says.",
        "kind": "The kind of document that it is filled from; NULL: none.",
        "path": "The API's path in there; NULL: no member of the API is in it.",
        "is_observed": "Set by the latest observation; it makes no versions and has no history.",
        "is_local": "Added at this target, not by a release.",
        "no_longer_sent_since": (
            "When the last version that had the field ended; NULL: the API still sends it."
        ),
    }
    comment = (
        "Each column of the normalized tables and of the views: type, meaning, the API's path and"
        " since when that is sent no more. Such a column stays."
    )
    shown = [*views, View("dictionary", comment, columns, "")]
    known = ",\n               ".join(_row(*row) for row in _known(the_map, shown))
    return View("dictionary", comment, columns, _DICTIONARY.format(known=known))


def _mapped(the_map: Map) -> Iterator[tuple[Any, ...]]:
    """Kind and path, table and column, of all that is filled from somewhere, each path once."""
    found: dict[tuple[str, str], tuple[str, str | None]] = {}
    whole: dict[tuple[str, str], tuple[str, str | None]] = {}
    for table in the_map.projections():
        here = the_map.origin(table)
        for column in table.columns:
            path = the_map.path(column)
            if path is not None:
                found.setdefault((here.kind, path), (table.name, column.name))
        for path in filter(None, (here.path, here.path.removesuffix("[]"))):
            is_list = here.shape in {"values", "list"}
            of_it = element_of(table).name if is_list else None
            whole.setdefault((here.kind, path), (table.name, of_it))
    yield from ((*place, *filled) for place, filled in (whole | found).items())


def _known(the_map: Map, views: Iterable[View]) -> Iterator[tuple[Any, ...]]:
    """What the map says of each column."""
    added = {(line.table, None if line.is_list else line.column) for line in the_map.lines}

    def told(column: Column[Any]) -> tuple[Any, ...]:
        table, path = column.table, the_map.path(column)
        is_local = not added.isdisjoint({(table.name, None), (table.name, column.name)})
        kind = the_map.origin(table).kind
        return kind, list(ways(path)) if path else [], is_observed(column), is_local

    for table in the_map.projections():
        for column in table.columns:
            yield False, table.name, column.name, *told(column)
    for view in views:
        for name in view.columns:
            of_map = view.mapped.get(name)
            more = (None, [], False, False) if of_map is None else told(of_map)
            yield True, view.name, name, *more


def _row(*values: bool | str | list[str] | None) -> str:
    return f"({', '.join(map(_literal, values))})"


def _literal(value: bool | str | list[str] | None) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case str():
            return text(value)
        case _:
            return f"CAST(ARRAY[{', '.join(map(text, value))}] AS text[])"
