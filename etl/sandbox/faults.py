"""What can go wrong on order: one answer, how it differs from the true one, and whom it meets."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import msgspec

from etl.sandbox.messages import Answer, phrase
from etl.sandbox.rendering import dump
from etl.sandbox.wrong import HEADERS_OF_WRONG, WRONG, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

DROPS = ("close", "reset", "stall")
_DAY = 86_400
# Part -> the least and the most that it can be.
_BOUNDS = {
    "status": (100, 999),
    "retry_after_date": (-_DAY, 366 * _DAY),
    "size_bytes": (0, 2**30),
    "delay_seconds": (0, _DAY),
    "jitter_seconds": (0, _DAY),
    "trickle_seconds": (0, _DAY),
    "trickle_bytes": (1, 2**30),
    "truncate_at": (0, 2**30),
    "per_page": (1, 100),
    "times": (1, 2**53),
    "after": (0, 2**53),
    "every": (1, 2**53),
    "probability": (0, 1),
}
_WITHOUT_BODY = (204, 304)


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an answer differs from the true one, and which requests meet it.

    All parts combine, and none is needed: `Fault()` differs in nothing, once.

    Attributes:
        status: answer this instead, with `body` or an error in the API's words.
        body: bytes or text as they are, all else as JSON. Without a status, it comes as a 200.
        headers: added to, or in place of, the answer's own. After a Content-Length that lies the
            connection ends.
        wrong: one of `WRONG`, made of the body that would have been sent.
        size_bytes: how much longer `huge` and `gzip_bomb` make it.
        retry_after: the header, verbatim: a number of seconds, or nonsense.
        retry_after_date: the header as an HTTP date, so many seconds from now.
        gzip: compress the body.
        chunked: send it in chunks, without a Content-Length.
        endless: send it again and again in chunks, until the client has had enough.
        delay_seconds: silence before the first byte.
        jitter_seconds: up to so much more of it, by chance.
        trickle_seconds: pause after every `trickle_bytes` of the body.
        truncate_at: stop after so many bytes of the body that the headers promise, and hang up.
        drop: how to hang up: `close`, a TCP `reset`, or `stall`: silence, and the line stays open.
            With `truncate_at` it happens there, without before the answer.
        raw: these bytes and nothing else, then hang up. In JSON: base64.
        per_page: the most personas on a page of the list, whatever was asked for.
        shift: so many personas are jumped over between two pages; negative: come twice.
        shuffle: each page of the list is cut from another order of it.
        meta: members of the list's `meta` that are not true.
        target: who meets it: `all`, `list`, `personas`, or a persona's id.
        times: how many requests meet it; None: all, until cleared. One, unless `every` or
            `probability` says otherwise: then all.
        after: so many requests for the target go well first.
        every: of those after them, each so-manieth meets it.
        probability: of those in turn, so many meet it.
        seed: what chance depends on.
    """

    status: int | None = None
    body: Any = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    wrong: str | None = None
    size_bytes: int = 100 * 2**20
    retry_after: int | float | str | None = None
    retry_after_date: float | None = None
    gzip: bool = False
    chunked: bool = False
    endless: bool = False
    delay_seconds: float = 0
    jitter_seconds: float = 0
    trickle_seconds: float = 0
    trickle_bytes: int = 16
    truncate_at: int | None = None
    drop: str | None = None
    raw: bytes | None = None
    per_page: int | None = None
    shift: int = 0
    shuffle: bool = False
    meta: dict[str, Any] = msgspec.field(default_factory=dict)
    target: str = "all"
    times: int | msgspec.UnsetType | None = msgspec.UNSET
    after: int = 0
    every: int = 1
    probability: float = 1
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for what could not be done."""
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, int | float) and not least <= value <= most:
                raise ValueError(f"{name}: {value} is not from {least} to {most}")
        for name, value, known in (("wrong", self.wrong, WRONG), ("drop", self.drop, DROPS)):
            if value is not None and value not in known:
                raise ValueError(f'{name}: "{value}" is none of {", ".join(known)}')
        for name, value in self._own_headers().items():
            # What goes into a head must not end it; `raw` can say anything.
            if not re.fullmatch(r"[!#-'*+.^-z|~A-Z0-9-]+", name):
                raise ValueError(f"headers: {name!r} is no name of a header")
            if not re.fullmatch(r"[\t -~\x80-\xff]*", value):
                raise ValueError(f"headers: {name} can't be {value!r}; `raw` can say anything")

    @property
    def limit(self) -> int | None:
        """How many requests meet it; None: all, until it is cleared."""
        if self.times is not msgspec.UNSET:
            return self.times
        return 1 if self.every == 1 and self.probability == 1 else None

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.chunked or self.endless

    def applied_to(self, true_answer: Callable[[], Answer], another: Callable[[], bytes]) -> Answer:
        """What is answered; the true answer is only asked for when it is not replaced.

        `another` gives the body of another persona than the one asked for.
        """
        answer = true_answer() if self.status is None and self.body is None else self._ordered()
        body, headers = answer.body, answer.headers
        if self.wrong is not None:
            body = WRONG[self.wrong](body, Surroundings(self.size_bytes, another))
            headers = headers | HEADERS_OF_WRONG.get(self.wrong, {})
        if self.gzip:
            body = gzip.compress(body, mtime=0)
            headers = headers | {"Content-Encoding": "gzip"}
        if self.is_chunked:
            headers = headers | {"Transfer-Encoding": "chunked"}
        answer = replace(answer, body=body, headers=headers | self._own_headers())
        if answer.tells_its_length:
            return answer
        # What comes behind such an answer is anyone's guess; the next shall not suffer for it.
        return replace(answer, headers={"Connection": "close"} | answer.headers)

    def _ordered(self) -> Answer:
        status = self.status or 200
        body = self.body
        if body is None:
            told = {"error": phrase(status), "message": "This answer was ordered."}
            body = b"" if status in _WITHOUT_BODY else dump(told)
        if isinstance(body, str):
            body = body.encode()
        return Answer(status, body if isinstance(body, bytes) else dump(body))

    def _own_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.retry_after_date is not None:
            now = datetime.now(UTC)
            then = now + timedelta(seconds=self.retry_after_date)
            headers["Date"] = format_datetime(now, usegmt=True)
            headers["Retry-After"] = format_datetime(then, usegmt=True)
        return headers | self.headers


NO_FAULT = Fault()
