"""The script: which of the faults on order a request meets."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from msgspec.structs import replace

from etl.sandbox.faults import NO_FAULT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.sandbox.faults import Fault

GROUPS = ("all", "list", "personas")


@dataclass(eq=False, slots=True)
class Ordered:
    """A fault in waiting: how many requests for its target there were, and how many met it."""

    number: int
    fault: Fault
    seen: int = 0
    met: int = 0
    dice: Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = Random(self.fault.seed)  # noqa: S311  repeatable on purpose

    def is_due(self) -> bool:
        """Counts one more request for its target; whether that one is to meet it."""
        self.seen += 1
        place = self.seen - self.fault.after
        if place < 1 or place % self.fault.every:
            return False
        return self.fault.probability == 1 or self.dice.random() < self.fault.probability

    def meet(self) -> Fault:
        """The fault, with what chance decides."""
        self.met += 1
        if not self.fault.jitter_seconds:
            return self.fault
        pause = self.fault.delay_seconds + self.dice.uniform(0, self.fault.jitter_seconds)
        return replace(self.fault, delay_seconds=pause, jitter_seconds=0)

    @property
    def is_over(self) -> bool:
        """Whether nobody meets it any more."""
        return self.fault.limit is not None and self.met >= self.fault.limit


class Script:
    """The faults on order. A request meets at most one of them. May be called from any thread.

    Those for its persona or the list go before those for all personas, and these before those
    for all. Among these, those that end go first, in the order in which they were ordered; of
    those that last, the latest.
    """

    def __init__(self) -> None:
        self._by_target: dict[str, list[Ordered]] = {}
        self._last_number = 0
        self._lock = threading.Lock()

    def add(self, *faults: Fault) -> list[int]:
        """Orders faults behind those already waiting; returns their numbers."""
        with self._lock:
            first = self._last_number + 1
            for fault in faults:
                self._last_number += 1
                ordered = Ordered(self._last_number, fault)
                self._by_target.setdefault(fault.target.lower(), []).append(ordered)
            return list(range(first, self._last_number + 1))

    def take(self, target: str) -> tuple[int | None, Fault]:
        """The fault that this request meets and its number; mostly none, `NO_FAULT`."""
        if not self._by_target:
            return None, NO_FAULT
        with self._lock:
            # All that could be meant count the request, also those that are not met.
            due = [ordered for ordered in self._for(target) if ordered.is_due()]
            if not due:
                return None, NO_FAULT
            chosen = min(due, key=_rank)
            fault = chosen.meet()
            if chosen.is_over:
                self._remove(chosen)
            return chosen.number, fault

    def clear(self, number: int | None = None) -> None:
        """All goes well again, or at least this one is over; KeyError where it is not there."""
        with self._lock:
            if number is None:
                self._by_target.clear()
                return
            found = [ordered for ordered in self._all() if ordered.number == number]
            if not found:
                raise KeyError(number)
            self._remove(found[0])

    @property
    def waiting(self) -> list[Ordered]:
        """The faults that are still to be met, in the order of their numbers."""
        with self._lock:
            return sorted(self._all(), key=lambda ordered: ordered.number)

    def _for(self, target: str) -> Iterator[Ordered]:
        yield from self._by_target.get(target, ())
        if target != "list" and "/" not in target:
            yield from self._by_target.get("personas", ())
        yield from self._by_target.get("all", ())

    def _all(self) -> Iterator[Ordered]:
        return (ordered for queue in self._by_target.values() for ordered in queue)

    def _remove(self, ordered: Ordered) -> None:
        target = ordered.fault.target.lower()
        self._by_target[target].remove(ordered)
        if not self._by_target[target]:
            del self._by_target[target]


def _rank(ordered: Ordered) -> tuple[int, bool, int]:
    groups = {"personas": 1, "all": 2}
    lasts = ordered.fault.limit is None
    return groups.get(ordered.fault.target, 0), lasts, -ordered.number if lasts else ordered.number
