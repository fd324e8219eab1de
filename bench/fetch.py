"""How many personas a second a way of using httpx gets from a server on loopback.

Run by hand: `python bench/fetch.py [GETs]`. The server is a process of its own and answers 2.5 KB
of JSON at once, so that the figure is what the client's own work costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import httpx

from bench.static_server import serving, write_bodies
from etl.source.client import PersonaClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PERSONA = UUID(int=1)
BODY = b'{"name": "%s"}' % (b"a" * 2500)


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
    with tempfile.TemporaryDirectory(prefix="persona-etl-bench-") as folder:
        bodies = Path(folder) / "bodies"
        write_bodies(bodies, [(PERSONA, BODY)])
        with serving(bodies) as url:
            for way in (one_shared_client, one_client_per_worker, our_client):
                for workers in (8, 16, 64):
                    figure = asyncio.run(way(url, gets, workers))
                    print(f"{way.__name__:24}{workers:4} workers {figure:6.0f} GETs/s", flush=True)


if __name__ == "__main__":
    main()
