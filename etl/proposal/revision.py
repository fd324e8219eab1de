"""The text of a release's revision that gives proposed fields their columns and tables.

Where a team has added a field before a release maps it, the release's revision takes that column
over. It has to find out in SQL, since `migrate --sql` has no database to ask. Runs read
`local_columns` in each batch, so that it is locked first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import postgresql

from etl.map import SHIPPED, extended
from etl.proposal.header import header
from etl.proposal.spelling import WIDTH, Call, Text, sql_text

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
_POSTGRESQL: Final = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it so
# More statements in one function than this are the linter's business.
STATEMENTS: Final = 50
LONG: Final = "  # noqa: PLR0915  a field, a statement"

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


def downgrade() -> None:{long_back}
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
            its record;
            line local_columns;
            kept boolean;
            aside text;
        BEGIN
            FOR its IN
                SELECT right(path, 2) = '[]' AS is_list, * FROM (VALUES
{values}
                ) AS new (table_name, column_name, kind, path, type, is_second)
            LOOP
                kept := EXISTS (
                    SELECT FROM local_columns AS l JOIN pg_attribute AS a
                        ON a.attrelid = to_regclass(quote_ident(l.table_name))
                       AND a.attname = l.column_name AND a.atttypid = CAST(its.type AS regtype)
                     WHERE l.table_name = its.table_name AND l.column_name = its.column_name
                       AND l.kind = its.kind AND l.path = its.path
                );
                FOR line IN
                    SELECT * FROM local_columns AS l
                     WHERE CASE
                        WHEN l.table_name = its.table_name AND l.column_name = its.column_name
                        THEN NOT kept
                        ELSE l.kind = its.kind AND l.path = its.path
                         AND (l.type = its.type OR NOT its.is_second)
                        END
                LOOP
                    BEGIN
                        IF its.is_list THEN
                            aside := line.table_name || '__local';
                            EXECUTE 'ALTER TABLE ' || quote_ident(line.table_name)
                                || ' RENAME TO ' || quote_ident(aside);
                            EXECUTE 'ALTER INDEX IF EXISTS '
                                || quote_ident('pk_' || line.table_name)
                                || ' RENAME TO ' || quote_ident('pk_' || aside);
                            UPDATE local_columns SET table_name = aside
                             WHERE table_name = line.table_name;
                        ELSE
                            aside := line.column_name || '__local';
                            EXECUTE 'ALTER TABLE ' || quote_ident(line.table_name)
                                || ' RENAME COLUMN ' || quote_ident(line.column_name)
                                || ' TO ' || quote_ident(aside);
                            UPDATE local_columns SET column_name = aside
                             WHERE table_name = line.table_name AND column_name = line.column_name;
                        END IF;
                    EXCEPTION
                        -- There is one of that name, or somebody dropped it: left as it is.
                        WHEN duplicate_table OR duplicate_column THEN NULL;
                        WHEN undefined_table OR undefined_column THEN NULL;
                    END;
                END LOOP;
                DELETE FROM local_columns AS l
                 WHERE l.table_name = its.table_name AND l.column_name = its.column_name
                    OR l.kind = its.kind AND l.path = its.path
                   AND (l.type = its.type OR NOT its.is_second);
                IF NOT kept AND EXISTS (
                    SELECT FROM pg_attribute
                     WHERE attrelid = to_regclass(quote_ident(its.table_name))
                       AND (its.is_list OR attname = its.column_name) AND NOT attisdropped
                ) THEN
                    RAISE duplicate_object USING
                        MESSAGE = its.table_name
                            || CASE WHEN its.is_list THEN '' ELSE '.' || its.column_name END
                            || ' is there, made by neither a release nor a local revision',
                        HINT = 'Rename it, then migrate again.';
                END IF;
            END LOOP;
        END
        $take_over$
    \"\"\")"""


def revision_text(proposals: Sequence[Proposal], revision: str, down_revision: str) -> str:
    """The whole file, as ruff formats it."""
    lines = [proposal.line for proposal in proposals]
    take_over = _TAKE_OVER.format(values=",\n".join(_as_values(line) for line in lines))
    return _REVISION.format(
        header=header(proposals, _CLOSING),
        imports="from sqlalchemy.dialects import postgresql\n"
        if any(line.type == "jsonb" for line in lines)
        else "",
        revision=revision,
        down_revision=down_revision,
        # The docstring and the three before them are statements too.
        long=LONG if len(lines) + 4 > STATEMENTS else "",
        long_back=LONG if len(lines) + 3 > STATEMENTS else "",
        upgrade="\n".join([take_over, *(_added(line) for line in lines)]),
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


def _as_values(line: Line) -> str:
    """A row of what the SQL above goes through."""
    parts = [
        f"'{line.table}', '{line.column}'",
        f"'{line.kind}'",
        sql_text(line.path, 24),
        f"'{line.type}', {str(_is_second(line)).lower()}",
    ]
    flat = f"{' ' * 20}({', '.join(parts)})"
    if len(flat) < WIDTH and "\n" not in flat:
        return flat
    separator = f",\n{' ' * 24}"
    return f"{' ' * 20}(\n{' ' * 24}{separator.join(parts)}\n{' ' * 20})"


def _is_second(line: Line) -> bool:
    """Whether the release maps this field already: then a local line of another type stays.

    It is there beside the release's own on purpose, for values that this one can't hold.
    """
    return any(c.name != line.column for c in SHIPPED.columns_at(line.kind, line.path))


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
