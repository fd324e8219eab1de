"""How `report` stands on a terminal: lines of 80 columns, what they tell behind a label."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from wcwidth import ljust, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

WIDTH = 80
LABEL = 12
ROOM = WIDTH - LABEL
INDENT = "  "


def labelled(label: str, told: str, size: int = LABEL) -> Iterator[str]:
    """On as many lines as it takes, all behind the label."""
    for number, line in enumerate(wrap(told, WIDTH - size, break_on_hyphens=False)):
        yield f"{INDENT}{ljust('' if number else label, size - 2)}{line}".rstrip()


def minute(moment: datetime) -> str:
    """In UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
