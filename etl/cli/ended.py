"""How a run ended, as every command that counts personas or lines tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID


class Ended(Protocol):
    """What the summaries of such runs have in common."""

    @property
    def run_id(self) -> UUID | None:
        """None where no run was entered in the ledger."""

    command: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    counts: dict[str, int]
    value_issues: int
    new_drift_paths: int


def as_object(ended: Ended) -> dict[str, object]:
    """The beginning of what `--json` prints."""
    return {
        "run_id": ended.run_id and str(ended.run_id),
        "command": ended.command,
        "status": ended.status,
        "started_at": ended.started_at.isoformat(),
        "finished_at": ended.finished_at and ended.finished_at.isoformat(),
        "counts": ended.counts,
        "value_issues": ended.value_issues,
        "new_drift_paths": ended.new_drift_paths,
    }


def as_text(ended: Ended, which: str, beside: Mapping[str, int]) -> str:
    """A few aligned lines: what there is none of is left out."""
    took = ""
    if ended.finished_at is not None:
        took = f" in {(ended.finished_at - ended.started_at).total_seconds():.1f} s"
    lines = [f"{ended.command} {ended.status}{took}, {which}"]
    counts = {name.replace("_", " "): count for name, count in ended.counts.items()}
    counts |= {"value issues": ended.value_issues, "API changes": ended.new_drift_paths, **beside}
    lines += [f"  {name:<14}{count:>8}" for name, count in counts.items() if count]
    return "\n".join(lines)
