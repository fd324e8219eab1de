"""What docs/time.md shows of its queries is what they print, to a role that may read the reports.

The data is the demo's, synced five times, then dated: each run is moved to nine in the morning of a
day in April, and `backfill replay` makes versions and tables of the observations anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa

from etl.cli.tour import change
from etl.jobs.migrate import migrate
from etl.report.text import as_table
from etl.sandbox.generate import generate
from etl.store.engine import make_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.sandbox import World
    from tests.db.conftest import Target

MANUAL = Path(__file__).parents[2] / "docs" / "time.md"
WIDEST = 36

# A query, and what it prints.
_EXAMPLE = re.compile(r"^```sql\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)

# All that is dated by when a run took place.
_DATED = {
    "observations": ("observed_at",),
    "persona_sync_state": ("last_attempt_at", "last_success_at"),
    "runs": ("started_at", "finished_at"),
}


def examples() -> list[tuple[str, str]]:
    return _EXAMPLE.findall(MANUAL.read_text(encoding="utf-8"))


def april(target: Target) -> None:
    """Five syncs, with what happens before each, moved to days of April."""
    world = target.world
    ids = world.persona_ids
    target.sync(ids)
    target.sync(ids)
    change(world)
    target.sync(ids)
    a_later_week(world, ids)
    target.sync(ids)
    target.sync(ids)
    target.query("""
        CREATE TABLE dated AS
        SELECT started_at, finished_at, make_timestamptz(2026, 4, day, 9, 0, 0, 'UTC') AS morning
          FROM (SELECT started_at, finished_at,
                       (array[1, 2, 8, 15, 16])[row_number() OVER (ORDER BY started_at)] AS day
                  FROM runs) AS run
    """)
    for table, columns in _DATED.items():
        for column in columns:
            target.query(f"""
                UPDATE {table} SET {column} = morning + ({table}.{column} - dated.started_at)
                  FROM dated
                 WHERE {table}.{column} BETWEEN dated.started_at AND dated.finished_at
            """)
    target.query("DROP TABLE dated")
    target.replay()


def a_later_week(world: World, ids: list[str]) -> None:
    """Who was gone is back under another name, a voice has other tags, and there is a new field."""
    (gone,) = set(ids) - set(world.persona_ids)
    world.restore(gone)
    world.edit(gone, {"name": "Ελένη, back again"})
    voices = [voice for id_ in ids if (voice := world.payload(id_)["voice"])]
    voice = next(voice for voice in voices if len(voice["displayTags"]) > 1)
    world.edit(voice["id"], {"displayTags": ["calm", *voice["displayTags"][1:]]}, "voices")
    world.reshape(lambda payload: payload | {"tier": None})


@pytest.fixture
def reader(role, copying) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A session of a role that was granted the reports, in a database of that April."""
    with copying(generate(30, seed=1)) as target:
        april(target)
        migrate(make_engine(target.url, target.schema), target.schema, readers=[role])
        url = sa.make_url(target.url).set(username=role, password="p@ss", drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
            connection.execute("SET TimeZone TO 'UTC'")
            yield connection


def test_what_the_manual_shows_is_what_its_queries_print(reader) -> None:
    found = examples()
    assert len(found) > 12
    for query, output in found:
        cursor = reader.execute(query)
        names = [column.name for column in cursor.description]
        rows = cursor.fetchall()
        assert rows, query
        assert as_table(names, rows, widest=WIDEST) + "\n" == output, query
