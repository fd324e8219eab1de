"""How long to wait before another attempt. Pure: the caller sleeps, counts and gives up."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def backoff_seconds(attempt: int, fraction: float) -> float:
    """Return the wait after the `attempt`th attempt: `fraction` (of 1) of a doubling bound.

    Full jitter: workers that failed together don't come back together.
    """
    base, cap = 0.5, 20.0
    return fraction * min(cap, base * 2.0 ** (attempt - 1))


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return what Retry-After asks for (RFC 9110, 10.2.3), 0 for the past, None if unreadable.

    A date is held against the answer's own Date, so that a wrong clock here does not matter.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value)
    at = _http_date(value)
    if at is None:
        return None
    now = _http_date(headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (at - now).total_seconds())


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        # The standard library's parser gives way to odd input in more ways than it documents.
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
