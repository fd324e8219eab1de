"""The SQL that makes the reporting views anew, functions with them, sets them aside and drops them.

The same text serves `migrate` and the script for a DBA, who may own the schemas and nothing else.
What there is to make is `catalogue.py`; how a function is made, `functions_sql.py`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from etl.report import functions_sql, handing_over
from etl.report.catalogue import (
    all_functions,
    all_views,
    called_by_views,
    reading_views,
    view_names,
)
from etl.report.ours import MARK, filled, in_schema, name, quoted, reporting_schema, text

if TYPE_CHECKING:
    from etl.map import Map
    from etl.report.views import View

PAUSED = "persona-etl: this view is about to be made anew; if that lasts, run `persona-etl migrate`"
"""What a paused view tells whoever reads it."""

# In pg_depend a view is its rule. Our views don't stand on one another: what does is not ours.
_STANDS_ON_IT = """
          stands.refclassid = 'pg_class'::regclass AND stands.refobjid = view.oid
          AND stands.deptype = 'n' AND stands.objid NOT IN (
              SELECT rule.oid FROM pg_rewrite AS rule WHERE rule.ev_class = view.oid)
""".strip()

# DROP names what stands in the way in a DETAIL, which not every program shows.
_DROP = """
CREATE PROCEDURE {schema}.persona_etl_drop_view(view regclass)
LANGUAGE plpgsql AS {tag}
DECLARE
    dependents text;
BEGIN
    EXECUTE format('DROP VIEW %s', view);
EXCEPTION WHEN dependent_objects_still_exist THEN
    GET STACKED DIAGNOSTICS dependents = PG_EXCEPTION_DETAIL;
    RAISE EXCEPTION 'view % has to be made anew or dropped, but %', view,
        replace(dependents, E'\\n', ', ')
    USING ERRCODE = 'dependent_objects_still_exist',
          HINT = 'Drop what depends on it, run this again, then make it again.';
END
{tag};
"""

_REPLACE = """
CREATE PROCEDURE {schema}.persona_etl_replace_view(view_name text, declared text[], query text)
LANGUAGE plpgsql AS {tag}
DECLARE
    target CONSTANT text := format('%I.%I', {reporting}, view_name);
    present CONSTANT oid := to_regclass(target);
    owner CONSTANT regrole := (SELECT relowner FROM pg_class WHERE oid = present);
    present_columns text[];
    ordered text;
    grants text[];
    statement text;
BEGIN
    IF present IS NOT NULL AND NOT EXISTS (SELECT FROM {views_of_ours} AND view.oid = present) THEN
        RAISE EXCEPTION '% is in the place of a view of persona-etl', target
        USING ERRCODE = 'duplicate_table', HINT = 'Rename or drop it, then run this again.';
    END IF;

    -- A view can be replaced as long as it keeps its columns and their order: new ones come last.
    present_columns := ARRAY(
        SELECT attname FROM pg_attribute WHERE attrelid = present AND attnum > 0 ORDER BY attnum
    );
    IF present_columns <@ declared THEN
        SELECT string_agg(quote_ident(column_name), ', ' ORDER BY
                array_position(present_columns, column_name), array_position(declared, column_name))
        FROM unnest(declared) AS column_name INTO ordered;
        BEGIN
            EXECUTE format('CREATE OR REPLACE VIEW %s AS SELECT %s FROM (%s) AS shown',
                target, ordered, query);
            IF present IS NULL THEN
                CALL {schema}.persona_etl_hand_over(
                    'VIEW', target, to_regclass(format('%I.personas', {reporting})));
            END IF;
            RETURN;
        EXCEPTION WHEN invalid_table_definition THEN
            IF present IS NULL THEN
                RAISE;
            END IF;  -- Otherwise a column has another type now.
        END;
    END IF;

    -- It has to go. What was granted is granted again, and nothing else.
    grants := ARRAY(
        SELECT format('GRANT %s ON %s TO %s%s', privilege_type, target,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
            CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = present AND grantee <> relowner
        UNION ALL
        SELECT format('GRANT %s (%I) ON %s TO %s%s', privilege_type, attname, target,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
            CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
        FROM pg_attribute, aclexplode(attacl)
        WHERE attrelid = present AND attname = ANY (declared)
    );
    CALL {schema}.persona_etl_drop_view(present);
    SELECT string_agg(quote_ident(column_name), ', ' ORDER BY place)
    FROM unnest(declared) WITH ORDINALITY AS _ (column_name, place) INTO ordered;
    EXECUTE format('CREATE VIEW %s AS SELECT %s FROM (%s) AS shown', target, ordered, query);
    IF owner <> quote_ident(current_user)::regrole THEN
        EXECUTE format('ALTER VIEW %s OWNER TO %s', target, owner);
    END IF;
    FOR statement IN
        SELECT DISTINCT format('REVOKE ALL ON %s FROM %s', target,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = to_regclass(target) AND grantee <> relowner
    LOOP
        EXECUTE statement;
    END LOOP;
    FOREACH statement IN ARRAY grants LOOP
        EXECUTE statement;
    END LOOP;
END
{tag};
"""

_DROP_RETIRED = """
DO {tag}
DECLARE
    retired regclass;
BEGIN
    FOR retired IN
        SELECT view.oid FROM {views_of_ours}
          AND view.relname <> ALL (ARRAY[{kept}]::text[])
    LOOP
        CALL {schema}.persona_etl_drop_view(retired);
    END LOOP;
END
{tag};
"""

_DROP_PROCEDURES = """
-- Nobody but this transaction has ever seen them.
-- squawk-ignore ban-drop-function
DROP PROCEDURE {schema}.persona_etl_replace_view(text, text[], text);
-- squawk-ignore ban-drop-function
DROP PROCEDURE {schema}.persona_etl_drop_view(regclass);
"""

# A paused view reads no table, so no revision meets it; it keeps its columns, its grants and its
# name. The cast fails when the view is read, and quotes the text.
_PAUSE = """
DO {tag}
DECLARE
    paused record;
BEGIN
    FOR paused IN
        SELECT view.oid::regclass AS name, (
            SELECT string_agg(
                format('CAST(NULL AS %s) AS %I', format_type(atttypid, atttypmod), attname),
                ', ' ORDER BY attnum)
            FROM pg_attribute WHERE attrelid = view.oid AND attnum > 0) AS columns
        FROM {views_of_ours}
          AND NOT EXISTS (SELECT FROM pg_depend AS stands WHERE {stands_on_it})
    LOOP
        EXECUTE format(
            'CREATE OR REPLACE VIEW %s AS SELECT %s WHERE CAST(CAST(%L AS text) AS boolean)',
            paused.name, paused.columns, {told});
    END LOOP;
END
{tag};
"""

_DROP_ALL = """
DO {tag}
DECLARE
    dropped text;
BEGIN
    FOR dropped IN SELECT view.oid::regclass FROM {views_of_ours} LOOP
        EXECUTE format('DROP VIEW %s', dropped);
    END LOOP;
    FOR dropped IN SELECT function.oid::regprocedure FROM {functions_of_ours} LOOP
        EXECUTE format('DROP FUNCTION %s', dropped);
    END LOOP;
END
{tag};
"""

_IN_PLACE = """
SELECT format('%I.%I', schema.nspname, other.relname)
FROM pg_class AS other JOIN pg_namespace AS schema ON schema.oid = other.relnamespace
WHERE schema.nspname = {reporting} AND other.relname IN ({kept})
  AND other.oid NOT IN (SELECT view.oid FROM {views_of_ours})
UNION ALL
SELECT format('%s', other.oid::regprocedure)
FROM pg_proc AS other
WHERE other.oid = ANY (ARRAY[{functions}]::oid[])
  AND other.oid NOT IN (SELECT function.oid FROM {functions_of_ours})
"""

_PRESENT = """
SELECT view.relname FROM {views_of_ours}
UNION ALL
SELECT function.proname FROM {functions_of_ours}
"""

# In the comment of one view, which any role may read and whoever makes the views may write.
_STAMPED = "dictionary"
_RELEASE = "Of persona-etl {}."

_RELEASE_OF_VIEWS = """
SELECT substring(obj_description(view.oid, 'pg_class') FROM {pattern})
FROM {views_of_ours} AND view.relname = {stamped}
"""

_DEFINITIONS = """
SELECT view.oid::regclass::text, pg_get_viewdef(view.oid) FROM {views_of_ours}
"""

_STANDING = """
SELECT DISTINCT format('%s stands on view %s',
    replace(pg_describe_object(stands.classid, stands.objid, 0), 'rule _RETURN on ', ''),
    view.oid::regclass)
FROM pg_depend AS stands, {views_of_ours} AND {stands_on_it}
UNION ALL
SELECT DISTINCT format('%s stands on function %s',
    replace(pg_describe_object(stands.classid, stands.objid, 0), 'rule _RETURN on ', ''),
    function.oid::regprocedure)
FROM pg_depend AS stands, {functions_of_ours}
  AND stands.refclassid = 'pg_proc'::regclass AND stands.refobjid = function.oid
  AND stands.deptype = 'n' AND stands.objid NOT IN (
      SELECT rule.oid FROM pg_rewrite AS rule WHERE rule.ev_class IN (
          SELECT view.oid FROM {views_of_ours}))
"""


def build_views(schema: str, the_map: Map) -> list[str]:
    """What makes every view and function anew, for one transaction with search_path `schema`.

    What is ours and in no release any more is dropped. Grants stay as they are; what is new is
    given to those who were promised it.
    """
    statements = [
        handing_over.procedure(schema),
        handing_over.tables(schema, the_map),
        *(_filled(procedure, schema) for procedure in (_DROP, _REPLACE)),
        *functions_sql.procedures(schema),
    ]
    for function in called_by_views():
        statements += functions_sql.build_function(function, schema)
    for view in all_views(the_map):
        statements += _build_view(view, schema)
    for function in reading_views(the_map):
        statements += functions_sql.build_function(function, schema)
    return [
        *statements,
        _filled(_DROP_RETIRED, schema),
        functions_sql.drop_retired(schema, all_functions()),
        _filled(_DROP_PROCEDURES, schema),
        functions_sql.drop_procedures(schema),
        handing_over.drop_procedure(schema),
    ]


def _build_view(view: View, schema: str) -> list[str]:
    reporting = name(reporting_schema(schema))
    named = f"{reporting}.{name(view.name)}"
    columns = ", ".join(text(column) for column in view.columns)
    query = quoted(in_schema(view.query, schema), "query")
    release = f" {_RELEASE.format(version('persona-etl'))}" if view.name == _STAMPED else ""
    return [
        f"CALL {reporting}.persona_etl_replace_view({text(view.name)}, ARRAY[{columns}], {query});",
        f"COMMENT ON VIEW {named} IS {text(f'{view.comment}{release} {MARK}')};",
        *(
            f"COMMENT ON COLUMN {named}.{name(column)} IS {text(comment)};"
            for column, comment in view.columns.items()
        ),
    ]


def pause_views(schema: str) -> str:
    """What takes our views off the tables, so that a revision may do to a column what it has to.

    Not those that somebody's own view stands on: if they can't come back as they were, that view
    would be broken. A revision that meets such a one fails, before anything has changed. Functions
    stand on no table.
    """
    return _filled(_PAUSE, schema)


def views_as_they_are(schema: str) -> str:
    """A query of the name and the definition of each view of ours."""
    return _filled(_DEFINITIONS, schema)


def release_of_views(schema: str) -> str:
    """A query of the release that made the views; no row or NULL where that is not known."""
    pattern = text(_RELEASE.replace(".", r"\.").format(r"(\S+)") + " Made by")
    return _filled(_RELEASE_OF_VIEWS.replace("{pattern}", pattern), schema)


def standing_on_views(schema: str) -> str:
    """A query of what somebody has built upon views and functions of ours, in words."""
    return _filled(_STANDING, schema)


def in_place_of_views(schema: str) -> str:
    """A query of what is not ours and has the name of a view or function of ours."""
    return _filled(_IN_PLACE, schema)


def present_views(schema: str) -> str:
    """A query of the names of our views and functions that are there."""
    return _filled(_PRESENT, schema)


def drop_views(schema: str) -> str:
    """What drops every view and function of ours."""
    return _filled(_DROP_ALL, schema)


def _filled(template: str, schema: str) -> str:
    return filled(
        template,
        schema,
        told=text(PAUSED),
        stamped=text(_STAMPED),
        stands_on_it=_STANDS_ON_IT,
        kept=", ".join(map(text, view_names())),
        functions=functions_sql.oids(schema, all_functions()),
    )
