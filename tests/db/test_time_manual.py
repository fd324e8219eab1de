"""What docs/time.md shows of its queries is what they print to who may read the reports alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa

from etl.jobs.migrate import migrate
from etl.report.text import as_table
from etl.sandbox.generate import generate
from etl.store.engine import make_engine
from tests.db.april import april

if TYPE_CHECKING:
    from collections.abc import Iterator

MANUAL = Path(__file__).parents[2] / "docs" / "time.md"
WIDEST = 36

# A query, and what it prints.
_EXAMPLE = re.compile(r"^```sql\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    return _EXAMPLE.findall(MANUAL.read_text(encoding="utf-8"))


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
