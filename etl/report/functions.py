"""The functions of the reporting schema: what views and readers call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REPORTING = "\0reporting\0"
"""Stands for the reporting schema's quoted name in the text of views and functions.

Nothing else reads so, a member's name of the API neither: Postgres holds no NUL.
"""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the reporting schema."""

    name: str
    arguments: str
    """As CREATE FUNCTION has them, e.g. `document jsonb, path text`; no type has a comma in it."""
    returns: str
    """E.g. `double precision`, or `TABLE (persona_id uuid, …)`."""
    comment: str
    body: str
    language: Literal["sql", "plpgsql"]
    volatility: Literal["IMMUTABLE", "STABLE"]

    @property
    def signature(self) -> str:
        """What tells it from others of its name, e.g. `value_at(jsonb, text)`."""
        types = (argument.split(maxsplit=1)[1:] for argument in self.arguments.split(","))
        return f"{self.name}({', '.join(type_ for found in types for type_ in found)})"
