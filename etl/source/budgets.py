"""What the API says is left of its limits: RateLimit-* and their kin, off the headers of an answer.

A `Budget` keeps the latest word of one limit, and how much of it can be counted on while other
requests are under way. Whoever waits, and how long, is not decided here.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from etl.source.retry import http_date

if TYPE_CHECKING:
    from collections.abc import Iterable

    RawHeaders = Iterable[tuple[bytes, bytes]]

# RateLimit-Remaining, X-RateLimit-Org-Hour-Reset, …: what stands before the last word is the name
# of the limit.
_SPLIT = re.compile(r"(.*ratelimit.*)-(limit|remaining|reset)", re.IGNORECASE)
# One header for all of it, as the IETF's drafts had it: `limit=9, remaining=1, reset=5`, later
# `"default";r=1;t=5`.
_COMBINED = re.compile(r"\b(limit|remaining|reset|r|t)\s*=\s*([0-9]+)", re.IGNORECASE)
_LONG = {"r": "remaining", "t": "reset"}
# `100, 100;w=60` is a limit too.
_NUMBER = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(?:[,;].*)?", re.DOTALL)

# Larger numbers are no seconds but a date: 10^9 seconds after 1970 was in 2001.
_EPOCH, _EPOCH_IN_MS = 1e9, 1e11
_DAY = 86_400.0
# Of an hourly limit no more than an hour is plausible, and some slack for clocks.
_HOUR = 3_660.0
# Resets are told in whole seconds: ends of a window that are no further apart are the same one.
_ROUNDED = 1.0


class Left(NamedTuple):
    """What an answer says of one limit."""

    name: str
    remaining: float
    reset_seconds: float
    limit: float | None


def read_left(headers: RawHeaders) -> list[Left]:
    """Return what each limit's headers say, of those that say something plausible."""
    told: dict[str, dict[str, str]] = {}
    date = b""
    for raw_name, value in headers:
        lower = raw_name.lower()
        if lower == b"date":
            date = value
        elif b"ratelimit" in lower:
            name, text = raw_name.decode("ascii", "replace"), value.decode("ascii", "replace")
            if split := _SPLIT.fullmatch(name):
                told.setdefault(split[1].lower(), {"name": split[1]})[split[2].lower()] = text
            elif lower in (b"ratelimit", b"x-ratelimit"):
                parts = {_LONG.get(k.lower(), k.lower()): v for k, v in _COMBINED.findall(text)}
                told.setdefault(name.lower(), {"name": name}).update(parts)
    if not told:
        return []
    found = (_left(parts, date) for parts in told.values())
    return [left for left in found if left is not None]


def _left(parts: dict[str, str], date: bytes) -> Left | None:
    remaining, reset = _number(parts.get("remaining")), _number(parts.get("reset"))
    if remaining is None or reset is None:
        return None
    if reset >= _EPOCH:
        # Held against the answer's own Date, so that a wrong clock here does not matter.
        now = http_date(date.decode("ascii", "replace")) or datetime.now(UTC)
        reset = (reset / 1000 if reset >= _EPOCH_IN_MS else reset) - now.timestamp()
    name = parts["name"]
    if not 0 <= reset <= (_HOUR if "hour" in name.lower() else _DAY):
        return None
    return Left(name, remaining, reset, _number(parts.get("limit")))


def _number(text: str | None) -> float | None:
    match = _NUMBER.fullmatch(text or "")
    return float(match[1]) if match else None


class Budget:
    """One limit, and how many more requests it allows for certain.

    Times are those of the event loop. When `resets_at` is past, nothing is known but `remaining`:
    what the next window allows, less what has been sent since. `window` is how long one
    lasts, as far as was told; the pace notes in `is_scarce` that one was used up.
    """

    def __init__(self, left: Left) -> None:
        self.name = left.name
        self.remaining = self.told = float("inf")
        self.limit = left.limit
        self.window = self._longest = 0.0
        self.is_scarce = False
        self.resets_at = float("-inf")

    def tell(self, left: Left, *, now: float, started: float, overlapping: int) -> None:
        """Take in what an answer says.

        `started` is when its request was sent; `overlapping` is how many others were under way at
        any moment since then. The server may have counted them before this one, or after.
        """
        if started < self.resets_at <= now:
            return  # Most likely a word about the window that is over.
        resets_at = now + left.reset_seconds
        if now >= self.resets_at or not 0 <= resets_at - self.resets_at <= _ROUNDED:
            self.resets_at = resets_at
        self.limit = left.limit
        # The longest seen twice: clocks are read more than once for an answer, and round.
        longest = sorted((self.window, self._longest, left.reset_seconds))
        self.window, self._longest = longest[1:]
        self.told = left.remaining
        # Both what we counted ourselves and what is told, less all that it may not have known of,
        # are surely left; more than what is told is not.
        self.remaining = min(left.remaining, max(self.remaining, left.remaining - overlapping))

    def start(self) -> None:
        """Count a request that is sent."""
        self.remaining -= 1

    def renew(self, now: float, in_flight: int) -> None:
        """Forget a window that is over."""
        if now < self.resets_at or self.resets_at == float("-inf"):
            return
        self.resets_at = float("-inf")
        self.told = float("inf")
        self.remaining = (self.limit or float("inf")) - in_flight
