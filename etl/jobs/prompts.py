"""Says which prompts contain something, and which are nearly alike, out of the reporting views.

It asks the database alone and writes nothing; a role that may read the reports is enough.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from etl.jobs.view_session import reading_views
from etl.report.likeness import LONGEST, groups_of
from etl.report.passages import excerpts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, Row

    from etl.report.likeness import Alike, Group
    from etl.report.passages import Excerpt, Finder
    from etl.settings import Settings

    Watch = Callable[[int, int], None]

# So many of a prompt's passages are shown.
_EXCERPTS = 3
# A prompt can have 10 MB: not many at once.
_ROWS_AT_ONCE = 50
# The past of so few is found by index, in order, and sorted nowhere: that of all would be sorted
# with its texts, on the server's disk, before the first of them came.
_PASTS_AT_ONCE = 100

_LIVE = """
SELECT prompt_id, system_prompt, persona_ids, persona_names
  FROM prompts
"""
_PAST = """
SELECT system_prompt, persona_id, name, valid_from, valid_to
  FROM prompt_history
 WHERE persona_id = ANY (CAST(:ids AS uuid[])) AND system_prompt IS NOT NULL
"""
_TO_COMPARE = """
SELECT prompt_id, persona_count,
       CASE WHEN prompt_length <= :longest THEN system_prompt END AS system_prompt
  FROM prompts
 ORDER BY prompt_id
"""
_TO_SHOW = """
SELECT prompt_id, system_prompt, persona_ids, persona_names
  FROM prompts
 WHERE prompt_id = ANY (CAST(:prompt_ids AS text[]))
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """A persona that has a prompt, or had it for a while."""

    persona_id: UUID
    name: str | None
    valid_from: datetime | None = None
    """None, where only the present was asked for."""
    valid_to: datetime | None = None
    """None: it still has it."""


@dataclass(frozen=True, slots=True)
class FoundPrompt:
    """A prompt that contains what was looked for."""

    prompt_id: str
    passages: int
    first: list[Excerpt]
    holders: list[Holder] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Found:
    """All of those, those of the most personas first."""

    searched: int
    """Distinct prompts."""
    prompts: list[FoundPrompt]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, and the live personas that have it."""

    prompt_id: str
    text: str
    holders: list[Holder]


@dataclass(frozen=True, slots=True)
class Variant:
    """A prompt that is nearly like the one that its group is told by."""

    prompt: Prompt
    similarity: float


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """A prompt, and those that are nearly like it; of them the first."""

    reference: Prompt
    prompts: int
    personas: int
    first: list[Variant]


@dataclass(frozen=True, slots=True)
class Similar:
    """The groups of live prompts that are nearly alike: how many, and the greatest of them."""

    distinct: int
    personas: int
    """Live ones that have a prompt."""
    too_long: int
    """Prompts that were not compared."""
    groups: int
    grouped_prompts: int
    grouped_personas: int
    first: list[PromptGroup]


def search(
    settings: Settings,
    find: Finder,
    *,
    url: str,
    history: bool,
    watch: Watch = lambda _done, _total: None,
) -> Found:
    """The prompts in which something is found: of live personas, or all that there ever were.

    With `history`, `watch` is told of how many personas the past was read, and of how many it will
    be. Raises DatabaseError when the views can't be read.
    """
    found: dict[str, FoundPrompt | None] = {}
    with reading_views(url, settings.database.schema_) as connection:
        told = _past(connection, watch) if history else _live(connection)
        for text, prompt_id, holders in told:
            if prompt_id not in found:
                found[prompt_id] = _searched(prompt_id, text, find)
            prompt = found[prompt_id]
            if prompt is not None:
                prompt.holders.extend(holders)
    prompts = [prompt for prompt in found.values() if prompt is not None]
    for prompt in prompts:
        prompt.holders.sort(key=lambda holder: (str(holder.persona_id), str(holder.valid_from)))
    prompts.sort(key=lambda prompt: (-personas_of(prompt.holders), prompt.prompt_id))
    return Found(len(found), prompts)


def personas_of(holders: list[Holder]) -> int:
    """How many they are: one may have had a prompt more than once."""
    return len({holder.persona_id for holder in holders})


def similar(
    settings: Settings,
    *,
    url: str,
    at_least: float,
    groups: int,
    variants: int,
    watch: Watch = lambda _done, _total: None,
) -> Similar:
    """The groups of live prompts whose words are `at_least` so alike, from 0 to 1.

    Of the groups so many are told, those of the most personas first, and of each group so many
    prompts beside the reference, the most alike first. `watch` is told how many were compared, and
    how many will be.

    Raises DatabaseError when the views can't be read.
    """
    with reading_views(url, settings.database.schema_) as connection:
        ids: list[str] = []
        counts: list[int] = []
        others: list[int] = []

        def texts() -> Iterator[tuple[str, int]]:
            for row in _rows(connection, _TO_COMPARE, longest=LONGEST):
                if row.system_prompt is None:
                    others.append(row.persona_count)
                    continue
                ids.append(row.prompt_id)
                counts.append(row.persona_count)
                yield row.system_prompt, row.persona_count

        found = groups_of(texts(), at_least, watch)

        def personas(group: Group) -> int:
            return counts[group.reference] + sum(counts[other.number] for other in group.others)

        found.sort(key=lambda group: (-personas(group), -len(group.others), group.reference))
        shown = {
            ids[number]
            for group in found[:groups]
            for number in (group.reference, *(one.number for one in group.others[:variants]))
        }
        prompts = {
            row.prompt_id: Prompt(row.prompt_id, row.system_prompt, holders_in(row))
            for row in connection.execute(sa.text(_TO_SHOW), {"prompt_ids": list(shown)})
        }

    def variant(one: Alike) -> Variant:
        return Variant(prompts[ids[one.number]], one.similarity)

    return Similar(
        distinct=len(ids) + len(others),
        personas=sum(counts) + sum(others),
        too_long=len(others),
        groups=len(found),
        grouped_prompts=sum(1 + len(group.others) for group in found),
        grouped_personas=sum(map(personas, found)),
        first=[
            PromptGroup(
                prompts[ids[group.reference]],
                1 + len(group.others),
                personas(group),
                [variant(one) for one in group.others[:variants]],
            )
            for group in found[:groups]
        ],
    )


def _rows(connection: Connection, query: str, **values: object) -> Iterable[Row[Any]]:
    few = {"yield_per": _ROWS_AT_ONCE}
    return connection.execute(sa.text(query), values, execution_options=few)


def _live(connection: Connection) -> Iterator[tuple[str, str, list[Holder]]]:
    for row in _rows(connection, _LIVE):
        yield row.system_prompt, row.prompt_id, holders_in(row)


def _past(connection: Connection, watch: Watch) -> Iterator[tuple[str, str, list[Holder]]]:
    known = connection.execute(sa.text("SELECT persona_id FROM personas ORDER BY persona_id"))
    ids = known.scalars().all()
    for first in range(0, len(ids), _PASTS_AT_ONCE):
        watch(first, len(ids))
        for row in _rows(connection, _PAST, ids=ids[first : first + _PASTS_AT_ONCE]):
            text = row.system_prompt
            holder = Holder(row.persona_id, row.name, row.valid_from, row.valid_to)
            # As the view of the prompts has it.
            yield text, sha256(text.encode()).hexdigest(), [holder]


def holders_in(row: Row[Any]) -> list[Holder]:
    """The personas that a row of a view of distinct things names."""
    return [Holder(*who) for who in zip(row.persona_ids, row.persona_names, strict=True)]


def _searched(prompt_id: str, text: str, find: Finder) -> FoundPrompt | None:
    spans = find(text)
    first = list(islice(spans, _EXCERPTS))
    if not first:
        return None
    return FoundPrompt(prompt_id, len(first) + sum(1 for _ in spans), excerpts(text, first))
