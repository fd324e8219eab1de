"""Shared things have one history, whichever persona brings which copy of them, when, in what run.

Scripts are played of who brings which copy in which order, several families of three personas at a
time. Every payload holds the same copy of an avatar, a voice, a tool and a knowledge group, so that
each script is played for all four kinds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from etl.sandbox import World

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.db.conftest import Row, Target

# The pure fold decides it; what it writes has test_sync_shared.
pytestmark = pytest.mark.one_server

# Kind of document -> its table, with its key and the column that shows what we call its content.
KINDS = {
    "avatar": ("avatars", "avatar_id", "display_name"),
    "voice": ("voices", "voice_id", "display_name"),
    "tool": ("tools", "tool_id", "name"),
    "knowledge_group": ("knowledge_groups", "knowledge_group_id", "name"),
}
# The times of the runs, besides the keys: they differ by how a script is cut into runs.
OF_THE_RUN = ("first_seen_at", "last_changed_at")


class Copy(NamedTuple):
    """What a payload says of a shared thing; `at`: the day of its `updatedAt`."""

    content: str
    at: int | None


class Arrival(NamedTuple):
    """A persona, by its number in the family, brings a copy."""

    persona: int
    copy: Copy


Script = list[list[Arrival]]
"""What each run brings, in the order in which it does."""


class Family:
    """Three personas that share one of each kind."""

    def __init__(self, number: int) -> None:
        self.prefix = f"{number:08x}"

    def persona(self, number: int) -> str:
        return f"{self.prefix}-0000-4000-8000-{number:012x}"

    def shared(self, kind: str) -> str:
        return f"{self.prefix}-{list(KINDS).index(kind) + 1:04x}-4000-8000-000000000000"

    def payload(self, persona: int, copy: Copy) -> dict[str, Any]:
        at = None if copy.at is None else f"2026-04-{copy.at:02}T10:00:00.000Z"
        avatar, voice, tool, group = (
            {"id": self.shared(kind), name: copy.content, "updatedAt": at}
            for kind, name in zip(
                KINDS, ["displayName", "displayName", "name", "name"], strict=True
            )
        )
        shared = {"avatar": avatar, "voice": voice, "tools": [tool], "knowledge": [group]}
        return {"id": self.persona(persona), **shared}


@pytest.fixture
def stage(copying):
    """Where scripts are played: a world in which nobody lives yet."""
    with copying(World()) as made:
        yield made


def play(target: Target, scene: Iterable[tuple[Family, Iterable[Arrival]]]) -> None:
    """One run. By one connection, so that each family's personas are asked in their order."""
    ids = []
    for family, arrivals in scene:
        for persona, copy in arrivals:
            ids.append(family.persona(persona))
            target.world.set_payload(ids[-1], family.payload(persona, copy))
    assert target.sync(ids, API__CONCURRENCY="1").exit_code == 0


def play_all(target: Target, families: Sequence[Family], scripts: Sequence[Script]) -> None:
    """Each family's script, a run after the other."""
    for number in range(max(map(len, scripts))):
        pairs = zip(families, scripts, strict=True)
        play(target, [(family, runs[number]) for family, runs in pairs if number < len(runs)])


def a_run_each(script: Script) -> Script:
    """The same arrivals, each in a run of its own."""
    return [[arrival] for arrivals in script for arrival in arrivals]


def some_script(chance: Random, copies: Sequence[Copy], runs: int) -> Script:
    """Runs in which some of three personas bring some of the copies, old ones too.

    A run asks those first whom it never asked, then those that have waited longest.
    """
    asked: list[int] = []
    script = []
    for _ in range(runs):
        members = chance.sample(range(3), chance.randint(1, 3))
        members.sort(key=lambda persona: asked.index(persona) if persona in asked else -1)
        asked = [persona for persona in asked if persona not in members] + members
        script.append([Arrival(persona, chance.choice(copies)) for persona in members])
    return script


def versions(target: Target) -> dict[str, list[tuple[Any, ...]]]:
    """By shared thing its versions: contents, changes and `updatedAt`, but no times of runs."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in target.query("""
        SELECT v.entity_id, coalesce(document ->> 'displayName', document ->> 'name') AS content,
               change, source_updated_at, valid_to IS NULL AS is_open
          FROM document_versions v JOIN documents d USING (kind, content_hash)
         WHERE kind <> 'persona'
         ORDER BY version
    """):
        entity_id, *version = row.values()
        found.setdefault(str(entity_id), []).append(tuple(version))
    return found


def rows(target: Target, *but: str) -> dict[str, Row]:
    """By shared thing its row, but for its key, the times of runs, and what else is named."""
    found = {}
    for table, key, _ in KINDS.values():
        for row in target.rows(table):
            entity_id = str(row[key])
            found[entity_id] = {k: v for k, v in row.items() if k not in {key, *OF_THE_RUN, *but}}
    return found


def contents(target: Target, family: Family) -> set[str]:
    """What the tables show of what a family shares: one content, if all is well."""
    return {
        row[column]
        for table, key, column in KINDS.values()
        for row in target.rows(table)
        if str(row[key]).startswith(family.prefix)
    }


# ── Any copies ───────────────────────────────────────────────────────────────────────────────────

# Contents that come back, with older, equal, newer and no `updatedAt`.
DATED = [Copy(content, at) for content in "ABC" for at in (1, 2, 3)]
UNDATED = [Copy(content, None) for content in "ABC"]
COPIES = {"dated": DATED, "mixed": DATED + UNDATED}
CUTS = {"a run each": 1, "a batch each": 1, "batches of five": 5, "one batch a run": 250}


@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES)
def test_how_arrivals_are_cut_into_batches_and_runs_does_not_matter(stage, monkeypatch, copies):
    monkeypatch.setattr("etl.jobs.fetching.PATIENCE_SECONDS", 0.01)
    chance = Random(len(copies))
    scripts = [some_script(chance, copies, runs=3) for _ in range(8)]
    families = {}
    for number, (cut, size) in enumerate(CUTS.items()):
        monkeypatch.setattr("etl.jobs.fetching.BATCH_ITEMS", size)
        families[cut] = [Family(number * 1000 + n) for n in range(len(scripts))]
        played = [a_run_each(s) for s in scripts] if cut == "a run each" else scripts
        play_all(stage, families[cut], played)
    histories, shown = versions(stage), rows(stage)
    for script, *alike in zip(scripts, *families.values(), strict=True):
        first, *others = [histories[family.shared(kind)] for family in alike for kind in KINDS]
        assert all(other == first for other in others), script
        for kind in KINDS:
            first_row, *other_rows = [shown[family.shared(kind)] for family in alike]
            assert all(row == first_row for row in other_rows), script


class Witness:
    """Sees what a family's members bring, and what is in force after; holds it to the rules."""

    def __init__(self) -> None:
        self.in_force: str | None = None
        self.newest: dict[str, int] = {}
        self.last: dict[int, Copy] = {}
        self.changes = 0

    def see(self, arrival: Arrival, after: str) -> None:
        persona, (content, at) = arrival
        last, newest = self.last.get(persona), self.newest.get(self.in_force or "")
        is_other = content != self.in_force
        is_news = last is None or last.content != content
        if after != self.in_force:
            assert after == content, "only what was just brought can come into force"
            assert last != arrival.copy, "who brings what it brought last changes nothing"
            if at is not None and newest is not None:
                assert at >= newest, "an older copy never overwrites a newer one"
            if at is None or newest is None or at == newest:
                assert is_news, "undated or equal, the same from the same persona is no news"
            self.changes += 1
        elif is_other and is_news:
            assert at is not None, "undated news win"
            assert newest is not None, "news win over what is undated"
            assert at < newest, "news that are not older win"
        self.in_force, self.last[persona] = after, arrival.copy
        if at is not None:
            self.newest[content] = max(at, self.newest.get(content, at))


@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES)
def test_each_arrival_is_held_to_the_rules(stage, copies):
    chance = Random(len(copies))
    scripts = [a_run_each(some_script(chance, copies, runs=4)) for _ in range(8)]
    families = [Family(number) for number in range(len(scripts))]
    witnesses = [Witness() for _ in scripts]
    for number in range(max(map(len, scripts))):
        scene = [
            (family, witness, script[number][0])
            for family, witness, script in zip(families, witnesses, scripts, strict=True)
            if number < len(script)
        ]
        play(stage, [(family, [arrival]) for family, _, arrival in scene])
        for family, witness, arrival in scene:
            (after,) = contents(stage, family)
            witness.see(arrival, after)
    histories = versions(stage)
    for family, witness in zip(families, witnesses, strict=True):
        assert {len(histories[family.shared(kind)]) for kind in KINDS} == {witness.changes}
    # Whatever it has come to: now that nothing is new, nothing flaps.
    before = {name: stage.rows(name) for name in ("document_versions", "observations", "avatars")}
    for _ in range(2):
        members = [(f, list(w.last.items())) for f, w in zip(families, witnesses, strict=True)]
        play(stage, [(f, [Arrival(p, c) for p, c in chance.sample(m, len(m))]) for f, m in members])
        assert {name: stage.rows(name) for name in before} == before


# ── An honest API with stale caches ──────────────────────────────────────────────────────────────

# The thing was edited four times, and each time its `updatedAt` moved. "A" is back at the end.
TIMELINE = [Copy("A", 1), Copy("B", 2), Copy("C", 3), Copy("D", 4), Copy("A", 5)]


def test_with_an_honest_updated_at_the_newest_copy_is_the_truth_in_any_order(stage, monkeypatch):
    """Who brings it and how many stale copies go around: all see the edits in their order."""
    monkeypatch.setattr("etl.jobs.fetching.BATCH_ITEMS", 4)
    chance = Random(5)
    scripts = [some_script(chance, TIMELINE, runs=5) for _ in range(12)]
    families = [Family(number) for number in range(len(scripts))]
    play_all(stage, families, scripts)
    histories, shown = versions(stage), rows(stage)
    for family, script in zip(families, scripts, strict=True):
        records: list[Copy] = []
        for arrivals in script:
            for _, copy in arrivals:
                if not records or copy.at > records[-1].at:  # type: ignore[operator]
                    records.append(copy)
        newest = records[-1]
        # The edit that brought "A" back is none to whoever has seen nothing in between.
        expected = [
            c for n, c in enumerate(records) if n == 0 or records[n - 1].content != c.content
        ]
        for kind in KINDS:
            history = histories[family.shared(kind)]
            assert [version[0] for version in history] == [copy.content for copy in expected]
            assert shown[family.shared(kind)]["updated_at"].day == newest.at
        assert contents(stage, family) == {newest.content}


def test_an_honest_api_makes_no_more_versions_than_edits_however_long_caches_last(stage):
    """Twelve runs in which each persona is served any copy that was ever true."""
    chance = Random(3)
    families = [Family(number) for number in range(8)]
    for turn in range(12):
        known = TIMELINE[: 1 + turn // 2]
        scene = [(f, [Arrival(p, chance.choice(known)) for p in range(3)]) for f in families]
        play(stage, scene)
    assert max(map(len, versions(stage).values())) == len(TIMELINE)
    assert all(contents(stage, family) == {"A"} for family in families)


def test_a_stale_copy_without_updated_at_does_not_undate_the_row(stage):
    """A tool has no updatedAt before its first edit; one persona is still served the old copy."""
    family = Family(1)
    old, new = Copy("A", None), Copy("B", 2)
    play(stage, [(family, [Arrival(0, old), Arrival(1, old)])])
    play(stage, [(family, [Arrival(0, new)])])
    # Its payload brings other news, or it would not be read at all.
    stale = family.payload(1, old) | {"name": "Renamed"}
    stage.world.set_payload(stale["id"], stale)
    stage.sync([stale["id"]])
    assert contents(stage, family) == {"B"}
    assert rows(stage)[family.shared("tool")]["updated_at"] == datetime(2026, 4, 2, 10, tzinfo=UTC)
