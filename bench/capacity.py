"""How big the database gets, and how long each chore takes: for the capacity of an installation.

Run by hand: `python -m bench.capacity 1000 10000`. For each number of personas: the first copy, a
run in which nothing moved but URL signatures, one in which every prompt is another (a version
each), then `replay --check`, `pg_dump`, `pg_restore` and `prune` to one version. Postgres is the
embedded one with its usual durability, and the API answers at once, so that what a real API takes
comes on top. Jobs are fresh processes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from uuid import UUID

import sqlalchemy as sa

from bench.history import run_check
from bench.load import SIGNATURE, Measured, afresh, database, measured, run_sync
from bench.static_server import serving, write_bodies
from etl.jobs.prune import Keep, prune
from etl.sandbox.generate import generate
from etl.settings import Settings
from etl.store.cluster import installation
from etl.store.engine import make_engine

CONCURRENCY = 16
STEPS = ("first copy", "nothing moved", "every prompt is another")

_SIZES = sa.text("""
    SELECT relname, pg_total_relation_size(oid) AS bytes
      FROM pg_class
     WHERE relnamespace = to_regnamespace(quote_ident(:schema)) AND relkind = 'r'
     ORDER BY 2 DESC
""")


def main() -> None:
    for count in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory(prefix="persona-etl-bench-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            afresh(make_bodies, folder, count)
            with database(folder / "database", None) as (url, schema):
                print(f"{count} personas")
                measure(folder, url, schema)


def measure(folder: Path, url: str, schema: str) -> None:
    for step in STEPS:
        with serving(folder / step) as base_url:
            took = afresh(run_sync, base_url, CONCURRENCY, folder / "ids", url, schema)
        _tell(step, took.seconds, f"{took.peak_mib:.0f} MiB, CPU {took.cpu_seconds:.1f} s")
        print(f"{'':26}{told_sizes(url, schema)}", flush=True)
    checked = afresh(run_check, url, schema)
    _tell("replay --check", checked.seconds, f"{checked.peak_mib:.0f} MiB")
    dump = folder / "dump"
    programs = installation() / "bin"
    schemas = [f"--schema={schema}", f"--schema={schema}_reporting"]
    dumping: list[str | Path] = [
        programs / "pg_dump",
        f"--dbname={url}",
        "--format=custom",
        *schemas,
    ]
    seconds = _ran([*dumping, f"--file={dump}"])
    _tell("pg_dump", seconds, f"{dump.stat().st_size / 2**20:.1f} MiB")
    with (
        make_engine(url, schema)
        .connect()
        .execution_options(isolation_level="AUTOCOMMIT") as connection
    ):
        connection.execute(sa.text("CREATE DATABASE restored"))
    elsewhere = sa.make_url(url).set(database="restored").render_as_string(hide_password=False)
    restoring: list[str | Path] = [
        programs / "pg_restore",
        f"--dbname={elsewhere}",
        "--no-owner",
        "--no-privileges",
    ]
    _tell("pg_restore", _ran([*restoring, "--single-transaction", dump]), "")
    pruned = afresh(run_prune, url, schema)
    _tell("prune to one version", pruned.seconds, f"{pruned.peak_mib:.0f} MiB")


def make_bodies(folder: Path, count: int) -> None:
    """A file of bodies a step, and one of the ids."""
    rng = Random(1)
    world = generate(count, seed=1)
    ids = [UUID(found) for found in world.persona_ids]
    (folder / "ids").write_text("\n".join(map(str, ids)))
    for step in STEPS:
        if step == STEPS[-1]:
            for found in ids:
                prompt = world.stored("personas", str(found))["brain"]["systemPrompt"] or ""
                changed = f"{prompt}\n\nToday: {found}."
                world.edit(str(found), {"brain": {"systemPrompt": changed}})
        bodies = ((found, world.body(str(found)) or b"") for found in ids)
        write_bodies(
            folder / step,
            (
                (found, SIGNATURE.sub(lambda _: rng.randbytes(32).hex().encode(), body))
                for found, body in bodies
            ),
        )


def told_sizes(url: str, schema: str) -> str:
    """What the tables take with their indexes, the biggest of them by name."""
    with make_engine(url, schema).connect() as connection:
        sizes = connection.execute(_SIZES, {"schema": schema}).all()
    biggest = ", ".join(f"{name} {size / 2**20:.1f}" for name, size in sizes[:4])
    return f"{sum(size for _, size in sizes) / 2**20:.1f} MiB: {biggest}"


def run_prune(url: str, schema: str) -> Measured:
    settings = Settings.model_validate({"database": {"url": url, "schema": schema}})
    keep = Keep(history_versions=1)
    return measured(lambda: prune(settings, keep, url=url, report=lambda _: None))


def _ran(command: list[str | Path]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def _tell(heading: str, seconds: float, more: str) -> None:
    print(f"  {heading:24}{seconds:8.1f} s  {more}", flush=True)


if __name__ == "__main__":
    main()
