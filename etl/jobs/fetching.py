"""Fetches and loads at the same time: workers put answers in, one loader takes batches out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from etl.errors import DeferredError, KeyRefusedError, RunError
from etl.jobs.arrival import Arrival, Backlog
from etl.jobs.circuit import Remaining
from etl.source.answer import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from etl.jobs.arrival import DatabaseClock
    from etl.jobs.circuit import Circuit
    from etl.jobs.halt import Halt
    from etl.jobs.reckoning import Batch
    from etl.jobs.stopwatch import Stopwatch
    from etl.source.answer import Answer
    from etl.source.client import PersonaClient

# Larger batches cost memory and make a lost one dearer, smaller ones pay the round trips more
# often.
BATCH_ITEMS = 250
BATCH_BYTES = 8 * 1024 * 1024
PATIENCE_SECONDS = 1.0
# Reading is all Python: in a thread beside the event loop it made a run a third slower, as the two
# take turns (bench/load.py). A big batch would hold up the timeouts of others, so it goes aside.
READ_ASIDE_BYTES = 4 * 1024 * 1024


async def fetch_and_load(
    ids: Sequence[UUID],
    client: PersonaClient,
    clock: DatabaseClock,
    *,
    read: Callable[[list[Arrival]], Batch],
    load: Callable[[Batch], None],
    concurrency: int,
    circuit: Circuit,
    halt: Halt,
    stopwatch: Stopwatch,
) -> None:
    """Fetches each id; calls `read`, then `load` in a thread, with one batch after the other.

    While one batch is loaded, which is mostly waiting for Postgres, the next is read; not a big
    one, since what is read takes many times its bytes. It ends early when `halt` is told: by a
    signal, a refused key, a wait that is too long, or the circuit when the API is down. What `read`
    or `load` raises ends everything.
    """
    backlog = Backlog(batch_items=BATCH_ITEMS, batch_bytes=BATCH_BYTES)
    workers = _Workers(ids, client, clock, backlog=backlog, circuit=circuit, halt=halt)

    async def fetch() -> None:
        with stopwatch.timing("fetch"):
            await halt.unless_told(workers.run(concurrency))

    fetching = asyncio.create_task(fetch())
    loading: asyncio.Task[None] | None = None
    try:
        while arrivals := await _next(backlog, loading):
            if loading is not None and _is_big(arrivals):
                await loading
            with stopwatch.timing("read"):
                batch = await _read(read, arrivals)
            if loading is not None:
                await loading
            loading = asyncio.create_task(_load(load, batch, backlog, stopwatch))
            # Whatever is held here would stay until the next batch comes.
            del arrivals, batch
        if loading is not None:
            await loading
        await fetching
    finally:
        fetching.cancel()
        # A thread can't be cancelled: its transaction ends before the connection is let go.
        await asyncio.wait([fetching, *([loading] if loading else [])])
        if loading is not None and not loading.cancelled():
            loading.exception()


async def _next(backlog: Backlog, loading: asyncio.Task[None] | None) -> list[Arrival]:
    """The next batch; raises what the one before it ends with, without waiting for more."""
    taking = asyncio.create_task(backlog.take(PATIENCE_SECONDS))
    if loading is None:
        return await taking
    try:
        await asyncio.wait([taking, loading], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
        return await taking
    finally:
        taking.cancel()


def _is_big(arrivals: list[Arrival]) -> bool:
    return sum(arrival.size for arrival in arrivals) >= READ_ASIDE_BYTES


async def _read(read: Callable[[list[Arrival]], Batch], arrivals: list[Arrival]) -> Batch:
    if not _is_big(arrivals):
        return read(arrivals)
    return await asyncio.to_thread(read, arrivals)


async def _load(
    load: Callable[[Batch], None], batch: Batch, backlog: Backlog, stopwatch: Stopwatch
) -> None:
    arrivals = batch.arrivals
    with stopwatch.timing("load"):
        await asyncio.to_thread(load, batch)
    backlog.loaded(arrivals)


class _Workers:
    """Fetch what remains, each one persona after the other, until nothing does."""

    def __init__(
        self,
        ids: Sequence[UUID],
        client: PersonaClient,
        clock: DatabaseClock,
        *,
        backlog: Backlog,
        circuit: Circuit,
        halt: Halt,
    ) -> None:
        self._remaining = Remaining(ids)
        self._client = client
        self._clock = clock
        self._backlog = backlog
        self._circuit = circuit
        self._halt = halt

    async def run(self, concurrency: int) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                # One of them: all would wait for ever for one who has paused them and died.
                watching = tasks.create_task(self._watch())
                count = min(concurrency, len(self._remaining))
                if workers := [tasks.create_task(self._work()) for _ in range(count)]:
                    await asyncio.wait(workers)
                watching.cancel()
        finally:
            self._backlog.close()

    async def _work(self) -> None:
        while (persona_id := self._remaining.next()) is not None:
            try:
                answer = await self._client.fetch(persona_id, self._backlog.big_bodies)
            except DeferredError as error:
                self._halt.stop(error)
                return
            except SourceError as error:
                if self._circuit.given_up:
                    return  # It is recorded.
                self._failed(persona_id, error)
                if isinstance(error, KeyRefusedError):
                    self._halt.stop(error)
                    return
            else:
                if self._circuit.given_up:
                    return
                self._arrived(persona_id, answer)
                # Its body would stay here until the next one has come.
                del answer
            await self._backlog.room()

    async def _watch(self) -> None:
        """Stop all when the API is down: those that have failed so far are recorded as such."""
        try:
            reason: RunError = await self._circuit.keep(
                self._remaining, self._arrived, self._backlog.big_bodies
            )
        except RunError as told:  # A probe was.
            reason = told
        else:
            for persona_id, error in list(self._circuit.unsettled.items()):
                self._failed(persona_id, error)
        self._halt.stop(reason)

    def _arrived(self, persona_id: UUID, answer: Answer) -> None:
        self._circuit.settle(persona_id)
        self._backlog.put(Arrival(persona_id, self._clock.at(answer.completed_at), answer))

    def _failed(self, persona_id: UUID, error: SourceError) -> None:
        self._circuit.settle(persona_id)
        self._backlog.put(Arrival(persona_id, self._clock.at(time.monotonic()), error=error))
