"""Who was told something else since a moment, for the report: read out of the view of the past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from etl.jobs.report_changes import LONGEST_NAME, NOT_BEFORE, SINCE
from etl.report.digest import LONGEST_PROMPT, Listed, PromptChange
from etl.report.word_diff import words_gone_and_come

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

_PROMPT, _BRAIN = "brain.systemPrompt", "brain"

# The paths say it; only where the whole brain came or went the texts have to be looked at.
_TOLD = f"""
    version.{SINCE} AND version.change IN ('updated', 'restored')
       AND '{_PROMPT}' = ANY (version.changed_paths)
"""
_TOLD_OR_NOT = f"""
    version.{SINCE} AND version.change IN ('updated', 'restored')
       AND '{_BRAIN}' = ANY (version.changed_paths)
       AND '{_PROMPT}' <> ALL (version.changed_paths)
       AND version.system_prompt IS DISTINCT FROM before.system_prompt
"""

_AND_BEFORE = """
      FROM persona_history AS version
     CROSS JOIN LATERAL (
            SELECT * FROM persona_history AS earlier
             WHERE earlier.persona_id = version.persona_id AND earlier.version < version.version
               AND earlier.change <> 'removed'
             ORDER BY earlier.version DESC LIMIT 1) AS before
"""

_PROMPTS_COUNTED = f"""
    SELECT (SELECT count(*) FROM persona_history AS version WHERE {_TOLD})
         + (SELECT count(*) {_AND_BEFORE} WHERE {_TOLD_OR_NOT})
"""  # noqa: S608  the texts above, nobody's input

_PROMPTS = f"""
    SELECT version.persona_id, left(version.name, :longest) AS name, version.valid_from AS at,
           {NOT_BEFORE} AS not_before,
           left(before.system_prompt, :most) AS old, left(version.system_prompt, :most) AS new,
           length(before.system_prompt) AS old_length, length(version.system_prompt) AS new_length,
           before.change = 'pruned' AS is_pruned
    {_AND_BEFORE}
     WHERE {_TOLD} OR {_TOLD_OR_NOT}
     ORDER BY version.valid_from DESC LIMIT :listed
"""


def prompt_changes(connection: Connection, since: datetime, *, listed: int) -> Listed[PromptChange]:
    """Who was told something else, the newest first. What only the API's shape did is left out."""
    count = connection.execute(text(_PROMPTS_COUNTED), {"since": since}).scalar_one()
    asked = {"since": since, "listed": listed, "longest": LONGEST_NAME, "most": LONGEST_PROMPT}
    return Listed(count, [_told(row) for row in connection.execute(text(_PROMPTS), asked)])


def _told(row: Row[Any]) -> PromptChange:
    gone = come = None
    lengths = row.old_length or 0, row.new_length or 0
    if not row.is_pruned and max(lengths) <= LONGEST_PROMPT:
        gone, come = words_gone_and_come(row.old or "", row.new or "")
    return PromptChange(
        persona_id=row.persona_id,
        name=row.name,
        at=row.at,
        not_before=row.not_before,
        old=row.old,
        new=row.new,
        old_length=row.old_length,
        new_length=row.new_length,
        words_gone=gone,
        words_come=come,
    )
