"""How many requests a second the API lets through, learned from when it refuses.

Where no header tells, only a refusal does. The rate that got through before it, the wait included,
is what the API allows; we go on a little below it, come back to it soon, stay there for long and
then feel for more, ever faster: the curve of TCP's CUBIC (RFC 9438). Times are the event loop's.
"""

from __future__ import annotations

# So much below what got through we go on.
_BELOW = 0.03
# Seconds until we are back there. It follows how long it went well before, as a limit of so many
# a minute is not worth feeling for every few seconds.
_SOONEST, _LATEST = 3.0, 30.0
# When it is so many times what was once learned, nothing is left to be learned from it.
_FORGOTTEN = 20.0


class LearnedRate:
    """A rate, or none as long as nobody was refused."""

    def __init__(self) -> None:
        self.is_refusing = False
        self._allowed: float | None = None
        self._since = 0.0
        self._plateau = _SOONEST
        # The present stretch: from the first request that got through, over those that did, and the
        # refusals, to the next that gets through.
        self._began: float | None = None
        self._passed = 0
        self._refused_at = 0.0
        self._tried: float | None = None
        self._is_refused = False

    def passed(self, started: float, now: float) -> bool:
        """Take in an answer; return whether it is the first after refusals."""
        if self._began is None:
            self._began = started
        is_first = self.is_refusing and started >= self._refused_at
        if is_first:
            seconds = max(started - self._began, 0.001)
            self._allowed = self._estimate(max(self._passed, 1) / seconds)
            self._plateau = min(max(seconds, _SOONEST), _LATEST)
            self._since = now
            self._began, self._passed = started, 0
            self.is_refusing = False
        self._passed += 1
        return is_first

    def used_up(self, now: float) -> None:
        """Take in that nothing is left for now, by the API's own word."""
        if not self.is_refusing:
            self._stop(now)
            self._is_refused = False

    def refused(self, started: float, now: float) -> bool:
        """Take in a refusal; return whether it is news, not one of the crowd before it."""
        if started < self._refused_at:
            return False
        if self._began is None:
            self._began = started
        self._stop(now)
        self._is_refused = True
        return True

    def _stop(self, now: float) -> None:
        if not self.is_refusing:
            self._tried = self.per_second(now)
        self.is_refusing = True
        self._refused_at = now

    def _estimate(self, got_through: float) -> float:
        """What is allowed, from what got through on average and what we sent in the end."""
        if self._tried is None or self._allowed is None or self._tried < got_through:
            return got_through
        # It went well for long, and only then became too much; or nobody was refused.
        if self._tried > self._allowed or not self._is_refused:
            return max(got_through, self._tried * 0.95)
        # Too much from the start. The average is unjust to it, as waits are told in whole seconds.
        return self._tried * 0.9 if got_through > 0.4 * self._tried else got_through

    def per_second(self, now: float) -> float | None:
        """How many a second to send; None: as many as one likes."""
        if self._allowed is None:
            return None
        x = (now - self._since - self._plateau) / self._plateau
        factor = 1 + _BELOW * x**3
        if factor > _FORGOTTEN:
            self._allowed = None
            return None
        return self._allowed * factor
