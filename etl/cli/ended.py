"""How a run ended, as every command tells it; and what those that count personas or lines add."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from etl.cli.moments import iso

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from etl.cli.invocation import Invocation
    from etl.errors import EtlError

logger = logging.getLogger(__name__)


class Ended(Protocol):
    """What all summaries have in common."""

    @property
    def run_id(self) -> UUID | None:
        """None where no run was entered in the ledger."""

    status: str
    started_at: datetime
    finished_at: datetime | None
    error: EtlError | None

    @property
    def exit_code(self) -> int:
        """Of the command, unless a bug ended it."""


class Counted(Ended, Protocol):
    """What the summaries of runs that count have in common."""

    command: str
    counts: dict[str, int]
    value_issues: int
    new_drift_paths: int


def log_end(invocation: Invocation, ended: Ended, command: str, told: Mapping[str, object]) -> None:
    """The one line of the log about a run as a whole; where stdout says it, for machines alone.

    What is no run of the ledger, like a rehearsal or a check, has none. `told` says what it did:
    numbers, by name.
    """
    if ended.run_id is None or not (invocation.json_logs or invocation.verbose):
        return
    # Of a bug nobody knows as yet but the ledger.
    exit_code = 1 if ended.status == "failed" and ended.error is None else ended.exit_code
    took = ended.finished_at and (ended.finished_at - ended.started_at).total_seconds()
    about = {
        "command": command,
        "status": ended.status,
        "exit_code": exit_code,
        "duration_seconds": took,
    }
    logger.info("%s %s", command, ended.status, extra=about | dict(told))


def as_object(ended: Ended, command: str) -> dict[str, object]:
    """The beginning of what `--json` prints."""
    return {
        "run_id": ended.run_id and str(ended.run_id),
        "command": command,
        "status": ended.status,
        "started_at": iso(ended.started_at),
        "finished_at": iso(ended.finished_at),
    }


def as_line(ended: Ended, command: str) -> str:
    """How it ended, in how many seconds, and which run it was."""
    took = ""
    if ended.finished_at is not None:
        took = f" in {(ended.finished_at - ended.started_at).total_seconds():.1f} s"
    which = f"run {ended.run_id}" if ended.run_id else "a dry run: nothing was written"
    return f"{command} {ended.status}{took}, {which}"


def counted(ended: Counted) -> dict[str, object]:
    """What it came to, in numbers."""
    return {
        "counts": ended.counts,
        "value_issues": ended.value_issues,
        "new_drift_paths": ended.new_drift_paths,
    }


def counted_text(ended: Counted, beside: Mapping[str, int]) -> str:
    """A few aligned lines: what there is none of is left out."""
    lines = [as_line(ended, ended.command)]
    counts = {name.replace("_", " "): count for name, count in ended.counts.items()}
    counts |= {"value issues": ended.value_issues, "API changes": ended.new_drift_paths, **beside}
    lines += [f"  {name:<14}{count:>8}" for name, count in counts.items() if count]
    return "\n".join(lines)
