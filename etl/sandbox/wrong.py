"""Bodies that are not what was asked for: a whole answer in, another body out. Pure.

Each is what some client once took for a persona, or broke on.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from etl.sandbox.rendering import dump

if TYPE_CHECKING:
    from collections.abc import Callable

_HTML = (
    b"<!DOCTYPE html><html><head><title>Just a moment...</title></head>"
    b"<body><h1>Checking your browser</h1></body></html>\n"
)
_LEVELS = 20_000


class Surroundings(NamedTuple):
    """What a body can be made of besides itself; `another` gives another persona's."""

    size_bytes: int
    another: Callable[[], bytes]


@lru_cache(maxsize=1)
def _bomb(body: bytes, size_bytes: int) -> bytes:
    return gzip.compress(b" " * size_bytes + body, compresslevel=1, mtime=0)


def _with(body: bytes, **members: Any) -> bytes:  # noqa: ANN401  any JSON
    """The object with these members; a list, or what is no object, gets them in one more."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    return dump(value | members if isinstance(value, dict) else members)


def _with_one_more(body: bytes, member: bytes) -> bytes:
    whole = _with(body)
    return whole[:-1] + (b"," if len(whole) > len(b"{}") else b"") + member + b"}"


def _with_its_first_key_twice(body: bytes) -> bytes:
    """Whoever lets the last one win sees nothing odd."""
    key = re.match(rb'\{\s*("[^"\\]*")\s*:', body)
    return b"{" + key[1] + b":null," + body[1:] if key else b'{"a":null,"a":1}'


# What a wrong body is called -> how it is made of the right one.
WRONG: dict[str, Callable[[bytes, Surroundings], bytes]] = {
    "html": lambda _body, _: _HTML,
    "text": lambda _body, _: b"upstream connect error or disconnect/reset before headers\n",
    "empty": lambda _body, _: b"",
    "not_json": lambda _body, _: b"{'id': undefined}",
    "half": lambda body, _: body[: len(body) // 2],
    "other_persona": lambda _body, around: around.another(),
    "array": lambda body, _: b"[" + body + b"]",
    "repeated_key": lambda body, _: _with_its_first_key_twice(body),
    "nan": lambda body, _: _with(body, voiceSpeed=float("nan")),
    "deep": lambda body, _: _with_one_more(body, b'"deep":' + b"[" * _LEVELS + b"]" * _LEVELS),
    "invalid_utf8": lambda body, _: _with(body, name="caf\ue0e9").replace(b"\xee\x83\xa9", b"\xe9"),
    "nul": lambda body, _: _with(body, name="nul \0 here"),
    "lone_surrogate": lambda body, _: _with(body, name="half of a pair: \ud83d"),
    # White space may stand before a JSON value: these are right, for whoever reads all of it.
    "huge": lambda body, around: b" " * around.size_bytes + body,
    "gzip_bomb": lambda body, around: _bomb(body, around.size_bytes),
}
# The headers that go with some of them.
HEADERS_OF_WRONG = {
    "html": {"Content-Type": "text/html; charset=utf-8"},
    "text": {"Content-Type": "text/plain"},
    "gzip_bomb": {"Content-Encoding": "gzip"},
}
