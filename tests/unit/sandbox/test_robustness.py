"""Clients that misbehave, stops at a bad moment, and many at once: the sandbox minds none."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from etl.sandbox import Fault, running_sandbox

KEY = b"Host: x\r\nAuthorization: Bearer sandbox-key\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01 hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + KEY + b"no colon\r\n\r\n", 400),
        (b"GET /v1/personas HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /" + b"x" * 200_000, 431),
        (b"GET / HTTP/1.1\r\n" + KEY + b"X: " + b"x" * 200_000, 431),
        (b"POST /_sandbox/reset HTTP/1.1\r\n" + KEY + b"Content-Length: 9999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\n" + KEY + b"Content-Length: five\r\n\r\n", 400),
        (b"GET /v1/personas?page=" + b"9" * 9_000 + b" HTTP/1.0\r\n" + KEY + b"\r\n", 400),
        (b"GET /v1/personas?page=%ff%00&perPage=1 HTTP/1.0\r\n" + KEY + b"\r\n", 400),
        (b"CONNECT example.com:443 HTTP/1.1\r\nConnection: close\r\n" + KEY + b"\r\n", 405),
        (b"BREW /v1/personas HTTP/1.0\r\n" + KEY + b"\r\n", 405),
        (b"GET http://example.com/v1/personas HTTP/1.0\r\n" + KEY + b"\r\n", 404),
        (b"GET /_sandbox/%2e%2e/%00 HTTP/1.0\r\n\r\n", 404),
        (
            b"GET /v1/personas HTTP/1.1\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
            + KEY
            + b"\r\n",
            200,
        ),
    ],
)
def test_an_odd_request_gets_a_status_and_the_next_client_an_answer(
    exchange, client, first, request_, status
):
    assert exchange(request_).startswith(b"HTTP/1.1 %d " % status)
    assert client.get(first).status_code == 200


def test_a_head_request_is_answered_without_a_body_and_the_connection_goes_on(exchange):
    lines = b"HEAD /v1/personas HTTP/1.1\r\n" + KEY + b"\r\n"
    last = b"GET /_sandbox/behaviour HTTP/1.0\r\n\r\n"
    said = exchange(lines + lines + last)
    assert said.count(b"HTTP/1.1 405 ") == 2
    assert said.count(b"\r\n\r\nHTTP/1.1 ") == 2


def test_who_waits_to_be_told_to_go_on_is_told(connect):
    with connect() as connection:
        connection.sendall(
            b"POST /_sandbox/personas HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
            + KEY
            + b"\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "half", [b"", b"GET /v1/pers", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n"]
)
def test_a_client_that_hangs_up_midway_disturbs_nobody(connect, client, first, half):
    with connect() as connection:
        connection.sendall(half)
    assert client.get(first).status_code == 200


@pytest.mark.parametrize(
    "fault",
    [
        Fault(delay_seconds=60),
        Fault(trickle_seconds=30, trickle_bytes=1),
        Fault(drop="stall"),
        Fault(drop="stall", truncate_at=5),
        # More than the sockets hold, and nobody reads it.
        Fault(wrong="huge", size_bytes=50_000_000),
        None,
    ],
)
def test_stopping_waits_for_nobody(fault, client_of):
    with running_sandbox(count=1) as sandbox, client_of(sandbox) as idle:
        idle.get("/v1/personas")
        host, port = sandbox.url.removeprefix("http://").split(":")
        sandbox.requests.clear()
        with socket.create_connection((host, int(port))) as connection:
            whole = b"GET /v1/personas HTTP/1.1\r\n" + KEY + b"\r\n"
            connection.sendall(whole if fault else whole[:40])
            if fault:
                sandbox.order(fault)
                connection.sendall(whole)
                while not sandbox.requests.in_flight:
                    time.sleep(0.001)
            started = time.monotonic()
            sandbox_thread = next(t for t in threading.enumerate() if t.name == "sandbox")
    assert time.monotonic() - started < 2
    assert not sandbox_thread.is_alive()


def test_many_clients_editors_and_orders_at_once_all_get_whole_answers(sandbox, client_of):
    ids = sandbox.persona_ids
    avatars = sandbox.world.shared_ids("avatars")
    sandbox.world.moving = True

    def read(number: int) -> set[int]:
        with client_of(sandbox) as client:
            seen = set()
            for turn in range(30):
                path = (
                    f"/v1/personas/{ids[(number + turn) % len(ids)]}"
                    if turn % 5
                    else "/v1/personas"
                )
                answer = client.get(path)
                answer.json()
                seen.add(answer.status_code)
            return seen

    def disturb(number: int) -> set[int]:
        world = sandbox.world
        for turn in range(30):
            id_ = ids[(number * turn) % len(ids)]
            world.edit(id_, {"name": f"{number} {turn}"})
            world.edit(avatars[turn % len(avatars)], {"displayName": str(turn)}, "avatars")
            world.delete(id_)
            world.restore(id_)
            sandbox.order(Fault(503, times=2), Fault(429, target=id_))
            if turn % 10 == 0:
                sandbox.reset()
            world.moving = True
        return set()

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, n) for n in range(5)]
        writers = [pool.submit(disturb, n) for n in range(3)]
        seen = set().union(*(future.result(timeout=60) for future in [*readers, *writers]))
    assert seen <= {200, 404, 429, 503}
    sandbox.reset()
    assert sandbox.requests.in_flight == 0
