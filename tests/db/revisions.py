"""What tests of migrations share: the catalog, Alembic on a schema, a revision of their own."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic.script import ScriptDirectory

from etl.store.engine import make_engine, quote_identifier
from etl.store.migration import alembic_config, migrating

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config

CHECKOUT = Path(__file__).parents[2]

# Everything that a schema consists of, by name and definition.
CATALOG = """
    SELECT 'relation', nspname, relname,
           concat_ws(' ', relkind::text, pg_get_userbyid(relowner), relacl, reloptions,
                     CASE relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END),
           obj_description(c.oid, 'pg_class')
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    UNION ALL
    SELECT 'column', nspname, relname || '.' || attname,
           concat_ws(' ', relkind::text, format_type(atttypid, atttypmod), attnotnull, attidentity,
                     attacl, pg_get_expr(adbin, adrelid)),
           col_description(attrelid, a.attnum)
    FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
         JOIN pg_namespace n ON n.oid = relnamespace
         LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE a.attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT 'index', schemaname, indexname,
           replace(indexdef, quote_ident(schemaname) || '.', ''), NULL
    FROM pg_indexes
    UNION ALL
    SELECT 'constraint', nspname, conname, pg_get_constraintdef(c.oid), NULL
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace
    UNION ALL
    SELECT 'type', nspname, typname, typtype::text, NULL
    FROM pg_type JOIN pg_namespace n ON n.oid = typnamespace
    UNION ALL
    SELECT 'function', nspname, proname,
           concat_ws(' ', pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
                     provolatile, proparallel, pg_get_userbyid(proowner),
                     ARRAY(SELECT item::text COLLATE "C"
                           FROM unnest(coalesce(proacl, acldefault('f', proowner))) AS item
                           ORDER BY 1),
                     prosrc),
           obj_description(p.oid, 'pg_proc')
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
    UNION ALL
    SELECT 'trigger', nspname, tgname, relname, NULL
    FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE NOT tgisinternal
    UNION ALL
    SELECT 'default privileges', nspname, '', defaclacl::text, NULL
    FROM pg_default_acl JOIN pg_namespace n ON n.oid = defaclnamespace
    UNION ALL
    SELECT 'schema', nspname, '', concat_ws(' ', pg_get_userbyid(nspowner), nspacl), NULL
    FROM pg_namespace
"""

Catalog = set[tuple[Any, ...]]


def catalog(engine: sa.Engine, schema: str | None = None) -> Catalog:
    """What is in the database, without Postgres' own; of one schema: without its name."""
    with engine.connect() as connection:
        rows = connection.execute(sa.text(CATALOG)).all()
    if schema is not None:
        # Its name also stands where a function is called.
        named = re.compile(f"{re.escape(quote_identifier(schema))}\\.|\\b{re.escape(schema)}\\.")
        return {
            (row[0], *(part and named.sub("", part) for part in row[2:]))
            for row in rows
            if row[1] == schema
        }
    own = ("pg_catalog", "pg_toast", "information_schema")
    return {tuple(row) for row in rows if row[1] not in own and not row[1].startswith("pg_temp")}


def tables_of(engine: sa.Engine, schema: str = "anam") -> Catalog:
    """What the revisions have made there. Alembic's own table stays for ever."""
    return {
        row
        for row in catalog(engine, schema)
        if row[0] != "schema" and "alembic_version" not in row[1]
    }


@contextmanager
def alembic(engine: sa.Engine, schema: str = "anam") -> Iterator[Config]:
    """What Alembic's commands need."""
    config = alembic_config()
    with migrating(engine, schema) as connection:
        config.attributes.update(connection=connection, schema=schema)
        yield config


def revisions() -> list[str]:
    """All revisions, the first one first."""
    found = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return [revision.revision for revision in found][::-1]


def add_revision(checkout: Path, upgrade: str, downgrade: str, name: str = "later") -> None:
    """A revision after the head, of two expressions."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    (checkout / "migrations" / "versions" / f"20990101_{name}.py").write_text(
        dedent(f"""
            from alembic import op
            revision = "{name}"
            down_revision = "{head}"
            def upgrade(): {upgrade}
            def downgrade(): {downgrade}
        """)
    )


def change(engine: sa.Engine, sql: str) -> None:
    """Any SQL, committed."""
    with engine.begin() as connection:
        connection.execute(sa.text(sql))


def url_as(url: str, role: str) -> str:
    """The same database, for a role that the fixture `new_role` has made."""
    return (
        sa.make_url(url).set(username=role, password="p@ss").render_as_string(hide_password=False)
    )


def as_role(url: str, role: str, schema: str = "anam") -> sa.Engine:
    """An engine of such a role."""
    return make_engine(url_as(url, role), schema)
