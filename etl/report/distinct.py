"""The views of what is in use, each once: the prompts, and whole configurations.

They are of the live personas, and tell who has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import DateTime

from etl import tables
from etl.map import ways
from etl.report.fields import fields, free_name
from etl.report.ours import name
from etl.report.present import join_parts, read
from etl.report.views import View, comments

if TYPE_CHECKING:
    from etl.map import Map
    from etl.report.fields import Field

# Members that tell a persona from others that are set up alike, with all that is in them.
_IDENTITY = {"name", "description", "createdAt", "primaryShareLink"}
# Texts of moments must not hang on the session's time zone.
_UTC = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""

_HAVE_IT = {
    "persona_count": "How many live personas have it.",
    "persona_ids": "Which those are.",
    "persona_names": "Their names, in the same order.",
}

_WHO = """count(*) AS persona_count,
       array_agg(persona.persona_id ORDER BY persona.persona_id) AS persona_ids,
       array_agg(persona.name ORDER BY persona.persona_id) AS persona_names"""


def prompts_view() -> View:
    """A row a system prompt."""
    prompt = tables.brains.c.system_prompt
    columns = {
        "prompt_id": "The prompt's SHA-256, in hexadecimal.",
        **comments(prompt),
        "prompt_length": "Its characters.",
        **_HAVE_IT,
    }
    query = f"""
SELECT encode(sha256(convert_to(brain.system_prompt, 'UTF8')), 'hex') AS prompt_id,
       brain.system_prompt,
       length(brain.system_prompt) AS prompt_length,
       {_WHO}
  FROM brains AS brain
  JOIN personas AS persona ON persona.persona_id = brain.persona_id
 WHERE persona.removed_at IS NULL AND brain.system_prompt IS NOT NULL
 GROUP BY brain.system_prompt
"""
    comment = "The system prompts in use: a row each, with the live personas that have it."
    return View("prompts", comment, columns, query, {prompt.name: prompt})


def configurations_view(the_map: Map) -> View:
    """A row a configuration: all that a persona is set up with."""
    shown = [field for field in fields(the_map, "persona") if _is_set_up(field, the_map)]
    settings = {
        f"{key}s": f"""ARRAY(SELECT used.{key} FROM {table.name} AS used
                      WHERE used.persona_id = persona.persona_id ORDER BY used.{key})"""
        for table, key in (
            (tables.persona_tools, "tool_id"),
            (tables.persona_knowledge_groups, "knowledge_group_id"),
        )
    }
    for field in shown:
        called = free_name(field.name, f"persona_{field.name}", set(settings))
        settings[called] = _comparable(field, the_map)
    selected = ",\n               ".join(f"{sql} AS {name(key)}" for key, sql in settings.items())
    columns = {
        "configuration_id": "What tells it from others: the SHA-256 of its settings as text.",
        "settings": "The columns of personas that it is made of, tool_ids and knowledge_group_ids.",
        **_HAVE_IT,
    }
    # They are told apart by the digest, which is short; and OFFSET keeps the settings from being
    # put together twice.
    query = f"""
SELECT encode(persona.digest, 'hex') AS configuration_id,
       CAST(min(persona.settings) AS jsonb) AS settings,
       {_WHO}
  FROM (SELECT told.persona_id, told.name, told.settings,
               sha256(convert_to(told.settings, 'UTF8')) AS digest
          FROM (SELECT persona.persona_id, persona.name,
                       CAST(to_jsonb(setting.*) AS text) AS settings
                  FROM personas AS persona
{join_parts(shown)}
                 CROSS JOIN LATERAL (
        SELECT {selected}) AS setting
                 WHERE persona.removed_at IS NULL
                OFFSET 0) AS told) AS persona
 GROUP BY persona.digest
"""
    comment = (
        "The distinct configurations in use: a row each, with the live personas that have it. Name,"
        " description and share links are each persona's own and no part of it, nor is what the map"
        " does not know."
    )
    return View("configurations", comment, columns, query)


def _is_set_up(field: Field, the_map: Map) -> bool:
    path = the_map.path(field.column)
    return path is not None and _IDENTITY.isdisjoint(ways(path))


def _comparable(field: Field, the_map: Map) -> str:
    """SQL of a field, whose text is the same in every session."""
    value = read(field, the_map)
    if not isinstance(field.column.type, DateTime):
        return value
    if field.is_list:
        return f"""(SELECT array_agg(to_char(moment AT TIME ZONE 'UTC', {_UTC}) ORDER BY place)
                 FROM unnest({value}) WITH ORDINALITY AS moments (moment, place))"""
    return f"to_char({value} AT TIME ZONE 'UTC', {_UTC})"
