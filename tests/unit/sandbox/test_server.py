"""The sandbox over a real socket: both endpoints, the key, the log, starting and stopping."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import uuid

import httpx
import pytest

from etl.errors import UsageError
from etl.sandbox import Sandbox, World, running_sandbox


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


def test_a_connection_is_kept_and_requests_may_be_pipelined(sandbox, exchange):
    lines = f"GET {persona(sandbox)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sandbox-key\r\n"
    said = exchange(f"{lines}\r\n{lines}Connection: close\r\n\r\n".encode())
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert said.count(sandbox.world.body(sandbox.persona_ids[0])) == 2


def test_what_is_not_http_gets_a_400_and_the_end_of_the_connection(exchange):
    assert exchange(b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_client_that_hangs_up_midway_disturbs_nobody(sandbox, client):
    host, port = sandbox.url.removeprefix("http://").split(":")
    socket.create_connection((host, int(port))).close()
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET /v1/pers")
    assert client.get(persona(sandbox)).status_code == 200


# --- the log --------------------------------------------------------------------


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
        # A client has its answer before the server is done with it.
        while sandbox.requests.in_flight:
            time.sleep(0.01)
        assert sandbox.requests.total == 12


# --- starting and stopping -----------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", ""])
def test_it_never_listens_where_others_could_reach_it(host):
    with (
        pytest.raises(UsageError, match="only listens on loopback"),
        running_sandbox(count=1, host=host),
    ):
        pass


@pytest.mark.parametrize("host", ["localhost", "::1", "127.0.0.2"])
def test_any_name_of_loopback_will_do(host, client_of):
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


def test_a_world_of_ones_own_can_be_served(client_of):
    world = World()
    id_ = world.add({"name": "Only"})
    with running_sandbox(world=world) as sandbox, client_of(sandbox) as client:
        assert json.loads(client.get(f"/v1/personas/{id_}").content)["name"] == "Only"
        assert sandbox.persona_ids == [id_]
