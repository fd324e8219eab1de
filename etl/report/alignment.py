"""What two sequences have in common, in order, found within a bound of effort.

Items that stand once in each are paired first (patience diff), which is fast and what people would
pair; between them the shortest edit is looked for (Myers, "An O(ND) Difference Algorithm", 1986).
Where the effort is used up, what is left counts as different: the answer is never wrong, only
coarser.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

# So few items are cheap to compare with each other, and their shortest edit is the better one.
_FEW = 200
# Where nothing stands once, as with blank lines: an edit of more steps is hardly worth reading.
_DEEPEST = 300


class Effort:
    """How many steps a comparison may take, all its parts together."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def allows(self, steps: int) -> bool:
        """Spends so many steps; False when there were not as many left."""
        self._left -= steps
        return self._left >= 0


class Run(NamedTuple):
    """So many items that stand in both, from a place in each."""

    old: int
    new: int
    length: int


class _Area(NamedTuple):
    """Ranges of both sequences that are held against each other."""

    old: int
    old_end: int
    new: int
    new_end: int

    @property
    def size(self) -> int:
        return self.old_end - self.old + self.new_end - self.new


def common_runs(old: Sequence[str], new: Sequence[str], effort: Effort) -> list[Run]:
    """The runs that both have, in order; what lies between them differs."""
    found: list[Run] = []
    open_areas = [_Area(0, len(old), 0, len(new))]
    while open_areas:
        area = _without_ends(old, new, open_areas.pop(), found)
        if area.old == area.old_end or area.new == area.new_end or not effort.allows(area.size):
            continue
        anchors = [] if area.size <= _FEW else _anchors(old, new, area)
        if anchors:
            corners = [(area.old, area.new), *anchors, (area.old_end, area.new_end)]
            open_areas += [
                _Area(here[0], there[0], here[1], there[1]) for here, there in pairwise(corners)
            ]
        else:
            found += _shortest_edit(old, new, area, effort)
    return sorted(found)


def _without_ends(old: Sequence[str], new: Sequence[str], area: _Area, found: list[Run]) -> _Area:
    """What is left of an area when what both begin and end with has gone to `found`."""
    i, i_end, j, j_end = area
    while i < i_end and j < j_end and old[i] == new[j]:
        i, j = i + 1, j + 1
    if i > area.old:
        found.append(Run(area.old, area.new, i - area.old))
    while i < i_end and j < j_end and old[i_end - 1] == new[j_end - 1]:
        i_end, j_end = i_end - 1, j_end - 1
    if i_end < area.old_end:
        found.append(Run(i_end, j_end, area.old_end - i_end))
    return _Area(i, i_end, j, j_end)


def _anchors(old: Sequence[str], new: Sequence[str], area: _Area) -> list[tuple[int, int]]:
    """Where runs of items begin that each side has once, as many as stand in one order in both."""
    there = _once(new, area.new, area.new_end)
    pairs = [
        (place, there[item])
        for item, place in _once(old, area.old, area.old_end).items()
        if item in there
    ]
    # The longest increasing subsequence of the places in `new`.
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for index, (_, place) in enumerate(pairs):
        rank = bisect_left(tails, place)
        before.append(ends[rank - 1] if rank else -1)
        tails[rank : rank + 1] = [place]
        ends[rank : rank + 1] = [index]
    chosen = []
    index = ends[-1] if ends else -1
    while index >= 0:
        chosen.append(pairs[index])
        index = before[index]
    # Of a run its first item will do.
    runs = pairwise([(-1, -1), *reversed(chosen)])
    return [there for here, there in runs if there != (here[0] + 1, here[1] + 1)]


def _once(items: Sequence[str], start: int, end: int) -> dict[str, int]:
    """The place of each item that stands once in a range, in order."""
    places: dict[str, int] = {}
    for place in range(start, end):
        item = items[place]
        places[item] = -1 if item in places else place
    return {item: place for item, place in places.items() if place >= 0}


def _shortest_edit(
    old: Sequence[str], new: Sequence[str], area: _Area, effort: Effort
) -> list[Run]:
    """The runs of an area that a shortest edit keeps; none when it is too far to find it."""
    width, height = area.old_end - area.old, area.new_end - area.new
    # How far into `old` each diagonal was followed, after 0, 1, 2, … items were left out or put in.
    reach = {1: 0}
    reached: list[dict[int, int]] = []
    for depth in range(min(width + height, _DEEPEST) + 1):
        if not effort.allows(2 * depth + 1):
            return []
        reached.append(dict(reach))
        for diagonal in range(-depth, depth + 1, 2):
            x = _entered(reach, diagonal, depth)
            y = x - diagonal
            while x < width and y < height and old[area.old + x] == new[area.new + y]:
                x, y = x + 1, y + 1
            reach[diagonal] = x
            if x >= width and y >= height:
                return _kept(reached, area)
    return []


def _puts_in(reach: dict[int, int], diagonal: int, depth: int) -> bool:
    """Whether a diagonal is entered by putting an item in, rather than by leaving one out."""
    return diagonal == -depth or (diagonal != depth and reach[diagonal - 1] < reach[diagonal + 1])


def _entered(reach: dict[int, int], diagonal: int, depth: int) -> int:
    """Where in `old` a diagonal is entered."""
    if _puts_in(reach, diagonal, depth):
        return reach[diagonal + 1]
    return reach[diagonal - 1] + 1


def _kept(reached: list[dict[int, int]], area: _Area) -> list[Run]:
    """The way back from an area's end to its start, of which the straight stretches are runs."""
    runs = []
    x, y = area.old_end - area.old, area.new_end - area.new
    for depth in range(len(reached) - 1, -1, -1):
        diagonal = x - y
        entered = _entered(reached[depth], diagonal, depth)
        if x > entered:
            runs.append(Run(area.old + entered, area.new + entered - diagonal, x - entered))
        puts_in = _puts_in(reached[depth], diagonal, depth)
        x = entered if puts_in else entered - 1
        y = entered - diagonal - (1 if puts_in else 0)
    return runs
