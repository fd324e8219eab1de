"""`persona-etl` in processes of its own, struck by signals at moments of chance."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from random import Random

    from tests.db.conftest import Target

# No run of a few dozen personas takes this long, on the slowest of machines.
PATIENCE_SECONDS = 120


class Command:
    """One `persona-etl sync --all`, started now."""

    def __init__(self, target: Target, *arguments: str) -> None:
        self.requests = target.sandbox.requests
        self.requests_before = self.requests.total
        self.started = time.monotonic()
        # Whatever it says can't fill a pipe that nobody reads.
        self.told = target.folder / "stderr"
        with self.told.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "etl", *(arguments or ("sync", "--all"))],
                cwd=target.folder,
                env=os.environ | target.environment() | {"HOME": str(target.folder)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        with self:
            return self.process.wait(PATIENCE_SECONDS)

    def finish(self) -> float:
        """Ends undisturbed, or with what could not be copied; returns how long that took."""
        code = self.wait()
        assert code in (0, 3), self.stderr
        return time.monotonic() - self.started

    @property
    def stderr(self) -> str:
        return self.told.read_text()

    def until(self, is_so: Callable[[], bool]) -> None:
        """Waits for that, or for the end."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def until_chance(self, dice: Random, starting: float, working: float) -> None:
        """Waits up to a moment of its life, which has these two parts, in seconds.

        Mostly of the second: all but a few statements come after the first request.
        """
        at = self.started + dice.uniform(0, starting)
        if dice.random() < 0.85:
            self.until(self.has_asked)
            at = time.monotonic() + dice.uniform(0, working)
        self.until(lambda: time.monotonic() >= at)

    def has_asked(self) -> bool:
        return self.requests.total > self.requests_before

    def strike(self, number: signal.Signals) -> int:
        """Sends a signal; returns how the process ended."""
        self.process.send_signal(number)
        return self.wait()
