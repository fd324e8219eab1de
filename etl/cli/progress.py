"""One line on a terminal that says how far a run is; nothing anywhere else.

tqdm is imported when a line is shown: start-up does not wait for it.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, Protocol

from etl.cli.streams import steerable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tqdm import tqdm

    from etl.cli.invocation import Invocation
    from etl.jobs.summary import Tally

_COUNTING = "{desc} {n:,}{postfix} {rate_noinv_fmt}"
# The bar gives way first in a narrow terminal; then the line is cut at its end.
_OF_A_TOTAL = "{desc} {n:,}/{total:,}{postfix} |{bar}| {rate_noinv_fmt} {remaining} left"
# The terminal writes ^C behind the line; if that began a new one, the line could not be redrawn.
_ROOM_FOR_CTRL_C = 3
_ERASE_TO_THE_END_OF_THE_LINE = "\033[K"


class Progress(Protocol):
    """What `progress` gives: cheap to call a few times a second, from any thread."""

    def total(self, expected: int) -> None:
        """How many there will be, once that is known."""

    def update(self, done: int, counts: Mapping[str, int] | None = None) -> None:
        """How many are done by now, and what to name beside: those counts that aren't 0."""


@contextmanager
def progress(invocation: Invocation, of: str = "personas") -> Iterator[Progress]:
    """Show one line on stderr until the `with` ends, which removes it; log lines go above it.

    It says how many of what: of personas, unless told otherwise.

    Print results and errors after it, as only the log knows of the line. There is none with
    --quiet, nor with JSON lines, nor where stderr is no terminal that can redraw a line.
    """
    if not _is_wanted(invocation):
        yield _Silence()
        return

    from tqdm import tqdm  # noqa: PLC0415  only for a terminal
    from tqdm.contrib.logging import logging_redirect_tqdm  # noqa: PLC0415  only for a terminal

    # Its own lock is one between processes: a semaphore, and a helper process from Python 3.14 on.
    tqdm.set_lock(threading.RLock())
    # Nor is there need for its thread, which watches over loops that stall.
    tqdm.monitor_interval = 0
    line = tqdm(
        desc=of,
        file=sys.stderr,
        leave=False,
        miniters=0,
        unit="",
        ncols=_columns(),
        smoothing=0.1,
        bar_format=_COUNTING,
        position=0,
    )
    try:
        with logging_redirect_tqdm(tqdm_class=tqdm):
            yield _Line(line)
    finally:
        line.close()
        sys.stderr.write(_ERASE_TO_THE_END_OF_THE_LINE)
        sys.stderr.flush()


@contextmanager
def watched(
    invocation: Invocation, of: str = "personas", *, is_shown: bool = True
) -> Iterator[Callable[[int, int], None]]:
    """The same, for a job that tells how many it has done and how many there are.

    `is_shown` is false where somebody else shows it, or it takes no time.
    """
    if not is_shown:
        yield lambda _done, _total: None
        return
    with progress(invocation, of) as line:

        def watch(done: int, total: int) -> None:
            line.total(total)
            line.update(done)

        yield watch


@contextmanager
def tallied(invocation: Invocation, *outcomes: str) -> Iterator[Callable[[Tally], None]]:
    """The same, for a job that tells a tally: beside these outcomes it names all failures."""
    from etl.tables import FAILURES  # noqa: PLC0415  spares --help

    with progress(invocation) as line:

        def watch(tally: Tally) -> None:
            line.total(tally.requested)
            line.update(tally.done, {name: tally.outcomes[name] for name in (*outcomes, *FAILURES)})

        yield watch


def _is_wanted(invocation: Invocation) -> bool:
    return not (invocation.quiet or invocation.json_logs) and steerable(sys.stderr)


def _columns() -> int:
    try:
        # A terminal that was given no size says 0.
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        # It was closed; a run that ignores the hang-up, as below nohup, goes on.
        columns = 80
    return max(columns - _ROOM_FOR_CTRL_C, 1)


class _Silence:
    def total(self, expected: int) -> None:
        pass

    def update(self, done: int, counts: Mapping[str, int] | None = None) -> None:
        pass


class _Line:
    def __init__(self, line: tqdm[NoReturn]) -> None:
        self._line = line

    def total(self, expected: int) -> None:
        self._line.total = expected
        # Of nothing there is no part.
        self._line.bar_format = _OF_A_TOTAL if expected else _COUNTING
        self._line.refresh()

    def update(self, done: int, counts: Mapping[str, int] | None = None) -> None:
        told = ", ".join(f"{count:,} {name}" for name, count in (counts or {}).items() if count)
        if self._line.total is not None:
            # The list of personas may grow while it is gone through.
            self._line.total = max(self._line.total, done)
        self._line.ncols = _columns()
        self._line.set_postfix_str(told, refresh=False)
        self._line.update(done - self._line.n)
