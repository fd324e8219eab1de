"""When a run should stop before its end, and why: a signal, its deadline, or what the API says."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from etl.errors import DeferredError, InterruptedRunError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

Result = TypeVar("Result")


class Halt:
    """Why a run should stop, if it should: the first reason counts, a signal before all others."""

    def __init__(self) -> None:
        self.reason: RunError | None = None
        self.is_urgent = False
        """A second signal has come: nothing may be waited for any more."""
        self.is_answered = True
        """Whether what was broken off then could still be told so."""
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._breaks: list[Callable[[], bool]] = []

    @property
    def interruption(self) -> InterruptedRunError | None:
        """The reason, when it is a signal."""
        return self.reason if isinstance(self.reason, InterruptedRunError) else None

    def stop(self, reason: RunError) -> None:
        """Stops the fetching; what has arrived is still loaded."""
        if self.reason is None or (self.interruption is None and _is_signal(reason)):
            self.reason = reason
        if self._loop is not None:
            # Wakes it up: a signal may come while it waits.
            self._loop.call_soon_threadsafe(self._told.set)

    def check(self) -> None:
        """Raises the reason, if there is one: between two parts of the work."""
        if self.reason is not None:
            raise self.reason

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
    def breaking(self, break_off: Callable[[], bool]) -> Iterator[None]:
        """What runs within is ended by `break_off` when there is no time left for it.

        That returns whether the other side took notice.
        """
        self._breaks.append(break_off)
        try:
            yield
        finally:
            self._breaks.remove(break_off)

    def break_off(self) -> None:
        """Ends whatever is under way, in any thread."""
        self.is_urgent = True
        # All at once: each may wait for a server that does not answer.
        with ThreadPoolExecutor() as pool:
            self.is_answered = all(list(pool.map(lambda break_off: break_off(), self._breaks)))

    @contextlib.contextmanager
    def heard_in(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """`unless_told` is told in this loop, also what was said before."""
        self._loop = loop
        if self.reason is not None:
            self._told.set()
        try:
            yield
        finally:
            self._loop = None


@contextlib.contextmanager
def stopped_early(halt: Halt, deadline_seconds: float | None) -> Iterator[None]:
    """The deadline stops what runs within, in an event loop, as does all else that tells `halt`."""
    loop = asyncio.get_running_loop()
    with halt.heard_in(loop):
        if deadline_seconds is None:
            yield
            return
        late = DeferredError(
            f"safety.run_deadline_seconds ({deadline_seconds:g}) is over; the next run goes on"
        )
        timer = loop.call_later(deadline_seconds, halt.stop, late)
        try:
            yield
        finally:
            timer.cancel()


@contextlib.contextmanager
def stopped_by_signals(halt: Halt) -> Iterator[None]:
    """The first SIGINT or SIGTERM tells `halt`. A second one ends at once what runs within.

    Raises InterruptedRunError then, unless what runs within comes to an end of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A shell lets what it runs in the background ignore Ctrl-C: so it stays.
    before = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if (handler := signal.getsignal(number)) != signal.SIG_IGN
    }

    def interrupt(number: int, _frame: object) -> None:
        if halt.interruption is None:
            halt.stop(InterruptedRunError(number))
            return
        halt.break_off()
        # Not KeyboardInterrupt, on which the driver would cancel, patiently, what is cut off now.
        raise SystemExit(halt.interruption.exit_code)

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    except BaseException:
        # What was broken off ends with any error.
        if halt.is_urgent and halt.interruption is not None:
            raise halt.interruption from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_signal(reason: RunError) -> bool:
    return isinstance(reason, InterruptedRunError)
