"""What a request ends with: an Answer, or one of the errors below.

SourceError
├── NoAnswerError         is a FetchFailedError      no whole answer, or none that can be read
├── BodyTooBigError       is a PayloadRejectedError  longer than any persona is
├── RefusedKeyError       is a KeyRefusedError       401
├── ToldToWaitError       is a DeferredError         told to wait longer than the settings allow
├── ListForbiddenError    is a KeyRefusedError       403 for the list of personas
└── ListUnavailableError  is a SourceDownError       no list of personas, or none that ends
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from etl.errors import (
    DeferredError,
    EtlError,
    FetchFailedError,
    KeyRefusedError,
    PayloadRejectedError,
    SourceDownError,
)

if TYPE_CHECKING:
    from uuid import UUID


def is_throttling(status: int | None, retry_after: float | None) -> bool:
    """Whether a status means "not so fast": a 503 does if it says for how long."""
    return status == HTTPStatus.TOO_MANY_REQUESTS or (
        status == HTTPStatus.SERVICE_UNAVAILABLE and bool(retry_after)
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API says about one id, or, with `persona_id` None, a page of the list; as a whole.

    `status` is 200, 403 or 404. `body` is the decompressed body of a 200, else None.
    `completed_at` is `time.monotonic()` when the answer was complete; `duration_ms` spans all
    attempts and the waits between them.
    """

    persona_id: UUID | None
    status: int
    # Not cleaned yet: it stays out of whatever prints an Answer.
    body: bytes | None = field(repr=False)
    content_type: str | None
    completed_at: float
    attempts: int
    duration_ms: int

    @property
    def media_type(self) -> str:
        """The content type without its parameters, fit to stand in a message."""
        return (storable_type(self.content_type) or "no content type").partition(";")[0]


# The registered types (RFC 6838), so that what else somebody put there is not taken for one.
_TYPE = re.compile(
    r"\s*((?:application|audio|font|image|message|model|multipart|text|video)/[a-z.+-]{1,60})"
    r"(?![\w/=])(?:.*;\s*charset=\"?(utf-?8|us-ascii|iso-8859-\d{1,2}|windows-125\d)\b)?",
    re.IGNORECASE | re.DOTALL,
)


def storable_type(content_type: str | None) -> str | None:
    """A content type as far as it is one: its other parameters can hold anything."""
    if not content_type:
        return None
    found = _TYPE.match(content_type)
    if found is None:
        return "an unknown content type"
    return f"{found[1]}; charset={found[2]}" if found[2] else found[1]


class SourceError(EtlError):
    """No answer to one request. Carries what the ledger records; the client adds the last three."""

    def __init__(self, what: str, *, next_step: str = "", http_status: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step
        self.http_status = http_status
        self.path = ""
        self.attempts = 0
        self.duration_ms = 0

    def __str__(self) -> str:
        tries = f" after {self.attempts} attempts" if self.attempts > 1 else ""
        next_step = f"; {self.next_step}" if self.next_step else ""
        return f"GET {self.path}: {self.what}{tries}{next_step}"


class NoAnswerError(SourceError, FetchFailedError):
    """No whole answer was got, or one that can't be read.

    `transient` says that another attempt may fare better, `retry_after` how many seconds the API
    asks for first.
    """

    def __init__(
        self,
        what: str,
        *,
        next_step: str = "",
        http_status: int | None = None,
        transient: bool,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, next_step=next_step, http_status=http_status)
        self.transient = transient
        self.retry_after = retry_after
        self.attempt_seconds = 0.0

    @property
    def is_throttled(self) -> bool:
        """Whether it says nothing of what was asked for, only that too much was."""
        return is_throttling(self.http_status, self.retry_after)


class BodyTooBigError(SourceError, PayloadRejectedError):
    """A 200 whose body is longer than any persona is; the rest of it was not read.

    `length` is the one it declares, else what had been read and inflated by then.
    """

    def __init__(self, what: str, *, length: int, content_type: str | None) -> None:
        super().__init__(what, http_status=200)
        self.length = length
        self.content_type = content_type


class RefusedKeyError(SourceError, KeyRefusedError):
    """401: the key is missing, wrong or revoked."""


class ToldToWaitError(SourceError, DeferredError):
    """The API asks for a longer wait than `max_wait_seconds`; `wait_seconds` is what it asks."""

    def __init__(
        self, what: str, *, next_step: str, http_status: int | None, wait_seconds: float
    ) -> None:
        super().__init__(what, next_step=next_step, http_status=http_status)
        self.wait_seconds = wait_seconds


class ListForbiddenError(SourceError, KeyRefusedError):
    """403 for the list: the key may be good for personas all the same."""


class ListUnavailableError(SourceError, SourceDownError):
    """The list of personas can't be had: no answer, something else in its place, or no end."""
