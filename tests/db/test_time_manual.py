"""What docs/time.md shows of its queries is what they print to who may read the reports alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from etl.sandbox.generate import generate
from tests.db.april import april
from tests.db.sql_manual import assert_printed, examples, reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.db.sql_manual import Reader

MANUAL = Path(__file__).parents[2] / "docs" / "time.md"
WIDEST = 36


@pytest.fixture
def reader(role, copying) -> Iterator[Reader]:
    """A session of a role that was granted the reports, in a database of that April."""
    with copying(generate(30, seed=1)) as target:
        april(target)
        with reading(target, role) as session:
            yield session


def test_what_the_manual_shows_is_what_its_queries_print(reader) -> None:
    found = examples(MANUAL.read_text(encoding="utf-8"))
    assert len(found) > 12
    assert_printed(reader, found, widest=WIDEST)
