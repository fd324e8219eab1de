"""Batches on their way into Postgres: a transaction each, split when Postgres refuses the data."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from etl.jobs.load import load
from etl.jobs.reckoning import read_batch
from etl.jobs.summary import log_outcomes, nothing_but_rejected
from etl.store.asked_for import enter_list, strike_off
from etl.store.engine import is_data_error
from etl.store.ledger import set_counts
from etl.store.states import states
from etl.store.vanished import record_vanished, vanished

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from etl.jobs.arrival import Arrival
    from etl.jobs.opened_run import OpenedRun
    from etl.jobs.reckoning import Batch, Reckoned
    from etl.jobs.summary import Tally


class Loader:
    """Loads a run's batches, one after the other, and keeps its tally."""

    def __init__(
        self,
        run: OpenedRun,
        tally: Tally,
        *,
        http_requests: Callable[[], int],
        watch: Callable[[Tally], None],
        keeps_list: bool = False,
    ) -> None:
        """`keeps_list`: whoever is not settled yet is entered as such, for who resumes the run."""
        self.run = run
        self.connection = run.connection
        self.run_id = run.run_id
        self.tally = tally
        self.http_requests = http_requests
        self.watch = watch
        self.keeps_list = keeps_list

    def known(self, persona_ids: Sequence[UUID]) -> None:
        """Whom the run asks for is known now."""
        self.tally.requested = len(persona_ids)
        with self.run.writing():
            if self.keeps_list:
                enter_list(self.connection, self.run_id, persona_ids)
            set_counts(self.connection, self.run_id, self.tally.columns(self.http_requests()))
        self.watch(self.tally)

    def load(self, batch: Batch) -> None:
        """Loads a batch; one that fails for its data is split until the culprit is alone."""
        try:
            loaded, tally = self.run.in_transaction(partial(self._load, batch))
        except (DBAPIError, UnicodeEncodeError) as exc:
            if not is_data_error(exc) or batch.arrivals[0].refused is not None:
                raise
            self._split(batch.arrivals, exc)
            return
        self.tally = tally
        log_outcomes(loaded.items)
        self.watch(tally)
        if (reason := nothing_but_rejected(tally)) is not None:
            self.run.halt.stop(reason)

    def look_for_vanished(self) -> None:
        """Enters what the API no longer sends: to be seen only once all is loaded and removed."""
        with self.connection.begin():
            found = vanished(self.connection, self.run_id)
        if not found.rows and not found.returned:
            return
        with self.run.writing():
            record_vanished(self.connection, found)
            tally = replace(self.tally, new_drift_paths=self.tally.new_drift_paths + found.new)
            set_counts(self.connection, self.run_id, tally.columns(self.http_requests()))
        self.tally = tally

    def _load(self, batch: Batch) -> tuple[Reckoned, Tally]:
        batch = self._up_to_date(batch)
        if self.keeps_list:
            ids = [arrival.persona_id for arrival in batch.arrivals]
            strike_off(self.connection, self.run_id, ids)
        loaded = load(self.connection, batch, self.run_id)
        tally = self.tally.plus(loaded)
        set_counts(self.connection, self.run_id, tally.columns(self.http_requests()))
        return loaded, tally

    def _up_to_date(self, batch: Batch) -> Batch:
        """Read again when others have written about these personas since it was read."""
        known = states(self.connection, [arrival.persona_id for arrival in batch.arrivals])
        return batch if known == batch.known else read_batch(self.connection, batch.arrivals)

    def _split(self, arrivals: Sequence[Arrival], exc: Exception) -> None:
        middle = len(arrivals) // 2
        if middle:
            self._load_again(arrivals[:middle])
            self._load_again(arrivals[middle:])
            return
        state = getattr(getattr(exc, "orig", None), "sqlstate", None) or type(exc).__name__
        self._load_again([replace(arrivals[0], refused=f"Postgres does not take it ({state})")])

    def _load_again(self, arrivals: Sequence[Arrival]) -> None:
        with self.connection.begin():
            batch = read_batch(self.connection, arrivals)
        self.load(batch)
