"""The functions of the reporting schema: what views and readers call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REPORTING = "@reporting@"
"""Stands for the reporting schema's quoted name in the text of views and functions."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the reporting schema."""

    name: str
    arguments: str
    """As CREATE FUNCTION has them, e.g. `document jsonb, path text`."""
    returns: str
    """E.g. `double precision`, or `TABLE (persona_id uuid, …)`."""
    comment: str
    body: str
    language: Literal["sql", "plpgsql"]
    volatility: Literal["IMMUTABLE", "STABLE"]
