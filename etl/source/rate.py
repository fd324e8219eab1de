"""How many requests a second the API lets through: learned from its headers, and when it refuses.

We send evenly, a little below what is known to be allowed: that fits windows, fixed or sliding, and
buckets alike. After a while we try twice as much, step by step, until it is too much, and later
smaller steps, ever less often. Waits are told in whole seconds, rounded up: a bucket that is
full again much sooner is not used meanwhile, and that is why of a small one not all is got.
Times are the event loop's.
"""

from __future__ import annotations

# So much of what is allowed is sent.
_SHARE = 0.97
# Limits are told per so many seconds; the likeliest first.
_WINDOWS = (1.0, 60.0, 10.0, 3600.0, 30.0, 5.0, 2.0)
# So many windows we keep to what is allowed before trying for more, and so many times longer after
# each try that was in vain.
_PATIENCE, _MORE_PATIENCE = 4.0, 3.0
# A try lasts until, of what is more than allowed, two bursts would have been sent; at least a few.
_BURSTS, _FEW = 2.0, 8
# Refused at what is allowed, we lower it, but a limit that was told by less than a learned one.
_LEAST, _LEAST_TOLD, _MOST = 0.8, 0.95, 0.95


class LearnedRate:
    """A rate, or none as long as nothing was told and nobody refused."""

    def __init__(self) -> None:
        self.is_refusing = False
        self._allowed: float | None = None
        self.window = self._burst = 0.0
        self._patience, self._factor = _PATIENCE, 2.0
        # What is tried beyond what is allowed, if anything.
        self._tried: float | None = None
        self._before: float | None = None
        # The present stretch, at one rate: who was sent since and got through.
        self._began: float | None = None
        self._passed = 0
        self._refused_at = self._refused_last = self._heard_at = 0.0
        self._told: float | None = None
        self._least = _LEAST

    def per_second(self) -> float | None:
        """How many a second to send; None: as many as one likes."""
        return self._tried or (self._allowed and self._allowed * _SHARE)

    def told(self, limit: float, remaining: float, seconds: float) -> bool:
        """Take in how many are left of how many in so many seconds; return whether it is news."""
        if self.is_refusing or limit < _BURSTS:
            return False
        is_news = seconds > self.window
        if is_news:
            self._allowed = limit / seconds
            self._burst, self.window = limit, seconds
            self._least, self._patience = _LEAST_TOLD, 1.0
        if is_news or remaining < limit / 2:
            # No more than this; in a bucket that seems to be so, and is not, most stays left.
            if self._tried:
                self._give_up_trying()
            self._began = None
        return is_news

    def passed(self, started: float, now: float) -> bool:
        """Take in an answer; return whether it is the first after refusals."""
        is_first = self.is_refusing and started > self._heard_at
        if is_first:
            self._learn(started)
            self.is_refusing = False
        if is_first or self._began is None:
            self._begin(started)
        self._passed += started >= (self._began or 0.0)
        if self._allowed and not self.is_refusing:
            self._try_more(now)
        return is_first

    def refused(self, started: float, now: float, *, told: float | None) -> bool:
        """Take in that it was too much; return whether it is news, not of the crowd before it.

        `told` is the wait that it asks for, which is rounded up to whole seconds.
        """
        if started <= self._heard_at:
            return False
        if self._began is None:
            self._begin(started)
        if not self.is_refusing:
            self._refused_at = started
        self.is_refusing, self._told = True, told
        self._refused_last, self._heard_at = started, now
        return True

    def _begin(self, at: float) -> None:
        self._began, self._passed = at, 0

    def _try_more(self, now: float) -> None:
        began, rate = self._began or 0.0, self._tried or self._allowed or 0.0
        lasts = self._patience * self.window
        if self._tried:
            lasts = max(_BURSTS * self._burst / (self._factor - 1), _FEW) / rate
        if now - began < lasts:
            return
        self._before, self._allowed = self._allowed, rate
        self._tried = rate * self._factor
        if self._passed < rate * (now - began) / 2 - _FEW:
            # It is not this that bounds it.
            self._allowed = self._tried = None
        self._begin(now)

    def _learn(self, resumed: float) -> None:
        began, n = self._began or 0.0, max(self._passed, 1)
        sending = max(self._refused_at - began, 0.001)
        waited = max(resumed - began, 0.001)
        if self._allowed is None:
            at_least, at_most = self._refused_last - began, waited
            if self._told:
                # It is rounded up, and counted from when the server refused.
                at_most = at_least + self._told
                at_least = max(at_most - 1, 0.001)
            likely = (seconds for seconds in _WINDOWS if at_least < seconds <= at_most)
            self.window, self._burst = next(likely, at_most), n
            self._allowed = n / self.window
            self._patience, self._factor = _PATIENCE if n > _FEW else 1.0, 2.0
        elif self._tried is None:
            # Between what got through while we sent and what did with the wait.
            got = n / (sending * waited) ** 0.5
            self._allowed *= min(max(got / self._allowed, self._least), _MOST)
        else:
            # A bucket lets through its burst, and then what is allowed.
            found = min((n - self._burst) / sending, self._tried)
            if self._refused_at < began:
                # Of the step before.
                self._allowed = self._before
            elif n - self._burst > _FEW and found > 1.05 * self._allowed:
                self._allowed = found
                self._patience /= _MORE_PATIENCE
            self._give_up_trying()

    def _give_up_trying(self) -> None:
        self._tried = None
        self._patience *= _MORE_PATIENCE
        self._factor = max(self._factor**0.5, 1.1)
