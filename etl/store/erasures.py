"""Receipts of `forget`: who was erased, told by a hash, and who is let in again.

A hash is enough: 122 bits of an id are random, so nobody finds it out by trying. Whoever knows the
id can tell that it was forgotten, which is what a receipt is for. A secret to hash it with would
have to stand beside it, and so would keep nothing from anybody.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from sqlalchemy import any_, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from etl.tables import erasures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

# So that it is no hash that anybody else makes of the same id.
_PREFIX = b"persona-etl forgotten persona "


def persona_digest(persona_id: UUID) -> bytes:
    """What a receipt has in the place of the id."""
    return hashlib.sha256(_PREFIX + persona_id.bytes).digest()


def forgotten(connection: Connection, persona_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these personas are kept out."""
    return set(forgotten_since(connection, persona_ids))


def forgotten_since(connection: Connection, persona_ids: Iterable[UUID]) -> dict[UUID, datetime]:
    """When those of these personas that are kept out were forgotten last, in the given order."""
    latest = func.max(erasures.c.erased_at).label("erased_at")
    statement = select(erasures.c.persona_sha256, latest)
    statement = statement.where(erasures.c.lifted_at.is_(None))
    # All of them: they are few, and the personas are many.
    found = connection.execute(statement.group_by(erasures.c.persona_sha256))
    since = {row.persona_sha256: row.erased_at for row in found}
    if not since:
        return {}
    digests = ((persona_id, persona_digest(persona_id)) for persona_id in persona_ids)
    return {persona_id: since[digest] for persona_id, digest in digests if digest in since}


def last_erasure(connection: Connection, persona_id: UUID) -> datetime | None:
    """When a persona was forgotten last, whether it was let in again or not."""
    digest = persona_digest(persona_id)
    statement = select(func.max(erasures.c.erased_at)).where(erasures.c.persona_sha256 == digest)
    at: datetime | None = connection.execute(statement).scalar_one()
    return at


def lift(connection: Connection, persona_ids: Sequence[UUID]) -> None:
    """Lets these personas in again."""
    digests = [persona_digest(persona_id) for persona_id in forgotten(connection, persona_ids)]
    if digests:
        of_these = erasures.c.persona_sha256 == any_(
            literal(digests, ARRAY(erasures.c.persona_sha256.type))
        )
        connection.execute(
            erasures.update()
            .where(of_these, erasures.c.lifted_at.is_(None))
            .values(lifted_at=func.now())
        )


def add_receipt(
    connection: Connection, persona_id: UUID, rows_deleted: Mapping[str, int], run_id: UUID
) -> datetime:
    """Says that a persona was forgotten, in the transaction that forgets it. Returns when."""
    statement = erasures.insert().values(
        persona_sha256=persona_digest(persona_id), rows_deleted=dict(rows_deleted), run_id=run_id
    )
    at: datetime = connection.execute(statement.returning(erasures.c.erased_at)).scalar_one()
    return at
