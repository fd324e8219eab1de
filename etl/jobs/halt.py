"""When a run should stop before its end, and why: a signal, its deadline, or what the API says."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from etl.errors import DeferredError, InterruptedRunError, RunError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

Result = TypeVar("Result")


class Halt:
    """Why a run should stop fetching, if it should: the first reason counts."""

    def __init__(self) -> None:
        self.reason: RunError | None = None
        self._told = asyncio.Event()

    def stop(self, reason: RunError) -> None:
        """Stops the fetching; what has arrived is still loaded."""
        self.reason = self.reason or reason
        self._told.set()

    async def unless_told(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """What `work` comes to; None when there is a reason before, which cancels it."""
        working, watching = asyncio.create_task(work), asyncio.create_task(self._told.wait())
        try:
            await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            watching.cancel()
            working.cancel()
            await asyncio.wait([working, watching])


@contextlib.contextmanager
def stopped_early(halt: Halt, deadline_seconds: float | None) -> Iterator[None]:
    """A signal or the deadline stops what runs within."""
    with _stopped_by_signals(halt):
        if deadline_seconds is None:
            yield
            return
        late = DeferredError(
            f"safety.run_deadline_seconds ({deadline_seconds:g}) is over; the next run goes on"
        )
        timer = asyncio.get_running_loop().call_later(deadline_seconds, halt.stop, late)
        try:
            yield
        finally:
            timer.cancel()


@contextlib.contextmanager
def _stopped_by_signals(halt: Halt) -> Iterator[None]:
    """The first SIGINT or SIGTERM stops the fetching, a second one acts as it would have."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def interrupt(number: int) -> None:
        restore()
        halt.stop(InterruptedRunError(number))

    for number in before:
        loop.add_signal_handler(number, interrupt, number)
    try:
        yield
    finally:
        restore()
