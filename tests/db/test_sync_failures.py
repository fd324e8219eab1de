"""One bad answer is recorded and the next is tried; what would fail for all ends the run."""

from __future__ import annotations

import hashlib
import socket
from uuid import UUID

import pytest
from msgspec.structs import replace

from etl.errors import DeferredError, KeyRefusedError, SourceDownError
from etl.payload.clean import BLANK
from etl.sandbox import Fault

pytestmark = pytest.mark.usefixtures("impatience")


def unharmed(target, before) -> None:
    """Nothing that the API once said was lost or changed."""
    for name in before.keys() - {"runs", "run_items", "persona_sync_state", "rejected_payloads"}:
        assert target.rows(name) == before[name], name


# What came, what it is called, the status, and what the ledger says.
BAD_ANSWERS = [
    (Fault(status=403), "forbidden", 403, "the API answers 403"),
    (Fault(status=400), "failed", 400, "400"),
    (Fault(status=302, headers={"Location": "https://x.example/?s=1"}), "failed", 302, "x.exa"),
    (Fault(body=b"<html>maintenance</html>"), "rejected", 200, "not JSON"),
    (
        Fault(body=b"<html>Log in</html>", headers={"Content-Type": "text/html; charset=utf-8"}),
        "rejected",
        200,
        "not JSON at offset 0 (text/html)",
    ),
    (Fault(status=422, body={"message": "no such plan"}), "failed", 422, '422 ("no such plan")'),
    (Fault(body=b'{"id": "'), "rejected", 200, "not JSON"),
    (Fault(body=b""), "rejected", 200, "empty"),
    (Fault(body=b"null"), "rejected", 200, "not a JSON object"),
    (Fault(body=["a", "list"]), "rejected", 200, "not a JSON object"),
    (Fault(body={"name": "nobody"}), "rejected", 200, "no id"),
    (Fault(body={"id": 7}), "rejected", 200, "no id"),
    (Fault(body={"id": str(UUID(int=5))}), "rejected", 200, str(UUID(int=5))),
    (Fault(body=b'{"id": NaN}'), "rejected", 200, "NaN"),
    (Fault(body=b'{"id": 1, "id": 2}'), "rejected", 200, "repeated key"),
    (Fault(body=b'{"a":' * 600 + b"1" + b"}" * 600), "rejected", 200, "500 levels"),
]


def test_bad_answers_do_not_stop_the_others(copying):
    with copying(count=20) as target:
        target.sync()
        before = target.dump()
        ids = target.world.persona_ids
        for persona_id, (fault, *_) in zip(ids[3:], BAD_ANSWERS, strict=False):
            target.sandbox.order(replace(fault, target=persona_id))
        summary = target.sync()
        assert (summary.status, summary.exit_code) == ("partial", 3)
        assert summary.counts["unchanged"] == 20 - len(BAD_ANSWERS)
        unharmed(target, before)
        for persona_id, (_, outcome, status, message) in zip(ids[3:], BAD_ANSWERS, strict=False):
            item = target.outcome(persona_id)
            assert (item["outcome"], item["http_status"], item["attempts"]) == (outcome, status, 1)
            assert message in item["message"]
            state = target.state(persona_id)
            assert (state["last_outcome"], state["consecutive_failures"]) == (outcome, 1)
            assert state["last_attempt_at"] > state["last_success_at"]
            assert state["last_run_id"] == summary.run_id
        # The next run finds all well.
        assert target.sync().counts["unchanged"] == 20
        assert target.query("SELECT max(consecutive_failures) FROM persona_sync_state") == [
            {"max": 0}
        ]


def test_failures_in_a_row_are_counted(target):
    bad, *others = target.world.persona_ids
    faults = (Fault(status=403), Fault(status=400), Fault(body=b"no"))
    for count, fault in enumerate(faults, start=1):
        target.sandbox.order(replace(fault, target=bad))
        target.sync([bad, *others])
        assert target.state(bad)["consecutive_failures"] == count
    target.sync()
    assert target.state(bad)["consecutive_failures"] == 0


# A body, and what is kept of it.
REJECTED = [
    (b'{"id": 1, "apiKey": "canary", "n": 1e400}', {"id": 1, "apiKey": BLANK}),
    (b'["canary"]', ["canary"]),
    (b'"text"', "text"),
    (b"<html>canary</html>", None),
    (b'{"canary', None),
    (b"null", None),
    (b"false", False),
    (b'{"id": "\\u0000"}', {"id": "\ufffd"}),
]


def test_a_rejected_body_is_kept_cleaned_where_it_parses(copying):
    headers = {"Content-Type": "text/html; charset=utf-8"}
    with copying(count=len(REJECTED)) as target:
        for persona_id, (body, _) in zip(target.world.persona_ids, REJECTED, strict=True):
            target.sandbox.order(Fault(body=body, headers=headers, target=persona_id))
        summary = target.sync()
        for persona_id, (body, kept) in zip(target.world.persona_ids, REJECTED, strict=True):
            row = target.row("rejected_payloads", persona_id=UUID(persona_id))
            found = row["body"]
            if isinstance(found, dict):
                found = {name: value for name, value in found.items() if name != "n"}
            assert found == kept
            assert row["run_id"] == summary.run_id
            assert (row["length"], row["sha256"]) == (len(body), hashlib.sha256(body).digest())
            assert row["content_type"] == "text/html; charset=utf-8"
            assert summary.started_at < row["observed_at"] < summary.finished_at


def test_a_rejected_body_that_comes_again_is_told_by_each_run_and_kept_once(target):
    bad, other = target.world.persona_ids[:2]
    bodies = [b"no", b"no", b"not now", b"no", b"no"]
    for body in bodies:
        target.sandbox.clear_faults()
        target.sandbox.order(*(Fault(body=body, target=id_) for id_ in (bad, other)))
        target.sync([bad, other])
        assert (target.outcome(bad)["outcome"], target.outcome(other)["outcome"]) == (
            ("rejected", "rejected")
        )
        assert "not JSON" in target.outcome(bad)["message"]
    assert target.state(bad)["consecutive_failures"] == len(bodies)
    for id_ in (bad, other):
        rows = target.rows("rejected_payloads", persona_id=UUID(id_))
        assert sorted(row["length"] for row in rows) == [2, 2, 7]


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_a_body_that_says_it_is_too_big_is_rejected_unread(target):
    bad, *others = target.world.persona_ids
    length = 65 * 1024 * 1024
    target.sandbox.order(Fault(body=b"{", headers={"Content-Length": str(length)}, target=bad))
    assert target.sync([bad, *others]).counts["rejected"] == 1
    row = target.row("rejected_payloads")
    assert (row["length"], row["sha256"], row["body"]) == (length, None, None)


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_what_is_got_at_the_second_attempt_is_well(target):
    bad = target.world.persona_ids[0]
    target.world.edit(bad, {"name": "Patient"})
    for fault in (Fault(status=503), Fault(drop="reset"), Fault(truncate_at=9)):
        target.sandbox.order(replace(fault, target=bad))
        summary = target.sync([bad])
        assert (summary.status, summary.http_requests) == ("succeeded", 2)
    assert target.persona(bad)["name"] == "Patient"


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_errors_to_the_end_fail_one_and_then_all(target):
    """One run of each, since each waits for four attempts."""
    bad, *others = target.world.persona_ids
    before = target.dump()
    target.sandbox.order(Fault(status=500, target=bad, times=None))
    summary = target.sync([bad, *others])
    assert (summary.status, summary.exit_code, summary.counts["failed"]) == ("partial", 3, 1)
    item = target.outcome(bad)
    assert (item["http_status"], item["attempts"]) == (500, 4)
    assert "after 4 attempts" in item["message"]

    target.sandbox.clear_faults()
    target.sandbox.order(Fault(truncate_at=5, times=None))
    summary = target.sync()
    assert (summary.status, summary.exit_code, summary.counts["failed"]) == ("failed", 5, 6)
    assert isinstance(summary.error, SourceDownError)
    unharmed(target, before)


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_a_login_page_for_everybody_ends_the_run_early(copying):
    with copying(count=2000) as target:
        target.sandbox.order(Fault(wrong="html", target="personas", times=None))
        summary = target.sync()
        assert (summary.status, summary.exit_code) == ("failed", 5)
        assert "answers none is a persona; check api.base_url" in str(summary.error)
        assert summary.counts["rejected"] >= 100
        assert summary.counts["not_attempted"] > 0
        target.sandbox.server.script.clear()
        target.sync(target.world.persona_ids[:3])


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_403_for_one_of_one_is_forbidden(target):
    bad = target.world.persona_ids[0]
    target.sandbox.order(Fault(status=403, target=bad))
    summary = target.sync([bad])
    assert (summary.status, summary.exit_code) == ("partial", 3)


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_403_for_all_of_two_is_the_keys_fault(target):
    before = target.dump()
    target.sandbox.order(Fault(status=403, times=None))
    summary = target.sync(target.world.persona_ids[:2])
    assert (summary.status, summary.exit_code) == ("failed", 4)
    assert isinstance(summary.error, KeyRefusedError)
    assert summary.counts["forbidden"] == 2
    unharmed(target, before)


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_403_for_all_but_one_is_partial(target):
    for persona_id in target.world.persona_ids[1:]:
        target.sandbox.order(Fault(status=403, target=persona_id))
    summary = target.sync()
    assert (summary.exit_code, summary.counts["forbidden"]) == (3, 5)


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_401_stops_early(copying):
    with copying(count=60) as target:
        target.sync(target.world.persona_ids[:3])
        before = target.dump()
        target.sandbox.order(Fault(status=401, target=target.world.persona_ids[5]))
        summary = target.sync(API__CONCURRENCY="1")
        assert (summary.status, summary.exit_code) == ("failed", 4)
        assert isinstance(summary.error, KeyRefusedError)
        assert summary.counts["failed"] == 1
        # What came before stays; nothing was asked for after. The known ones come last.
        assert summary.counts["created"] == 2
        assert summary.counts["not_attempted"] == 57
        assert summary.http_requests == 3
        assert [row for row in target.rows("personas") if row in before["personas"]] == (
            before["personas"]
        )
        item = target.row("run_items", run_id=summary.run_id, outcome="failed")
        assert (item["http_status"], str(item["persona_id"])) == (401, target.world.persona_ids[5])


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_runs_that_are_cut_short_get_to_everybody_in_turn(copying):
    with copying(count=9) as target:
        ids = target.world.persona_ids
        for _ in range(3):
            asked = target.sandbox.requests.total
            # The fourth request is told to come back much later.
            late = Fault(status=429, retry_after=9999, target="personas", after=3)
            target.sandbox.order(late)
            assert target.sync(API__CONCURRENCY="1").status == "deferred"
            assert target.sandbox.requests.total == asked + 4
            target.sandbox.clear_faults()
        states = target.rows("persona_sync_state")
        assert sorted(str(state["persona_id"]) for state in states) == sorted(ids)
        waited_longest = min(states, key=lambda state: state["last_attempt_at"])
        target.sandbox.requests.clear()
        target.sync(API__CONCURRENCY="1")
        (first, *_) = target.sandbox.requests.recent
        assert str(waited_longest["persona_id"]) in first.path


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_401_for_the_only_one_is_the_keys_fault_too(target):
    persona_id = target.world.persona_ids[0]
    target.sandbox.order(Fault(status=401, target=persona_id))
    assert target.sync([persona_id]).exit_code == 4


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_a_wait_beyond_the_limit_defers_the_run(copying):
    with copying(count=30) as target:
        slow = Fault(status=429, headers={"Retry-After": "3600"})
        target.sandbox.order(replace(slow, target=target.world.persona_ids[4]))
        summary = target.sync(API__CONCURRENCY="1", API__MAX_WAIT_SECONDS="60")
        assert (summary.status, summary.exit_code) == ("deferred", 5)
        assert isinstance(summary.error, DeferredError)
        assert "3600" in str(summary.error)
        assert summary.counts["created"] == 4
        assert summary.counts["not_attempted"] == 26
        assert len(target.rows("personas")) == 4
        # The next run goes on.
        assert target.sync().counts["created"] == 26


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_a_wait_within_the_limit_is_waited(target):
    bad = target.world.persona_ids[0]
    target.sandbox.order(Fault(status=429, headers={"Retry-After": "0"}, target=bad))
    summary = target.sync()
    assert (summary.status, summary.http_requests) == ("succeeded", 7)


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_the_runs_own_deadline_defers_it(copying):
    with copying(count=20, latency_seconds=0.1) as target:
        summary = target.sync(API__CONCURRENCY="2", SAFETY__RUN_DEADLINE_SECONDS="0.4")
        assert (summary.status, summary.exit_code) == ("deferred", 5)
        assert 0 < summary.counts["created"] < 20
        assert len(target.rows("personas")) == summary.counts["created"]
        assert "run_deadline_seconds" in str(summary.error)


# It is about the API; `test_every_outcome_in_one_run` enters each outcome.
@pytest.mark.one_server
def test_an_unreachable_api_is_told(target):
    before = target.dump()
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # Bound, not listening: refused.
        environment = target.environment
        nowhere = f"http://127.0.0.1:{held.getsockname()[1]}"
        target.environment = lambda **s: environment(**s) | {"ANAM_API_URL": nowhere}
        summary = target.sync()
    assert (summary.status, summary.exit_code) == ("failed", 5)
    assert isinstance(summary.error, SourceDownError)
    assert summary.counts["failed"] == 6
    item = target.rows("run_items", run_id=summary.run_id)[0]
    assert item["http_status"] is None
    assert "connection refused" in item["message"]
    unharmed(target, before)


def test_every_outcome_in_one_run(copying):
    with copying(count=12) as target:
        ids = target.world.persona_ids
        target.sync(ids[:11])
        target.world.delete(ids[0])
        target.sync(ids[:11])
        target.world.restore(ids[0])
        target.world.delete(ids[1])
        target.world.edit(ids[2], {"name": "Edited"})
        reshaped = {**target.world.payload(ids[3]), "new": 1}
        target.world.set_payload(ids[3], reshaped)
        target.sandbox.order(Fault(status=403, target=ids[4]))
        target.sandbox.order(Fault(body=b"no", target=ids[5]))
        target.sandbox.order(Fault(status=400, target=ids[6]))
        summary = target.sync(ids)
        assert summary.counts == {
            "requested": 12,
            "created": 1,
            "updated": 1,
            "reshaped": 1,
            "unchanged": 4,
            "restored": 1,
            "missing": 1,
            "forbidden": 1,
            "rejected": 1,
            "failed": 1,
            "not_attempted": 0,
        }
        assert (summary.status, summary.exit_code) == ("partial", 3)
        items = target.rows("run_items", run_id=summary.run_id)
        told = {str(item["persona_id"]): item["outcome"] for item in items}
        assert [told.get(i) for i in ids] == [
            "restored", "missing", "updated", "reshaped", "forbidden", "rejected", "failed",
            None, None, None, None, "created",
        ]  # fmt: skip
        states = [target.state(i)["last_outcome"] for i in ids]
        assert states == [told.get(i, "unchanged") for i in ids]


def test_strict_stops_at_an_unmapped_field_once_all_is_loaded(target):
    target.world.reshape(lambda payload: payload | {"mood": 1})
    summary = target.sync(strict=True)
    assert (summary.status, summary.exit_code) == ("failed", 7)
    assert "persona: mood" in str(summary.error)
    assert summary.counts["reshaped"] == 6
    assert target.sync(strict=True).exit_code == 0


@pytest.mark.parametrize(("drift", "code"), [("record", 0), ("warn", 0), ("fail", 7)])
def test_what_an_unmapped_field_does_is_a_setting(target, drift, code):
    target.world.reshape(lambda payload: payload | {"mood": 1})
    assert target.sync(SAFETY__DRIFT=drift).exit_code == code
