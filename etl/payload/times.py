"""Times as the API writes them: RFC 3339, UTC unless an offset is given.

The reporting views read them by the same rules in SQL: `report/casts.py`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ]([01]\d|2[0-3]):([0-5]\d):([0-5]\d)"
    r"(?:\.(\d{1,6})\d*)?(?:[Zz]|([+-])([01]\d|2[0-3]):?([0-5]\d))?",
    re.ASCII,
)


def parse_time(text: str) -> datetime | None:
    """The moment in UTC, to the microsecond that a timestamptz holds; None if it isn't one.

    A date alone is no moment, nor is what lies outside of the years 1 to 9999 in UTC. A time
    without an offset is UTC, as the API documents its times; further digits are cut off.
    """
    found = _RFC_3339.fullmatch(text)
    if not found:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        moment = datetime(
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute),
            int(second),
            int((fraction or "0").ljust(6, "0")),
            tzinfo=UTC,
        )
        return moment + ahead if sign == "-" else moment - ahead
    except (ValueError, OverflowError):
        return None
