"""The sandbox over a real socket: both endpoints, the key, faults on order, and the log."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
import uuid

import httpx
import pytest

from etl.errors import UsageError
from etl.sandbox import Fault, Sandbox, World, running_sandbox


@pytest.fixture
def sandbox():
    with running_sandbox(count=25, moving=False) as running:
        yield running


@pytest.fixture
def client(sandbox):
    with client_of(sandbox) as client:
        yield client


def client_of(sandbox: Sandbox) -> httpx.Client:
    return httpx.Client(
        base_url=sandbox.url,
        headers={"Authorization": f"Bearer {sandbox.key}"},
        timeout=5,
        trust_env=False,
        verify=False,  # no TLS here, and loading the certificates takes longer than a test
    )


def persona(sandbox: Sandbox, index: int = 0) -> str:
    return f"/v1/personas/{sandbox.persona_ids[index]}"


# --- the documented API ------------------------------------------------------------------


def test_a_persona_is_served_as_the_world_has_it(sandbox, client):
    response = client.get(persona(sandbox))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.content == sandbox.world.body(sandbox.persona_ids[0])


def test_an_edit_from_the_tests_thread_shows_in_the_next_answer(sandbox, client):
    client.get(persona(sandbox))
    sandbox.world.edit(sandbox.persona_ids[0], {"name": "Ada"})
    assert client.get(persona(sandbox)).json()["name"] == "Ada"


def test_an_id_in_capitals_is_the_same_id(sandbox, client):
    capital = sandbox.persona_ids[0].upper()
    assert client.get(f"/v1/personas/{capital}").json()["id"] == sandbox.persona_ids[0]


@pytest.mark.parametrize("header", [None, "Bearer wrong", "sandbox-key", "bearer sandbox-key"])
def test_without_the_right_key_nothing_is_told(sandbox, header):
    headers = {"Authorization": header} if header else {}
    for path in (persona(sandbox), "/v1/personas"):
        response = httpx.get(sandbox.url + path, headers=headers, trust_env=False)
        assert response.status_code == 401
        assert response.json()["message"] == "Missing or invalid API key"


@pytest.mark.parametrize("path", [f"/v1/personas/{uuid.UUID(int=1)}", "/v1/avatars", "/", "/v1"])
def test_what_is_not_there_is_a_json_404(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["error"] == "Not Found"


def test_a_deleted_persona_is_a_404(sandbox, client):
    path = persona(sandbox)
    sandbox.world.delete(sandbox.persona_ids[0])
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_stand_in_only_reads(sandbox, client, method):
    response = client.request(method, persona(sandbox))
    assert response.status_code == 405
    assert response.headers["allow"] == "GET"


def test_the_list_has_ten_a_page_unless_asked_otherwise(sandbox, client):
    first = client.get("/v1/personas").json()
    assert [item["id"] for item in first["data"]] == sandbox.persona_ids[:10]
    last = client.get("/v1/personas", params={"page": 2, "perPage": 20}).json()
    assert [item["id"] for item in last["data"]] == sandbox.persona_ids[20:]
    assert last["meta"]["prev"] == 1
    assert last["meta"]["next"] is None


def test_a_page_beyond_the_last_is_empty(client):
    page = client.get("/v1/personas", params={"page": 9}).json()
    assert page["data"] == []
    assert page["meta"]["next"] is None


def test_a_search_reaches_the_world(sandbox, client):
    sandbox.world.edit(sandbox.persona_ids[2], {"name": "Zaphod & söhne"})
    page = client.get("/v1/personas", params={"search": "zaphod & SÖ"}).json()
    assert [item["id"] for item in page["data"]] == [sandbox.persona_ids[2]]


@pytest.mark.parametrize(
    "query",
    [
        "perPage=0",
        "perPage=101",
        "perPage=ten",
        "perPage=",
        "page=0",
        "page=-1",
        "page=1_0",
        "page=٣",
    ],
)
def test_a_senseless_page_is_a_400_that_names_the_parameter(client, query):
    response = client.get(f"/v1/personas?{query}")
    assert response.status_code == 400
    assert query.split("=")[0] in response.json()["message"]


# --- connections ---------------------------------------------------------------------------


def exchange(sandbox: Sandbox, request: bytes) -> bytes:
    """Everything that the server says to these bytes until it hangs up."""
    host, port = sandbox.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_connection_is_kept_and_requests_may_be_pipelined(sandbox):
    lines = f"GET {persona(sandbox)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sandbox-key\r\n"
    said = exchange(sandbox, f"{lines}\r\n{lines}Connection: close\r\n\r\n".encode())
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert said.count(sandbox.world.body(sandbox.persona_ids[0])) == 2


def test_what_is_not_http_gets_a_400_and_the_end_of_the_connection(sandbox):
    assert exchange(sandbox, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_client_that_hangs_up_midway_disturbs_nobody(sandbox, client):
    host, port = sandbox.url.removeprefix("http://").split(":")
    socket.create_connection((host, int(port))).close()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET /v1/pers")
    assert client.get(persona(sandbox)).status_code == 200


# --- faults on order -----------------------------------------------------------------------


def test_the_next_answers_are_those_ordered_and_then_all_is_well(sandbox, client):
    sandbox.script(
        sandbox.persona_ids[0],
        Fault(429, headers={"Retry-After": "7"}),
        Fault(503, "<html>Bad gateway</html>", {"Content-Type": "text/html"}),
        Fault(200, b""),
        Fault(599, {"any": "json"}),
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
    sandbox.script(sandbox.persona_ids[1], Fault(500))
    sandbox.script("list", Fault(502))
    assert client.get(persona(sandbox, 0)).status_code == 200
    assert client.get(persona(sandbox, 1)).status_code == 500
    assert client.get("/v1/personas").status_code == 502
    assert client.get("/v1/personas").status_code == 200


def test_a_fault_for_anyone_meets_the_nth_request_whatever_it_is(sandbox, client):
    sandbox.script(None, Fault(), Fault(), Fault(500))
    paths = [persona(sandbox, 0), "/v1/personas", persona(sandbox, 1), persona(sandbox, 2)]
    assert [client.get(path).status_code for path in paths] == [200, 200, 500, 200]


def test_a_lasting_fault_ends_when_the_script_is_cleared(sandbox, client):
    sandbox.script(None, Fault(429), Fault(500), last_stays=True)
    statuses = [client.get(persona(sandbox)).status_code for _ in range(4)]
    assert statuses == [429, 500, 500, 500]
    sandbox.clear_script()
    assert client.get(persona(sandbox)).status_code == 200


def test_a_fault_can_change_only_a_header_of_the_true_answer(sandbox, client):
    sandbox.script(None, Fault(headers={"Content-Type": "text/plain", "X-Odd": "yes"}))
    response = client.get(persona(sandbox))
    assert response.headers["content-type"] == "text/plain"
    assert response.headers["x-odd"] == "yes"
    assert response.content == sandbox.world.body(sandbox.persona_ids[0])


def test_a_body_can_be_compressed_by_whoever_orders_it(sandbox, client):
    sandbox.script(
        None, Fault(body=gzip.compress(b'"small"'), headers={"Content-Encoding": "gzip"})
    )
    assert client.get(persona(sandbox)).json() == "small"


def test_a_truncated_body_ends_before_its_declared_length(sandbox, client):
    sandbox.script(None, Fault(truncate_at=10))
    whole = len(sandbox.world.body(sandbox.persona_ids[0]))
    with pytest.raises(httpx.RemoteProtocolError, match=f"received 10 bytes, expected {whole}"):
        client.get(persona(sandbox))
    assert client.get(persona(sandbox)).status_code == 200


def test_a_closed_connection_answers_nothing(sandbox, client):
    sandbox.script(None, Fault(drop="close"))
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        client.get(persona(sandbox))


def test_a_reset_is_a_reset(sandbox, client):
    sandbox.script(None, Fault(drop="reset"))
    with pytest.raises(httpx.ReadError):
        client.get(persona(sandbox))


def test_raw_bytes_are_all_that_is_said(sandbox):
    sandbox.script(None, Fault(raw=b"SSH-2.0-OpenSSH\r\n"))
    request = f"GET {persona(sandbox)} HTTP/1.1\r\nHost: x\r\n\r\n"
    assert exchange(sandbox, request.encode()) == b"SSH-2.0-OpenSSH\r\n"


def test_a_delay_is_silence_before_the_first_byte(sandbox, client):
    sandbox.script(None, Fault(delay_seconds=5))
    with pytest.raises(httpx.ReadTimeout):
        client.get(persona(sandbox), timeout=0.05)


def test_a_trickle_outlives_a_timeout_on_single_reads(sandbox, client):
    sandbox.world.set_payload(sandbox.persona_ids[0], b"x" * 100)
    sandbox.script(None, Fault(trickle_seconds=0.02, trickle_bytes=10))
    started = time.monotonic()
    response = client.get(persona(sandbox), timeout=0.15)
    assert response.content == b"x" * 100
    assert time.monotonic() - started > 0.15


# --- limits and the log --------------------------------------------------------------------


def test_a_rate_limit_tells_what_is_left_and_then_throttles():
    with running_sandbox(count=1, rate_limit=(2, 60)) as sandbox, client_of(sandbox) as client:
        answers = [client.get(persona(sandbox)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["ratelimit-limit"] for answer in answers} == {"2"}
    assert 0 < int(answers[2].headers["retry-after"]) <= 60
    assert "retry-after" not in answers[0].headers


def test_a_rate_limit_opens_again_with_the_next_window():
    with running_sandbox(count=1, rate_limit=(1, 0.05)) as sandbox, client_of(sandbox) as client:
        client.get(persona(sandbox))
        time.sleep(0.06)
        assert client.get(persona(sandbox)).status_code == 200


def test_the_log_remembers_who_asked_for_what_and_how(sandbox, client):
    client.get(persona(sandbox), headers={"User-Agent": "persona-etl/test"})
    client.get(persona(sandbox))
    client.get("/v1/personas?page=2")
    client.get("/_sandbox/state")
    log = sandbox.requests
    assert log.total == 3
    assert log.by_target == {sandbox.persona_ids[0]: 2, "list": 1}
    assert log.recent[0].headers["user-agent"] == "persona-etl/test"
    assert log.recent[0].headers["authorization"] == "Bearer sandbox-key"
    assert log.recent[2].query == {"page": "2"}
    log.clear()
    assert (log.total, len(log.recent), log.most_in_flight) == (0, 0, 0)


def test_the_log_knows_how_many_requests_were_in_flight_at_once():
    async def ask(sandbox: Sandbox, clients: int) -> None:
        limits = httpx.Limits(max_connections=clients)
        headers = {"Authorization": f"Bearer {sandbox.key}"}
        async with httpx.AsyncClient(headers=headers, limits=limits, trust_env=False) as client:
            ids = sandbox.persona_ids
            answers = await asyncio.gather(
                *(client.get(f"{sandbox.url}/v1/personas/{id_}") for id_ in ids)
            )
        assert {answer.status_code for answer in answers} == {200}

    with running_sandbox(count=12, latency_seconds=0.05) as sandbox:
        asyncio.run(ask(sandbox, clients=4))
        assert sandbox.requests.most_in_flight == 4
        assert sandbox.requests.in_flight == 0
        assert sandbox.requests.total == 12


# --- orders over HTTP ----------------------------------------------------------------------


def test_a_person_with_curl_can_change_things_and_put_them_back(sandbox, client):
    order, path = f"/_sandbox/personas/{sandbox.persona_ids[0]}", persona(sandbox)
    before = sandbox.world.payload(sandbox.persona_ids[0])
    httpx.patch(sandbox.url + order, content=b'{"name": "Ada"}', trust_env=False)
    assert client.get(path).json()["name"] == "Ada"
    client.patch(f"/_sandbox/avatars/{before['avatar']['id']}", json={"displayName": "Eve"})
    assert client.get(path).json()["avatar"]["displayName"] == "Eve"
    client.put(f"{order}/payload", content=b"<html>")
    assert client.get(path).text == "<html>"
    client.delete(f"{order}/payload")
    assert client.get(path).json()["name"] == "Ada"
    client.delete(order)
    assert client.get(path).status_code == 404
    client.post(f"{order}/restore")
    assert client.get(path).status_code == 200
    added = client.post("/_sandbox/personas", json={"name": "New"}).json()["id"]
    assert client.get(f"/v1/personas/{added}").json()["name"] == "New"


def test_faults_can_be_ordered_over_http(sandbox, client):
    faults = [{"status": 429, "headers": {"Retry-After": "1"}}, {"body": "<html>"}]
    assert client.post("/_sandbox/script", json={"faults": faults}).status_code == 200
    assert client.get("/_sandbox/state").json()["faults_waiting"] == 2
    assert client.get(persona(sandbox)).headers["retry-after"] == "1"
    assert client.get(persona(sandbox)).text == "<html>"
    client.post("/_sandbox/script", json={"faults": [{"status": 500}], "last_stays": True})
    client.delete("/_sandbox/script")
    assert client.get(persona(sandbox)).status_code == 200


def test_the_state_names_what_can_be_edited(sandbox, client):
    client.get(persona(sandbox))
    state = client.get("/_sandbox/state").json()
    assert state["personas"] == sandbox.persona_ids
    assert state["voices"] == sandbox.world.shared_ids("voices")
    assert state["requests"]["total"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", "personas/nobody", b"{}", 404),
        ("PATCH", "planets/nobody", b"{}", 404),
        ("GET", "nothing", b"", 404),
        ("PUT", "personas/nobody", b"{}", 404),
        ("PATCH", "personas/nobody", b"[]", 400),
        ("POST", "personas", b"not json", 400),
        ("POST", "script", b'{"faults": [{"statsu": 500}]}', 400),
        ("POST", "script", b'{"faults": [{"drop": "slam"}]}', 400),
        ("POST", "script", b'{"faults": []}', 400),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(client, method, path, body, status):
    response = client.request(method, f"/_sandbox/{path}", content=body)
    assert response.status_code == status
    assert response.json()["message"]


# --- starting and stopping -----------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", ""])
def test_it_never_listens_where_others_could_reach_it(host):
    with (
        pytest.raises(UsageError, match="only listens on loopback"),
        running_sandbox(count=1, host=host),
    ):
        pass


@pytest.mark.parametrize("host", ["localhost", "::1", "127.0.0.2"])
def test_any_name_of_loopback_will_do(host):
    with running_sandbox(count=1, host=host) as sandbox, client_of(sandbox) as client:
        assert client.get(persona(sandbox)).status_code == 200


def test_a_port_in_use_is_a_usage_error_that_names_it(sandbox):
    port = int(sandbox.url.rpartition(":")[2])
    with (
        pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port} \(Address already in use\)"),
        running_sandbox(count=1, port=port),
    ):
        pass


def test_stopping_does_not_wait_for_anyone():
    started = time.monotonic()
    with running_sandbox(count=1, latency_seconds=30) as slow:
        host, port = slow.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /v1/personas HTTP/1.1\r\nHost: x\r\n\r\n")
            while not slow.requests.in_flight:
                time.sleep(0.001)
    assert time.monotonic() - started < 5
    assert "sandbox" not in {thread.name for thread in threading.enumerate()}


def test_a_world_of_ones_own_can_be_served():
    world = World()
    id_ = world.add({"name": "Only"})
    with running_sandbox(world=world) as sandbox, client_of(sandbox) as client:
        assert json.loads(client.get(f"/v1/personas/{id_}").content)["name"] == "Only"
        assert sandbox.persona_ids == [id_]
