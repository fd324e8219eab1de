"""The API key is taken out of what the API says, however it is spelt there."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.source.answer import storable_type
from etl.source.echo import Echo

KEY = "OWJh/Zk+9w.x_Y-z~8\"'&=="
KEYS = st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=8)


def spellings(key: str) -> list[str]:
    escaped = json.dumps(key)[1:-1]
    once = quote(key, safe="")
    return [
        key,
        escaped,
        escaped.replace("/", "\\/"),
        escaped.replace("=", "\\u003d").replace("+", "\\u002B").replace("&", "\\u0026"),
        json.dumps(escaped)[1:-1],
        once,
        once.lower() if key.islower() else quote(key),
        quote(once, safe=""),
        html.escape(key),
    ]


@given(KEYS)
@example("::::::::")
def test_no_spelling_of_a_key_gets_through(key):
    echo = Echo(key)
    for spelt in spellings(key):
        said = b'{"said": "bad key <' + spelt.encode() + b'>"}'
        assert echo.out_of(said) == b'{"said": "bad key <[redacted]>"}', spelt


@given(KEYS, st.binary())
def test_what_does_not_hold_it_stays_as_it_is(key, said):
    assert Echo(f"{key}never").out_of(said) == said


def test_a_key_too_short_to_be_one_is_not_looked_for():
    assert Echo("key").out_of(b'{"key": "monkey"}') == b'{"key": "monkey"}'


def test_all_headers_are_rid_of_it_and_the_others_stay():
    given_ = [("Content-Type", f"text/{KEY}"), ("Location", f"//{KEY}@h"), ("X", "1"), ("X", "2")]
    response = httpx.Response(200, headers=given_)
    Echo(KEY).out_of_headers(response)
    assert response.headers.multi_items() == [
        ("content-type", "text/[redacted]"),
        ("location", "//[redacted]@h"),
        ("x", "1"),
        ("x", "2"),
    ]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, None),
        ("", None),
        ("application/json", "application/json"),
        (" text/html;charset=UTF-8", "text/html; charset=UTF-8"),
        ('text/html; token=abc; charset="utf-8"', "text/html; charset=utf-8"),
        ("text/html; charset=abc123", "text/html"),
        ("application/vnd.api+json; version=1", "application/vnd.api+json"),
        ("text/html, text/plain", "text/html"),
        (f"text/{KEY}", "an unknown content type"),
        (f"text/html{KEY}", "an unknown content type"),
        (f"token={KEY}", "an unknown content type"),
        (base64.b64encode(KEY.encode()).decode(), "an unknown content type"),
        ("text/\x1b[2J", "an unknown content type"),
    ],
)
def test_of_a_content_type_only_what_is_one_is_kept(said, kept):
    assert storable_type(said) == kept
