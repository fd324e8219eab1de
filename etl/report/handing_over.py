"""The SQL that makes what is new as if the owner of the rest had made it: views, functions, tables.

Whoever migrates may be another, who acts for that one: then neither could the owner migrate again,
nor did readers and writers have what they were promised of later releases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.report.ours import filled, name, text

if TYPE_CHECKING:
    from etl.map import Map

# `eldest` is of the same schema, from the first release on. Anybody may have default privileges in
# any schema: those of strangers give nothing.
_HAND_OVER = """
CREATE PROCEDURE {schema}.persona_etl_hand_over(sort text, target text, eldest regclass)
LANGUAGE plpgsql AS {tag}
DECLARE
    owner CONSTANT regrole := (SELECT relowner FROM pg_class WHERE oid = eldest);
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
        WHERE later.defaclnamespace = (SELECT relnamespace FROM pg_class WHERE oid = eldest)
          AND later.defaclobjtype = CASE sort WHEN 'FUNCTION' THEN 'f' ELSE 'r' END
          AND grantee <> owner AND pg_has_role(later.defaclrole, owner, 'MEMBER')
    LOOP
        EXECUTE statement;
    END LOOP;
END
{tag};
"""

# Those that revisions have just made: whose they are is never in doubt for older ones.
_TABLES = """
DO {tag}
DECLARE
    eldest CONSTANT regclass := to_regclass({tables} || '.personas');
    made regclass;
BEGIN
    FOR made IN
        SELECT new.oid FROM pg_class AS new JOIN pg_class AS old ON old.oid = eldest
        WHERE new.relnamespace = old.relnamespace AND new.relkind = 'r'
          AND (new.relname IN ({names}) OR new.relname LIKE 'alembic\\_version%')
          AND new.relowner <> old.relowner
          AND new.relowner = quote_ident(current_user)::regrole
    LOOP
        CALL {schema}.persona_etl_hand_over('TABLE', made::text, eldest);
    END LOOP;
END
{tag};
"""

_DROP_PROCEDURE = """
-- Nobody but this transaction has ever seen it.
-- squawk-ignore ban-drop-function
DROP PROCEDURE {schema}.persona_etl_hand_over(text, text, regclass);
"""


def procedure(schema: str) -> str:
    """What those call that make a view or a function which was not there."""
    return filled(_HAND_OVER, schema)


def tables(schema: str, the_map: Map) -> str:
    """What hands over the tables that revisions have made."""
    names = ", ".join(map(text, the_map.tables))
    return filled(_TABLES, schema, tables=text(name(schema)), names=names)


def drop_procedure(schema: str) -> str:
    """The end of it."""
    return filled(_DROP_PROCEDURE, schema)
