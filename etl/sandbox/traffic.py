"""What the API's side sees of its clients: a log of requests, and a limit on their rate."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Annotated

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etl.sandbox.messages import Request

_REMEMBERED = 1000
# Styles of the headers on every answer -> what their names start with.
HEADERS = {
    "standard": ("RateLimit-",),
    "org_hour": ("X-RateLimit-Org-Hour-",),
    "both": ("RateLimit-", "X-RateLimit-Org-Hour-"),
    "none": (),
}
SHAPES = ("fixed", "sliding", "bucket")
RETRY_AFTER = ("seconds", "date", "none", "nonsense")


class RequestLog:
    """Every request to the API, admin ones aside; written by the server, read by any thread.

    Attributes:
        total: requests seen.
        by_target: requests by persona id, or `"list"`.
        by_status: answers by status; those that were none, by `None`.
        in_flight: requests being answered right now.
        most_in_flight: the most that ever were at once.
        recent: the last thousand requests, oldest first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.in_flight = 0
        self.clear()

    def clear(self) -> None:
        """Starts counting anew; what is in flight stays so."""
        with self._lock:
            self.total = 0
            self.by_target: Counter[str] = Counter()
            self.by_status: Counter[int | None] = Counter()
            self.most_in_flight = 0
            self.recent: deque[Request] = deque(maxlen=_REMEMBERED)

    @contextmanager
    def serving(self, target: str, request: Request) -> Iterator[None]:
        """Notes a request, which is in flight until the block ends."""
        with self._lock:
            self.total += 1
            self.by_target[target] += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.recent.append(request)
        try:
            yield
        finally:
            with self._lock:
                self.in_flight -= 1
                self.by_status[request.status] += 1

    def latest(self, count: int) -> list[Request]:
        """The last so many requests, oldest first."""
        with self._lock:
            return list(self.recent)[-count:] if count else []


class RateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many requests a window, and how clients are told.

    Attributes:
        shape: `fixed`: a window starts with its first request; `sliding`: in no stretch of that
            length are there more; `bucket`: so many at once, and refilled evenly.
        burst: what a bucket holds, `requests` unless said.
        headers: on every answer, `standard` (RateLimit-Limit, -Remaining, -Reset), `org_hour`
            (the same behind X-RateLimit-Org-Hour-), `both` or `none`.
        retry_after: on a refusal, the `seconds` until the window ends, the same as an HTTP
            `date`, `none`, or `nonsense`.
        status: of a refusal.
    """

    requests: Annotated[int, msgspec.Meta(ge=0)]
    window_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)]
    shape: str = "fixed"
    burst: Annotated[int, msgspec.Meta(ge=1)] | None = None
    headers: str = "standard"
    retry_after: str = "seconds"
    status: Annotated[int, msgspec.Meta(ge=100, le=999)] = 429

    def __post_init__(self) -> None:
        """Raises ValueError for a style that nobody knows."""
        for name, known in (
            ("shape", SHAPES),
            ("headers", HEADERS),
            ("retry_after", RETRY_AFTER),
        ):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f'{name}: "{value}" is none of {", ".join(known)}')


class Throttle:
    """Counts requests against a limit."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        kinds: dict[str, type[_Fixed | _Sliding | _Bucket]]
        kinds = {"fixed": _Fixed, "sliding": _Sliding, "bucket": _Bucket}
        self._counted = kinds[limit.shape](limit)

    def take(self) -> tuple[bool, dict[str, str]]:
        """Whether one more request is let in, and the headers to say so with."""
        now = self._clock()
        allowed = self._counted.take(now)
        # Whole seconds, rounded up: who waits that long finds room.
        reset = math.ceil(self._counted.resets_in(now))
        headers: dict[str, str] = {}
        for prefix in HEADERS[self.limit.headers]:
            headers[f"{prefix}Limit"] = str(self._counted.most)
            headers[f"{prefix}Remaining"] = str(self._counted.left())
            headers[f"{prefix}Reset"] = str(reset)
        if allowed:
            return True, headers
        return False, headers | self._retry_after(math.ceil(self._counted.room_in(now)))

    def _retry_after(self, seconds: int) -> dict[str, str]:
        match self.limit.retry_after:
            case "seconds":
                return {"Retry-After": str(seconds)}
            case "date":
                now = datetime.now(UTC)
                then = format_datetime(now + timedelta(seconds=seconds), usegmt=True)
                return {"Date": format_datetime(now, usegmt=True), "Retry-After": then}
            case "nonsense":
                return {"Retry-After": "soon"}
        return {}


class _Fixed:
    """So many requests from a window's first on."""

    def __init__(self, limit: RateLimit) -> None:
        self.most = limit.requests
        self._seconds = limit.window_seconds
        self._ends = -math.inf
        self._left = limit.requests

    def take(self, now: float) -> bool:
        if now >= self._ends:
            self._ends = now + self._seconds
            self._left = self.most
        allowed = self._left > 0
        self._left -= allowed
        return allowed

    def left(self) -> int:
        return self._left

    def resets_in(self, now: float) -> float:
        return self._ends - now

    def room_in(self, now: float) -> float:
        return self._ends - now


class _Sliding:
    """So many requests in any stretch of time."""

    def __init__(self, limit: RateLimit) -> None:
        self.most = limit.requests
        self._seconds = limit.window_seconds
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        while self._taken and self._taken[0] <= now - self._seconds:
            self._taken.popleft()
        if len(self._taken) >= self.most:
            return False
        self._taken.append(now)
        return True

    def left(self) -> int:
        return self.most - len(self._taken)

    def resets_in(self, now: float) -> float:
        return self._taken[0] + self._seconds - now if self._taken else self._seconds

    room_in = resets_in


class _Bucket:
    """So many at once, and refilled evenly."""

    def __init__(self, limit: RateLimit) -> None:
        self.most = limit.burst or limit.requests
        self._rate = limit.requests / limit.window_seconds
        self._tokens = float(self.most)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        since = now if self._at is None else self._at
        self._tokens = min(self.most, self._tokens + (now - since) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def left(self) -> int:
        return int(self._tokens)

    def resets_in(self, now: float) -> float:  # noqa: ARG002  it is asked when it was just counted
        """Until it is full."""
        return (self.most - self._tokens) / self._rate if self._rate else math.inf

    def room_in(self, now: float) -> float:  # noqa: ARG002  as above
        """Until there is one for the next."""
        return (1 - self._tokens) / self._rate if self._rate else math.inf
