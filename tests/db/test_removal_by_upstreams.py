"""Upstreams that go wrong by a script: who lives is never removed, who is gone is found at once.

What a single 404 does to tables and versions is in test_sync_removal; here it is counted who is
removed while an upstream is out of its mind, and how many passes it takes once it is sane again.
"""

from __future__ import annotations

import os
import signal
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from etl.sandbox import Fault, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etl.jobs.summary import Summary
    from tests.db.conftest import Target

# Which answers remove is decided before any statement; a removal itself has test_sync_removal.
pytestmark = [pytest.mark.one_server, pytest.mark.usefixtures("impatience")]

STRANGERS = [f"00000000-0000-4000-8000-0000000005{number:02}" for number in range(12)]
PAGE: dict[str, Any] = {"lastPage": 1, "currentPage": 1, "perPage": 100, "prev": None, "next": None}


@pytest.fixture
def estate(copying):
    """Twelve personas, copied once by one worker: the order in which they are asked for."""
    with copying(count=12) as made:
        made.sync(API__CONCURRENCY="1")
        yield made


def removed(target: Target) -> set[str]:
    """Who the tables say is removed; the open versions have to say the same."""
    rows = target.query("SELECT persona_id FROM personas WHERE removed_at IS NOT NULL")
    closed = target.query("""
        SELECT entity_id FROM document_versions
         WHERE kind = 'persona' AND valid_to IS NULL AND content_hash IS NULL
    """)
    ids = {str(row["persona_id"]) for row in rows}
    assert {str(row["entity_id"]) for row in closed} == ids
    return ids


def run(target: Target, ids: Sequence[str], **options: Any) -> Summary:
    """A run, which its rehearsal has to foresee: nothing may differ between two fetches."""
    before = removed(target)
    said, foreseen = target.dry_run(ids, **options)
    summary = target.sync(ids, **options)
    assert (said.status, said.exit_code, said.counts) == (
        summary.status,
        summary.exit_code,
        summary.counts,
    )
    told = {str(change.entity_id) for change in foreseen if change.outcome == "removed"}
    assert told == removed(target) - before
    return summary


def heals(target: Target, ids: Sequence[str]) -> None:
    """The upstream is sane again, and two are really gone: one pass finds them, and only them."""
    target.sandbox.clear_faults()
    gone = set(ids[4:6])
    for persona_id in gone:
        target.world.delete(persona_id)
    assert run(target, ids).exit_code == 0
    assert removed(target) == gone


# ── The same answer for everybody ────────────────────────────────────────────────────────────────

# What everybody's address answers, and the run's exit code.
FOR_ALL = {
    "a key of another organisation": (Fault(status=404), 7),
    "a proxy's 404 page": (Fault(status=404, wrong="html"), 7),
    "a 404 that asks for patience": (Fault(status=404, retry_after=9999), 7),
    "403": (Fault(status=403), 4),
    "401": (Fault(status=401), 4),
    "400": (Fault(status=400), 5),
    "410": (Fault(status=410), 5),
    "204": (Fault(status=204), 5),
    "a redirect to a login": (Fault(status=302, headers={"Location": "/login"}), 5),
    "a login page": (Fault(wrong="html"), 3),
    "an empty page": (Fault(wrong="empty"), 3),
    "an error in JSON with a 200": (Fault(body={"error": "Not Found", "statusCode": 404}), 3),
    "somebody else": (Fault(wrong="other_persona"), 3),
    "half of it": (Fault(wrong="half"), 3),
}


@pytest.mark.parametrize(("fault", "code"), FOR_ALL.values(), ids=FOR_ALL)
def test_what_is_answered_for_everybody_removes_nobody(estate, fault, code):
    ids = estate.world.persona_ids
    estate.sandbox.order(replace(fault, target="personas", times=None))
    assert run(estate, ids, API__CONCURRENCY="1").exit_code == code
    assert run(estate, [], discover=True, API__CONCURRENCY="1").exit_code == code
    assert removed(estate) == set()
    heals(estate, ids)


@pytest.mark.parametrize(("count", "code"), [(1, 0), (2, 7), (5, 7), (6, 7), (30, 7)])
def test_when_everybody_is_missing_only_one_alone_is_removed(copying, count, code):
    with copying(count=count) as target:
        ids = target.world.persona_ids
        target.sync(ids)
        target.sandbox.order(Fault(status=404, times=None))
        assert run(target, ids).exit_code == code
        assert removed(target) == (set() if code else set(ids))
        # Whoever knows that they are gone may say so, and may have been wrong.
        assert run(target, ids, allow_mass_removal=True).exit_code == 0
        assert removed(target) == set(ids)
        target.sandbox.clear_faults()
        assert run(target, ids).counts["restored"] == count
        assert removed(target) == set()


def test_a_swapped_key_with_its_own_list_removes_nobody(estate):
    """The key of another organisation: it lists that one's personas, and knows none of ours."""
    ours = estate.world.persona_ids
    for persona_id in ours:
        estate.world.delete(persona_id)
    for persona_id in STRANGERS:
        estate.world.add({"id": persona_id, "name": "Theirs"})
    for options in ({"discover": True}, {}, {"discover": True}):
        assert run(estate, ours, **options).exit_code == 7
        assert removed(estate) == set()
    for persona_id in ours:
        estate.world.restore(persona_id)
    heals(estate, ours)


# ── Some 404s among other answers ────────────────────────────────────────────────────────────────

INCONCLUSIVE = [
    Fault(status=403),
    Fault(status=400),
    Fault(wrong="html"),
    Fault(wrong="other_persona"),
]


@pytest.mark.parametrize("missing", [2, 5, 9])
def test_where_nobody_answers_as_alive_404s_remove_nobody(estate, missing):
    """A swapped key at a gateway that fails now and then: no answer speaks for the key."""
    ids = estate.world.persona_ids
    for number, persona_id in enumerate(ids):
        fault = Fault(status=404) if number < missing else INCONCLUSIVE[number % 4]
        estate.sandbox.order(replace(fault, target=persona_id, times=None))
    for options in ({}, {"discover": True}):
        assert run(estate, ids, **options).exit_code == 7
    assert removed(estate) == set()
    heals(estate, ids)


def test_one_that_answers_as_alive_vouches_for_a_few_404s(estate):
    ids = estate.world.persona_ids
    for persona_id in ids[:2]:
        estate.world.delete(persona_id)
    for number, persona_id in enumerate(ids[2:-1]):
        estate.sandbox.order(replace(INCONCLUSIVE[number % 4], target=persona_id, times=None))
    summary = run(estate, ids)
    assert (summary.exit_code, summary.counts["unchanged"]) == (3, 1)
    assert removed(estate) == set(ids[:2])


def test_those_that_are_new_do_not_vouch_for_404s(estate):
    """They may be another organisation's."""
    ids = estate.world.persona_ids
    for persona_id in ids:
        fault = Fault(status=404 if persona_id in ids[:2] else 403)
        estate.sandbox.order(replace(fault, target=persona_id, times=None))
    for persona_id in STRANGERS:
        estate.world.add({"id": persona_id})
    summary = run(estate, ids, discover=True)
    assert (summary.exit_code, summary.counts["created"]) == (7, len(STRANGERS))
    assert removed(estate) == set()


def test_those_that_are_new_or_back_do_not_dilute_the_share_of_the_missing(estate):
    """Half of the known are gone: it takes no more than that, whatever else is listed."""
    ids = estate.world.persona_ids
    back, gone = ids[:2], ids[2:8]
    for persona_id in back:
        estate.world.delete(persona_id)
    run(estate, ids)
    for persona_id in gone:
        estate.world.delete(persona_id)
    for persona_id in back:
        estate.world.restore(persona_id)
    for number in range(20):
        estate.world.add({"id": f"{STRANGERS[0][:-2]}{number + 40}"})
    summary = run(estate, ids, discover=True)
    assert (summary.exit_code, summary.counts["created"], summary.counts["restored"]) == (7, 20, 2)
    assert removed(estate) == set()


BODIES_OF_A_404 = {
    "the API's words": Fault(),
    "none": Fault(body=b""),
    "HTML": Fault(wrong="html"),
    "the persona": Fault(body={"id": STRANGERS[0]}),
    "no JSON": Fault(wrong="not_json"),
    "compressed": Fault(gzip=True),
    "wait for an hour": Fault(retry_after=3600),
}


def test_a_404_is_one_whatever_its_body_and_headers_say(copying):
    """The error body can be anything, says the reference: the status alone counts."""
    with copying(count=len(BODIES_OF_A_404) * 6) as target:
        ids = target.world.persona_ids
        target.sync(ids)
        gone = ids[: len(BODIES_OF_A_404)]
        for persona_id, fault in zip(gone, BODIES_OF_A_404.values(), strict=True):
            target.sandbox.order(replace(fault, status=404, target=persona_id, times=None))
        assert run(target, ids).counts["missing"] == len(gone)
        assert removed(target) == set(gone)


# ── The list ─────────────────────────────────────────────────────────────────────────────────────

WRONG_LISTS = {
    "empty": Fault(body={"data": [], "meta": PAGE | {"total": 0}}),
    "empty, and says it is not": Fault(body={"data": [], "meta": PAGE | {"total": 12}}),
    "without meta": Fault(body={"data": []}),
    "cut short": Fault(meta={"total": 3, "next": None}, per_page=3),
    "shrinking pages": Fault(per_page=1),
    "pages that shift forth": Fault(per_page=5, shift=2),
    "pages that shift back": Fault(per_page=5, shift=-2),
    "pages in another order each": Fault(per_page=5, shuffle=True),
    "of another organisation": Fault(
        body={
            "data": [{"id": persona_id, "name": "Theirs"} for persona_id in STRANGERS],
            "meta": PAGE | {"total": len(STRANGERS)},
        }
    ),
}


@pytest.mark.parametrize("fault", WRONG_LISTS.values(), ids=WRONG_LISTS)
def test_a_list_that_is_wrong_removes_only_those_that_are_gone(estate, fault):
    """Those that it leaves out are asked for by their own addresses, in the same pass."""
    ids = estate.world.persona_ids
    gone = set(ids[:2])
    for persona_id in gone:
        estate.world.delete(persona_id)
    estate.sandbox.order(replace(fault, target="list", times=None))
    for _ in range(2):
        assert run(estate, [], discover=True).exit_code == 0
        assert removed(estate) == gone
        # The strangers were never ours: their 404s leave no trace in the history.
        known = {str(row["entity_id"]) for row in estate.rows("observations", kind="persona")}
        assert known == set(ids)


def test_a_list_that_shows_the_dead_does_not_keep_them_alive(estate):
    """A stale list: what it shows is asked for all the same, and 404 it is."""
    ids = estate.world.persona_ids
    listed = {"data": [{"id": i} for i in ids], "meta": PAGE | {"total": 12}}
    estate.sandbox.order(Fault(body=listed, target="list", times=None))
    estate.world.delete(ids[0])
    for again in range(2):
        summary = run(estate, [], discover=True)
        assert (summary.exit_code, summary.counts["missing"]) == (0, 1)
        assert (removed(estate), again + summary.counts["restored"]) == ({ids[0]}, again)
    assert estate.changes(ids[0]) == ["created", "removed"]


LISTS_THAT_END_A_RUN = {
    "401": (Fault(status=401), 4),
    "403": (Fault(status=403), 4),
    "404": (Fault(status=404), 5),
    "204": (Fault(status=204), 5),
    "a redirect": (Fault(status=302, headers={"Location": "/login"}), 5),
    "HTML": (Fault(wrong="html"), 5),
    "an error in JSON": (Fault(body={"error": "no"}), 5),
    "an hour's wait": (Fault(status=429, retry_after=3600), 5),
    "a page that fails behind good ones": (Fault(status=400, after=2), 5),
}


def test_without_a_list_nobody_is_asked_for_nor_removed(estate):
    ids = estate.world.persona_ids
    for persona_id in ids[4:6]:
        estate.world.delete(persona_id)
    for fault, code in LISTS_THAT_END_A_RUN.values():
        estate.sandbox.clear_faults()
        estate.sandbox.requests.clear()
        few = Fault(target="list", per_page=4, times=None)
        estate.sandbox.order(few, replace(fault, target="list", times=None))
        assert run(estate, ids, discover=True).exit_code == code
        assert set(estate.sandbox.requests.by_target) == {"list"}
    assert removed(estate) == set()
    heals(estate, ids)


# ── Outages ──────────────────────────────────────────────────────────────────────────────────────

OUTAGE = [
    Fault(status=500),
    Fault(status=502, wrong="html"),
    Fault(status=503, retry_after=0),
    Fault(status=504, body=b""),
    Fault(status=429),
    Fault(drop="close"),
    Fault(drop="reset"),
    Fault(truncate_at=20),
    Fault(status=404, headers={"Content-Length": "soon"}),  # No HTTP: nobody said 404.
    Fault(raw=b"SSH-2.0\r\n"),
    Fault(status=500, drop="reset", truncate_at=5),
    Fault(drop="stall"),
]


def test_in_an_hour_of_outage_nobody_is_removed(estate):
    """Run after run, everybody meets another kind of it; two are deleted in the meantime."""
    ids = estate.world.persona_ids
    for turn in range(2):
        estate.sandbox.clear_faults()
        for number, persona_id in enumerate(ids):
            fault = OUTAGE[(number + 5 * turn) % len(OUTAGE)]
            estate.sandbox.order(replace(fault, target=persona_id, times=None))
        summary = estate.sync(ids, API__TIMEOUT_SECONDS="0.2")
        assert (summary.exit_code, summary.counts["failed"]) == (5, 12)
        assert removed(estate) == set()
    heals(estate, ids)


def test_what_an_attempt_fails_with_does_not_count_but_how_the_last_one_ends(estate):
    ids = estate.world.persona_ids
    back, gone, slow = ids[:3]
    estate.world.delete(gone)
    for persona_id in (back, gone):
        estate.sandbox.order(Fault(status=503, target=persona_id))
    # A 404 is an answer: nobody asks again whether it was meant.
    estate.sandbox.order(Fault(status=404, target=slow))
    summary = estate.sync(ids)
    assert (summary.exit_code, summary.counts["missing"], summary.http_requests) == (0, 2, 14)
    assert removed(estate) == {gone, slow}
    assert estate.sync(ids).counts["restored"] == 1
    assert removed(estate) == {gone}


# ── Runs that end early ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cut_short(estate):
    """Three are gone and asked for first; the last one to be asked for never answers."""
    ids = estate.world.persona_ids
    for persona_id in ids[:3]:
        estate.world.delete(persona_id)
    estate.sandbox.order(Fault(drop="stall", target=ids[-1], times=None))
    return estate, ids


def test_a_deadline_leaves_the_404s_to_the_next_run(cut_short):
    estate, ids = cut_short
    summary = estate.sync(ids, API__CONCURRENCY="1", SAFETY__RUN_DEADLINE_SECONDS="0.5")
    assert (summary.status, summary.counts["missing"]) == ("deferred", 3)
    assert removed(estate) == set()
    estate.sandbox.clear_faults()
    assert run(estate, ids).exit_code == 0
    assert removed(estate) == set(ids[:3])


def test_an_interrupt_leaves_the_404s_to_the_next_run(cut_short):
    estate, ids = cut_short
    signals = iter([signal.SIGTERM])

    def interrupt(payload: Any) -> Any:
        for number in signals:
            os.kill(os.getpid(), number)
        return payload

    estate.world.reshape(interrupt)
    summary = estate.sync(ids, API__CONCURRENCY="1")
    assert (summary.status, summary.exit_code) == ("interrupted", 143)
    assert summary.counts["missing"] == 3
    assert removed(estate) == set()
    estate.world.reshape(None)
    estate.sandbox.clear_faults()
    assert run(estate, ids).exit_code == 0
    assert removed(estate) == set(ids[:3])


# ── Those that are removed already ───────────────────────────────────────────────────────────────


def test_only_a_200_brings_a_removed_persona_back(estate):
    ids = estate.world.persona_ids
    gone = ids[0]
    estate.world.delete(gone)
    run(estate, ids)
    history = estate.versions(gone)
    estate.world.restore(gone)
    for fault, _ in FOR_ALL.values():
        estate.sandbox.clear_faults()
        estate.sandbox.order(replace(fault, target=gone, times=None))
        estate.sync([gone, ids[1]])
        assert (removed(estate), estate.versions(gone)) == ({gone}, history)
    estate.sandbox.clear_faults()
    # Nor does silence: it is asked for no more, until its id is given or listed.
    run(estate, ids[1:])
    assert (removed(estate), estate.versions(gone)) == ({gone}, history)
    assert run(estate, [], discover=True).counts["restored"] == 1
    assert removed(estate) == set()


def test_forbidden_neither_closes_nor_reopens(estate):
    alive, gone, *others = estate.world.persona_ids
    estate.world.delete(gone)
    run(estate, [alive, gone, *others])
    before = {persona_id: estate.versions(persona_id) for persona_id in (alive, gone)}
    for persona_id in (alive, gone):
        estate.sandbox.order(Fault(status=403, target=persona_id, times=None))
    for failures in (1, 2):
        summary = run(estate, [alive, gone, *others])
        assert (summary.exit_code, summary.counts["forbidden"]) == (3, 2)
        for persona_id, versions in before.items():
            item, state = estate.outcome(persona_id), estate.state(persona_id)
            assert (item["outcome"], item["http_status"]) == ("forbidden", 403)
            assert (state["last_outcome"], state["consecutive_failures"]) == ("forbidden", failures)
            assert estate.versions(persona_id) == versions


def test_what_a_removed_persona_shared_lives_on_without_it(copying):
    """A shared thing is never removed: nothing says of it that it is gone."""
    avatar, stays, gone = STRANGERS[:3]
    world = World(avatars=[{"id": avatar, "displayName": "Liv", "updatedAt": "2026-04-20"}])
    for persona_id in (stays, gone):
        world.add({"id": persona_id, "avatar": avatar})
    with copying(world) as target:
        target.sync(API__CONCURRENCY="1")
        stale = world.payload(gone)
        world.delete(gone)
        run(target, [stays, gone])
        world.edit(avatar, {"displayName": "Liv, older"}, "avatars")
        run(target, [stays, gone])
        assert target.changes(avatar) == ["created", "updated"]
        # It comes back from a cache, with the avatar as it was when it went.
        world.set_payload(gone, stale)
        world.restore(gone)
        assert run(target, [stays, gone]).counts["restored"] == 1
        assert target.changes(avatar) == ["created", "updated"]
        assert target.row("avatars")["display_name"] == "Liv, older"
        # Both go: their avatar stays in force.
        for persona_id in (stays, gone):
            world.delete(persona_id)
        run(target, [stays, gone], allow_mass_removal=True)
        assert target.changes(avatar) == ["created", "updated"]
        assert target.versions(avatar)[-1]["valid_to"] is None
        assert removed(target) == {stays, gone}


# ── Anything, in any order ───────────────────────────────────────────────────────────────────────

# What an address can do in a run, and the answer that it comes to: 200, 404, or none to go by.
MOODS = {
    "well": (Fault(), 200),
    "gone": (Fault(status=404), 404),
    "gone, says a page": (Fault(status=404, wrong="html"), 404),
    "forbidden": (Fault(status=403), None),
    "refusing": (Fault(status=400), None),
    "somebody else": (Fault(wrong="other_persona"), None),
    "a page": (Fault(wrong="html"), None),
}
# How often which mood is met.
WEATHER = {
    "fair": [40, 1, 1, 1, 1, 1, 1],
    "mixed": [4, 1, 1, 1, 1, 1, 1],
    "foul": [0, 1, 0, 4, 4, 4, 4],
    "a swapped key": [0, 40, 0, 1, 1, 1, 1],
}


class Model:
    """Who is alive by the design: whose last answer to go by, 200 or 404, was a 200.

    A 404 is none in a run that stops for safety.
    """

    def __init__(self) -> None:
        self.live: set[str] = set()
        self.lives: dict[str, list[str]] = {}

    @property
    def removed(self) -> set[str]:
        return self.lives.keys() - self.live

    def take(self, answers: dict[str, int | None], *, allowed: bool) -> bool:
        """What a run does that gets these answers. Returns whether it stops for safety."""
        known = [answers[persona_id] for persona_id in self.live & answers.keys()]
        missing = known.count(404)
        too_many = missing > 5 and missing / len(known) > 0.2
        stops = not allowed and (too_many or (missing >= 2 and 200 not in known))
        for persona_id, answer in answers.items():
            if answer == 200 and persona_id not in self.live:
                lived = persona_id in self.lives
                self.lives.setdefault(persona_id, []).append("restored" if lived else "created")
                self.live.add(persona_id)
            elif answer == 404 and persona_id in self.live and not stops:
                self.lives[persona_id].append("removed")
                self.live.remove(persona_id)
        return stops


def moods(target: Target, ids: Sequence[str], weather: str, chance: Random) -> dict[str, Any]:
    """Orders what each address does in the next run; the answers that these come to."""
    target.sandbox.clear_faults()
    answers = {}
    for persona_id in ids:
        (mood,) = chance.choices(list(MOODS), WEATHER[weather])
        fault, answers[persona_id] = MOODS[mood]
        target.sandbox.order(replace(fault, target=persona_id, times=None))
        if chance.random() < 0.2:
            target.world.edit(persona_id, {"name": str(chance.random())})
    return answers


@pytest.mark.parametrize("seed", range(3))
def test_removed_is_whose_last_answer_to_go_by_was_a_404(copying, seed):
    chance = Random(seed)
    with copying(count=24, seed=seed + 1) as target:
        ids, model = target.world.persona_ids, Model()
        for weather in ["fair", "a swapped key", *chance.choices(list(WEATHER), k=6)]:
            discover = chance.random() < 0.3
            # Three of them are never seen before a run that discovers.
            asked = ids if discover else chance.sample(ids[:-3], chance.choice([2, 12, 21]))
            answers = moods(target, asked, weather, chance)
            allowed = chance.random() < 0.2
            summary = run(target, asked, discover=discover, allow_mass_removal=allowed)
            assert (summary.exit_code == 7) == model.take(answers, allowed=allowed)
            assert removed(target) == model.removed
        for persona_id in ids:
            lives = [change for change in target.changes(persona_id) if change != "updated"]
            assert lives == model.lives.get(persona_id, [])
        # A 404 of one never seen is not even an observation.
        seen = {str(row["entity_id"]) for row in target.rows("observations", kind="persona")}
        assert seen == model.lives.keys()
