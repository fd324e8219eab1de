"""Bodies as no honest API sends them: JSON of personas with tokens swapped and bytes spoiled."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.unit.strategies import PERSONA_ID, payload_files, raw_personas

if TYPE_CHECKING:
    from collections.abc import Callable

ANOTHER_ID = "bbbbbbbb-aaaa-4aaa-8aaa-aaaaaaaaaaaa"

NUMBERS = """
    1e400 -1E400 1e-400 5e-324 -0 -0.0 0e999999 1.0 1e3 1E+3 10.0e-1 0.30000000000000004 2147483648
    9223372036854775807 9223372036854775808 -9223372036854775809 9007199254740993 1e1000 1e1001
    1.2345678901234567890123456789012345678901 123456789012345678901234567890123456789012345 1e308
    true false null
""".split()  # noqa: SIM905
NO_JSON = [b"01", b"1.", b"+1", b".5", b"0x10", b"NaN", b"Infinity", b"-Infinity", b"'a'", b"//"]
TIMES = """
    infinity +infinity -infinity epoch now 2026-04-20 20260420T100000Z 2026-04-20T10:00:00
    0000-01-01T00:00:00Z 0001-01-01T00:00:00Z 0001-01-01T00:00:00+14:00 9999-12-31T23:59:59.9999999Z
    9999-12-31T23:59:59-14:00 10000-01-01T00:00:00Z 2026-02-29T10:00:00Z 2026-06-30T23:59:60Z
    2026-04-20T24:00:00Z 2026-04-20T10:00:00+15:59 2026-04-20T10:00:00+24:00 1883-11-18T12:03:57Z
    2026-04-20t10:00:00.1234567+05:30
""".split()  # noqa: SIM905
FULLWIDTH = ["\uff12\uff10\uff12\uff16-04-20T10:00:00Z", "\uff11", "\uff10" * 8 + ANOTHER_ID[8:]]
UUIDS = [
    *[
        str(PERSONA_ID),
        ANOTHER_ID,
        ANOTHER_ID.upper(),
        f"{{{ANOTHER_ID}}}",
        f"urn:uuid:{ANOTHER_ID}",
    ],
    *[ANOTHER_ID.replace("-", ""), f" {ANOTHER_ID}", f"{ANOTHER_ID}\n"],
]
TEXTS = [
    *[
        "",
        " ",
        "true",
        "TRUE",
        "t",
        "yes",
        "1",
        " 1",
        "1_000",
        "1e5",
        "1e999999",
        "-0",
        "NaN",
    ],
    *[
        "\u00e9",
        "e\u0301",
        "\u202eabc",
        "\U0001f468\u200d\U0001f469",
        "\ufeff",
        "\uffff",
        "\U0010ffff",
    ],
    *[
        "'; DROP TABLE personas; --",
        "%s",
        "{}",
        "\\",
        '"',
        "\n\r\t\x01\x7f",
        "x" * 3000,
        "[redacted]",
    ],
    *["https://x.example/a?X-Amz-Signature=one", "sha256:" + "0" * 64, '{"apiKey": "one"}'],
]
RAW = [
    *[
        rb'"\u0000"',
        rb'"a\ud800b"',
        rb'"\udc00\ud800"',
        rb'"\ud83d\ude00"',
        b'"\x00"',
        b'"\xff\xfe"',
    ],
    *[b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b'"\xef\xbb\xbf"'],
    *[b"[]", b"{}", b"[[[[[{}]]]]]", b"[" * 60 + b"]" * 60, b'{"$inline":{"id":7}}', b"[null]"],
    *[b'{"id":"%s"}' % ANOTHER_ID.encode(), b'{"id":"%s","name":1}' % ANOTHER_ID.encode()],
]
VALUES = [
    *[number.encode() for number in NUMBERS],
    *[
        json.dumps(text, ensure_ascii=False).encode()
        for text in [*TIMES, *UUIDS, *TEXTS, *FULLWIDTH]
    ],
    *RAW,
]
KEYS = [
    *[json.dumps(key).encode() for key in ("", " ", "__proto__", "constructor", "toString", "id")],
    *[
        json.dumps(key).encode()
        for key in ("a.b", "[]", "[0]", "*", "$", "$inline", "0", ANOTHER_ID)
    ],
    *[
        json.dumps(key, ensure_ascii=False).encode()
        for key in ("\u00e9", "e\u0301", "\u202ek", "\U0001f600")
    ],
    b'"https://x.example/?token=1":1,"https://x.example/?token=2"',
    *[b'"apiKey"', b'"headers"', b'"' + b"k" * 10_000 + b'"', b'"a"', rb'"\u0061"', b'"a\xff"'],
    *[rb'"\u0000"', rb'"\ud800"', b'"\x00"', rb'"\ufffd"', b'"\xed\xa0\x80"'],
]

_TOKEN = re.compile(
    rb'"(?:[^"\\]|\\.)*"(\s*:)?|-?[0-9][0-9.eE+\-]*|true|false|null|[\[\]{},]', re.DOTALL
)
_places = st.integers(0, 2**16)


def _tokens(body: bytes, wanted: Callable[[re.Match[bytes]], bool]) -> list[tuple[int, int]]:
    return [found.span() for found in _TOKEN.finditer(body) if wanted(found)]


def _put(body: bytes, spans: list[tuple[int, int]], place: int, new: bytes) -> bytes:
    """The body with one of the spans replaced."""
    if not spans:
        return body
    start, end = spans[place % len(spans)]
    return body[:start] + new + body[end:]


def _other_value(body: bytes, place: int, value: bytes, key: bytes) -> bytes:
    spans = _tokens(body, lambda found: found[0][:1] not in b"[]{}," and not found[1])
    return _put(body, spans[1:], place, value)  # All but the persona's id.


def _other_key(body: bytes, place: int, value: bytes, key: bytes) -> bytes:
    return _put(body, _tokens(body, lambda found: bool(found[1]))[1:], place, key + b":")


def _another_member(body: bytes, place: int, value: bytes, key: bytes) -> bytes:
    spans = _tokens(body, lambda found: found[0] == b"{" and not _is_empty(found))
    return _put(body, spans, place, b"{" + key + b":" + value + b",")


def _another_element(body: bytes, place: int, value: bytes, key: bytes) -> bytes:
    spans = _tokens(body, lambda found: found[0] == b"[" and not _is_empty(found))
    return _put(body, spans, place, b"[" + value + b",")


def _is_empty(opened: re.Match[bytes]) -> bool:
    return opened.string[opened.end() : opened.end() + 1] in b"]}"


def _flipped(body: bytes, place: int, value: bytes, key: bytes) -> bytes:
    at = place % len(body)
    return body[:at] + bytes([body[at] ^ (1 << place % 8)]) + body[at + 1 :]


def _spliced(body: bytes, place: int, value: bytes, key: bytes) -> bytes:
    """With a stretch of it once more somewhere else."""
    at, length = place % len(body), len(value)
    return body[:at] + body[-at : -at + length] + body[at:]


def _with_junk(body: bytes, place: int, value: bytes, key: bytes) -> bytes:
    at = place % (len(body) + 1)
    return body[:at] + value + body[at:]


def _cut(body: bytes, place: int, value: bytes, key: bytes) -> bytes:
    return body[: place % len(body)]


_gentle = st.sampled_from(
    [_other_value, _other_value, _other_key, _another_member, _another_element]
)
_rough = st.sampled_from([_flipped, _spliced, _with_junk, _cut])


def _documented() -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) | {"id": str(PERSONA_ID)} for path in payload_files()]


@st.composite
def hostile_bodies(draw: st.DrawFn, *, rough: bool = True) -> bytes:
    """A persona's body with a few odd tokens in it; a `rough` one is seldom JSON any longer."""
    persona = draw(raw_personas | st.sampled_from(_documented()))
    persona = {"id": persona["id"], **persona}
    body = json.dumps(persona, ensure_ascii=draw(st.booleans())).encode()
    for _ in range(draw(st.integers(0, 20))):
        spoil = draw(_gentle)
        body = spoil(
            body, draw(_places), draw(st.sampled_from(VALUES)), draw(st.sampled_from(KEYS))
        )
    if rough and draw(st.integers(0, 2)) == 0:
        body = draw(_rough)(body, draw(_places), draw(st.sampled_from([*VALUES, *NO_JSON])), b"")
    return body
