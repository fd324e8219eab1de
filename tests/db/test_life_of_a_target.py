"""Whatever befalls a target in whatever order, after each command all of it still agrees.

Personas are edited, copied, asked for again, loaded from old records, replayed, pruned, forgotten,
brought back and moved to another database.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.jobs.diff import diff
from etl.jobs.drift import look
from etl.jobs.prune import Keep
from etl.jobs.runs import list_runs, tell_run
from etl.jobs.status import status
from tests.db.story import PERSONAS, Story, changes
from tests.db.story import who as persona_numbers
from tests.db.test_as_of import as_of
from tests.db.test_export import assert_a_load_comes_to_the_same
from tests.db.test_forget import copy, everything, forget_in, settings_of
from tests.db.test_prune import pruned
from tests.unit.strategies import properties

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tests.db.conftest import Row, Target

# Random stories are made of statements that other tests run on each server.
pytestmark = pytest.mark.one_server

TICK = timedelta(microseconds=1)
EVERYBODY = list(range(PERSONAS))

some = st.lists(persona_numbers, min_size=1, max_size=PERSONAS, unique=True) | st.just(EVERYBODY)
# A clock that was set forward observes what lies in the future, of which nothing can be loaded.
# That one persona shows the same without a date, after others did with one, no file can tell.
edits = st.lists(
    changes.filter(
        lambda change: (
            change[0] != "set_clock_back"
            and not (change[0] == "show_another" and change[-1] is None)
        )
    ),
    max_size=3,
)
limits = st.builds(
    Keep,
    history_versions=st.none() | st.integers(1, 3),
    history_days=st.just(0) | st.none(),
    runs_days=st.none() | st.just(0),
    issues_days=st.none() | st.just(0),
).filter(lambda keep: keep != Keep())
steps = st.one_of(
    st.tuples(st.just("sync"), edits, some),
    st.tuples(st.just("sync"), edits, some),
    st.tuples(st.just("backfill_api"), edits, some),
    st.tuples(st.just("load"), edits, st.lists(st.integers(0, 99), min_size=1, max_size=6)),
    st.tuples(st.just("load"), edits, st.lists(st.integers(0, 99), min_size=1, max_size=6)),
    st.tuples(st.just("prune"), edits, limits),
    st.tuples(st.just("prune"), edits, st.just(Keep(history_days=0))),
    st.tuples(st.just("forget"), edits, persona_numbers),
    st.tuples(st.just("unforget"), edits, some),
    st.tuples(st.just("replay"), edits, st.none()),
    st.tuples(st.just("move"), edits, st.none()),
)
lives = st.lists(steps, min_size=6, max_size=14)

EDITED = [("edit_shared", "voice", [0], "B", "now"), ("edit", 0, {"name": "B"}, True)]
AGAIN = [("edit_shared", "voice", [0], "C", "now"), ("edit", 1, {"name": "C"}, True)]
ALL_OF_IT = [
    ("sync", [], EVERYBODY),
    ("sync", EDITED, [0, 1]),
    ("prune", AGAIN, Keep(history_days=0)),
    ("load", [], [0, 3, 6, 9]),
    ("move", [("delete", 1)], None),
    ("forget", [], 0),
    ("sync", [("freeze", 2), *EDITED], EVERYBODY),
    ("load", AGAIN, [1, 2, 3, 4, 5]),
    ("unforget", [("restore", 1)], EVERYBODY),
    ("backfill_api", EDITED, [0, 2]),
    ("prune", [], Keep(history_versions=2, runs_days=0)),
    ("forget", [], 1),
    ("replay", [], None),
]


@properties(1)
@given(told=lives)
@example(told=ALL_OF_IT)
def test_after_each_step_of_a_life_all_of_it_agrees(copying, new_database, template, told):
    with (
        new_database(template) as url,
        copying(count=0, url=url) as target,
    ):
        life = Life(target, new_database, template)
        for name, edited, about in told:
            life.befall(edited)
            getattr(life, name)(about)
            life.assert_it_agrees()
        life.move(None)
        life.assert_that_the_rest_can_tell()


class Life:
    """A target, who is forgotten in it, and what others have recorded of the same personas."""

    def __init__(self, target: Target, new_database: Any, template: str) -> None:
        self.target = target
        self.new_database = new_database
        self.template = template
        self.story = Story(target)
        self.forgotten: set[str] = set()
        for id_ in self.story.personas:
            # By this it is known wherever it stands.
            self.story.world.edit(id_, {"note": f"only of {id_}"})
        self.records: list[dict[str, Any]] = []
        for long_ago in (timedelta(days=9), timedelta(days=5)):
            self.record(long_ago)

    def befall(self, edited: Sequence[tuple[Any, ...]]) -> None:
        for name, *about in edited:
            getattr(self.story, name)(*about)
        self.record(timedelta(0))

    def record(self, ago: timedelta) -> None:
        """As who else exports them every day."""
        for id_ in self.story.personas:
            at = (self.target.now() - ago).isoformat()
            payload = self.story.world.payload(id_)
            self.records.append({"observed_at": at, "persona_id": id_, "payload": payload})

    def ids(self, numbers: Sequence[int]) -> list[str]:
        return [self.story.personas[number] for number in numbers]

    # What may happen, by the names that it is drawn with.

    def sync(self, numbers: Sequence[int]) -> None:
        ids = self.ids(numbers)
        summary = copy(self.target, *ids, allow_mass_removal=True)
        assert summary.counts["requested"] == len(set(ids) - self.forgotten)

    def backfill_api(self, numbers: Sequence[int]) -> None:
        ids = self.ids(numbers)
        summary = self.target.backfill_api(ids, allow_mass_removal=True)
        assert summary.counts["requested"] == len(set(ids) - self.forgotten)

    def load(self, places: Sequence[int]) -> None:
        lines = [self.records[place % len(self.records)] for place in places]
        kept_out = sum(line["persona_id"] in self.forgotten for line in lines)
        summary = self.target.load(*lines)
        assert summary.forgotten == kept_out
        assert summary.counts["requested"] == len(lines) - kept_out
        assert summary.rejected == []

    def replay(self, _: None) -> None:
        assert self.target.replay().findings.first == []

    def prune(self, keep: Keep) -> None:
        moments = self.moments()
        before = {moment: by_persona(self.target, moment) for moment in moments}
        pruned(self.target, keep)
        begins = [row["valid_to"] for row in self.target.rows("document_versions", change="pruned")]
        for moment in moments:
            after = by_persona(self.target, moment)
            assert after.keys() == before[moment].keys()
            for id_, row in after.items():
                is_kept = row["last_outcome"] != "not kept"
                assert is_kept or moment < max(begins)
                if is_kept:
                    assert row == before[moment][id_], moment

    def forget(self, number: int) -> None:
        (id_,) = self.ids([number])
        forget_in(self.target, id_)
        if self.target.query("SELECT 1 FROM erasures WHERE run_id = %s", [self.last_run()]):
            self.forgotten.add(id_)

    def unforget(self, numbers: Sequence[int]) -> None:
        ids = self.ids(numbers)
        summary = copy(self.target, *ids, unforget=True, allow_mass_removal=True)
        assert summary.counts["requested"] == len(ids)
        self.forgotten -= set(ids)

    def move(self, _: None) -> None:
        with self.new_database(self.template) as url:
            assert_a_load_comes_to_the_same(self.target, url)

    # What holds at any time.

    def assert_it_agrees(self) -> None:
        self.target.check_replay()
        assert self.target.rows("unfolded") == []
        assert [run for run in self.target.rows("runs") if run["status"] == "running"] == []
        if self.forgotten:
            dump = everything(self.target)
            assert [id_ for id_ in self.forgotten if id_ in dump] == []

    def assert_that_the_rest_can_tell(self) -> None:
        """The commands that only read go through, and what is copied is what the API shows."""
        target, settings = self.target, settings_of(self.target)
        self.story.moods.clear()
        for number in EVERYBODY:
            self.story.thaw(number)
        self.sync(EVERYBODY)
        live = set(self.story.personas) - self.forgotten
        assert target.verify(sorted(live)).exit_code == 0
        assert status(settings, url=target.url, max_age=None).reasons == []
        for run in list_runs(settings, url=target.url, limit=99).runs:
            assert tell_run(settings, str(run.run_id), url=target.url, listed=9).run == run
        look(settings, url=target.url, everything=True)
        for id_ in self.story.personas:
            known = {row["version"] for row in target.versions(id_)}
            assert known or id_ not in live or self.story.world.payload(id_) is None
            for version in known:
                found = diff(settings, UUID(id_), url=target.url, since=version)
                assert found.after.version == max(known)

    def last_run(self) -> UUID:
        runs = sorted(self.target.rows("runs"), key=lambda run: run["started_at"])
        last: UUID = runs[-1]["run_id"]
        return last

    def moments(self) -> list[datetime]:
        """Where something began, and just before."""
        begun = {row["valid_from"] for row in self.target.rows("document_versions")}
        return sorted(moment for at in begun for moment in (at - TICK, at))


def by_persona(target: Target, moment: datetime) -> dict[UUID, Row]:
    return {row["persona_id"]: row for row in as_of(target, moment)}
