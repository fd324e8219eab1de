"""What the torture has done so far, in numbers: told as it goes on, and at its end."""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests.torture.sizes import IS_LONG

FIGURES: Counter[str] = Counter()
_STARTED = time.monotonic()


def tortured(what: str, times: int = 1) -> None:
    """Counts what was done to somebody; in the long torture it is told every now and then."""
    before = FIGURES[what]
    FIGURES[what] += times
    if IS_LONG and before // 25 < FIGURES[what] // 25:
        seconds = time.monotonic() - _STARTED
        sys.stderr.write(f"{seconds:7.0f} s  {FIGURES[what]:6}  {what}\n")


def summary() -> list[str]:
    """All figures, a line each."""
    lines = [f"{number:8}  {what}" for what, number in sorted(FIGURES.items())]
    return [*lines, f"{time.monotonic() - _STARTED:8.0f}  seconds"]
