"""What section 6 of the design says of a log of answers, in plain Python and at any cost in time.

Written apart from the code that it judges: from the design's words, importing nothing of it. The
log holds every answer, the mere confirmations too; 404s stand in it only when they were applied.
Fields and sets are named by hand, as the API's reference names them.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from uuid import UUID

Json = dict[str, Any]
Entity = tuple[str, str]
"""A kind and an id."""

SHARED = {"avatar": "avatar", "voice": "voice", "tools": "tool", "knowledge": "knowledge_group"}
OBSERVED = {
    "persona": {"updatedAt"},
    "avatar": {"updatedAt"},
    "voice": {"updatedAt"},
    "tool": {"updatedAt", "usageCount"},
    "knowledge_group": {"updatedAt", "documentCount"},
    "share link": {"usageCount"},
}
SETS = {"displayTags", "availableVersions", "allowedOrigins", "tools", "knowledge", "shareLinks"}
OPTIONS = {"config", "widgetConfig", "voiceDetectionOptions", "voiceGenerationOptions"}


@dataclass(frozen=True)
class Answer:
    """What one request for a persona brought: a cleaned payload, or None for a 404."""

    observed_at: datetime
    persona_id: str
    payload: Json | None
    run: UUID | None = None


@dataclass(frozen=True)
class Sighting:
    """One document of an answer; None for a 404."""

    observed_at: datetime
    bringer: str
    document: Json | None
    updated_at: datetime | None = None
    run: UUID | None = None
    content: str | None = field(init=False)

    def __post_init__(self) -> None:
        content = None if self.document is None else canonical(self.document)
        object.__setattr__(self, "content", content)

    @property
    def place(self) -> tuple[datetime, bool, datetime, bytes, str]:
        """Where it stands in the order of the fold; of one moment, an undated copy goes first."""
        dated = self.updated_at or self.observed_at
        content = hashlib.sha256((self.content or "").encode()).digest()
        return self.observed_at, self.updated_at is not None, dated, content, self.bringer


@dataclass
class Version:
    """A document in force, from one moment up to another; None in the place of one: removed."""

    valid_from: datetime
    document: Json | None
    content: str | None
    change: str
    changed_paths: frozenset[str]
    run: UUID | None
    last_observed_at: datetime
    source_updated_at: datetime | None = None
    valid_to: datetime | None = None

    def holds_at(self, instant: datetime) -> bool:
        return self.valid_from <= instant and (self.valid_to is None or instant < self.valid_to)


@dataclass(frozen=True)
class Oracle:
    """The log, and the history of each entity in it, the oldest version first."""

    answers: list[Answer]
    sightings: dict[Entity, list[Sighting]]
    histories: dict[Entity, list[Version]]

    def of_kind(self, kind: str) -> dict[str, list[Version]]:
        return {id_: versions for (of, id_), versions in self.histories.items() if of == kind}

    def in_force(self, kind: str, id_: str | None, instant: datetime) -> Version | None:
        versions = self.histories.get((kind, id_), []) if id_ else []
        return next((version for version in versions if version.holds_at(instant)), None)


def tell(answers: Iterable[Answer]) -> Oracle:
    """The histories that these answers come to, in whatever order they are given."""
    log = sorted(answers, key=lambda answer: (answer.observed_at, answer.persona_id))
    sightings: dict[Entity, list[Sighting]] = defaultdict(list)
    for answer in log:
        for entity, sighting in seen_in(answer).items():
            sightings[entity].append(sighting)
    histories = {}
    for entity, of_it in sightings.items():
        versions = history(of_it, shared=entity[0] != "persona")
        if versions:
            histories[entity] = versions
    return Oracle(log, dict(sightings), histories)


def as_of(oracle: Oracle, instant: datetime) -> dict[str, Json]:
    """By persona, as things stood at that instant: what a row of `personas_as_of` should say.

    Removed and not yet seen personas are absent. Until `observed_until` the persona, its avatar and
    its voice were all seen to be so; where only first and last are kept, that may be told earlier.
    """
    rows = {}
    for persona_id in oracle.of_kind("persona"):
        own = oracle.in_force("persona", persona_id, instant)
        if own is None or own.document is None:
            continue
        document = own.document
        used = {
            kind: oracle.in_force(kind, (document.get(kind) or {}).get("id"), instant)
            for kind in ("avatar", "voice")
        }
        avatar, voice = ((version and version.document) or {} for version in used.values())
        brain = document.get("brain") or {}
        rows[persona_id] = {
            "name": document.get("name"),
            "description": document.get("description"),
            "personality": brain.get("personality"),
            "system_prompt": brain.get("systemPrompt"),
            "avatar_id": avatar.get("id"),
            "avatar_name": avatar.get("displayName"),
            "voice_id": voice.get("id"),
            "voice_name": voice.get("displayName"),
            "voice_provider": voice.get("provider"),
            "tool_count": len(document.get("tools") or []),
            "knowledge_group_count": len(document.get("knowledge") or []),
            "share_link_count": len(document.get("shareLinks") or []),
            "removed_at": None,
            "first_seen_at": oracle.histories["persona", persona_id][0].valid_from,
            "last_changed_at": own.valid_from,
            "observed_until": min(v.last_observed_at for v in (own, *used.values()) if v),
        }
    return rows


def history(sightings: Iterable[Sighting], *, shared: bool) -> list[Version]:
    """Folds one entity's sightings, given in any order."""
    at: dict[datetime, list[Sighting]] = defaultdict(list)
    for sighting in sorted(sightings, key=lambda s: s.place):
        at[sighting.observed_at].append(sighting)
    versions: list[Version] = []
    past: list[Sighting] = []
    for moment, together in at.items():
        holding = versions[-1].content if versions else None
        winner: Sighting | None = None
        for sighting in together:
            content = winner.content if winner else holding
            if sighting.content != content and (
                not shared or content is None or wins(sighting, content, past)
            ):
                winner = sighting
            past.append(sighting)
        if winner is not None and winner.content != holding:
            if versions:
                versions[-1].valid_to = moment
            versions.append(opened(winner, versions))
        for sighting in together:
            if versions and sighting.content == versions[-1].content:
                confirm(versions[-1], sighting)
    return versions


def wins(sighting: Sighting, content: str, past: list[Sighting]) -> bool:
    """Whether a copy of a shared document takes the place of another content, in force so far.

    The design does not say what becomes of the dates before an undated copy that won. Here the two
    copies alone are compared; each counts with the newest date that its content was ever seen with,
    so that what a persona merely repeats, which need not be an observation, is no news.
    """
    mine = [earlier.content for earlier in past if earlier.bringer == sighting.bringer]
    repeated = mine[-1:] == [sighting.content]
    newest = newest_with(content, past)
    if sighting.updated_at is None or newest is None or sighting.updated_at == newest:
        return not repeated
    known = newest_with(sighting.content, past)
    is_news = not repeated or known is None or sighting.updated_at > known
    return sighting.updated_at > newest and is_news


def newest_with(content: str | None, past: list[Sighting]) -> datetime | None:
    dates = [s.updated_at for s in past if s.content == content and s.updated_at]
    return max(dates, default=None)


def opened(winner: Sighting, before: list[Version]) -> Version:
    """The version that a sighting opens after these."""
    known = [version.document for version in before if version.document is not None]
    last = known[-1] if known else None
    paths: dict[str, bool] = {}
    if winner.document is None:
        change = "removed"
    elif last is None:
        change = "created"
    else:
        paths = dict(differing(last, winner.document))
        change = "reshaped" if all(paths.values()) else "updated"
        if before[-1].document is None:
            change = "restored"
    return Version(
        valid_from=winner.observed_at,
        document=winner.document,
        content=winner.content,
        change=change,
        changed_paths=frozenset(paths),
        run=winner.run,
        last_observed_at=winner.observed_at,
    )


def confirm(version: Version, sighting: Sighting) -> None:
    """Counts a sighting of the content in force."""
    version.last_observed_at = sighting.observed_at
    dates = [date for date in (version.source_updated_at, sighting.updated_at) if date]
    version.source_updated_at = min(dates, default=None)


def differing(old: object, new: object, path: str = "", at: str = "") -> Iterator[tuple[str, bool]]:
    """The paths that differ, and whether of each it is only the API's shape.

    `at` is the nearest member's name; below options it stays theirs.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            below = f"{path}.{name}" if path else name
            if name in old and name in new:
                yield from differing(old[name], new[name], below, at if at in OPTIONS else name)
            else:
                yield below, at not in OPTIONS
        return
    if isinstance(old, list) and isinstance(new, list):
        before, after = by_id(old), by_id(new)
        if before is not None and after is not None:
            kept = [id_ for id_ in before if id_ in after]
            if at in SETS or kept == [id_ for id_ in after if id_ in before]:
                for id_ in before.keys() | after.keys():
                    if id_ in before and id_ in after:
                        yield from differing(before[id_], after[id_], f"{path}[{id_}]", at)
                    else:
                        yield f"{path}[{id_}]", False
                return
    if canonical(old, at) != canonical(new, at):
        yield path, False


def by_id(array: list[Any]) -> dict[str, Json] | None:
    """The elements by their ids, when each has one of its own."""
    if not all(isinstance(element, dict) and element.get("id") for element in array):
        return None
    found = {element["id"]: element for element in array}
    return found if len(found) == len(array) else None


def seen_in(answer: Answer) -> dict[Entity, Sighting]:
    """The documents that an answer shows, the persona's own with references to the others."""
    own: Entity = ("persona", answer.persona_id)
    when, who, run = answer.observed_at, answer.persona_id, answer.run
    if answer.payload is None:
        return {own: Sighting(when, who, None, None, run)}
    found = {}
    document = without(answer.payload, "persona")
    for name, kind in SHARED.items():
        value = document.get(name)
        for thing in value if isinstance(value, list) else [value] if value else []:
            seen = Sighting(when, who, without(thing, kind), dated(thing), run)
            found[kind, thing["id"]] = seen
        if isinstance(value, list):
            document[name] = [{"id": thing["id"]} for thing in value]
        elif value:
            document[name] = {"id": value["id"]}
    if document.get("shareLinks"):
        document["shareLinks"] = [without(link, "share link") for link in document["shareLinks"]]
    found[own] = Sighting(when, who, document, dated(answer.payload), run)
    return found


def without(value: Json, kind: str) -> Json:
    """A copy without the observed members."""
    return {name: member for name, member in value.items() if name not in OBSERVED[kind]}


def dated(value: Json) -> datetime | None:
    stamp = value.get("updatedAt")
    return datetime.fromisoformat(stamp) if isinstance(stamp, str) else None


def canonical(value: object, at: str = "") -> str:
    """JSON with sorted keys and sorted sets: equal for what counts as the same."""
    return json.dumps(_in_order(value, at), sort_keys=True, separators=(",", ":"))


def _in_order(value: Any, at: str) -> Any:
    if isinstance(value, dict):
        return {name: _in_order(member, name) for name, member in value.items()}
    if isinstance(value, list):
        elements = [_in_order(element, "") for element in value]
        return sorted(elements, key=canonical) if at in SETS else elements
    return value
