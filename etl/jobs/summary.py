"""What a run has come to, and what that means: its status, its error, its exit code."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl.errors import (
    DeferredError,
    DiscrepancyError,
    EtlError,
    InterruptedRunError,
    KeyRefusedError,
    PersonaError,
    RunError,
    SafetyStopError,
    SourceDownError,
)
from etl.report.text import as_line, counted
from etl.tables import FAILURES, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from etl.jobs.reckoning import Reckoned
    from etl.settings.model import Safety
    from etl.store.drift import Novelty
    from etl.store.ledger import Item

logger = logging.getLogger(__name__)

# So many rejected answers, and no other, are not about single personas.
_TELLING = 100

# So many differences are named, so many columns wide.
_NOVELTIES = 5
_LONGEST_NOVELTY = 120


@dataclass(slots=True)
class Summary:
    """What `--json` prints: how a run ended and what it did."""

    run_id: UUID | None
    """None for a dry run, which is not in the ledger."""
    command: str
    status: str
    started_at: datetime
    finished_at: datetime | None
    counts: dict[str, int]
    value_issues: int = 0
    new_drift_paths: int = 0
    http_requests: int = 0
    error: EtlError | None = None
    """Why it ended otherwise than well."""
    left: int = 0
    """How many a run that resumes this one would ask for; 0 also when none can."""
    stages: dict[str, float] = field(default_factory=dict)
    """Busy seconds of each, as far as it came; they overlap."""

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return 0 if self.error is None else self.error.exit_code


@dataclass(slots=True)
class Tally:
    """What a run has come to so far."""

    requested: int
    outcomes: Counter[str] = field(default_factory=Counter)
    value_issues: int = 0
    new_drift_paths: list[Novelty] = field(default_factory=list)
    missing: dict[UUID, datetime] = field(default_factory=dict)
    first_failure: Item | None = None

    def plus(self, batch: Reckoned) -> Tally:
        """With a batch on top."""
        gone = {
            state.persona_id: state.last_attempt_at
            for state in batch.states
            if state.last_outcome == "missing"
        }
        return Tally(
            self.requested,
            self.outcomes + Counter(item.outcome for item in batch.items),
            self.value_issues + batch.issues.opened,
            self.new_drift_paths + batch.drift.new,
            self.missing | gone,
            self.first_failure
            or next((item for item in batch.items if item.outcome in FAILURES), None),
        )

    @property
    def done(self) -> int:
        """How many have an outcome."""
        return self.outcomes.total()

    @property
    def brought_to_life(self) -> int:
        """How many were not live before this run."""
        return self.outcomes["created"] + self.outcomes["restored"]

    @property
    def found_alive(self) -> int:
        """How many were live before this run, and answered as such."""
        return self.outcomes["updated"] + self.outcomes["reshaped"] + self.outcomes["unchanged"]

    def counts(self) -> dict[str, int]:
        """By outcome, with `requested` as their sum."""
        counts = {outcome: self.outcomes[outcome] for outcome in OUTCOMES}
        counts["not_attempted"] = self.requested - self.done
        return {"requested": self.requested, **counts}

    def columns(self, http_requests: int) -> dict[str, int]:
        """As the ledger has them."""
        return {
            **self.counts(),
            "value_issues": self.value_issues,
            "new_drift_paths": len(self.new_drift_paths),
            "http_requests": http_requests,
        }


def refusal(tally: Tally) -> RunError | None:
    """Whether the answers together say that it is not about single personas."""
    outcomes, requested = tally.outcomes, tally.requested
    if requested >= 2 and outcomes["forbidden"] == requested:  # noqa: PLR2004  of one nothing follows
        return KeyRefusedError(
            f"the API answers 403 for all {requested} personas;"
            " check the key's permissions and plan"
        )
    if requested and outcomes["failed"] == requested:
        return SourceDownError(
            f"none of {counted(requested, 'persona')} could be fetched;"
            f" first: {_told(tally.first_failure)}"
        )
    return None


def nothing_but_rejected(tally: Tally) -> SourceDownError | None:
    """Whether so many answers are no personas that somebody else gives them, as a login page."""
    if tally.done < _TELLING or tally.outcomes["rejected"] < tally.done:
        return None
    return SourceDownError(
        f"of {tally.done} answers none is a persona; check api.base_url and what stands between,"
        f" the next run goes on; first: {_told(tally.first_failure)}"
    )


def verdict(
    tally: Tally,
    stopped: RunError | None,
    safety: Safety,
    *,
    strict: bool,
    run_id: UUID | None,
) -> EtlError | None:
    """Why a run did not end well, if it did not: the gravest reason."""
    strict = strict or safety.drift == "fail"
    return stopped or refusal(tally) or _drifted(tally, strict=strict) or _failures(tally, run_id)


def log_outcomes(items: Iterable[Item]) -> None:
    """Says of each persona what became of it, to whoever asked for that much."""
    if logger.isEnabledFor(logging.DEBUG):
        for item in items:
            logger.debug("persona %s: %s", item.persona_id, item.outcome)


def log_new_drift(new: Sequence[Novelty], safety: Safety) -> None:
    """Says once, in one line, where the API differs from the map as it did not before."""
    if new:
        level = logging.INFO if safety.drift == "record" else logging.WARNING
        logger.log(level, "the API has moved: %s", _moved(new))


def _drifted(tally: Tally, *, strict: bool) -> SafetyStopError | None:
    """Whether the API has moved in a way that a person should look at."""
    if not strict or not tally.new_drift_paths:
        return None
    return SafetyStopError(
        f"the API has moved and drift is to fail: {_moved(tally.new_drift_paths)};"
        " everything is loaded, and what no column takes is kept"
    )


def _moved(novelties: Sequence[Novelty]) -> str:
    """The first few, how many more, and where to see all."""
    first = ", ".join(as_line(novelty, _LONGEST_NOVELTY) for novelty in novelties[:_NOVELTIES])
    more = len(novelties) - _NOVELTIES
    return f"{first}{f' and {more} more' if more > 0 else ''}; see `persona-etl drift`"


def _failures(tally: Tally, run_id: UUID | None) -> PersonaError | None:
    """What to tell when some personas were not copied."""
    first = tally.first_failure
    if first is None:
        return None
    failed = {outcome: tally.outcomes[outcome] for outcome in FAILURES if tally.outcomes[outcome]}
    return PersonaError(
        f"{sum(failed.values())} of {counted(tally.requested, 'persona')} not copied"
        f" ({', '.join(f'{count} {outcome}' for outcome, count in failed.items())});"
        f" first: {_told(first)}" + (f"; see `persona-etl runs {run_id}`" if run_id else "")
    )


def _told(item: Item | None) -> str:
    """What went wrong with one persona, and with which."""
    if item is None or item.message is None:
        return "no error was recorded"
    id_ = str(item.persona_id)
    return item.message if id_ in item.message else f"persona {id_}: {item.message}"


def status_of(error: BaseException | None) -> str:
    """How a run that ended with this error is entered."""
    match error:
        case None:
            return "succeeded"
        case PersonaError() | DiscrepancyError():
            return "partial"
        case InterruptedRunError() | KeyboardInterrupt():
            return "interrupted"
        case DeferredError():
            return "deferred"
        case _:
            return "failed"
