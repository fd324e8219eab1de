"""What came back for one persona, dated by the database's clock, and the queue it waits in."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from etl.store.engine import database_now
from etl.store.ledger import latest_attempt

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.source.answer import Answer, SourceError


@dataclass(frozen=True, slots=True)
class Arrival:
    """An answer, or the error that stands for one."""

    persona_id: UUID
    observed_at: datetime
    answer: Answer | None = None
    error: SourceError | None = None
    refused: str | None = None
    """Why Postgres did not take what it brings."""

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
    times; whoever put one in waits for room before the next request.
    """

    def __init__(self, *, max_items: int, max_bytes: int) -> None:
        self._waiting: deque[Arrival] = deque()
        self._bytes = 0
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, arrival: Arrival) -> None:
        """Adds an arrival, even beyond the bounds."""
        self._waiting.append(arrival)
        self._bytes += arrival.size
        self._changed.set()

    def close(self) -> None:
        """Says that nothing more will come."""
        self._closed = True
        self._changed.set()

    async def room(self) -> None:
        """Returns when there is room for another arrival."""
        while len(self._waiting) >= self._max_items or self._bytes >= self._max_bytes:
            await self._change()

    async def take(self, *, max_items: int, max_bytes: int, patience: float) -> list[Arrival]:
        """The next arrivals, oldest first; none when it is closed and empty.

        Waits `patience` seconds for a full batch once the first is there.
        """
        deadline: float | None = None
        while not self._closed and len(self._waiting) < max_items and self._bytes < max_bytes:
            if self._waiting and deadline is None:
                deadline = time.monotonic() + patience
            try:
                async with asyncio.timeout(deadline and max(0.0, deadline - time.monotonic())):
                    await self._change()
            except TimeoutError:
                break
        batch: list[Arrival] = []
        size = 0
        while self._waiting and len(batch) < max_items and (not batch or size < max_bytes):
            arrival = self._waiting.popleft()
            batch.append(arrival)
            size += arrival.size
        self._bytes -= size
        self._changed.set()
        return batch

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
