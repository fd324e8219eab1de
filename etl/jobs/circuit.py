"""Tells an API that is down from personas that can't be had, and ends a run that has no use.

When some attempts at different personas fail in a row, all pause and a few others are asked. Does
one of them get an answer, all go on. If none does, it is asked again, ever less often, for about a
minute: an API that restarts is waited for. Whoever was being asked keeps its attempts meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from etl.errors import FetchFailedError, PayloadRejectedError, SourceDownError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from etl.source.answer import Answer, NoAnswerError
    from etl.source.client import PersonaClient
    from etl.source.room import BodyRoom

logger = logging.getLogger(__name__)

# Failed attempts in a row, and different personas among them, that look like more than bad luck. To
# be wrong costs next to nothing: the first of the others to answer ends it.
_SUSPICIOUS = 3
# So many others are asked at a time.
_PROBES = 3
_PATIENCE_SECONDS = 60.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 10.0
# Where another attempt is of no use, waiting is not either: others are asked three times.
_ROUNDS_AT_LEAST = 3


class Remaining:
    """The personas that nobody has asked for yet, in turn."""

    def __init__(self, ids: Sequence[UUID]) -> None:
        self._order = iter(ids)
        self._ids = ids
        self._waiting = set(ids)

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self) -> UUID | None:
        """Take the next one out."""
        found = next((id_ for id_ in self._order if id_ in self._waiting), None)
        if found is not None:
            self._waiting.remove(found)
        return found

    def take(self, persona_id: UUID) -> bool:
        """Take this one out; return whether it was still there."""
        was_there = persona_id in self._waiting
        self._waiting.discard(persona_id)
        return was_there

    @property
    def total(self) -> int:
        """How many there were at the start."""
        return len(self._ids)

    def spread(self, count: int, turn: int) -> list[UUID]:
        """Some from all over the list, others at each turn."""
        ids = [id_ for id_ in self._ids if id_ in self._waiting]
        golden = 0.618
        picked = (ids[int(len(ids) * (golden * (turn * count + n) % 1))] for n in range(count))
        return list(dict.fromkeys(picked)) if ids else []


class Circuit:
    """Watches all attempts of a client at the personas of a run."""

    def __init__(self, client: PersonaClient, *, concurrency: int, max_wait_seconds: float) -> None:
        self.unsettled: dict[UUID, NoAnswerError] = {}
        """Who failed since the last answer, and of whom nothing is recorded yet."""
        self.given_up = False
        self._client = client
        self._different = min(_SUSPICIOUS, concurrency)
        self._patience_seconds = min(_PATIENCE_SECONDS, max_wait_seconds)
        self._asked: set[UUID] = set()
        self._failed: set[UUID] = set()
        self._in_a_row = 0
        self._began = 0.0
        self._answered: UUID | None = None
        self._settled: set[UUID] = set()
        self._suspects = asyncio.Event()
        self._answers = asyncio.Event()
        client.watch = self._see

    def settle(self, persona_id: UUID) -> None:
        """Note that an answer or a failure is recorded."""
        self.unsettled.pop(persona_id, None)
        self._settled.add(persona_id)

    async def keep(
        self,
        remaining: Remaining,
        arrived: Callable[[UUID, Answer], None],
        room: BodyRoom,
    ) -> SourceDownError:
        """Look after it until there is no use.

        `arrived` is called for those asked meanwhile, whose bodies stay in the `room`.
        """
        while True:
            await self._suspects.wait()
            if self._answered is None and not len(remaining):
                # There are no others.
                self._suspects.clear()
                continue
            self._client.pace.pause()
            self._answers.clear()
            reason = await self._ask_others(remaining, arrived, room)
            if reason is not None:
                self.given_up = True
                return reason
            self._suspects.clear()
            self._client.pace.go_on()

    def _see(self, persona_id: UUID, error: NoAnswerError | None) -> None:
        self._asked.add(persona_id)
        if error is None:
            self._answered = persona_id
        if error is None or error.is_throttled:
            # It is there.
            self._failed.clear()
            self.unsettled.clear()
            self._in_a_row = 0
            self._suspects.clear()
            self._answers.set()
            return
        if not self._in_a_row:
            self._began = asyncio.get_running_loop().time() - error.attempt_seconds
        self._in_a_row += 1
        self._failed.add(persona_id)
        self._last = error
        # Who was answered is asked once more, to see whether the API is there.
        if persona_id not in self._settled:
            self.unsettled[persona_id] = error
        if self._in_a_row >= _SUSPICIOUS and len(self._failed) >= self._different:
            self._suspects.set()

    async def _ask_others(
        self,
        remaining: Remaining,
        arrived: Callable[[UUID, Answer], None],
        room: BodyRoom,
    ) -> SourceDownError | None:
        """Ask until one answers; return why there is no use in going on."""
        rounds, pause = 0, _FIRST_PAUSE_SECONDS
        while True:
            others = remaining.spread(_PROBES, rounds)
            if self._answered is not None:
                others = [self._answered, *others[1:]]
            probes = self._ask_all(others, remaining, arrived, room)
            if await self._answers_before(asyncio.ensure_future(probes)):
                return None
            rounds += 1
            waited = asyncio.get_running_loop().time() - self._began
            is_passing = self._last.transient
            if waited >= self._patience_seconds if is_passing else rounds >= _ROUNDS_AT_LEAST:
                return self._reason(waited, remaining)
            if rounds == 1:
                logger.warning("nothing but errors from the API, waiting for it: %s", self._last)
            if await self._answers_before(asyncio.ensure_future(asyncio.sleep(pause))):
                return None
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _answers_before(self, work: asyncio.Future[Any]) -> bool:
        """Wait until the work is done or anybody is answered, which ends the work."""
        answers = asyncio.create_task(self._answers.wait())
        try:
            await asyncio.wait([work, answers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            answers.cancel()
            work.cancel()
            await asyncio.wait([work, answers])
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error
        return self._answers.is_set()

    async def _ask_all(
        self,
        persona_ids: Sequence[UUID],
        remaining: Remaining,
        arrived: Callable[[UUID, Answer], None],
        room: BodyRoom,
    ) -> None:
        # Not the gathering itself: what a cancelled one ends with, nobody would fetch.
        await asyncio.gather(*(self._ask(id_, remaining, arrived, room) for id_ in persona_ids))

    async def _ask(
        self,
        persona_id: UUID,
        remaining: Remaining,
        arrived: Callable[[UUID, Answer], None],
        room: BodyRoom,
    ) -> None:
        try:
            answer = await self._client.probe(persona_id, room)
        except (FetchFailedError, PayloadRejectedError):
            # Too big a body is an answer all the same, and comes again when it is its turn.
            return
        # Of the one that had been answered before, only that it is again was of interest.
        if remaining.take(persona_id):
            arrived(persona_id, answer)
        else:
            room.leave(answer.body)

    def _reason(self, waited: float, remaining: Remaining) -> SourceDownError:
        since = datetime.now(UTC) - timedelta(seconds=waited)
        left = remaining.total - len(self._asked)
        return SourceDownError(
            f"nothing but errors from the API since {since:%Y-%m-%d %H:%M:%S} UTC"
            f" ({self._in_a_row} requests), {left} of {remaining.total} personas not attempted;"
            f" the next run goes on; last: {self._last}"
        )
