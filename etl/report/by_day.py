"""What happened, day by day: each by itself, but many of a sort on one day together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etl.report.digest import Happening

# Later ones are folded.
_OPEN = 16
# More of one sort on one day are folded into a line.
_FEW = 5


@dataclass(frozen=True, slots=True)
class Day:
    """What happened on a day, in UTC."""

    date: date
    count: int
    groups: Sequence[Sequence[Happening]]
    is_open: bool


def by_day(happenings: Sequence[Happening]) -> Iterator[Day]:
    """The days, the latest first; open are those that fit a screen together."""
    told = 0
    for day, on_it in groupby(happenings, lambda h: h.at.astimezone(UTC).date()):
        found = list(on_it)
        yield Day(day, len(found), groups := _sorts(found), is_open=told < _OPEN)
        told += len(groups)


def _sorts(happenings: list[Happening]) -> list[list[Happening]]:
    """Each by itself, but many of a sort together: a first load is one line."""
    many = Counter((h.kind, h.change) for h in happenings)
    groups: list[list[Happening]] = []
    together: dict[tuple[str, str], list[Happening]] = {}
    for happening in happenings:
        sort = happening.kind, happening.change
        if sort in together:
            together[sort].append(happening)
            continue
        groups.append([happening])
        if many[sort] > _FEW:
            together[sort] = groups[-1]
    return groups
