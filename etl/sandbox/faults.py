"""What can go wrong on order: the faults, and the script that says whom they meet and when."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from etl.sandbox.messages import Answer, phrase
from etl.sandbox.rendering import dump

if TYPE_CHECKING:
    from collections.abc import Callable


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one answer differs from the true one; the parts combine. `Fault()` differs in nothing.

    Attributes:
        status: answer this instead, with `body` or an error in the API's words.
        body: bytes or text as they are, all else as JSON. Without a status, it comes as a 200.
        headers: added to, or in place of, the answer's own.
        delay_seconds: silence before the first byte.
        drop: hang up before answering, politely (`close`) or with a TCP reset.
        raw: these bytes and nothing else, then hang up. In JSON: base64.
        truncate_at: hang up after so many bytes of the body that the headers promise.
        trickle_seconds: pause after every `trickle_bytes` of the body.
    """

    status: int | None = None
    body: Any = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    delay_seconds: float = 0
    drop: Literal["close", "reset"] | None = None
    raw: bytes | None = None
    truncate_at: int | None = None
    trickle_seconds: float = 0
    trickle_bytes: int = 16

    def applied_to(self, true_answer: Callable[[], Answer]) -> Answer:
        """What is answered; the true answer is only asked for when it is not replaced."""
        if self.status is None and self.body is None:
            answer = true_answer()
            return replace(answer, headers=answer.headers | self.headers)
        status = self.status or 200
        body = self.body
        if body is None:
            body = {"error": phrase(status), "message": "This answer was ordered."}
        if isinstance(body, str):
            body = body.encode()
        return Answer(status, body if isinstance(body, bytes) else dump(body), self.headers)


class Script:
    """Faults in waiting: each is met once, by the next request for its target.

    A target is a persona's id, `"list"`, or None for whatever is asked for next. A target's own
    faults go before those for anyone. May be called from any thread.
    """

    def __init__(self) -> None:
        self._queues: defaultdict[str | None, deque[Fault]] = defaultdict(deque)
        self._lasting: dict[str | None, Fault] = {}
        self._lock = threading.Lock()

    def add(self, target: str | None, *faults: Fault, last_stays: bool = False) -> None:
        """Orders faults behind those already waiting; `last_stays` repeats the last for ever."""
        if not faults:
            raise ValueError("no faults were given")
        with self._lock:
            self._queues[target].extend(faults)
            if last_stays:
                self._lasting[target] = faults[-1]

    def take(self, target: str) -> Fault:
        """The fault that this request meets; mostly none, `Fault()`."""
        with self._lock:
            for key in (target, None):
                if self._queues[key]:
                    return self._queues[key].popleft()
                if key in self._lasting:
                    return self._lasting[key]
        return _NONE

    def clear(self) -> None:
        """All goes well again."""
        with self._lock:
            self._queues.clear()
            self._lasting.clear()

    @property
    def waiting(self) -> int:
        """How many ordered faults nobody has met yet."""
        with self._lock:
            return sum(len(queue) for queue in self._queues.values())


_NONE = Fault()
