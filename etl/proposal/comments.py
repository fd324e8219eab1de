"""What the comment of a column that is added says: facts, in words that break nothing. Pure."""

from __future__ import annotations

import re
from datetime import UTC
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from etl.proposal.model import Drift, Rename

MAX_COMMENT_LENGTH: Final = 70
"""Characters: a line of code that quotes it stays within a hundred."""

# It stands in a line of Python, in SQL and in a docstring, and each has its own quotes.
_UNUSUAL = re.compile(r"[^A-Za-z0-9_.\[\] -]+")


def comment_on(drift: Drift, *, as_type: str | None = None, rename: Rename | None = None) -> str:
    """Which field it is and since when; of a second column its type, else what it was before.

    What does not fit is left out: first the old name, then the end of a long path.
    """
    since = f"since {drift.first_seen_at.astimezone(UTC).date()}."
    tail = f" as {as_type}, {since}" if as_type else f", {since}"
    shown, room = _shown(drift.path), MAX_COMMENT_LENGTH - len(tail)
    comment = (shown if len(shown) <= room else f"{shown[: room - 3]}...") + tail
    if rename is None:
        return comment
    longer = f"{comment} Formerly {_shown(rename.path)}, it seems."
    return longer if len(longer) <= MAX_COMMENT_LENGTH else comment


def _shown(path: str) -> str:
    """A path without what anybody could take for a quote or more."""
    return _UNUSUAL.sub("?", re.sub(r'["\\]', "", path.removesuffix("[]")))
