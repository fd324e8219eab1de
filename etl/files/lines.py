from __future__ import annotations
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    number: int
    raw: bytes
    dated: datetime | None
    problem: str | None = None
