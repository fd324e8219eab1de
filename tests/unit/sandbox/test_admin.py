"""What can be ordered over HTTP, as a person with curl or a test in another language would."""

from __future__ import annotations

import json
import logging
import time

import pytest

from etl.sandbox import Fault, RateLimit, running_sandbox
from etl.sandbox.admin import CALLS
from etl.sandbox.world import KINDS

ADMIN = "/_sandbox/"


@pytest.fixture
def order(client):
    """What makes a call and returns its JSON; it must go well."""

    def make(method: str, path: str, body: object = None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
        response = client.request(method, ADMIN + path, content=content)
        assert response.status_code == 200, response.text
        return response.json()

    return make


# --- personas and shared things ------------------------------------------------------------


def test_a_persona_can_be_added_edited_deleted_and_restored(sandbox, client, order, first):
    path = f"personas/{sandbox.persona_ids[0]}"
    order("PATCH", path, {"name": "Ada"})
    assert client.get(first).json()["name"] == "Ada"
    assert order("GET", path)["name"] == "Ada"
    order("DELETE", path)
    assert client.get(first).status_code == 404
    assert order("GET", "personas")[0]["deleted"]
    order("POST", f"{path}/restore")
    assert client.get(first).json()["name"] == "Ada"
    added = order(
        "POST", "personas", {"name": "New", "voice": sandbox.world.shared_ids("voices")[0]}
    )
    payload = client.get(f"/v1/personas/{added['id']}").json()
    assert payload["name"] == "New"
    assert payload["voice"]["id"] == sandbox.world.shared_ids("voices")[0]


def test_a_payload_can_be_put_verbatim_and_taken_back(sandbox, client, order, first):
    path = f"personas/{sandbox.persona_ids[0]}/payload"
    true = client.get(first).content
    order("PUT", path, b'{"a": NaN, "a": \xff')
    assert client.get(first).content == b'{"a": NaN, "a": \xff'
    assert order("GET", "personas")[0]["verbatim"]
    order("DELETE", path)
    assert client.get(first).content == true
    order("PUT", "personas/elsewhere/payload", b"{}")
    assert order("GET", "personas")[-1] == {
        "id": "elsewhere",
        "name": None,
        "deleted": False,
        "verbatim": True,
    }


@pytest.mark.parametrize(
    ("kind", "field", "name"),
    [
        ("avatars", "avatar", "displayName"),
        ("voices", "voice", "displayName"),
        ("tools", "tools", "name"),
        ("knowledge", "knowledge", "name"),
    ],
)
def test_a_shared_thing_can_be_added_edited_deleted_and_restored(
    sandbox, client, order, first, *, kind, field, name
):
    def shown():
        value = client.get(first).json()[field]
        return value if isinstance(value, dict | None) else next(iter(value), None)

    id_ = order("POST", kind, {name: "New"})["id"]
    many = field in {"tools", "knowledge"}
    order("PATCH", f"personas/{sandbox.persona_ids[0]}", {field: [id_] if many else id_})
    assert shown()[name] == "New"
    order("PATCH", f"{kind}/{id_}", {name: "Newer"})
    assert shown()[name] == "Newer"
    assert order("GET", f"{kind}/{id_}")[name] == "Newer"
    order("DELETE", f"{kind}/{id_}")
    assert client.get(first).json()[field] == ([] if many else None)
    assert order("GET", kind)[-1] == {"id": id_, "name": "Newer", "deleted": True}
    order("POST", f"{kind}/{id_}/restore")
    assert shown()[name] == "Newer"


def test_two_things_added_without_an_id_are_two(order):
    assert order("POST", "tools", {"name": "a"}) != order("POST", "tools", {"name": "a"})


# --- faults --------------------------------------------------------------------------------


def test_faults_are_ordered_listed_met_and_cleared(client, order, first):
    json_form = {"status": 429, "headers": {"Retry-After": "1"}, "times": 2}
    assert order("POST", "faults", [json_form, "list:500:always"]) == {"numbers": [1, 2]}
    assert client.get(first).headers["retry-after"] == "1"
    assert order("GET", "faults") == [
        {"number": 1, "seen": 1, "met": 1, "fault": json_form},
        {
            "number": 2,
            "seen": 0,
            "met": 0,
            "fault": {"status": 500, "target": "list", "times": None},
        },
    ]
    assert order("GET", "state")["faults_waiting"] == 2
    order("DELETE", "faults/1")
    assert client.get(first).status_code == 200
    assert client.get("/v1/personas").status_code == 500
    order("DELETE", "faults")
    assert client.get("/v1/personas").status_code == 200
    assert order("GET", "faults") == []


def test_of_a_list_with_a_mistake_nothing_is_ordered(client, order):
    refused = client.post(f"{ADMIN}faults", json=[{"status": 500}, {"statsu": 500}])
    assert refused.status_code == 400
    assert "did you mean status?" in refused.json()["message"]
    assert order("GET", "faults") == []


def test_a_fault_with_bytes_can_be_listed(sandbox, order):
    sandbox.order(Fault(raw=b"\xff\xfe"), Fault(body=b"\xff"))
    assert [ordered["fault"] for ordered in order("GET", "faults")] == [
        {"raw": "//4="},
        {"body": "/w=="},
    ]


# --- behaviour, shape, reset ---------------------------------------------------------------


def test_behaviour_can_be_changed_member_by_member(client, order, first):
    limit = {"requests": 1, "window_seconds": 60, "headers": "both"}
    order("PATCH", "behaviour", {"rate_limit": limit})
    assert [client.get(first).status_code for _ in range(2)] == [200, 429]
    still = order("PATCH", "behaviour", {"moving": True})
    assert still["rate_limit"]["headers"] == "both"
    assert order("PATCH", "behaviour", {"rate_limit": None})["moving"]
    assert client.get(first).content != client.get(first).content
    order("PATCH", "behaviour", {"moving": False, "latency_seconds": 0.1, "shuffle_keys": True})
    started = time.monotonic()
    one, two = client.get(first), client.get(first)
    assert time.monotonic() - started >= 0.2
    assert one.content != two.content
    assert one.json() == two.json()
    assert order("GET", "behaviour") == {
        "latency_seconds": 0.1,
        "rate_limit": None,
        "moving": False,
        "shuffle_keys": True,
    }


def test_the_shape_of_every_persona_can_be_moved(sandbox, client, order, first):
    reshape = {"add": {"mood": "calm"}, "remove": ["brain.personality"], "rename": {"llmId": "llm"}}
    before = client.get(first).json()
    order("POST", "reshape", reshape)
    after = client.get(first).json()
    assert after["mood"] == "calm"
    assert after["llm"] == before["llmId"]
    assert "personality" not in after["brain"]
    assert order("GET", "state")["reshape"] == reshape
    order("DELETE", "reshape")
    assert client.get(first).json() == before


@pytest.mark.parametrize("written", ["later", {"shape": "later"}])
def test_a_shape_can_be_ordered_by_its_name(order, client, first, written):
    before = client.get(first).json()
    order("POST", "reshape", written)
    assert "personaPreset" not in client.get(first).json()
    assert order("GET", "state")["reshape"] == {"shape": "later"}
    assert order("GET", "")["shapes"] == ["later"]
    order("DELETE", "reshape")
    assert client.get(first).json() == before
    assert order("GET", "state")["reshape"] is None


def test_a_reset_brings_back_the_start(client_of):
    limit = RateLimit(1000, 60)
    faults = [Fault(500, after=1, times=2)]
    with (
        running_sandbox(count=5, moving=False, rate_limit=limit, faults=faults) as sandbox,
        client_of(sandbox) as client,
    ):
        ids, path = sandbox.persona_ids, f"/v1/personas/{sandbox.persona_ids[0]}"
        avatar = sandbox.world.shared_ids("avatars")[0]
        before = [sandbox.world.body(id_) for id_ in ids]
        assert [client.get(path).status_code for _ in range(4)] == [200, 500, 500, 200]
        for method, where, body in (
            ("PATCH", f"personas/{ids[0]}", {"name": "Ada"}),
            ("PATCH", f"avatars/{avatar}", {"displayName": "Eve"}),
            ("DELETE", f"avatars/{avatar}", None),
            ("DELETE", f"personas/{ids[1]}", None),
            ("PUT", f"personas/{ids[2]}/payload", {"x": 1}),
            ("POST", "personas", {}),
            ("POST", "faults", "list:500"),
            ("POST", "reshape", {"add": {"mood": 1}}),
            ("PATCH", "behaviour", {"rate_limit": None, "moving": True, "latency_seconds": 0.01}),
        ):
            assert client.request(method, ADMIN + where, json=body).status_code == 200
        assert client.post(f"{ADMIN}reset").json() == {"done": True}
        assert sandbox.persona_ids == ids
        assert [sandbox.world.body(id_) for id_ in ids] == before
        assert sandbox.requests.total == 0
        assert client.get("/v1/personas").headers["ratelimit-remaining"] == "999"
        assert [client.get(path).status_code for _ in range(3)] == [500, 500, 200]


# --- what was asked ------------------------------------------------------------------------


def test_the_log_tells_what_became_of_each_request_and_never_the_key(client, order, first):
    order("POST", "faults", ["500", "close"])
    client.get(f"{first}?a=b", headers={"User-Agent": "me"})
    with pytest.raises(Exception, match="without sending"):
        client.get(first)
    client.get("/v1/personas")
    told = order("GET", "requests?last=3")
    assert (told["total"], told["in_flight"]) == (3, 0)
    assert told["by_status"] == {"500": 1, "none": 1, "200": 1}
    assert told["by_target"] == {first.rpartition("/")[2]: 2, "list": 1}
    assert [(r["status"], r["fault"]) for r in told["recent"]] == [(500, 1), (None, 2), (200, None)]
    assert told["recent"][0]["query"] == {"a": "b"}
    assert told["recent"][0]["headers"]["user-agent"] == "me"
    assert "sandbox-key" not in json.dumps(told)
    assert len(order("GET", "requests?last=1")["recent"]) == 1
    assert order("GET", "requests?last=0")["recent"] == []
    order("DELETE", "requests")
    assert order("GET", "requests")["total"] == 0


def test_the_index_names_every_call(client, order):
    index = order("GET", "")
    assert list(index["calls"]) == [f"{call.method} {ADMIN}{call.path}" for call in CALLS]
    assert client.get("/_sandbox").json() == index


def test_the_state_names_what_can_be_edited(sandbox, client, order, first):
    client.get(first)
    state = order("GET", "state")
    assert state["personas"] == sandbox.persona_ids
    assert {kind: state[kind] for kind in KINDS[1:]} == {
        kind: sandbox.world.shared_ids(kind) for kind in KINDS[1:]
    }
    assert state["requests"]["total"] == 1
    assert state["behaviour"]["moving"] is False


def test_no_key_is_asked_for_and_the_orders_are_not_in_the_log(sandbox, client):
    client.headers.pop("authorization")
    assert client.get(f"{ADMIN}state").status_code == 200
    assert sandbox.requests.total == 0


# --- mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        (
            "PATCH",
            "personas/nobody",
            "{}",
            404,
            "nobody is not among the personas; GET /_sandbox/p",
        ),
        ("GET", "voices/nobody", "", 404, "nobody is not among the voices"),
        ("DELETE", "tools/nobody", "", 404, "nobody is not among the tools"),
        ("DELETE", "faults/7", "", 404, "7 is not among the faults"),
        ("DELETE", "faults/x", "", 404, "x is not among the faults"),
        ("DELETE", "faults/²", "", 404, "² is not among the faults"),
        ("GET", "nothing", "", 404, "No such call; GET /_sandbox/ lists them all"),
        ("GET", "planets/nobody", "", 404, "No such call"),
        ("PUT", "avatars/x/payload", "", 404, "No such call"),
        ("GET", "personas/", "", 404, "No such call"),
        ("PUT", "personas/x", "", 405, "/_sandbox/personas/x takes GET, PATCH, DELETE"),
        ("PATCH", "personas/x", "[]", 400, 'must be a JSON object, such as {"name": "Ada"}'),
        ("POST", "personas", "not json", 400, "the body is no JSON: Expecting value"),
        ("POST", "personas", "", 400, "the body is no JSON"),
        ("POST", "personas", '{"id": 5}', 400, "id: 5 can't be asked for; write a UUID"),
        ("POST", "personas", '{"id": "a/b"}', 400, "id: 'a/b' can't be asked for"),
        ("POST", "faults", '{"statsu": 5}', 400, "did you mean status?"),
        ("POST", "faults", '{"status": "5"}', 400, "status: Expected int | null, got str"),
        ("POST", "faults", '{"target": "lists"}', 400, 'target: "lists" is nobody; did you mean'),
        ("POST", "faults", "[]", 400, 'no fault was given; write one such as {"status": 500'),
        ("POST", "faults", "5", 400, "a fault is a JSON object"),
        ("POST", "faults", '"five"', 400, '"five" is no fault; see `persona-etl sandbox --help`'),
        ("POST", "faults", '{"raw": "%"}', 400, "raw: Invalid base64 encoded string"),
        ("PATCH", "behaviour", '{"latency": 5}', 400, '"latency" is no part of a behaviour; did'),
        (
            "PATCH",
            "behaviour",
            '{"latency_seconds": -5}',
            400,
            "latency_seconds: Expected float >=",
        ),
        ("PATCH", "behaviour", '{"rate_limit": {"requests": 1}}', 400, "window_seconds"),
        ("POST", "reshape", '{"drop": []}', 400, '"drop" is no part of a reshape'),
        ("POST", "reshape", '{"add": {"": 1}}', 400, '"" is no path'),
        ("POST", "reshape", '{"chose": {"a": [1]}}', 400, "did you mean choose?"),
        ("POST", "reshape", '{"choose": {"a": 1}}', 400, "choose[...]: Expected array"),
        ("POST", "reshape", '{"choose": {"a": []}}', 400, "choose: a: there is nothing"),
        ("POST", "reshape", '{"retype": {"a": "date"}}', 400, '"date" is none of string, number'),
        ("POST", "reshape", '{"recode": {"a": {"b": 1}}}', 400, "recode[...][...]: Expected str"),
        ("POST", "reshape", '"latter"', 400, '"latter" is no shape; did you mean later?'),
        ("POST", "reshape", '{"shape": [1]}', 400, '"[1]" is no shape; write later'),
        ("POST", "reshape", '{"shape": "later", "add": {}}', 400, "ordered alone"),
        ("POST", "reshape", "[]", 400, "a reshape is a JSON object"),
        ("POST", "reshape", "later", 400, "the body is no JSON"),
        ("GET", "requests?last=all", "", 400, "last: write how many requests to show"),
    ],
)
def test_a_mistake_is_told_what_to_write(client, *, method, path, body, status, told):
    response = client.request(method, ADMIN + path, content=body.encode())
    assert response.status_code == status
    assert told in response.json()["message"]


def test_a_body_that_is_nested_too_deeply_is_a_mistake(sandbox, client):
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    response = client.patch(f"{ADMIN}personas/{sandbox.persona_ids[0]}", content=deep)
    assert response.status_code == 400
    assert "nested too deeply" in response.json()["message"]


def test_a_reshaping_function_that_fails_is_a_500_that_says_so(sandbox, client, first, caplog):
    sandbox.world.reshape(lambda payload: payload["nothing"])
    with caplog.at_level(logging.ERROR):
        response = client.get(first)
    assert response.status_code == 500
    assert "KeyError('nothing')" in response.json()["message"]
    assert "could not answer" in caplog.text
    sandbox.world.reshape(None)
    assert client.get(first).status_code == 200
