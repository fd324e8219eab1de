"""Who writes now, and whose run has died: out of the ledger and the lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl.store.lock import current_writer
from etl.store.standing import is_replica, runs_under_way

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from etl.store.entries import RunRow
    from etl.store.lock import Holder


@dataclass(frozen=True, slots=True)
class Busy:
    """Who writes now, and who says so and does not."""

    is_replica: bool
    holder: Holder | None
    running: RunRow | None
    orphans: list[RunRow]


def busy(connection: Connection, runs: str, schema: str) -> Busy:
    """A run's row says running from after the lock is taken until before it is given up.

    So one that says so before and after a look at the lock, and does not hold it, has died.
    """
    before = {run.run_id for run in runs_under_way(connection, runs)}
    follows = is_replica(connection)
    holder = None if follows else current_writer(connection, schema)
    after = runs_under_way(connection, runs)
    if follows or (holder and holder.run_id is None):
        # Whose lock it is can't be seen.
        alive = after[:1]
    else:
        holds = holder.run_id if holder else None
        alive = [run for run in after if run.run_id == holds or run.run_id not in before][:1]
    orphans = [run for run in after if run not in alive]
    return Busy(follows, holder, alive[0] if alive else None, orphans)
