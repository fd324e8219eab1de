"""The socket side: accepts on loopback, reads requests, writes answers, breaks them on order."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import struct
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

import h11

from etl.errors import UsageError
from etl.sandbox import admin, api
from etl.sandbox.behaviour import Behaviour
from etl.sandbox.faults import NO_FAULT, Fault
from etl.sandbox.messages import Answer, Request, read_request, refusal
from etl.sandbox.script import Script
from etl.sandbox.traffic import RequestLog, Throttle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from etl.sandbox.world import World

_CHUNK = 4096
_log = logging.getLogger(__name__)


class Server:
    """The stand-in API: what it serves, how it behaves, what is on order, what it has seen.

    What it is given is what `reset` brings back.
    """

    def __init__(
        self, world: World, key: str, behaviour: Behaviour, faults: Sequence[Fault] = ()
    ) -> None:
        self.world: World = world
        self.key = key
        self.script = Script()
        self.log = RequestLog()
        self._conversations: set[asyncio.Task[None]] = set()
        self._first = behaviour, tuple(faults)
        self.behave(behaviour)
        self.script.add(*faults)
        world.remember()

    @property
    def behaviour(self) -> Behaviour:
        """How it behaves where no fault is met."""
        throttle = self.throttle
        return Behaviour(
            latency_seconds=self.latency_seconds,
            rate_limit=throttle.limit if throttle else None,
            moving=self.world.moving,
            shuffle_keys=self.world.shuffle_keys,
        )

    def behave(self, behaviour: Behaviour) -> None:
        """Behaves like this from the next request on; a rate limit counts anew."""
        self.world.moving = behaviour.moving
        self.world.shuffle_keys = behaviour.shuffle_keys
        self.latency_seconds = behaviour.latency_seconds
        self.throttle = Throttle(behaviour.rate_limit) if behaviour.rate_limit else None

    def reset(self) -> None:
        """All is as it was at the start: personas, faults, behaviour and counters."""
        behaviour, faults = self._first
        self.world.reset()
        self.script.clear()
        self.script.add(*faults)
        self.behave(behaviour)
        self.log.clear()

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

    async def stop(self, listener: asyncio.Server) -> None:
        """Ends every conversation, also those that are waiting or half said."""
        for bound in listener.sockets:
            asyncio.get_running_loop().remove_reader(bound.fileno())
        # Closing would lose the connections that asyncio is just accepting.
        accepting = asyncio.all_tasks() - self._conversations - {asyncio.current_task()}
        await asyncio.gather(*accepting, return_exceptions=True)
        listener.close()
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio would make this task itself, and log its cancellation as an error.
        task = asyncio.create_task(self._converse(reader, writer))
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        # Not in the task: one that is cancelled before it began would never come to it.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pending = b""
        # A client may go away at any moment; that is its right, not our error.
        with contextlib.suppress(OSError):
            try:
                while read := await read_request(reader, writer, pending):
                    request, pending = read
                    if not await self._serve(request, reader, writer):
                        break
                await _close(writer)
            except h11.RemoteProtocolError as exc:
                await _write(writer, refusal(exc.error_status_hint, str(exc)))
                await _read_out(reader, writer)
                await _close(writer)

    async def _serve(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answers one request; returns whether the connection can be used again."""
        if admin.is_meant(request):
            with_body = request.method != "HEAD"
            await _write(writer, admin.administer(request, self), with_body=with_body)
            return request.keep_alive
        target = api.target_of(request)
        with self.log.serving(target, request):
            request.fault, fault = self.script.take(target)
            if pause := self.latency_seconds + fault.delay_seconds:
                await asyncio.sleep(pause)
            if fault.raw is not None:
                writer.write(fault.raw)
            elif fault.drop is None or fault.truncate_at is not None:
                answer = self._answer(request, target, fault)
                request.status = answer.status
                await _write(writer, answer, fault, with_body=request.method != "HEAD")
                if fault.truncate_at is None and answer.tells_its_length:
                    return request.keep_alive
            await _hang_up(reader, writer, fault.drop)
            return False

    def _answer(self, request: Request, target: str, fault: Fault) -> Answer:
        try:
            if fault is NO_FAULT:
                return self._true_answer(request, fault)
            return fault.applied_to(
                partial(self._true_answer, request, fault),
                partial(api.another_than, target, self.world),
            )
        except Exception as exc:  # noqa: BLE001  logged, and told to the client
            # For instance in a function that somebody gave to World.reshape.
            _log.exception("the sandbox could not answer")
            return refusal(500, f"The sandbox itself failed: {exc!r}")

    def _true_answer(self, request: Request, fault: Fault) -> Answer:
        throttle = self.throttle  # another thread may put another one there
        if throttle is None:
            return api.answer(request, self.world, self.key, fault)
        allowed, headers = throttle.take()
        if not allowed:
            return refusal(throttle.limit.status, "Too many requests", headers)
        answer = api.answer(request, self.world, self.key, fault)
        return Answer(answer.status, answer.body, answer.headers | headers)


async def _write(
    writer: asyncio.StreamWriter,
    answer: Answer,
    fault: Fault = NO_FAULT,
    *,
    with_body: bool = True,
) -> None:
    """Writes the answer, as slowly and as far as the fault says."""
    body = answer.body if with_body else b""
    body = body if fault.truncate_at is None else body[: fault.truncate_at]
    if not (fault.is_chunked or fault.trickle_seconds):
        writer.write(answer.head + body)
    else:
        writer.write(answer.head)
        pieces = _pieces(body, fault.trickle_bytes if fault.trickle_seconds else _CHUNK)
        for piece in cycle(pieces) if fault.endless else pieces:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if fault.is_chunked else piece)
            await writer.drain()
            await asyncio.sleep(fault.trickle_seconds)
        if fault.is_chunked and fault.truncate_at is None and with_body:
            writer.write(b"0\r\n\r\n")
    await writer.drain()


def _pieces(body: bytes, size: int) -> Iterable[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


async def _hang_up(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, how: str | None
) -> None:
    """Ends the connection before its time; `stall` leaves that to the client."""
    if how == "reset":
        # An abort drops what was not sent yet.
        writer.transport.set_write_buffer_limits(0)
        await writer.drain()
        _reset(writer)
    elif how == "stall":
        while await reader.read(_CHUNK):
            pass


async def _read_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lets a client finish: to close on unread bytes is a reset, which can overtake the answer."""
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while await reader.read(_CHUNK):
                pass


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


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
