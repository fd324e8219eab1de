"""What changed since a moment, for the report: read out of the views of the past.

Each query goes by the index on when versions began, and lists no more than somebody would read.
"""

from __future__ import annotations

from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.report.digest import (
    ChangeDay,
    FieldChanges,
    Happening,
    Listed,
)
from etl.tables import KINDS, UUID_, entity_table, name_column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime
    from uuid import UUID

    from sqlalchemy import Connection, Row

    from etl.tables import Kind

LONGEST_NAME = 200
"""Characters of a name or path, which may be as long as the API likes; and paths as many."""
_PATHS = 20

SINCE = "valid_from BETWEEN :since AND '9999-12-31Z'"
"""Postgres knows later moments, and infinity, which no version of ours begins at."""

_DAYS = """
    SELECT CAST(valid_from AT TIME ZONE 'UTC' AS date) AS day, '{kind}' AS kind, change,
           count(*) AS versions
      FROM {kind}_history
     WHERE {since}
     GROUP BY 1, 3
"""

# `[<id>]` in a path is the element of that id: where several changed, the field counts once.
_FIELDS = """
    SELECT '{kind}' AS kind, count(*) AS versions, changed.path
      FROM {kind}_history
     CROSS JOIN LATERAL (
           SELECT DISTINCT CASE WHEN path LIKE '%[%' THEN regexp_replace(path, {id}, '[]', 'g')
                           ELSE path END AS path
             FROM unnest(changed_paths) AS listed (path)) AS changed
     WHERE {since} AND change IN ('updated', 'restored')
     GROUP BY changed.path
"""
_ID = "'[[][0-9a-fA-F-]{36}[]]'"

_HAPPENED = """
    SELECT version.valid_from AS at, {not_before} AS not_before, version.{key} AS entity_id,
           left(coalesce(version.{name}, before.{name}), :longest) AS name,
           left(before.{name}, :longest) AS name_before, version.version, version.change,
           ARRAY(SELECT left(path, :longest)
                   FROM unnest(version.changed_paths[1:{paths}]) AS listed (path)) AS paths
      FROM (SELECT * FROM {kind}_history
             WHERE {since} AND {until} AND change = :change
             ORDER BY valid_from DESC LIMIT :listed) AS version
      LEFT JOIN {kind}_history AS before
        ON before.{key} = version.{key} AND before.valid_to = version.valid_from
"""

# The index on when versions began does not tell created ones from others: for a first load of weeks
# ago all that came since would be gone through.
_UNTIL = "valid_from < (CAST(:last_day AS date) + 1) AT TIME ZONE 'UTC'"

NOT_BEFORE = """CASE WHEN before.last_observed_at BETWEEN '0001-01-02Z' AND '9999-12-31Z'
                THEN before.last_observed_at END"""
"""When `before` was last seen. Postgres may know times that Python does not."""

# Who is live now, and how many have it.
_USE = {
    "persona": """
        SELECT persona_id AS entity_id, left(name, :longest) AS name,
               CAST(removed_at IS NULL AS integer) AS personas
          FROM personas WHERE persona_id = ANY (:ids)""",
    "shared": """
        SELECT {key} AS entity_id, left({name}, :longest) AS name, persona_count AS personas
          FROM {table} WHERE {key} = ANY (:ids)""",
}

# LIMIT keeps the planner from joining: it takes the many for few, and goes through all for each.
_LOOKED_UP = "SELECT * FROM {view} AS one WHERE one.persona_id = changed.persona_id LIMIT 1"

# The API takes away what a voice was told when another takes its place, which nobody may have
# meant. Values are not looked up, as it may have been all personas: who has none now had some.
_VOICES_LOST = f"""
    SELECT left(persona.name, :longest) AS name, count(*) OVER () AS number
      FROM (SELECT DISTINCT persona_id
              FROM persona_history
             WHERE {SINCE} AND change IN ('updated', 'restored')
               AND 'voiceGenerationOptions' = ANY (changed_paths)
               AND changed_paths && '{{voice,voice.id}}') AS changed
     CROSS JOIN LATERAL ({_LOOKED_UP.format(view="personas")}) AS persona
      LEFT JOIN LATERAL ({_LOOKED_UP.format(view="voice_generation_options")}) AS kept ON true
     WHERE persona.removed_at IS NULL AND kept.persona_id IS NULL
     ORDER BY changed.persona_id LIMIT 1
"""  # noqa: S608  the texts above, nobody's input


def change_days(connection: Connection, since: datetime) -> list[ChangeDay]:
    """How many versions began, by day, kind and change; days in order."""
    query = " UNION ALL ".join(_DAYS.format(kind=kind, since=SINCE) for kind in KINDS)
    rows = connection.execute(text(f"{query} ORDER BY day, kind, change"), {"since": since})
    return [ChangeDay(row.day, row.kind, row.change, row.versions) for row in rows]


def changed_fields(connection: Connection, since: datetime, *, listed: int) -> Listed[FieldChanges]:
    """Which fields changed most often."""
    each = " UNION ALL ".join(_FIELDS.format(kind=k, since=SINCE, id=_ID) for k in KINDS)
    query = f"""
        SELECT count(*) OVER () AS number, kind, left(path, :longest) AS path, versions
          FROM ({each}) AS field ORDER BY versions DESC, kind, path LIMIT :listed
    """  # noqa: S608  the texts above, nobody's input
    asked = {"since": since, "longest": LONGEST_NAME, "listed": listed}
    rows = connection.execute(text(query), asked).all()
    return Listed(
        rows[0].number if rows else 0,
        [FieldChanges(row.kind, row.path, row.versions) for row in rows],
    )


def happenings(
    connection: Connection, since: datetime, days: Sequence[ChangeDay], *, listed: int
) -> Listed[Happening]:
    """The latest versions, so many of each sort; `days`: all of them, counted."""
    found = [
        happening
        for kind in KINDS
        for happening in _of_kind(
            connection,
            since,
            kind,
            # The days are in order.
            {day.change: day.day for day in days if day.kind == kind},
            listed,
        )
    ]
    found.sort(key=attrgetter("kind", "entity_id"))
    found.sort(key=attrgetter("at"), reverse=True)
    return Listed(sum(day.versions for day in days), found)


def _of_kind(
    connection: Connection, since: datetime, kind: Kind, last_days: Mapping[str, date], listed: int
) -> list[Happening]:
    """The latest of a kind, by what became of it, which was last on that day."""
    key, name = _key_and_name(kind)
    query = text(
        _HAPPENED.format(
            kind=kind,
            key=key,
            name=name,
            since=SINCE,
            until=_UNTIL,
            not_before=NOT_BEFORE,
            paths=_PATHS,
        )
    )
    asked = {"since": since, "longest": LONGEST_NAME, "listed": listed}
    rows = list(
        chain.from_iterable(
            connection.execute(query, asked | {"change": change, "last_day": last_day})
            for change, last_day in sorted(last_days.items())
        )
    )
    use = _use(connection, kind, {row.entity_id for row in rows})
    return [_happening(kind, row, use.get(row.entity_id)) for row in rows]


def _happening(kind: Kind, row: Row[Any], present: Row[Any] | None) -> Happening:
    renamed = row.name_before if row.change in {"updated", "restored"} else row.name
    return Happening(
        at=row.at,
        not_before=row.not_before,
        kind=kind,
        entity_id=row.entity_id,
        name=row.name if row.name is not None else present and present.name,
        name_before=renamed,
        version=row.version,
        change=row.change,
        paths=row.paths,
        personas=present.personas if present else 0,
    )


def _use(connection: Connection, kind: Kind, ids: set[UUID]) -> dict[UUID, Row[Any]]:
    """How these stand now. Each is looked up once: to count who has a popular voice takes long."""
    key, name = _key_and_name(kind)
    query = _USE["persona" if kind == "persona" else "shared"]
    query = query.format(key=key, name=name, table=entity_table(kind).name)
    asked = text(query).bindparams(bindparam("ids", list(ids), type_=ARRAY(UUID_)))
    return {row.entity_id: row for row in connection.execute(asked, {"longest": LONGEST_NAME})}


def _key_and_name(kind: Kind) -> tuple[str, str]:
    """The columns of the views that tell which it is, and what it is called."""
    (key,) = entity_table(kind).primary_key.columns
    return key.name, name_column(kind).name


def lost_voice_options(connection: Connection, since: datetime) -> Row[Any] | None:
    """Of whom a new voice cost options that nobody has set since: the first, and how many."""
    asked = {"since": since, "longest": LONGEST_NAME}
    return connection.execute(text(_VOICES_LOST), asked).one_or_none()
