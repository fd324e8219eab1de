"""The SQL that makes the functions of the reporting schema and drops them.

It leans on procedures that live as long as the transaction which makes everything anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.report.ours import MARK, filled, in_schema, name, quoted, reporting_schema, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etl.report.functions import Function

# While its successor is made, and until the views call that.
_BEFORE = "__before"

# DROP names what stands in the way in a DETAIL, which not every program shows.
_DROP = """
CREATE PROCEDURE {schema}.persona_etl_drop_function(function regprocedure)
LANGUAGE plpgsql AS {tag}
DECLARE
    dependents text;
BEGIN
    EXECUTE format('DROP FUNCTION %s', function);
EXCEPTION WHEN dependent_objects_still_exist THEN
    GET STACKED DIAGNOSTICS dependents = PG_EXCEPTION_DETAIL;
    RAISE EXCEPTION 'function % has to be made anew or dropped, but %',
        replace(function::text, {before}, ''),
        replace(replace(dependents, E'\\n', ', '), {before}, '')
    USING ERRCODE = 'dependent_objects_still_exist',
          HINT = 'Drop what depends on it, run this again, then make it again.';
END
{tag};
"""

_REPLACE = """
CREATE PROCEDURE {schema}.persona_etl_replace_function(signature text, definition text)
LANGUAGE plpgsql AS {tag}
DECLARE
    present CONSTANT regprocedure := to_regprocedure(signature);
    present_name CONSTANT name := (SELECT proname FROM pg_proc WHERE oid = present);
    owner CONSTANT regrole := (SELECT proowner FROM pg_proc WHERE oid = present);
    grants text[];
    statement text;
BEGIN
    IF present IS NOT NULL
       AND NOT EXISTS (SELECT FROM {functions_of_ours} AND function.oid = present) THEN
        RAISE EXCEPTION '% is in the place of a function of persona-etl', signature
        USING ERRCODE = 'duplicate_function', HINT = 'Rename or drop it, then run this again.';
    END IF;

    -- A function can be replaced as long as it gives the same, by the same names.
    BEGIN
        EXECUTE definition;
        IF present IS NULL THEN
            CALL {schema}.persona_etl_hand_over(
                'FUNCTION', signature, to_regclass(format('%I.personas', {reporting})));
        END IF;
        RETURN;
    EXCEPTION WHEN invalid_function_definition THEN
        IF present IS NULL THEN
            RAISE;
        END IF;
    END;

    -- It has to go, as soon as no view of ours calls it any more. What was granted is granted
    -- again, and nothing else.
    grants := ARRAY(
        SELECT format('GRANT %s ON FUNCTION %s TO %s%s', privilege_type, signature,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
            CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
        FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
        WHERE pg_proc.oid = present AND grantee <> proowner
    );
    EXECUTE format('ALTER FUNCTION %s RENAME TO %I', present, present_name || {before});
    EXECUTE definition;
    IF owner <> quote_ident(current_user)::regrole THEN
        EXECUTE format('ALTER FUNCTION %s OWNER TO %s', signature, owner);
    END IF;
    FOR statement IN
        SELECT DISTINCT format('REVOKE ALL ON FUNCTION %s FROM %s', signature,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END)
        FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
        WHERE pg_proc.oid = to_regprocedure(signature) AND grantee <> proowner
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
    retired regprocedure;
BEGIN
    FOR retired IN
        SELECT function.oid FROM {functions_of_ours}
          AND function.oid <> ALL (ARRAY[{kept}]::oid[])
    LOOP
        CALL {schema}.persona_etl_drop_function(retired);
    END LOOP;
END
{tag};
"""

_DROP_PROCEDURES = """
-- Nobody but this transaction has ever seen them.
-- squawk-ignore ban-drop-function
DROP PROCEDURE {schema}.persona_etl_replace_function(text, text);
-- squawk-ignore ban-drop-function
DROP PROCEDURE {schema}.persona_etl_drop_function(regprocedure);
"""


def procedures(schema: str) -> list[str]:
    """What the statements below call."""
    return [_filled(_DROP, schema), _filled(_REPLACE, schema)]


def drop_procedures(schema: str) -> str:
    """The end of them."""
    return _filled(_DROP_PROCEDURES, schema)


def build_function(function: Function, schema: str) -> list[str]:
    """What makes a function anew, its grants and its comment."""
    reporting = name(reporting_schema(schema))
    body = in_schema(function.body, schema)
    definition = (
        f"CREATE OR REPLACE FUNCTION {reporting}.{name(function.name)}({function.arguments})"
        f" RETURNS {function.returns}"
        f" LANGUAGE {function.language} {function.volatility} PARALLEL SAFE"
        f" AS {quoted(body, 'body')}"
    )
    signature = f"{reporting}.{function.signature}"
    arguments = f"{text(signature)}, {quoted(definition, 'function')}"
    comment = text(f"{function.comment} {MARK}")
    return [
        f"CALL {reporting}.persona_etl_replace_function({arguments});",
        f"COMMENT ON FUNCTION {signature} IS {comment};",
    ]


def drop_retired(schema: str, kept: Iterable[Function]) -> str:
    """What drops each function of ours but these. No view of ours calls it any more."""
    return _filled(_DROP_RETIRED, schema, kept=oids(schema, kept))


def oids(schema: str, functions: Iterable[Function]) -> str:
    """These functions, for a list; NULL where one is not there."""
    reporting = name(reporting_schema(schema))
    return ", ".join(f"to_regprocedure({text(f'{reporting}.{f.signature}')})" for f in functions)


def _filled(template: str, schema: str, **more: str) -> str:
    return filled(template, schema, before=text(_BEFORE), **more)
