"""Asks the API for the personas of a run: which they are, and each of them, until told to stop."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from etl.jobs.circuit import Circuit
from etl.jobs.fetching import fetch_and_load
from etl.jobs.halt import stopped_early
from etl.jobs.reckoning import read_batch
from etl.jobs.stopwatch import Stopwatch
from etl.source.client import PersonaClient
from etl.source.listing import list_persona_ids
from etl.store.engine import driver_connection
from etl.store.erasures import forgotten_since
from etl.store.session import break_off
from etl.store.states import all_live_personas, last_attempts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Engine

    from etl.errors import RunError
    from etl.jobs.arrival import DatabaseClock
    from etl.jobs.halt import Halt
    from etl.jobs.reckoning import Batch
    from etl.settings import Settings

    Choose = Callable[[Connection, Sequence[UUID]], Sequence[UUID]]

logger = logging.getLogger(__name__)

# So many forgotten personas are named.
_TOLD = 3


class Asking:
    """One run's talk with the API.

    With `discover`, `ids` grows by those that the API lists and by the live ones that it lists no
    longer: only an answer to a persona's own address removes it.
    """

    def __init__(
        self,
        settings: Settings,
        ids: Sequence[UUID],
        *,
        discover: bool,
        choose: Choose = lambda _, ids: ids,
        unforget: bool = False,
    ) -> None:
        """`choose`: whom to ask for when all of them are known, by what is in the database.

        `unforget`: forgotten ones too.
        """
        api = settings.api
        self.ids = list(ids)
        self.stopwatch = Stopwatch()
        self._named = set(ids)
        self._unforget = unforget
        self._discover = discover
        self._choose = choose
        self._client = PersonaClient(
            base_url=api.base_url,
            api_key=settings.require_key().get_secret_value(),
            concurrency=api.concurrency,
            timeout_seconds=api.timeout_seconds,
            max_wait_seconds=api.max_wait_seconds,
            requests_per_second=api.requests_per_second,
            run_deadline_seconds=settings.safety.run_deadline_seconds,
        )
        self._concurrency = api.concurrency
        self._max_wait_seconds = api.max_wait_seconds
        self._deadline_seconds = settings.safety.run_deadline_seconds

    @property
    def http_requests(self) -> int:
        """How many were sent so far."""
        return self._client.http_requests

    def ask(
        self,
        engine: Engine,
        clock: DatabaseClock,
        *,
        halt: Halt,
        known: Callable[[int], None],
        load: Callable[[Batch], None],
    ) -> RunError | None:
        """Asks for each persona and hands the answers on.

        Args:
            engine: For reading ahead.
            clock: Dates the answers.
            halt: Stops it.
            known: Is told the number of personas, once that is known.
            load: Is called in a thread, with one batch after the other.

        Returns:
            Why it stopped early, if it did.
        """
        # A connection of its own, in autocommit: the loader's is in a transaction.
        with (
            engine.connect() as reading,
            halt.breaking(partial(break_off, driver_connection(reading))),
        ):
            reader = reading.execution_options(isolation_level="AUTOCOMMIT")
            return asyncio.run(self._ask(reader, clock, halt, known, load))

    async def _ask(
        self,
        reader: Connection,
        clock: DatabaseClock,
        halt: Halt,
        known: Callable[[int], None],
        load: Callable[[Batch], None],
    ) -> RunError | None:
        async with self._client:
            with stopped_early(halt, self._deadline_seconds):
                if self._discover:
                    with self.stopwatch.timing("list"):
                        listed = await halt.unless_told(self._listed())
                    if listed is None:
                        return halt.reason
                    found = [*self.ids, *listed, *all_live_personas(reader)]
                    self.ids = list(dict.fromkeys(found))
                    if not self.ids:
                        logger.warning(
                            "the API lists no personas: is the key of the right organisation?"
                        )
                if not self._unforget:
                    self.ids = _without_forgotten(reader, self.ids, self._named)
                self.ids = list(self._choose(reader, self.ids))
                known(len(self.ids))
                self.ids = _in_turn(reader, self.ids)
                await fetch_and_load(
                    self.ids,
                    self._client,
                    clock,
                    read=lambda arrivals: read_batch(reader, arrivals),
                    load=load,
                    concurrency=self._concurrency,
                    circuit=Circuit(
                        self._client,
                        concurrency=self._concurrency,
                        max_wait_seconds=self._max_wait_seconds,
                    ),
                    halt=halt,
                    stopwatch=self.stopwatch,
                )
        return halt.reason

    async def _listed(self) -> Sequence[UUID]:
        listing = await list_persona_ids(self._client)
        for warning in listing.warnings:
            logger.warning("%s", warning)
        return listing.ids


def _without_forgotten(
    connection: Connection, ids: Sequence[UUID], named: Collection[UUID]
) -> list[UUID]:
    """Those that nobody has forgotten. The `named` ones among the others are told of."""
    since = forgotten_since(connection, ids)
    for persona_id in since:
        logger.debug("persona %s was forgotten and is left out", persona_id)
    if told := [f"{id_} (on {at:%Y-%m-%d})" for id_, at in since.items() if id_ in named]:
        more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
        one = len(told) == 1
        logger.warning(
            "forgotten and left out: persona%s %s%s; take %s out of the ids, or bring %s back with"
            " `persona-etl sync --unforget`",
            "" if one else "s",
            ", ".join(told[:_TOLD]),
            more,
            *(["it"] * 2 if one else ["them"] * 2),
        )
    return [persona_id for persona_id in ids if persona_id not in since]


def _in_turn(connection: Connection, ids: Sequence[UUID]) -> list[UUID]:
    """Those never asked for first, then those that have waited longest.

    A run that is cut short each time would else serve the same ones each time, and the rest never.
    """
    attempts = last_attempts(connection, ids)
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(ids, key=lambda persona_id: attempts.get(persona_id, never))
