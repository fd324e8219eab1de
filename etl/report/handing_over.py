"""The SQL that makes what is new in the reporting schema as if the owner of the rest had made it.

Whoever migrates may be another, who acts for that one: then neither could the owner migrate again,
nor did readers have what they were promised of later releases.
"""

from __future__ import annotations

from etl.report.ours import filled, name, reporting_schema, text

# Anybody may have default privileges in any schema: those of strangers give nothing.
_HAND_OVER = """
CREATE PROCEDURE {schema}.persona_etl_hand_over(sort text, target text)
LANGUAGE plpgsql AS {tag}
DECLARE
    owner CONSTANT regrole := (SELECT relowner FROM pg_class WHERE oid = to_regclass({eldest}));
    statement text;
BEGIN
    IF owner <> quote_ident(current_user)::regrole THEN
        EXECUTE format('ALTER %s %s OWNER TO %s', sort, target, owner);
    END IF;
    FOR statement IN
        SELECT DISTINCT format('GRANT %s ON %s %s TO %s%s', privilege_type,
            CASE sort WHEN 'VIEW' THEN 'TABLE' ELSE sort END, target,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
            CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
        FROM pg_default_acl AS later, aclexplode(later.defaclacl)
        WHERE later.defaclnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {reporting})
          AND later.defaclobjtype = CASE sort WHEN 'VIEW' THEN 'r' ELSE 'f' END
          AND grantee <> owner AND pg_has_role(later.defaclrole, owner, 'MEMBER')
    LOOP
        EXECUTE statement;
    END LOOP;
END
{tag};
"""

_DROP_PROCEDURE = """
-- Nobody but this transaction has ever seen it.
-- squawk-ignore ban-drop-function
DROP PROCEDURE {schema}.persona_etl_hand_over(text, text);
"""


def procedure(schema: str) -> str:
    """What those call that make a view or a function which was not there."""
    # It has been there from the first release on.
    eldest = f"{name(reporting_schema(schema))}.personas"
    return filled(_HAND_OVER, schema, eldest=text(eldest))


def drop_procedure(schema: str) -> str:
    """The end of it."""
    return filled(_DROP_PROCEDURE, schema)
