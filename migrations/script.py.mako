"""${message}.

Why: <the one sentence that a reader needs in a year>.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = "${up_revision}"
down_revision = ${'"%s"' % down_revision if isinstance(down_revision, str) else repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}

# Before the review: one change only; every table and column has its comment; no import from etl,
# whose map moves on; a new constraint on a full table is NOT VALID and validated after; an index
# there is made CONCURRENTLY, in an autocommit_block.


def upgrade() -> None:
    """<What is new>."""
    ${upgrades if upgrades else 'raise NotImplementedError("write the upgrade, or delete this file")'}


def downgrade() -> None:
    """Undo all of it, or raise with the reason."""
    ${downgrades if downgrades else 'raise NotImplementedError("say why there is no way back")'}
