"""The data dictionary: every table, view and function as a page of Markdown, with its diagrams.

All of it is read off the map and the catalogue of views: no database is asked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from etl.map import SHIPPED
from etl.report.catalogue import all_views, called_by_views, reading_views
from etl.report.erd import diagram, foreign_keys
from etl.report.markdown import code, link, listed, words
from etl.report.markdown import table as table_of
from etl.report.ours import MARK, reporting_schema
from etl.report.text import escaped
from etl.report.view_columns import origin_of, short_type, view_key, view_type
from etl.tables import (
    SHARED,
    TIME,
    document_versions,
    documents,
    is_observed,
    observations,
    pruned_history,
    source,
    unfolded,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Column, Table

    from etl.map import Map
    from etl.report.functions import Function
    from etl.report.views import View
    from etl.tables import Kind

HISTORY: Final = (documents, observations, document_versions, unfolded, pruned_history)
"""What history is made from. The other tables that are not in the map are the ledger."""

_INTRO = """\
# Data dictionary

Every table, view and function that `persona-etl migrate` makes, told by `persona-etl schema`.
Reports need the views alone; a role of `migrate --grant-reader` sees nothing else.

| level | schema | what it holds |
| --- | --- | --- |
| [Normalized tables](#normalized-tables) | {schema} | the personas and what they share, as last \
seen: made from the documents in force |
| [History](#history) | {schema} | each distinct document once, what was seen when, what was in \
force when: the tables above can be made from it again |
| [Ledger](#ledger) | {schema} | what each run did, to whom, and what did not fit |
| [Reporting views](#reporting-views), [functions](#functions) | {reporting} | all of that, for \
reports |

How to read it:

- The comments are those in the database (`COMMENT ON`). Those of views and functions end there
  with "{mark}"
- **Path** is where in the API's answer a value stands, relative to its document: a persona, or the
  avatar, voice, tool or knowledge group in it. What stands in parentheses is no member of it.
- **Shows**, of a view: the table's column that it has; *same* is that of the table of its name.
- **°** is *observed*: set by the latest observation; it makes no version, and has no history.
- Every value that comes from the API can be NULL; only keys can not.
- Alembic keeps its revisions in tables of its own, `alembic_version` and the like, beside these.
"""

_LOCAL = """\
- **local** is what was added at this target, not by a release.
"""

_DIAGRAMS = """\
## Diagrams

The lines are foreign keys. Two bars at an end are one row, a circle and a bar one or none, a circle
and a fork any number.
"""

_BETWEEN = """\
The other tables of history and ledger refer to none: they tell of personas that were never seen as
well, and are pruned by themselves. All the same `run_id` is that of `runs` everywhere, `persona_id`
is that of `personas`, and `kind` and `entity_id` are a document's.
"""


def schema_page(the_map: Map = SHIPPED, schema: str = "anam") -> str:
    """The whole page, for a target whose tables are in `schema`."""
    normalized, ledger = _normalized(the_map), _ledger(the_map)
    views = all_views(the_map)
    functions = (*reading_views(the_map), *called_by_views())
    return "\n".join(
        [
            _INTRO.format(schema=code(schema), reporting=code(reporting_schema(schema)), mark=MARK),
            *([_LOCAL] if the_map.lines else []),
            _DIAGRAMS,
            *_drawn("Normalized tables, by their keys", diagram(normalized, keys_only=True)),
            *_drawn("History", diagram(_related(HISTORY))),
            *_drawn("Ledger, by its keys", diagram(_related(ledger), keys_only=True)),
            _BETWEEN,
            *_level("Normalized tables", normalized, the_map),
            *_level("History", HISTORY, the_map),
            *_level("Ledger", ledger, the_map),
            "## Reporting views\n",
            _contents("View", ((view.name, view.comment) for view in views)),
            *(_view(view, the_map) for view in views),
            "## Functions\n",
            "Views call those that begin with `persona_etl_`; the other is for readers.\n",
            *(_function(function) for function in functions),
        ]
    )


def _level(title: str, tables: Sequence[Table], the_map: Map) -> Iterator[str]:
    yield f"## {title}\n"
    yield _contents("Table", ((table.name, table.comment) for table in tables))
    yield from (_table(table, the_map) for table in tables)


def _normalized(the_map: Map) -> list[Table]:
    """The personas' tables, then those of what they share."""
    kinds: tuple[Kind, ...] = ("persona", *SHARED.values())
    return [table for kind in kinds for table in the_map.projections(kind)]


def _ledger(the_map: Map) -> tuple[Table, ...]:
    others = {table.name for table in (*the_map.projections(), *HISTORY)}
    return tuple(table for name, table in the_map.tables.items() if name not in others)


def _related(tables: Iterable[Table]) -> list[Table]:
    """Those that a foreign key leads from or to: the others would stand there alone."""
    listed = list(tables)
    linked = {key.referred_table.name for table in listed for key in foreign_keys(table)}
    return [table for table in listed if table.name in linked or foreign_keys(table)]


def _drawn(title: str, drawing: str) -> Iterator[str]:
    yield f"### Diagram: {title}\n"
    yield f"```mermaid\n{drawing}```\n"


def _contents(what: str, named: Iterable[tuple[str, str | None]]) -> str:
    lines = [f"- {link(f'{what} {name}', name)}: {words(told or '')}\n" for name, told in named]
    return "".join(lines)


def _table(table: Table, the_map: Map) -> str:
    is_mapped = table in the_map.projections()
    rows = []
    for column in table.columns:
        may_be = "yes" if column.nullable else "no"
        path = [_path(column, the_map)] if is_mapped else []
        told = words(column.comment or "")
        called = _called(column.name, column, the_map)
        rows.append([called, code(short_type(column)), may_be, *path, told])
    return "\n".join(
        [
            f"### Table {code(table.name)}\n",
            f"{words(table.comment or '')}\n",
            f"{_grain(table, the_map)}{_whence(table, the_map) if is_mapped else ''}\n",
            table_of(["column", "type", "NULL", *["path"] * is_mapped, "comment"], rows),
            "".join(f"- {line}\n" for line in _keys(table)),
        ]
    )


def _called(name: str, column: Column[Any] | None, the_map: Map) -> str:
    """A name, and what is special about the map's column that it shows."""
    if column is None:
        return code(name)
    is_local = any(
        line.table == column.table.name and (line.is_list or line.column == column.name)
        for line in the_map.lines
    )
    return code(name) + " °" * is_observed(column) + " **local**" * is_local


def _grain(table: Table, the_map: Map) -> str:
    """What a row is of, in words that the key has."""
    *others, last = [_one(column) for column in table.primary_key]
    whose = f"{', '.join(others)} and {last}" if others else last
    found = the_map.origin(table) if table in the_map.projections() else None
    at_most = found is not None and found.shape == "part" and not found.always
    return f"{'At most one' if at_most else 'One'} row per {whose}."


def _one(column: Column[Any]) -> str:
    if column.name == "id":
        return column.table.name.removesuffix("s").replace("_", " ")
    if column.type is TIME:
        return "moment"
    return column.name.removesuffix("_id").replace("_", " ")


def _whence(table: Table, the_map: Map) -> str:
    """Which object of the API the rows are made from."""
    here = the_map.origin(table)
    member = {kind: name for name, kind in SHARED.items()}.get(here.kind)
    is_many = here.kind in {"tool", "knowledge_group"}
    around = f"a persona's {code(f'{member}[]' if is_many else member)}" if member else "a persona"
    return f" Made from {f'{code(here.path)} of ' if here.path else ''}{around}."


def _path(column: Column[Any], the_map: Map) -> str:
    path, found = the_map.path(column), source(column)
    if path is not None:
        return code(path)
    return words(found.path if found else "(set by history)")


def _keys(table: Table) -> Iterator[str]:
    yield f"Key: {listed(column.name for column in table.primary_key)}"
    for key in foreign_keys(table):
        other = key.referred_table.name
        there = listed(element.column.name for element in key.elements)
        later = "; checked when the transaction ends" if key.deferrable else ""
        told = f"{listed(key.column_keys)} → {there}{later}"
        yield f"Refers to {link(f'Table {other}', other)}: {told}"
    for constraint in sorted(table.constraints, key=lambda constraint: str(constraint.name)):
        match constraint:
            case UniqueConstraint():
                yield f"Unique: {listed(column.name for column in constraint.columns)}"
            case CheckConstraint():
                yield f"Check: {code(str(constraint.sqltext))}"
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        made = str(CreateIndex(index).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
        yield f"{'Unique index' if index.unique else 'Index'}: {code(made.partition(' INDEX ')[2])}"


def _view(view: View, the_map: Map) -> str:
    rows = []
    for name, comment in view.columns.items():
        column = origin_of(view, name)
        called = _called(name, column, the_map)
        rows.append([called, code(view_type(view, name)), _shown(view, name), words(comment)])
    return "\n".join(
        [
            f"### View {code(view.name)}\n",
            f"{words(view.comment)}\n",
            table_of(["column", "type", "shows", "comment"], rows),
            f"- Key: {listed(view_key(view)) or 'none'}\n",
        ]
    )


def _shown(view: View, name: str) -> str:
    """Which column of the tables it is: mostly of the table that the view is called like."""
    column = origin_of(view, name)
    if column is None:
        return ""
    is_same = (column.table.name, column.name) == (view.name, name)
    return "same" if is_same else code(f"{column.table.name}.{column.name}")


def _function(function: Function) -> str:
    arguments, returned = map(_plain, (function.arguments, function.returns))
    if returned.startswith("TABLE"):
        # No type has a comma in it.
        returned = returned.replace("(", "(\n    ", 1).replace(", ", ",\n    ")
    made = f"{function.name}({arguments}) RETURNS {returned}"
    return "\n".join(
        [
            f"### Function {code(function.name)}\n",
            f"{words(function.comment)}\n",
            f"```sql\n{made}\n```\n",
        ]
    )


def _plain(sql: str) -> str:
    """Names and types, without the quotes that names can do without."""
    told = re.sub(r'"[^"]*"|timestamp with time zone|[A-Z ]+\b', _as_people_write, escaped(sql))
    return re.sub(r'"([a-z_][a-z0-9_]*)"', r"\1", told)


def _as_people_write(found: re.Match[str]) -> str:
    word = found[0]
    if word.startswith('"') or word.strip() == "TABLE":
        return word
    return word.lower().replace("timestamp with time zone", "timestamptz")
