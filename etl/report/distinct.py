"""The views of what is in use, each once: the prompts, and whole configurations.

They are of the live personas, and tell who has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl import tables
from etl.report.fields import fields, is_extra
from etl.report.ours import name
from etl.report.present import join_parts, read
from etl.report.views import View, comments

if TYPE_CHECKING:
    from etl.map import Map
    from etl.report.fields import Field

# What tells a persona from others that are set up alike.
_IDENTITY = {
    *("name", "description", "created_at"),
    *("primary_share_link_token_sha256", "primary_share_link_enabled"),
}

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
    shown = [field for field in fields(the_map, "persona") if _is_set_up(field)]
    selected = ",\n               ".join(
        [f"{read(field, the_map)} AS {name(field.name)}" for field in shown]
        + [
            f"""ARRAY(SELECT used.{key} FROM {table.name} AS used
                      WHERE used.persona_id = persona.persona_id ORDER BY used.{key}) AS {key}s"""
            for table, key in (
                (tables.persona_tools, "tool_id"),
                (tables.persona_knowledge_groups, "knowledge_group_id"),
            )
        ]
    )
    columns = {
        "configuration_id": "What tells it from others: the SHA-256 of its settings as text.",
        "settings": "The columns of personas that it is made of, tool_ids and knowledge_group_ids.",
        **_HAVE_IT,
    }
    query = f"""
SELECT encode(sha256(convert_to(CAST(persona.settings AS text), 'UTF8')), 'hex')
           AS configuration_id,
       persona.settings,
       {_WHO}
  FROM (SELECT persona.persona_id, persona.name, to_jsonb(setting) AS settings
          FROM personas AS persona
{join_parts(shown)}
         CROSS JOIN LATERAL (
        SELECT {selected}) AS setting
         WHERE persona.removed_at IS NULL) AS persona
 GROUP BY persona.settings
"""
    comment = (
        "The distinct configurations in use: a row each, with the live personas that have it. Name,"
        " description and share links are each persona's own and no part of it, nor is what the map"
        " does not know."
    )
    return View("configurations", comment, columns, query)


def _is_set_up(field: Field) -> bool:
    return field.name not in _IDENTITY and not is_extra(field.column)
