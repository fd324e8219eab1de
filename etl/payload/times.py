"""Times as the API writes them: RFC 3339, UTC unless an offset is given."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII
)


def parse_time(text: str) -> datetime | None:
    """The moment in UTC, to the microsecond that a timestamptz holds; None if it isn't one.

    A date alone is no moment. A time without an offset is UTC, as the API documents its times.
    """
    if not _RFC_3339.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
