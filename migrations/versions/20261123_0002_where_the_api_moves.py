"""Where the API moves: what values look like, and the columns that are added locally.

Why: a field that the map does not know becomes a typed column, proposed from all that was stored,
in a release or, until one has it, at a single target.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two columns of what differs, and the table of the map's local lines."""
    op.add_column(
        "drift_paths",
        sa.Column(
            "shapes",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="What the values look like: uuid, time, text, whole number, …; never a value.",
        ),
    )
    op.add_column(
        "drift_paths",
        sa.Column(
            "new_members",
            postgresql.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Of new_value: the first new members, cleaned.",
        ),
    )
    op.alter_column(
        "drift_paths",
        "problem",
        comment="unknown to the map; missing: sent no more; type_changed; new_value of a few.",
        existing_comment="unknown: the map does not know it.",
        existing_type=sa.Text(),
    )
    op.alter_column(
        "runs",
        "new_drift_paths",
        comment="Differences of API and map, new in this run.",
        existing_comment="Paths that the map does not know, new in this run.",
        existing_type=sa.Integer(),
        existing_nullable=False,
        existing_server_default=sa.text("0"),
    )
    op.create_table(
        "local_columns",
        sa.Column(
            "table_name",
            sa.Text(),
            nullable=False,
            comment="The table; also one that the line makes.",
        ),
        sa.Column(
            "column_name",
            sa.Text(),
            nullable=False,
            comment="The column that it is filled into.",
        ),
        sa.Column("kind", sa.Text(), nullable=False, comment="The document's kind."),
        sa.Column(
            "path", sa.Text(), nullable=False, comment="The API's path; ends in [] for a list."
        ),
        sa.Column(
            "type", sa.Text(), nullable=False, comment="The type that the column has, in SQL."
        ),
        sa.Column(
            "json_types",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="The JSON types that it came in.",
        ),
        sa.Column("comment", sa.Text(), nullable=False, comment="The column's comment."),
        sa.Column(
            "revision", sa.Text(), nullable=False, comment="The local revision that made it."
        ),
        sa.Column(
            "added_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When that revision was run.",
        ),
        sa.PrimaryKeyConstraint("table_name", "column_name", name=op.f("pk_local_columns")),
        comment="The map's lines that were added here rather than by a release.",
    )


def downgrade() -> None:
    """Away with what it added. What columns the local lines made stay, and are filled no more."""
    op.drop_table("local_columns")
    op.alter_column(
        "runs",
        "new_drift_paths",
        comment="Paths that the map does not know, new in this run.",
        existing_comment="Differences of API and map, new in this run.",
        existing_type=sa.Integer(),
        existing_nullable=False,
        existing_server_default=sa.text("0"),
    )
    op.alter_column(
        "drift_paths",
        "problem",
        comment="unknown: the map does not know it.",
        existing_comment=(
            "unknown to the map; missing: sent no more; type_changed; new_value of a few."
        ),
        existing_type=sa.Text(),
    )
    op.drop_column("drift_paths", "new_members")
    op.drop_column("drift_paths", "shapes")
