"""The text of a release's revision that gives proposed fields their columns and tables.

Where a team has added a field before a release maps it, the release's revision takes that column
over. It has to find out in SQL, since `migrate --sql` has no database to ask. Runs read
`local_columns` in each batch, so that it is locked first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import postgresql

from etl.map import extended
from etl.proposal.header import header
from etl.proposal.spelling import Call, Text, sql_text
from etl.tables import SELF, origin, projections, source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Constraint, Table

    from etl.map import Line
    from etl.proposal.model import Proposal

_TYPES: Final = {
    "uuid": "sa.UUID()",
    "timestamptz": "sa.DateTime(timezone=True)",
    "boolean": "sa.Boolean()",
    "bigint": "sa.BigInteger()",
    "double precision": "sa.Double()",
    "text": "sa.Text()",
    "jsonb": "postgresql.JSONB(astext_type=sa.Text())",
    "integer": "sa.Integer()",
}
_POSTGRESQL: Final = postgresql.dialect()  # type: ignore[no-untyped-call]
# More statements in one function than this are the linter's business.
STATEMENTS: Final = 50

_REVISION: Final = '''\
{header}
from __future__ import annotations

import sqlalchemy as sa
from alembic import op
{imports}
revision = "{revision}"
down_revision = "{down_revision}"
branch_labels = None
depends_on = None


def upgrade() -> None:{long}
    """Add what is new. What was added locally for the same field is kept, or put aside."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Runs read it in each batch: so they stop, and none sees half of this.
    op.execute("LOCK TABLE local_columns IN ACCESS EXCLUSIVE MODE")
{upgrade}


def downgrade() -> None:{long}
    """Take it away, also what had been added locally: `drift propose`, `backfill replay` refill."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("LOCK TABLE local_columns IN ACCESS EXCLUSIVE MODE")
{downgrade}
'''
_CLOSING: Final = (
    "What a team has added for the same field is kept if it has this name and type; else __local is"
    " put after its name, and `backfill replay` fills the new one. A downgrade drops what was kept"
    " too: the documents still have the values."
)

# What is local there, of this field or in its place, stays (kept) or makes room. What is not
# local either is not ours to touch.
_TAKE_OVER: Final = """\
    op.execute(r\"\"\"
        DO $take_over$
        DECLARE
            its_table CONSTANT text := '{table}';
            its_column CONSTANT text := '{column}';
            its_kind CONSTANT text := '{kind}';
            its_path CONSTANT text := {path};
            its_type CONSTANT text := '{type}';
            present CONSTANT text := (
                SELECT {present}
                  FROM pg_attribute
                 WHERE attrelid = to_regclass(quote_ident(its_table))
                   AND {which} AND NOT attisdropped
            );
            kept CONSTANT boolean := present = its_type AND EXISTS (
                SELECT FROM local_columns
                 WHERE table_name = its_table AND column_name = its_column
                   AND kind = its_kind AND path = its_path
            );
            line local_columns;
        BEGIN
            FOR line IN
                SELECT * FROM local_columns
                 WHERE CASE WHEN table_name = its_table AND column_name = its_column THEN NOT kept
                            ELSE {same_field} END
            LOOP
                BEGIN
{put_aside}
                EXCEPTION WHEN {in_vain} THEN
                    NULL;  -- Dropped by hand, or there is one of that name: left as it is.
                END;
            END LOOP;
            DELETE FROM local_columns
             WHERE {same_field}
                OR table_name = its_table AND column_name = its_column;
            IF NOT kept AND {there} THEN
                RAISE {in_the_way} USING
                    MESSAGE = {name} || ' is there, and is neither a release''s nor a local line''s',
                    HINT = 'Rename it, then migrate again.';
            END IF;
        END
        $take_over$
    \"\"\")"""
_COLUMN: Final = {
    "present": "format_type(atttypid, atttypmod)",
    "which": "attname = its_column",
    "there": """EXISTS (
                SELECT FROM pg_attribute
                 WHERE attrelid = to_regclass(quote_ident(its_table))
                   AND attname = its_column AND NOT attisdropped
            )""",
    "put_aside": """\
                    EXECUTE 'ALTER TABLE ' || quote_ident(line.table_name)
                        || ' RENAME COLUMN ' || quote_ident(line.column_name)
                        || ' TO ' || quote_ident(line.column_name || '__local');
                    UPDATE local_columns SET column_name = line.column_name || '__local'
                     WHERE table_name = line.table_name AND column_name = line.column_name;""",
    "in_vain": "duplicate_column OR undefined_column OR undefined_table",
    "in_the_way": "duplicate_column",
    "name": "its_table || '.' || its_column",
}
_TABLE: Final = {
    "present": "string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', '\n"
    "                                  ORDER BY attnum)",
    "which": "attnum > 0",
    "there": "to_regclass(quote_ident(its_table)) IS NOT NULL",
    "put_aside": """\
                    EXECUTE 'ALTER TABLE ' || quote_ident(line.table_name)
                        || ' RENAME TO ' || quote_ident(line.table_name || '__local');
                    EXECUTE 'ALTER INDEX IF EXISTS ' || quote_ident('pk_' || line.table_name)
                        || ' RENAME TO ' || quote_ident('pk_' || line.table_name || '__local');
                    UPDATE local_columns SET table_name = line.table_name || '__local'
                     WHERE table_name = line.table_name AND column_name = line.column_name;""",
    "in_vain": "duplicate_table OR undefined_table",
    "in_the_way": "duplicate_table",
    "name": "its_table",
}


def revision_text(proposals: Sequence[Proposal], revision: str, down_revision: str) -> str:
    """The whole file, as ruff formats it."""
    lines = [proposal.line for proposal in proposals]
    statements = 2 * len(lines) + 3
    upgrade = [part for line in lines for part in (_take_over(line), _added(line))]
    return _REVISION.format(
        header=header(proposals, _CLOSING),
        imports="from sqlalchemy.dialects import postgresql\n"
        if any(line.type == "jsonb" for line in lines)
        else "",
        revision=revision,
        down_revision=down_revision,
        long="  # noqa: PLR0915  a field, two statements" if statements > STATEMENTS else "",
        upgrade="\n".join(upgrade),
        downgrade="\n".join(_removed(line) for line in reversed(lines)),
    )


def list_table(line: Line) -> Table:
    """The table of a list, as the map makes it."""
    return extended((line,)).tables[line.table]


def constraint_name(constraint: Constraint) -> str:
    """A constraint's name, no longer than Postgres takes it."""
    name = _POSTGRESQL.identifier_preparer.format_constraint(constraint)
    return str(name).strip('"')


def sql_type(type_: Any) -> str:  # noqa: ANN401  any of SQLAlchemy's
    """A type as Postgres names it."""
    known = {"double": "double precision", "timestamp with time zone": "timestamptz"}
    name = str(type_.compile(_POSTGRESQL)).lower()
    return known.get(name, name)


def _take_over(line: Line) -> str:
    type_ = _catalog_type(line.type)
    if line.is_list:
        columns = list_table(line).columns
        type_ = ", ".join(f"{c.name} {_catalog_type(sql_type(c.type))}" for c in columns)
    same_field = "kind = its_kind AND path = its_path"
    if _is_retyped(line):
        # The release has the field already: a line of another type is there beside on purpose.
        same_field += f" AND type = '{line.type}'"
    return _TAKE_OVER.format(
        table=line.table,
        column=line.column,
        kind=line.kind,
        path=sql_text(line.path, 16),
        type=type_,
        same_field=same_field,
        **(_TABLE if line.is_list else _COLUMN),
    )


def _is_retyped(line: Line) -> bool:
    """Whether the release maps this field already."""
    return any(
        line.path == (at if found.path == SELF else f"{at}.{found.path}".strip("."))
        for table in projections(line.kind)
        for at in [origin(table).path]
        for column in table.columns
        if (found := source(column)) is not None and column.name != line.column
    )


def _catalog_type(name: str) -> str:
    return "timestamp with time zone" if name == "timestamptz" else name


def _added(line: Line) -> str:
    if not line.is_list:
        column = _column(line.column, line.type, line.comment)
        call = Call("op.add_column(", (f'"{line.table}"', column, "if_not_exists=True"))
        return "\n".join(call.laid_out(4))
    table = list_table(line)
    (key,) = table.foreign_key_constraints
    (element,) = key.elements
    reference = (f'["{element.parent.name}"]', f'["{element.target_fullname}"]')
    primary = [f'"{column.name}"' for column in table.primary_key.columns]
    called: tuple[str | Text | Call, ...] = (
        f'"{line.table}"',
        *(
            _column(c.name, sql_type(c.type), c.comment or "", nullable=not c.primary_key)
            for c in table.columns
        ),
        Call("sa.ForeignKeyConstraint(", (*reference, _named(key))),
        Call("sa.PrimaryKeyConstraint(", (*primary, _named(table.primary_key))),
        Text(table.comment or "", "comment="),
        "if_not_exists=True",
    )
    return "\n".join(Call("op.create_table(", called).laid_out(4))


def _named(constraint: Constraint) -> str:
    return f'name=op.f("{constraint_name(constraint)}")'


def _column(name: str, type_: str, comment: str, *, nullable: bool = True) -> Call:
    called = (f'"{name}"', _TYPES[type_], f"nullable={nullable}", Text(comment, "comment="))
    return Call("sa.Column(", called)


def _removed(line: Line) -> str:
    if line.is_list:
        return f'    op.drop_table("{line.table}")'
    return "\n".join(Call("op.drop_column(", (f'"{line.table}"', f'"{line.column}"')).laid_out(4))
