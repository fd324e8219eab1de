"""Faults and limits as people write them: what each spelling means, and what a mistake is told."""

from __future__ import annotations

import re

import pytest

from etl.sandbox import Fault, RateLimit
from etl.sandbox.spelling import WORDS, read_fault, read_rate_limit

ID = "948b82b1-d910-4dd7-a215-f679e38a59aa"


def known(persona_id: str) -> bool:
    return persona_id == "elsewhere"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("429:retry_after=2:times=3", Fault(429, retry_after=2, times=3)),
        ("list:500", Fault(500, target="list")),
        (f"{ID}:truncate", Fault(truncate_at=20, target=ID)),
        (f"{ID.upper()}:close", Fault(drop="close", target=ID.upper())),
        ("target=elsewhere:reset", Fault(drop="reset", target="elsewhere")),
        ("personas:gzip:truncate", Fault(gzip=True, truncate_at=20, target="personas")),
        ("all:huge:size_bytes=5:always", Fault(wrong="huge", size_bytes=5, times=None)),
        ("503:retry-after-date=60", Fault(503, retry_after_date=60)),
        ("429:retry_after=tomorrow", Fault(429, retry_after="tomorrow")),
        (
            "retry_after=Wed, 21 Oct 2015 07:28:00 GMT:429",
            Fault(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
        ),
        (
            "302:headers.Location=http://127.0.0.1:8787/v1:headers.X-A=1",
            Fault(302, headers={"Location": "http://127.0.0.1:8787/v1", "X-A": "1"}),
        ),
        (
            "list:shift=-1:meta.next=null:meta.total=3",
            Fault(shift=-1, target="list", meta={"next": None, "total": 3}),
        ),
        ("body=[1, 2]", Fault(body=[1, 2])),
        ("body=not json", Fault(body="not json")),
        ("500:times=null", Fault(500, times=None)),
        ("raw=aGk=", Fault(raw=b"hi")),
        ("500:lone-surrogate", Fault(500, wrong="lone_surrogate")),
        ('{"status": 500, "target": "list"}', Fault(500, target="list")),
        ({"status": 500, "times": None}, Fault(500, times=None)),
    ],
)
def test_a_fault_is_read(written, meant):
    assert read_fault(written, known) == meant


@pytest.mark.parametrize("word", WORDS)
def test_every_word_is_a_fault_by_itself(word):
    assert read_fault(word, known) != Fault()


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("typo:500", '"typo" is no fault; see `persona-etl sandbox --help`'),
        ("clsoe", '"clsoe" is no fault; did you mean close?'),
        ("lists:500", '"lists" is no fault; did you mean list?'),
        ("500:list", '"list" is no fault'),
        ("", '"" is no fault'),
        ("500:", '"500:" is no fault'),
        ("statsu=500", '"statsu" is no part of a fault; did you mean status?'),
        ("500:500", "status is said twice"),
        ("close:reset", "drop is said twice"),
        ("status=abc", "status: Expected int | null, got str"),
        ("headers=5", "headers: Expected object, got str"),
        ("042", "status: 42 is not from 100 to 999"),
        ("drop=slam", 'drop: "slam" is none of close, reset, stall'),
        ("target=nobody:500", 'target: "nobody" is nobody'),
        ("target=perosnas:500", "did you mean personas?"),
        ("{", "this is no JSON: "),
        ({"target": 5}, "target: Expected str, got int"),
        (5, "a fault is a JSON object"),
    ],
)
def test_a_mistake_in_a_fault_is_told_by_name(written, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        read_fault(written, known)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("100/60", RateLimit(100, 60)),
        ("0/0.5", RateLimit(0, 0.5)),
        (
            "5/1:headers=org_hour:retry-after=date:status=503",
            RateLimit(5, 1, headers="org_hour", retry_after="date", status=503),
        ),
    ],
)
def test_a_rate_limit_is_read(written, meant):
    assert read_rate_limit(written) == meant


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("100", '"100" is no limit; write REQUESTS/SECONDS, such as 100/60'),
        ("a/60", '"a/60" is no limit'),
        ("1/1.2.3", "window_seconds: Expected float, got str"),
        ("1/0", "window_seconds: Expected float > 0.0"),
        ("1/60:headers=loud", 'headers: "loud" is none of standard, org_hour, both, none'),
        ("1/60:date", '"date": write NAME=VALUE'),
        ("1/60:staus=503", '"staus" is no part of a rate limit; did you mean status?'),
    ],
)
def test_a_mistake_in_a_rate_limit_is_told_by_name(written, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        read_rate_limit(written)
