"""Each kind of hostile body comes to its documented outcome, and all others are loaded."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from etl.payload.decode import MAX_VALUES
from etl.sandbox import Fault, World

if TYPE_CHECKING:
    from collections.abc import Callable

# What becomes of a body is decided before it gets to Postgres; what is stored of hostile
# ones has test_fuzz_stored.
pytestmark = pytest.mark.one_server

MIB = 2**20
LIMIT = 64 * MIB
OTHERS = [f"00000000-0000-4000-8000-0000000000{n}" for n in range(10, 15)]
GZIP = {"Content-Encoding": "gzip"}
HTML = {"Content-Type": "text/html; charset=utf-8"}


@dataclass
class Case:
    """A body, and what is to become of it."""

    what: str
    make: Callable[[bytes], Fault]
    """What is answered, made of the beginning of a right body: `{"id":"…"`."""
    outcome: str = "created"
    told: str = ""
    """In the message of a persona that is not loaded."""
    issues: dict[str, str] = field(default_factory=dict)
    """What was mended, by its path, of one that is loaded."""


def member(text: str | bytes) -> Callable[[bytes], Fault]:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return lambda head: Fault(body=head + b"," + raw + b"}")


def nested(levels: int) -> Callable[[bytes], Fault]:
    """As many levels in all, the persona's own object among them."""
    return member('"widgetConfig":' + '{"x":' * (levels - 1) + "1" + "}" * (levels - 1))


def sent(raw: bytes) -> Callable[[bytes], Fault]:
    return lambda _: Fault(body=raw)


def with_length(difference: int, **parts: Any) -> Callable[[bytes], Fault]:
    def make(head: bytes) -> Fault:
        length = str(len(head) + 1 + difference)
        return Fault(body=head + b"}", headers={"Content-Length": length}, **parts)

    return make


def as_text(encoding: str) -> Callable[[bytes], Fault]:
    return lambda head: Fault(body=(head + b"}").decode().encode(encoding))


def padded(length: int) -> Callable[[bytes], Fault]:
    """White space may stand before a JSON value. Compressed, for the test's own sake."""

    def make(head: bytes) -> Fault:
        body = b" " * (length - len(head) - 1) + head + b"}"
        return Fault(body=gzip.compress(body, compresslevel=1), headers=GZIP)

    return make


MENDED = "not valid Unicode"

CASES = [
    # Could not be got whole.
    Case("truncated", lambda _: Fault(truncate_at=20), "failed", "broke off"),
    Case("truncated, in chunks", lambda _: Fault(chunked=True, truncate_at=20), "failed", "broke"),
    Case("truncated, then reset", lambda _: Fault(truncate_at=20, drop="reset"), "failed", "conn"),
    Case(
        "truncated, then silent", lambda _: Fault(truncate_at=20, drop="stall"), "failed", "withi"
    ),
    Case("gzip that is cut", lambda _: Fault(gzip=True, truncate_at=40), "failed", "broke off"),
    Case(
        "half a gzip, as announced",
        lambda head: Fault(body=gzip.compress(head + b"}")[:-9], headers=GZIP),
        "failed",
        "the gzip body is cut short",
    ),
    Case(
        "no gzip, though called one",
        lambda head: Fault(body=head + b"}", headers=GZIP),
        "failed",
        "the gzip body is corrupt",
    ),
    Case(
        "gzip in gzip, as announced",
        lambda head: Fault(
            body=gzip.compress(gzip.compress(head + b"}")),
            headers={"Content-Encoding": "gzip, gzip"},
        ),
        "failed",
        "Content-Encoding 'gzip, gzip'",
    ),
    Case("longer than it is", with_length(5), "failed", "broke off"),
    Case(
        "slow trickle", lambda _: Fault(trickle_seconds=0.1, trickle_bytes=1), "failed", "no whole"
    ),
    Case(
        "trickle without an end",
        lambda _: Fault(endless=True, trickle_seconds=0.1),
        "failed",
        "no whole answer",
    ),
    Case("no HTTP", lambda _: Fault(raw=b"SSH-2.0-x\r\n\r\n"), "failed", "does not speak HTTP"),
    # Got, and no persona.
    Case("shorter than it is", with_length(-5), "rejected", "not JSON at offset"),
    Case("a page", lambda _: Fault(wrong="html"), "rejected", "offset 0 (text/html)"),
    Case("empty", sent(b""), "rejected", "the body is empty"),
    Case("null", sent(b"null"), "rejected", "not a JSON object"),
    Case("a list", lambda _: Fault(wrong="array"), "rejected", "not a JSON object"),
    Case("another's", lambda _: Fault(wrong="other_persona"), "rejected", "of another persona, "),
    Case("UTF-16", as_text("utf-16"), "rejected", "not JSON at offset 0"),
    Case(
        "gzip in gzip",
        lambda head: Fault(body=gzip.compress(gzip.compress(head + b"}")), headers=GZIP),
        "rejected",
        "not JSON",
    ),
    Case("501 levels", nested(501), "rejected", "more than 500 levels"),
    Case("a key twice", member('"name":"a","name":"b"'), "rejected", "a repeated key"),
    Case("NaN", member('"voiceSpeed":NaN'), "rejected", "NaN at offset"),
    Case("Infinity", member('"voiceSpeed":-Infinity'), "rejected", "Infinity at offset"),
    Case("too many values", member(f'"x":[{"0," * MAX_VALUES}0]'), "rejected", "values at offset"),
    Case("one byte too long", padded(LIMIT + 1), "rejected", "longer than 67108864 bytes"),
    Case(
        "gzip bomb",
        lambda _: Fault(wrong="gzip_bomb", size_bytes=LIMIT),
        "rejected",
        "longer than 67108864 bytes",
    ),
    Case(
        "without an end",
        lambda _: Fault(body=b" " * MIB, endless=True, gzip=True),
        "rejected",
        "longer than 67108864 bytes",
    ),
    # Loaded.
    Case("a page by its label", lambda head: Fault(body=head + b"}", headers=HTML)),
    Case("byte order mark", as_text("utf-8-sig")),
    Case(
        "a few bytes at a time",
        lambda head: Fault(body=head + b"}", chunked=True, trickle_bytes=16, trickle_seconds=0.01),
    ),
    Case("500 levels", nested(500)),
    Case("as long as is allowed", padded(LIMIT)),
    Case("10 MB prompt", member('"brain":{"systemPrompt":"%s"}' % ("Be brief. " * MIB))),
    Case("10^40", member('"voiceSpeed":1' + "0" * 40)),
    Case("1e400", member('"voiceSpeed":1e400'), issues={"voiceSpeed": "out of range"}),
    Case("1e5000", member('"voiceSpeed":1e5000'), issues={"voiceSpeed": "out of range"}),
    Case("escaped NUL", member(r'"name":"a\u0000b"'), issues={"name": MENDED}),
    Case("raw NUL", member('"name":"a\0b"'), issues={"name": MENDED}),
    Case("escaped surrogate", member(r'"name":"a\ud800b"'), issues={"name": MENDED}),
    Case("raw surrogate", member('"name":"a\ud800b"'), issues={"name": MENDED}),
    Case("no UTF-8", member(b'"name":"a\xffb"'), issues={"name": MENDED}),
    Case("half-pairs in keys", member(r'"a\ud800":1,"a\ud801":2'), issues={'["a\ufffd"]': MENDED}),
]


@pytest.fixture
def world():
    made = World()
    for number in range(len(CASES)):
        made.add({"id": hostile_id(number), "name": "before"})
    for number, persona_id in enumerate(OTHERS):
        made.add({"id": persona_id, "name": f"other {number}"})
    return made


def hostile_id(number: int) -> str:
    return f"00000000-0000-4000-8000-0000000001{number:02}"


def test_each_hostile_body_comes_to_its_documented_outcome(copying, world):
    with copying(world) as target:
        for number, case in enumerate(CASES):
            made = case.make(b'{"id":"%s"' % hostile_id(number).encode())
            target.sandbox.order(replace(made, target=hostile_id(number), times=None))
        summary = target.sync(API__TIMEOUT_SECONDS="4", API__CONCURRENCY="64")
        wrong = {
            case.what: found
            for number, case in enumerate(CASES)
            if (found := came_to(target, hostile_id(number), case))
        }
        assert wrong == {}
        assert summary.counts["created"] == len(OTHERS) + sum(
            case.outcome == "created" for case in CASES
        )
        assert {target.outcome(id_)["outcome"] for id_ in OTHERS} == {"created"}

        kept = len(target.rows("rejected_payloads"))
        assert kept == summary.counts["rejected"]


def came_to(target, persona_id: str, case: Case) -> object:
    """What is not as it should be."""
    item = target.outcome(persona_id)
    told = item["message"] or ""
    if item["outcome"] != case.outcome or case.told not in told or "\n" in told:
        return item
    kept = target.rows("rejected_payloads", persona_id=UUID(persona_id))
    if len(kept) != (case.outcome == "rejected") or not all(row["reason"] in told for row in kept):
        return kept
    if case.outcome == "created":
        found = target.rows("value_issues", entity_id=UUID(persona_id))
        by_path = {row["path"]: row["problem"] for row in found}
        return by_path if not case.issues.items() <= by_path.items() else None
    return target.rows("personas", persona_id=UUID(persona_id))


# What the job may take at its peak, whatever all personas answer at the greatest concurrency. It
# takes 80 to copy nothing odd; the room for big bodies is 128, small ones may be 64, and one that
# is read takes a few times its length.
MOST_MIB = 450

_TELLING_ITS_PEAK = """
import atexit, runpy, sys
atexit.register(lambda: sys.stderr.write(open("/proc/self/status").read()))
runpy.run_module("etl", run_name="__main__")
"""


def peak_mib(target, *arguments: str, code: int) -> float:
    """Runs `persona-etl` as a process of its own. The most memory that it had at once."""
    done = subprocess.run(
        [sys.executable, "-c", _TELLING_ITS_PEAK, *arguments],
        env={**os.environ, **target.environment(API__CONCURRENCY="64")},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"VmHWM:\s+(\d+) kB", done.stderr)
    assert found, done.stderr
    assert done.returncode == code, done.stderr
    return int(found[1]) / 1024


EVERYBODY: dict[str, tuple[int, Callable[[bytes], Fault], int]] = {
    "ten megabytes": (48, padded(10 * MIB), 0),
    "without an end": (16, lambda _: Fault(body=b" " * MIB, endless=True, gzip=True), 3),
}


@pytest.mark.skipif(sys.platform != "linux", reason="its peak is read from /proc")
@pytest.mark.parametrize("what", EVERYBODY)
def test_memory_is_bounded_whatever_everybody_answers(copying, what):
    count, make, code = EVERYBODY[what]
    with copying(count=count) as target:
        for persona_id in target.world.persona_ids:
            fault = make(b'{"id":"%s"' % persona_id.encode())
            target.sandbox.order(replace(fault, target=persona_id, times=None))
        assert peak_mib(target, "sync", *target.world.persona_ids, code=code) < MOST_MIB


def test_a_check_holds_few_large_documents_at_once(copying):
    """They pack well: what they take on the disk says nothing."""
    with copying(count=10) as target:
        for number, persona_id in enumerate(target.world.persona_ids):
            prompt = f"{number} Be brief. " * (MIB // 2)
            body = json.dumps({"id": persona_id, "brain": {"systemPrompt": prompt}}).encode()
            packed = gzip.compress(body, compresslevel=1)
            target.sandbox.order(Fault(body=packed, headers=GZIP, target=persona_id, times=None))
        assert target.sync().counts["created"] == 10
        assert peak_mib(target, "backfill", "replay", "--check", code=0) < MOST_MIB / 2
