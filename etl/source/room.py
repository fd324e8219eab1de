"""Room in memory for big bodies: they wait for it, small ones never do.

A body asks once, for all that it may grow to: two that are half read never wait for each other.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

# A persona is some ten kilobytes. Up to here a body needs no room, so that no more than
# `concurrency` times this is held besides.
SMALL_BODY = 1024 * 1024
# For two of the longest that a client takes, or a dozen of ten megabytes.
ROOM_BYTES = 128 * 1024 * 1024


class BodyRoom:
    """Bytes that all bodies beyond SMALL_BODY share, from their arrival until they leave."""

    def __init__(self, total: int = ROOM_BYTES) -> None:
        self._total = self._free = total
        # Whoever waits holds the lock, which is given on in turn: no big one is passed for ever.
        self._turn = asyncio.Lock()
        self._more = asyncio.Event()

    def place(self) -> Place:
        """A place for one body, to be entered with `async with`."""
        return Place(self)

    def leave(self, body: bytes | None) -> None:
        """A body that came through a place is not needed any more."""
        if body is not None and len(body) > SMALL_BODY:
            self.give_back(len(body))

    async def take(self, size: int) -> int:
        """Returns when so much is free, and how much was taken: no more than there is in all."""
        size = min(size, self._total)
        async with self._turn:
            while self._free < size:
                self._more.clear()
                await self._more.wait()
            self._free -= size
        return size

    def give_back(self, size: int) -> None:
        """So much is free again."""
        self._free += size
        self._more.set()


class Place:
    """The room of one body on its way; all is given back when its `async with` fails."""

    def __init__(self, room: BodyRoom) -> None:
        self.deadline: asyncio.Timeout | None = None
        """Stands still while this place waits for room."""
        self._room = room
        self._size = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self._shrink(0)

    async def grow(self, length: int, most: int) -> None:
        """A body is so long by now, and may come to `most`."""
        if length <= SMALL_BODY or self._size:
            return
        loop = asyncio.get_running_loop()
        until = self.deadline.when() if self.deadline else None
        left = None if until is None else until - loop.time()
        if self.deadline:
            self.deadline.reschedule(None)
        self._size = await self._room.take(most)
        if self.deadline and left is not None:
            self.deadline.reschedule(loop.time() + left)

    def settle(self, length: int) -> None:
        """The body is whole, and that long."""
        self._shrink(length if length > SMALL_BODY else 0)

    def _shrink(self, size: int) -> None:
        self._room.give_back(self._size - size)
        self._size = size
