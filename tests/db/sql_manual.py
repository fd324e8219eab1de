"""A manual of SQL: its examples, who runs them, and that what it shows is what they print."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy as sa

from etl.jobs.migrate import migrate
from etl.report.text import as_table
from etl.store.engine import make_engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.db.conftest import Target

# A query, and what it prints.
_EXAMPLE = re.compile(r"^```sql\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)

Reader = psycopg.Connection[tuple[object, ...]]


def examples(page: str) -> list[tuple[str, str]]:
    return _EXAMPLE.findall(page)


@contextmanager
def reading(target: Target, role: str) -> Iterator[Reader]:
    """A session of a role that was granted the reports, in UTC."""
    migrate(make_engine(target.url, target.schema), target.schema, readers=[role])
    url = sa.make_url(target.url).set(username=role, password="p@ss", drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute("SET TimeZone TO 'UTC'")
        yield connection


def assert_printed(reader: Reader, shown: Iterable[tuple[str, str]], *, widest: int) -> None:
    """That each query prints what stands below it; none prints nothing."""
    for query, output in shown:
        cursor = reader.execute(query)
        rows = cursor.fetchall()
        assert rows, query
        names = [column.name for column in cursor.description or ()]
        assert as_table(names, rows, widest=widest) + "\n" == output, query
