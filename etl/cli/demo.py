"""`demo`: everything once, against the sandbox and an embedded Postgres of its own."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import click
from sqlalchemy import text

from etl.cli.sync import as_text
from etl.jobs.sync import sync
from etl.report.text import as_table
from etl.sandbox import running_sandbox
from etl.settings import load_settings
from etl.store.embedded import embedded_server
from etl.store.engine import make_engine
from etl.store.migration import current_and_head, upgrade

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from etl.jobs.summary import Summary
    from etl.sandbox import Sandbox
    from etl.settings import Settings

TABLES = """
SELECT p.name, a.display_name AS avatar, v.display_name AS voice, v.provider, b.system_prompt
  FROM personas p
  LEFT JOIN avatars a USING (avatar_id)
  LEFT JOIN voices v USING (voice_id)
  JOIN brains b USING (persona_id)
 ORDER BY p.name
 LIMIT 5
"""

CHANGES = """
SELECT d.kind, coalesce(p.name, a.display_name) AS name, d.change,
       array_to_string(d.changed_paths, ', ') AS changed
  FROM document_versions d
  LEFT JOIN personas p ON d.kind = 'persona' AND p.persona_id = d.entity_id
  LEFT JOIN avatars a ON d.kind = 'avatar' AND a.avatar_id = d.entity_id
 WHERE d.version > 1
 ORDER BY d.change DESC, d.kind, name
"""

PROMPTS = """
SELECT v.version, to_char(v.valid_from, 'HH24:MI:SS.MS') AS valid_from,
       to_char(v.valid_to, 'HH24:MI:SS.MS') AS valid_to,
       d.document -> 'brain' ->> 'systemPrompt' AS prompt
  FROM document_versions v
  JOIN documents d USING (kind, content_hash)
 WHERE v.kind = 'persona' AND v.entity_id = CAST(:persona_id AS uuid)
 ORDER BY v.version
"""

COUNTS = """
SELECT (SELECT count(*) FROM personas) AS personas, (SELECT count(*) FROM avatars) AS avatars,
       (SELECT count(*) FROM voices) AS voices, (SELECT count(*) FROM tools) AS tools,
       (SELECT count(*) FROM share_links) AS share_links,
       (SELECT count(*) FROM observations) AS observations,
       (SELECT count(*) FROM document_versions) AS versions
"""

NEXT = """
Next, with your own key and database:
  persona-etl init      # writes persona-etl.toml: set ids and database.url
  export ANAM_API_KEY=…
  persona-etl migrate
  persona-etl sync      # and again from cron; cron/ has the line
To look around without a key: persona-etl sandbox --help"""


@click.command("demo")
@click.option("--personas", default=30, type=click.IntRange(4), show_default=True)
def command(*, personas: int) -> None:
    """Show all of it in one go. Needs no key and no database, and leaves nothing behind."""
    with ExitStack() as running:
        sandbox = running.enter_context(running_sandbox(count=personas))
        folder = running.enter_context(tempfile.TemporaryDirectory(prefix="persona-etl-demo-"))
        url = running.enter_context(embedded_server(Path(folder), durable=False))
        settings = load_settings(
            {"ANAM_API_URL": sandbox.url, "ANAM_API_KEY": sandbox.key}, cwd=Path(folder)
        )
        engine = make_engine(url, settings.database.schema_)
        upgrade(engine, settings.database.schema_)
        _, head = current_and_head(engine, settings.database.schema_)
        click.echo(
            f"A stand-in for the API serves {personas} personas at {sandbox.url};\n"
            f"an embedded Postgres is migrated to revision {head}."
        )
        _tour(settings, url, engine, sandbox)
    click.echo(NEXT)


def _tour(settings: Settings, url: str, engine: Engine, sandbox: Sandbox) -> None:
    """Two syncs with changes in between, and what the tables then say."""
    ids = [UUID(persona_id) for persona_id in sandbox.persona_ids]
    _sync(settings, ids, url, "The first sync:")
    _show(engine, "What is in the tables now:", COUNTS)
    _show(engine, "Some of it: personas with their avatar, voice and prompt", TABLES, widest=18)
    edited = _change(sandbox)
    _sync(settings, ids, url, "Some things changed at the API. The second sync:")
    _show(engine, "What changed (document_versions):", CHANGES)
    _show(engine, "Which prompt was live when:", PROMPTS, persona_id=edited)


def _change(sandbox: Sandbox) -> str:
    """What a week of work may look like. Returns the id of the persona with the new prompt."""
    world = sandbox.world
    prompted, renamed, gone, *_ = world.persona_ids
    world.edit(prompted, {"brain": {"systemPrompt": "You answer in one sentence."}})
    world.edit(renamed, {"name": "Renamed", "skipGreeting": True})
    world.delete(gone)
    world.edit_avatar(world.shared_ids("avatars")[0], {"activeVersion": "cara-5"})
    return prompted


def _sync(settings: Settings, ids: list[UUID], url: str, heading: str) -> None:
    ended: list[Summary] = []
    sync(settings, ids, url=url, report=ended.append)
    click.echo(f"\n{heading}\n{as_text(ended[0])}")
    if ended[0].error is not None:
        raise ended[0].error


def _show(engine: Engine, heading: str, sql: str, *, widest: int = 28, **parameters: str) -> None:
    with engine.connect() as connection:
        found = connection.execute(text(sql), parameters)
        rows = [tuple(row) for row in found]
        click.echo(f"\n{heading}\n{as_table(list(found.keys()), rows, widest=widest)}")
