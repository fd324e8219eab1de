"""How long to wait before another attempt. Pure: the caller sleeps, counts and gives up."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etl.source.answer import NoAnswerError


_MOST_ATTEMPTS = 4
# To be throttled is nobody's own fault; but who is so often, while others are not, has a trouble of
# its own.
_MOST_THROTTLED = 8
# Four attempts that time out and what they wait is less, with usual settings.
_MOST_SECONDS = 300.0
# What a wait is at most: after the first attempt, and after any.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 20.0


def is_transient(status: int) -> bool:
    """Return whether another attempt may fare better."""
    return status in (408, 425, 429) or 500 <= status < 600  # noqa: PLR2004  RFC 9110, 15.6


class Tries:
    """The attempts at one thing: how many there were, and whether another is worth it."""

    def __init__(self) -> None:
        self.attempts = 0
        self.failed = 0
        self._throttled = 0

    def leave_another(self, error: NoAnswerError, seconds: float, *, is_serving: bool) -> bool:
        """Count a failed attempt; return whether there should be another.

        `seconds` is how long it has been tried, `is_serving` whether anybody else was not throttled
        since.
        """
        if error.is_throttled:
            # All are: the pace knows when that has been enough.
            self._throttled += is_serving
            return self._throttled < _MOST_THROTTLED
        self.failed += 1
        return error.transient and self.failed < _MOST_ATTEMPTS and seconds < _MOST_SECONDS


def backoff_seconds(attempt: int, fraction: float) -> float:
    """Return the wait after the `attempt`th attempt: `fraction` (of 1) of a doubling bound.

    Full jitter: workers that failed together don't come back together.
    """
    return fraction * min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1))


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return what Retry-After asks for (RFC 9110, 10.2.3), 0 for the past, None if unreadable.

    A date is held against the answer's own Date, so that a wrong clock here does not matter.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value)
    at = http_date(value)
    if at is None:
        return None
    now = http_date(headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (at - now).total_seconds())


def http_date(value: str) -> datetime | None:
    """Return the moment that a header names (RFC 9110, 5.6.7), None if unreadable."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        # The standard library's parser gives way to odd input in more ways than it documents.
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
