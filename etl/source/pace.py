"""When the next request may start: one pace for all who talk to the API.

Each attempt takes a `Turn` before it is sent and gives it back when it has ended; in between the
pace hears what came. It holds everybody back for Retry-After and for a limit that is used up, keeps
to the rate that was learned and to the ceiling of the settings, and starts with few requests at a
time, also after a refusal. A wait that is too long ends the run instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from etl.source.answer import ToldToWaitError, is_throttling
from etl.source.budgets import Budget, read_left
from etl.source.rate import LearnedRate
from etl.source.retry import is_transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.source.budgets import RawHeaders

logger = logging.getLogger(__name__)

# At a time, until the first answer has told of limits: a request that hangs holds nobody up alone.
_AT_FIRST = 4
# A limit that is renewed so soon is met better by an even rate than by bursts, from the start on or
# once it was used up. What is left of longer ones may be sent at once: it may well be enough.
_SHORT_SECONDS, _MINUTE_SECONDS = 10.0, 60.0
# Refused without a word, all wait so long at first, then so many times longer.
_FIRST_SECONDS, _LONGER, _LONGEST_SECONDS = 0.1, 1.5, 20.0
# Timers are late by a millisecond or two; so much of it is caught up with.
_LATENESS_SECONDS = 0.01
# No date is told beyond that: some headers ask for more than there are dates.
_YEAR_SECONDS = 366 * 86_400.0
# The last tenth of a limit is spread over what is left of its time, but no further apart than this:
# others may live on the same limit, and a run that can do with it should not become much longer.
_LITTLE, _FURTHEST_APART = 0.1, 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """A request that may start; `ended` is how many had by then, of all."""

    started: float
    ended: int


class Pace:
    """Shared by all requests of a run. `enter` it in the event loop that they run in."""

    def __init__(
        self,
        *,
        concurrency: int,
        max_wait_seconds: float,
        requests_per_second: float | None = None,
        run_deadline_seconds: float | None = None,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self._concurrency = concurrency
        self._max_wait_seconds = max_wait_seconds
        self._ceiling = requests_per_second or math.inf
        self._run_deadline_seconds = run_deadline_seconds
        self._fraction = fraction
        self._rate = LearnedRate()
        self._budgets: dict[str, Budget] = {}
        self._at_a_time = min(_AT_FIRST, concurrency)
        self._sent = self._ended = 0
        self._next = -math.inf
        self._held_until = -math.inf
        self._held_by = ""
        self._refusals = 0
        self._refused_since: float | None = None
        self._served_at = -math.inf
        self._is_told = False

    def enter(self) -> None:
        """Begin: the deadline counts from here."""
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + (self._run_deadline_seconds or math.inf)
        self._queue = asyncio.Lock()
        self._news = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()

    def pause(self) -> None:
        """Let nobody start but probes."""
        self._going.clear()

    def go_on(self) -> None:
        """Let everybody start again."""
        self._going.set()

    async def turn(self, *, is_probe: bool = False) -> Turn:
        """Return when a request may start. Raises ToldToWaitError if that is too late."""
        while True:
            if not is_probe:
                await self._going.wait()
            async with self._queue:
                while is_probe or self._going.is_set():
                    now = self._loop.time()
                    wait = self._wait_seconds(now)
                    if wait <= 0:
                        return self._start(now)
                    self._news.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(wait if wait < math.inf else None):
                            await self._news.wait()

    def end(self) -> None:
        """Take a turn back, however its request ended."""
        self._ended += 1
        self._news.set()

    def hear(
        self, turn: Turn, status: int, headers: RawHeaders, retry_after: float | None = None
    ) -> None:
        """Take in an answer's status, its headers, and the wait that it asks for."""
        now = self._loop.time()
        reset = self._read(turn, headers, now)
        if retry_after:
            self._hold(now + retry_after, f"{status}, Retry-After")
        if is_throttling(status, retry_after):
            self._refused(turn, now, told=retry_after or reset)
            return
        self._served_at = now
        self._refused_since = None
        self._refusals = 0
        if is_transient(status):
            return
        if self._rate.passed(turn.started, now):
            rate = self._rate.per_second() or math.inf
            self._next = max(self._next, now, turn.started + 1 / rate)
            if not self._is_told:
                self._is_told = True
                logger.info("the API throttles: going on at about %.3g requests a second", rate)
        if turn.started > self._held_until:
            self._at_a_time = self._concurrency

    def _read(self, turn: Turn, headers: RawHeaders, now: float) -> float:
        """Take in what is told of limits; return how long there is nothing left, 0 if there is."""
        # All that were under way at some moment since this one was sent.
        overlapping = self._sent - turn.ended - 1
        wait = 0.0
        for left in read_left(headers):
            budget = self._budgets.setdefault(left.name.lower(), Budget(left))
            budget.tell(left, now=now, started=turn.started, overlapping=overlapping)
            if left.remaining < 1:
                wait = max(wait, left.reset_seconds)
            is_even = budget.window <= _SHORT_SECONDS or budget.is_scarce
            if not left.limit or not is_even:
                continue
            if self._rate.told(left.limit, left.remaining, budget.window):
                used = min(left.limit - left.remaining + overlapping, left.limit)
                self._next = now + used / left.limit * budget.window
        return wait

    def has_served_since(self, turn: Turn) -> bool:
        """Return whether anybody was not throttled since then."""
        return self._served_at >= turn.started

    def require_patience(self, now: float | None = None) -> None:
        """Raise ToldToWaitError if the API asks for a wait that is too long."""
        now = self._loop.time() if now is None else now
        self._require(self._held_until - now, self._held_by)

    def _refused(self, turn: Turn, now: float, *, told: float) -> None:
        if self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since > self._max_wait_seconds:
            self._hold(math.inf, f"429 for every request, for {now - self._refused_since:.0f} s")
        if not self._rate.refused(turn.started, now, told=told or None):
            return
        self._at_a_time = 1
        self._refusals += 1
        if not told:
            wait = min(
                max(_FIRST_SECONDS, self._rate.window / 4) * _LONGER ** (self._refusals - 1),
                _LONGEST_SECONDS,
            )
            self._hold(now + wait * (1 - self._fraction() / 4), "429")

    def _hold(self, until: float, by: str) -> None:
        if until > self._held_until:
            self._held_until, self._held_by = until, by
            self._news.set()

    def _wait_seconds(self, now: float) -> float:
        """How long until the next may start; infinite: until something ends."""
        in_flight = self._sent - self._ended
        if now < self._held_until:
            self.require_patience(now)
            return self._held_until - now
        if in_flight >= self._at_a_time:
            return math.inf
        spread = 0.0
        learned = self._rate.per_second()
        for budget in self._budgets.values():
            budget.renew(now, in_flight)
            wait = budget.resets_at - now
            left = budget.remaining if learned is None else budget.told
            if left < 1 and wait > 0 and (learned is None or wait > _SHORT_SECONDS):
                if budget.limit and budget.window <= _MINUTE_SECONDS:
                    budget.is_scarce = True
                if in_flight:
                    # Those may bring better news. Without them it is certain.
                    return wait
                self._require(wait, f"{budget.name}-Remaining: 0")
                return wait
            if learned is None and budget.remaining <= (budget.limit or 0) * _LITTLE and wait > 0:
                spread = max(spread, min(wait / (budget.remaining + 1), _FURTHEST_APART))
        rate = min(learned or math.inf, self._ceiling)
        self._interval = max(1 / rate, spread)
        return self._next - now

    def _start(self, now: float) -> Turn:
        self._next = max(self._next, now - _LATENESS_SECONDS) + self._interval
        turn = Turn(now, self._ended)
        self._sent += 1
        for budget in self._budgets.values():
            budget.start()
        return turn

    def _require(self, wait: float, by: str) -> None:
        """Raise unless the wait is within what the settings allow."""
        allowed, setting = self._max_wait_seconds, "api.max_wait_seconds"
        left = self._deadline - self._loop.time()
        if left < allowed:
            allowed, setting = left, "what is left of safety.run_deadline_seconds"
        if wait <= max(allowed, 0.0):
            return
        told = f"throttled ({by})"
        if wait < math.inf:
            at = datetime.now(UTC) + timedelta(seconds=min(wait, _YEAR_SECONDS))
            told = f"told to wait {wait:.0f} s, until {at:%Y-%m-%d %H:%M:%S} UTC ({by})"
        raise ToldToWaitError(
            told,
            next_step=f"longer than {setting} ({allowed:.0f} s) allows; the next run goes on",
            http_status=None,
            wait_seconds=wait,
        )
