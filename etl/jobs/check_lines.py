"""What `check` says of one subject: a line, with the exit code of a run that met the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Line:
    """What is known of one subject. `exit_code` is 0 unless it is wrong."""

    verdict: Literal["ok", "wrong", "-"]
    subject: str
    told: str
    exit_code: int = 0


def ok(subject: str, told: str) -> Line:
    """Nothing wrong with it."""
    return Line("ok", subject, told)


def wrong(subject: str, told: object, exit_code: int) -> Line:
    """A run would fail with this exit code; `told` says what to do, as an error does."""
    return Line("wrong", subject, str(told), exit_code)


def unknown(subject: str, told: str) -> Line:
    """It could not be looked at, and why."""
    return Line("-", subject, told)
