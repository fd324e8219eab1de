"""Random stories for the job to copy: personas that share things, and what befalls them.

What happens is drawn up front, as plain values; a `Story` acts it out on the sandbox, runs the job
and keeps the log of answers that the oracle is told. It foretells what becomes of each persona.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from hypothesis import strategies as st
from msgspec.structs import replace

from etl.payload.clean import clean
from etl.sandbox import Fault
from tests.oracle import Answer, Oracle, history, seen_in, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.db.conftest import Target

OLD, NEW, NEWER = (f"2026-04-{day}T10:00:00.000Z" for day in (20, 21, 22))
HOUR = timedelta(hours=1)
FAR_AHEAD = datetime(9999, 1, 1, tzinfo=UTC)
ABSENT = "absent"

PERSONAS, THINGS = 4, 2
KINDS = {"avatar": "avatars", "voice": "voices", "tools": "tools", "knowledge": "knowledge"}
"""The persona's member that shows them -> the sandbox's word for them."""
FAULTS = {
    "forbidden": Fault(status=403),
    "failed": Fault(status=400),
    "rejected": Fault(status=200, wrong="html"),
}

# ── What may happen ──────────────────────────────────────────────────────────────────────────────

who = st.integers(0, PERSONAS - 1)
which = st.lists(st.integers(0, THINGS - 1), max_size=THINGS, unique=True)
fields = st.sampled_from(sorted(KINDS))
names = st.sampled_from(["A", "B", "C"])
stamps = st.sampled_from([None, OLD, NEW, NEWER])
members = st.one_of(
    st.fixed_dictionaries({"name": names}),
    st.fixed_dictionaries({"description": st.none() | names}),
    st.fixed_dictionaries({"brain": st.fixed_dictionaries({"systemPrompt": st.none() | names})}),
    st.fixed_dictionaries(
        {
            "voiceDetectionOptions": st.none()
            | st.fixed_dictionaries({"endOfSpeechSensitivity": st.sampled_from([0.25, 0.5])})
        }
    ),
    st.fixed_dictionaries(
        {
            "voiceGenerationOptions": st.none()
            | st.dictionaries(st.sampled_from(["stability", "style"]), st.just(0.5), max_size=1)
        }
    ),
    st.fixed_dictionaries({"widgetConfig": st.dictionaries(names, st.just(1), max_size=1)}),
    st.fixed_dictionaries({"updatedAt": stamps}),
)
origins = st.lists(st.sampled_from(["https://a", "https://b"]), max_size=2, unique=True)
links = st.dictionaries(st.integers(0, THINGS - 1), origins, max_size=2)
places = st.sampled_from(["persona", "brain", "config", "shareLinks", *KINDS])
changes = st.one_of(
    st.tuples(st.just("edit"), who, members, st.booleans()),
    st.tuples(st.just("edit_shared"), fields, which, names, st.just("now") | stamps),
    st.tuples(st.just("edit_shared"), fields, which, names, st.just("now") | stamps),
    st.tuples(st.just("show_another"), who, fields, st.none() | names, stamps),
    st.tuples(st.just("freeze"), who),
    st.tuples(st.just("thaw"), who),
    st.tuples(st.just("hold"), who, fields, which),
    st.tuples(st.just("link"), who, st.none() | links),
    st.tuples(st.just("reshape"), places, st.sampled_from([ABSENT, None, "x", "y"])),
    st.tuples(st.just("delete"), who),
    st.tuples(st.just("restore"), who),
    st.tuples(st.just("set_clock_back"), who),
)
runs = st.fixed_dictionaries(
    {
        "asked": st.permutations(range(PERSONAS))
        | st.lists(who, min_size=1, max_size=PERSONAS, unique=True),
        "faults": st.dictionaries(who, st.sampled_from(sorted(FAULTS)), max_size=1),
        "concurrency": st.sampled_from(["1", "16"]),
        "allow_mass_removal": st.booleans(),
    }
)
stories = st.lists(st.tuples(st.lists(changes, max_size=4), runs), min_size=2, max_size=7)
"""Before each run, what changes: the name of a `Story`'s method and what to call it with."""


def looks(field: str, name: str) -> dict[str, Any]:
    """What a shared thing of that name is like."""
    every: dict[str, dict[str, Any]] = {
        "avatar": {"displayName": name, "imageUrl": None, "availableVersions": ["v1", name]},
        "voice": {"displayName": name, "provider": "CARTESIA", "displayTags": [name]},
        "tools": {"name": name, "config": {"key": name}, "usageCount": 1},
        "knowledge": {"name": name, "documentCount": 1},
    }
    return every[field]


class Story:
    """A few personas that share a few things, and the log of what was answered about them."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.world = target.world
        self.log: list[Answer] = []
        self.moods: dict[str, str | None] = {}
        self.personas = [str(uuid4()) for _ in range(PERSONAS)]
        self.links = [str(uuid4()) for _ in range(THINGS)]
        self.things = {field: [str(uuid4()) for _ in range(THINGS)] for field in KINDS}
        for field, ids in self.things.items():
            for id_ in ids:
                dates = {"createdAt": OLD, "updatedAt": NEW}
                self.world.add({"id": id_, **looks(field, "A"), **dates}, KINDS[field])
        for number, id_ in enumerate(self.personas):
            self.world.add({"id": id_, "name": "A"})
            for field in KINDS:
                self.hold(number, field, [0])
        self.delete(PERSONAS - 1)  # It is yet to be made.
        self.world.reshape(self._in_the_mood)

    # What may change, by the names that it is drawn with.

    def edit(self, number: int, members: dict[str, Any], touch: bool) -> None:
        self.world.edit(self.personas[number], members, touch=touch)

    def edit_shared(self, field: str, numbers: list[int], name: str, stamp: str | None) -> None:
        for number in numbers:
            dated = {} if stamp == "now" else {"updatedAt": stamp}
            edited = looks(field, name) | dated
            self.world.edit(self.things[field][number], edited, KINDS[field], touch=not dated)

    def show_another(self, number: int, field: str, name: str | None, stamp: str | None) -> None:
        """From now on this persona alone shows another copy, or only another date, of it."""
        payload = self.world.payload(self.personas[number])
        if payload and payload[field]:
            shown = payload[field]
            for thing in shown if isinstance(shown, list) else [shown]:
                thing.update(looks(field, name) if name else {}, updatedAt=stamp)
            self.world.set_payload(self.personas[number], payload)

    def freeze(self, number: int) -> None:
        """From now on this persona shows stale copies of what others edit."""
        self.world.set_payload(self.personas[number], self.world.payload(self.personas[number]))

    def thaw(self, number: int) -> None:
        self.world.set_payload(self.personas[number], None)

    def hold(self, number: int, field: str, numbers: list[int]) -> None:
        held = [self.things[field][thing] for thing in numbers]
        shown = held if field in ("tools", "knowledge") else next(iter(held), None)
        self.world.edit(self.personas[number], {field: shown})

    def link(self, number: int, links: dict[int, list[str]] | None) -> None:
        shown = links and [
            {
                "id": self.links[link],
                "token": f"of {link}",
                "type": f"of {self.personas[number]}",
                "usageCount": 1,
                "allowedOrigins": origins,
            }
            for link, origins in links.items()
        ]
        self.world.edit(self.personas[number], {"shareLinks": shown})

    def reshape(self, place: str, mood: str | None) -> None:
        """From now on the API shows this member there, unless it is absent."""
        self.moods[place] = mood
        self.world.reshape(self._in_the_mood)

    def delete(self, number: int) -> None:
        self.world.delete(self.personas[number])

    def restore(self, number: int) -> None:
        self.world.restore(self.personas[number])

    def set_clock_back(self, number: int) -> None:
        """As if the last attempt had been made again an hour later, and that were now to come."""
        found = self.target.query(
            """
            UPDATE persona_sync_state
               SET last_attempt_at = last_attempt_at + %s,
                   last_success_at = last_success_at
                       + CASE WHEN last_success_at = last_attempt_at THEN %s ELSE '0' END
             WHERE persona_id = %s
            RETURNING last_attempt_at, last_attempt_at = last_success_at AS succeeded
            """,
            [HOUR, HOUR, self.personas[number]],
        )
        if found and found[0]["succeeded"]:
            last = next(a for a in reversed(self.log) if a.persona_id == self.personas[number])
            again = Answer(found[0]["last_attempt_at"], last.persona_id, last.payload, last.run)
            self.log.append(again)

    def run(
        self,
        asked: Sequence[int],
        faults: dict[int, str],
        concurrency: str,
        *,
        allow_mass_removal: bool,
    ) -> None:
        """Runs the job, and adds to the log what was answered and, of a 404, was believed."""
        ids = [self.personas[number] for number in asked]
        shown = {id_: self.world.payload(id_) for id_ in ids}
        wrong = {self.personas[number]: fault for number, fault in faults.items()}
        for id_, fault in wrong.items():
            self.target.sandbox.order(replace(FAULTS[fault], target=id_, times=None))
        before = self.tell()
        summary = self.target.sync(
            ids, allow_mass_removal=allow_mass_removal, API__CONCURRENCY=concurrency
        )
        self.target.sandbox.clear_faults()
        live = {id_ for id_ in ids if is_live(before, id_)}
        gone = {id_ for id_ in live - wrong.keys() if shown[id_] is None}
        is_stopped = not allow_mass_removal and len(gone) == len(live) >= 2
        assert (summary.exit_code == 7) == is_stopped, summary
        for id_ in ids:
            state = self.target.state(id_)
            became = wrong.get(id_) or outcome(before, id_, shown[id_])
            assert (state["last_outcome"], state["last_run_id"]) == (became, summary.run_id), id_
            if id_ not in wrong and not (is_stopped and shown[id_] is None):
                payload = cast("dict[str, Any] | None", clean(shown[id_]))
                self.log.append(Answer(state["last_attempt_at"], id_, payload, summary.run_id))

    def tell(self) -> Oracle:
        return tell(self.log)

    def _in_the_mood(self, payload: dict[str, Any]) -> dict[str, Any]:
        for place, mood in self.moods.items():
            shown: Any = {
                "persona": payload,
                "config": [tool["config"] for tool in payload["tools"]],
            }.get(place, payload.get(place))
            for found in shown if isinstance(shown, list) else [shown]:
                if found is not None and mood != ABSENT:
                    found["mood"] = mood
        return payload


def is_live(oracle: Oracle, id_: str) -> bool:
    versions = oracle.histories.get(("persona", id_))
    return versions is not None and versions[-1].document is not None


def outcome(before: Oracle, id_: str, payload: Any) -> str:
    """What becomes of a persona that shows this payload, or None, from now on."""
    if payload is None:
        return "missing"
    own = ("persona", id_)
    now = seen_in(Answer(FAR_AHEAD, id_, cast("dict[str, Any]", clean(payload))))[own]
    versions = history([*before.sightings.get(own, []), now], shared=False)
    return versions[-1].change if versions[-1].valid_from == FAR_AHEAD else "unchanged"
