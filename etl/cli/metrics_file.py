"""Writes `metrics.textfile` however a run ends, and tells what went wrong with it."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etl.cli.boundary import meaning
from etl.cli.database import target_of
from etl.errors import EtlError, NoConnectionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etl.cli.ended import Ended
    from etl.report.metrics import LastRun
    from etl.settings import Settings

logger = logging.getLogger(__name__)


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

    # A run that could not close its row, or found no server, has lost the database just now; one
    # that was stopped before it was open may have waited for it: asking would take long.
    is_in_vain = isinstance(raised, KeyboardInterrupt | NoConnectionError)
    is_asked = not is_in_vain and all(ended.finished_at for ended in summaries)
    try:
        run = _last_run(command, summaries, began, raised)
        write_metrics(settings, run, (lambda: target_of(settings)) if is_asked else None)
    except EtlError as exc:
        logger.warning("metrics.textfile is not written: %s", exc)
    except KeyboardInterrupt:
        # The work is done, and how it ended still counts.
        logger.warning("metrics.textfile is not written: interrupted")
    except Exception:
        logger.warning("metrics.textfile is not written, a bug of persona-etl", exc_info=True)


def _last_run(
    command: str, summaries: Sequence[Ended], began: float, raised: BaseException | None
) -> LastRun:
    """How the run ended: as its summary has it; where there is none, as what was raised says."""
    from etl.jobs.summary import status_of  # noqa: PLC0415  spares --help
    from etl.report.metrics import LastRun  # noqa: PLC0415  spares --help

    exit_code = meaning(raised)[0] if raised else summaries[0].exit_code
    if not summaries:
        return LastRun(command, status_of(raised), exit_code, began, time.time())
    ended = summaries[0]
    return LastRun(
        command,
        ended.status,
        exit_code,
        ended.started_at.timestamp(),
        ended.finished_at.timestamp() if ended.finished_at else time.time(),
        getattr(ended, "counts", {}),
        getattr(ended, "http_requests", 0),
        getattr(ended, "stages", {}),
    )
