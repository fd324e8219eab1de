"""A phrase is found as people mean it: whatever its case, its accents' spelling and its lines."""

from __future__ import annotations

import re
import tracemalloc
import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from etl.report.passages import Excerpt, excerpts, expression, phrase

if TYPE_CHECKING:
    from etl.report.passages import Finder

COMPOSED, DECOMPOSED = "Zo\u00eb", "Zoe\u0308"


def found(wanted: str, text: str) -> list[str]:
    return [text[start:end] for start, end in phrase(wanted)(text)]


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        ("opening hours", "Opening\n  hours, OPENING HOURS", ["Opening\n  hours", "OPENING HOURS"]),
        ("STRASSE", "in der Straße.", ["Straße"]),
        ("straße", "in der STRASSE.", ["STRASSE"]),
        (COMPOSED, f"I am {DECOMPOSED}!", [DECOMPOSED]),
        (DECOMPOSED.upper(), f"I am {COMPOSED}!", [COMPOSED]),
        ("ελένης", "ΕΛΈΝΗΣ", ["ΕΛΈΝΗΣ"]),
        ("営業時間", "私たちの営業時間は九時から", ["営業時間"]),
        ("\u0131", "i I", []),
        ("a.c", "abc a.c", ["a.c"]),
        (" tour  guide ", "a tour\u00a0guide", ["tour\u00a0guide"]),
        ("aa", "aaaaa", ["aa", "aa"]),
        ("👍🏽", "so 👍🏽 it is", ["👍🏽"]),
    ],
)
def test_a_phrase_is_found_as_people_mean_it(wanted: str, text: str, expected: list[str]) -> None:
    assert found(wanted, text) == expected


def test_an_accent_is_part_of_its_letter() -> None:
    for text in (COMPOSED, DECOMPOSED):
        assert found("Zoe", text) == []
        assert found("Zo", text) == ["Zo"]
        assert found("\u0308", text) == []
    assert found("s", "Straße as") == ["S", "s"]


def test_an_expression_finds_what_it_matches_but_not_nothing() -> None:
    find = expression(re.compile(r"x*\d", re.IGNORECASE))
    assert [tuple(span) for span in find("xX1 2")] == [(0, 3), (4, 5)]
    assert list(expression(re.compile("x*"))("abc")) == []


@pytest.mark.parametrize("find", [phrase("e"), expression(re.compile("e"))])
def test_millions_of_passages_are_never_in_memory_at_once(find: Finder) -> None:
    tracemalloc.start()
    assert sum(1 for _ in find("e" * 100_000)) == 100_000
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2_000_000


def test_an_excerpt_has_its_line_and_what_stands_around_it() -> None:
    text = "one\ntwo three\nfour"
    assert excerpts(text, phrase("three four")(text)) == [
        Excerpt(2, "one\ntwo ", "three\nfour", "")
    ]


words = st.text(st.sampled_from("aAäß\u0308\u0301\u017fK \u0130\u01f0字👍\n"), max_size=12)


@given(words, words, words)
def test_what_was_put_in_is_found_in_any_spelling(before: str, wanted: str, after: str) -> None:
    # An accent at its start would be one of the blank before it.
    assume(wanted.strip() and not unicodedata.combining(wanted.strip()[0]))
    text = f"{before} {wanted} {after}"
    for spelled in (wanted, unicodedata.normalize("NFC", wanted), f" {wanted}\n", wanted.upper()):
        assert list(phrase(spelled)(text))


@given(words, words)
def test_places_lie_in_the_text_in_order(text: str, wanted: str) -> None:
    if wanted.strip():
        ends = [place for span in phrase(wanted)(text) for place in span]
        assert ends == sorted(ends)
        assert all(0 <= place <= len(text) for place in ends)
