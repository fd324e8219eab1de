"""The fold: what was in force when. Moments are whole minutes, contents single letters."""

from __future__ import annotations

import copy
import hashlib
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.fold import (
    CREATED,
    PRUNED,
    REMOVED,
    Change,
    Memory,
    Observation,
    Pruned,
    Version,
    change_of,
    fold,
    fold_in_order,
)
from tests import oracle

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
PERSONAS = [UUID(int=number) for number in range(1, 5)]
OWNED = True
SHARED = False


def at(minute: int | None) -> datetime:
    assert minute is not None
    return EPOCH + timedelta(minutes=minute)


def seen(
    minute: int, content: str | None, updated_at: int | None = None, by: int = 0
) -> Observation:
    """At that minute, persona `by` brought that content; None is a 404."""
    return Observation(
        observed_at=at(minute),
        persona_id=PERSONAS[by],
        content_hash=content.encode() if content else None,
        source_updated_at=None if updated_at is None else at(updated_at),
        run_id=UUID(int=1000 * minute + by),
    )


def story(chain: list[Version]) -> list[tuple[int, str | None]]:
    """Which content was in force from which minute on."""
    return [
        (minute_of(version.valid_from), version.content_hash and version.content_hash.decode())  # type: ignore[misc]
        for version in chain
    ]


def minute_of(moment: datetime) -> int:
    return int((moment - EPOCH) / timedelta(minutes=1))


# (owned, observations, which content was in force from which minute on)
STORIES: dict[str, tuple[bool, list[Observation], list[tuple[int, str | None]]]] = {
    "nothing": (OWNED, [], []),
    "one": (OWNED, [seen(1, "A")], [(1, "A")]),
    "the same again is the same version": (OWNED, [seen(1, "A"), seen(2, "A")], [(1, "A")]),
    "flapping is three versions": (
        OWNED,
        [seen(1, "A"), seen(2, "B"), seen(3, "A")],
        [(1, "A"), (2, "B"), (3, "A")],
    ),
    "a 404 of one never seen makes no version": (OWNED, [seen(1, None), seen(2, None)], []),
    "leading 404s make no version": (
        OWNED,
        [seen(1, None), seen(2, "A"), seen(3, None)],
        [(2, "A"), (3, None)],
    ),
    "a second 404 makes no version": (
        OWNED,
        [seen(1, "A"), seen(2, None), seen(3, None)],
        [(1, "A"), (2, None)],
    ),
    "removed and restored with the same content": (
        OWNED,
        [seen(1, "A"), seen(2, None), seen(3, "A")],
        [(1, "A"), (2, None), (3, "A")],
    ),
    "a persona's own document ignores updatedAt": (
        OWNED,
        [seen(1, "A", 9), seen(2, "B", 1), seen(3, "C")],
        [(1, "A"), (2, "B"), (3, "C")],
    ),
    "of one moment only the one that wins opens a version": (
        OWNED,
        [seen(1, "A"), seen(2, "B", 1, by=1), seen(2, "C", 2, by=2)],
        [(1, "A"), (2, "C")],
    ),
    "at one moment content wins over a 404": (
        OWNED,
        [seen(1, "A", 1), seen(2, None, by=1), seen(2, "B", 1, by=2)],
        [(1, "A"), (2, "B")],
    ),
    "back and forth within a moment is no version": (
        OWNED,
        [seen(1, "B"), seen(2, "A", by=1), seen(2, "B", by=2)],
        [(1, "B")],
    ),
    "the newest updatedAt wins": (
        SHARED,
        [seen(1, "A", 1), seen(2, "B", 2, by=1)],
        [(1, "A"), (2, "B")],
    ),
    "an older copy never overwrites a newer": (
        SHARED,
        [seen(1, "B", 2), seen(2, "A", 1, by=1), seen(3, "A", 1, by=2), seen(4, "A", 1)],
        [(1, "B")],
    ),
    "the newest updatedAt seen with a content counts, whoever saw it": (
        SHARED,
        [seen(1, "A", 1), seen(2, "A", 5, by=1), seen(3, "B", 3, by=2)],
        [(1, "A")],
    ),
    "an equal updatedAt: the later wins": (
        SHARED,
        [seen(1, "A", 1), seen(2, "B", 1, by=1)],
        [(1, "A"), (2, "B")],
    ),
    "no updatedAt: the later wins": (
        SHARED,
        [seen(1, "A"), seen(2, "B", by=1), seen(3, "C", 1, by=2), seen(4, "D", by=3)],
        [(1, "A"), (2, "B"), (3, "C"), (4, "D")],
    ),
    "an equal updatedAt and what its persona brought last time": (
        SHARED,
        [seen(1, "A", 1), seen(2, "B", 1, by=1), seen(3, "A", 1), seen(4, "A", 1)],
        [(1, "A"), (2, "B")],
    ),
    "no updatedAt and what its persona brought last time": (
        SHARED,
        [seen(1, "A"), seen(2, "B", by=1), seen(3, "A"), seen(4, "B", by=1)],
        [(1, "A"), (2, "B")],
    ),
    "no updatedAt and what another persona brought last time": (
        SHARED,
        [seen(1, "A"), seen(2, "B", by=1), seen(3, "A", by=2)],
        [(1, "A"), (2, "B"), (3, "A")],
    ),
    "a persona that goes back to what it brought before": (
        SHARED,
        [seen(1, "A"), seen(2, "B"), seen(3, "A")],
        [(1, "A"), (2, "B"), (3, "A")],
    ),
    "what a persona brought counts even when it did not win": (
        SHARED,
        [seen(1, "B", 5), seen(2, "A", 1, by=1), seen(3, "C", by=2), seen(4, "A", by=1)],
        [(1, "B"), (3, "C")],
    ),
    "a newer updatedAt wins though its persona brought the content before": (
        SHARED,
        [seen(1, "A", 1), seen(2, "B", 2, by=1), seen(3, "A", 3)],
        [(1, "A"), (2, "B"), (3, "A")],
    ),
    "a repetition opens nothing, though what overtook it was older": (
        SHARED,
        [seen(1, "A", 5), seen(2, "B", None, by=1), seen(3, "B", 3, by=2), seen(4, "A", 5)],
        [(1, "A"), (2, "B")],
    ),
    "at one moment the newest wins": (
        SHARED,
        [seen(1, "A", 1), seen(2, "C", 3, by=1), seen(2, "B", 4, by=2), seen(2, "D", 2, by=3)],
        [(1, "A"), (2, "B")],
    ),
}


@pytest.mark.parametrize(("owned", "observations", "expected"), STORIES.values(), ids=STORIES)
def test_what_was_in_force_when(owned, observations, expected):
    for order in range(5):
        arrived = list(observations)
        Random(order).shuffle(arrived)
        assert story(fold(arrived, owned=owned)) == expected


def test_a_version_tells_what_opened_it_and_what_confirmed_it():
    first, second = fold(
        [seen(1, "A", 5, by=1), seen(2, "A", 3, by=2), seen(3, "A", by=1), seen(4, "B", 9)],
        owned=SHARED,
    )
    assert first == Version(
        version=1,
        valid_from=at(1),
        valid_to=at(4),
        last_observed_at=at(3),
        content_hash=b"A",
        source_updated_at=at(3),
        run_id=UUID(int=1001),
    )
    assert second == Version(2, at(4), None, at(4), b"B", at(9), UUID(int=4000))


def test_what_lost_confirms_nothing():
    (version,) = fold([seen(1, "B", 5), seen(2, "A", 1, by=1)], owned=SHARED)
    assert version.last_observed_at == at(1)


def test_a_confirmation_at_the_moment_of_opening_counts():
    (version,) = fold([seen(1, "A", 5), seen(1, "A", 3, by=1)], owned=SHARED)
    assert version.source_updated_at == at(3)


def test_a_removal_is_confirmed_by_the_next_404():
    _, removed = fold([seen(1, "A"), seen(2, None), seen(5, None)], owned=OWNED)
    assert (removed.last_observed_at, removed.source_updated_at) == (at(5), None)


def test_the_run_of_a_version_does_not_hang_on_the_order_of_arrival():
    twins = [seen(1, "A", 1, by=2), seen(1, "A", 1, by=1)]
    assert fold(twins, owned=SHARED) == fold(twins[::-1], owned=SHARED)


@pytest.mark.parametrize(
    ("before", "now", "was_removed", "change", "paths"),
    [
        ({"name": "a"}, {"name": "b"}, False, "updated", ["name"]),
        ({"name": "a"}, {"name": "a", "new": None}, False, "reshaped", ["new"]),
        ({"name": "a"}, {"name": "b", "new": 1}, False, "updated", ["name", "new"]),
        ({"name": "a"}, {"name": "a"}, True, "restored", []),
        ({"name": "a"}, {"name": "b"}, True, "restored", ["name"]),
        ({"name": "a"}, {"name": "a", "new": None}, True, "restored", ["new"]),
    ],
)
def test_what_a_version_is_against_the_one_before(before, now, was_removed, change, paths):
    found = change_of("persona", before, now, was_removed=was_removed)
    assert (found.change, found.changed_paths) == (change, paths)
    assert (CREATED.change, REMOVED.change) == ("created", "removed")
    assert CREATED.changed_paths == REMOVED.changed_paths == []


# ── Properties ───────────────────────────────────────────────────────────────────────────────────


def observations(contents: list[str | None], personas: int) -> st.SearchStrategy[list[Observation]]:
    """A persona brings an entity at most once at a moment, as the key of the table has it."""
    one = st.builds(
        seen,
        st.integers(1, 8),
        st.sampled_from(contents),
        st.none() | st.integers(1, 3),
        by=st.integers(0, personas - 1),
    )
    return st.lists(one, max_size=12, unique_by=lambda o: (o.observed_at, o.persona_id))


of_shared = st.tuples(st.just(SHARED), observations(["A", "B", "C"], 4))
of_owned = st.tuples(st.just(OWNED), observations(["A", "B", None], 1))
of_any = of_shared | of_owned
properties = settings(deadline=None, max_examples=300)


@properties
@given(of_any, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(found, random: Random):
    owned, observed = found
    shuffled = list(observed)
    random.shuffle(shuffled)
    assert fold(shuffled, owned=owned) == fold(observed, owned=owned)


@properties
@given(of_any)
def test_versions_have_no_gap_and_no_overlap(found):
    owned, observed = found
    chain = fold(observed, owned=owned)
    assert [version.version for version in chain] == list(range(1, len(chain) + 1))
    for version, following in itertools.pairwise(chain):
        assert version.valid_to == following.valid_from
        assert version.valid_from <= version.last_observed_at < following.valid_from
        assert version.content_hash != following.content_hash
    assert all(version.valid_to is None for version in chain[-1:])
    assert all(version.content_hash is not None for version in chain[:1])


@properties
@given(of_any, st.integers(0, 9))
def test_going_on_from_a_memory_is_folding_everything(found, split):
    owned, observed = found
    past = [o for o in observed if o.observed_at <= at(split)]
    rest = [o for o in observed if o.observed_at > at(split)]
    before = fold(past, owned=owned)
    # As the store does it: what it can tell of the version in force and of what comes, no more.
    memory = Memory(head=before[-1] if before else None)
    told = {o.content_hash for o in rest} | {version.content_hash for version in before[-1:]}
    for o in sorted(past, key=lambda o: o.observed_at):
        if o.persona_id in {later.persona_id for later in rest}:
            memory.brought[o.persona_id] = o.content_hash
        if o.content_hash in told and o.content_hash and o.source_updated_at:
            known = memory.newest.get(o.content_hash, o.source_updated_at)
            memory.newest[o.content_hash] = max(known, o.source_updated_at)
    head = copy.deepcopy(memory.head)
    assert before[:-1] + fold(rest, owned=owned, memory=memory) == fold(observed, owned=owned)
    assert memory.head == head


def beginnings(chain: list[Version]) -> list[Pruned]:
    """Each beginning of a history that may go: what comes next has content."""
    return [
        Pruned(
            version=last.version,
            valid_from=chain[0].valid_from,
            valid_to=following.valid_from,
            last_observed_at=last.last_observed_at,
            next_content=following.content_hash,
            next_change="updated",
            next_changed_paths=["name"],
            run_id=UUID(int=7),
        )
        for last, following in itertools.pairwise(chain)
        if following.content_hash is not None
    ]


@properties
@given(of_any)
def test_after_a_beginning_that_is_not_kept_the_rest_follows_as_before(found):
    owned, observed = found
    whole = fold(observed, owned=owned)
    for pruned in beginnings(whole):
        stub, *kept = fold(observed, owned=owned, pruned=pruned)
        assert stub == pruned.stub()
        # Of copies of one moment that are the same, another run's may be told.
        kept[0].run_id = whole[pruned.version].run_id
        assert kept == whole[pruned.version :]
        assert pruned.told(stub) == PRUNED
        told = [pruned.told(version) for version in kept]
        assert told == [Change("updated", ["name"]), *(None for _ in kept[1:])]


@properties
@given(of_any)
def test_where_all_that_was_kept_is_lost_what_is_left_is_told(found):
    owned, observed = found
    for pruned in beginnings(fold(observed, owned=owned)):
        left = [o for o in observed if o.observed_at < pruned.valid_to]
        chain = fold(left, owned=owned, pruned=pruned)
        assert chain == fold(left, owned=owned)
        assert [pruned.told(version) for version in chain] == [None] * len(chain)


def test_where_the_first_kept_observation_is_lost_the_next_one_ends_the_stub():
    whole = [seen(1, "A"), seen(2, "B"), seen(5, "B", by=1), seen(7, "C", by=1)]
    (pruned, _) = beginnings(fold(whole, owned=SHARED))
    stub, first, second = fold(whole[2:], owned=SHARED, pruned=pruned)
    assert story([stub, first, second]) == [(1, None), (5, "B"), (7, "C")]
    assert (stub.valid_to, first.version) == (at(5), 2)
    assert pruned.told(first) == Change("updated", [])
    assert pruned.told(second) is None


@properties
@given(of_any, st.integers(1, 9), st.integers(0, 3))
def test_a_repetition_opens_nothing(found, minute, by):
    owned, observed = found
    last = [
        o for o in sorted(observed, key=lambda o: o.observed_at) if o.persona_id == PERSONAS[by]
    ]
    last = [o for o in last if o.observed_at < at(minute)][-1:]
    if not last or any(o.observed_at == at(minute) for o in observed):
        return
    (o,) = last
    again = Observation(at(minute), o.persona_id, o.content_hash, o.source_updated_at, o.run_id)
    assert story(fold([*observed, again], owned=owned)) == story(fold(observed, owned=owned))


def as_the_oracle_sees(observed: Observation) -> oracle.Sighting:
    content = observed.content_hash
    return oracle.Sighting(
        observed.observed_at,
        str(observed.persona_id),
        {"letter": content.decode()} if content else None,
        observed.source_updated_at,
        observed.run_id,
    )


def content_hash(content: str | None) -> bytes | None:
    return hashlib.sha256(content.encode()).digest() if content else None


@settings(deadline=None, max_examples=500)
@given(of_any)
def test_the_fold_is_what_the_oracle_tells(found):
    owned, observed = found
    sightings = [as_the_oracle_sees(o) for o in observed]
    # The hash decides between copies of one moment.
    hashed = [
        replace(o, content_hash=content_hash(sighting.content))
        for o, sighting in zip(observed, sightings, strict=True)
    ]
    told = [
        Version(
            version=number,
            valid_from=version.valid_from,
            valid_to=version.valid_to,
            last_observed_at=version.last_observed_at,
            content_hash=content_hash(version.content),
            source_updated_at=version.source_updated_at,
            run_id=version.run,
        )
        for number, version in enumerate(oracle.history(sightings, shared=not owned), 1)
    ]
    assert fold(hashed, owned=owned) == told


def test_a_version_is_given_away_as_soon_as_the_next_one_begins():
    """However long a history is, no more of it is looked at."""

    def endless():
        for minute in itertools.count():
            yield seen(minute, "AB"[minute // 3 % 2])

    versions = fold_in_order(endless(), owned=OWNED)
    first = list(itertools.islice(versions, 3))
    assert story(first) == [(0, "A"), (3, "B"), (6, "A")]
    assert [version.valid_to for version in first] == [at(3), at(6), at(9)]
    assert first[0].last_observed_at == at(2)
