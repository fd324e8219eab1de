"""Text for a terminal: aligned in every script, cut to a width, unable to steer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import width

from etl.report.text import as_line, as_table, escaped, json_text, length_of_time, listed


def test_columns_line_up_and_numbers_stand_to_the_right() -> None:
    rows: list[list[object]] = [
        ["Zoë", 5, Decimal("1.25")],
        ["美咲", 12, None],
        ["x", None, Decimal(10)],
    ]
    assert as_table(["name", "tools", "cost"], rows).splitlines() == [
        "name  tools  cost",
        "────  ─────  ────",
        "Zoë       5  1.25",
        "美咲     12",
        "x              10",
    ]


def test_without_rows_the_header_stays() -> None:
    assert as_table(["name", "tools"], []) == "name  tools\n────  ─────"


def test_a_column_of_nulls_is_empty() -> None:
    assert as_table(["a", "b"], [[None, "x"], [None, None]]).split("\n")[2:] == ["   x", ""]


def test_times_are_in_utc_with_their_offset() -> None:
    noon = datetime(2026, 3, 3, 14, tzinfo=timezone(timedelta(hours=2)))
    assert as_line(noon) == "2026-03-03 12:00:00.000+00:00"
    assert as_line(noon.astimezone(UTC)) == as_line(noon)


@pytest.mark.parametrize("hostile", ["a\x1b[2Jb", "a\nb", "a\rb", "a\x07b", "a\u202eb", "a\x9bb"])
def test_no_cell_steers_the_terminal(hostile: str) -> None:
    for line in as_table([hostile], [[hostile]]).splitlines():
        assert line.isprintable()
    assert len(as_table([hostile], [[hostile]]).splitlines()) == 3


@given(st.lists(st.text(), min_size=1), st.integers(1, 20))
def test_no_line_is_wider_than_asked_for(texts: list[str], widest: int) -> None:
    for line in as_table(["t"], [[text] for text in texts], widest=widest).splitlines():
        assert width(line) <= widest


def test_what_is_cut_says_so_and_no_letter_is_halved() -> None:
    assert as_line("Receptionist", 8) == "Recepti…"
    assert as_line("美咲美咲", 4) == "美…"
    assert as_line("👩🏽‍⚕️👩🏽‍⚕️", 3) == "👩🏽‍⚕️…"


def test_what_is_escaped_is_all_there_and_an_emoji_stays_whole() -> None:
    assert escaped("a\x1b[2J\n\u202e") == r"a\u001b[2J\u000a\u202e"
    assert escaped("👩\u200d🏫 Ada") == "👩\u200d🏫 Ada"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (5 * 3600 + 59, "5 h"),
        (5 * 3600 + 600, "5 h 10 min"),
        (47 * 3600, "47 h"),
        (48 * 3600, "2 d"),
        (76 * 3600 + 1800, "3 d 4 h"),
    ],
)
def test_a_length_of_time_is_told_in_two_units(seconds: float, told: str) -> None:
    assert length_of_time(timedelta(seconds=seconds)) == told


@given(st.text())
def test_json_for_a_terminal_says_the_same_and_steers_nothing(text: str) -> None:
    shown = json_text(json.dumps(text, ensure_ascii=False).encode(errors="replace"))
    assert json.loads(shown) == text.encode(errors="replace").decode()
    assert not set(shown) & {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2028"}


def test_json_for_a_terminal_leaves_every_script_as_it_is() -> None:
    assert (
        json_text('"美咲 \x9b2J\u202e\U0001f600"'.encode()) == '"美咲 \\u009b2J\\u202e\U0001f600"'
    )


def test_of_names_as_many_are_listed_as_fit_and_the_rest_is_counted() -> None:
    assert listed("3: ", ["Ada", "Bo", "Cy"], 3, 80) == "3: Ada; Bo; Cy"
    assert listed("3: ", ["Ada", "Bo", "Cy"], 3, 14) == "3: Ada; Bo; Cy"
    assert listed("3: ", ["Ada", "Bo", "Cy"], 3, 13) == "3: Ada and 2 more"
    assert listed("1,200: ", ["Ada", "Bo"], 1200, 80) == "1,200: Ada; Bo and 1,198 more"
