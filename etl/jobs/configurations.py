"""Counts the distinct configurations of live personas, and says which differ in one setting.

It reads the reporting views alone and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from etl.jobs.prompts import holders_in
from etl.jobs.view_session import reading_views
from etl.payload.decode import loads
from etl.report.one_apart import one_apart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from etl.jobs.prompts import Holder
    from etl.report.one_apart import OneApart
    from etl.settings import Settings

_ROWS_AT_ONCE = 500

# A long value is as good as its hash, to tell it from others.
_ALL = """
SELECT configuration_id, persona_count,
       (SELECT jsonb_object_agg(key, CASE WHEN length(CAST(value AS text)) <= 64
                                          THEN CAST(value AS text)
                                          ELSE encode(sha256(convert_to(
                                              CAST(value AS text), 'UTF8')),
                                                      'hex') END)
          FROM jsonb_each(settings)) AS settings
  FROM configurations
 ORDER BY persona_count DESC, configuration_id
"""
_TO_SHOW = """
SELECT configuration_id, settings, persona_ids, persona_names
  FROM configurations
 WHERE configuration_id = ANY (CAST(:ids AS text[]))
"""


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that live personas are set up with alike, and who they are."""

    configuration_id: str
    settings: dict[str, Any]
    holders: list[Holder]


@dataclass(frozen=True, slots=True)
class Apart:
    """Configurations that agree in all but one setting; of them the first, of most personas."""

    setting: str
    configurations: int
    personas: int
    first: list[Configuration]


@dataclass(frozen=True, slots=True)
class Configurations:
    """How many distinct ones there are, and what is to be told of them."""

    distinct: int
    personas: int
    shared: int
    """Those that more than one persona has."""
    most_shared: list[Configuration]
    one_apart: int
    """Sets of configurations that agree in all but one setting."""
    first_one_apart: list[Apart]


def configurations(settings: Settings, *, url: str, limit: int) -> Configurations:
    """The distinct configurations; of whatever there may be many, so many are told.

    Raises DatabaseError when the views can't be read.
    """
    schema = settings.database.schema_
    with reading_views(url, schema, json_deserializer=loads) as connection:
        ids: list[str] = []
        counts: list[int] = []

        def all_settings() -> Iterator[dict[str, str]]:
            options = {"yield_per": _ROWS_AT_ONCE}
            for row in connection.execute(sa.text(_ALL), execution_options=options):
                ids.append(row.configuration_id)
                counts.append(row.persona_count)
                yield row.settings

        apart = one_apart(all_settings())

        def personas(group: OneApart) -> int:
            return sum(counts[number] for number in group.numbers)

        apart.sort(key=lambda group: (-personas(group), group.setting, group.numbers))
        shared = sum(count > 1 for count in counts)
        most_shared = range(min(shared, limit))
        numbers = {number for group in apart[:limit] for number in group.numbers[:limit]}
        shown = _shown(connection, [ids[number] for number in numbers.union(most_shared)])
        return Configurations(
            distinct=len(ids),
            personas=sum(counts),
            shared=shared,
            most_shared=[shown[ids[number]] for number in most_shared],
            one_apart=len(apart),
            first_one_apart=[
                Apart(
                    group.setting,
                    len(group.numbers),
                    personas(group),
                    [shown[ids[number]] for number in group.numbers[:limit]],
                )
                for group in apart[:limit]
            ],
        )


def _shown(connection: Connection, ids: list[str]) -> dict[str, Configuration]:
    rows = connection.execute(sa.text(_TO_SHOW), {"ids": ids})
    return {
        row.configuration_id: Configuration(
            row.configuration_id,
            row.settings,
            holders_in(row),
        )
        for row in rows
    }
