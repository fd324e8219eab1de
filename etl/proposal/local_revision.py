"""The text of a local revision: columns that one team has before a release maps their fields.

A release that has such a column already is not disturbed, so that a new database can be migrated
through old local revisions. What a local revision has made is known by its lines in
`local_columns`; what a release took over is in none of them, and stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from etl.proposal.header import header
from etl.proposal.revision import LONG, STATEMENTS, constraint_name, list_table, sql_type
from etl.proposal.spelling import Text, sql_name, sql_text, sql_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etl.map import Line
    from etl.proposal.model import Proposal

_REVISION: Final = '''\
{header}
from __future__ import annotations

from typing import Any

from alembic import op

revision = "{revision}"
down_revision = {down_revision}
branch_labels = None
depends_on = None

# What `migrate` and `drift propose` read of this file: what the columns are filled from.
LINES: list[dict[str, Any]] = [
{lines}
]


def upgrade() -> None:{long}
    """Add what is new, unless the release has it by now."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    # Runs read it in each batch: so they stop, and none sees half of this.
    op.execute("LOCK TABLE local_columns IN ACCESS EXCLUSIVE MODE")
{upgrade}


def downgrade() -> None:
    """Take away what is still local of it; what a release took over stays."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("LOCK TABLE local_columns IN ACCESS EXCLUSIVE MODE")
    op.execute(r"""
        DO $local$
        DECLARE
            line local_columns;
        BEGIN
            FOR line IN
                DELETE FROM local_columns WHERE revision = '{revision}' RETURNING *
            LOOP
                IF right(line.path, 2) = '[]' THEN
                    EXECUTE 'DROP TABLE IF EXISTS ' || quote_ident(line.table_name);
                ELSE
                    EXECUTE 'ALTER TABLE ' || quote_ident(line.table_name)
                        || ' DROP COLUMN IF EXISTS ' || quote_ident(line.column_name);
                END IF;
            END LOOP;
        END
        $local$
    """)
'''
_CLOSING: Final = (
    "Made for one target. A release that maps a field takes its column over; to drop it, downgrade."
)
_ADDED: Final = """\
    op.execute(r\"\"\"
        DO $local$
        DECLARE
            its_table CONSTANT text := '{table}';
            its_column CONSTANT text := '{column}';
        BEGIN
            IF {there} AND NOT EXISTS (
                SELECT FROM local_columns
                 WHERE table_name = its_table AND column_name = its_column
            ) THEN
                RAISE NOTICE USING
                    MESSAGE = its_table || '.' || its_column || ' is there: left as it is';
                RETURN;
            END IF;
{statements}
            INSERT INTO local_columns
                (table_name, column_name, kind, path, type, json_types, comment, revision)
            VALUES (
                its_table,
                its_column,
                '{kind}',
                {path},
                '{type}',
                {json_types},
                {comment},
                '{revision}'
            );
        END
        $local$
    \"\"\")"""
_COLUMN_THERE: Final = """EXISTS (
                SELECT FROM pg_attribute
                 WHERE attrelid = to_regclass(quote_ident(its_table))
                   AND attname = its_column AND NOT attisdropped
            )"""
_TABLE_THERE: Final = "to_regclass(quote_ident(its_table)) IS NOT NULL"
_INDENT: Final = 12


def local_revision_text(
    proposals: Sequence[Proposal], revision: str, down_revision: str | None
) -> str:
    """The whole file, as ruff formats it."""
    lines = [proposal.line for proposal in proposals]
    return _REVISION.format(
        header=header(proposals, _CLOSING),
        revision=revision,
        down_revision="None" if down_revision is None else f'"{down_revision}"',
        lines="\n".join(line for each in lines for line in _as_data(each)),
        long=LONG if len(lines) + 3 > STATEMENTS else "",
        upgrade="\n".join(_added(each, revision) for each in lines),
    )


def _as_data(line: Line) -> list[str]:
    """The line as `local_columns` keeps it."""
    row = {
        "table_name": line.table,
        "column_name": line.column,
        "kind": line.kind,
        "path": line.path,
        "type": line.type,
    }
    texts = [Text(value, f'"{name}": ').laid_out(8) for name, value in row.items()]
    types = ", ".join(Text(each).flat() for each in line.json_types)
    return [
        "    {",
        *(part for text in texts for part in text),
        f'        "json_types": [{types}],',
        *Text(line.comment, '"comment": ').laid_out(8),
        "    },",
    ]


def _added(line: Line, revision: str) -> str:
    statements = _table(line) if line.is_list else _column(line)
    return _ADDED.format(
        there=_TABLE_THERE if line.is_list else _COLUMN_THERE,
        statements="\n".join(" " * _INDENT + statement for statement in statements),
        table=line.table,
        column=line.column,
        kind=line.kind,
        path=sql_text(line.path, 16),
        type=line.type,
        json_types=sql_texts(line.json_types),
        comment=sql_text(line.comment, 16),
        revision=revision,
    )


def _column(line: Line) -> list[str]:
    table, column = sql_name(line.table), sql_name(line.column)
    return [
        f"ALTER TABLE {table}",
        f"    ADD COLUMN {column} {line.type};",
        *_commented("COLUMN", f"{table}.{column}", line.comment),
    ]


def _table(line: Line) -> list[str]:
    """What makes the table of a list, the same as the map's."""
    table = list_table(line)
    (key,) = table.foreign_key_constraints
    (element,) = key.elements
    owner, position, value = table.columns
    named = sql_name(line.table)
    comments = [
        comment
        for each in table.columns
        for comment in _commented("COLUMN", f"{named}.{sql_name(each.name)}", each.comment or "")
    ]
    return [
        f"CREATE TABLE {named} (",
        f"    {owner.name} {sql_type(owner.type)} NOT NULL,",
        f"    {position.name} {sql_type(position.type)} NOT NULL,",
        f"    {value.name} {sql_type(value.type)},",
        f"    CONSTRAINT {sql_name(constraint_name(key))}",
        f"        FOREIGN KEY ({owner.name})",
        f"        REFERENCES {element.column.table.name} ({element.column.name}),",
        f"    CONSTRAINT {sql_name(constraint_name(table.primary_key))}",
        f"        PRIMARY KEY ({owner.name}, {position.name})",
        ");",
        *_commented("TABLE", named, table.comment or ""),
        *comments,
    ]


def _commented(what: str, name: str, comment: str) -> list[str]:
    return [f"COMMENT ON {what}", f"    {name}", f"    IS {sql_text(comment, _INDENT + 8)};"]
