"""What must hold after whatever has happened: the books, and tables and history without times."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from etl.tables import OUTCOMES, metadata

if TYPE_CHECKING:
    from tests.db.conftest import Target

# What differs between two histories of the same things: when it was seen, and in which run.
OF_THE_MOMENT = {
    "first_seen_at",
    "last_changed_at",
    "last_observed_at",
    "last_seen_at",
    "observed_at",
    "resolved_at",
    "run_id",
    "valid_from",
    "valid_to",
}
LEDGER = {"runs", "run_items", "persona_sync_state"}
# All but `running`: a run that ended has its row closed, or the next run closes it.
CLOSED = {"succeeded", "partial", "failed", "skipped", "deferred", "interrupted", "crashed"}
# Outcomes of which the persona's own history must tell, in the same run.
TOLD = {"created", "updated", "reshaped", "restored"}


def timeless(target: Target) -> dict[str, list[str]]:
    """All tables but the ledger; of times only whether there is one, and the order they make."""
    found: dict[str, list[str]] = {}
    for name in metadata.tables.keys() - LEDGER - {"rejected_payloads"}:
        rows = [
            {
                column: value is None if column == "removed_at" else value
                for column, value in row.items()
                if column not in OF_THE_MOMENT
            }
            for row in target.rows(name)
        ]
        found[name] = sorted(map(repr, rows))
    # Each run keeps what it rejected.
    found["rejected_payloads"] = sorted(
        {
            repr((row["persona_id"], row["reason"], row["body"], row["sha256"], row["length"]))
            for row in target.rows("rejected_payloads")
        }
    )
    found["observations in their order"] = sorted(map(repr, brought(target).items()))
    found["documents that personas last brought"] = sorted(
        repr((row["persona_id"], row["content_sha256"]))
        for row in target.rows("persona_sync_state")
    )
    return found


def brought(target: Target) -> dict[tuple[str, Any, Any], list[bytes | None]]:
    """What each persona brought of each entity, in the order in which it did."""
    found = defaultdict(list)
    for row in sorted(target.rows("observations"), key=lambda row: row["observed_at"]):
        what = (row["kind"], row["entity_id"], row["persona_id"])
        found[what].append(row["content_hash"])
    return dict(found)


def check_ledger(target: Target) -> None:
    """Each run is closed and accounts for each id; rows and their ledger lines came together."""
    for run in target.rows("runs"):
        assert run["status"] in CLOSED, run
        assert run["finished_at"] is not None, run
        assert run["requested"] == sum(run[outcome] for outcome in OUTCOMES), run
    crashed = {run["run_id"] for run in target.rows("runs", status="crashed")}
    items = {
        (item["run_id"], item["persona_id"])
        for item in target.rows("run_items")
        if item["outcome"] in TOLD
    }
    observed = {
        (row["run_id"], row["entity_id"])
        for row in target.rows("observations", kind="persona")
        if row["content_hash"] is not None
    }
    assert items <= observed, f"in the ledger, and not in the history: {items - observed}"
    told = {
        (row["run_id"], row["entity_id"])
        for row in target.rows("document_versions", kind="persona")
        if row["change"] in TOLD
    }
    assert told <= items, f"in the history, and not in the ledger: {told - items}"
    # A run that crashed may have loaded batches; the rest it never came to.
    for run_id in crashed:
        (run,) = target.rows("runs", run_id=run_id)
        settled = [
            item
            for item in target.rows("run_items", run_id=run_id)
            if item["outcome"] != "not_attempted"
        ]
        assert len(settled) + run["unchanged"] == run["requested"] - run["not_attempted"], run


def locks_left(target: Target) -> list[dict[str, Any]]:
    """Advisory locks that are held in the target's database."""
    return target.query(
        "SELECT pid, mode FROM pg_locks WHERE locktype = 'advisory' AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
