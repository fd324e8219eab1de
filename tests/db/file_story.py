"""Random stories for `backfill files`: who showed what, when.

What is told is drawn as plain values, in no order. The oracle (`tests/oracle.py`) is told of it as
of answers, each of which is an observation.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from hypothesis import strategies as st

from etl.payload.clean import clean
from tests.db.story import NEW, NEWER, OLD, looks
from tests.oracle import OBSERVED, SHARED, Answer, Oracle, dated, history, seen_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from tests.oracle import Entity, Json, Sighting

BEGAN = datetime(2026, 5, 1, 14, tzinfo=UTC)
BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
PERSONAS, THINGS = 4, 2


def _ids(kind: str, count: int) -> list[str]:
    """The same in every story: of two equals the greater id counts."""
    return [f"00000000-0000-4000-8000-{kind}{n:04}" for n in range(count)]


PERSONA_IDS = _ids("aaaaaaaa", PERSONAS)
LINK_IDS = _ids("11111111", THINGS)
THING_IDS = {
    "avatar": _ids("bbbbbbbb", THINGS),
    "voice": _ids("cccccccc", THINGS),
    "tools": _ids("dddddddd", THINGS),
    "knowledge": _ids("eeeeeeee", THINGS),
}
_COUNTERS = {"tools": "usageCount", "knowledge": "documentCount"}

# ── What may be told ─────────────────────────────────────────────────────────────────────────────

_names = st.sampled_from(["A", "B"])
_stamps = st.sampled_from([None, OLD, NEW, NEWER])
_counts = st.integers(1, 3)
_things = st.tuples(st.integers(0, THINGS - 1), st.sampled_from(["A", "B", "C"]), _stamps, _counts)
_several = st.lists(_things, max_size=THINGS, unique_by=lambda thing: thing[0])
_origins = st.sampled_from([[], ["https://a"], ["https://a", "https://b"]])
_links = st.lists(
    st.tuples(st.integers(0, THINGS - 1), _counts, _origins),
    max_size=THINGS,
    unique_by=lambda link: link[0],
)
shapes = st.fixed_dictionaries(
    {
        "name": _names,
        "prompt": st.none() | _names,
        "speed": st.sampled_from([1, "fast"]),
        "stamp": _stamps,
        "avatar": st.none() | _things,
        "voice": st.none() | _things,
        "tools": st.just([]) | _several,
        "knowledge": st.just([]) | _several,
        "links": st.just([]) | _links,
    }
)
_shown = st.one_of(shapes, shapes, shapes, st.none())
who = st.integers(0, PERSONAS - 1)
lines = st.lists(st.tuples(st.integers(0, 6), who, _shown), min_size=1, max_size=12)
"""Each a moment, who was asked for, and what was answered; None: a 404."""
steps = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), who, _shown, st.integers(0, 2), st.booleans()),
        st.tuples(st.just("tell"), who, _shown, st.integers(0, 2), st.booleans()),
        st.tuples(st.just("sync"), st.dictionaries(who, _shown, max_size=2)),
    ),
    min_size=2,
    max_size=9,
)
"""Between syncs, before each of which some personas change, what files tell of that moment: they
come so many syncs later, and may tell of the very moment of the line before."""


@dataclass(frozen=True)
class Told:
    """What a line of a file tells."""

    at: datetime
    persona_id: str
    payload: Json | None

    @property
    def answer(self) -> Answer:
        """The same as the oracle is told it."""
        return Answer(self.at, self.persona_id, cast("Json | None", clean(self.payload)))

    def envelope(self) -> Json:
        """The same as an export has it."""
        observed_at = self.at.isoformat().replace("+00:00", "Z")
        named = {"persona_id": self.persona_id} if self.payload is None else {}
        return {"observed_at": observed_at, **named, "payload": self.payload}


def told(drawn: Iterable[tuple[int, int, Json | None]]) -> list[Told]:
    """The lines, as drawn: a minute between two moments."""
    return [
        Told(
            BEGAN + timedelta(minutes=minute),
            PERSONA_IDS[number],
            payload_of(number, shape) if shape is not None else None,
        )
        for minute, number, shape in drawn
    ]


def payload_of(number: int, shape: Json) -> Json:
    """A persona as the API would show it."""
    return {
        "id": PERSONA_IDS[number],
        "name": shape["name"],
        "description": None,
        "brain": {"personality": None, "systemPrompt": shape["prompt"]},
        "voiceSpeed": shape["speed"],
        "avatar": _thing("avatar", shape["avatar"]),
        "voice": _thing("voice", shape["voice"]),
        "tools": [_thing("tools", thing) for thing in shape["tools"]],
        "knowledge": [_thing("knowledge", thing) for thing in shape["knowledge"]],
        "shareLinks": [_link(number, *link) for link in shape["links"]],
        "voiceDetectionOptions": None,
        "voiceGenerationOptions": {"stability": 0.5} if shape["prompt"] else None,
        "widgetConfig": {"x": shape["name"]},
        **_stamped(shape["stamp"]),
    }


def _thing(field: str, drawn: tuple[int, str, str | None, int] | None) -> Json | None:
    if drawn is None:
        return None
    number, look, stamp, count = drawn
    counter = {_COUNTERS[field]: count} if field in _COUNTERS else {}
    return {"id": THING_IDS[field][number], **looks(field, look), **counter, **_stamped(stamp)}


def _link(number: int, link: int, count: int, origins: list[str]) -> Json:
    return {
        "id": LINK_IDS[link],
        "token": f"of {link}",
        "type": f"of {number}",
        "usageCount": count,
        "allowedOrigins": origins,
    }


def _stamped(stamp: str | None) -> Json:
    return {"updatedAt": stamp} if stamp else {}


# ── What follows from it ─────────────────────────────────────────────────────────────────────────


def kept(story: Iterable[Answer]) -> list[Answer]:
    """The answers but for those that another one overrules, of the same persona at one moment.

    The greatest own document counts, by `updatedAt`, then by its hash, a 404 being the lowest.
    """
    answers = list(story)
    greatest: dict[tuple[str, datetime], Sighting] = {}
    for answer in answers:
        own, moment = _own(answer), (answer.persona_id, answer.observed_at)
        if moment not in greatest or _rank(own) > _rank(greatest[moment]):
            greatest[moment] = own
    return [a for a in answers if _own(a).content == greatest[a.persona_id, a.observed_at].content]


def oracle_of(answers: Iterable[Answer]) -> Oracle:
    """The histories, told by answers each of which is an observation, and none overruled.

    Of one thing that a persona showed twice at one moment the greater copy counts.
    """
    chosen: dict[tuple[Entity, datetime, str], Sighting] = {}
    for answer in answers:
        for entity, sighting in seen_in(answer).items():
            place = entity, sighting.observed_at, sighting.bringer
            if place not in chosen or _rank(sighting) > _rank(chosen[place]):
                chosen[place] = sighting
    sightings: dict[Entity, list[Sighting]] = defaultdict(list)
    for (entity, _, _), sighting in chosen.items():
        sightings[entity].append(sighting)
    return Oracle([], dict(sightings), histories_of(sightings))


def _own(answer: Answer) -> Sighting:
    return seen_in(answer)["persona", answer.persona_id]


def histories_of(sightings: dict[Entity, list[Sighting]]) -> dict[Entity, list[Any]]:
    """Of each entity that has one: a 404 of what was never seen begins none."""
    found = {}
    for entity, of_it in sightings.items():
        first = min((s.observed_at for s in of_it if s.document is not None), default=None)
        if first is not None:
            known = [s for s in of_it if s.observed_at >= first]
            found[entity] = history(known, shared=entity[0] != "persona")
    return found


def _rank(sighting: Sighting) -> tuple[datetime, bytes]:
    content = sighting.content
    digest = b"" if content is None else hashlib.sha256(content.encode()).digest()
    return sighting.updated_at or BEFORE_ALL, digest


def observed_fields(answers: Iterable[Answer], oracle: Oracle) -> dict[Entity, list[Json]]:
    """What the observed columns of an entity may say: the newest copy of what is in force.

    Of a persona that is what came last. Several only where nothing but they themselves differ.
    """
    copies: dict[Entity, list[tuple[Any, Json]]] = defaultdict(list)
    for answer in answers:
        for entity, sighting in seen_in(answer).items():
            versions = oracle.histories.get(entity, [])
            last = next((v for v in reversed(versions) if v.document is not None), None)
            if last is None or sighting.content != last.content or answer.payload is None:
                continue
            fields = _observed(entity, answer.payload)
            if fields is None:
                continue
            when = (sighting.observed_at, sighting.updated_at or BEFORE_ALL)
            order = when if entity[0] == "persona" else when[::-1]
            copies[entity].append((order, fields))
    return {
        entity: [fields for order, fields in found if order == max(o for o, _ in found)]
        for entity, found in copies.items()
    }


def _observed(entity: Entity, payload: Json) -> Json | None:
    """None: the copy has no such member, and says nothing."""
    kind, id_ = entity
    whole = payload
    if kind != "persona":
        (field,) = (name for name, shared in SHARED.items() if shared == kind)
        there = payload[field]
        found = there if isinstance(there, list) else [there]
        whole = next(thing for thing in found if thing["id"] == id_)
    fields = {name: whole.get(name) for name in OBSERVED[kind]} | {"updatedAt": dated(whole)}
    if kind == "persona":
        fields |= {link["id"]: link["usageCount"] for link in whole["shareLinks"]}
    return fields if any(value is not None for value in fields.values()) else None


def cut(story: Sequence[Told], parts: int, dice: Random) -> list[Sequence[Told]]:
    """In so many parts at most, none of them empty."""
    places = sorted({0, len(story), *(dice.randint(0, len(story)) for _ in range(parts - 1))})
    return [story[a:b] for a, b in pairwise(places)]
