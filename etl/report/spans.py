"""Stretches of time as bars of a chart: days, or weeks, months or years, so that they stay few."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from etl.report.digest import Digest

# More of them are no bars, but hairs.
_MOST = 45


@dataclass(frozen=True, slots=True)
class Spans:
    """The bars of a chart over time: days, or as much as keeps them few."""

    unit: str
    begin: Callable[[date], date]
    """The first day of the span that a day is in."""
    starts: Sequence[date]

    @classmethod
    def of(cls, digest: Digest) -> Spans:
        """Of the whole period, so that a day without a run is seen; a long one begins with data."""
        first, last = (moment.astimezone(UTC).date() for moment in (digest.since, digest.now))
        days = [d.day for d in digest.run_days] + [d.day for d in digest.change_days]
        if (last - first).days >= _MOST:
            first = max(first, min(days, default=last))
        last = max([last, *days])
        first = min([first, *days])
        spans = [cls(unit, begin, _starts(first, last, begin)) for unit, begin in _UNITS.items()]
        return next((few for few in spans if len(few.starts) <= _MOST), spans[-1])

    def label(self, day: date) -> str:
        """What the span that a day is in is called. No two are called the same."""
        start = self.begin(day)
        if self.unit == "year":
            return f"{start:%Y}"
        if self.unit == "month":
            return f"{start:%b %Y}"
        return f"{start.day} {start:%b}"


_UNITS: Final[dict[str, Callable[[date], date]]] = {
    "day": lambda day: day,
    "week": lambda day: day - timedelta(days=min(day.weekday(), day.toordinal() - 1)),
    "month": lambda day: day.replace(day=1),
    "year": lambda day: day.replace(month=1, day=1),
}


def _starts(first: date, last: date, begin: Callable[[date], date]) -> list[date]:
    days = range(first.toordinal(), last.toordinal() + 1)
    return sorted({begin(first.fromordinal(day)) for day in days})
