"""What a load of lines has come to so far, and what is kept of those that are rejected."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

from etl.store.engine import database_now
from etl.store.ledger import Rejection, add_rejections, add_worst_items

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.taken import Refused, Taken
    from etl.store.drift import Novelty

# So many rejected lines of a run are kept. The file has them all.
_REJECTIONS_KEPT = 1000


@dataclass(slots=True)
class LineTally:
    """What a load from files has come to so far."""

    lines: int = 0
    """But for those of forgotten personas."""
    forgotten: int = 0
    not_kept: int = 0
    """Of which nothing is left, being older than all that is kept of history."""
    missing: int = 0
    rejected: int = 0
    observations: int = 0
    """New rows."""
    first_rejected: list[str] = field(default_factory=list)
    new_drift_paths: list[Novelty] = field(default_factory=list)

    def columns(self) -> dict[str, int]:
        """As the ledger has them before it is folded: what is stored is not settled yet."""
        settled = self.missing + self.rejected
        return {
            "requested": self.lines,
            "missing": self.missing,
            "rejected": self.rejected,
            "not_attempted": self.lines - settled,
            "new_drift_paths": len(self.new_drift_paths),
        }


def _rejection(refused: Refused, now: datetime) -> Rejection:
    """What is kept of it: the same line, run again, is the same row."""
    digest = hashlib.sha256(refused.line.raw).digest()
    return Rejection(
        id=uuid5(NAMESPACE_OID, f"{refused} {digest.hex()}"),
        persona_id=refused.persona_id,
        observed_at=refused.observed_at or now,
        reason=str(refused),
        body=refused.payload,
        length=len(refused.line.raw),
        sha256=digest,
        content_type=None,
    )


def record_lines(
    connection: Connection,
    run_id: UUID,
    missing: Sequence[Taken],
    refused: Sequence[Refused],
    rejected_before: int,
) -> None:
    """Enters the lines that say 404, and those that were rejected: so many of these are kept.

    `rejected_before`: how many of the run were rejected before these.
    """
    items: dict[UUID, tuple[str, str | None]] = {}
    for taken in missing:
        where = f"{taken.line.name}:{taken.line.number}"
        items[taken.persona_id] = ("missing", f"{where}: the API did not know it")
    for each in refused:
        if each.persona_id is not None:
            items[each.persona_id] = ("rejected", str(each))
    if items:
        add_worst_items(connection, run_id, items)
    now = database_now(connection)
    room = max(_REJECTIONS_KEPT - rejected_before, 0)
    add_rejections(
        connection,
        run_id,
        [_rejection(each, now) for each in refused[:room]],
    )
