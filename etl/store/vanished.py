"""What the API no longer sends: mapped fields in no open version of their kind, though once in one.

A field vanishes where an object comes without the member. Where somebody empties what it stands
in, nothing is left that could have it, and nothing is said: the last share link, deleted, tells
nothing about the fields of share links.

What nobody uses any more is fetched no more: a voice without a live persona goes on to have what
it was last seen with, and says nothing of what the API sends.

Only versions that were opened since the last run that looked are looked at. A run that died before
its end did not look; the next one does in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from etl.map import ways
from etl.payload.expected import expected
from etl.proposal.model import Key
from etl.store.drift import Novelty, drifts, record
from etl.store.jsonpaths import jsonpath, jsonpath_of_lack, of_the_map
from etl.store.mapped import map_of
from etl.store.recordset import encode_rows
from etl.tables import KINDS

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.map import Map
    from etl.store.recordset import Row

# The voice's provider decides which of these fields there are: another voice, other fields.
_RESET_WITH: Final = {"voiceGenerationOptions": ("voice", "voice.id")}

# The end of the last run that looked, but not later than this one's start: clocks are set back.
_SINCE = text("""
    SELECT CAST(least(coalesce(max(r.finished_at), '-infinity'),
                      (SELECT started_at FROM runs WHERE run_id = :run_id)) AS text)
      FROM runs AS r
     WHERE r.command IN ('sync', 'backfill api') AND r.status IN ('succeeded', 'partial')
       AND r.run_id <> :run_id
""")

# Whether a live persona shows the entity of an open version `v`.
_IS_USED = """
    CASE v.kind
    WHEN 'avatar' THEN EXISTS (
         SELECT FROM personas AS p WHERE p.avatar_id = v.entity_id AND p.removed_at IS NULL)
    WHEN 'voice' THEN EXISTS (
         SELECT FROM personas AS p WHERE p.voice_id = v.entity_id AND p.removed_at IS NULL)
    WHEN 'tool' THEN EXISTS (
         SELECT FROM persona_tools AS u JOIN personas AS p USING (persona_id)
          WHERE u.tool_id = v.entity_id AND p.removed_at IS NULL)
    WHEN 'knowledge_group' THEN EXISTS (
         SELECT FROM persona_knowledge_groups AS u JOIN personas AS p USING (persona_id)
          WHERE u.knowledge_group_id = v.entity_id AND p.removed_at IS NULL)
    ELSE true END"""

# Of thousands of elements that changed alike each document is looked into once.
_VANISHED = text(f"""
    WITH moved AS MATERIALIZED (
        SELECT v.kind, v.entity_id, v.version, v.valid_from, v.content_hash, v.changed_paths,
               moved.path
          FROM document_versions AS v
         CROSS JOIN LATERAL (
               SELECT DISTINCT {of_the_map("changed.path")} AS path
                 FROM unnest(v.changed_paths) AS changed(path)) AS moved
         WHERE v.kind = ANY(:kinds) AND v.valid_from >= CAST(:since AS timestamptz)
           AND v.content_hash IS NOT NULL
    ), vanished AS (
        SELECT f.kind, f.path, f.has, max(m.valid_from) AS last_seen_at,
               count(DISTINCT (m.entity_id, m.version)) AS occurrences
          FROM moved AS m
          JOIN json_to_recordset(CAST(:fields AS json))
               AS f(kind text, path text, changed text, reset_with text[], has text,
                    lacks jsonpath)
            ON f.kind = m.kind AND f.changed = m.path
          JOIN documents AS after
            ON after.kind = m.kind AND after.content_hash = m.content_hash
         CROSS JOIN LATERAL (
               SELECT b.content_hash
                 FROM document_versions AS b
                WHERE b.kind = m.kind AND b.entity_id = m.entity_id AND b.version < m.version
                  AND b.content_hash IS NOT NULL
                ORDER BY b.version DESC
                LIMIT 1) AS b
          JOIN documents AS before
            ON before.kind = m.kind AND before.content_hash = b.content_hash
         WHERE NOT m.changed_paths && f.reset_with
           AND NOT jsonb_path_exists(after.document, CAST(f.has AS jsonpath))
           AND jsonb_path_exists(after.document, f.lacks)
           AND jsonb_path_exists(before.document, CAST(f.has AS jsonpath))
         GROUP BY f.kind, f.path, f.has
    )
    SELECT f.kind, f.path, f.last_seen_at, f.occurrences,
           (SELECT v.valid_from
              FROM document_versions AS v
              JOIN documents AS d USING (kind, content_hash)
             WHERE v.kind = f.kind AND jsonb_path_exists(d.document, CAST(f.has AS jsonpath))
             ORDER BY v.valid_from
             LIMIT 1) AS first_seen_at
      FROM vanished AS f
     WHERE NOT EXISTS (
           SELECT
             FROM document_versions AS v
             JOIN documents AS d USING (kind, content_hash)
            WHERE v.kind = f.kind AND v.valid_to IS NULL
              AND jsonb_path_exists(d.document, CAST(f.has AS jsonpath))
              AND {_IS_USED})
     ORDER BY f.kind, f.path
""").bindparams(bindparam("kinds", type_=ARRAY(TEXT)))  # noqa: S608  (our own words alone)

# A shared thing that is used again comes back with no new version of its own; there are few.
_RETURNED = text(f"""
    SELECT f.kind, f.path
      FROM json_to_recordset(CAST(:fields AS json)) AS f(kind text, path text, has jsonpath)
     WHERE EXISTS (
           SELECT
             FROM document_versions AS v
             JOIN documents AS d USING (kind, content_hash)
            WHERE v.kind = f.kind AND v.valid_to IS NULL
              AND (v.kind <> 'persona' OR v.valid_from >= CAST(:since AS timestamptz))
              AND jsonb_path_exists(d.document, f.has)
              AND {_IS_USED})
""")  # noqa: S608  (the same)

_PUT_AWAY = text("""
    UPDATE drift_paths AS d
       SET status = 'mapped'
      FROM json_to_recordset(CAST(:rows AS json)) AS k(kind text, path text)
     WHERE d.kind = k.kind AND d.path = k.path AND d.problem = 'missing'
""")


@dataclass(frozen=True, slots=True)
class Vanished:
    """What no longer comes, and what comes again: not yet written."""

    rows: list[Row]
    new: list[Novelty]
    returned: list[Row]


def vanished(connection: Connection, run_id: UUID) -> Vanished:
    """Looks for fields that vanished, or came again, since the last run that looked.

    A field was seen first when the first version that has it began, and last when the last one
    ended: then it was no longer there.
    """
    the_map = map_of(connection)
    known = {d.place: d.status for d in drifts(connection) if d.problem == "missing"}
    since = connection.execute(_SINCE, {"run_id": run_id}).scalar_one()
    asked = {"kinds": list(KINDS), "since": since, "fields": _fields(the_map)}
    gone = [
        row._asdict()
        for row in connection.execute(_VANISHED, asked)
        if known.get((row.kind, row.path), "mapped") == "mapped"
    ]
    new = [Novelty(Key(row["kind"], row["path"], "missing")) for row in gone]
    nothing_else = {"problem": "missing", "json_types": [], "shapes": [], "new_members": []}
    away = [
        {"kind": kind, "path": path, "has": jsonpath(path)}
        for (kind, path), status in known.items()
        if status != "mapped"
    ]
    returned: list[Row] = []
    if away:
        asked = {"since": since, "fields": encode_rows(away)}
        returned = [row._asdict() for row in connection.execute(_RETURNED, asked)]
    return Vanished([row | nothing_else for row in gone], new, returned)


def record_vanished(connection: Connection, found: Vanished) -> None:
    """Enters what no longer comes, and puts away what comes again."""
    record(connection, found.rows)
    if found.returned:
        connection.execute(_PUT_AWAY, {"rows": encode_rows(found.returned)})


@cache
def _fields(the_map: Map) -> str:
    """The fields that history has, each with the changed paths that may tell of it."""
    return encode_rows(
        {
            "kind": kind,
            "path": path,
            "changed": changed,
            "reset_with": _RESET_WITH.get(path.partition(".")[0], ()),
            "has": jsonpath(path),
            "lacks": jsonpath_of_lack(path),
        }
        for kind in KINDS
        for path, expects in expected(the_map, kind).items()
        if expects.is_filled and not expects.is_observed
        # Of an array that has a list as well as a column it is told once.
        if f"{path}[]" not in expected(the_map, kind)
        for changed in ways(path)
    )
