"""`prune`: what it lets go, what it must not, and that nothing else is told otherwise after it."""

from __future__ import annotations

import itertools
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from etl.errors import DiscrepancyError, UsageError
from etl.fold import Observation, fold
from etl.jobs.prune import Keep, Pruned, foresee, prune
from etl.jobs.settling import fold_entities
from etl.payload.canonical import content_hash
from etl.payload.decode import loads
from etl.sandbox import Fault
from etl.settings import load_settings
from etl.store.engine import make_engine
from etl.store.observations import Bringing, last_brought
from etl.store.pasts import pruned_before
from etl.store.recordset import as_row
from tests.db.story import NEWER, OLD, Story, changes, runs
from tests.db.test_as_of import as_of, one
from tests.db.test_history_views import history
from tests.db.test_late_observations import PERSONA, History, minute_of
from tests.db.test_time_told_by_an_oracle import (
    BACK,
    STALE,
    TICK,
    VERSIONS,
    as_expected,
    as_told,
    assert_the_same_at_any_instant,
    assert_the_tables_show_what_is_in_force,
)

if TYPE_CHECKING:
    from tests.db.conftest import Row, Target
    from tests.oracle import Entity, Oracle

ALL_CLOSED = Keep(history_days=0)
HISTORY = ("document_versions", "observations", "documents")
STUB: dict[str, object] = {
    "content_hash": None,
    "source_updated_at": None,
    "change": "pruned",
    "changed_paths": [],
}


def pruned(target: Target, keep: Keep = ALL_CLOSED) -> Pruned:
    """Prunes. Before that a dry run tells the same, and leaves no trace."""
    settings_ = load_settings(target.environment(), cwd=target.folder)
    before = target.stamps()
    told = foresee(settings_, keep, url=target.url)
    assert target.stamps() == before
    found = pruned_untold(target, keep)
    assert (told.run_id, told.rows) == (None, found.rows)
    assert told.document_bytes == found.document_bytes
    return found


def pruned_untold(target: Target, keep: Keep) -> Pruned:
    """Prunes, without a dry run before it."""
    reported: list[Pruned] = []
    settings_ = load_settings(target.environment(), cwd=target.folder)
    prune(settings_, keep, url=target.url, report=reported.append)
    (found,) = reported
    row = target.row("runs", run_id=found.run_id)
    assert (row["command"], row["status"]) == ("prune", found.status)
    return found


def edited(target: Target, persona_id: str, *names: str) -> None:
    for name in names:
        target.world.edit(persona_id, {"name": name})
        target.sync([persona_id])


def ask_all(story: Story) -> None:
    story.run([0, 1, 2], {}, "1", allow_mass_removal=False)


def without_ledger(dump: dict[str, list[Row]], *but: str) -> dict[str, list[Row]]:
    return {name: rows for name, rows in dump.items() if name not in ("runs", *but)}


@pytest.fixture
def empty(copying):
    with copying(count=0) as made:
        yield made


# ── What goes, and what stays ────────────────────────────────────────────────────────────────────


def test_closed_versions_go_and_one_stays_for_them_all(target):
    persona_id = target.world.persona_ids[0]
    edited(target, persona_id, "Bea", "Cleo", "Dora")
    first, _, third, fourth = target.versions(persona_id)
    before = target.dump()
    found = pruned(target)
    assert found.rows == {"document_versions": 3, "observations": 3, "documents": 3}
    assert found.document_bytes > 0
    stub, kept = target.versions(persona_id)
    assert kept == fourth
    assert stub == {
        **third,
        **STUB,
        "valid_from": first["valid_from"],
        "run_id": found.run_id,
    }
    assert [
        row["content_hash"] for row in target.rows("documents", entity_id=UUID(persona_id))
    ] == [fourth["content_hash"]]
    after = target.dump()
    assert without_ledger(after, *HISTORY, "pruned_history") == without_ledger(
        before, *HISTORY, "pruned_history"
    )


def test_what_is_in_force_stays_and_so_does_what_a_removed_persona_last_was(target):
    ids = target.world.persona_ids
    target.world.delete(ids[0])
    edited(target, ids[1], "Bea")
    target.world.delete(ids[1])
    target.sync(ids)
    shown = target.dump()["personas"]
    pruned(target)
    assert target.changes(ids[0]) == ["created", "removed"]
    assert target.changes(ids[1]) == ["pruned", "updated", "removed"]
    assert target.changes(ids[2]) == ["created"]
    assert target.dump()["personas"] == shown


def test_a_removal_goes_only_with_what_came_before_it(target):
    """What is restored is compared with the last before the removal."""
    persona_id = target.world.persona_ids[0]
    for change in (target.world.delete, target.world.restore):
        change(persona_id)
        target.sync([persona_id, *target.world.persona_ids[1:3]])
    edited(target, persona_id, "Bea")
    assert target.changes(persona_id) == ["created", "removed", "restored", "updated"]
    pruned(target, Keep(history_versions=3))
    assert target.changes(persona_id) == ["created", "removed", "restored", "updated"]
    pruned(target, Keep(history_versions=2))
    assert target.changes(persona_id) == ["pruned", "restored", "updated"]
    target.query("TRUNCATE document_versions")
    target.replay()
    assert target.changes(persona_id) == ["pruned", "restored", "updated"]


def test_with_days_and_versions_goes_only_what_both_let_go(target):
    old, young = target.world.persona_ids[:2]
    edited(target, old, "Bea", "Cleo", "Dora")
    edited(target, young, "Bea", "Cleo", "Dora")
    target.query(
        "UPDATE observations SET observed_at = observed_at - interval '9 days'"
        " WHERE entity_id = %s",
        [UUID(old)],
    )
    target.replay()
    assert not pruned(target, Keep(history_days=10, history_versions=1)).rows
    pruned(target, Keep(history_days=8, history_versions=2))
    assert [row["version"] for row in target.versions(old)] == [2, 3, 4]
    assert target.changes(young) == ["created", "updated", "updated", "updated"]
    pruned(target, Keep(history_versions=3))
    assert [row["version"] for row in target.versions(old)] == [2, 3, 4]
    assert [row["version"] for row in target.versions(young)] == [1, 2, 3, 4]
    assert target.changes(young) == ["pruned", "updated", "updated", "updated"]


def test_again_there_is_nothing_left_to_do_and_later_the_stub_grows(target):
    persona_id = target.world.persona_ids[0]
    edited(target, persona_id, "Bea")
    first_seen_at = target.versions(persona_id)[0]["valid_from"]
    pruned(target)
    before = target.dump()
    assert not pruned(target).rows
    assert without_ledger(target.dump()) == without_ledger(before)
    edited(target, persona_id, "Cleo", "Dora")
    assert target.changes(persona_id) == ["pruned", "updated", "updated", "updated"]
    pruned(target)
    stub, kept = target.versions(persona_id)
    assert (stub["version"], stub["valid_from"], kept["version"]) == (3, first_seen_at, 4)
    assert target.persona(persona_id)["first_seen_at"] == first_seen_at


def test_lost_versions_are_made_again_and_the_stub_with_them(target):
    edited(target, target.world.persona_ids[0], "Bea", "Cleo")
    pruned(target)
    before = target.rows("document_versions")
    target.query("TRUNCATE document_versions")
    target.replay()
    assert target.rows("document_versions") == before


def test_nothing_goes_where_a_history_is_not_what_was_observed(target):
    persona_id = target.world.persona_ids[0]
    edited(target, persona_id, "Bea", "Cleo")
    target.query("DELETE FROM observations WHERE entity_id = %s", [UUID(persona_id)])
    target.is_corrupted = True
    before = target.dump()
    reported: list[Pruned] = []
    settings_ = load_settings(target.environment(), cwd=target.folder)
    prune(settings_, ALL_CLOSED, url=target.url, report=reported.append)
    assert isinstance(reported[0].error, DiscrepancyError)
    assert f"the history of persona {persona_id} is not what" in str(reported[0].error)
    assert without_ledger(target.dump()) == without_ledger(before)


def test_who_says_nothing_of_what_is_kept_is_told_how(target):
    settings_ = load_settings(target.environment(), cwd=target.folder)
    for call in (foresee, lambda *a, **k: prune(*a, **k, report=lambda _: None)):
        with pytest.raises(UsageError, match=r"say what is kept, e\.g\. --keep-history-days 365"):
            call(settings_, Keep(), url=target.url)
    assert [run["command"] for run in target.rows("runs")] == ["sync"]


class KilledError(Exception):
    """As if the process had died."""


# As in test_sync_killed.
@pytest.mark.one_server
def test_killed_between_any_two_batches_and_run_again_it_ends_the_same(target, monkeypatch):
    monkeypatch.setattr("etl.jobs.prune._ENTITIES_AT_ONCE", 4)
    monkeypatch.setattr("etl.jobs.prune._VERSIONS_AT_ONCE", 2)
    for persona_id in target.world.persona_ids:
        edited(target, persona_id, "Bea")
    settings_ = load_settings(target.environment(), cwd=target.folder)
    deaths = 0
    for number in itertools.count(2):
        calls = itertools.count(1)

        def die(_done: int, _total: int, calls: Any = calls, number: int = number) -> None:
            if next(calls) == number:
                raise KilledError

        try:
            prune(settings_, ALL_CLOSED, url=target.url, report=lambda _: None, watch=die)
        except KilledError:
            deaths += 1
            target.check_replay()
        else:
            break
    assert deaths > 3
    for persona_id in target.world.persona_ids:
        assert target.changes(persona_id) == ["pruned", "updated"]
    assert not pruned(target).rows


# ── The ledger ───────────────────────────────────────────────────────────────────────────────────


def test_old_runs_go_but_those_that_are_still_looked_at(target):
    ids = target.world.persona_ids
    target.sync(ids[:1])
    target.sandbox.order(Fault(target=ids[0], status=403, times=None))
    target.sync(ids)
    target.sync(ids)
    target.sandbox.clear_faults()
    target.sync(ids[1:])
    target.query("UPDATE runs SET finished_at = finished_at - interval '5 days'")
    first, second, partly, latest_partly, last = sorted(
        target.rows("runs"), key=lambda run: run["started_at"]
    )
    assert not pruned(target, Keep(runs_days=6)).rows
    assert pruned(target, Keep(runs_days=4)).rows == {"runs": 3, "run_items": 7}
    left = {run["run_id"] for run in target.rows("runs", command="sync")}
    assert left == {latest_partly["run_id"], last["run_id"]}
    assert {first["run_id"], second["run_id"], partly["run_id"]}.isdisjoint(
        item["run_id"] for item in target.rows("run_items")
    )
    assert {target.state(id_)["last_run_id"] for id_ in ids} <= left


def test_resolved_issues_and_rejected_payloads_go_and_open_issues_stay(target):
    one_, two = target.world.persona_ids[:2]
    for id_ in (one_, two):
        target.world.edit(id_, {"skipGreeting": "perhaps"})
    target.sync([one_, two])
    target.world.edit(one_, {"skipGreeting": True})
    target.sandbox.order(Fault(target=two, status=200, wrong="html", times=None))
    target.sync([one_, two])
    (resolved, open_) = sorted(
        target.rows("value_issues"), key=lambda issue: issue["resolved_at"] is None
    )
    assert (str(resolved["entity_id"]), open_["resolved_at"]) == (one_, None)
    assert not pruned(target, Keep(issues_days=1, rejected_days=1)).rows
    assert pruned(target, Keep(issues_days=0)).rows == {"value_issues": 1}
    assert target.rows("value_issues") == [open_]
    assert pruned(target, Keep(rejected_days=0)).rows == {"rejected_payloads": 1}
    assert target.rows("rejected_payloads") == []


def test_many_rows_go_in_more_than_one_transaction(target, monkeypatch):
    monkeypatch.setattr("etl.jobs.prune._ROWS_AT_ONCE", 4)
    target.world.edit(target.world.persona_ids[0], {"name": "Bea"})
    target.sync()
    target.query("""
        INSERT INTO value_issues (kind, entity_id, path, problem, first_seen_at, last_seen_at,
                                  resolved_at)
        SELECT 'persona', gen_random_uuid(), 'name', 'odd', now(), now(), now()
          FROM generate_series(1, 8)
    """)
    target.query("UPDATE persona_sync_state SET last_run_id = gen_random_uuid()")
    target.sync(target.world.persona_ids[:1])
    found = pruned(target, Keep(runs_days=0, issues_days=0))
    assert found.rows == {"runs": 2, "run_items": 7, "value_issues": 8}


# ── What is told of it ───────────────────────────────────────────────────────────────────────────


def test_a_moment_that_is_not_kept_is_told_as_such(target):
    persona_id = target.world.persona_ids[0]
    target.world.edit(persona_id, {"name": "Ada", "brain": {"systemPrompt": "Be Ada."}})
    target.sync()
    edited(target, persona_id, "Bea", "Cleo")
    versions = target.versions(persona_id)
    begin, moment, kept = (versions[n]["valid_from"] for n in (0, 2, 3))
    unpruned = one(target, kept, persona_id)
    pruned(target)
    for instant in (begin, moment, kept - TICK):
        row = one(target, instant, persona_id)
        said = {name: value for name, value in row.items() if value is not None}
        assert said == {
            "persona_id": UUID(persona_id),
            "first_seen_at": begin,
            "last_outcome": "not kept",
        }
    assert as_of(target, begin - TICK, persona_id=UUID(persona_id)) == []
    assert one(target, kept, persona_id) == unpruned


def test_a_moment_of_which_the_voice_is_not_kept_says_so(target):
    persona_id = target.world.persona_ids[0]
    voice = target.world.payload(persona_id)["voice"]["id"]
    begin = target.now()
    target.world.edit(voice, {"displayName": "Another"}, "voices")
    target.sync()
    pruned(target)
    row = one(target, begin, persona_id)
    assert (row["last_outcome"], row["observed_until"], row["voice_name"]) == (
        "not kept",
        None,
        None,
    )
    assert (row["name"], row["voice_id"]) == (target.persona(persona_id)["name"], UUID(voice))
    now = one(target, target.now(), persona_id)
    assert (now["last_outcome"], now["voice_name"]) == (None, "Another")


def test_history_shows_one_row_for_what_went_and_changes_no_old_values(target):
    persona_id = target.world.persona_ids[0]
    key = UUID(persona_id)
    target.world.edit(persona_id, {"brain": {"systemPrompt": "Be kind."}})
    edited(target, persona_id, "Bea")
    target.world.edit(persona_id, {"brain": {"systemPrompt": "Be brief."}})
    edited(target, persona_id, "Cleo")
    before = history(target, persona_id=key)
    query = (
        "SELECT * FROM anam_reporting.changes WHERE entity_id = %s AND version = 3 ORDER BY path"
    )
    told = target.query(query, [key])
    pruned(target)
    stub, kept = history(target, persona_id=key)
    assert kept == before[2]
    assert {name: value for name, value in stub.items() if value is not None} == {
        "persona_id": key,
        "version": 2,
        "valid_from": before[0]["valid_from"],
        "valid_to": before[1]["valid_to"],
        "last_observed_at": before[1]["last_observed_at"],
        "change": "pruned",
        "changed_paths": [],
        "run_id": stub["run_id"],
        "first_seen_at": before[0]["valid_from"],
        "last_changed_at": before[0]["valid_from"],
    }
    assert [row["path"] for row in told] == ["brain.systemPrompt", "name"]
    assert target.query(query, [key]) == [row | {"old_value": None} for row in told]
    query = "SELECT DISTINCT version FROM anam_reporting.changes WHERE entity_id = %s"
    assert target.query(query, [key]) == [{"version": 3}]
    prompts = history(target, "prompt_history", persona_id=key)
    assert [(row["prompt_version"], row["system_prompt"]) for row in prompts] == [
        (0, None),
        (1, "Be brief."),
    ]


# ── What comes after it ──────────────────────────────────────────────────────────────────────────


def test_what_personas_brought_last_of_shared_things_is_known_after_it(empty):
    story = Story(empty)
    ask_all(story)
    story.show_another(1, "voice", "B", OLD)
    ask_all(story)
    story.show_another(2, "voice", "C", NEWER)
    ask_all(story)
    voice = UUID(story.things["voice"][0])
    keys = [Bringing(UUID(id_), "voice", voice) for id_ in story.personas[:3]]
    with make_engine(empty.url, empty.schema).connect() as connection:
        asked = dict.fromkeys(keys)
        before = last_brought(connection, asked)
        connection.rollback()
        pruned(empty)
        assert last_brought(connection, asked) == before
        connection.rollback()
        (begins,) = pruned_before(connection, [("voice", voice), ("voice", uuid4())]).values()
    assert begins == empty.versions(voice)[0]["valid_to"]
    ask_all(story)
    assert empty.reports[-1].counts["unchanged"] == 3
    assert len(empty.versions(voice)) == 2


def test_a_late_answer_from_a_time_that_is_not_kept_alters_nothing(empty):
    engine = make_engine(empty.url, empty.schema, json_deserializer=loads)
    with engine.connect() as connection:
        past = History(empty, connection)
        for minute, name in ((10, "Ada"), (20, "Bea"), (30, "Cleo"), (40, "Dora")):
            past.bring(minute, name=name)
        pruned(empty, Keep(history_versions=2))
        before = empty.rows("document_versions"), empty.persona(str(PERSONA))
        past.bring(15, name="Late")
        assert (empty.rows("document_versions"), empty.persona(str(PERSONA))) == before
        past.bring(35, name="Eve")
        assert past.story() == [
            (10, None, "pruned", 20),
            (30, "Cleo", "updated", 30),
            (35, "Eve", "updated", 35),
            (40, "Dora", "updated", 40),
        ]
        assert minute_of(empty.persona(str(PERSONA))["first_seen_at"]) == 10
    assert pruned(empty, Keep(history_versions=2)).rows == {
        "document_versions": 1,
        "observations": 2,
        "documents": 2,
    }


prunes = st.none() | st.just(ALL_CLOSED) | st.builds(Keep, history_versions=st.integers(1, 3))
# Clocks that were set back bring answers to a time that is not kept: they alter what was kept.
pruned_stories = st.lists(
    st.tuples(
        st.lists(changes.filter(lambda change: change[0] != "set_clock_back"), max_size=4),
        runs,
        prunes,
    ),
    min_size=2,
    max_size=7,
)


def with_prunes(told: list[Any]) -> list[Any]:
    return [(changes_, run, ALL_CLOSED) for changes_, run in told]


# Random stories are made of statements that other tests run on each server.
@pytest.mark.one_server
@settings(
    deadline=None,
    max_examples=3,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(told=pruned_stories)
@example(told=with_prunes(STALE))
@example(told=with_prunes(BACK))
def test_what_is_kept_of_a_story_is_what_the_oracle_tells_of_all(empty, told):
    story = Story(empty)
    for changes_, run, keep in told:
        for name, *about in changes_:
            getattr(story, name)(*about)
        story.run(**run)
        if keep is not None:
            pruned_untold(empty, keep)
    story.run(range(len(story.personas)), {}, "16", allow_mass_removal=True)
    pruned(empty, Keep(history_versions=2))
    oracle = story.tell()
    ids = [UUID(id_) for _, id_ in oracle.histories]
    begins = assert_the_same_versions_are_kept(empty, oracle, ids)
    assert_the_tables_show_what_is_in_force(empty, oracle, story)
    assert_moments_are_kept_or_said_not_to_be(empty, oracle, ids, begins)
    versions = empty.rows("document_versions")
    empty.query("TRUNCATE document_versions")
    empty.replay()
    assert empty.rows("document_versions") == versions


def assert_the_same_versions_are_kept(
    target: Target, oracle: Oracle, ids: list[UUID]
) -> dict[Entity, datetime]:
    """Returns when what is kept of each begins."""
    found: dict[Entity, list[Row]] = defaultdict(list)
    for row in target.query(VERSIONS, [ids]):
        found[row["kind"], str(row["entity_id"])].append(row)
    assert found.keys() == oracle.histories.keys()
    begins: dict[Entity, datetime] = {}
    for entity, versions in oracle.histories.items():
        rows = found[entity]
        gone = 0
        if rows[0]["change"] == "pruned":
            stub = rows.pop(0)
            gone = stub["version"]
            assert stub == stub | STUB
            assert (stub["valid_from"], stub["valid_to"]) == (
                versions[0].valid_from,
                versions[gone - 1].valid_to,
            )
        kept = versions[gone:]
        assert [row["version"] for row in rows] == list(range(gone + 1, len(versions) + 1))
        assert [as_told(row) for row in rows] == [as_expected(version) for version in kept]
        for row, version in zip(rows, kept, strict=True):
            assert row["last_observed_at"] <= version.last_observed_at
        assert kept[-1].document is not None or kept[-2].document is not None
        begins[entity] = kept[0].valid_from
    return begins


def assert_moments_are_kept_or_said_not_to_be(
    target: Target, oracle: Oracle, ids: list[UUID], begins: dict[Entity, datetime]
) -> None:
    """From where all is kept on, everything is as it was; before, nobody is told of wrongly."""
    all_kept_from = max(begins.values())
    edges = {v.valid_from for versions in oracle.histories.values() for v in versions}
    for moment in sorted(edges):
        if moment >= all_kept_from:
            continue
        rows = {
            str(row["persona_id"]): row for row in as_of(target, moment) if row["persona_id"] in ids
        }
        for id_, versions in oracle.of_kind("persona").items():
            version = oracle.in_force("persona", id_, moment)
            if moment < begins["persona", id_]:
                assert (id_ in rows) == (version is not None)
                if version is not None:
                    assert rows[id_]["last_outcome"] == "not kept"
                    assert rows[id_]["first_seen_at"] == versions[0].valid_from
            elif version is None or version.document is None:
                assert id_ not in rows
            else:
                assert rows[id_]["name"] == version.document["name"]
    assert_the_same_at_any_instant(target, oracle, ids, since=all_kept_from)


# ── Any observations, from any source ────────────────────────────────────────────────────────────

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
BRINGERS = [UUID(int=number) for number in range(1, 5)]


def at(minute: int) -> datetime:
    return EPOCH + timedelta(minutes=minute)


def sightings(since: int) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """In a few minutes from one on: the minute, who, which content, and its updatedAt's minute."""
    one_ = st.tuples(
        st.integers(since, since + 6),
        st.integers(0, 3),
        st.sampled_from("ABCD"),
        st.none() | st.integers(1, 3),
    )
    return st.lists(one_, max_size=12, unique_by=lambda seen: seen[:2])


# How new A is was told by a row of before; what is older does not take its place.
DATED = [(10, 0, "A", 3), (11, 0, "B", 3), (12, 1, "A", None)]
# The first persona goes on showing what it showed before: that is no news.
REPEATED = [(10, 0, "A", None), (11, 1, "B", None), (13, 0, "A", None)]


class Voice:
    """A voice of which anybody may have seen anything at any moment."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.id = uuid4()
        self.seen: list[Observation] = []

    def observe(self, found: list[tuple[Any, ...]]) -> None:
        """Minute, who, which content, and the minute of its updatedAt."""
        execute = self.target.admin.execute
        for minute, by, letter, updated in found:
            document = {"id": str(self.id), "displayName": letter}
            digest = content_hash("voice", document)
            seen = Observation(at(minute), BRINGERS[by], digest, updated and at(updated), None)
            self.seen.append(seen)
            execute(
                "INSERT INTO documents VALUES ('voice', %s, %s, %s) ON CONFLICT DO NOTHING",
                [digest, self.id, Jsonb(document)],
            )
            execute(
                "INSERT INTO observations VALUES ('voice', %s, %s, %s, %s, %s)",
                [self.id, seen.observed_at, seen.persona_id, digest, seen.source_updated_at],
            )

    def documents(self) -> list[Row]:
        return self.target.rows("documents", entity_id=self.id)

    def assert_it_tells_the_same(self) -> None:
        """As if everything that was ever observed were there, but for what was pruned."""
        whole = fold(self.seen, owned=False)
        rows = self.target.versions(self.id)
        if rows and rows[0]["change"] == "pruned":
            stub = rows.pop(0)
            last = whole[stub["version"] - 1]
            assert (stub["valid_from"], stub["valid_to"]) == (whole[0].valid_from, last.valid_to)
            assert stub["last_observed_at"] == last.last_observed_at
            whole = whole[stub["version"] :]
        assert [{**as_row(version)} for version in whole] == [
            {name: row[name] for name in as_row(whole[0])} for row in rows
        ]


# As above.
@pytest.mark.one_server
@settings(
    deadline=None,
    max_examples=5,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(st.tuples(sightings(10), sightings(20), sightings(30)), min_size=8, max_size=8),
    st.integers(1, 3),
)
@example(told=[(DATED, [(20, 2, "C", 2)], []), (REPEATED, [], [])], keep=1)
def test_whatever_is_observed_later_comes_to_the_same(empty, told, keep):
    voices = [Voice(empty) for _ in told]
    engine = make_engine(empty.url, empty.schema, json_deserializer=loads)
    for number in range(3):
        for voice, found in zip(voices, told, strict=True):
            # What comes again when nothing is left of it, not even when it was edited, is news.
            known = {row["document"]["displayName"] for row in voice.documents()}
            news = set("ABCD") - {seen[2] for before in found[:number] for seen in before}
            voice.observe([seen for seen in found[number] if seen[2] in known | news])
        with engine.begin() as connection:
            fold_entities(connection, "voice", [voice.id for voice in voices], run_id=uuid4())
        for voice in voices:
            voice.assert_it_tells_the_same()
        (pruned_untold if number else pruned)(empty, Keep(history_versions=keep))
        for voice in voices:
            voice.assert_it_tells_the_same()
    empty.check_replay()
