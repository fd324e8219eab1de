"""What `demo` shows: everything once, against the sandbox and an embedded Postgres of its own."""

from __future__ import annotations

import difflib
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from etl.cli.report_screen import as_lines
from etl.cli.sync import as_text
from etl.errors import InterruptedRunError
from etl.jobs.migrate import migrate
from etl.jobs.report import report
from etl.jobs.sync import sync
from etl.report.text import as_line, as_table
from etl.sandbox import running_sandbox
from etl.settings import load_settings
from etl.store.embedded import embedded_server
from etl.store.engine import make_engine
from etl.store.revisions import head_revision

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from sqlalchemy import Engine

    from etl.jobs.summary import Summary
    from etl.sandbox import Sandbox, World
    from etl.settings import Settings

TABLES = """
SELECT name, avatar_name AS avatar, voice_name AS voice, voice_provider AS provider, system_prompt
  FROM anam_reporting.personas
 ORDER BY name
 LIMIT 5
"""

CHANGES = """
SELECT kind, name, path, left(old_value #>> '{}', 10) AS old, left(new_value #>> '{}', 10) AS new
  FROM anam_reporting.changes
 ORDER BY kind, name, path
"""

REMOVED = """
SELECT name, removed_at
  FROM anam_reporting.personas
 WHERE removed_at IS NOT NULL
"""

PROMPTS = """
SELECT prompt_version, valid_from, valid_to, system_prompt
  FROM anam_reporting.prompt_history
 WHERE persona_id = %(persona_id)s
 ORDER BY prompt_version
"""

COUNTS = """
SELECT (SELECT count(*) FROM personas) AS personas, (SELECT count(*) FROM avatars) AS avatars,
       (SELECT count(*) FROM voices) AS voices, (SELECT count(*) FROM tools) AS tools,
       (SELECT count(*) FROM share_links) AS share_links,
       (SELECT count(*) FROM observations) AS observations,
       (SELECT count(*) FROM document_versions) AS versions
"""


def tour(personas: int) -> Generator[str, None, None]:
    """All of it, told piece by piece; at its end nothing is left."""
    yield "Starting a stand-in for the API and a Postgres of its own: some seconds …"
    with ExitStack() as running:
        sandbox = running.enter_context(running_sandbox(count=personas))
        folder = running.enter_context(tempfile.TemporaryDirectory(prefix="persona-etl-demo-"))
        url = running.enter_context(embedded_server(Path(folder), durable=False))
        settings = load_settings(
            {"ANAM_API_URL": sandbox.url, "ANAM_API_KEY": sandbox.key}, cwd=Path(folder)
        )
        engine = make_engine(url, settings.database.schema_)
        migrate(engine, settings.database.schema_)
        yield (
            f"The stand-in serves {personas} personas at {sandbox.url};\n"
            f"the Postgres is migrated to revision {head_revision()}."
        )
        yield from _synced_twice(settings, url, engine, sandbox)


def _synced_twice(settings: Settings, url: str, engine: Engine, sandbox: Sandbox) -> Iterator[str]:
    """Two syncs with changes in between, what the tables then say, and the report of it."""
    ids = [UUID(persona_id) for persona_id in sandbox.persona_ids]
    first = _synced(settings, ids, url)
    yield f"\nThe first sync:\n{as_text(first)}"
    yield _found(engine, "What is in the tables now:", COUNTS)
    yield _found(engine, "Some of it, as reports see it (anam_reporting.personas):", TABLES, 18)
    edited = change(sandbox.world)
    second = _synced(settings, ids, url)
    yield f"\nSome things changed at the API. The second sync:\n{as_text(second)}"
    yield _found(engine, "What changed (anam_reporting.changes):", CHANGES, 18)
    yield _found(engine, "Who is gone (their rows stay):", REMOVED)
    names, versions = _rows(engine, PROMPTS, persona_id=edited)
    times = as_table(names[:-1], [times for *times, _prompt in versions])
    yield f"\nWhich prompt was live when (anam_reporting.prompt_history):\n{times}"
    yield "\n".join(["\nWhat changed in it:", *_differences(*(row[-1] for row in versions))])
    found = report(settings, url=url, since=first.finished_at or first.started_at)
    told = as_lines(found, coloured=False)
    yield "\n".join(["\nAll that at a glance (persona-etl report):", *told])


def change(world: World) -> str:
    """What a week of work may look like. Returns the id of the persona with the new prompt."""
    prompted, renamed, gone, *_ = world.persona_ids
    *kept, _last = (world.payload(prompted)["brain"]["systemPrompt"] or "").splitlines() or [""]
    prompt = "\n".join([*kept, "You answer in one sentence."])
    world.edit(prompted, {"brain": {"systemPrompt": prompt}})
    world.edit(renamed, {"name": "Renamed", "skipGreeting": True})
    world.delete(gone)
    world.edit(world.shared_ids("avatars")[0], {"activeVersion": "cara-5"}, "avatars")
    return prompted


def _differences(*prompts: object) -> list[str]:
    """The lines that differ between two prompts, with one around them, fit for a terminal."""
    before, after = [str(prompt or "").splitlines() for prompt in prompts]
    # Past the file names and the line numbers that a patch would need.
    told = list(difflib.unified_diff(before, after, n=1, lineterm=""))[3:]
    return [f"{line[0]} {as_line(line[1:], 78)}".rstrip() for line in told]


def _synced(settings: Settings, ids: list[UUID], url: str) -> Summary:
    ended: list[Summary] = []
    sync(settings, ids, url=url, report=ended.append)
    error = ended[0].error
    if isinstance(error, InterruptedRunError):
        # Its words are about what stays, and of the demo nothing does.
        raise SystemExit(error.exit_code)
    if error is not None:
        raise error
    return ended[0]


def _found(engine: Engine, heading: str, sql: str, widest: int = 28) -> str:
    names, rows = _rows(engine, sql)
    return f"\n{heading}\n{as_table(names, rows, widest=widest)}"


def _rows(
    engine: Engine, sql: str, **parameters: str
) -> tuple[list[str], Sequence[Sequence[object]]]:
    with engine.connect() as connection:
        found = connection.exec_driver_sql(sql, parameters)
        return list(found.keys()), [tuple(row) for row in found]
