"""How many personas a second a way of using httpx gets from a server on loopback.

Run by hand: `python bench/fetch.py [GETs]`. The server is a process of its own and answers 2.5 KB
of JSON at once, so that the figure is what the client's own work costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from uuid import UUID

import httpx

from etl.source.client import PersonaClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SERVER = """
import asyncio
body = b'{"name": "' + b"a" * 2500 + b'"}'
head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n"
answer = head % len(body) + body

class Answers(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.unread = transport, b""
    def data_received(self, data):
        *requests, self.unread = (self.unread + data).split(b"\\r\\n\\r\\n")
        self.transport.write(answer * len(requests))

async def main():
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
PERSONA = UUID(int=1)


async def rate(gets: int, workers: int, get: Callable[[int], Awaitable[object]]) -> float:
    """Let each worker call `get` with its number until `gets` are done; return GETs a second."""
    left = iter(range(gets))

    async def work(worker: int) -> None:
        for _ in left:
            await get(worker)

    started = time.perf_counter()
    await asyncio.gather(*(work(worker) for worker in range(workers)))
    return gets / (time.perf_counter() - started)


async def one_shared_client(url: str, gets: int, workers: int) -> float:
    limits = httpx.Limits(max_connections=workers, max_keepalive_connections=workers)
    async with httpx.AsyncClient(limits=limits) as client:
        return await rate(gets, workers, lambda _: client.get(f"{url}/v1/personas/{PERSONA}"))


async def one_client_per_worker(url: str, gets: int, workers: int) -> float:
    context = httpx.create_ssl_context()
    limits = httpx.Limits(max_connections=1)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(verify=context, limits=limits))
            for _ in range(workers)
        ]
        return await rate(
            gets, workers, lambda worker: clients[worker].get(f"{url}/v1/personas/{PERSONA}")
        )


async def our_client(url: str, gets: int, workers: int) -> float:
    async with PersonaClient(
        base_url=url,
        api_key="bench",
        concurrency=workers,
        timeout_seconds=30,
        max_wait_seconds=0,
    ) as client:
        return await rate(gets, workers, lambda _: client.fetch(PERSONA))


def main() -> None:
    gets = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
    with server:
        try:
            assert server.stdout
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            for way in (one_shared_client, one_client_per_worker, our_client):
                for workers in (8, 16, 64):
                    figure = asyncio.run(way(url, gets, workers))
                    print(f"{way.__name__:24}{workers:4} workers {figure:6.0f} GETs/s", flush=True)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
