"""What came back for one persona, dated by the database's clock, and the queue it waits in."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from etl.source.room import BodyRoom
from etl.store.engine import database_now
from etl.store.states import latest_attempt

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.source.answer import Answer, SourceError
    from etl.store.states import State


@dataclass(frozen=True, slots=True)
class Arrival:
    """An answer, or the error that stands for one."""

    persona_id: UUID
    observed_at: datetime
    answer: Answer | None = None
    error: SourceError | None = None
    refused: str | None = None
    """Why Postgres did not take what it brings."""

    def is_late(self, state: State) -> bool:
        """Whether what came later than this is known already."""
        return self.observed_at <= state.last_attempt_at

    @property
    def size(self) -> int:
        """Bytes of its body."""
        return len(self.answer.body) if self.answer and self.answer.body else 0


@dataclass(frozen=True, slots=True)
class DatabaseClock:
    """The database's clock, read once and carried on by our own steady one.

    Never behind what was seen already: after a clock was set back, new content would else be dated
    before the old and never come into force.
    """

    read_at: float
    """`time.monotonic()` right after the reading, so that no moment lies ahead of the database."""
    reading: datetime

    @classmethod
    def read(cls, connection: Connection) -> DatabaseClock:
        """Asks the database for its time."""
        reading = database_now(connection)
        read_at = time.monotonic()
        latest = latest_attempt(connection)
        if latest is not None and latest >= reading:
            reading = latest + timedelta(microseconds=1)
        return cls(read_at, reading)

    def at(self, monotonic: float) -> datetime:
        """The database's time at a moment of `time.monotonic()`."""
        return self.reading + timedelta(seconds=monotonic - self.read_at)


class Backlog:
    """Arrivals on their way from fetching to loading, bounded in number and bytes.

    An arrival is put in at the moment it is complete, so that they stay in the order of their
    times; whoever put one in waits for room before the next request. That alone would let each
    worker bring a body of any length: big ones have had to wait for `big_bodies`, and leave it when
    they are loaded.
    """

    def __init__(self, *, batch_items: int, batch_bytes: int) -> None:
        """It holds two batches: while one is taken, the next gathers."""
        self._waiting: deque[Arrival] = deque()
        self._bytes = 0
        self._batch_items = batch_items
        self._batch_bytes = batch_bytes
        self._closed = False
        self.big_bodies = BodyRoom()
        # Three events rather than one: nobody is woken for each single arrival.
        self._any = asyncio.Event()
        self._enough = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, arrival: Arrival) -> None:
        """Adds an arrival, even beyond the bounds."""
        self._waiting.append(arrival)
        self._bytes += arrival.size
        self._tell()

    def close(self) -> None:
        """Says that nothing more will come."""
        self._closed = True
        self._tell()

    async def room(self) -> None:
        """Returns when there is room for another arrival."""
        await self._room.wait()

    async def take(self, patience: float) -> list[Arrival]:
        """The next batch, oldest first; none when it is closed and empty.

        Waits `patience` seconds for a full batch once the first is there.
        """
        await self._any.wait()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), patience)
        batch: list[Arrival] = []
        size = 0
        while self._waiting and len(batch) < self._batch_items and size < self._batch_bytes:
            arrival = self._waiting.popleft()
            batch.append(arrival)
            size += arrival.size
        self._bytes -= size
        self._tell()
        return batch

    def loaded(self, arrivals: Iterable[Arrival]) -> None:
        """Nobody holds the bodies of these any more."""
        for arrival in arrivals:
            self.big_bodies.leave(arrival.answer.body if arrival.answer else None)

    def _tell(self) -> None:
        items, size = len(self._waiting), self._bytes
        _set(self._any, items > 0 or self._closed)
        _set(
            self._enough,
            items >= self._batch_items or size >= self._batch_bytes or self._closed,
        )
        _set(self._room, items < 2 * self._batch_items and size < 2 * self._batch_bytes)


def _set(event: asyncio.Event, is_so: bool) -> None:
    if is_so:
        event.set()
    else:
        event.clear()
