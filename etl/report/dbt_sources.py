"""The reporting views as sources of dbt: what they mean, what must hold, and how fresh they are.

The words are the map's. What is tested follows from it as well: keys, what refers to what, and the
values that only we write. Those that the API documents it may add to: `drift` tells when it does.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import CheckConstraint

from etl.map import SHIPPED
from etl.report.catalogue import all_views
from etl.report.ours import reporting_schema
from etl.report.text import json_text
from etl.report.view_columns import origin_of, view_key, view_type
from etl.tables import KINDS, OUTCOMES, document_versions, source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Column

    from etl.map import Map
    from etl.report.views import View

_HEAD: Final = "# Told by `persona-etl schema --format dbt`. For dbt 1.11 and later, on Postgres."

_SOURCE: Final = "persona_etl"

# What tells that the data is fresh moves with every run, also with one that finds nothing new: the
# column, and the rows that count.
_LOADED_AT: Final[Mapping[str, tuple[str, str | None]]] = {
    # Something still comes from the API, whoever it is of.
    "freshness": ("last_success_at", None),
    # The same of who is live.
    "personas": ("last_success_at", "removed_at IS NULL"),
    # The job gets to its end: what `status --max-age` asks.
    "runs": ("finished_at", "command = 'sync' AND status IN ('succeeded', 'partial')"),
}
_FRESHNESS: Final = {
    "warn_after": {"count": 2, "period": "hour"},
    "error_after": {"count": 1, "period": "day"},
}

# By the name that a column has in all views.
_OURS: Final[Mapping[str, tuple[str, ...]]] = {
    "change": tuple(
        value
        for check in document_versions.constraints
        if isinstance(check, CheckConstraint) and check.name == "ck_document_versions_change"
        for value in re.findall(r"'(\w+)'", str(check.sqltext))
    ),
    "kind": KINDS,
    "last_outcome": OUTCOMES,
    "outcome": OUTCOMES,
}

# YAML does not take them as they are, besides what `json_text` escapes.
_NO_YAML = re.compile("[\ufeff\ufffe\uffff]")


def dbt_sources(the_map: Map = SHIPPED, schema: str = "anam") -> str:
    """A sources.yml. Where the variable that names persona-etl's schema is set, that one counts."""
    views = {view.name: view for view in all_views(the_map)}
    default = json.dumps(schema, ensure_ascii=False)
    there = f"{{{{ env_var('PERSONA_ETL_DATABASE__SCHEMA', {default}) }}}}"
    told = {
        "version": 2,
        "sources": [
            {
                "name": _SOURCE,
                "description": "Anam's personas as they are and were, copied by persona-etl.",
                "loader": "persona-etl",
                "schema": reporting_schema(there),
                "tables": [_table(view, views) for view in views.values()],
            }
        ],
    }
    return "\n".join([_HEAD, *_block(told), ""])


def _table(view: View, views: Mapping[str, View]) -> dict[str, Any]:
    told: dict[str, Any] = {"name": view.name, "description": _text(view.comment)}
    if view.name in _LOADED_AT:
        loaded_at, counted = _LOADED_AT[view.name]
        only = {} if counted is None else {"filter": counted}
        told["config"] = {"loaded_at_field": loaded_at, "freshness": _FRESHNESS | only}
    key = view_key(view)
    if len(key) > 1:
        # Of several columns dbt has no test of its own; it takes an expression for a column.
        together = f"jsonb_build_array({', '.join(key)})"
        named = f"{_SOURCE}_unique_{view.name}"
        told["data_tests"] = [{"unique": {"name": named, "arguments": {"column_name": together}}}]
    told["columns"] = [_column(view, name, views) for name in view.columns]
    return told


def _column(view: View, name: str, views: Mapping[str, View]) -> dict[str, Any]:
    told: dict[str, Any] = {"name": name}
    if not re.fullmatch("[a-z_][a-z0-9_]*", name):
        told["quote"] = True
    told["data_type"] = view_type(view, name)
    told["description"] = _text(view.columns[name])
    if tests := list(_tests(view, name, views)):
        told["data_tests"] = tests
    return told


def _tests(view: View, name: str, views: Mapping[str, View]) -> Iterator[str | dict[str, Any]]:
    key = view_key(view)
    if key == (name,):
        yield "unique"
    if name in key:
        yield "not_null"
    if (referred := _referred(view, name)) is not None:
        table, field = referred.table.name, referred.name
        if table in views and field in views[table].columns:
            to = f"source('{_SOURCE}', '{table}')"
            yield {"relationships": {"arguments": {"to": to, "field": field}}}
    column = origin_of(view, name)
    is_from_api = column is not None and source(column) is not None
    if name in _OURS and not is_from_api:
        yield {"accepted_values": {"arguments": {"values": list(_OURS[name])}}}


def _referred(view: View, name: str) -> Column[Any] | None:
    """The table's column that a view's column refers to; a history's, also to whose it is."""
    column = origin_of(view, name)
    if column is None:
        return None
    for reference in column.foreign_keys:
        return reference.column
    is_whose = column.primary_key and len(column.table.primary_key) == 1
    return column if is_whose and column.table.name != view.name else None


def _text(comment: str) -> str:
    """A comment as it is: dbt reads descriptions as templates."""
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", comment)


def _block(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """YAML of it, in blocks. Every text is a string of JSON's, which YAML reads alike."""
    for name, inner in value.items():
        yield from _entry(f"{indent}{name}:", inner, f"{indent}  ")


def _entry(head: str, value: object, indent: str) -> Iterator[str]:
    match value:
        case dict():
            yield head
            yield from _block(value, indent)
        case list() if all(isinstance(item, str) for item in value):
            yield f"{head} [{', '.join(map(_scalar, value))}]"
        case list():
            yield head
            for item in value:
                first, *rest = (
                    _block(item, f"{indent}  ")
                    if isinstance(item, dict)
                    else [f"{indent}  {_scalar(item)}"]
                )
                yield f"{indent}- {first.removeprefix(f'{indent}  ')}"
                yield from rest
        case _:
            yield f"{head} {_scalar(value)}"


def _scalar(value: object) -> str:
    written = json_text(json.dumps(value, ensure_ascii=False).encode())
    return _NO_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", written)
