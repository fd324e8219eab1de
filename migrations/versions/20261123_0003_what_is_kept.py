"""What is kept: loads from files, pruned histories, forgotten personas, runs that are resumed.

Why: observations of the past come in bulk and are folded at the end; what was pruned is to read as
"not kept" rather than as "was not there"; who was forgotten is to stay so; and a run that asks for
the rest of another says so.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CHANGE = "ck_document_versions_change"
_NO_CONTENT = "ck_document_versions_removed_has_no_content"

# What an earlier release would read wrongly, or would let in again.
_NO_WAY_BACK = """
DO $$
BEGIN
    IF EXISTS (SELECT FROM pruned_history) OR EXISTS (SELECT FROM erasures)
       OR EXISTS (SELECT FROM unfolded) THEN
        RAISE EXCEPTION 'revision 0002 knows nothing of pruned histories, forgotten personas and'
                        ' unfolded observations, and there are some';
    END IF;
END
$$;
"""


def upgrade() -> None:
    """Three tables, a kind of version without a document, rejected lines of no persona, a link."""
    op.create_table(
        "unfolded",
        sa.Column("kind", sa.Text(), nullable=False, comment="The document's kind."),
        sa.Column("entity_id", sa.Uuid(), nullable=False, comment="The document's entity."),
        sa.Column(
            "content_hash",
            sa.LargeBinary(),
            server_default=sa.text("''"),
            nullable=False,
            comment="The content that `observed` came with; or empty.",
        ),
        sa.Column(
            "observed_at",
            sa.DateTime(timezone=True),
            comment="When `observed` came; NULL: none did.",
        ),
        sa.Column(
            "source_updated_at",
            sa.DateTime(timezone=True),
            comment="The updatedAt that came with it.",
        ),
        sa.Column(
            "observed",
            postgresql.JSONB(),
            comment="Of its latest copy: the observed columns, and what did not fit.",
        ),
        sa.PrimaryKeyConstraint("kind", "entity_id", "content_hash", name=op.f("pk_unfolded")),
        comment="Whose versions do not tell yet what was observed: the next run folds it.",
    )
    op.create_table(
        "pruned_history",
        sa.Column("kind", sa.Text(), nullable=False, comment="The document's kind."),
        sa.Column("entity_id", sa.Uuid(), nullable=False, comment="The document's entity."),
        sa.Column(
            "version", sa.Integer(), nullable=False, comment="The last version that is not kept."
        ),
        sa.Column(
            "valid_from",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When the first version began.",
        ),
        sa.Column(
            "valid_to",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When the first kept version begins.",
        ),
        sa.Column(
            "last_observed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Of the last that is not kept.",
        ),
        sa.Column(
            "next_content_hash",
            sa.LargeBinary(),
            nullable=False,
            comment="Of the first kept version.",
        ),
        sa.Column(
            "next_change", sa.Text(), nullable=False, comment="What the first kept version is."
        ),
        sa.Column(
            "next_changed_paths",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="And where it differs.",
        ),
        sa.Column("run_id", sa.Uuid(), comment="The run that pruned it last."),
        sa.PrimaryKeyConstraint("kind", "entity_id", name=op.f("pk_pruned_history")),
        comment="Histories whose beginning is not kept: what the fold goes on from.",
    )
    op.create_table(
        "erasures",
        sa.Column(
            "persona_sha256",
            sa.LargeBinary(),
            nullable=False,
            comment="Of the persona's id: the id itself is gone.",
        ),
        sa.Column(
            "erased_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was forgotten.",
        ),
        sa.Column(
            "rows_deleted",
            postgresql.JSONB(),
            nullable=False,
            comment="How many rows went, by table.",
        ),
        sa.Column("run_id", sa.Uuid(), comment="The run that forgot it."),
        sa.Column(
            "lifted_at",
            sa.DateTime(timezone=True),
            comment="When it was let in again; NULL: it is kept out.",
        ),
        sa.PrimaryKeyConstraint("persona_sha256", "erased_at", name=op.f("pk_erasures")),
        comment="Receipts of forget: who was erased, when, and how much that was.",
    )
    op.add_column(
        "runs",
        sa.Column(
            "resumes", sa.Uuid(), comment="The run whose rest this one asks for; NULL: none."
        ),
    )
    _alter_comments(
        "created, updated, reshaped (the API's shape moved), removed, restored; pruned.",
        "created, updated, reshaped (the API's shape moved), removed or restored.",
        "The document in force; NULL: removed, or pruned.",
        "The document in force; NULL: removed.",
    )
    _replace_checks(
        "change IN ('created', 'updated', 'reshaped', 'removed', 'restored', 'pruned')",
        "(change IN ('removed', 'pruned')) = (content_hash IS NULL)",
    )
    # Whoever reads it joins it with personas, from which NULL is absent.
    op.execute(
        "-- squawk-ignore ban-drop-not-null\n"
        "ALTER TABLE rejected_payloads ALTER COLUMN persona_id DROP NOT NULL"
    )
    op.alter_column(
        "rejected_payloads",
        "persona_id",
        comment="The persona that was asked for; NULL: a line of a file that names none.",
        existing_comment="The persona that was asked for.",
        existing_type=sa.Uuid(),
    )


def downgrade() -> None:
    """Away with what it added, unless there is something in it. Lines of no persona go."""
    op.execute(_NO_WAY_BACK)
    op.execute("DELETE FROM rejected_payloads WHERE persona_id IS NULL")
    op.alter_column(
        "rejected_payloads",
        "persona_id",
        nullable=False,
        comment="The persona that was asked for.",
        existing_comment="The persona that was asked for; NULL: a line of a file that names none.",
        existing_type=sa.Uuid(),
    )
    _replace_checks(
        "change IN ('created', 'updated', 'reshaped', 'removed', 'restored')",
        "(change = 'removed') = (content_hash IS NULL)",
    )
    for name in (_CHANGE, _NO_CONTENT):
        op.execute(f"ALTER TABLE document_versions VALIDATE CONSTRAINT {name}")
    _alter_comments(
        "created, updated, reshaped (the API's shape moved), removed or restored.",
        "created, updated, reshaped (the API's shape moved), removed, restored; pruned.",
        "The document in force; NULL: removed.",
        "The document in force; NULL: removed, or pruned.",
    )
    op.drop_column("runs", "resumes")
    op.drop_table("erasures")
    op.drop_table("pruned_history")
    op.drop_table("unfolded")


def _alter_comments(change: str, change_before: str, content: str, content_before: str) -> None:
    op.alter_column(
        "document_versions",
        "change",
        comment=change,
        existing_comment=change_before,
        existing_type=sa.Text(),
        existing_nullable=False,
    )
    op.alter_column(
        "document_versions",
        "content_hash",
        comment=content,
        existing_comment=content_before,
        existing_type=sa.LargeBinary(),
        existing_nullable=True,
    )


def _replace_checks(change: str, no_content: str) -> None:
    # No client can miss the old ones: each is followed by its wider, or narrower, successor in the
    # same transaction.
    for name, condition in ((_CHANGE, change), (_NO_CONTENT, no_content)):
        op.execute(
            "-- squawk-ignore ban-drop-constraint\n"
            f"ALTER TABLE document_versions DROP CONSTRAINT {name}"
        )
        op.create_check_constraint(
            op.f(name), "document_versions", condition, postgresql_not_valid=True
        )
