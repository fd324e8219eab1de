"""What lines of files bring, on its way into Postgres: a transaction a batch.

Observations and documents are stored at once, and who they are of is noted; versions and rows
follow when all is in (`settling.py`), so the order in which lines come does not matter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from etl.jobs.line_tally import LineTally
from etl.jobs.storing import Storing
from etl.jobs.taken import Refused, Taking
from etl.store.engine import is_data_error
from etl.store.ledger import set_counts
from etl.store.observations import (
    stored_contents,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from etl.jobs.lines import LineReader
    from etl.jobs.opened_run import OpenedRun
    from etl.store.observations import ContentKey

# Contents that are known to be stored: some 100 bytes each.
_CONTENTS_REMEMBERED = 100_000


class Intake:
    """Loads a run's batches, one after the other, and keeps its tally."""

    def __init__(
        self,
        run: OpenedRun,
        reader: LineReader,
        *,
        unforget: bool,
        watch: Callable[[LineTally], None],
    ) -> None:
        self.run = run
        self.connection = run.connection
        self.reader = reader
        self.unforget = unforget
        self.tally = LineTally()
        self.watch = watch
        self.unused: set[ContentKey] = set()
        """To which nothing may refer any more once all is folded."""
        self._stored: set[ContentKey] = set()

    def load(self, batch: Taking) -> None:
        """Loads a batch; one that fails for its data is split until the culprit is alone."""

        def attempt() -> tuple[LineTally, Storing]:
            loading = Storing(self, batch)
            tally = loading.load()
            set_counts(self.connection, self.run.run_id, tally.columns())
            return tally, loading

        try:
            tally, loading = self.run.in_transaction(attempt)
        except (DBAPIError, UnicodeEncodeError) as exc:
            if not is_data_error(exc) or not batch.taken:
                raise
            self._split(batch, exc)
            return
        self.tally = tally
        self._stored |= loading.stored
        self._stored -= loading.unused
        if len(self.unused) < _CONTENTS_REMEMBERED:
            self.unused |= loading.unused
        if len(self._stored) > _CONTENTS_REMEMBERED:
            self._stored.clear()
        self.watch(tally)

    def unknown(self, contents: Iterable[ContentKey]) -> set[ContentKey]:
        """Those of these contents that are not stored yet."""
        unsure = set(contents) - self._stored
        there = stored_contents(self.connection, unsure) if unsure else set()
        self._stored |= there
        return unsure - there

    def _split(self, batch: Taking, exc: Exception) -> None:
        lines, middle = batch.taken, len(batch.taken) // 2
        if middle:
            self.load(batch.first(middle))
            self.load(batch.behind(middle))
            return
        state = getattr(getattr(exc, "orig", None), "sqlstate", None) or type(exc).__name__
        taken = lines[0]
        why = f"Postgres does not take it ({state})"
        refused = Refused(taken.line, why, taken.persona_id, taken.observed_at)
        self.load(replace(batch, taken=[], refused=[*batch.refused, refused]))
