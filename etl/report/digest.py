"""What `report` tells, for a terminal, a page and programs: how things stand, and what happened.

Only the words for it. It is read out of the database by `jobs/report.py`. Of whatever there may be
many only the first are here, with the number of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime
    from uuid import UUID

T = TypeVar("T")

LONGEST_PROMPT = 100_000
"""Nobody reads more of one in a report, and it may be 10 MB."""


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """How many there are, and the first of them."""

    count: int
    first: Sequence[T]


@dataclass(frozen=True, slots=True)
class Totals:
    """How much there is now. Personas that were removed count as such, and for nothing else."""

    live: int
    removed: int
    avatars: int
    voices: int
    tools: int
    knowledge_groups: int
    share_links: int
    prompts: int
    """Distinct ones that live personas have."""
    configurations: int
    """Distinct ones of live personas: all but what tells a persona from others."""


@dataclass(frozen=True, slots=True)
class Run:
    """A line of the ledger."""

    run_id: UUID
    command: str
    status: str
    started_at: datetime
    seconds: float | None
    """None: it runs, or died."""
    counts: dict[str, int]
    """By outcome, with `requested` as their sum; without those that are 0."""
    error: str | None


@dataclass(frozen=True, slots=True)
class RunDay:
    """How many runs of a status began on a day (UTC), and how long they took."""

    day: date
    status: str
    runs: int
    median_seconds: float | None


@dataclass(frozen=True, slots=True)
class RunSum:
    """The runs since then of one command that ended one way, or have not ended."""

    command: str
    status: str
    runs: int
    median_seconds: float | None
    slowest_seconds: float | None


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How regularly all personas are asked for. A sync that some personas failed in has done so."""

    last_success_at: datetime | None
    """When the last sync ended of which nothing failed, however long ago; likewise the next."""
    last_complete_at: datetime | None
    longest_gap_seconds: float | None
    """Since then, from the end of one to the end of the next, or to now; None: there was none."""
    late_after_seconds: float
    """A sync is late, and a persona stale, when it is longer ago: three times what is usual, a day
    at the least."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A persona that could not be copied lately, or never."""

    persona_id: UUID
    name: str | None
    last_outcome: str | None
    """None: it was not asked for yet."""
    consecutive_failures: int
    last_success_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class AgeBand:
    """How many live personas were last seen so long ago; bands in order, empty ones too."""

    label: str
    personas: int


@dataclass(frozen=True, slots=True)
class ChangeDay:
    """How many versions of a sort began on a day (UTC)."""

    day: date
    kind: str
    change: str
    versions: int


@dataclass(frozen=True, slots=True)
class FieldChanges:
    """In how many versions a field changed that somebody edited; reshaped ones don't count."""

    kind: str
    path: str
    """As the API calls it; of what has an id, all together: `shareLinks[].enabled`."""
    versions: int


@dataclass(frozen=True, slots=True)
class Happening:
    """A version that began: of a persona, or of something that personas share."""

    at: datetime
    not_before: datetime | None
    """When it was last seen otherwise: the change came between the two."""
    kind: str
    entity_id: UUID
    name: str | None
    name_before: str | None
    """Other than `name` when it was renamed."""
    version: int
    change: str
    """As in document_versions: created, updated, reshaped, removed, restored or pruned."""
    paths: Sequence[str]
    """The first of them."""
    personas: int
    """How many live personas have it; of a persona 1, or 0 when it is removed."""


@dataclass(frozen=True, slots=True)
class PromptChange:
    """A persona was told something else."""

    persona_id: UUID
    name: str | None
    at: datetime
    not_before: datetime | None
    old: str | None
    """Both as far as `LONGEST_PROMPT` characters."""
    new: str | None
    old_length: int | None
    """In characters, of the whole."""
    new_length: int | None
    words_gone: int | None
    """How many words stand there less often than before; None: a text was cut, or is not kept."""
    words_come: int | None


@dataclass(frozen=True, slots=True)
class Concern:
    """What somebody should know, the most urgent first."""

    code: str
    """For programs, e.g. `failing`, `stale`, `drift`."""
    level: Literal["act", "look"]
    count: int
    """Of how many it speaks."""
    told: str
    """A sentence."""
    next_step: str | None
    """What to do, e.g. a command."""


@dataclass(frozen=True, slots=True)
class Link:
    """A share link that somebody should look at."""

    share_link_id: UUID
    persona_id: UUID
    persona_name: str | None
    type: str | None
    state: str
    why: str
    """E.g. `expires in 3 d`, `used up`, `opens on every site`."""
    expires_at: datetime | None
    usage_count: int | None
    usage_limit: int | None


@dataclass(frozen=True, slots=True)
class Drift:
    """Where the API and the map differ, and nobody has decided."""

    kind: str
    path: str
    problem: str
    meaning: str
    occurrences: int
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Persona:
    """A line of the table of personas."""

    persona_id: UUID
    name: str | None
    avatar_name: str | None
    voice_name: str | None
    voice_provider: str | None
    llm_id: str | None
    prompt_length: int | None
    tool_count: int
    knowledge_group_count: int
    share_link_count: int
    last_changed_at: datetime | None
    last_observed_at: datetime | None
    removed_at: datetime | None
    last_outcome: str | None


@dataclass(frozen=True, slots=True)
class Digest:
    """All of it, as of one moment of the database's clock."""

    now: datetime
    since: datetime
    schema: str
    version: str
    """Of persona-etl."""
    totals: Totals
    concerns: Sequence[Concern]
    runs: Listed[Run]
    """Those since then, the newest first."""
    run_sums: Sequence[RunSum]
    rhythm: Rhythm
    run_days: Sequence[RunDay]
    ages: Sequence[AgeBand]
    change_days: Sequence[ChangeDay]
    changed_fields: Listed[FieldChanges]
    """The most often changed first."""
    happenings: Listed[Happening]
    """The newest first; of each sort, a kind and a change, so many that no sort hides others."""
    prompts: Listed[PromptChange]
    """The newest first."""
    failing: Listed[Trouble]
    """The longest unseen first."""
    never_seen: Listed[Trouble]
    """Named by the settings."""
    links: Listed[Link]
    """The most urgent first."""
    drift: Listed[Drift]
    personas: Listed[Persona]
    """By name."""
