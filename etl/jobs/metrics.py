"""Writes the metrics file when a run has ended: what the run was like, and how things stand.

What is in it `report/metrics.py` decides. A run is not worse for a file that can't be written: who
calls this tells it, and the exit code stays.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import time
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from etl.errors import DatabaseError, UsageError
from etl.files.output import complete_file
from etl.jobs.status import status
from etl.report.metrics import Standing, textfile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from etl.report.metrics import LastRun
    from etl.settings import Settings
    from etl.store.entries import RunRow

logger = logging.getLogger(__name__)

# node_exporter runs as somebody else, who must be able to read it.
_MODE = 0o644
# Ours has a hundred lines; what is longer is not ours.
_LONGEST_BYTES = 2**20
# The others need milliseconds, unless their database hangs.
_WAIT_SECONDS = 5.0
_LOOKS_EVERY_SECONDS = 0.05


def write_metrics(
    settings: Settings, run: LastRun, served: Callable[[], AbstractContextManager[str]] | None
) -> None:
    """Writes `metrics.textfile`, which must be set, in one go.

    Args:
        settings: Which file and schema, and which personas are wanted.
        run: The run that has just ended.
        served: Gives the database's URL; None: it has just been lost and is not asked.

    Raises:
        UsageError: the file can't be made.
        OutputError: it can't be written to its end; it is left as it was.
    """
    file = settings.metrics.textfile
    if file is None:
        raise ValueError("there is no file to write")
    require_file(file)
    with _alone_in(file.resolve().parent):
        standing = _standing(settings, run, served) if served else None
        release = version("persona-etl")
        text = textfile(settings.database.schema_, release, run, standing, _held(file))
        with complete_file(file, mode=_MODE) as output:
            output.write(text.encode())


def require_file(file: Path) -> None:
    """Raises UsageError where no file can be put: what stands there, or its folder, is none."""
    try:
        # A pipe would be waited for, and whoever reads a device gets no file.
        if not stat.S_ISREG(file.stat().st_mode):
            raise UsageError(f"{file}: not a file; correct metrics.textfile")
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}; correct metrics.textfile") from exc
    target = file.resolve()
    if target.suffix != file.suffix:
        # By a link who may write to the folder could else have any file of ours replaced.
        raise UsageError(f"{file}: a link to what is no {file.suffix}; correct metrics.textfile")
    folder = target.parent
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; make it, or correct metrics.textfile")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"{folder}: this user may not write there; let it, or correct metrics.textfile"
        )


def _held(file: Path) -> str:
    """What the file holds; nothing, where that can't be read or can't be ours."""
    with suppress(OSError, UnicodeDecodeError), file.open("rb") as opened:
        data = opened.read(_LONGEST_BYTES + 1)
        if len(data) <= _LONGEST_BYTES:
            return data.decode()
    return ""


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Runs that end at one time wait for each other, as each goes on from what the file holds.

    The folder is locked rather than a file, which would stay. Where that can't be done, or takes
    too long, it goes on all the same: then the last one wins.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        until = time.monotonic() + _WAIT_SECONDS
        while not _locks(descriptor) and time.monotonic() < until:
            time.sleep(_LOOKS_EVERY_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # This file system has no locks: there is nothing to wait for.
        return True
    return True


def _standing(
    settings: Settings, run: LastRun, served: Callable[[], AbstractContextManager[str]]
) -> Standing | None:
    try:
        with served() as url:
            now = status(settings, url=url, max_age=None)
    except (DatabaseError, UsageError) as exc:
        # Of a run that ended by this it was told already, and one message is enough for a night.
        is_told = run.exit_code == exc.exit_code
        level = logging.DEBUG if is_told else logging.WARNING
        logger.log(level, "metrics: what the database knows is of before: %s", exc)
        return None
    personas = now.personas
    return Standing(
        read_at=now.now.timestamp(),
        last_success_at=_ended_at(now.ledger.last_success),
        last_complete_at=_ended_at(now.ledger.last_complete),
        skipped=now.ledger.skipped,
        live=personas.live,
        failing=personas.failing.count,
        never_seen=personas.never_seen.count,
        untracked=personas.untracked.count,
        stalest_at=_seconds(personas.oldest),
        drift_paths=now.drift_paths,
        value_issues=now.value_issues,
        revision=now.revision.at,
    )


def _ended_at(run: RunRow | None) -> float | None:
    return _seconds(run.finished_at) if run else None


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
