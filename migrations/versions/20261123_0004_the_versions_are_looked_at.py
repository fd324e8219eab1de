"""The rows of document_versions are held against the checks that revision 0003 has made wider.

Why: in a transaction of its own that takes no lock which readers or writers wait for.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CHECKS = {
    "ck_document_versions_change": (
        "change IN ('created', 'updated', 'reshaped', 'removed', 'restored', 'pruned')"
    ),
    "ck_document_versions_removed_has_no_content": (
        "(change IN ('removed', 'pruned')) = (content_hash IS NULL)"
    ),
}


def upgrade() -> None:
    """Nothing can be wrong with them: the narrower checks held."""
    for name in _CHECKS:
        op.execute(f"ALTER TABLE document_versions VALIDATE CONSTRAINT {name}")


def downgrade() -> None:
    """Again they hold for new rows alone."""
    for name, condition in _CHECKS.items():
        op.drop_constraint(op.f(name), "document_versions", type_="check")
        op.create_check_constraint(
            op.f(name), "document_versions", condition, postgresql_not_valid=True
        )
