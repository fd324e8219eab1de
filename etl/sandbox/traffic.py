"""What the API's side sees of its clients: a log of requests, and a limit on their rate."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.sandbox.messages import Request

_REMEMBERED = 1000


class RequestLog:
    """Every request to the API, admin ones aside; written by the server, read by any thread.

    Attributes:
        total: requests seen.
        by_target: requests by persona id, or `"list"`.
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


class RateLimit:
    """So many requests a window, told by RateLimit headers on every answer."""

    def __init__(self, requests: int, window_seconds: float) -> None:
        self._limit = requests
        self._window_seconds = window_seconds
        self._window_ends = 0.0
        self._left = requests

    def take(self) -> tuple[bool, dict[str, str]]:
        """Whether one more request is let in, and the headers to say so with."""
        now = time.monotonic()
        if now >= self._window_ends:
            self._window_ends = now + self._window_seconds
            self._left = self._limit
        allowed = self._left > 0
        self._left -= allowed
        # Whole seconds, rounded up: who waits that long finds the window open.
        reset = str(int(self._window_ends - now) + 1)
        headers = {
            "RateLimit-Limit": str(self._limit),
            "RateLimit-Remaining": str(self._left),
            "RateLimit-Reset": reset,
        }
        return allowed, headers if allowed else headers | {"Retry-After": reset}
