"""How fast `sync` copies generated personas into Postgres, beside merely fetching them.

Run by hand: `make bench`. Each line of the table is one sync (the first load, one where nothing but
URL signatures moved, one where one persona in a hundred changed, one where all signatures, counters
and the order of all keys moved) and, right before it, a loop that fetches the same bodies with the
same client and drops them. Either is a fresh process: its seconds are from entering to leaving the
job, its CPU and memory are its own, without Postgres and without the server, which answers at once.
The bodies are made beforehand. The aim: a first load at half the rate of fetching, an unchanged one
at 0.7 of it, in 150 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import re
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from uuid import UUID, uuid4

from sqlalchemy.schema import DropSchema

from bench.static_server import serving, write_bodies
from etl.jobs.migrate import migrate
from etl.jobs.sync import sync
from etl.report.ours import reporting_schema
from etl.sandbox.generate import generate
from etl.settings import Settings
from etl.source.client import PersonaClient
from etl.store.embedded import embedded_server
from etl.store.engine import make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etl.jobs.summary import Summary

P = ParamSpec("P")
T = TypeVar("T")

STEPS = ("first load", "new signatures", "1 % changed", "all moved")
SIGNATURE = re.compile(rb"(?<=X-Amz-Signature=)[0-9a-f]{64}")
KEY = "bench"


@dataclass(frozen=True)
class Measured:
    """What one process took for its job."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    outcomes: str = ""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="persona-etl-bench-") as name:
        folder = Path(name)
        # In a process of its own too: Linux counts a parent's peak as its children's.
        afresh(make_bodies, folder, options.personas)
        with database(folder / "database", options.database_url) as (url, schema):
            print(f"{options.personas} personas, {options.concurrency} connections\n")
            print(f"{'':16}{'fetch/s':>9}{'sync/s':>9}{'ratio':>7}{'MiB':>6}{'CPU s':>7}")
            for step in STEPS:
                with serving(folder / step) as base_url:
                    ids = folder / "ids"
                    fetched = afresh(fetch_only, base_url, options.concurrency, ids)
                    synced = afresh(run_sync, base_url, options.concurrency, ids, url, schema)
                print(
                    f"{step:16}{options.personas / fetched.seconds:9.0f}"
                    f"{options.personas / synced.seconds:9.0f}"
                    f"{fetched.seconds / synced.seconds:7.2f}{synced.peak_mib:6.0f}"
                    f"{synced.cpu_seconds:7.1f}  {synced.outcomes}",
                    flush=True,
                )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--personas", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--database-url", help="instead of an embedded Postgres")
    return parser.parse_args()


def afresh(job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a job in a new process that inherits nothing."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as process:
        return process.submit(job, *args, **kwargs).result()


@contextmanager
def database(folder: Path, given: str | None) -> Iterator[tuple[str, str]]:
    """A URL and a schema of our own there, migrated, until the `with` ends."""
    if given is None:
        with embedded_server(folder) as started, database(folder, started) as found:
            yield found
        return
    schema = f"bench_{uuid4().hex[:12]}"
    engine = make_engine(given, schema)
    migrate(engine, schema)
    try:
        yield given, schema
    finally:
        with engine.begin() as connection:
            for name in (schema, reporting_schema(schema)):
                connection.execute(DropSchema(name, cascade=True))


def make_bodies(folder: Path, count: int) -> None:
    """A file of bodies a step, and one of the ids."""
    rng = Random(1)
    world = generate(count, seed=1)
    ids = [UUID(found) for found in world.persona_ids]
    (folder / "ids").write_text("\n".join(map(str, ids)))

    def signed_anew(body: bytes) -> bytes:
        return SIGNATURE.sub(lambda _: rng.randbytes(32).hex().encode(), body)

    for step in STEPS:
        if step == "1 % changed":
            for persona_id in ids[::100]:
                world.edit(str(persona_id), {"brain": {"systemPrompt": f"Be brief, {persona_id}."}})
        world.moving = world.shuffle_keys = step == "all moved"
        bodies = ((found, world.body(str(found)) or b"") for found in ids)
        write_bodies(folder / step, ((found, signed_anew(body)) for found, body in bodies))


def fetch_only(base_url: str, concurrency: int, ids_file: Path) -> Measured:
    """Fetches each persona once and drops the answer."""
    remaining = iter(_ids(ids_file))

    async def work(client: PersonaClient) -> None:
        for persona_id in remaining:
            await client.fetch(persona_id)

    async def fetch_all() -> None:
        async with PersonaClient(
            base_url=base_url,
            api_key=KEY,
            concurrency=concurrency,
            timeout_seconds=30,
            max_wait_seconds=0,
        ) as client:
            await asyncio.gather(*(work(client) for _ in range(concurrency)))

    return measured(lambda: asyncio.run(fetch_all()))


def run_sync(base_url: str, concurrency: int, ids_file: Path, url: str, schema: str) -> Measured:
    """The job as the command runs it. Its imports are not counted, as fetching has next to none."""
    settings = Settings.model_validate(
        {
            "api": {"base_url": base_url, "concurrency": concurrency, "key": KEY},
            "database": {"url": url, "schema": schema},
        }
    )
    ids = _ids(ids_file)
    told: list[Summary] = []
    took = measured(lambda: sync(settings, ids, url=url, report=told.append))
    counts = {name: n for name, n in told[0].counts.items() if n and name != "requested"}
    outcomes = ", ".join(f"{n} {name}" for name, n in counts.items())
    return Measured(took.seconds, took.cpu_seconds, took.peak_mib, outcomes)


def _ids(file: Path) -> list[UUID]:
    return [UUID(line) for line in file.read_text().split()]


def measured(job: Callable[[], object]) -> Measured:
    """What a job takes in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    job()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(seconds, cpu_seconds, after.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
