"""However observations arrive, history is the same: the one that the oracle tells of.

Random lines are loaded in order and at once, and in any order, in several runs, with repetitions.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from random import Random
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.payload.clean import clean
from tests.db.file_story import (
    LINK_IDS,
    PERSONA_IDS,
    PERSONAS,
    Told,
    cut,
    histories_of,
    kept,
    lines,
    observed_fields,
    oracle_of,
    payload_of,
    steps,
    told,
)
from tests.db.story import OLD
from tests.db.test_time_told_by_an_oracle import (
    BROKEN,
    OBSERVATIONS,
    SHARED_COLUMNS,
    SHARED_LISTS,
    VERSIONS,
    as_expected,
    as_told,
    assert_the_link_belongs_to_the_youngest,
    assert_the_persona_is_as_shown,
    last_document,
    moments,
    of,
)
from tests.oracle import Answer, Oracle, canonical, dated, seen_in
from tests.unit.strategies import properties

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from tests.db.conftest import Row, Target
    from tests.oracle import Entity, Sighting

# Random stories are made of statements that other tests run on each server.
pytestmark = pytest.mark.one_server

# Which run brought something hangs on the order, and when it was noticed.
OF_THE_RUN = {"run_id", "first_seen_at", "last_seen_at", "resolved_at", "occurrences"}
LEDGER = {"runs", "run_items", "drift_paths", "rejected_payloads"}


@pytest.fixture
def anew(copying, new_database, template) -> Iterator[Callable[[], Any]]:
    """What gives the target another empty database for the length of a block."""
    with copying(count=0) as target:

        @contextmanager
        def make() -> Iterator[Target]:
            with new_database(template) as url, target.at(url):
                yield target
                assert target.check().findings.first == []

        yield make


@properties(10)
@given(drawn=lines, seed=st.integers(0, 2**16))
def test_in_any_order_files_come_to_the_history_that_the_oracle_tells(anew, drawn, seed):
    story, dice = told(drawn), Random(seed)
    with anew() as target:
        target.load(*(line.envelope() for line in sorted(story, key=lambda line: line.at)))
        assert_as_told(target, story)
        in_order = contents(target)
    with anew() as target:
        for run in any_runs(story, dice):
            target.load(*(line.envelope() for line in run))
        assert contents(target) == in_order


@properties(4)
@given(drawn=steps, seed=st.integers(0, 2**16))
def test_among_syncs_files_slot_into_history(anew, drawn, seed):
    with anew() as target:
        life = Life(target, Random(seed))
        for name, *about in drawn:
            getattr(life, name)(*about)
        life.ends()
        assert_told_within_the_resolution(target, life)


class Life:
    """Syncs, and files that come before and after them."""

    def __init__(self, target: Target, dice: Random) -> None:
        self.target = target
        self.dice = dice
        self.shown: dict[int, Any] = {}
        self.answers: list[Answer] = []
        """Of the API, the mere confirmations too."""
        self.told: list[Told] = []
        self.waiting: list[tuple[int, Told]] = []
        for id_ in PERSONA_IDS:
            target.world.set_payload(id_, None)

    def tell(self, number: int, shape: Any, late: int, is_of_the_same_moment: bool) -> None:
        """A file has this line, which is loaded before the next sync, or after some more."""
        at = self.told[-1].at if self.told and is_of_the_same_moment else self.target.now()
        if any(answer.observed_at >= at for answer in self.answers):
            at = self.target.now()
        payload = None if shape is None else payload_of(number, shape)
        self.told.append(Told(at, PERSONA_IDS[number], payload))
        self.waiting.append((late, self.told[-1]))

    def sync(self, changes: dict[int, Any]) -> None:
        """The next sync, and before it the files that are there by then."""
        self._load([line for late, line in self.waiting if late == 0])
        self.waiting = [(late - 1, line) for late, line in self.waiting if late > 0]
        for number, shape in changes.items():
            self.shown[number] = None if shape is None else payload_of(number, shape)
            self.target.world.set_payload(PERSONA_IDS[number], self.shown[number])
        self.target.sync(PERSONA_IDS, allow_mass_removal=True)
        for number, id_ in enumerate(PERSONA_IDS):
            payload = cast("dict[str, Any] | None", clean(self.shown.get(number)))
            self.answers.append(Answer(self.target.state(id_)["last_attempt_at"], id_, payload))

    def ends(self) -> None:
        """All files come, then they come again, which changes nothing, and the API is asked."""
        self._load([line for _, line in self.waiting])
        before = contents(self.target)
        self._load(self.told)
        after = contents(self.target)
        for name in ("observations", "document_versions", "documents", "personas"):
            assert after[name] == before[name]
        self.waiting = []
        self.sync({})

    def _load(self, lines: list[Told]) -> None:
        if lines:
            self.target.load(*(line.envelope() for line in self.dice.sample(lines, len(lines))))


def assert_told_within_the_resolution(target: Target, life: Life) -> None:
    """Each line is an observation, and the first and the last of each stretch of the API's.

    Versions are what follows from the observations, and at the end what the API shows is in force.
    """
    files = oracle_of(kept(line.answer for line in life.told)).sightings
    api = oracle_of(life.answers).sightings
    lines = {(entity, s.observed_at, s.bringer): s for entity in files for s in files[entity]}
    asked = {(entity, s.observed_at, s.bringer): s for entity in api for s in api[entity]}
    ids = [UUID(id_) for _, id_ in {**files, **api}]
    found: dict[Entity, list[Sighting]] = defaultdict(list)
    for row in target.query(OBSERVATIONS, [ids]):
        entity = row["kind"], str(row["entity_id"])
        at = entity, row["observed_at"], str(row["persona_id"])
        seen = lines.pop(at, None) or asked[at]
        assert (row["document"] and canonical(row["document"])) == seen.content, at
        # Of a persona's confirmation only the time is known.
        if entity[0] != "persona":
            assert row["source_updated_at"] == seen.updated_at, at
        found[entity].append(replace(seen, updated_at=row["source_updated_at"]))
    assert lines == {}
    assert_first_and_last_are_kept(life, found)
    assert_the_same_versions(target, Oracle([], found, histories_of(found)), ids)
    assert target.query(BROKEN) == []
    for number, id_ in enumerate(PERSONA_IDS):
        last = target.versions(id_)[-1:]
        shown = life.shown.get(number)
        if shown is None:
            assert all(version["change"] == "removed" for version in last)
        else:
            assert last[0]["content_hash"] is not None
            # A payload without the member says nothing about it.
            assert target.persona(id_)["updated_at"] == dated(shown) or "updatedAt" not in shown
            assert (
                target.state(id_)["last_success_at"] == life.answers[number - PERSONAS].observed_at
            )


def assert_first_and_last_are_kept(life: Life, found: dict[Entity, list[Sighting]]) -> None:
    """Of each stretch in which the API shows the same with a persona.

    Where files tell the same right before or after it, one of theirs will do.
    """
    every = sorted(
        [*life.answers, *kept(line.answer for line in life.told)], key=lambda a: a.observed_at
    )
    from_api = {(answer.persona_id, answer.observed_at) for answer in life.answers}
    for entity, rows in found.items():
        for id_ in PERSONA_IDS:
            shows = [
                (
                    answer.observed_at,
                    seen_in(answer)[entity].content if entity in seen_in(answer) else None,
                )
                for answer in every
                if answer.persona_id == id_
            ]
            answered = [(at, content) for at, content in shows if (id_, at) in from_api]
            for (_, before), (at, now), (_, after) in zip(
                [(None, None), *answered], answered, [*answered[1:], (None, None)], strict=False
            ):
                if now is None:
                    continue
                stretch = stretch_around(at, shows)
                there = [
                    r.observed_at for r in rows if r.bringer == id_ and r.observed_at in stretch
                ]
                if before != now:
                    assert there, (entity, id_, at)
                if after != now and at != answered[-1][0]:
                    assert max(there) >= at, (entity, id_, at)


def stretch_around(at: datetime, shows: list[tuple[datetime, str | None]]) -> set[datetime]:
    """The moments around this one at which the same was shown without a break."""
    (of_it,) = (
        group
        for _, group in (
            (key, [moment for moment, _ in g]) for key, g in groupby(shows, itemgetter(1))
        )
        if at in group
    )
    return set(of_it)


def any_runs(story: list[Told], dice: Random) -> list[Sequence[Told]]:
    """The lines in any order, some of them twice, in up to four runs."""
    repeated = story + dice.sample(story, dice.randint(0, min(2, len(story))))
    return cut(dice.sample(repeated, len(repeated)), dice.randint(1, 4), dice)


def contents(target: Target) -> dict[str, list[Any]]:
    """All that may not hang on the order: every table but the ledger; of issues the open ones."""
    found = {}
    for name, rows in target.dump().items():
        if name not in LEDGER:
            hidden = OF_THE_RUN if name == "value_issues" else {"run_id"}
            found[name] = [
                {column: value for column, value in row.items() if column not in hidden}
                for row in rows
                if name != "value_issues" or row["resolved_at"] is None
            ]
    return found


def assert_as_told(target: Target, story: list[Told]) -> None:
    """All that only files have told of is as the oracle tells it."""
    answers = kept(line.answer for line in story)
    oracle = oracle_of(answers)
    ids = [UUID(id_) for _, id_ in oracle.sightings]
    assert_the_same_observations(target, oracle, ids)
    assert_the_same_versions(target, oracle, ids)
    assert target.query(BROKEN) == []
    assert_the_tables_show_what_is_in_force(target, oracle)
    assert_the_observed_columns_are_of_the_newest(target, observed_fields(answers, oracle))
    assert target.rows("persona_sync_state") == target.rows("unfolded") == []


def assert_the_same_observations(target: Target, oracle: Oracle, ids: list[UUID]) -> None:
    found = {
        (row["kind"], str(row["entity_id"]), row["observed_at"], str(row["persona_id"])): (
            None if row["document"] is None else canonical(row["document"]),
            row["source_updated_at"],
        )
        for row in target.query(OBSERVATIONS, [ids])
    }
    assert found == {
        (*entity, seen.observed_at, seen.bringer): (seen.content, seen.updated_at)
        for entity, sightings in oracle.sightings.items()
        for seen in sightings
    }
    assert len(target.rows("observations")) == len(found)
    stored = sorted((row["kind"], canonical(row["document"])) for row in target.rows("documents"))
    assert stored == sorted({(kind, c) for (kind, *_), (c, _) in found.items() if c is not None})


def assert_the_same_versions(target: Target, oracle: Oracle, ids: list[UUID]) -> None:
    found: dict[Entity, list[Row]] = defaultdict(list)
    for row in target.query(VERSIONS, [ids]):
        found[row["kind"], str(row["entity_id"])].append(row)
    assert found.keys() == oracle.histories.keys()
    for entity, versions in oracle.histories.items():
        seen = [(row["last_observed_at"], row["source_updated_at"]) for row in found[entity]]
        assert [but_the_run(as_told(row)) for row in found[entity]] == [
            but_the_run(as_expected(version)) for version in versions
        ]
        assert seen == [(v.last_observed_at, v.source_updated_at) for v in versions]


def but_the_run(version: Row) -> Row:
    return {name: value for name, value in version.items() if name != "run_id"}


def assert_the_tables_show_what_is_in_force(target: Target, oracle: Oracle) -> None:
    for id_, versions in oracle.of_kind("persona").items():
        assert_the_persona_is_as_shown(target, id_, versions)
    for kind, (table, columns) in SHARED_COLUMNS.items():
        shown = {str(row[f"{kind}_id"]): row for row in target.rows(table)}
        assert shown.keys() == oracle.of_kind(kind).keys()
        for id_, versions in oracle.of_kind(kind).items():
            document = last_document(versions)
            expected = {column: document[member] for column, member in columns.items()}
            expected |= moments(versions)
            assert of(shown[id_], expected) == expected
            if kind in SHARED_LISTS:
                values, column, member = SHARED_LISTS[kind]
                found = {row[column] for row in target.rows(values, **{f"{kind}_id": UUID(id_)})}
                assert found == set(document[member])
    for link_id in LINK_IDS:
        assert_the_link_belongs_to_the_youngest(target, oracle, link_id)


OBSERVED_COLUMNS = {
    "updatedAt": "updated_at",
    "usageCount": "usage_count",
    "documentCount": "document_count",
}


def assert_the_observed_columns_are_of_the_newest(
    target: Target, expected: dict[Entity, list[dict[str, Any]]]
) -> None:
    tables = {"persona": "personas"} | {kind: t for kind, (t, _) in SHARED_COLUMNS.items()}
    for (kind, id_), copies in expected.items():
        (row,) = target.rows(tables[kind], **{f"{kind}_id": UUID(id_)})
        shown = {n: row[column] for n, column in OBSERVED_COLUMNS.items() if n in copies[0]}
        # Of the links those that are not another's by now.
        links = target.rows("share_links", persona_id=UUID(id_)) if kind == "persona" else []
        for link in links:
            shown[str(link["share_link_id"])] = link["usage_count"]
        assert shown in [{n: copy[n] for n in shown} for copy in copies], (kind, id_)


def test_the_observed_columns_of_an_undated_copy_that_won_are_its_own(anew):
    shape: dict[str, Any] = {
        "name": "A",
        "prompt": None,
        "speed": 1,
        "stamp": None,
        "avatar": None,
        "voice": None,
    }
    shape |= {"knowledge": [], "links": []}
    dated_one, undated = (
        shape | {"tools": [(0, "A", OLD, 1)]},
        shape | {"tools": [(0, "B", None, 2)]},
    )
    story = told([(1, 0, dated_one), (2, 1, undated)])
    with anew() as target:
        target.load(*(line.envelope() for line in story))
        assert_as_told(target, story)
