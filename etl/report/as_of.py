"""The personas as they stood at any moment: a function with the columns of the view of today's.

It reads views alone, so that whoever may read those may ask it. Postgres puts its body into the
query that calls it, and there a condition on `persona_id` meets the indexes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl import tables
from etl.report.fields import fields, type_of
from etl.report.functions import REPORTING, Function
from etl.report.ours import name
from etl.report.present import personas_view

if TYPE_CHECKING:
    from etl.map import Map

# Something of what stood there is not kept. NULL: there was no avatar, or no voice.
_IS_PRUNED = "'pruned' IN (past.change, avatar.change, voice.change)"

# What the persona's version of that moment doesn't say itself, and what it is looked up by.
_ELSEWHERE = {
    "persona_id": "persona.persona_id",
    "updated_at": "past.source_updated_at",
    "last_changed_at": "CASE WHEN past.change <> 'pruned' THEN past.valid_from END",
    "last_observed_at": "CASE WHEN past.change <> 'pruned' THEN past.last_observed_at END",
    "removed_at": "NULL::timestamp with time zone",
    "avatar_name": "avatar.display_name",
    "voice_name": "voice.display_name",
    "voice_provider": "voice.provider",
    "prompt_length": "length(past.system_prompt)",
    "last_success_at": "NULL::timestamp with time zone",
    "age": "NULL::interval",
    "last_attempt_at": "NULL::timestamp with time zone",
    "last_outcome": f"CASE WHEN {_IS_PRUNED} THEN 'not kept' END",
}


def personas_as_of(the_map: Map) -> Function:
    """The function, whose columns follow the map."""
    columns = _columns(the_map)
    listed = ",\n       ".join(
        f"{_ELSEWHERE.get(column, f'past.{name(column)}')} AS {name(column)}" for column in columns
    )
    body = f"""
SELECT {listed},
       CASE WHEN {_IS_PRUNED} IS NOT TRUE THEN
           least(past.last_observed_at, avatar.last_observed_at, voice.last_observed_at)
       END AS observed_until
  FROM {REPORTING}.personas AS persona
 CROSS JOIN LATERAL ({_version("persona", "persona.persona_id")}) AS past
  LEFT JOIN LATERAL ({_version("avatar", "past.avatar_id")}) AS avatar ON true
  LEFT JOIN LATERAL ({_version("voice", "past.voice_id")}) AS voice ON true
 WHERE past.change <> 'removed'
"""
    comment = (
        "The personas as they stood at a moment, in the columns of the view personas: those that"
        " had been seen by then and were not removed, each with the avatar and the voice of that"
        " moment. updated_at is the version's source_updated_at. observed_until says until when"
        " persona, avatar and voice all were seen to be so: what is asked beyond it is likely and"
        " not known. last_success_at, last_attempt_at and age are not kept for the past,"
        " and NULL. So is last_outcome, but"
        " where what stood there was pruned it says 'not kept': of a persona whose version is not"
        " kept there are persona_id and first_seen_at, whether it was removed or not; of a version"
        " that is, the avatar's or the voice's part is lacking. observed_until is NULL then."
    )
    returned = ", ".join(f"{name(column)} {type_}" for column, type_ in columns.items())
    return Function(
        "personas_as_of",
        "moment timestamp with time zone",
        f"TABLE ({returned}, observed_until timestamp with time zone)",
        comment,
        body,
        "sql",
        "STABLE",
    )


def _columns(the_map: Map) -> dict[str, str]:
    """The columns of the view of today's personas, each with its type."""
    personas, state = the_map.tables["personas"], tables.persona_sync_state
    types = {
        **{column.name: type_of(column) for column in (*personas.c, *state.c)},
        **{field.name: field.type for field in fields(the_map, "persona")},
        "avatar_name": type_of(tables.avatars.c.display_name),
        "voice_name": type_of(tables.voices.c.display_name),
        "voice_provider": type_of(tables.voices.c.provider),
        **dict.fromkeys(("tool_count", "knowledge_group_count", "share_link_count"), "bigint"),
        "prompt_length": "integer",
        "last_observed_at": "timestamp with time zone",
        "age": "interval",
    }
    return {column: types[column] for column in personas_view(the_map).columns}


def _version(kind: str, entity: str) -> str:
    """The version of that moment: the last that began by then. There are no gaps.

    The moment by its place, since a column may be called like it.
    """
    return f"""
       SELECT * FROM {REPORTING}.{kind}_history AS version
        WHERE version.{kind}_id = {entity} AND version.valid_from <= $1
        ORDER BY version.valid_from DESC LIMIT 1"""
