"""What a monitor hears of a sync: that it began, and how it ended.

Whether it hears is no matter of the run's: neither its exit code nor its summary depends on that.
"""

from __future__ import annotations

import logging
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etl.cli.boundary import meaning
from etl.cli.logs import on_one_line
from etl.errors import LockedError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydantic import SecretStr

    from etl.cli.invocation import Invocation
    from etl.jobs.summary import Summary
    from etl.source.ping import Ping

logger = logging.getLogger(__name__)

# Whoever stops a run by a signal kills it soon after: containers within 10 s.
_INTERRUPTED = {128 + signal.SIGINT, 128 + signal.SIGTERM}
_HURRIED_SECONDS = 1.5


@contextmanager
def pinged(
    invocation: Invocation,
    ping_url: SecretStr | None,
    summaries: Sequence[Summary],
    as_text: Callable[[Summary], str],
) -> Iterator[Callable[[], None]]:
    """Tells the monitor how what runs within ends, be it before there is a run.

    Yields what to call when the run has begun; in `summaries` is then how it ended. A run that was
    skipped is not told of: the one in its way will be. None: nobody is told anything.
    """
    if ping_url is None:
        yield lambda: None
        return
    pings = _Pings(invocation, ping_url)
    try:
        yield pings.begin
    except BaseException as exc:
        pings.end(*_ending(exc, summaries, as_text))
        raise
    else:
        pings.end(*_ending(None, summaries, as_text))


def _ending(
    raised: BaseException | None, summaries: Sequence[Summary], as_text: Callable[[Summary], str]
) -> tuple[int, list[str]]:
    """The exit code and what a person would read, however much of it was printed.

    Where only that failed, what the run did counts.
    """
    lines = [line for summary in summaries for line in as_text(summary).split("\n")]
    why = raised
    if raised is None or isinstance(raised, OutputError):
        why = next((summary.error for summary in summaries), raised)
    if why is None:
        return 0, lines
    code, told = meaning(why)
    return code, [*lines, f"persona-etl: error: {on_one_line(told)}"]


class _Pings:
    """Those about one run."""

    def __init__(self, invocation: Invocation, url: SecretStr) -> None:
        self._invocation = invocation
        self._url = url
        self._start: Ping | None = None

    def begin(self) -> None:
        """Say so. The run does not wait for that."""
        from etl.source.ping import Ping  # noqa: PLC0415  spares --help

        self._start = Ping(self._url.get_secret_value(), "start", run_id=self._run_id)

    def end(self, code: int, lines: Sequence[str]) -> None:
        """Say how, once it is said that it began. A signal ends that, and changes nothing else."""
        from etl.source.ping import SECONDS, Ping, monitor_at  # noqa: PLC0415  spares --help

        if code == LockedError.exit_code and self._start is None:
            return
        seconds = _HURRIED_SECONDS if code in _INTERRUPTED else SECONDS
        url = self._url.get_secret_value()
        try:
            first = self._start.trouble(seconds) if self._start else None
            last = Ping(
                url,
                str(code) if code else "",
                run_id=self._run_id,
                text=self._invocation.hiding.without("\n".join(lines)),
                seconds=seconds,
            ).trouble()
        except KeyboardInterrupt:
            return
        trouble = last or first
        # Of a monitor that is away each run would write a mail; of runs that it does not hear of,
        # it tells by itself.
        if trouble and not (trouble.is_passing and self._invocation.quiet):
            which = "how the run ended" if last else "that the run began"
            logger.warning("%s was not told %s: %s", monitor_at(url), which, trouble.told)

    @property
    def _run_id(self) -> str | None:
        return self._invocation.on_each_line.get("run_id")
