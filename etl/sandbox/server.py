"""The socket side: accepts on loopback, reads requests, writes answers, breaks them on order."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11

from etl.errors import UsageError
from etl.sandbox import admin, api
from etl.sandbox.faults import Fault, Script
from etl.sandbox.messages import Answer, Request, read_request, refusal
from etl.sandbox.traffic import RateLimit, RequestLog

if TYPE_CHECKING:
    from etl.sandbox.world import World


@dataclass
class Server:
    """The stand-in API: what it serves, how it behaves, and what it has seen.

    Attributes:
        latency_seconds: how long every answer takes at least.
        rate_limit: None for no limit and no RateLimit headers.
    """

    world: World
    key: str
    latency_seconds: float = 0
    rate_limit: RateLimit | None = None
    script: Script = field(default_factory=Script)
    log: RequestLog = field(default_factory=RequestLog)
    _conversations: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def listen(self, host: str, port: int) -> tuple[asyncio.Server, str]:
        """Binds, and returns the server and its base URL; raises UsageError when it can't."""
        address = _loopback(host)
        try:
            server = await asyncio.start_server(self._accept, str(address), port)
        except OSError as exc:
            reason = os.strerror(exc.errno) if exc.errno else str(exc)
            raise UsageError(
                f"can't listen on {host}:{port} ({reason}); try another --port, 0 for any free one"
            ) from exc
        bound = server.sockets[0].getsockname()[1]
        name = f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004  IPv6
        return server, f"http://{name}:{bound}"

    async def hang_up(self) -> None:
        """Ends every conversation, also those that are waiting or half said."""
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio would make this task itself, and log its cancellation as an error.
        task = asyncio.create_task(self._converse(reader, writer))
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pending = b""
        # A client may go away at any moment; that is its right, not our error.
        with contextlib.suppress(ConnectionError):
            try:
                while read := await read_request(reader, pending):
                    request, pending = read
                    if not await self._serve(request, writer):
                        break
                writer.close()
                await writer.wait_closed()
            except h11.RemoteProtocolError as exc:
                await _write(writer, refusal(exc.error_status_hint, str(exc)), Fault())
                writer.close()
                await writer.wait_closed()
            finally:
                writer.transport.abort()

    async def _serve(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; returns whether the connection can be used again."""
        if request.path.startswith(admin.PREFIX):
            done = admin.administer(request, self.world, self.script, self.log)
            return await _write(writer, done, Fault()) and request.keep_alive
        target = api.target_of(request)
        with self.log.serving(target, request):
            fault = self.script.take(target)
            if pause := self.latency_seconds + fault.delay_seconds:
                await asyncio.sleep(pause)
            if fault.drop is not None:
                if fault.drop == "reset":
                    _reset(writer)
                return False
            if fault.raw is not None:
                writer.write(fault.raw)
                return False
            answer = fault.applied_to(lambda: self._true_answer(request))
            return await _write(writer, answer, fault) and request.keep_alive

    def _true_answer(self, request: Request) -> Answer:
        if self.rate_limit is None:
            return api.answer(request, self.world, self.key)
        allowed, headers = self.rate_limit.take()
        if not allowed:
            return refusal(429, "Too many requests", headers)
        answer = api.answer(request, self.world, self.key)
        return Answer(answer.status, answer.body, answer.headers | headers)


async def _write(writer: asyncio.StreamWriter, answer: Answer, fault: Fault) -> bool:
    """Writes the answer, as slowly and as far as the fault says; returns whether it was whole."""
    head, body = answer.head, answer.body
    sent = body if fault.truncate_at is None else body[: fault.truncate_at]
    if fault.trickle_seconds:
        writer.write(head)
        for start in range(0, len(sent), fault.trickle_bytes):
            writer.write(sent[start : start + fault.trickle_bytes])
            await writer.drain()
            await asyncio.sleep(fault.trickle_seconds)
    else:
        writer.write(head + sent)
    await writer.drain()
    return len(sent) == len(body)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Hangs up with a TCP RST: that is what closing does when it may not linger."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address to bind; anything that others could reach raises UsageError."""
    with contextlib.suppress(ValueError):
        # "localhost" may be two addresses, and port 0 then two ports.
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        if address.is_loopback:
            return address
    raise UsageError(
        f"--host {host}: the sandbox only listens on loopback; use 127.0.0.1, ::1 or localhost"
    )
