"""How fast `backfill files` loads generated exports, beside merely reading and decoding them.

Run by hand: `python -m bench.backfill`. Each line of the table is one load, and right before it a
loop that reads the same file with the same reader and decodes each line. Either is a fresh process:
its seconds are from entering to leaving the job, its CPU and memory are its own, without Postgres.

The exports: a first one of distinct personas; then a copy a day of fewer personas, of which 2 % are
edited each day, in the order of the days and persona by persona; then the last one again, when all
is there. The aim: 4 000 lines a second for those of days and for those that are there. And, for the
memory: a file of days, and one of 20 times as many.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from bench.load import afresh, database, measured
from etl.files.lines import Lines
from etl.jobs.backfill_files import backfill_files
from etl.payload.decode import decode
from etl.sandbox.generate import generate
from etl.settings import Settings

if TYPE_CHECKING:
    from bench.load import Measured
    from etl.jobs.backfill_files import FilesSummary

BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
EDITED_A_DAY = 0.02
TIMES_LARGER = 20


@dataclass(frozen=True)
class Export:
    """A file, and how many lines it has."""

    path: Path
    lines: int


def main() -> None:
    """Prints a line a load."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--personas", type=int, default=10_000, help="of the first load")
    parser.add_argument("--daily", type=int, default=100, help="personas of the daily exports")
    parser.add_argument("--days", type=int, default=730)
    parser.add_argument("--database-url", help="instead of an embedded Postgres")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="persona-etl-bench-") as name:
        folder = Path(name)
        # In a process of its own: Linux counts a parent's peak as its children's.
        first = afresh(make_first, folder, options.personas)
        by_day, by_persona = afresh(make_days, folder, options.daily, options.days)
        small, _ = afresh(make_days, folder, options.daily, options.days // TIMES_LARGER)
        print(f"{'':22}{'lines':>8}{'read/s':>9}{'load/s':>9}{'ratio':>7}{'MiB':>6}{'CPU s':>7}")
        plan = {
            "first load": [first],
            "days, one by one": [by_day, by_day],
            "days, by persona": [by_persona],
            f"1/{TIMES_LARGER} of the days": [small],
        }
        for heading, exports in plan.items():
            with database(folder / heading, options.database_url) as (url, schema):
                for nth, export in enumerate(exports):
                    read = afresh(read_only, export.path)
                    loaded = afresh(run_load, export.path, url, schema)
                    _print("  once more" if nth else heading, export, read, loaded)


def _print(heading: str, export: Export, read: Measured, loaded: Measured) -> None:
    print(
        f"{heading:22}{export.lines:8}{export.lines / read.seconds:9.0f}"
        f"{export.lines / loaded.seconds:9.0f}{read.seconds / loaded.seconds:7.2f}"
        f"{loaded.peak_mib:6.0f}{loaded.cpu_seconds:7.1f}  {loaded.outcomes}",
        flush=True,
    )


def make_first(folder: Path, count: int) -> Export:
    """A line a persona, of one moment."""
    path = folder / "first.ndjson"
    world = generate(count, seed=1)
    with path.open("wb") as out:
        for persona_id in world.persona_ids:
            out.write(_line(BEGAN, json.loads(world.body(persona_id) or b"")))
    return Export(path, count)


def make_days(folder: Path, count: int, days: int) -> tuple[Export, Export]:
    """A line a persona and day, in the order of the days and in that of the personas."""
    dice = Random(1)
    world = generate(count, seed=1)
    payloads = [json.loads(world.body(found) or b"") for found in world.persona_ids]
    by_day, by_persona = (folder / f"{order}-{days}.ndjson" for order in ("days", "personas"))
    of_persona: list[list[bytes]] = [[] for _ in payloads]
    with by_day.open("wb") as out:
        for day in range(days):
            at = BEGAN + timedelta(days=day)
            for payload, lines in zip(payloads, of_persona, strict=True):
                if dice.random() < EDITED_A_DAY:
                    _edit(payload, day)
                line = _line(at, payload)
                out.write(line)
                lines.append(line)
    with by_persona.open("wb") as out:
        for lines in of_persona:
            out.writelines(lines)
    return Export(by_day, days * count), Export(by_persona, days * count)


def _edit(payload: dict[str, object], day: int) -> None:
    payload["brain"] = {"personality": None, "systemPrompt": f"Be brief.\nAs of day {day}."}
    payload["updatedAt"] = (BEGAN + timedelta(days=day)).isoformat()


def _line(at: datetime, payload: object) -> bytes:
    return json.dumps({"observed_at": at.isoformat(), "payload": payload}).encode() + b"\n"


def read_only(path: Path) -> Measured:
    """Reads and decodes each line, and drops it."""

    def read() -> None:
        for line in _lines(path):
            decode(line.raw)

    return measured(read)


def run_load(path: Path, url: str, schema: str) -> Measured:
    """The job as the command runs it, without its imports."""
    settings = Settings.model_validate({"database": {"url": url, "schema": schema}})
    told: list[FilesSummary] = []
    took = measured(lambda: backfill_files(settings, _lines(path), url=url, report=told.append))
    counts = {name: n for name, n in told[0].counts.items() if n and name != "requested"}
    outcomes = ", ".join(f"{n} {name}" for name, n in counts.items())
    return replace(took, outcomes=outcomes)


def _lines(path: Path) -> Lines:
    return Lines([str(path)], dated=None, stdin=None)


if __name__ == "__main__":
    main()
