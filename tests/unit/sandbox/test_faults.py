"""Faults over a real socket: each way in which an answer can differ, and who meets it when."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections import Counter
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

import httpx
import pytest

from etl.sandbox import Fault, RateLimit, Sandbox, running_sandbox
from etl.sandbox.wrong import WRONG


def persona(sandbox: Sandbox, index: int = 0) -> str:
    return f"/v1/personas/{sandbox.persona_ids[index]}"


def test_the_next_answers_are_those_ordered_and_then_all_is_well(sandbox, client):
    sandbox.order(
        Fault(429, headers={"Retry-After": "7"}, target=sandbox.persona_ids[0]),
        Fault(
            503,
            "<html>Bad gateway</html>",
            {"Content-Type": "text/html"},
            target=sandbox.persona_ids[0],
        ),
        Fault(200, b"", target=sandbox.persona_ids[0]),
        Fault(599, {"any": "json"}, target=sandbox.persona_ids[0]),
    )
    answers = [client.get(persona(sandbox)) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [429, 503, 200, 599, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[0].json()["error"] == "Too Many Requests"
    assert answers[1].headers["content-type"] == "text/html"
    assert answers[1].text == "<html>Bad gateway</html>"
    assert answers[2].content == b""
    assert answers[3].json() == {"any": "json"}
    assert answers[4].content == sandbox.world.body(sandbox.persona_ids[0])


def test_a_persona_meets_its_own_faults_and_no_others(sandbox, client):
    sandbox.order(Fault(500, target=sandbox.persona_ids[1]))
    sandbox.order(Fault(502, target="list"))
    assert client.get(persona(sandbox, 0)).status_code == 200
    assert client.get(persona(sandbox, 1)).status_code == 500
    assert client.get("/v1/personas").status_code == 502
    assert client.get("/v1/personas").status_code == 200


def test_a_fault_for_anyone_meets_the_nth_request_whatever_it_is(sandbox, client):
    sandbox.order(Fault(), Fault(), Fault(500))
    paths = [persona(sandbox, 0), "/v1/personas", persona(sandbox, 1), persona(sandbox, 2)]
    assert [client.get(path).status_code for path in paths] == [200, 200, 500, 200]


def test_a_lasting_fault_ends_when_the_script_is_cleared(sandbox, client):
    sandbox.order(Fault(429), Fault(500, times=None))
    statuses = [client.get(persona(sandbox)).status_code for _ in range(4)]
    assert statuses == [429, 500, 500, 500]
    sandbox.clear_faults()
    assert client.get(persona(sandbox)).status_code == 200


def test_a_fault_can_change_only_a_header_of_the_true_answer(sandbox, client):
    sandbox.order(Fault(headers={"Content-Type": "text/plain", "X-Odd": "yes"}))
    response = client.get(persona(sandbox))
    assert response.headers["content-type"] == "text/plain"
    assert response.headers["x-odd"] == "yes"
    assert response.content == sandbox.world.body(sandbox.persona_ids[0])


def test_a_body_can_be_compressed_by_whoever_orders_it(sandbox, client):
    sandbox.order(Fault(body=gzip.compress(b'"small"'), headers={"Content-Encoding": "gzip"}))
    assert client.get(persona(sandbox)).json() == "small"


def test_a_truncated_body_ends_before_its_declared_length(sandbox, client):
    sandbox.order(Fault(truncate_at=10))
    whole = len(sandbox.world.body(sandbox.persona_ids[0]))
    with pytest.raises(httpx.RemoteProtocolError, match=f"received 10 bytes, expected {whole}"):
        client.get(persona(sandbox))
    assert client.get(persona(sandbox)).status_code == 200


def test_a_closed_connection_answers_nothing(sandbox, client):
    sandbox.order(Fault(drop="close"))
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        client.get(persona(sandbox))


def test_a_reset_is_a_reset(sandbox, client):
    sandbox.order(Fault(drop="reset"))
    with pytest.raises(httpx.ReadError):
        client.get(persona(sandbox))


def test_raw_bytes_are_all_that_is_said(sandbox, exchange):
    sandbox.order(Fault(raw=b"SSH-2.0-OpenSSH\r\n"))
    request = f"GET {persona(sandbox)} HTTP/1.1\r\nHost: x\r\n\r\n"
    assert exchange(request.encode()) == b"SSH-2.0-OpenSSH\r\n"


def test_a_delay_is_silence_before_the_first_byte(sandbox, client):
    sandbox.order(Fault(delay_seconds=5))
    with pytest.raises(httpx.ReadTimeout):
        client.get(persona(sandbox), timeout=0.05)


def test_a_trickle_outlives_a_timeout_on_single_reads(sandbox, client):
    sandbox.world.set_payload(sandbox.persona_ids[0], b"x" * 100)
    sandbox.order(Fault(trickle_seconds=0.02, trickle_bytes=10))
    started = time.monotonic()
    response = client.get(persona(sandbox), timeout=0.15)
    assert response.content == b"x" * 100
    assert time.monotonic() - started > 0.15


# --- whom they meet, and when --------------------------------------------------------------


def statuses(client: httpx.Client, path: str, count: int) -> list[int]:
    return [client.get(path).status_code for _ in range(count)]


@pytest.mark.parametrize(
    ("when", "met"),
    [
        ({}, [1]),
        ({"times": 3}, [1, 2, 3]),
        ({"times": None}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"after": 2}, [3]),
        ({"after": 5, "times": None}, [6, 7, 8, 9]),
        ({"every": 3}, [3, 6, 9]),
        ({"every": 2, "after": 1, "times": 3}, [3, 5, 7]),
        ({"probability": 0}, []),
        ({"probability": 1, "times": 2}, [1, 2]),
    ],
)
def test_a_fault_meets_the_requests_that_it_was_ordered_for(sandbox, client, first, when, met):
    sandbox.order(Fault(500, **when))
    answers = statuses(client, first, 9)
    assert [n for n, status in enumerate(answers, 1) if status == 500] == met
    assert set(answers) <= {200, 500}


def test_chance_depends_on_the_seed_alone(sandbox, client, first):
    runs = []
    for seed in (1, 1, 2):
        sandbox.clear_faults()
        sandbox.order(Fault(500, probability=0.4, seed=seed))
        runs.append(statuses(client, first, 40))
    assert runs[0] == runs[1] != runs[2]
    assert 5 < Counter(runs[0])[500] < 30


def test_jitter_is_a_delay_by_chance(sandbox, client, first):
    sandbox.order(Fault(jitter_seconds=60, seed=1))
    with pytest.raises(httpx.ReadTimeout):
        client.get(first, timeout=0.05)
    sandbox.order(Fault(jitter_seconds=0.001, seed=1))
    assert client.get(first).status_code == 200


def test_a_target_is_one_persona_all_of_them_the_list_or_all(sandbox, client):
    sandbox.order(
        Fault(501, target="all", times=None),
        Fault(502, target="personas", times=None),
        Fault(503, target="list", times=None),
        Fault(504, target=sandbox.persona_ids[0].upper()),
    )
    assert statuses(client, persona(sandbox, 0), 2) == [504, 502]
    assert statuses(client, persona(sandbox, 1), 2) == [502, 502]
    assert statuses(client, "/v1/personas", 2) == [503, 503]
    assert statuses(client, "/v1/avatars", 1) == [501]


def test_what_ends_goes_before_what_lasts_and_the_latest_of_those_wins(sandbox, client, first):
    sandbox.order(Fault(500, times=None))
    sandbox.order(Fault(501, times=None), Fault(502), Fault(503))
    assert statuses(client, first, 4) == [502, 503, 501, 501]


def test_one_fault_can_be_cleared_by_its_number(sandbox, client, first):
    one, two = sandbox.order(Fault(500, times=None), Fault(501, times=None))
    sandbox.server.script.clear(two)
    assert statuses(client, first, 1) == [500]
    with pytest.raises(KeyError):
        sandbox.server.script.clear(two)
    sandbox.server.script.clear(one)
    assert statuses(client, first, 1) == [200]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"status": 42}, "status: 42 is not from 100 to 999"),
        ({"delay_seconds": -1}, "delay_seconds: -1 is not from 0 to 86400"),
        ({"delay_seconds": float("nan")}, "delay_seconds: nan is not"),
        ({"trickle_bytes": 0}, "trickle_bytes: 0 is not from 1"),
        ({"probability": 1.5}, "probability: 1.5 is not from 0 to 1"),
        ({"wrong": "banana"}, 'wrong: "banana" is none of html, '),
        ({"drop": "slam"}, 'drop: "slam" is none of close, reset, stall'),
        ({"headers": {"X-A": "1\r\nX-B: 2"}}, "headers: X-A can't be"),
        ({"headers": {"X A": "1"}}, "headers: 'X A' is no name of a header"),
        ({"headers": {"X-A": "☃"}}, "headers: X-A can't be"),
        ({"retry_after": "1\n"}, "headers: Retry-After can't be"),
    ],
)
def test_a_fault_that_could_not_be_done_is_refused(parts, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Fault(**parts)


# --- wrong bodies --------------------------------------------------------------------------


def test_there_is_a_test_for_every_wrong_body():
    assert set(WRONG) == {*NOT_STRICT_JSON, *JSON_BUT_ODD, "other_persona", "huge", "gzip_bomb"}


NOT_STRICT_JSON = {
    "html": rb"<!DOCTYPE html>",
    "text": rb"upstream connect error",
    "empty": rb"$",
    "not_json": rb"\{'id'",
    "half": rb'\{"id":"[0-9a-f-]{36}",.*[^}]$',
    "nan": rb'.*"voiceSpeed":NaN',
    "repeated_key": rb'\{"id":null,"id":"',
    "invalid_utf8": rb'.*"name":"caf\xe9"',
}
JSON_BUT_ODD = ("array", "deep", "nul", "lone_surrogate")


@pytest.mark.parametrize("wrong", NOT_STRICT_JSON)
def test_a_wrong_body_comes_as_a_whole_answer(sandbox, client, first, wrong):
    sandbox.order(Fault(wrong=wrong))
    response = client.get(first)
    assert response.status_code == 200
    assert re.match(NOT_STRICT_JSON[wrong], response.content, re.DOTALL)
    expected = {"html": "text/html; charset=utf-8", "text": "text/plain"}
    json_type = "application/json; charset=utf-8"
    assert response.headers["content-type"] == expected.get(wrong, json_type)
    assert client.get(first).content == sandbox.world.body(sandbox.persona_ids[0])


@pytest.mark.parametrize("wrong", JSON_BUT_ODD)
def test_an_odd_body_keeps_what_else_was_true(sandbox, client, first, wrong):
    true = sandbox.world.payload(sandbox.persona_ids[0])
    sandbox.order(Fault(wrong=wrong))
    body = client.get(first).content
    if wrong == "array":
        assert json.loads(body) == [true]
    elif wrong == "deep":
        assert body.count(b"[") - body.count(b"]") == 0
        assert b"[" * 20_000 in body
    else:
        odd = {"nul": "\0", "lone_surrogate": "\ud83d"}[wrong]
        got = json.loads(body)
        assert odd in got["name"]
        assert got | {"name": true["name"]} == true


def test_another_persona_can_come_in_the_place_of_the_one_asked_for(sandbox, client, first):
    sandbox.order(Fault(wrong="other_persona"))
    assert client.get(first).json()["id"] == sandbox.persona_ids[1]
    sandbox.order(Fault(wrong="other_persona"))
    assert client.get(persona(sandbox, 1)).json()["id"] == sandbox.persona_ids[0]


def test_a_lone_persona_is_mistaken_for_nobodys(client_of):
    with running_sandbox(count=1) as sandbox, client_of(sandbox) as client:
        sandbox.order(Fault(wrong="other_persona"))
        assert client.get(persona(sandbox)).json()["id"] not in sandbox.persona_ids


def test_a_huge_body_and_a_bomb_are_right_for_whoever_reads_all_of_it(sandbox, client, first):
    true = sandbox.world.payload(sandbox.persona_ids[0])
    sandbox.order(Fault(wrong="huge", size_bytes=300_000))
    huge = client.get(first)
    assert len(huge.content) > 300_000
    assert huge.json() == true
    sandbox.order(Fault(wrong="gzip_bomb", size_bytes=3_000_000))
    bomb = client.get(first)
    assert int(bomb.headers["content-length"]) < 20_000
    assert len(bomb.content) > 3_000_000
    assert bomb.json() == true


@pytest.mark.parametrize("wrong", WRONG)
def test_every_wrong_body_can_be_made_of_anything(sandbox, client, first, wrong):
    for body in (b"", b"<html>", b"[]", b"{}", b'{"a'):
        sandbox.world.set_payload(sandbox.persona_ids[0], body)
        sandbox.order(Fault(wrong=wrong, size_bytes=10))
        assert client.get(first).status_code == 200


def test_a_wrong_body_can_come_with_any_status(sandbox, client, first):
    sandbox.order(Fault(502, wrong="html"))
    response = client.get(first)
    assert (response.status_code, response.text[:9]) == (502, "<!DOCTYPE")


# --- errors, redirects, throttling ---------------------------------------------------------


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none_and_the_connection_goes_on(sandbox, client, status):
    sandbox.order(Fault(status))
    assert client.get(persona(sandbox)).status_code == status
    assert client.get(persona(sandbox)).status_code == 200


def test_a_redirect_is_a_status_and_a_header(sandbox, client, first):
    sandbox.order(Fault(307, headers={"Location": persona(sandbox, 1)}))
    assert client.get(first, follow_redirects=True).json()["id"] == sandbox.persona_ids[1]


@pytest.mark.parametrize(
    ("parts", "said"),
    [({}, None), ({"retry_after": 2}, "2"), ({"retry_after": "soon"}, "soon")],
)
def test_retry_after_comes_in_seconds_as_nonsense_or_not_at_all(sandbox, client, parts, said):
    sandbox.order(Fault(429, **parts))
    assert client.get("/v1/personas").headers.get("retry-after") == said


def test_retry_after_comes_as_a_date_which_can_be_held_against_the_answers_own(sandbox, client):
    sandbox.order(Fault(503, retry_after_date=90))
    headers = client.get("/v1/personas").headers
    assert headers["retry-after"].endswith(" GMT")
    then, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
    assert (then - now).total_seconds() == 90


def test_a_rate_limit_tells_what_is_left_and_then_throttles(client_of):
    with (
        running_sandbox(count=1, rate_limit=RateLimit(2, 60)) as sandbox,
        client_of(sandbox) as client,
    ):
        answers = [client.get(persona(sandbox)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["ratelimit-limit"] for answer in answers} == {"2"}
    assert 0 < int(answers[2].headers["retry-after"]) <= 60
    assert "retry-after" not in answers[0].headers


def test_a_rate_limit_opens_again_with_the_next_window(client_of):
    with (
        running_sandbox(count=1, rate_limit=RateLimit(1, 0.05)) as sandbox,
        client_of(sandbox) as client,
    ):
        client.get(persona(sandbox))
        time.sleep(0.06)
        assert client.get(persona(sandbox)).status_code == 200


@pytest.mark.parametrize(
    ("style", "prefixes"),
    [
        ("standard", ["ratelimit-"]),
        ("org_hour", ["x-ratelimit-org-hour-"]),
        ("both", ["ratelimit-", "x-ratelimit-org-hour-"]),
        ("none", []),
    ],
)
def test_a_rate_limit_is_told_in_each_style(client_of, style, prefixes):
    limit = RateLimit(1, 60, headers=style)
    with running_sandbox(count=1, rate_limit=limit) as sandbox, client_of(sandbox) as client:
        for left in ("0", "0"):
            headers = client.get(persona(sandbox)).headers
            assert {name for name in headers if "ratelimit" in name} == {
                f"{prefix}{what}" for prefix in prefixes for what in ("limit", "remaining", "reset")
            }
            for prefix in prefixes:
                assert headers[f"{prefix}remaining"] == left
                assert 0 < int(headers[f"{prefix}reset"]) <= 60


@pytest.mark.parametrize("style", ["seconds", "date", "none", "nonsense"])
def test_a_refusal_asks_for_patience_in_each_style(client_of, style):
    limit = RateLimit(0, 60, retry_after=style, status=503)
    with running_sandbox(count=1, rate_limit=limit) as sandbox, client_of(sandbox) as client:
        refused = client.get(persona(sandbox))
    assert refused.status_code == 503
    said = refused.headers.get("retry-after")
    if style == "date":
        now = parsedate_to_datetime(refused.headers["date"])
        assert 0 < (parsedate_to_datetime(said or "") - now).total_seconds() <= 60
    elif style == "seconds":
        assert 0 < int(said or 0) <= 60
    else:
        assert said == {"none": None, "nonsense": "soon"}[style]


@pytest.mark.parametrize("style", [{"headers": "x"}, {"retry_after": "x"}])
def test_an_unknown_style_is_refused(style):
    with pytest.raises(ValueError, match='"x" is none of'):
        RateLimit(1, 1, **style)


# --- broken answers ------------------------------------------------------------------------


def request_for(path: str) -> bytes:
    key = "Authorization: Bearer sandbox-key"
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{key}\r\n\r\n".encode()


def test_a_body_can_be_compressed_and_cut(sandbox, client, first):
    whole = sandbox.world.body(sandbox.persona_ids[0])
    sandbox.order(Fault(gzip=True))
    assert client.get(first).content == whole
    sandbox.order(Fault(gzip=True, truncate_at=40))
    with pytest.raises(httpx.RemoteProtocolError, match="received 40 bytes"):
        client.get(first)
    # Here all that was promised comes, and is no whole gzip.
    sandbox.order(Fault(gzip=True, headers={"Content-Length": "1000"}))
    cut = client.get(first)
    assert cut.headers["content-encoding"] == "gzip"
    assert 0 < len(cut.content) < len(whole)
    assert whole.startswith(cut.content)


def test_chunks_come_with_an_end_or_without(sandbox, client, exchange, first):
    whole = sandbox.world.body(sandbox.persona_ids[0])
    sandbox.order(Fault(chunked=True))
    response = client.get(first)
    assert response.content == whole
    assert response.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in response.headers
    sandbox.order(Fault(chunked=True, truncate_at=100))
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        client.get(first)
    sandbox.order(Fault(chunked=True, truncate_at=100))
    assert exchange(request_for(first)).endswith(b"\r\n64\r\n%s\r\n" % whole[:100])


def test_a_body_without_an_end_comes_again_and_again(sandbox, client, first):
    sandbox.order(Fault(body=b"abc", endless=True))
    with client.stream("GET", first) as response:
        assert response.headers["transfer-encoding"] == "chunked"
        found = b"".join(islice(response.iter_raw(100), 50))
    assert found == (b"abc" * 5000)[:5000]
    assert client.get(first).json()["id"] == sandbox.persona_ids[0]


def test_a_content_length_can_lie_in_both_directions(sandbox, client, exchange, first):
    sandbox.world.set_payload(sandbox.persona_ids[0], b"0123456789")
    sandbox.order(Fault(headers={"Content-Length": "4"}))
    short = client.get(first)
    assert short.content == b"0123"
    assert short.headers["connection"] == "close"
    sandbox.order(Fault(headers={"Content-Length": "99"}))
    with pytest.raises(httpx.RemoteProtocolError, match="received 10 bytes, expected 99"):
        client.get(first)


def test_a_connection_can_be_reset_in_the_middle_of_a_body(sandbox, connect, first):
    sandbox.order(Fault(truncate_at=10, drop="reset"))
    with connect() as connection:
        connection.sendall(request_for(first))
        time.sleep(0.05)
        got = connection.recv(65536)
        assert got.endswith(b"\r\n\r\n" + sandbox.world.body(sandbox.persona_ids[0])[:10])
        with pytest.raises(ConnectionResetError):
            connection.recv(65536)


@pytest.mark.parametrize("at", [None, 10])
def test_a_stalled_answer_leaves_the_line_open(sandbox, client, first, at):
    sandbox.order(Fault(drop="stall", truncate_at=at))
    with pytest.raises(httpx.ReadTimeout):
        client.get(first, timeout=0.05)
    assert client.get(first).status_code == 200


# --- a list that drifts --------------------------------------------------------------------


def pages(client: httpx.Client, *, per_page: int = 10) -> list[Any]:
    """All pages, as one who follows `next` sees them."""
    found, number = [], 1
    while number:
        query = {"page": number, "perPage": per_page}
        found.append(client.get("/v1/personas", params=query).json())
        number = found[-1]["meta"]["next"]
    return found


def ids_in(found) -> list[str]:
    return [item["id"] for page in found for item in page["data"]]


def test_pages_can_be_smaller_than_was_asked_for(sandbox, client):
    sandbox.order(Fault(per_page=4, target="list", times=None))
    found = pages(client, per_page=100)
    assert [len(page["data"]) for page in found] == [4, 4, 4, 4, 4, 4, 1]
    assert ids_in(found) == sandbox.persona_ids
    assert {page["meta"]["perPage"] for page in found} == {4}


def test_personas_can_be_missed_between_two_pages(sandbox, client):
    sandbox.order(Fault(shift=2, target="list", times=None))
    ids = sandbox.persona_ids
    assert ids_in(pages(client)) == [*ids[:10], *ids[12:22], *ids[24:]]


def test_personas_can_come_twice(sandbox, client):
    sandbox.order(Fault(shift=-3, target="list", times=None))
    ids = sandbox.persona_ids
    assert ids_in(pages(client)) == [*ids[:10], *ids[7:17], *ids[14:24]]


def test_each_page_can_be_cut_from_another_order(sandbox, client):
    sandbox.order(Fault(shuffle=True, target="list", times=None))
    once, twice = pages(client), pages(client)
    assert once == twice
    assert len(ids_in(once)) == 25
    assert len(set(ids_in(once))) < 25


def test_what_the_list_says_of_itself_can_be_wrong(sandbox, client):
    sandbox.order(Fault(meta={"total": 3, "next": None, "odd": [1]}, target="list"))
    meta = client.get("/v1/personas").json()["meta"]
    assert meta == {
        "total": 3,
        "lastPage": 3,
        "currentPage": 1,
        "perPage": 10,
        "prev": None,
        "next": None,
        "odd": [1],
    }
