"""The views of what was: a row a document version, in the columns that the map has for its kind.

The values come out of the stored documents, so a column that the map learns today is filled for
all of the past as well. What flattening makes of a document (`flatten.py`) is told again in SQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl import tables
from etl.map import SHIPPED
from etl.payload.plans import plans
from etl.report.casts import cast_to, uuid_of
from etl.report.fields import array_keys, fields
from etl.report.ours import name, text
from etl.report.views import View, comments
from etl.tables import EXTRA, entity_table, origin, projections

if TYPE_CHECKING:
    from sqlalchemy import Column, Table

    from etl.map import Map
    from etl.payload.plans import Known
    from etl.tables import Kind

_DOCUMENT = "unpacked.document"

# The document is unpacked once, below, and not at each mention: HAVING keeps the planner from
# putting its expression into the places where it is used. It also says that there is one row, so
# that a query which shows nothing of the document reads none: both joins are left out then.
_FROM = """
  FROM document_versions AS version
  LEFT JOIN documents AS stored
    ON stored.kind = version.kind AND stored.content_hash = version.content_hash
 LEFT JOIN LATERAL (SELECT stored.document || '{}' AS document HAVING true) AS unpacked ON true
""".strip("\n")

_FIRST_SEEN = """(SELECT first.valid_from
           FROM document_versions AS first
          WHERE first.kind = version.kind AND first.entity_id = version.entity_id
          ORDER BY first.version LIMIT 1)"""

_NOT_KEPT = (
    " Of pruned versions one row stays, of which only the times are known: its change is pruned."
)

_HISTORY_COMMENTS = {
    **comments(tables.document_versions.c.version),
    "valid_from": "When it was first seen so.",
    "valid_to": "When it was first seen otherwise; NULL: it still is so.",
    "last_observed_at": "When it was last seen so. A change came between this and valid_to.",
    **comments(
        tables.document_versions.c.change,
        tables.document_versions.c.changed_paths,
        tables.document_versions.c.source_updated_at,
        tables.document_versions.c.run_id,
    ),
    "first_seen_at": "valid_from of the first version.",
    "last_changed_at": "The same as valid_from, under the name that it has in the tables.",
}


def persona_history(the_map: Map) -> View:
    """A row a version of a persona, with what it is told to be and how much belongs to it."""
    columns = {
        "removed_at": "When the API said that it is gone: in the row of its removal.",
        "tool_count": "How many tools it could call.",
        "knowledge_group_count": "How many knowledge groups it answered from.",
        "share_link_count": "How many share links it had, whether they opened or not.",
    }
    selected = {
        "removed_at": "CASE version.change WHEN 'removed' THEN version.valid_from END",
        "tool_count": _count_of(tables.persona_tools),
        "knowledge_group_count": _count_of(tables.persona_knowledge_groups),
        "share_link_count": _links(),
    }
    comment = (
        "What each persona was and when: a row a version. A removal is a row too, of which only"
        f" the times are known.{_NOT_KEPT} What share links were is in changes."
    )
    return _history(the_map, "persona", comment, columns, selected)


def shared_histories(the_map: Map) -> tuple[View, ...]:
    """A row a version of each thing that personas share, a view a kind."""
    return tuple(
        _history(
            the_map, kind, f"What each {kind.replace('_', ' ')} was: a row a version.{_NOT_KEPT}"
        )
        for kind in tables.SHARED.values()
    )


def prompt_history() -> View:
    """A row a stretch of time in which a persona was told the same."""
    brains = tables.brains
    columns = {
        **comments(tables.personas.c.persona_id),
        "name": "The persona's name when it was first told so.",
        "prompt_version": "Rank in time, from 1; a removal ends one, other changes don't. 0: what"
        " it was told before is not kept, and NULL.",
        "valid_from": "When it was first seen to be told so.",
        "valid_to": "When it was first seen otherwise, or gone; NULL: it is still told so.",
        "last_observed_at": "When it was last seen so. A change came between this and valid_to.",
        **comments(brains.c.system_prompt, brains.c.personality),
        "prompt_length": "Characters of the system prompt.",
    }
    # Each window is of one persona, and so is each group: who asks for one persona does not wait
    # for the others.
    query = f"""
SELECT persona_id,
       (array_agg(name ORDER BY version))[1] AS name,
       prompt_version,
       min(valid_from) AS valid_from,
       nullif(max(coalesce(valid_to, 'infinity')), 'infinity') AS valid_to,
       max(last_observed_at) AS last_observed_at,
       min(system_prompt) AS system_prompt,
       min(personality) AS personality,
       length(min(system_prompt)) AS prompt_length
  FROM (SELECT *, count(*) FILTER (WHERE is_new)
                  OVER (PARTITION BY persona_id ORDER BY version) AS prompt_version
          FROM (SELECT *, is_there
                       AND (lag(is_there) OVER past IS NOT TRUE
                            OR lag(system_prompt) OVER past IS DISTINCT FROM system_prompt
                            OR lag(personality) OVER past IS DISTINCT FROM personality) AS is_new
                  FROM (SELECT version.entity_id AS persona_id, version.version,
                               version.valid_from, version.valid_to,
                               {last_observed("persona")} AS last_observed_at,
                               version.content_hash IS NOT NULL AS is_there,
                               version.change = 'pruned' AS is_pruned,
                               {_value(tables.personas.c.name)} AS name,
                               {_value(brains.c.system_prompt)} AS system_prompt,
                               {_value(brains.c.personality)} AS personality
{_FROM}
                         WHERE version.kind = 'persona') AS told
                WINDOW past AS (PARTITION BY persona_id ORDER BY version)) AS compared) AS counted
 WHERE is_there OR is_pruned
 GROUP BY persona_id, prompt_version
"""
    comment = (
        "Which prompt was live when: a row for as long as a persona was told the same, in system"
        " prompt and personality. A removal ends it; after one a new row begins."
    )
    return View("prompt_history", comment, columns, query)


def _history(
    the_map: Map,
    kind: Kind,
    comment: str,
    more_columns: dict[str, str] | None = None,
    more_selected: dict[str, str] | None = None,
) -> View:
    entity = the_map.entity_table(kind)
    (key,) = entity.primary_key.columns
    shown = fields(the_map, kind)
    columns = {
        **comments(key),
        **_HISTORY_COMMENTS,
        **{field.name: field.comment for field in shown},
        **(more_columns or {}),
    }
    selected = {
        key.name: "version.entity_id",
        **{column: f"version.{column}" for column in _HISTORY_COMMENTS},
        "last_observed_at": last_observed(kind),
        "first_seen_at": _FIRST_SEEN,
        "last_changed_at": "version.valid_from",
        **{
            field.name: (_array if field.is_list else _value)(field.column, the_map)
            for field in shown
        },
        **(more_selected or {}),
    }
    listed = ",\n       ".join(f"{sql} AS {name(column)}" for column, sql in selected.items())
    query = f"""
SELECT {listed}
{_FROM}
 WHERE version.kind = {text(kind)}
"""
    mapped = {key.name: key, **{field.name: field.column for field in shown}}
    return View(f"{kind}_history", comment, columns, query, mapped)


def _value(column: Column[Any], the_map: Map = SHIPPED) -> str:
    """SQL of what flattening puts into a column of a table with one row a document."""
    here = the_map.origin(column.table)
    row = f"({_DOCUMENT} -> {text(here.path)})" if here.path else _DOCUMENT
    plan = next(p for p in plans(the_map, here.kind, "stored") if p.table == column.table.name)
    cell = next(cell for cell in plan.cells if cell.name == column.name)
    if cell.path == EXTRA:
        return _unknown(row, plan.known)
    value = f"({' -> '.join([row, *(text(key) for key in cell.keys)])})"
    cast = cast_to(column.type, value, indexed=bool(column.primary_key or column.index))
    return f"regexp_replace({cast}, '^sha256:', '')" if cell.token else cast


def _array(column: Column[Any], the_map: Map) -> str:
    """SQL of what flattening puts into the rows of a list; NULL where there is none.

    Of a set what is repeated or does not fit has no row; in a list whose order counts it has.
    """
    keys = array_keys(the_map, column.table)
    array = f"({' -> '.join([_DOCUMENT, *map(text, keys)])})"
    element = cast_to(column.type, "item", indexed=bool(column.primary_key))
    items = f"jsonb_array_elements({array}) WITH ORDINALITY AS items (item, place)"
    if the_map.origin(column.table).shape == "list":
        listed = f"SELECT {element} FROM {items} ORDER BY place"
    else:
        listed = f"""
            SELECT value FROM (SELECT {element} AS value, place FROM {items} OFFSET 0) AS cast_
             WHERE value IS NOT NULL GROUP BY value ORDER BY min(place)"""
    return f"CASE jsonb_typeof({array}) WHEN 'array' THEN ARRAY({listed}) END"


def _unknown(value: str, known: Known) -> str:
    """SQL of the members that the map does not know, nested ones too; NULL when there are none."""
    listed = ", ".join(text(key) for key in known)
    parts = [f"{value} - ARRAY[{listed}]"]
    for key, below in known.items():
        if below:
            rest = _unknown(f"({value} -> {text(key)})", below)
            nested = f"jsonb_build_object({text(key)}, {rest})"
            parts.append(f"CASE WHEN {rest} IS NOT NULL THEN {nested} ELSE '{{}}' END")
    rest = f"nullif({' || '.join(parts)}, '{{}}')"
    return f"CASE jsonb_typeof({value}) WHEN 'object' THEN {rest} END"


def _count_of(table: Table) -> str:
    """SQL of how many rows of this table a persona's document stands for; NULL for a removal."""
    # What stayed inline of shared things has no usable id, or repeats one.
    array = f"({_DOCUMENT} -> {text(origin(table).path.removesuffix('[]'))})"
    found = uuid_of("(item -> 'id')")
    return f"""CASE WHEN version.content_hash IS NOT NULL THEN (
           SELECT count(DISTINCT CASE jsonb_typeof(item) WHEN 'object' THEN {found} END)
             FROM jsonb_array_elements(
                  CASE jsonb_typeof({array}) WHEN 'array' THEN {array} ELSE '[]' END) AS item)
       END"""


def _links() -> str:
    """SQL of how many share links a persona had: now as in the tables, then as its document says.

    Of one that two personas show only today's owner is kept.
    """
    return f"""CASE WHEN version.valid_to IS NULL AND version.content_hash IS NOT NULL THEN (
           SELECT count(*) FROM share_links AS link WHERE link.persona_id = version.entity_id)
       ELSE {_count_of(tables.share_links)} END"""


def last_observed(kind: Kind) -> str:
    """SQL of when the row `version` was last seen so. While it is open, each success confirms it.

    A shared document's is that of the personas that have it, as most confirmations make no row; but
    not of one that goes on showing another copy.
    """
    if kind == "persona":
        confirmed = """SELECT last_success_at FROM persona_sync_state AS state
              WHERE state.persona_id = version.entity_id"""
    else:
        users, column = users_of(kind)
        # The latest first: nearly always its copy is the one, and no other has to be looked up.
        confirmed = f"""SELECT latest.last_success_at
               FROM (SELECT state.persona_id, state.last_success_at
                       FROM {users.name} AS users
                       JOIN personas AS live ON live.persona_id = users.persona_id
                       JOIN persona_sync_state AS state ON state.persona_id = users.persona_id
                      WHERE users.{column.name} = version.entity_id AND live.removed_at IS NULL
                        AND state.last_success_at IS NOT NULL
                      ORDER BY state.last_success_at DESC
                     OFFSET 0) AS latest
              WHERE version.content_hash = {last_brought("latest.persona_id")}
              ORDER BY latest.last_success_at DESC
              LIMIT 1"""
    return f"""greatest(version.last_observed_at, CASE WHEN version.valid_to IS NULL THEN (
             {confirmed}) END)"""


def last_brought(persona_id: str) -> str:
    """SQL of the content that a persona last brought of what the row `version` is of."""
    return f"""(SELECT brought.content_hash
                      FROM observations AS brought
                     WHERE brought.persona_id = {persona_id} AND brought.kind = version.kind
                       AND brought.entity_id = version.entity_id
                     ORDER BY brought.observed_at DESC
                     LIMIT 1)"""


def users_of(kind: Kind) -> tuple[Table, Column[Any]]:
    """Where it stands which personas have a shared thing, and the column that refers to it."""
    (key,) = entity_table(kind).primary_key.columns
    return next(
        (table, column)
        for table in projections("persona")
        for column in table.columns
        if any(reference.column is key for reference in column.foreign_keys)
    )
