"""What the ledger need not keep for ever: old runs, issues that are resolved, rejected payloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from etl.tables import UUID_, rejected_payloads, run_items, runs, value_issues

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

# `status`, `freshness` and the next run look at the last run of a kind, however old it is.
_EXPENDABLE = text("""
    SELECT run_id
      FROM runs
     WHERE status <> 'running' AND finished_at <= :before
       AND run_id NOT IN (SELECT last_run_id FROM persona_sync_state)
       AND run_id NOT IN (
           SELECT DISTINCT ON (command, status) run_id
             FROM runs
            ORDER BY command, status, started_at DESC)
     ORDER BY started_at
""")

_IDS = bindparam("ids", type_=ARRAY(UUID_))
_COUNT_ITEMS = text("SELECT count(*) FROM run_items WHERE run_id = ANY(:ids)").bindparams(_IDS)
_DELETE_ITEMS = text("""
    DELETE FROM run_items
     WHERE (run_id, persona_id) IN (
           SELECT run_id, persona_id FROM run_items WHERE run_id = ANY(:ids) LIMIT :limit)
""").bindparams(_IDS)
_DELETE_RUNS = text("DELETE FROM runs WHERE run_id = ANY(:ids)").bindparams(_IDS)

_OLD = {
    value_issues.name: "FROM value_issues WHERE resolved_at <= :before",
    rejected_payloads.name: "FROM rejected_payloads WHERE observed_at <= :before",
}
_COUNT_OLD = {table: text(f"SELECT count(*) {old}") for table, old in _OLD.items()}
_DELETE_OLD = {
    table: text(f"""
        DELETE FROM {table}
         WHERE ctid = ANY (ARRAY(SELECT ctid {old} LIMIT :limit))
    """)  # noqa: S608  names of tables
    for table, old in _OLD.items()
}


def expendable_runs(connection: Connection, before: datetime) -> list[UUID]:
    """The runs that ended by then, the oldest first.

    Without the last of each command and status, those that personas were last asked for in, and
    those that are under way.
    """
    return list(connection.execute(_EXPENDABLE, {"before": before}).scalars())


def count_items(connection: Connection, ids: Sequence[UUID]) -> int:
    """How many items these runs have."""
    return int(connection.execute(_COUNT_ITEMS, {"ids": list(ids)}).scalar_one())


def delete_runs(connection: Connection, ids: Sequence[UUID], *, limit: int) -> dict[str, int]:
    """Deletes up to so many items of these runs, and the runs when they have none left.

    Returns how many rows went, by table; no runs: there is more to do.
    """
    items = connection.execute(_DELETE_ITEMS, {"ids": list(ids), "limit": limit}).rowcount
    gone = {run_items.name: items}
    if items < limit:
        gone[runs.name] = connection.execute(_DELETE_RUNS, {"ids": list(ids)}).rowcount
    return gone


def count_old(connection: Connection, table: str, before: datetime) -> int:
    """How many of the value issues were resolved, or payloads rejected, by then."""
    return int(connection.execute(_COUNT_OLD[table], {"before": before}).scalar_one())


def delete_old(connection: Connection, table: str, before: datetime, *, limit: int) -> int:
    """Deletes up to so many of them. Returns how many."""
    return connection.execute(_DELETE_OLD[table], {"before": before, "limit": limit}).rowcount
