"""What a dry run has worked out batch by batch and, as it writes nothing, no table knows.

A later batch is judged with it beside what the tables say. A real run passes an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from etl.payload.decode import JsonObject
    from etl.proposal.model import Key
    from etl.store.observations import ContentKey, EntityKey, Observations
    from etl.store.past import Head
    from etl.tables import Kind


@dataclass(slots=True)
class Ahead:
    """Of shared documents, which several personas bring; a persona comes once a run."""

    heads: dict[EntityKey, Head] = field(default_factory=dict)
    observations: Observations = field(default_factory=dict)
    newest: dict[Kind, dict[bytes, datetime]] = field(default_factory=dict)
    documents: dict[ContentKey, JsonObject] = field(default_factory=dict)
    issues: dict[EntityKey, set[str]] = field(default_factory=dict)
    """The paths of those that are open."""
    drift: dict[Key, set[str]] = field(default_factory=dict)
    """What differs from the map and was told, with the new members of small sets."""
