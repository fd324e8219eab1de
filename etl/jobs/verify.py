"""Asks the API again, and tells where it, the versions and the tables do not say the same.

Its sessions are read-only, it takes no lock and enters nothing in the ledger.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from etl.errors import DiscrepancyError, EtlError, PersonaError
from etl.jobs.arrival import DatabaseClock
from etl.jobs.asking import Asking
from etl.jobs.comparison import COMPARED, Comparison
from etl.jobs.findings import differs, not_folded
from etl.jobs.garbage import seldom_collected
from etl.jobs.halt import Halt, stopped_by_signals
from etl.jobs.summary import Tally, log_outcomes, refusal, status_of
from etl.report.text import counted
from etl.store.engine import driver_connection, translated
from etl.store.faithful import loads_faithfully, read_faithfully
from etl.store.mapped import at_head
from etl.store.session import break_off
from etl.store.snapshot import looking_engine
from etl.store.unfolded import count_unfolded
from etl.tables import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.errors import RunError
    from etl.jobs.comparison import Changes
    from etl.jobs.reckoning import Batch
    from etl.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Verified:
    """How it ended and what it found."""

    status: str
    started_at: datetime
    finished_at: datetime
    counts: dict[str, int]
    """By what became of a persona, with `requested` as their sum."""
    comparison: Comparison
    http_requests: int
    error: EtlError | None

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return 0 if self.error is None else self.error.exit_code


def verify(
    settings: Settings,
    ids: Sequence[UUID],
    *,
    url: str,
    discover: bool = False,
    sample: int | None = None,
    report: Callable[[Verified], None],
    watch: Callable[[Tally], None] = lambda _: None,
) -> None:
    """Compares these personas, or `sample` of them. Calls `report` once it has begun, at the end.

    Raises:
        DatabaseError: Postgres is unreachable or its schema not at head.
        UsageError: the API's address or the key can't be used.
    """
    asking = Asking(
        settings, ids, discover=discover, choose=lambda _, known: chosen(known, size=sample)
    )
    schema = settings.database.schema_
    engine = looking_engine(url, schema, json_deserializer=loads_faithfully)
    engine = at_head(engine, schema)
    halt = Halt()
    with (
        stopped_by_signals(halt),
        translated(engine),
        engine.connect() as connection,
        halt.breaking(partial(break_off, driver_connection(connection))),
    ):
        read_faithfully(connection)
        clock = DatabaseClock.read(connection)
        connection.rollback()
        verification = _Verification(connection, watch)
        started_at = clock.at(time.monotonic())

        def ended(status: str, error: EtlError | None) -> Verified:
            return Verified(
                status=status,
                started_at=started_at,
                finished_at=clock.at(time.monotonic()),
                counts=verification.counts(),
                comparison=verification.comparison,
                http_requests=asking.http_requests,
                error=error,
            )

        error: EtlError | None
        try:
            with translated(engine), seldom_collected():
                stopped = asking.ask(
                    engine, clock, halt=halt, known=verification.known, load=verification.load
                )
            error = verification.verdict(stopped)
        except EtlError as exc:
            error = exc
        except BaseException:
            if not halt.is_urgent:
                raise
            error = None
        error = halt.interruption or error
    status = "failed" if isinstance(error, DiscrepancyError) else status_of(error)
    report(ended(status, error))


def chosen(ids: Sequence[UUID], *, size: int | None) -> Sequence[UUID]:
    """So many of these, each as likely as any other; None: all."""
    if size is None or size >= len(ids):
        return ids
    sample = random.SystemRandom().sample(ids, size)
    logger.debug("chosen: %s", ", ".join(map(str, sample)))
    return sample


class _Verification:
    """Takes the loader's place."""

    def __init__(self, connection: Connection, watch: Callable[[Tally], None]) -> None:
        self.connection = connection
        self.comparison = Comparison()
        self.tally = Tally(0)
        self._watch = watch

    def known(self, requested: int) -> None:
        """The number of personas is known now."""
        self.tally.requested = requested
        self._watch(self.tally)

    def load(self, batch: Batch) -> None:
        """Compares a batch."""
        with self.connection.begin():
            items = self.comparison.take(self.connection, batch)
        failed = (item for item in items if item.outcome in FAILURES)
        self.tally.outcomes.update(item.outcome for item in items)
        self.tally.first_failure = self.tally.first_failure or next(failed, None)
        log_outcomes(items)
        self._watch(self.tally)

    def counts(self) -> dict[str, int]:
        """By outcome, with `requested` as their sum."""
        tally = self.tally
        counts = {outcome: tally.outcomes[outcome] for outcome in (*COMPARED, *FAILURES)}
        counts["not_attempted"] = tally.requested - tally.done
        return {"requested": tally.requested, **counts}

    def verdict(self, stopped: RunError | None) -> EtlError | None:
        """Why it did not end well, if it did not: the gravest reason."""
        return stopped or refusal(self.tally) or self._differences() or self._failures()

    def _differences(self) -> DiscrepancyError | None:
        found = self.comparison
        told = []
        if found.found.differences:
            told.append(f"versions and tables: {differs(found.found)}")
        if found.lost.number:
            told.append(
                f"{counted(found.lost.number, 'change')} had been copied and {_is(found.lost)}"
                " lost; restore observations and documents from a backup"
            )
        if found.ahead.number:
            told.append(
                f"{counted(found.ahead.number, 'change')} at the API {_is(found.ahead)} not copied"
                " yet; `persona-etl sync` does that"
            )
        if not told:
            return None
        with self.connection.begin():
            if unfolded := count_unfolded(self.connection):
                told.insert(0, not_folded(unfolded))
        return DiscrepancyError("; ".join(told))

    def _failures(self) -> PersonaError | None:
        first = self.tally.first_failure
        if first is None:
            return None
        counts = self.counts()
        why = ", ".join(f"{counts[name]} {name}" for name in FAILURES if counts[name])
        return PersonaError(
            f"{sum(counts[name] for name in FAILURES)} of"
            f" {counted(counts['requested'], 'persona')} could not be verified ({why});"
            f" first: persona {first.persona_id}: {first.message}"
        )


def _is(changes: Changes) -> str:
    return "is" if changes.number == 1 else "are"
