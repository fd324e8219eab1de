"""The view `changes`: each field that a version changed, with what stood there before and after.

History names the paths in which two documents differ (`payload/differences.py`); here the values
are looked up in the documents when the view is read, so nothing is stored twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.report.functions import REPORTING, Function
from etl.report.names import name_of
from etl.report.ours import text
from etl.report.views import View
from etl.tables import KINDS, SHARED, set_paths

if TYPE_CHECKING:
    from etl.tables import Kind

_VALUE_AT = "persona_etl_value_at"

# The steps of a path, as `payload/paths.py` writes them. Spelled out, since what `\w` and ignoring
# case mean depends on the database.
_KEY = r"[A-Za-z_$][A-Za-z0-9_$-]*"
_QUOTED_KEY = r'(?:[^"\\]|\\["\\])*'
_ID = "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_PLACE = "[0-9]{1,9}"

_PATH = rf'^(?!\.)(?:{_KEY})?(?:\.{_KEY}|\["{_QUOTED_KEY}"\]|\[{_ID}\]|\[{_PLACE}\])*$'
_KEYS = rf"^{_KEY}(?:\.{_KEY})*$"
_STEP = rf'\.?({_KEY})|\["({_QUOTED_KEY})"\]|\[({_ID})\]|\[({_PLACE})\]'

# Its text is read anew in each session, whose collation and reading of backslashes it must not
# hang on: hence "C", and dollars around what has a backslash. A loop, and not one jsonpath: deep
# ones need more stack than a server may give.
_BODY = rf"""
DECLARE
    reached jsonb := document;
    step text[] COLLATE "C";
BEGIN
    -- Nearly all are keys alone, which Postgres goes along itself.
    IF path COLLATE "C" ~ $re${_KEYS}$re$ THEN
        RETURN document #> string_to_array(path COLLATE "C", '.');
    END IF;
    -- The steps are found wherever they stand: whether there is nothing else is asked first.
    IF path COLLATE "C" !~ $re${_PATH}$re$ THEN
        RETURN NULL;
    END IF;
    FOR step IN SELECT regexp_matches(path COLLATE "C", $re${_STEP}$re$, 'g') LOOP
        reached := CASE
            WHEN step[1] IS NOT NULL THEN
                reached -> step[1]
            WHEN step[2] IS NOT NULL THEN
                reached -> regexp_replace(step[2], $re$\\(.)$re$, $re$\1$re$, 'g')
            WHEN jsonb_typeof(reached) <> 'array' THEN
                NULL
            WHEN step[3] IS NOT NULL THEN (
                SELECT element FROM jsonb_array_elements(reached) AS elements (element)
                WHERE lower(element ->> 'id') = lower(step[3]) LIMIT 1)
            ELSE
                reached -> step[4]::integer
        END;
        EXIT WHEN reached IS NULL;
    END LOOP;
    RETURN reached;
END
"""

# Values are looked up where they are shown, so that a query for one path looks up no others. Only
# those of sets are looked up before, and OFFSET keeps that from being done for each condition.
# EXCEPT ALL counts: a tag that stood twice and stands once has gone once.
# The kinds are listed since the indexes begin with them: who asks for a day, or for an id, need not
# name one.
_QUERY = """
SELECT version.kind,
       version.entity_id,
       {name} AS name,
       version.version,
       version.change,
       version.valid_from AS changed_at,
       before.last_observed_at AS not_before,
       changed.path,
       CASE WHEN element.is_one THEN element.old_value ELSE {old_value} END AS old_value,
       CASE WHEN element.is_one THEN element.new_value ELSE {new_value} END AS new_value,
       version.run_id
  FROM (VALUES {kinds}) AS known (kind)
  JOIN document_versions AS version ON version.kind = known.kind
 CROSS JOIN LATERAL (
        SELECT before.kind, before.content_hash, before.last_observed_at
          FROM document_versions AS before
         WHERE before.kind = version.kind AND before.entity_id = version.entity_id
           AND before.version < version.version AND before.change <> 'removed'
         ORDER BY before.version DESC
         LIMIT 1) AS before
  LEFT JOIN documents AS older
    ON older.kind = before.kind AND older.content_hash = before.content_hash
  JOIN documents AS newer
    ON newer.kind = version.kind AND newer.content_hash = version.content_hash
 CROSS JOIN LATERAL unnest(version.changed_paths) AS changed (path)
  LEFT JOIN LATERAL (
        SELECT field.old_value, field.new_value
          FROM (SELECT {old_value} AS old_value, {new_value} AS new_value
                 WHERE version.kind || ' '
                       || regexp_replace(changed.path, '[[][0-9a-f-]{{36}}[]]', '[]', 'g')
                    IN ({sets})
                OFFSET 0) AS field
         WHERE jsonb_typeof(field.old_value) = 'array' AND NOT field.old_value @? {nested}
           AND jsonb_typeof(field.new_value) = 'array' AND NOT field.new_value @? {nested}
       ) AS list ON true
  LEFT JOIN LATERAL (
        (SELECT true AS is_one, went AS old_value, CAST(NULL AS jsonb) AS new_value
           FROM jsonb_array_elements(list.old_value) AS elements (went)
         EXCEPT ALL
         SELECT true, stays, CAST(NULL AS jsonb) AS new_value
           FROM jsonb_array_elements(list.new_value) AS elements (stays))
        UNION ALL
        (SELECT true, CAST(NULL AS jsonb) AS old_value, came
           FROM jsonb_array_elements(list.new_value) AS elements (came)
         EXCEPT ALL
         SELECT true, CAST(NULL AS jsonb) AS old_value, stays
           FROM jsonb_array_elements(list.old_value) AS elements (stays))
       ) AS element ON true
"""

_NESTED = """'strict $[*] ? (@.type() == "object" || @.type() == "array")'"""


def changes() -> View:
    """A row a changed field; of a list whose order means nothing, a row an element."""
    columns = {
        "kind": "What changed: a persona, avatar, voice, tool or knowledge_group.",
        "entity_id": "Which one.",
        "name": "Its name after the change.",
        "version": "The version that the change made, as in the history views.",
        "change": "updated, reshaped (the API's shape moved, nobody edited) or restored.",
        "changed_at": "When the change was first seen.",
        "not_before": "When the old values were last seen: the change came between the two.",
        "path": "The field, as the API calls it; [<id>] is the element of that id.",
        "old_value": "What stood there. SQL NULL: nothing did, or the version before is not kept;"
        " JSON null is a value.",
        "new_value": "What stands there now. SQL NULL: it is gone; JSON null is a value.",
        "run_id": "The run that saw it.",
    }
    query = _QUERY.format(
        kinds=", ".join(f"({text(kind)})" for kind in KINDS),
        name=name_of("newer.document", "version.kind"),
        old_value=f"{REPORTING}.{_VALUE_AT}(older.document, changed.path)",
        new_value=f"{REPORTING}.{_VALUE_AT}(newer.document, changed.path)",
        sets=", ".join(text(f"{kind} {path}") for kind, path in _sets()),
        nested=_NESTED,
    )
    comment = (
        "What changed: a row a changed field, with the old and the new value; of tags and the like,"
        " a row for each that came or went. Who was created, removed or restored stands in the"
        " history views. The API does not tell who made a change."
    )
    return View("changes", comment, columns, query)


def changes_functions() -> tuple[Function, ...]:
    """What the view calls."""
    return (
        Function(
            name=_VALUE_AT,
            arguments="document jsonb, path text",
            returns="jsonb",
            comment="What stands in a document at a path of changed_paths; NULL: nothing does.",
            body=_BODY,
            language="plpgsql",
            volatility="IMMUTABLE",
        ),
    )


def _sets() -> list[tuple[Kind, str]]:
    """The kinds and paths of arrays that are sets, also of objects that stay in a persona's."""
    own = [(kind, path) for kind in KINDS for path in set_paths(kind)]
    inline = [(name, path) for name, kind in SHARED.items() for path in set_paths(kind)]
    return own + [("persona", f"{name}.{path}") for name, path in inline]
