"""Local revisions as a team has them: a file each, its lines of the map as data."""

from __future__ import annotations

from pprint import pformat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Row = dict[str, Any]

MOOD: Row = {
    "table_name": "personas",
    "column_name": "mood",
    "kind": "persona",
    "path": "mood",
    "type": "text",
    "json_types": ["string"],
    "comment": "How it feels.",
}
RANK: Row = MOOD | {
    "table_name": "voices",
    "column_name": "rank",
    "kind": "voice",
    "path": "rank",
    "type": "bigint",
    "json_types": ["number"],
    "comment": "Its place.",
}
LANGUAGES: Row = MOOD | {
    "table_name": "persona_languages",
    "column_name": "value",
    "path": "languages[]",
    "comment": "What it speaks.",
}

# A list's table, as its line has the map make it.
MAKE_LANGUAGES = """
    op.create_table(
        "persona_languages",
        sa.Column("persona_id", sa.UUID(), sa.ForeignKey("personas.persona_id"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("value", sa.Text()),
        sa.PrimaryKeyConstraint("persona_id", "position"),
    )"""

_TEXT = '''"""Columns of our own: {number}.

Why: the API sends them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = {revision!r}
down_revision = {before!r}
branch_labels = None
depends_on = None

LINES: list[dict[str, object]] = {lines}

NAMES = ("table_name", "column_name", "kind", "path", "type", "comment", "revision")
local_columns = sa.table(
    "local_columns",
    sa.column("json_types", postgresql.ARRAY(sa.Text())),
    *(sa.column(name, sa.Text()) for name in NAMES),
)


def upgrade():
    op.execute("LOCK TABLE local_columns IN ACCESS EXCLUSIVE MODE")
{up}
    op.bulk_insert(local_columns, [line | {{"revision": revision}} for line in LINES])


def downgrade():
    op.execute("LOCK TABLE local_columns IN ACCESS EXCLUSIVE MODE")
    op.execute(f"DELETE FROM local_columns WHERE revision = '{{revision}}'")
{down}
'''


def write(
    folder: Path,
    number: int,
    lines: Sequence[Mapping[str, Any]] = (),
    *,
    up: str | None = None,
    down: str | None = None,
    before: str | None = "",
) -> Path:
    """Writes a revision that adds columns for these lines, or does what is told."""
    folder.mkdir(exist_ok=True)
    adds = [
        f'    op.execute("ALTER TABLE {line["table_name"]} ADD {line["column_name"]}'
        f' {line["type"]}")\n'
        f'    op.execute("COMMENT ON COLUMN {line["table_name"]}.{line["column_name"]}'
        f" IS '{line['comment']}'\")"
        for line in lines
    ]
    drops = [
        f'    op.execute("ALTER TABLE {line["table_name"]} DROP {line["column_name"]}")'
        for line in lines
    ]
    if before == "":
        before = f"local_{number - 1:04}" if number > 1 else None
    file = folder / f"20261123_local_{number:04}_columns.py"
    file.write_text(
        _TEXT.format(
            number=number,
            revision=f"local_{number:04}",
            before=before,
            lines=pformat([dict(line) for line in lines]),
            up="\n".join(adds) if up is None else up,
            down="\n".join(drops) if down is None else down,
        ),
        encoding="utf-8",
    )
    return file
