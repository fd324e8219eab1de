"""How much of what an API allows a run gets, and how much of it is refused.

Run by hand: `python -m bench.pace [SECONDS]`. The sandbox answers over a socket after 20 ms; for
each limit so many personas are fetched as are allowed in about that time (20 s).
"""

from __future__ import annotations

import asyncio
import sys
import time
from itertools import cycle, islice
from uuid import UUID

from etl.sandbox import RateLimit, Sandbox, running_sandbox
from etl.source.client import PersonaClient

WORKERS = 16
LIMITS = [
    ("25 in a window of 1 s", RateLimit(25, 1)),
    ("the same, Retry-After alone", RateLimit(25, 1, headers="none")),
    ("the same, nothing but 429", RateLimit(25, 1, headers="none", retry_after="none")),
    ("100 in a window of 1 s, Retry-After alone", RateLimit(100, 1, headers="none")),
    ("a bucket of 50, 50 a second", RateLimit(50, 1, "bucket")),
    ("the same, nothing but 429", RateLimit(50, 1, "bucket", headers="none", retry_after="none")),
    ("a bucket of 5, 50 a second", RateLimit(50, 1, "bucket", 5)),
    ("the same, Retry-After alone", RateLimit(50, 1, "bucket", 5, headers="none")),
]


async def seconds_for(sandbox: Sandbox, count: int) -> float:
    """Fetch so many, some of them more than once; return how long it took."""
    left = islice(cycle(sandbox.persona_ids), count)
    async with PersonaClient(
        base_url=sandbox.url,
        api_key=sandbox.key,
        concurrency=WORKERS,
        timeout_seconds=30,
        max_wait_seconds=300,
    ) as client:

        async def work() -> None:
            for persona_id in left:
                await client.fetch(UUID(persona_id))

        started = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(WORKERS)))
        return time.perf_counter() - started


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    print("| allowed | got | refused |\n| --- | --- | --- |")
    for name, limit in LIMITS:
        allowed = limit.requests / limit.window_seconds
        count = round(seconds * allowed)
        with running_sandbox(count=200, latency_seconds=0.02, rate_limit=limit) as sandbox:
            got = count / asyncio.run(seconds_for(sandbox, count)) / allowed
            refused = sandbox.requests.by_status[limit.status] / sandbox.requests.total
        print(f"| {name} | {got:.2f} | {100 * refused:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
