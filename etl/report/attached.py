"""The views of what personas have: avatars, voices, tools, knowledge, share links and options.

They show each column that the map has for it, so that nobody needs the tables to read. What a view
adds of its own keeps its name: a column of the map that is called alike has its table's before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl import tables
from etl.proposal.naming import is_plain
from etl.report.fields import element_of, fields, free_name, one_of
from etl.report.history import last_brought, last_observed, users_of
from etl.report.ours import name, text
from etl.report.present import read_list
from etl.report.views import View, comments

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Column, Table

    from etl.map import Map
    from etl.tables import Kind

_IS_LIVE = "Whether the persona is live: the API shows it, or did when last asked."
_PERSONA_NAME = "The persona's name."

_STATE = """CASE WHEN persona.removed_at IS NOT NULL THEN 'persona removed'
            WHEN link.enabled IS FALSE THEN 'disabled'
            WHEN link.expires_at <= now() THEN 'expired'
            WHEN coalesce(link.usage_count, 0) >= link.usage_limit THEN 'used up'
            ELSE 'open'
       END"""

# Counts are as large as the API likes.
_USES_LEFT = """CASE WHEN link.usage_limit IS NOT NULL
            THEN greatest(CAST(link.usage_limit AS numeric) - coalesce(link.usage_count, 0), 0)
       END"""


def attached_views(the_map: Map) -> Iterator[View]:
    """All of them, in the order in which they are made and listed."""
    for kind in tables.SHARED.values():
        yield _shared(the_map, kind)
    for table in (tables.persona_tools, tables.persona_knowledge_groups):
        yield _uses(the_map, table)
    yield _share_links(the_map)
    for table in the_map.projections("persona"):
        # The brain's columns are the persona's own, in the view `personas`.
        if the_map.origin(table).shape == "part" and table.name != tables.brains.name:
            yield _options(table)


def _shared(the_map: Map, kind: Kind) -> View:
    """A row an avatar, voice, tool or knowledge group, and how many use it."""
    entity = the_map.entity_table(kind)
    (key,) = entity.primary_key.columns
    shown = fields(the_map, kind)
    kept = {field.column for field in shown}
    own = [c for c in entity.columns if c not in kept]
    users, refers = users_of(kind)
    columns = {
        **comments(*own),
        **{field.name: field.comment for field in shown},
        "persona_count": "How many live personas have it.",
        "last_observed_at": "When a persona was last seen to have it as it stands here.",
    }
    one = one_of(entity)
    latest = last_brought("live_users.latest_id")
    selected = {
        **{column.name: f"{one}.{name(column.name)}" for column in own},
        **{
            field.name: read_list(field, the_map, f"{one}.{key.name}")
            if field.is_list
            else f"{one}.{name(field.column.name)}"
            for field in shown
        },
        "persona_count": "coalesce(live_users.persona_count, 0)",
        # Nearly always the latest shows the very copy; else the others are looked up.
        "last_observed_at": f"""CASE WHEN version.content_hash = {latest}
            THEN greatest(version.last_observed_at, live_users.last_success_at)
            ELSE {last_observed(kind)} END""",
    }
    query = f"""
SELECT {_listed(selected)}
  FROM {entity.name} AS {one}
  LEFT JOIN document_versions AS version
    ON version.kind = {text(kind)} AND version.entity_id = {one}.{key.name}
   AND version.valid_to IS NULL
  LEFT JOIN {_live_users(users, refers)} AS live_users
    ON live_users.thing_id = {one}.{key.name}
"""
    article = "an" if kind == "avatar" else "a"
    comment = (
        f"A row {article} {kind.replace('_', ' ')}, as last seen, and how many personas have it."
    )
    mapped = {c.name: c for c in own} | {field.name: field.column for field in shown}
    return View(entity.name, comment, columns, query, mapped)


def _live_users(users: Table, refers: Column[Any]) -> str:
    """SQL of a row each thing that live personas have: how many, and who was seen last.

    All at once, as the few shared things have many users; of one its own alone are looked up.
    """
    joined, persona = "", "used"
    if users.name != tables.personas.name:
        joined, persona = "JOIN personas AS live ON live.persona_id = used.persona_id", "live"
    return f"""
       (SELECT used.{refers.name} AS thing_id,
               count(*) AS persona_count,
               max(state.last_success_at) AS last_success_at,
               (array_agg(used.persona_id ORDER BY state.last_success_at DESC NULLS LAST))[1]
                   AS latest_id
          FROM {users.name} AS used {joined}
          LEFT JOIN persona_sync_state AS state ON state.persona_id = used.persona_id
         WHERE {persona}.removed_at IS NULL
         GROUP BY used.{refers.name})"""


def _uses(the_map: Map, table: Table) -> View:
    """A row a persona and a thing that it has, with the names of both."""
    refers = next(c for c in table.columns if c.foreign_keys and c.name != "persona_id")
    (key,) = refers.foreign_keys
    entity = the_map.tables[key.column.table.name]
    one = one_of(entity)
    more = {f"{one}_name": entity.c["name"]}
    if "type" in entity.c:
        more[f"{one}_type"] = entity.c["type"]
    columns = {
        **comments(table.c.persona_id),
        "persona_name": _PERSONA_NAME,
        "is_live": _IS_LIVE,
        **comments(refers),
        **comments(**more),
        **comments(table.c.position),
    }
    selected = {
        "persona_id": "used.persona_id",
        "persona_name": "persona.name",
        "is_live": "persona.removed_at IS NULL",
        refers.name: f"used.{refers.name}",
        **{called: f"{one}.{name(column.name)}" for called, column in more.items()},
        "position": "used.position",
    }
    query = f"""
SELECT {_listed(selected)}
  FROM {table.name} AS used
  JOIN personas AS persona ON persona.persona_id = used.persona_id
  JOIN {entity.name} AS {one} ON {one}.{key.column.name} = used.{refers.name}
"""
    told = f"A row a persona and a {one.replace('_', ' ')} that it has, with the names of both."
    mapped = {c.name: c for c in (table.c.persona_id, refers, table.c.position)} | more
    return View(table.name, told, columns, query, mapped)


def _share_links(the_map: Map) -> View:
    """A row a share link, with whether it opens and where."""
    links = the_map.tables[tables.share_links.name]
    ours = {
        "persona_name": _PERSONA_NAME,
        "is_live": _IS_LIVE,
        "state": "open; or why it does not open: disabled, expired, used up, persona removed.",
        "uses_left": "How often it can still be opened; NULL: as often as one likes.",
    }
    own = _named(links, ours)
    lists = _lists_of_links(the_map, {*ours, *own})
    columns = {
        **{called: c.comment or "" for called, c in own.items()},
        **{called: table.comment or "" for called, table in lists.items()},
        **ours,
    }
    selected = {
        **{called: f"link.{name(column.name)}" for called, column in own.items()},
        "persona_name": "persona.name",
        "is_live": "persona.removed_at IS NULL",
        **{
            called: f"""ARRAY(SELECT item.{name(element_of(table).name)}
               FROM {name(table.name)} AS item
              WHERE item.share_link_id = link.share_link_id ORDER BY item.position)"""
            for called, table in lists.items()
        },
        "state": _STATE,
        "uses_left": _USES_LEFT,
    }
    query = f"""
SELECT {_listed(selected)}
  FROM share_links AS link
  JOIN personas AS persona ON persona.persona_id = link.persona_id
"""
    comment = "A row a share link, with the persona's name, where it opens and whether it does now."
    mapped = own | {called: element_of(table) for called, table in lists.items()}
    return View(links.name, comment, columns, query, mapped)


def _lists_of_links(the_map: Map, taken: set[str]) -> dict[str, Table]:
    """The tables of the lists that each share link has, under names that are not taken."""
    path = the_map.origin(the_map.tables[tables.share_links.name]).path
    named: dict[str, Table] = {}
    for table in the_map.projections("persona"):
        if the_map.origin(table).path.startswith(f"{path}."):
            short = table.name.removeprefix("share_link_")
            wanted = short if is_plain(short) else table.name
            called = free_name(wanted, table.name, taken | named.keys())
            named[called] = table
    return named


def _options(table: Table) -> View:
    """A row a persona that has such options."""
    ours = {"persona_name": _PERSONA_NAME, "is_live": _IS_LIVE}
    own = _named(table, ours)
    columns = {**{called: c.comment or "" for called, c in own.items()}, **ours}
    selected = {
        **{called: f"options.{name(column.name)}" for called, column in own.items()},
        "persona_name": "persona.name",
        "is_live": "persona.removed_at IS NULL",
    }
    query = f"""
SELECT {_listed(selected)}
  FROM {name(table.name)} AS options
  JOIN personas AS persona ON persona.persona_id = options.persona_id
"""
    return View(table.name, table.comment or "", columns, query, own)


def _named(table: Table, ours: Collection[str]) -> dict[str, Column[Any]]:
    """The columns of the map, each under a name that is not ours."""
    taken = set(ours)
    named: dict[str, Column[Any]] = {}
    for column in table.columns:
        called = free_name(column.name, f"{one_of(table)}_{column.name}", taken)
        taken.add(called)
        named[called] = column
    return named


def _listed(selected: dict[str, str]) -> str:
    return ",\n       ".join(f"{sql} AS {name(called)}" for called, sql in selected.items())
