"""Fetches and loads at the same time: workers put answers in, one loader takes batches out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from etl.errors import DeferredError, KeyRefusedError
from etl.jobs.arrival import Arrival, Backlog
from etl.source.answer import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from etl.jobs.arrival import DatabaseClock
    from etl.jobs.halt import Halt
    from etl.jobs.reckoning import Batch
    from etl.source.client import PersonaClient

# Larger batches cost memory and make a lost one dearer, smaller ones pay the round trips more
# often.
BATCH_ITEMS = 250
BATCH_BYTES = 8 * 1024 * 1024
PATIENCE_SECONDS = 1.0
# Reading is all Python: in a thread beside the event loop it made a run a third slower, as the two
# take turns (bench/load.py). A big batch would hold up the timeouts of others, so it goes aside.
READ_ASIDE_BYTES = 4 * 1024 * 1024


class Pace:
    """Spaces the starts of requests evenly; None: as fast as it goes."""

    def __init__(self, per_second: float | None) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        """Returns when the next request may start."""
        if self._interval:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
            await asyncio.sleep(start - now)


async def fetch_and_load(
    ids: Sequence[UUID],
    client: PersonaClient,
    clock: DatabaseClock,
    *,
    read: Callable[[list[Arrival]], Batch],
    load: Callable[[Batch], None],
    concurrency: int,
    pace: Pace,
    halt: Halt,
) -> None:
    """Fetches each id; calls `read`, then `load` in a thread, with one batch after the other.

    While one batch is loaded, which is mostly waiting for Postgres, the next is read; not a big
    one, since what is read takes many times its bytes. It ends early when `halt` is told: by a
    signal, a refused key, a wait that is too long. What `read` or `load` raises ends everything.
    """
    backlog = Backlog(batch_items=BATCH_ITEMS, batch_bytes=BATCH_BYTES)
    remaining = iter(ids)

    async def fetch_all() -> None:
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(concurrency, len(ids))):
                    workers.create_task(
                        _work(remaining, client, clock, backlog=backlog, halt=halt, pace=pace)
                    )
        finally:
            backlog.close()

    fetching = asyncio.create_task(halt.unless_told(fetch_all()))
    loading: asyncio.Task[None] | None = None
    try:
        while arrivals := await backlog.take(PATIENCE_SECONDS):
            if loading is not None and _is_big(arrivals):
                await loading
            batch = await _read(read, arrivals)
            if loading is not None:
                await loading
            loading = asyncio.create_task(_load(load, batch, backlog))
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


def _is_big(arrivals: list[Arrival]) -> bool:
    return sum(arrival.size for arrival in arrivals) >= READ_ASIDE_BYTES


async def _read(read: Callable[[list[Arrival]], Batch], arrivals: list[Arrival]) -> Batch:
    if not _is_big(arrivals):
        return read(arrivals)
    return await asyncio.to_thread(read, arrivals)


async def _load(load: Callable[[Batch], None], batch: Batch, backlog: Backlog) -> None:
    arrivals = batch.arrivals
    await asyncio.to_thread(load, batch)
    backlog.loaded(arrivals)


async def _work(
    remaining: Iterator[UUID],
    client: PersonaClient,
    clock: DatabaseClock,
    *,
    backlog: Backlog,
    halt: Halt,
    pace: Pace,
) -> None:
    """One worker: fetches from what remains until nothing does, or it is told off."""
    for persona_id in remaining:
        await pace.turn()
        try:
            answer = await client.fetch(persona_id, backlog.big_bodies)
        except DeferredError as error:
            halt.stop(error)
            return
        except SourceError as error:
            backlog.put(Arrival(persona_id, clock.at(time.monotonic()), error=error))
            if isinstance(error, KeyRefusedError):
                halt.stop(error)
                return
        else:
            backlog.put(Arrival(persona_id, clock.at(answer.completed_at), answer))
            # Its body would stay here until the next one has come.
            del answer
        await backlog.room()
