"""How long to wait before another attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.source.retry import backoff_seconds, retry_after_seconds


def test_the_bound_of_the_backoff_doubles_up_to_twenty_seconds():
    assert [backoff_seconds(attempt, 1.0) for attempt in range(1, 9)] == [
        0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0,
    ]  # fmt: skip


def test_the_jitter_is_full():
    assert backoff_seconds(3, 0.0) == 0.0
    assert backoff_seconds(3, 0.25) == 0.5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        (" 7 ", 7.0),
        ("9" * 400, float("inf")),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("nan", None),
        ("1e3", None),
        ("٣", None),
        ("5, 6", None),
    ],
)
def test_retry_after_in_seconds(value, seconds):
    assert retry_after_seconds({"retry-after": value}) == seconds


def test_no_retry_after_is_none():
    assert retry_after_seconds({}) is None


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
    ],
)
def test_a_date_is_held_against_the_answers_own_clock(date, seconds):
    headers = {"retry-after": date, "date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert retry_after_seconds(headers) == seconds


def test_a_date_without_the_answers_clock_is_held_against_ours():
    assert retry_after_seconds({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}) == 0.0
    far_away = retry_after_seconds({"retry-after": "Fri, 01 Jan 2999 00:00:00 GMT"})
    assert far_away is not None
    assert far_away > 1e9


@given(
    st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} -?\d+ \d+:\d+:\d+( [A-Z+-]?\w*)?"),
    st.text(),
)
def test_no_header_breaks_the_reading(value, date):
    seconds = retry_after_seconds({"retry-after": value, "date": date})
    assert seconds is None or seconds >= 0
