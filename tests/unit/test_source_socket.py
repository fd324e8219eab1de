"""Answers that only a real connection can spoil: cut, slow, lying about their length, bombs."""

import asyncio
import contextlib
import gzip
import logging
import re
import socket
import struct
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast
from uuid import UUID

import pytest

from etl.source.answer import Answer, BodyTooBigError, NoAnswerError
from etl.source.client import PersonaClient

ID = UUID("11111111-2222-3333-4444-555555555555")
KEY = "sk-very-secret"
Script = Callable[[asyncio.StreamWriter], Awaitable[None]]
JSON = b'{"name": "Ada", "brain": null}' * 50


class Server:
    """Plays its script, a coroutine function of the writer a request; the last one for ever."""

    def __init__(self, *script: Script) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.connections = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.append(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            while not writer.is_closing():
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                await (self.script.pop(0) if len(self.script) > 1 else self.script[0])(writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            try:
                yield
            finally:
                for task in self.tasks:
                    task.cancel()
                await asyncio.gather(*self.tasks)


def whole(body: bytes, *headers: str, status: str = "200 OK") -> Script:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n"
    data = "".join([head, *(f"{header}\r\n" for header in headers), "\r\n"]).encode() + body

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


def raw(data: bytes) -> Script:
    """Send these bytes as they are."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


def cut(data: bytes) -> Script:
    """Send these bytes as they are, then close."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        await raw(data)(writer)
        await writer.drain()
        writer.close()

    return answer


async def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST in the middle of a body."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Send a byte every 20 ms, for ever: no single read ever times out."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silence(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def no_sleep(_seconds: float) -> None:
    pass


def client(url: str, **settings: Any) -> PersonaClient:
    defaults: dict[str, Any] = {
        "base_url": url,
        "api_key": KEY,
        "concurrency": 1,
        "timeout_seconds": 5,
        "max_wait_seconds": 60,
        "sleep": no_sleep,
    }
    return PersonaClient(**(defaults | settings))


def fetch(server: Server, times: int = 1, **settings: Any) -> Answer:
    async def scenario() -> Answer:
        async with server.running(), client(server.url, **settings) as persona_client:
            answers = [await persona_client.fetch(ID) for _ in range(times)]
            assert persona_client.http_requests == sum(answer.attempts for answer in answers)
            return answers[-1]

    return asyncio.run(scenario())


def failure(server: Server, **settings: Any) -> NoAnswerError:
    with pytest.raises(NoAnswerError) as caught:
        fetch(server, **settings)
    return caught.value


def test_a_plain_body_is_taken_as_it_is():
    answer = fetch(Server(whole(JSON, "Content-Type: application/json")))
    assert (answer.body, answer.content_type) == (JSON, "application/json")


def test_one_connection_serves_many_fetches():
    server = Server(whole(b'{"message": "no"}', status="404 Not Found"), whole(JSON))
    assert fetch(server, times=5).attempts == 1
    assert server.connections == 1


def test_a_long_body_of_a_404_is_not_read_to_its_end():
    server = Server(whole(b"x" * 3_000_000, status="404 Not Found"), whole(JSON))
    assert fetch(server, times=2).body == JSON
    assert server.connections == 2


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(JSON)),
        ("GZIP", gzip.compress(JSON)),
        ("x-gzip", gzip.compress(JSON)),
        ("deflate", zlib.compress(JSON)),
        ("gzip", gzip.compress(JSON[:7]) + gzip.compress(b"") + gzip.compress(JSON[7:])),
    ],
    # Not the bytes: gzip writes the time of day into them, and each test worker another.
    ids=["gzip", "upper case", "x-gzip", "deflate", "several members"],
)
def test_a_packed_body_is_inflated(encoding, packed):
    assert fetch(Server(whole(packed, f"Content-Encoding: {encoding}"))).body == JSON


def test_a_packed_body_that_comes_byte_by_byte_is_inflated():
    async def answer(writer: asyncio.StreamWriter) -> None:
        packed = gzip.compress(JSON)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n")
        writer.write(b"Content-Encoding: gzip\r\n\r\n")
        for byte in packed:
            writer.write(b"1\r\n%c\r\n" % byte)
        writer.write(b"0\r\n\r\n")

    assert fetch(Server(answer)).body == JSON


@pytest.mark.parametrize("missing", [1, 8, 9, 40])
def test_a_gzip_that_is_cut_short_is_a_failure(missing):
    server = Server(whole(gzip.compress(JSON)[:-missing], "Content-Encoding: gzip"))
    error = failure(server)
    assert (error.http_status, error.attempts) == (200, 4)
    assert "cut short" in str(error)


def test_a_second_gzip_member_that_is_cut_short_is_a_failure():
    packed = gzip.compress(JSON) + gzip.compress(JSON)[:-1]
    assert "cut short" in str(failure(Server(whole(packed, "Content-Encoding: gzip"))))


def test_an_empty_body_is_no_gzip():
    assert "cut short" in str(failure(Server(whole(b"", "Content-Encoding: gzip"))))


@pytest.mark.parametrize("spoil", [0, 20, -8])
def test_a_gzip_with_a_wrong_byte_is_a_failure(spoil):
    packed = bytearray(gzip.compress(JSON))
    packed[spoil] ^= 0xFF
    error = failure(Server(whole(bytes(packed), "Content-Encoding: gzip")))
    assert "the gzip body is corrupt after 4 attempts" in str(error)


def test_a_gzip_bomb_is_rejected_in_bounded_memory():
    limit = 2 * 1024 * 1024
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(300)) + packer.flush()
    server = Server(whole(bomb, "Content-Encoding: gzip", "Content-Type: application/json"))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooBigError) as caught:
            fetch(server, max_body_bytes=limit)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * limit
    assert limit < caught.value.length <= limit + 64 * 1024
    assert (caught.value.http_status, caught.value.attempts) == (200, 1)
    assert caught.value.content_type == "application/json"


def test_a_bomb_that_is_packed_twice_is_refused():
    bomb = gzip.compress(gzip.compress(bytes(10_000_000)))
    error = failure(Server(whole(bomb, "Content-Encoding: gzip", "Content-Encoding: gzip")))
    assert "Content-Encoding 'gzip, gzip'" in str(error)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 100\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    ],
)
@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
def test_a_body_shorter_than_announced_is_a_failure(status, head):
    error = failure(Server(cut(b"HTTP/1.1 " + status + b"\r\n" + head)))
    assert (error.http_status, error.attempts) == (None, 4)
    assert re.search(r"127\.0\.0\.1:\d+ broke off", str(error))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x15\x03\x01\x00\x02\x02F",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: no\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_an_answer_that_is_not_http_is_a_failure_and_is_not_quoted(data):
    error = failure(Server(cut(data)))
    assert "broke off or does not speak HTTP after 4 attempts" in str(error)


def test_leftovers_behind_a_body_do_not_become_the_next_answer():
    server = Server(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{}"), whole(JSON))
    assert fetch(server, times=2).body == JSON


def test_a_reset_is_retried():
    answer = fetch(Server(reset, whole(JSON)))
    assert (answer.body, answer.attempts) == (JSON, 2)


def test_a_reset_to_the_end_is_a_failure():
    assert "the connection to 127.0.0.1:" in str(failure(Server(reset)))


def test_a_connection_closed_while_idle_costs_no_attempt():
    async def answer_and_close(writer):
        await whole(JSON)(writer)
        await writer.drain()
        writer.close()

    server = Server(answer_and_close)

    async def scenario() -> Answer:
        async with server.running(), client(server.url) as persona_client:
            await persona_client.fetch(ID)
            await asyncio.sleep(0.05)
            return await persona_client.fetch(ID)

    assert asyncio.run(scenario()).attempts == 1


@pytest.mark.parametrize("slow", [trickle, silence])
def test_a_slow_answer_is_cut_off_and_its_connection_is_of_use_again(slow):
    started = time.monotonic()
    answer = fetch(Server(slow, slow, whole(JSON)), timeout_seconds=0.2)
    assert (answer.body, answer.attempts) == (JSON, 3)
    assert 0.4 <= time.monotonic() - started < 30
    assert answer.duration_ms >= 400


def test_a_trickle_to_the_end_is_a_failure():
    error = failure(Server(trickle), timeout_seconds=0.1)
    assert "no whole answer from 127.0.0.1:" in str(error)
    assert "within 0.1 s after 4 attempts; lower api.concurrency" in str(error)


def test_cancelling_a_fetch_leaves_a_client_that_works():
    server = Server(trickle, whole(JSON))

    async def scenario() -> Answer:
        async with server.running(), client(server.url) as persona_client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(persona_client.fetch(ID), 0.1)
            return await persona_client.fetch(ID)

    assert asyncio.run(scenario()).body == JSON


def test_a_redirect_takes_the_key_nowhere():
    other = Server(whole(JSON))

    async def scenario() -> None:
        async with other.running():
            server = Server(whole(b"", f"Location: {other.url}/", status="302 Found"))
            async with server.running(), client(server.url) as persona_client:
                with pytest.raises(NoAnswerError, match=r"302, a redirect to 127\.0\.0\.1, which"):
                    await persona_client.fetch(ID)

    asyncio.run(scenario())
    assert other.requests == []


def test_a_cookie_is_not_sent_back():
    server = Server(whole(JSON, "Set-Cookie: session=1"))
    fetch(server, times=2)
    assert b"ookie" not in server.requests[1]


def test_a_netrc_does_not_replace_the_key(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server = Server(whole(JSON))
    fetch(server)
    assert f"Authorization: Bearer {KEY}\r\n".encode() in server.requests[0]


def test_nobody_listening_is_told_with_host_and_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        async def scenario() -> None:
            async with client(f"http://127.0.0.1:{port}") as persona_client:
                await persona_client.fetch(ID)

        with pytest.raises(NoAnswerError) as caught:
            asyncio.run(scenario())
    assert str(caught.value) == (
        f"GET /v1/personas/{ID}: connection refused by 127.0.0.1:{port} after 4 attempts;"
        " check api.base_url and the network"
    )


def test_tls_with_a_server_that_has_none_is_told():
    class Plain(Server):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()
            await writer.wait_closed()

    server = Plain()

    async def scenario() -> None:
        async with server.running(), client(server.url.replace("http:", "https:")) as tls_client:
            await tls_client.fetch(ID)

    with pytest.raises(NoAnswerError, match=r"TLS with 127\.0\.0\.1:\d+ failed after 4 attempts"):
        asyncio.run(scenario())


def test_no_logger_of_the_layers_below_shows_the_key_either(caplog):
    caplog.set_level(logging.DEBUG)
    fetch(Server(reset, cut(b"nonsense\r\n\r\n"), whole(JSON)))
    assert any(record.name.startswith("httpcore") for record in caplog.records)
    assert KEY not in caplog.text
    assert JSON.decode() not in caplog.text
