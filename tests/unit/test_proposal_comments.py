"""Comments on what is added, whatever the API calls it."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.payload.paths import member
from etl.proposal.comments import comment_on
from etl.proposal.model import Drift, Rename
from tests.unit.strategies import properties

HOSTILE = ['mood\'; DROP TABLE personas; --""" %s {x} :y \\', '"""', "\\", "'", "*/", "--", "\n"]


def drift(path, seen_at=datetime(2026, 11, 23, 12, tzinfo=UTC)):
    return Drift("persona", path, "unknown", (), seen_at, seen_at, 1, "open")


def test_it_says_which_field_it_is_and_since_when():
    assert comment_on(drift("moodScore")) == "moodScore, since 2026-11-23."
    assert comment_on(drift("brain.tags[]")) == "brain.tags, since 2026-11-23."
    assert comment_on(drift('["odd key"].x')) == "[odd key].x, since 2026-11-23."
    assert comment_on(drift('["настроение"]')) == "[?], since 2026-11-23."
    told = comment_on(drift("voiceSpeed"), as_type="double precision")
    assert told == "voiceSpeed as double precision, since 2026-11-23."


def test_a_day_begins_in_utc():
    late = datetime(2026, 11, 24, 1, tzinfo=timezone(timedelta(hours=2)))
    assert comment_on(drift("mood", late)) == "mood, since 2026-11-23."


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("voiceSpeed", "speechRate, since 2026-11-23. Formerly voiceSpeed, it seems."),
        ("voiceDetectionOptions.endOfSpeech", "speechRate, since 2026-11-23."),
    ],
)
def test_a_former_name_is_told_where_there_is_room(path, expected):
    assert comment_on(drift("speechRate"), rename=Rename(path, "t", "c", 1, 1)) == expected


@properties(300)
@given(
    key=st.text(max_size=300) | st.sampled_from(HOSTILE),
    as_type=st.sampled_from([None, "text", "double precision"]),
)
def test_it_breaks_neither_python_nor_sql_nor_a_docstring(key, as_type):
    rename = Rename(member("", key), "t", "c", 1, 1)
    comment = comment_on(drift(member("brain", key)), as_type=as_type, rename=rename)
    assert len(comment) <= 70
    assert comment.isascii()
    assert comment.isprintable()
    assert not set(comment) & set("\"'\\%{}:$`;*#<>")
    assert ast.literal_eval(f'"{comment}"') == ast.literal_eval(f'"""{comment}"""') == comment
