"""The hook of each command that opens a run: `metrics.textfile` is written however the run ends."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from etl.cli.database import target_of
from etl.errors import EtlError, NoConnectionError, Terminated, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from etl.report.metrics import LastRun
    from etl.settings import Settings

logger = logging.getLogger(__name__)


class Ended(Protocol):
    """What the summaries of all runs have in common; `counts` and more only some of them have."""

    status: str
    started_at: datetime
    finished_at: datetime | None

    @property
    def exit_code(self) -> int:
        """Of the command."""


@contextmanager
def metrics_file(
    settings: Settings, command: str, summaries: Sequence[Ended], *, is_dry: bool = False
) -> Iterator[None]:
    """Writes the file when the `with` ends, if the settings name one and the run is no dry one.

    `summaries` holds the run's by then, if the run came to exist. Whatever goes wrong with the file
    is told in one line and changes nothing: neither how the run ended nor what is raised.
    """
    if settings.metrics.textfile is None or is_dry:
        yield
        return
    began = time.time()
    try:
        yield
    except UsageError:
        # Nothing was started: as after an option that there is not.
        raise
    except BaseException as exc:
        _write(settings, command, summaries, began, exc)
        raise
    _write(settings, command, summaries, began, None)


def _write(
    settings: Settings,
    command: str,
    summaries: Sequence[Ended],
    began: float,
    raised: BaseException | None,
) -> None:
    from etl.jobs.metrics import write_metrics  # noqa: PLC0415  spares --help

    ended = summaries[0] if summaries else None
    # A run that could not close its row has lost the database just now: asking would take long.
    is_lost = ended is not None and ended.finished_at is None
    is_lost = is_lost or isinstance(raised, NoConnectionError)
    try:
        run = _last_run(command, ended, began, raised)
        write_metrics(settings, run, None if is_lost else lambda: target_of(settings))
    except EtlError as exc:
        logger.warning("metrics.textfile is not written: %s", exc)
    except KeyboardInterrupt:
        # The work is done, and how it ended still counts.
        logger.warning("metrics.textfile is not written: interrupted")
    except Exception:
        logger.warning("metrics.textfile is not written, a bug of persona-etl", exc_info=True)


def _last_run(
    command: str, ended: Ended | None, began: float, raised: BaseException | None
) -> LastRun:
    """How the run ended: as its summary has it; where there is none, as what was raised says."""
    from etl.report.metrics import LastRun  # noqa: PLC0415  spares --help

    if ended is None:
        status, code = _outcome(raised)
        return LastRun(command, status, code, began, time.time())
    return LastRun(
        command,
        ended.status,
        ended.exit_code if raised is None else _outcome(raised)[1],
        ended.started_at.timestamp(),
        ended.finished_at.timestamp() if ended.finished_at else time.time(),
        getattr(ended, "counts", {}),
        getattr(ended, "http_requests", 0),
        getattr(ended, "stages", {}),
    )


def _outcome(raised: BaseException | None) -> tuple[str, int]:
    """Status and exit code, as `boundary.py` gives it."""
    from etl.jobs.summary import status_of  # noqa: PLC0415  spares --help

    match raised:
        case EtlError():
            return status_of(raised), raised.exit_code
        case KeyboardInterrupt():
            is_term = isinstance(raised, Terminated)
            return "interrupted", 128 + (signal.SIGTERM if is_term else signal.SIGINT)
        case _:
            return "failed", 1
