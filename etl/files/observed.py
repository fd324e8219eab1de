"""Observed columns → the fields that they came from: what flattening did, undone. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from etl.payload.paths import usable_uuid
from etl.tables import is_observed, origin, projections, source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from sqlalchemy import Table

    from etl.payload.decode import Json, JsonObject, Location
    from etl.tables import Kind

    Row = dict[str, Any]


def observed_fields(
    kind: Kind, document: JsonObject, rows: Mapping[str, Sequence[Row]]
) -> dict[Location, Json]:
    """The observed fields by their place in the document, out of its entity's rows by table.

    What is NULL in a row was not there, or did not fit: it is left out.
    """
    fields: dict[Location, Json] = {}
    for table in projections(kind):
        observed = [column for column in table.columns if is_observed(column)]
        for row in rows.get(table.name, ()) if observed else ():
            place = _place(table, document, row)
            for column in observed:
                value, found = row[column.name], source(column)
                if place is not None and found is not None and value is not None:
                    fields[*place, *found.path.split(".")] = _as_json(value)
    return fields


def as_time(moment: datetime) -> str:
    """RFC 3339, in UTC, to the microsecond."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _place(table: Table, document: JsonObject, row: Row) -> Location | None:
    """Where the object stands that a row was made from; None: the document has none such."""
    came_from = origin(table)
    if came_from.shape == "entity":
        return ()
    name = came_from.path.removesuffix("[]")
    value = document.get(name)
    if came_from.shape == "part":
        return (name,) if isinstance(value, dict) else None
    (key,) = (c.name for c in table.primary_key.columns)
    for index, item in enumerate(value if isinstance(value, list) else ()):
        # Of two with one id the first counts.
        if isinstance(item, dict) and usable_uuid(item.get("id")) == row[key]:
            return name, index
    return None


def _as_json(value: Any) -> Json:  # noqa: ANN401  of any column
    return as_time(value) if isinstance(value, datetime) else value
