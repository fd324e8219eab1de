"""What lines of files come to in Postgres: observations that slot into history, in any order."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from etl.jobs.lines import LINES_A_BATCH
from tests.db.test_forget import forget_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.db.conftest import Target

# What lines tell is decided here, not there: other files send the same statements.
pytestmark = pytest.mark.one_server

START = datetime(2026, 1, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def seen(number: float, payload: Any, **members: Any) -> dict[str, Any]:
    """An envelope of the nth day."""
    return {"observed_at": day(number).isoformat(), "payload": payload, **members}


def gone(number: float, persona_id: str) -> dict[str, Any]:
    return seen(number, None, persona_id=persona_id)


def edited(payload: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A copy with other members; a__b is b of the member a."""
    copy = deepcopy(payload)
    for name, value in members.items():
        *above, last = name.split("__")
        within = copy
        for step in above:
            within = within[step]
        within[last] = value
    return copy


def history(target: Target, persona_id: str) -> list[tuple[Any, ...]]:
    """An entity's versions: the change, the days from and until, and where it differs."""

    def number(at: datetime | None) -> float | None:
        return None if at is None else (at - START) / timedelta(days=1)

    return [
        (v["change"], number(v["valid_from"]), number(v["valid_to"]), v["changed_paths"])
        for v in target.versions(persona_id)
    ]


@pytest.fixture
def empty(copying) -> Iterator[Target]:
    with copying(count=4, seed=3) as made:
        yield made


@pytest.fixture
def persona(empty) -> dict[str, Any]:
    """One that has everything that is shared."""
    payloads = [empty.world.payload(id_) for id_ in empty.world.persona_ids]
    return next(p for p in payloads if p["tools"] and p["avatar"] and p["voice"])


@pytest.mark.every_server
def test_lines_become_a_history(empty, persona):
    id_ = persona["id"]
    summary = empty.load(
        seen(1, persona),
        seen(2, persona),
        seen(3, edited(persona, brain__systemPrompt="Be kind.")),
        gone(4, id_),
        seen(5, persona),
    )
    assert history(empty, id_) == [
        ("created", 1, 3, []),
        ("updated", 3, 4, ["brain.systemPrompt"]),
        ("removed", 4, 5, []),
        ("restored", 5, None, ["brain.systemPrompt"]),
    ]
    counts = {name: n for name, n in summary.counts.items() if n}
    assert counts == {
        "requested": 5,
        "created": 1,
        "updated": 1,
        "restored": 1,
        "missing": 1,
        "unchanged": 1,
    }
    assert empty.persona(id_)["name"] == persona["name"]
    assert empty.outcome_in(summary, id_) == "missing"
    assert empty.rows("unfolded") == []
    # From files each line is a row, for each document in it.
    own = empty.rows("observations", kind="persona")
    assert [(o["observed_at"], o["content_hash"] is None) for o in own] == [
        (day(1), False),
        (day(2), False),
        (day(3), False),
        (day(4), True),
        (day(5), False),
    ]
    assert len(empty.rows("observations", kind="voice")) == 4


def test_the_tables_say_what_a_sync_would_say(empty, copying, new_database, template):
    payloads = [empty.world.payload(id_) for id_ in empty.world.persona_ids]
    empty.load(*(seen(1, payload) for payload in payloads))
    with new_database(template) as url, copying(count=4, seed=3, url=url) as synced:
        synced.sync()
        for name in (*synced.normalized(), "documents"):
            assert without_times(empty.rows(name)) == without_times(synced.rows(name)), name


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if k not in {"first_seen_at", "last_changed_at"}}
        for row in rows
    ]


@pytest.mark.every_server
def test_the_order_of_lines_and_runs_does_not_matter(empty, persona, new_database, template):
    id_ = persona["id"]
    stories = [
        seen(1, persona),
        seen(2, edited(persona, name="Two", voice__displayName="Other")),
        seen(3, persona),
        seen(3, edited(persona, name="Also three")),
        gone(4, id_),
        seen(5, edited(persona, name="Five")),
    ]
    empty.load(*stories)
    expected = comparable(empty)
    rng = random.Random(7)
    for _ in range(3):
        with new_database(template) as url, empty.at(url):
            lines = [*stories, *rng.sample(stories, 3)]
            rng.shuffle(lines)
            cut = rng.randrange(len(lines))
            empty.load(*lines[:cut])
            empty.load(*lines[cut:])
            assert comparable(empty) == expected
            assert empty.check().findings.first == []


def comparable(target: Target) -> dict[str, Any]:
    """All that follows from the lines."""
    history = ("observations", "documents", "document_versions", "pruned_history")
    names = (*history, *target.normalized())
    return {
        name: [{k: v for k, v in row.items() if k != "run_id"} for row in target.rows(name)]
        for name in names
    }


def test_a_line_that_is_there_already_changes_nothing(empty, persona):
    line = seen(1, persona)
    empty.load(line)
    before = comparable(empty), empty.stamps()
    summary = empty.load(line, line)
    assert {n: c for n, c in summary.counts.items() if c} == {"requested": 2, "unchanged": 2}
    assert summary.observations == 0
    after = comparable(empty), empty.stamps()
    assert after[0] == before[0]
    del before[1]["runs"], after[1]["runs"]
    assert after[1] == before[1]


def test_bad_lines_are_rejected_one_by_one(empty, persona):
    other = empty.world.persona_ids[0]
    summary = empty.load(
        b"{",
        seen(1, persona),
        seen(2, {"id": "nobody"}),
        seen(3, persona, persona_id="00000000-0000-0000-0000-000000000000"),
        {"observed_at": "2999-01-01T00:00:00Z", "persona_id": other, "payload": None},
        seen(4, [persona]),
        name="old.ndjson",
    )
    assert (summary.exit_code, summary.status) == (3, "partial")
    assert summary.counts["created"] == 1
    assert summary.counts["rejected"] == 5
    assert summary.rejected[1] == "old.ndjson:3: it has no id that is a uuid"
    assert "old.ndjson:4: the body is of another persona" in summary.rejected[2]
    assert "lies in the future" in summary.rejected[3]
    kept = empty.rows("rejected_payloads")
    assert len(kept) == 5
    assert {k["persona_id"] is None for k in kept} == {True, False}
    empty.load(b"{", name="old.ndjson")
    assert len(empty.rows("rejected_payloads")) == 5


@pytest.mark.every_server
def test_of_two_payloads_at_one_moment_one_is_kept(empty, persona):
    older = edited(persona, name="Older", updatedAt="2026-01-01T00:00:00Z", tools=[])
    newer = edited(persona, name="Newer", updatedAt="2026-01-02T00:00:00Z", knowledge=[])
    summary = empty.load(seen(1, newer), seen(1, older))
    assert summary.counts["rejected"] == 1
    assert "has the same observed_at" in summary.rejected[0]
    assert empty.persona(persona["id"])["name"] == "Newer"
    # Greater than what was loaded before: that is taken back, whole.
    newest = edited(persona, name="Newest", updatedAt="2026-01-03T00:00:00Z", tools=[], voice=None)
    assert empty.load(seen(1, newest)).counts["created"] == 1
    assert empty.persona(persona["id"])["name"] == "Newest"
    voices = empty.rows("observations", kind="voice")
    assert voices == []


def test_of_two_copies_of_a_voice_at_one_moment_the_newer_is_kept(empty, persona):
    voice = persona["voice"]["id"]
    older = edited(persona, voice__displayName="Older", voice__updatedAt=day(-2).isoformat())
    newer = edited(persona, voice__displayName="Newer", voice__updatedAt=day(-1).isoformat())
    for copy in (older, newer, older):
        empty.load(seen(1, copy))
    assert len(empty.rows("observations", kind="voice")) == 1
    assert [row["display_name"] for row in empty.rows("voices")] == ["Newer"]
    assert history(empty, voice) == [("created", 1, None, [])]


def test_old_lines_slot_into_what_was_synced(target):
    (id_, *_) = target.world.persona_ids
    now = target.world.payload(id_)
    target.load(seen(1, edited(now, name="Before")), seen(2, now))
    assert [(c, f) for c, f, *_ in history(target, id_)] == [("created", 1), ("updated", 2)]
    row = target.persona(id_)
    assert (row["name"], row["first_seen_at"], row["last_changed_at"]) == (
        now["name"],
        day(1),
        day(2),
    )


def test_a_line_within_a_confirmed_stretch_divides_it(target):
    (id_, *_) = target.world.persona_ids
    now = target.world.payload(id_)
    first = target.versions(id_)[0]["valid_from"]
    between = target.now()
    target.sync()
    confirmed = target.state(id_)["last_success_at"]
    target.load({"observed_at": between, "payload": edited(now, name="Between")})
    versions = target.versions(id_)
    assert [v["valid_from"] for v in versions] == [first, between, confirmed]
    assert target.persona(id_)["name"] == now["name"]
    assert target.sync().counts["unchanged"] == len(target.world.persona_ids)


def test_the_next_sync_sees_that_a_line_was_newer(target):
    (id_, *_) = target.world.persona_ids
    now = target.world.payload(id_)
    target.load({"observed_at": target.now(), "payload": edited(now, name="From a file")})
    assert target.persona(id_)["name"] == "From a file"
    assert target.sync().counts["updated"] == 1
    assert target.persona(id_)["name"] == now["name"]
    assert target.changes(id_) == ["created", "updated", "updated"]


def test_observed_columns_are_those_of_the_latest_line(empty, persona):
    def with_count(number: int) -> dict[str, Any]:
        copy = edited(persona, updatedAt=day(number).isoformat())
        copy["tools"][0] |= {"usageCount": number, "updatedAt": day(9).isoformat()}
        return copy

    tool = {"tool_id": UUID(persona["tools"][0]["id"])}
    empty.load(seen(3, with_count(3)), seen(2, with_count(2)))
    assert empty.row("tools", **tool)["usage_count"] == 3
    empty.load(seen(1, with_count(1)))
    assert empty.row("tools", **tool)["usage_count"] == 3
    empty.load(seen(4, with_count(4)))
    assert empty.row("tools", **tool)["usage_count"] == 4
    assert empty.persona(persona["id"])["updated_at"] == day(4)


def test_a_confirmation_is_no_observation(empty, persona):
    id_ = persona["id"]
    lines = seen(1, persona), seen(5, persona, observations=[])
    empty.load(*lines)
    assert [o["observed_at"] for o in empty.rows("observations", kind="persona")] == [day(1)]
    assert empty.state(id_)["last_success_at"] == day(5)
    empty.load(seen(3, edited(persona, name="Three")))
    assert [f for _, f, *_ in history(empty, id_)] == [1, 3, 5]
    assert empty.persona(id_)["name"] == persona["name"]


def test_a_confirmation_that_comes_first_is_kept_as_an_observation(empty, persona):
    empty.load(seen(5, persona, observations=[]))
    empty.load(seen(1, persona))
    assert history(empty, persona["id"]) == [("created", 1, None, [])]
    (version,) = empty.versions(persona["id"])
    assert version["last_observed_at"] == day(5)


def test_only_the_documents_that_are_named_are_observations(empty, persona):
    voice = persona["voice"]
    other = edited(persona, voice__displayName="Renamed")
    names = [f"voice {voice['id']}"]
    empty.load(seen(1, persona), seen(2, other, observations=names))
    assert [o["observed_at"] for o in empty.rows("observations", kind="persona")] == [day(1)]
    assert [o["observed_at"] for o in empty.rows("observations", kind="voice")] == [day(1), day(2)]
    assert empty.row("voices", voice_id=UUID(voice["id"]))["display_name"] == "Renamed"


def test_what_a_dead_load_has_left_is_folded_by_the_next_run(empty, persona):
    empty.load(seen(1, persona))
    empty.query("DELETE FROM document_versions")
    for table in reversed(empty.normalized()):
        empty.query(f"DELETE FROM {table}")
    empty.query(
        "INSERT INTO unfolded (kind, entity_id) SELECT DISTINCT kind, entity_id FROM observations"
    )
    assert empty.sync([]).counts["requested"] == 0
    assert empty.persona(persona["id"])["name"] == persona["name"]
    assert empty.rows("unfolded") == []


def test_what_does_not_fit_is_an_issue_of_the_content_in_force(empty, persona):
    bad = edited(persona, voiceSpeed="fast")
    summary = empty.load(seen(1, bad))
    assert summary.value_issues == 1
    (issue,) = empty.rows("value_issues")
    assert (issue["path"], issue["resolved_at"]) == ("voiceSpeed", None)
    empty.load(seen(2, persona))
    (issue,) = empty.rows("value_issues")
    assert issue["resolved_at"] is not None


def test_fields_that_nobody_knows_are_counted(empty, persona):
    summary = empty.load(seen(1, edited(persona, moodYy=1)))
    assert summary.new_drift_paths == 1
    (drift,) = empty.rows("drift_paths")
    assert (drift["path"], drift["last_seen_at"]) == ("moodYy", day(1))


def test_bytes_that_are_no_utf_8_cost_a_character_and_not_the_line(empty, persona):
    raw = b'{"observed_at": "2026-01-02T00:00:00Z", "payload": %s}'
    body = json.dumps(edited(persona, name="caf@")).encode().replace(b"@", b"\xe9")
    assert empty.load(raw % body).counts["created"] == 1
    assert empty.persona(persona["id"])["name"] == "caf\ufffd"
    (issue,) = empty.rows("value_issues")
    assert (issue["path"], issue["resolved_at"]) == ("name", None)


@pytest.mark.every_server
def test_lines_of_a_forgotten_persona_are_left_out(empty, persona):
    other = next(p for id_ in empty.world.persona_ids if (p := empty.world.payload(id_)) != persona)
    empty.load(seen(1, persona))
    forget_in(empty, persona["id"])
    summary = empty.load(seen(1, persona), seen(2, persona), seen(1, other))
    assert (summary.counts["requested"], summary.forgotten, summary.exit_code) == (1, 2, 0)
    assert [row["persona_id"] for row in empty.rows("personas")] == [UUID(other["id"])]
    assert empty.load(seen(1, persona), unforget=True).counts["created"] == 1
    assert empty.load(seen(2, persona)).forgotten == 0


@pytest.mark.every_server
def test_what_was_taken_back_is_stored_again_when_it_comes_at_another_moment(empty, persona):
    older = edited(persona, name="Older", updatedAt="2026-01-01T00:00:00Z")
    newer = edited(persona, name="Newer", updatedAt="2026-01-02T00:00:00Z")
    # Each of the three in a batch of its own.
    more = [seen(3, newer)] * LINES_A_BATCH
    summary = empty.load(seen(1, older), *more, seen(1, newer), *more, seen(2, older))
    assert summary.error is None
    assert empty.changes(persona["id"]) == ["created", "updated", "updated"]


def test_a_document_in_whose_place_a_later_load_puts_a_greater_one_goes(empty, persona):
    stamps = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z")
    names = ("Older", "Newer", "Older")
    for name, stamp in zip(names, stamps, strict=True):
        shown = persona | {"voice": persona["voice"] | {"displayName": name, "updatedAt": stamp}}
        empty.load(seen(1, shown))
    (voice,) = empty.rows("documents", kind="voice")
    assert voice["document"]["displayName"] == "Newer"


def test_a_copy_that_is_not_observed_is_not_stored(empty, persona):
    one, other = (edited(persona, voice__displayName=name) for name in ("A", "B"))
    empty.load(seen(1, one), seen(1, other))
    assert len(empty.rows("documents", kind="voice")) == 1
    empty.load(seen(1, other), seen(1, one))
    empty.load(seen(1, one))
    assert len(empty.rows("documents", kind="voice")) == 1


def beside(kind: str, document: dict[str, Any], **members: Any) -> dict[str, Any]:
    """What stands beside a payload that does not hold it."""
    return {"kind": kind, "entity_id": document["id"], "document": document, **members}


def test_a_document_beside_a_payload_is_cleaned_as_if_it_stood_in_there(empty, persona):
    token = "S3cr3tT0k3n"
    tool = edited(persona["tools"][0], apiKey="hidden", config={"headers": {"X-Mine": "hidden"}})
    own = edited(persona, shareLinks=[{"id": persona["voice"]["id"], "token": token}])
    clip = "https://cdn.example/clip.mp3?X-Amz-Signature=hidden"
    loose = [
        beside("tool", tool),
        beside("voice", edited(persona["voice"], sampleUrl=clip, updatedAt="2026-01-01T00:00:00Z")),
        beside("persona", own),
    ]
    named = [f"avatar {persona['avatar']['id']}"]
    summary = empty.load(seen(1, persona, documents=loose, observations=named))
    assert summary.error is None
    stored = {row["kind"]: row["document"] for row in empty.rows("documents")}
    # The group that only stands around is known from nowhere else.
    assert stored.keys() == {"avatar", "tool", "voice", "persona", "knowledge_group"}
    assert "hidden" not in json.dumps(list(stored.values()))
    assert token not in json.dumps(list(stored.values()))
    assert "updatedAt" not in stored["voice"]


def test_documents_beside_a_payload_that_contradict_it_reject_their_line(empty, persona):
    voice, other_id = persona["voice"], str(UUID(int=7))
    own = beside("persona", persona)
    summary = empty.load(
        seen(1, None, persona_id=persona["id"], documents=[own]),
        seen(2, persona, documents=[own]),
        seen(3, persona, documents=[beside("voice", edited(voice, displayName="Other"))]),
        seen(4, persona, observations=[], documents=[beside("voice", voice)] * 2),
        seen(5, persona, documents=[beside("voice", voice, entity_id=other_id)]),
        seen(6, persona, documents=[beside("persona", edited(persona, id=other_id))]),
        seen(7, persona),
    )
    twice = "documents: one stands there twice, or is told by the payload too"
    assert summary.rejected == [
        *(f"test:{number}: {twice}" for number in (1, 2, 3, 4)),
        "test:5: documents: one does not have its entity_id as its id",
        "test:6: documents: one is another persona, of which nobody else brings any",
    ]
    counts = {name: count for name, count in summary.counts.items() if count}
    assert counts == {"requested": 7, "created": 1, "rejected": 6}


def test_a_page_of_the_list_is_told_from_a_persona(empty, persona):
    page = {"data": [persona], "meta": {"currentPage": 1}}
    summary = empty.load(page, dated=day(1))
    assert summary.error is not None
    assert str(summary.error) == (
        "1 of 1 line rejected, nothing is loaded; first: test:1: it is a page of the API's list,"
        " where personas lack their prompts and more; save what GET /v1/personas/{id} answers"
    )
