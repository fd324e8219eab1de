"""The views of the personas as they stand, and of how fresh that is.

What they have is in `attached.py`, what became of them in each run in `ledger.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl import tables
from etl.report.fields import array_keys, fields
from etl.report.ours import name, text
from etl.report.views import View, comments
from etl.tables import owner_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etl.map import Map
    from etl.report.fields import Field

# A persona is confirmed without a new observation: the later of the two is when it was last seen.
_LAST_OBSERVED = "greatest(version.last_observed_at, state.last_success_at)"

_AGE = "CASE WHEN isfinite(state.last_success_at) THEN now() - state.last_success_at END"
_AGE_COMMENT = "How long ago the last success was; NULL: there was none yet."

_JOINED = "  LEFT JOIN {table} ON {table}.persona_id = persona.persona_id"

_VERSION_IN_FORCE = """
  LEFT JOIN document_versions AS version
    ON version.kind = 'persona' AND version.entity_id = {persona_id} AND version.valid_to IS NULL
""".strip("\n")


def personas_view(the_map: Map) -> View:
    """A row a persona, as wide as reports want it."""
    personas, state = the_map.tables["personas"], tables.persona_sync_state
    avatars, voices = tables.avatars, tables.voices
    shown = fields(the_map, "persona")
    own = [c for c in personas.c if c not in {field.column for field in shown}]
    columns = {
        **comments(*own),
        **{field.name: field.comment for field in shown},
        **comments(avatar_name=avatars.c.display_name),
        **comments(voice_name=voices.c.display_name, voice_provider=voices.c.provider),
        "tool_count": "How many tools it can call.",
        "knowledge_group_count": "How many knowledge groups it answers from.",
        "share_link_count": "How many share links it has, whether they open or not.",
        "prompt_length": "Characters of the system prompt.",
        "last_observed_at": "When the API last showed it as it stands here, or as removed.",
        **comments(state.c.last_success_at, state.c.last_attempt_at, state.c.last_outcome),
        "age": _AGE_COMMENT,
    }
    # Counts and lists are looked up a persona at a time: whoever asks for one must not wait for
    # those of all.
    selected = ",\n       ".join(
        [f"persona.{name(column.name)}" for column in own]
        + [f"{read(field, the_map)} AS {name(field.name)}" for field in shown]
    )
    query = f"""
SELECT {selected},
       avatar.display_name AS avatar_name,
       voice.display_name AS voice_name,
       voice.provider AS voice_provider,
       (SELECT count(*) FROM persona_tools AS tool
         WHERE tool.persona_id = persona.persona_id) AS tool_count,
       (SELECT count(*) FROM persona_knowledge_groups AS knowledge
         WHERE knowledge.persona_id = persona.persona_id) AS knowledge_group_count,
       (SELECT count(*) FROM share_links AS link
         WHERE link.persona_id = persona.persona_id) AS share_link_count,
       length(brains.system_prompt) AS prompt_length,
       {_LAST_OBSERVED} AS last_observed_at,
       state.last_success_at,
       state.last_attempt_at,
       state.last_outcome,
       {_AGE} AS age
  FROM personas AS persona
{join_parts(shown)}
  LEFT JOIN avatars AS avatar ON avatar.avatar_id = persona.avatar_id
  LEFT JOIN voices AS voice ON voice.voice_id = persona.voice_id
{_VERSION_IN_FORCE.format(persona_id="persona.persona_id")}
  LEFT JOIN persona_sync_state AS state ON state.persona_id = persona.persona_id
"""
    comment = "A wide row a persona: as last seen, with names, counts and how fresh that is."
    mapped = {c.name: c for c in own} | {field.name: field.column for field in shown}
    return View("personas", comment, columns, query, mapped)


def join_parts(shown: Iterable[Field]) -> str:
    """SQL that joins `persona` with the tables of its parts, of which each has a row at most.

    Left joins, on a key: who does not ask for their columns does not wait for them either.
    """
    parts = {f.column.table.name for f in shown if not f.is_list} - {tables.personas.name}
    return "\n".join(_JOINED.format(table=table) for table in sorted(parts))


def read(field: Field, the_map: Map) -> str:
    """SQL of a field of a persona, out of the table that has it or `persona` itself."""
    table = field.column.table
    if field.is_list:
        return read_list(field, the_map, "persona.persona_id")
    return f"{'persona' if table.name == 'personas' else table.name}.{name(field.column.name)}"


def read_list(field: Field, the_map: Map, entity_id: str) -> str:
    """SQL of the array that a list is shown as, given SQL of whose it is."""
    table = field.column.table
    kind, owner = the_map.origin(table).kind, owner_of(table)
    if owner is None:
        raise ValueError(f"{table.name} is no list of a document")
    # No rows are there of an empty list and of none at all: which it is the document knows, of a
    # removed persona the last one.
    array = " -> ".join(text(key) for key in array_keys(the_map, table))
    return f"""coalesce(
           (SELECT array_agg(item.{name(field.column.name)} ORDER BY item.position)
              FROM {name(table.name)} AS item WHERE item.{owner.name} = {entity_id}),
           (SELECT CASE stored.document -> {array} WHEN '[]' THEN CAST('{{}}' AS {field.type}) END
              FROM document_versions AS last
              JOIN documents AS stored
                ON stored.kind = last.kind AND stored.content_hash = last.content_hash
             WHERE last.kind = {text(kind)} AND last.entity_id = {entity_id}
             ORDER BY last.version DESC LIMIT 1))"""


def freshness_view() -> View:
    """A row a persona that is known: it was ever asked for, or files tell of it."""
    state = tables.persona_sync_state
    columns = {
        **comments(state.c.persona_id, tables.personas.c.name),
        "is_live": "Whether the API shows it; false too when it was never seen.",
        **comments(tables.personas.c.removed_at),
        **comments(state.c.last_attempt_at, state.c.last_success_at),
        "last_observed_at": "When the API last showed it as it stands here, or as removed.",
        **comments(state.c.last_outcome, state.c.consecutive_failures),
        "age": _AGE_COMMENT,
        "last_error": "What went wrong in the last attempt; NULL: nothing, or nothing to tell.",
    }
    # An append of both, not a full join: whoever asks for some gets them through indexes.
    query = f"""
SELECT known.persona_id,
       persona.name,
       persona.persona_id IS NOT NULL AND persona.removed_at IS NULL AS is_live,
       persona.removed_at,
       state.last_attempt_at,
       state.last_success_at,
       {_LAST_OBSERVED} AS last_observed_at,
       state.last_outcome,
       state.consecutive_failures,
       {_AGE} AS age,
       attempt.message AS last_error
  FROM (SELECT asked.persona_id FROM persona_sync_state AS asked
         UNION ALL
        SELECT loaded.persona_id FROM personas AS loaded
         WHERE NOT EXISTS (SELECT FROM persona_sync_state AS asked
                            WHERE asked.persona_id = loaded.persona_id)) AS known
  LEFT JOIN persona_sync_state AS state ON state.persona_id = known.persona_id
  LEFT JOIN run_items AS attempt
    ON attempt.run_id = state.last_run_id AND attempt.persona_id = state.persona_id
  LEFT JOIN personas AS persona ON persona.persona_id = known.persona_id
{_VERSION_IN_FORCE.format(persona_id="known.persona_id")}
"""
    comment = (
        "Is the data fresh? A row a persona that was asked for, seen or not, or came in a file."
    )
    return View("freshness", comment, columns, query)
