"""What the reporting views cost: 100 000 personas of 20 versions, made in SQL, and asked.

Run by hand: `python -m bench.report`. Each query stands beside a floor: the plainest one that reads
the same rows of the tables below, without what the view adds. Both are copied out as text and
dropped, so that what is stored out of line is really fetched. The median of three, of what takes
more than a few seconds one. Nothing is made with `sync`, which would take hours: the rows are those
that it would have left, by `bench/report_data.sql`. It needs 10 GB and a superuser, as which the
foreign keys are not checked while it fills.

With `--commands` it runs the commands instead, each in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from bench.load import database
from etl.report.ours import reporting_schema

if TYPE_CHECKING:
    from psycopg import Connection

CHUNK = 5000
SLOW_SECONDS = 3.0

ONE = "md5('persona' || 4321)::uuid"
VOICE, AVATAR, TOOL = (f"md5('{kind}' || 77)::uuid" for kind in ("voice", "avatar", "tool"))
LLM = "'CUSTOMER_CLIENT_V1'"
DAY = "BETWEEN now() - interval '10 days' AND now() - interval '9 days'"
A_DAY_AGO = "now() - interval '1 day'"
MOMENT = "now() - interval '17 days'"

_OF_VERSIONS = (
    "document_versions AS v LEFT JOIN documents AS d"
    " ON d.kind = v.kind AND d.content_hash = v.content_hash WHERE v.kind = 'persona'"
)
_THEN = f"(v.valid_to > {MOMENT} OR v.valid_to IS NULL) AND v.valid_from <= {MOMENT}"


def _users(key: str, source: str) -> str:
    """How many have each shared thing: what its view has to count at least."""
    return f"(SELECT {key}, count(*) FROM {source} GROUP BY {key}) AS _"


# What is asked of the views, and the floor.
QUERIES = {
    "personas: one": (
        f"personas WHERE persona_id = {ONE}",
        f"personas JOIN brains USING (persona_id) WHERE persona_id = {ONE}",
    ),
    "personas: 100": ("personas LIMIT 100", "personas JOIN brains USING (persona_id) LIMIT 100"),
    "personas: all": ("personas", "personas JOIN brains USING (persona_id)"),
    "personas: how many are live": (
        "(SELECT count(*) FROM personas WHERE removed_at IS NULL) AS _",
        "(SELECT count(*) FROM personas WHERE removed_at IS NULL) AS _",
    ),
    "personas: of a voice": (
        f"personas WHERE voice_id = {VOICE}",
        f"personas JOIN brains USING (persona_id) WHERE voice_id = {VOICE}",
    ),
    "personas: of an avatar's name": (
        "personas WHERE avatar_name = 'avatar 77'",
        (
            "personas JOIN brains USING (persona_id) JOIN avatars USING (avatar_id)"
            " WHERE display_name = 'avatar 77'"
        ),
    ),
    "personas: of an llm": (
        f"personas WHERE llm_id = {LLM}",
        f"personas JOIN brains USING (persona_id) WHERE llm_id = {LLM}",
    ),
    "personas: a phrase in the prompt": (
        "personas WHERE system_prompt ILIKE '%zebra lantern%'",
        "personas JOIN brains USING (persona_id) WHERE system_prompt ILIKE '%zebra lantern%'",
    ),
    "avatars: all": ("avatars", _users("avatar_id", "personas")),
    "voices: all": ("voices", _users("voice_id", "personas")),
    "tools: all": ("tools", _users("tool_id", "persona_tools JOIN personas USING (persona_id)")),
    "tools: one": (
        f"tools WHERE tool_id = {TOOL}",
        _users(
            "tool_id",
            f"persona_tools JOIN personas USING (persona_id) WHERE tool_id = {TOOL}",
        ),
    ),
    "persona_tools: of a tool": (
        f"persona_tools WHERE tool_id = {TOOL}",
        f"persona_tools JOIN personas USING (persona_id) WHERE tool_id = {TOOL}",
    ),
    "persona_tools: all": ("persona_tools", "persona_tools JOIN personas USING (persona_id)"),
    "share_links: all": ("share_links", "share_links JOIN personas USING (persona_id)"),
    "share_links: of one persona": (
        f"share_links WHERE persona_id = {ONE}",
        f"share_links WHERE persona_id = {ONE}",
    ),
    "share_links: expire within a day": (
        "share_links WHERE expires_at BETWEEN now() AND now() + interval '1 day'",
        "share_links WHERE expires_at BETWEEN now() AND now() + interval '1 day'",
    ),
    "share_links: how many in each state": (
        "(SELECT state, count(*) FROM share_links GROUP BY state) AS _",
        "(SELECT enabled, count(*) FROM share_links GROUP BY enabled) AS _",
    ),
    "voice_generation_options: all": (
        "voice_generation_options",
        "voice_generation_options JOIN personas USING (persona_id)",
    ),
    "prompts: all": ("prompts", "brains"),
    "configurations: all": ("configurations", "personas JOIN brains USING (persona_id)"),
    "configurations: how many": (
        "(SELECT count(*) FROM configurations) AS _",
        "personas JOIN brains USING (persona_id)",
    ),
    "runs: a day": (f"runs WHERE started_at {DAY}", f"runs WHERE started_at {DAY}"),
    "run_items: failures of the last day": (
        f"run_items WHERE started_at > {A_DAY_AGO} AND outcome IN ('failed', 'rejected')",
        (
            f"run_items JOIN runs USING (run_id) WHERE started_at > {A_DAY_AGO}"
            " AND outcome IN ('failed', 'rejected')"
        ),
    ),
    "run_items: of one persona": (
        f"run_items WHERE persona_id = {ONE}",
        f"run_items WHERE persona_id = {ONE}",
    ),
    "value_issues: open": (
        "value_issues WHERE resolved_at IS NULL",
        "value_issues WHERE resolved_at IS NULL",
    ),
    "rejected_payloads: all": ("rejected_payloads", "rejected_payloads"),
    "freshness: one": (
        f"freshness WHERE persona_id = {ONE}",
        f"persona_sync_state WHERE persona_id = {ONE}",
    ),
    "freshness: older than 2 hours": (
        "freshness WHERE age > interval '2 hours'",
        (
            "persona_sync_state JOIN personas USING (persona_id)"
            " WHERE now() - last_success_at > interval '2 hours'"
        ),
    ),
    "freshness: all": ("freshness", "persona_sync_state JOIN personas USING (persona_id)"),
    "persona_history: one": (
        f"persona_history WHERE persona_id = {ONE}",
        f"{_OF_VERSIONS} AND v.entity_id = {ONE}",
    ),
    "persona_history: began on a day": (
        f"persona_history WHERE valid_from {DAY}",
        f"{_OF_VERSIONS} AND v.valid_from {DAY}",
    ),
    "prompt_history: one": (
        f"prompt_history WHERE persona_id = {ONE}",
        f"{_OF_VERSIONS} AND v.entity_id = {ONE}",
    ),
    "voice_history: one": (
        f"voice_history WHERE voice_id = {VOICE}",
        f"document_versions WHERE kind = 'voice' AND entity_id = {VOICE}",
    ),
    "changes: of one persona": (
        f"changes WHERE kind = 'persona' AND entity_id = {ONE}",
        f"{_OF_VERSIONS} AND v.entity_id = {ONE}",
    ),
    "changes: of one, by id alone": (
        f"changes WHERE entity_id = {ONE}",
        f"{_OF_VERSIONS} AND v.entity_id = {ONE}",
    ),
    "changes: a day": (
        f"changes WHERE changed_at {DAY}",
        f"{_OF_VERSIONS} AND v.valid_from {DAY}",
    ),
    "changes: how many a day": (
        f"(SELECT count(*) FROM changes WHERE changed_at {DAY}) AS _",
        f"(SELECT count(*) FROM {_OF_VERSIONS} AND v.valid_from {DAY}) AS _",
    ),
    "personas_as_of: one": (
        f"personas_as_of({MOMENT}) WHERE persona_id = {ONE}",
        f"{_OF_VERSIONS} AND v.entity_id = {ONE} AND {_THEN}",
    ),
    "personas_as_of: all": (f"personas_as_of({MOMENT})", f"{_OF_VERSIONS} AND {_THEN}"),
    "drift: all": ("drift", "drift_paths"),
    "dictionary: all": ("dictionary", "information_schema.columns"),
}

_PRESENT = "personas JOIN brains USING (persona_id)"
_LATELY = f"{_OF_VERSIONS} AND v.valid_from > now() - interval '{{}} days'"

# What is run, and the floor.
COMMANDS = {
    "status": (["status"], "persona_sync_state JOIN personas USING (persona_id)"),
    "runs": (["runs"], "runs"),
    "report: a quiet week": (["report"], _PRESENT),
    "report --html: a quiet week": (["report", "--html", "-"], _PRESENT),
    "report: all versions": (["report", "--since", "60d"], _LATELY.format(60)),
    "prompts search": (["prompts", "search", "zebra lantern"], _PRESENT),
    "prompts search: nothing found": (["prompts", "search", "no such words"], _PRESENT),
    "prompts search --history": (
        ["prompts", "search", "--history", "no such words"],
        _LATELY.format(60),
    ),
    "prompts similar": (["prompts", "similar"], _PRESENT),
    "prompts configurations": (["prompts", "configurations"], _PRESENT),
    "query: all personas as CSV": (
        ["query", "SELECT * FROM personas", "--format", "csv", "--timeout", "1h"],
        _PRESENT,
    ),
    "query: changes of a day as JSON lines": (
        [
            *("query", f"SELECT * FROM changes WHERE changed_at {DAY}"),
            *("--format", "jsonl", "--timeout", "1h"),
        ],
        f"{_OF_VERSIONS} AND v.valid_from {DAY}",
    ),
}
# `prompts search` found nothing.
_WELL = {0, 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--personas", type=int, default=100_000)
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--database-url", help="a superuser's, instead of an embedded Postgres")
    parser.add_argument("--only", default="", help="ask only what has this text in its heading")
    parser.add_argument("--commands", action="store_true", help="run the commands instead")
    parser.add_argument("--plans", action="store_true", help="show how Postgres answers as well")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="persona-etl-bench-") as name,
        database(Path(name) / "database", options.database_url) as (url, schema),
        psycopg.connect(url, autocommit=True) as connection,
    ):
        began = time.perf_counter()
        fill(connection, schema, options.personas, options.versions)
        took = time.perf_counter() - began
        size = _size(connection)
        print(f"{options.personas} personas of {options.versions} versions, {size}, {took:.0f} s\n")
        if options.commands:
            _run_commands(connection, url, schema, options.only)
            return
        print(f"{'':40}{'rows':>9}{'view ms':>10}{'floor ms':>10}{'ratio':>8}")
        for heading, (asked, floor) in QUERIES.items():
            if options.only not in heading:
                continue
            of_view, rows = ask(connection, reporting_schema(schema), asked)
            of_floor, _ = ask(connection, schema, floor)
            print(
                f"{heading:40}{rows:9}{of_view * 1000:10.1f}{of_floor * 1000:10.1f}"
                f"{of_view / of_floor:8.1f}",
                flush=True,
            )
            if options.plans:
                _show_plan(connection, reporting_schema(schema), asked)


def fill(connection: Connection, schema: str, personas: int, versions: int) -> None:
    """All tables, a few thousand personas at a time: what is temporary stays small."""
    script = Path(__file__).with_name("report_data.sql").read_text()
    before, each, after = script.split("-- next\n")
    _set_schema(connection, schema)
    connection.execute("SET session_replication_role = replica")
    numbers = {"personas": personas, "versions": versions}
    _run(connection, before, numbers)
    for first in range(1, personas + 1, CHUNK):
        last = min(first + CHUNK - 1, personas)
        _run(connection, each, numbers | {"first": first, "last": last})
    _run(connection, after, numbers)
    connection.execute("RESET session_replication_role")
    connection.execute("VACUUM ANALYZE")


def ask(connection: Connection, schema: str, query: str) -> tuple[float, int]:
    """The seconds that a query takes, and how many rows it has."""
    _set_schema(connection, schema)
    copied = f"COPY (SELECT * FROM {query}) TO STDOUT"
    times: list[float] = []
    rows = 0
    with connection.cursor() as cursor:
        while len(times) < 3 and sum(times) < SLOW_SECONDS:
            began = time.perf_counter()
            with cursor.copy(copied.encode()) as lines:
                for _ in lines:
                    pass
            times.append(time.perf_counter() - began)
            rows = cursor.rowcount
    return sorted(times)[len(times) // 2], rows


def _run_commands(connection: Connection, url: str, schema: str, only: str) -> None:
    print(f"{'':40}{'s':>7}{'CPU s':>7}{'MiB':>6}{'floor s':>9}{'ratio':>7}")
    environment = os.environ | {
        "PERSONA_ETL_DATABASE__URL": url,
        "PERSONA_ETL_DATABASE__SCHEMA": schema,
    }
    for heading, (arguments, floor) in COMMANDS.items():
        if only not in heading:
            continue
        of_floor, _ = ask(connection, schema, floor)
        began = time.perf_counter()
        command = [sys.executable, "-m", "etl", *arguments]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in _WELL:
            raise SystemExit(f"{heading}: exit code {process.returncode}")
        print(
            f"{heading:40}{took:7.1f}{used.ru_utime + used.ru_stime:7.1f}"
            f"{used.ru_maxrss / 1024:6.0f}{of_floor:9.1f}{took / of_floor:7.1f}",
            flush=True,
        )


def _run(connection: Connection, script: str, numbers: dict[str, int]) -> None:
    for name, number in numbers.items():
        script = script.replace(f":{name}", str(number))
    connection.execute(script.encode())


def _set_schema(connection: Connection, schema: str) -> None:
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))


def _size(connection: Connection) -> str:
    found = connection.execute(
        "SELECT pg_size_pretty(pg_database_size(current_database()))"
    ).fetchone()
    return str(found[0]) if found else ""


def _show_plan(connection: Connection, schema: str, query: str) -> None:
    _set_schema(connection, schema)
    explained = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM {query}".encode())
    for (line,) in explained:
        print(f"    {line}")


if __name__ == "__main__":
    main()
