"""What a history costs: 10 000 personas of 20 versions each, loaded, replayed and asked.

Run by hand: `python -m bench.history`. The answers are made beforehand and handed to the loader as
the fetchers would hand them on, dated a day apart; so *load* is all of `sync` but HTTP. Each replay
stands beside reading every observation and document over one connection and decoding them, which
no replay can do without. Each query about the past stands beside the view of the present. Every job
is a fresh process whose peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from bench.load import afresh, database
from etl.jobs.arrival import Arrival
from etl.jobs.fetching import BATCH_ITEMS
from etl.jobs.load import load
from etl.jobs.reckoning import read_batch
from etl.jobs.replay import check, replay, replayed_tables
from etl.payload.decode import loads
from etl.report.ours import reporting_schema
from etl.sandbox.generate import generate
from etl.settings import Settings
from etl.source.answer import Answer
from etl.store.engine import make_engine, quote_identifier
from etl.store.ledger import Run, open_run

if TYPE_CHECKING:
    from collections.abc import Callable

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

EVERYTHING = (
    "SELECT * FROM observations ORDER BY kind, entity_id, observed_at",
    "SELECT document FROM documents",
)
EMPTY = "TRUNCATE document_versions, personas, avatars, voices, tools, knowledge_groups CASCADE"

# Each is asked for at three moments; `{r}` is the reporting schema.
QUERIES = {
    "the present: all personas": "SELECT * FROM {r}.personas",
    "as of a moment: all": "SELECT * FROM {r}.personas_as_of(:moment)",
    "the present: one persona": "SELECT * FROM {r}.personas WHERE persona_id = :id",
    "as of a moment: one": "SELECT * FROM {r}.personas_as_of(:moment) WHERE persona_id = :id",
    "prompt_history: one": "SELECT * FROM {r}.prompt_history WHERE persona_id = :id",
    "persona_history: one": "SELECT * FROM {r}.persona_history WHERE persona_id = :id",
    "changes: one": "SELECT * FROM {r}.changes WHERE kind = 'persona' AND entity_id = :id",
    "changes: a day": "SELECT * FROM {r}.changes WHERE kind = 'persona'"
    " AND changed_at >= :moment AND changed_at < :moment + interval '1 day'",
    "prompt_history: all": "SELECT * FROM {r}.prompt_history",
}


@dataclass(frozen=True)
class Took:
    """What a job took in a process of its own."""

    seconds: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--personas", type=int, default=10_000)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--database-url", help="instead of an embedded Postgres")
    options = parser.parse_args()
    made = options.personas * options.versions
    with (
        tempfile.TemporaryDirectory(prefix="persona-etl-bench-") as name,
        database(Path(name) / "database", options.database_url) as (url, schema),
    ):
        print(f"{options.personas} personas of {options.versions} versions\n")
        loaded = afresh(load_history, url, schema, options.personas, options.versions)
        _tell("load", loaded, f"{made / loaded.seconds:.0f} versions/s")
        floor = afresh(read_everything, url, schema)
        _tell("reading and decoding all", floor)
        for heading, job in (
            ("replay --check", run_check),
            ("replay, nothing to mend", run_replay),
            ("replay into empty tables", replay_from_nothing),
            ("replay --check again", run_check),
        ):
            took = afresh(job, url, schema)
            _tell(heading, took, f"{took.seconds / floor.seconds:.1f} times reading")
        print()
        for heading, seconds in afresh(ask, url, schema, options.versions).items():
            print(f"{heading:28}{seconds * 1000:9.1f} ms")


def _tell(heading: str, took: Took, more: str = "") -> None:
    print(f"{heading:28}{took.seconds:9.1f} s{took.peak_mib:7.0f} MiB  {more}", flush=True)


def load_history(url: str, schema: str, personas: int, versions: int) -> Took:
    """Loads it version by version; only what the loader takes is counted."""
    world = generate(personas, seed=1)
    payloads = [json.loads(world.body(found) or b"") for found in world.persona_ids]
    engine = make_engine(url, schema, json_deserializer=loads)
    seconds = 0.0
    with engine.connect() as connection:
        for version in range(versions):
            run = Run(uuid4(), "bench", "here", 1, "0")
            with connection.begin():
                open_run(connection, run, status="succeeded", requested=personas)
            for start in range(0, personas, BATCH_ITEMS):
                arrivals = [
                    _answered(payload, version, start + n)
                    for n, payload in enumerate(payloads[start:][:BATCH_ITEMS])
                ]
                began = time.perf_counter()
                with connection.begin():
                    load(connection, read_batch(connection, arrivals), run.run_id)
                seconds += time.perf_counter() - began
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    return Took(seconds, _peak_mib())


def _answered(payload: dict[str, Any], version: int, nth: int) -> Arrival:
    """A persona as it was a day after the last time: with another prompt."""
    brain = payload.get("brain") or {}
    prompt = f"{brain.get('systemPrompt') or ''}\nAs of day {version}."
    body = json.dumps(payload | {"brain": brain | {"systemPrompt": prompt}}).encode()
    persona_id = UUID(payload["id"])
    observed_at = BEGAN + timedelta(days=version, milliseconds=nth)
    answer = Answer(persona_id, 200, body, "application/json", 0.0, 1, 1)
    return Arrival(persona_id, observed_at, answer)


def read_everything(url: str, schema: str) -> Took:
    """Reads every observation and every document, and decodes those."""

    def read() -> None:
        engine = make_engine(url, schema, json_deserializer=loads)
        with engine.connect() as connection:
            for statement in EVERYTHING:
                found = connection.execution_options(yield_per=500).execute(sa.text(statement))
                for _ in found:
                    pass

    return _took(read)


def run_check(url: str, schema: str) -> Took:
    """`backfill replay --check`."""

    def compare() -> None:
        found = check(_settings(url, schema), url=url, tables=replayed_tables())
        if found.error is not None:
            raise found.error

    return _took(compare)


def run_replay(url: str, schema: str) -> Took:
    """`backfill replay`."""
    return _took(
        lambda: replay(
            _settings(url, schema), url=url, tables=replayed_tables(), report=lambda _: None
        )
    )


def replay_from_nothing(url: str, schema: str) -> Took:
    """The same, when versions and tables are lost."""
    with make_engine(url, schema).begin() as connection:
        connection.execute(sa.text(EMPTY))
    return run_replay(url, schema)


def ask(url: str, schema: str, versions: int) -> dict[str, float]:
    """The seconds that each query takes, the median of three moments."""
    engine = make_engine(url, schema, json_deserializer=loads)
    reporting = quote_identifier(reporting_schema(schema))
    asked: dict[str, float] = {}
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("ANALYZE"))
        some = connection.execute(sa.text("SELECT persona_id FROM personas LIMIT 1")).scalar_one()
        for heading, query in QUERIES.items():
            times = []
            for nth in (1, 2, 3):
                moment = BEGAN + timedelta(days=versions * nth // 4, hours=12)
                began = time.perf_counter()
                connection.execute(
                    sa.text(query.format(r=reporting)), {"moment": moment, "id": some}
                ).all()
                times.append(time.perf_counter() - began)
            asked[heading] = sorted(times)[1]
    return asked


def _settings(url: str, schema: str) -> Settings:
    return Settings.model_validate({"database": {"url": url, "schema": schema}})


def _took(job: Callable[[], object]) -> Took:
    began = time.perf_counter()
    job()
    return Took(time.perf_counter() - began, _peak_mib())


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
