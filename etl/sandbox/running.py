"""Runs the stand-in API in a thread of its own, so that tests and commands can talk to it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl.sandbox.behaviour import Behaviour
from etl.sandbox.generate import generate
from etl.sandbox.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etl.sandbox.faults import Fault
    from etl.sandbox.traffic import RateLimit, RequestLog
    from etl.sandbox.world import World


@dataclass(frozen=True)
class Sandbox:
    """A running stand-in: where it is, what it holds, what it was asked. Usable from any thread."""

    url: str
    server: Server

    @property
    def key(self) -> str:
        """The API key that it lets in."""
        return self.server.key

    @property
    def world(self) -> World:
        """What it serves; edits show in the next answer."""
        return self.server.world

    @property
    def persona_ids(self) -> list[str]:
        """The ids of the live personas, in the list endpoint's order."""
        return self.world.persona_ids

    @property
    def requests(self) -> RequestLog:
        """What it was asked."""
        return self.server.log

    def order(self, *faults: Fault) -> list[int]:
        """Orders faults, each for its own target; returns their numbers."""
        return self.server.script.add(*faults)

    def clear_faults(self) -> None:
        """All goes well again."""
        self.server.script.clear()

    def reset(self) -> None:
        """All is as it was at the start: personas, faults, behaviour and counters."""
        self.server.reset()


@contextmanager
def running_sandbox(
    *,
    count: int = 10,
    seed: int = 1,
    key: str = "sandbox-key",
    moving: bool = True,
    shuffle_keys: bool = False,
    latency_seconds: float = 0,
    rate_limit: RateLimit | None = None,
    faults: Sequence[Fault] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    world: World | None = None,
) -> Iterator[Sandbox]:
    """A sandbox for the length of the block; `world` serves that one instead of a generated one.

    Raises UsageError when it can't listen.
    """
    if world is None:
        world = generate(count, seed)
    behaviour = Behaviour(latency_seconds, rate_limit, moving, shuffle_keys)
    server = Server(world, key, behaviour, faults)
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(
        target=lambda: asyncio.run(_run(server, host, port, started)), name="sandbox", daemon=True
    )
    thread.start()
    try:
        url, loop, stop = started.result()
        try:
            yield Sandbox(url, server)
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()


async def _run(
    server: Server,
    host: str,
    port: int,
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]],
) -> None:
    stop = asyncio.Event()
    try:
        listener, url = await server.listen(host, port)
    except Exception as exc:  # noqa: BLE001  raised again in the thread that waits for the result
        started.set_exception(exc)
        return
    started.set_result((url, asyncio.get_running_loop(), stop))
    await stop.wait()
    await server.stop(listener)
