"""What docs/reporting.md answers is what its queries print to who may read the reports alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from etl.sandbox.generate import generate
from tests.db.april import spring
from tests.db.sql_manual import assert_printed, examples, reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.db.sql_manual import Reader

MANUAL = Path(__file__).parents[2] / "docs" / "reporting.md"
WIDEST = 60

# When the manual says that it asks.
NOON = "timestamptz '2026-04-16 12:00Z'"


def asked(query: str) -> str:
    """The query as it is put on that day: it must answer the same for ever."""
    return query.replace("now()", NOON)


def as_anchor(heading: str) -> str:
    """What a heading is linked by, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def page() -> str:
    return MANUAL.read_text(encoding="utf-8")


def sections() -> tuple[str, str]:
    """The page up to its contents' end, and the questions."""
    text = page()
    start = text.index("\n## ", text.index("\n## Questions\n") + 1)
    return text[:start], text[start:]


@pytest.fixture
def reader(role, copying) -> Iterator[Reader]:
    """A session of a role that was granted the reports, in a database of that spring."""
    with copying(generate(30, seed=1)) as target:
        spring(target)
        with reading(target, role) as session:
            yield session


def test_what_the_manual_answers_is_what_its_queries_print(reader) -> None:
    shown = [(asked(query), output) for query, output in examples(page())]
    assert_printed(reader, shown, widest=WIDEST)


def test_every_question_has_its_query_and_says_what_the_answer_means() -> None:
    _, questions = sections()
    asked_for = re.split(r"^### (.+)\n", questions, flags=re.MULTILINE)[1:]
    titles, bodies = asked_for[::2], asked_for[1::2]
    assert len(titles) >= 25
    for title, body in zip(titles, bodies, strict=True):
        assert title.endswith("?")
        assert examples(body), title
        assert body.split("```")[0].strip(), title


def test_the_contents_lead_to_every_question_and_nowhere_else() -> None:
    opening, questions = sections()
    contents = opening.partition("\n## Questions\n")[2]
    headings = re.findall(r"^###? (.+)$", questions, re.MULTILINE)
    # Of two that are linked alike the second could not be reached.
    assert len({as_anchor(heading) for heading in headings}) == len(headings)
    assert re.findall(r"\[(.+?)\]\(#(.+?)\)", contents) == [(h, as_anchor(h)) for h in headings]
    links = re.findall(r"\]\(#(.+?)\)", opening + questions)
    assert set(links) == {as_anchor(heading) for heading in headings}


def test_no_answer_hangs_on_the_day_on_which_it_is_asked() -> None:
    # What views reckon with the real clock, and SQL's other ways to ask it.
    clocks = r"\b(?:age|state|current_date|current_timestamp|clock_timestamp|localtime\w*)\b"
    for query, _ in examples(page()):
        assert not re.search(clocks, query, re.IGNORECASE), query
