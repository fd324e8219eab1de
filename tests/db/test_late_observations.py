"""An answer that is older than what is known finds its place in the past.

None comes late from the API, whose answers are dated in order; two writers forced past the lock,
or a history that is put in from elsewhere, can bring one.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from etl.jobs.arrival import Arrival
from etl.jobs.load import load
from etl.jobs.observe import remove
from etl.jobs.reckoning import read_batch
from etl.payload.decode import loads
from etl.source.answer import Answer
from etl.store.engine import make_engine
from etl.store.ledger import Run, open_run

# What comes late is sorted here, not there: other files send the same statements.
pytestmark = pytest.mark.one_server

NOON = datetime(2026, 4, 20, 12, tzinfo=UTC)
PERSONA = UUID("00000000-0000-4000-8000-000000000001")
OTHER = UUID("00000000-0000-4000-8000-000000000002")
AVATAR = UUID("00000000-0000-4000-8000-0000000000a1")


class History:
    """Brings dated payloads of personas into a database."""

    def __init__(self, target, connection):
        self.target = target
        self.connection = connection

    def bring(self, minute: int, persona_id: UUID = PERSONA, **members: object) -> None:
        """One answer; it came so many minutes past noon."""
        self.bring_all((minute, persona_id, members))

    def bring_all(self, *brought: tuple[int, UUID, dict[str, object]]) -> None:
        """Several answers in one batch."""
        arrivals = []
        for minute, persona_id, members in brought:
            body = json.dumps({"id": str(persona_id), **members}).encode()
            answer = Answer(persona_id, 200, body, "application/json", 0.0, 1, 1)
            arrivals.append(Arrival(persona_id, at(minute), answer))
        with self.connection.begin():
            load(self.connection, read_batch(self.connection, arrivals), self._run())

    def removed(self, minute: int, persona_id: UUID = PERSONA) -> None:
        with self.connection.begin():
            remove(self.connection, [(persona_id, at(minute))], self._run())

    def _run(self) -> UUID:
        run = Run(uuid4(), "test", "here", 1, "0")
        open_run(self.connection, run, status="succeeded", requested=1)
        return run.run_id

    def story(self, entity_id: UUID = PERSONA, name: str = "name") -> list[tuple[object, ...]]:
        """What was in force from which minute on, and until when it was seen."""
        documents = {
            row["content_hash"]: row["document"].get(name) for row in self.target.rows("documents")
        }
        return [
            (
                minute_of(row["valid_from"]),
                documents.get(row["content_hash"]),
                row["change"],
                minute_of(row["last_observed_at"]),
            )
            for row in self.target.versions(entity_id)
        ]


def at(minute: int) -> datetime:
    return NOON + timedelta(minutes=minute)


def minute_of(moment: datetime) -> int:
    return round((moment - NOON) / timedelta(minutes=1))


@pytest.fixture
def history(copying):
    with copying(count=0) as target:
        engine = make_engine(target.url, target.schema, json_deserializer=loads)
        with engine.connect() as connection:
            yield History(target, connection)


def test_a_late_answer_makes_a_version_between_two(history):
    history.bring(10, name="Ada")
    history.bring(50, name="Cleo")
    history.bring(30, name="Bea")
    assert history.story() == [
        (10, "Ada", "created", 10),
        (30, "Bea", "updated", 30),
        (50, "Cleo", "updated", 50),
    ]
    row = history.target.persona(str(PERSONA))
    assert (row["name"], row["last_changed_at"]) == ("Cleo", at(50))


def test_a_late_answer_before_all_others_dates_the_first_sighting(history):
    history.bring(50, name="Ada")
    history.bring(10, name="Bea")
    assert [change for _, _, change, _ in history.story()] == ["created", "updated"]
    row = history.target.persona(str(PERSONA))
    assert (row["name"], row["first_seen_at"], row["last_changed_at"]) == ("Ada", at(10), at(50))


def test_a_late_answer_splits_a_stretch_of_confirmations(history):
    history.bring(10, name="Ada", avatar={"id": str(AVATAR), "displayName": "Liv"})
    history.bring(50, name="Ada", avatar={"id": str(AVATAR), "displayName": "Liv"})
    assert history.story() == [(10, "Ada", "created", 10)]
    history.bring(30, name="Bea", avatar={"id": str(AVATAR), "displayName": "Leo"})
    assert history.story() == [
        (10, "Ada", "created", 10),
        (30, "Bea", "updated", 30),
        (50, "Ada", "updated", 50),
    ]
    assert history.story(AVATAR, "displayName") == [
        (10, "Liv", "created", 10),
        (30, "Leo", "updated", 30),
        (50, "Liv", "updated", 50),
    ]
    assert history.target.persona(str(PERSONA))["name"] == "Ada"
    assert history.target.row("avatars", avatar_id=AVATAR)["display_name"] == "Liv"


def test_a_late_answer_in_an_older_stretch_leaves_the_present_one_open(history):
    for minute, name in [(10, "Ada"), (30, "Ada"), (50, "Bea"), (90, "Bea")]:
        history.bring(minute, name=name)
    history.bring(20, name="Cleo")
    assert history.story() == [
        (10, "Ada", "created", 10),
        (20, "Cleo", "updated", 20),
        (30, "Ada", "updated", 30),
        (50, "Bea", "updated", 50),
    ]
    assert len(history.target.rows("observations")) == 4


def test_a_late_confirmation_is_no_news(history):
    history.bring(10, name="Ada")
    history.bring(50, name="Ada")
    history.bring(30, name="Ada")
    assert history.story() == [(10, "Ada", "created", 10)]
    assert len(history.target.rows("observations")) == 1


def test_where_the_persona_stands_does_not_go_back(history):
    history.bring(10, name="Ada")
    history.bring(50, name="Ada")
    before = history.target.state(str(PERSONA))
    history.bring(30, name="Bea")
    assert history.target.state(str(PERSONA)) == before
    history.bring(60, name="Ada")
    assert len(history.story()) == 3


def test_a_late_answer_lets_go_of_an_avatar_in_between(history):
    liv = {"id": str(AVATAR), "displayName": "Liv"}
    history.bring(10, name="Ada", avatar=liv)
    history.bring(50, name="Ada", avatar=liv)
    history.bring(30, name="Ada", avatar=None)
    assert history.story(AVATAR, "displayName") == [(10, "Liv", "created", 50)]
    assert [change for _, _, change, _ in history.story()] == ["created", "updated", "updated"]


def test_a_late_answer_of_a_removed_persona_changes_what_is_kept_of_it(history):
    history.bring(10, name="Ada")
    history.removed(50)
    history.bring(30, name="Bea")
    assert history.story() == [
        (10, "Ada", "created", 10),
        (30, "Bea", "updated", 30),
        (50, None, "removed", 50),
    ]
    row = history.target.persona(str(PERSONA))
    assert (row["name"], row["removed_at"], row["last_changed_at"]) == ("Bea", at(50), at(50))
    assert row["first_seen_at"] == at(10)


def test_a_late_copy_of_a_shared_thing_finds_its_place(history):
    history.bring(10, name="Ada", avatar={"id": str(AVATAR), "displayName": "Liv"})
    history.bring(50, name="Ada", avatar={"id": str(AVATAR), "displayName": "Leo"})
    history.bring(30, OTHER, name="Bea", avatar={"id": str(AVATAR), "displayName": "Lou"})
    assert history.story(AVATAR, "displayName") == [
        (10, "Liv", "created", 10),
        (30, "Lou", "updated", 30),
        (50, "Leo", "updated", 50),
    ]


def test_a_late_404_of_one_that_is_back_already(history):
    history.bring(10, name="Ada")
    history.bring(50, name="Ada")
    history.removed(30)
    assert [change for _, _, change, _ in history.story()] == ["created", "removed", "restored"]
    row = history.target.persona(str(PERSONA))
    assert (row["removed_at"], row["last_changed_at"]) == (None, at(50))


def test_a_late_answer_that_makes_a_version_older_gives_its_share_link_away(history):
    links = [{"id": "00000000-0000-4000-8000-00000000000a"}]
    history.bring(30, OTHER, shareLinks=links)
    history.bring(40, name="x", shareLinks=links)
    assert history.target.rows("share_links")[0]["persona_id"] == PERSONA
    history.bring(20, name="x", shareLinks=links)
    assert history.target.rows("share_links")[0]["persona_id"] == OTHER


def test_a_late_and_a_timely_answer_bring_a_new_thing_together(history):
    history.bring(50, name="Ada")
    avatar = {"id": str(AVATAR)}
    history.bring_all(
        (20, OTHER, {"avatar": avatar | {"displayName": "Liv"}}),
        (30, PERSONA, {"avatar": avatar | {"displayName": "Leo"}}),
    )
    assert history.story(AVATAR, "displayName")[-1][:2] == (30, "Leo")
    assert history.target.persona(str(OTHER))["avatar_id"] == AVATAR


def test_a_late_answer_says_nothing_about_the_present(history):
    link = {"id": str(OTHER)}
    history.bring(10, updatedAt="2026-04-20T10:00:00Z", shareLinks=[link | {"usageCount": 1}])
    history.bring(50, updatedAt="2026-04-20T11:00:00Z", shareLinks=[link | {"usageCount": 2}])
    before = {name: history.target.rows(name) for name in ("personas", "share_links")}
    history.bring(5, updatedAt="2026-04-20T09:00:00Z", shareLinks=[link | {"usageCount": 0}])
    before["personas"][0]["first_seen_at"] = at(5)
    before["personas"][0]["last_changed_at"] = at(5)
    assert {name: history.target.rows(name) for name in before} == before
