"""What lines of files bring, or why they are rejected: what reading hands over to storing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from etl.store.observations import encoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from msgspec import Raw

    from etl.files.lines import Line
    from etl.fold import Pruned
    from etl.payload.decode import Json, JsonObject
    from etl.payload.documents import Part
    from etl.store.observations import ContentKey, EntityKey


@dataclass(frozen=True, slots=True)
class Brought:
    """A document that a payload holds."""

    key: EntityKey
    content_hash: bytes | None
    """None: the API did not know it."""
    source_updated_at: datetime | None
    observed: Raw | None
    """What this copy says that its stored document does not, as `encoded_copy` has it."""
    is_beside: bool = False
    """The payload does not hold it."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a payload comes to."""

    persona_id: UUID
    brought: list[Brought]
    rows: Raw
    """All of `brought` on its way into the observations."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a line brings."""

    line: Line
    persona_id: UUID
    observed_at: datetime
    observed: list[Brought]
    """The documents of which it is an observation."""
    rows: Raw
    """The same, as `encoded` has them."""
    known: list[Brought]
    """What else stands in its payload, confirmed or as the context."""
    is_missing: bool
    """It says that the API does not know the persona."""
    is_confirmation: bool
    """Nothing in it is an observation: the persona was seen to be as it was."""

    @property
    def is_empty(self) -> bool:
        """Whether it brings nothing."""
        return not self.observed and not (self.is_confirmation and self.known)

    def since(self, kept_from: Mapping[EntityKey, datetime]) -> Taken:
        """Without what is older than all that is kept of its entity.

        What stands beside its payload stays: an export has it there as nothing else goes without.
        """

        def is_kept(brought: Brought) -> bool:
            begins = kept_from.get(brought.key)
            return brought.is_beside or begins is None or self.observed_at >= begins

        observed = list(filter(is_kept, self.observed))
        known = list(filter(is_kept, self.known))
        if (len(observed), len(known)) == (len(self.observed), len(self.known)):
            return self
        return replace(self, observed=observed, rows=rows_of(observed), known=known)


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that brings nothing, and why."""

    line: Line
    reason: str
    persona_id: UUID | None = None
    observed_at: datetime | None = None
    payload: Json = None
    """Cleaned, where it could be read."""

    def __str__(self) -> str:
        return f"{self.line.name}:{self.line.number}: {self.reason}"


@dataclass(slots=True)
class Taking:
    """Lines that are loaded together."""

    taken: list[Taken] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    documents: dict[ContentKey, Part] = field(default_factory=dict)
    """The documents in them that the reader had not met before."""
    loose: dict[ContentKey, tuple[UUID, JsonObject]] = field(default_factory=dict)
    """Those that stand beside payloads, and whose they are."""
    pruned: list[tuple[EntityKey, Pruned]] = field(default_factory=list)
    """Beginnings that are not kept, and whose they are."""

    @property
    def lines(self) -> int:
        """How many there are."""
        return len(self.taken) + len(self.refused) + len(self.pruned)

    def first(self, number: int) -> Taking:
        """So many of those that are taken, and all the others, with all the documents."""
        return replace(self, taken=self.taken[:number])

    def behind(self, number: int) -> Taking:
        """The rest."""
        return replace(self, taken=self.taken[number:], refused=[], pruned=[])


def rows_of(brought: Iterable[Brought]) -> Raw:
    """Documents on their way into the observations."""
    return encoded((b.key, b.content_hash, b.source_updated_at) for b in brought)
