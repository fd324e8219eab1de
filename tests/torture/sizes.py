"""How long the torture lasts: a bounded part of it in `make test`, all of it in `make torture`."""

from __future__ import annotations

import os

ROUNDS = int(os.environ.get("TORTURE_ROUNDS") or 0)
"""How many processes are killed and servers lost; 0: as few as every test run has time for."""

SEED = int(os.environ.get("TORTURE_SEED") or 1)

IS_LONG = ROUNDS > 0


def steps(few: int) -> int:
    """Of n = 1, 2, … each, or, where time is short, only each so-manieth."""
    return 1 if IS_LONG else few
