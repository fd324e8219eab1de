"""Random stories of an API whose shape moves, and of people who follow it with local columns.

What happens is drawn up front, as plain values; a `ShapeStory` acts it out on the sandbox and at a
target. What each answer was is kept for the oracle (`tests/oracle.py`), which knows no map.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID, uuid5

from hypothesis import strategies as st

from etl.jobs.drift import propose_revision, set_status
from etl.jobs.migrate import migrate
from etl.payload.clean import clean
from etl.sandbox import Reshape
from etl.settings import load_settings
from etl.store.engine import make_engine
from tests.oracle import Answer, Oracle, tell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from etl.jobs.summary import Summary
    from tests.db.conftest import Row, Target

Json = dict[str, Any]
Status = tuple[str, tuple[str, ...]]
"""Of a difference, and the new members that were told."""

_IDS = ["0f6b1c52-7a1e-4a55-9c0d-2f1f3f0c8b11", "7d4e9a30-52c8-4a0e-8a5d-90b6c1f7e2d4", None]
_CLIP = "https://anam-prod.r2.cloudflarestorage.com/poster_720.webp"

HOSTILE: Final = 'moodYy"; DROP TABLE personas; --'
_QUOTED: Final = r'["moodYy\"; DROP TABLE personas; --"]'
NEW: Final[dict[str, list[list[Any]]]] = {
    "toneYy": [["warm", "brisk", None], ["warm", 7], [None]],
    "maxTurnsYy": [[5, 30, None], [1.5, 2], [10**20]],
    "workspaceIdYy": [_IDS, ["ws_3kTqzZ", *_IDS]],
    "publishedAtYy": [["2026-02-03T09:15:00.000Z", "2026-03-29T01:30:00.500Z"], ["soon"]],
    "channelsYy": [[["web", "kiosk"], ["phone"], []], [["web", 3], None], ["web"]],
    "ranksYy": [[[1, 2, 2], [3]], [[1.5], [2]], [[]]],
    "brandingYy": [[{"radius": 4}, {"logo": None}, {}, None]],
    "brain.goalYy": [["book", "answer", None]],
    "brain.usesMemoryYy": [[True, False], ["yes", False]],
    "brain.keywordsYy": [[["price"], ["hours", "price"], None]],
    "voice.pitchYy": [[0, 2], [-0.5, 0.35], [None]],
    "voice.languagesYy": [[["en"], ["de", "ja"], []]],
    "avatar.posesYy": [[[1, 2], [3]], [[{"a": 1}], []]],
    "avatar.posterUrlYy": [[_CLIP]],
    "shareLinks.labelYy": [["Fair", "Press", None]],
    "shareLinks.labelsYy": [[["fair"], ["b", "a", "b"]]],
    "voiceDetectionOptions.bargeInYy": [[True, False]],
    "tools.timeoutSecondsYy": [[2.5, 10], ["10 s"]],
    "knowledge.isIndexedYy": [[True, False]],
    "webhookSecretYy": [["whsec_Zk3vX9q2LmT7", "whsec_Q8rB1nY5cWd0"]],
    HOSTILE: [["calm"]],
    "orderYy": [[1, 2]],
}
"""The fields that may come, each with what it may be: one value an object."""

MOVES: Final[dict[str, list[dict[str, Any]]]] = {
    "greeting": [{"rename": {"skipGreeting": "greetingSkippedYy"}}],
    "country": [{"rename": {"voice.country": "countryCodeYy"}}, {"remove": ["voice.country"]}],
    "preset": [{"remove": ["personaPreset"]}],
    "personality": [{"remove": ["brain.personality"]}],
    "variant": [{"remove": ["avatar.variantName"]}],
    "limit": [{"remove": ["shareLinks.usageLimit"]}],
    "speed": [{"retype": {"voiceSpeed": "string"}}, {"retype": {"voiceSpeed": "array"}}],
    "provider": [{"recode": {"voice.provider": {"CARTESIA": "CARTESIAN"}}}],
}
"""How documented fields may move."""

SHARED: Final = {
    "avatar": "avatar",
    "voice": "voice",
    "tools": "tool",
    "knowledge": "knowledge_group",
}

PERSONAS, VOICES = 4, 3
_SPACE = UUID("5a1e0000-0000-4000-8000-000000000000")

# ── What may happen ──────────────────────────────────────────────────────────────────────────────

who = st.integers(0, PERSONAS - 1)
whom = st.none() | st.lists(who, min_size=1, max_size=PERSONAS, unique=True)
which = st.integers(0, 999)
fields = st.sampled_from(sorted(NEW))
moves = st.sampled_from(sorted(MOVES))
variants = st.none() | st.integers(0, 2)
syncs = st.tuples(st.just("sync"), whom, st.booleans(), st.booleans())
steps = st.one_of(
    st.tuples(st.just("show"), fields, variants),
    st.tuples(st.just("show"), fields, variants),
    st.tuples(st.just("move"), moves, variants),
    st.tuples(st.just("edit"), who, st.sampled_from("AB")),
    st.tuples(st.just("edit_voice"), st.integers(0, VOICES - 1), st.sampled_from("AB")),
    st.tuples(st.just("speak_with"), who, st.none() | st.integers(0, VOICES - 1)),
    st.tuples(st.just("delete"), who),
    st.tuples(st.just("restore"), who),
    syncs,
    syncs,
    st.tuples(st.just("decide"), which, st.sampled_from(["accepted", "ignored"])),
    st.tuples(st.just("propose"), st.none() | which),
    st.tuples(st.just("propose"), st.none()),
    st.tuples(st.just("migrate"), st.none() | which),
    st.tuples(st.just("migrate"), st.none()),
    st.tuples(st.just("replay")),
)
stories = st.lists(steps, min_size=8, max_size=24)
"""The names of a `ShapeStory`'s methods, each with what to call it with."""


@dataclass(frozen=True)
class Place:
    """A field by its kind and its path in the document, as drift tells it."""

    kind: str
    path: str


def place(ordered: str) -> Place:
    """The field at a path of a `Reshape`."""
    first, dot, rest = ordered.partition(".")
    if dot and first in SHARED:
        return Place(SHARED[first], rest)
    if first == "shareLinks":
        return Place("persona", f"shareLinks[].{rest}")
    return Place(
        "persona",
        f'["{ordered.replace(chr(34), chr(92) + chr(34))}"]' if ";" in ordered else ordered,
    )


def values_at(document: Json, path: str) -> list[tuple[str | None, Any]]:
    """What stands at a path, with the share link's id where it is one's; nothing where it lacks."""
    if path.startswith("shareLinks[]."):
        links = document.get("shareLinks") or []
        return [
            (link["id"], value)
            for link in links
            for _, value in values_at(link, path.removeprefix("shareLinks[]."))
        ]
    names = [HOSTILE] if path == _QUOTED else path.removesuffix("[]").split(".")
    found: Any = document
    for name in names:
        if not isinstance(found, dict) or name not in found:
            return []
        found = found[name]
    return [(None, found)]


class ShapeStory:
    """A few personas that share a few things, in an API that moves."""

    def __init__(self, target: Target) -> None:
        self.target = target
        # The tables change their columns under what was prepared.
        target.admin.prepare_threshold = None
        self.world = target.world
        self.log: list[Answer] = []
        self.shown: dict[str, int] = {}
        self.moved: dict[str, int] = {}
        self.needs_replay = False
        self.foretold: Summary | None = None
        self.local_dir = target.folder / f"local-{uuid5(_SPACE, target.url)}"
        self.engine = make_engine(target.url, target.schema)
        self.personas, self.voices = self._people()

    def _people(self) -> tuple[list[str], list[str]]:
        def made(kind: str, number: int, **members: Any) -> str:
            id_ = str(uuid5(_SPACE, f"{kind} {number}"))
            self.world.add({"id": id_, **members}, kind)
            return id_

        voices = [
            made(
                "voices",
                n,
                displayName="A",
                provider=["CARTESIA", "ELEVENLABS"][n % 2],
                country=["de", "en", None][n],
                displayTags=[],
            )
            for n in range(VOICES)
        ]
        avatars = [made("avatars", n, displayName="A", variantName=f"v{n}") for n in range(2)]
        tools = [made("tools", 0, name="A", type="SYSTEM", config={})]
        knowledge = [made("knowledge", 0, name="A")]
        personas = [
            made(
                "personas",
                n,
                name="A",
                personaPreset=["a", "b"][n % 2],
                skipGreeting=n == 1,
                enableAudioPassthrough=n == 2,
                voiceSpeed=[1, 1.5, None, 0.5][n],
                avatar=avatars[n % 2],
                voice=voices[n % 2],
                tools=tools[: n % 2],
                knowledge=knowledge,
                brain={"personality": f"p{n}", "systemPrompt": "x"},
                voiceDetectionOptions={"endOfSpeechSensitivity": 0.5} if n else None,
                shareLinks=[
                    {"id": str(uuid5(_SPACE, f"link {n}")), "token": f"t{n}", "usageLimit": n}
                ],
            )
            for n in range(PERSONAS)
        ]
        return personas, voices

    # What may happen, by the names that it is drawn with.

    def show(self, field: str, variant: int | None) -> None:
        """From now on the API has this field, or has it no more."""
        self._choose(self.shown, field, variant, len(NEW[field]))

    def move(self, name: str, variant: int | None) -> None:
        """From now on a documented field comes otherwise, or as it was."""
        self._choose(self.moved, name, variant, len(MOVES[name]))

    def _choose(self, of: dict[str, int], key: str, variant: int | None, count: int) -> None:
        if variant is None:
            of.pop(key, None)
        else:
            of[key] = variant % count
        orders: dict[str, Any] = {"choose": {f: NEW[f][n] for f, n in self.shown.items()}}
        for name, number in self.moved.items():
            for order, what in MOVES[name][number].items():
                before = orders.get(order, type(what)())
                orders[order] = before | what if isinstance(what, dict) else [*before, *what]
        self.world.reshape(Reshape(**orders, sign=["avatar.posterUrlYy"]))

    def edit(self, number: int, name: str) -> None:
        self.world.edit(self.personas[number], {"name": name})

    def edit_voice(self, number: int, name: str) -> None:
        self.world.edit(self.voices[number], {"displayName": name}, "voices")

    def speak_with(self, number: int, voice: int | None) -> None:
        """Another voice: one that nobody uses any more stays behind."""
        self.world.edit(
            self.personas[number], {"voice": None if voice is None else self.voices[voice]}
        )

    def delete(self, number: int) -> None:
        self.world.delete(self.personas[number])

    def restore(self, number: int) -> None:
        self.world.restore(self.personas[number])

    def sync(self, asked: Sequence[int] | None, strict: bool, rehearsed: bool) -> Summary:
        """Runs the job, after a rehearsal if told, and keeps what was answered."""
        ids = [self.personas[n] for n in (range(PERSONAS) if asked is None else asked)]
        shown = {id_: self.world.payload(id_) for id_ in ids}
        options: dict[str, Any] = {"strict": strict, "allow_mass_removal": True}
        said = self.target.dry_run(ids, **options)[0] if rehearsed else None
        summary = self.target.sync(ids, **options)
        for id_ in ids:
            payload = cast("Json | None", clean(shown[id_]))
            seen_at = self.target.state(id_)["last_attempt_at"]
            self.log.append(Answer(seen_at, id_, payload, summary.run_id))
        self.foretold = said
        return summary

    def decide(self, number: int, status: Any) -> None:
        if keys := sorted({key[:2] for key in self.statuses()}):
            kind, path = keys[number % len(keys)]
            set_status(self._settings(), [f"{kind}:{path}"], status, url=self.target.url)

    def propose(self, number: int | None) -> None:
        open_ = sorted(
            key[:2] for key, s in self.statuses().items() if s[0] in {"open", "accepted"}
        )
        paths = []
        if number is not None and open_:
            kind, path = open_[number % len(open_)]
            paths = [f"{kind}:{path}"]
        propose_revision(self._settings(), paths, url=self.target.url, name=None, dry_run=False)

    def migrate(self, number: int | None) -> None:
        """To the newest local revision, or to one of them, or to none."""
        revisions = [file.stem.split("_")[2] for file in self._files()]
        names = ["base", *(f"local_{number}" for number in revisions)]
        local_to = None if number is None or not revisions else names[number % len(names)]
        before = self.lines()
        migrate(
            self.engine,
            self.target.schema,
            local_dir=self.local_dir if revisions else None,
            local_to=local_to,
        )
        self.needs_replay |= self.lines() != before

    def replay(self) -> None:
        self.target.replay()
        self.needs_replay = False

    # What is there.

    def statuses(self) -> dict[tuple[str, str, str], Status]:
        """Of each difference of API and map the status, and the new members that were told."""
        return {
            (row["kind"], row["path"], row["problem"]): (row["status"], tuple(row["new_members"]))
            for row in self.target.rows("drift_paths")
        }

    def lines(self) -> list[Row]:
        return self.target.query("SELECT * FROM local_columns ORDER BY table_name, column_name")

    def requests(self) -> int:
        return self.target.sandbox.requests.total

    def tell(self) -> Oracle:
        return tell(self.log)

    def _files(self) -> list[Any]:
        return sorted(self.local_dir.glob("*.py")) if self.local_dir.exists() else []

    def _settings(self) -> Any:
        environment = self.target.environment(MIGRATIONS__LOCAL_DIR=str(self.local_dir))
        return load_settings(environment, cwd=self.target.folder)


def as_column(type_: str, value: Any) -> Any:
    """What a column of this type has of a JSON value; None: null, or it does not fit."""
    if value is None or type_ == "jsonb":
        return value
    try:
        return _AS_COLUMN[type_](value)
    except (TypeError, ValueError, AttributeError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        raise TypeError
    return value if isinstance(value, str) else str(value).lower()


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def _bigint(value: Any) -> float:
    if _number(value) % 1 or abs(value) >= 2**63:
        raise ValueError
    return _number(value)


_AS_COLUMN: Final[dict[str, Any]] = {
    "text": _text,
    "boolean": _boolean,
    "double precision": _number,
    "bigint": _bigint,
    "uuid": UUID,
    "timestamptz": lambda value: datetime.fromisoformat(value).astimezone(UTC),
}


def documents_of(oracle: Oracle, kind: str) -> Iterable[tuple[str, Any]]:
    """Each version with a document, with its entity's id."""
    for id_, versions in oracle.of_kind(kind).items():
        for version in versions:
            if version.document is not None:
                yield id_, version
