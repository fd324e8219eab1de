"""A target over many runs: its world is stirred, its runs are struck, its history is judged."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING

from tests.torture.judging import check_ledger, locks_left, timeless
from tests.torture.processes import Command
from tests.torture.served import Served, tables_by_owner
from tests.torture.stirring import Stirred

if TYPE_CHECKING:
    import signal

    from tests.db.conftest import Row, Target


class Life:
    """A target whose world is stirred between runs, and what its API has served."""

    def __init__(self, target: Target, seed: int) -> None:
        self.target = target
        self.served = Served(target.world)
        self.stirred = Stirred(target.world, seed)
        self.dice = Random(seed)
        first = Command(target)
        first.until(first.has_asked)
        self.starting = time.monotonic() - first.started
        self.working = first.finish() - self.starting

    def under_way(self) -> Command:
        """A run of the stirred world, at a moment of chance."""
        self.stirred.stir()
        command = Command(self.target)
        command.until_chance(self.dice, self.starting, self.working)
        return command

    def run_is_struck(self, number: signal.Signals) -> tuple[int, Row | None]:
        """How a run ended that met a signal, and its row, if it has one."""
        known = {run["run_id"] for run in self.target.rows("runs")}
        command = self.under_way()
        code = command.strike(number)
        assert code in (0, 3, -number, 128 + number), command.stderr
        new = [run for run in self.target.rows("runs") if run["run_id"] not in known]
        assert len(new) <= 1
        # Machines are as fast as they are: aim at where there is something to hit.
        for run in new:
            self.working *= 1.15 if run["status"] in ("running", "interrupted") else 0.7
        return code, new[0] if new else None

    def goes_on(self) -> None:
        """A run that nothing disturbs."""
        self.stirred.stir()
        Command(self.target).finish()
        self.is_sound()

    def is_sound(self) -> None:
        """What was done by half is not there at all."""
        assert [one.as_line() for one in self.target.check().findings.first] == []

    def ends_well(self, url: str) -> None:
        """The last run ends with the world as it is, and with a history that was really served."""
        self.stirred.settle()
        Command(self.target).finish()
        self.is_sound()
        check_ledger(self.target)
        self.served.check(self.target)
        deadline = time.monotonic() + 20
        while locks_left(self.target):
            assert time.monotonic() < deadline, locks_left(self.target)
        before = timeless(self.target)
        Command(self.target).finish()
        assert timeless(self.target) == before, "a run with nothing to do did something"
        # As a database that has seen nothing but the end.
        with self.target.at(url):
            Command(self.target).finish()
            fresh = tables_by_owner(self.target)
        current = tables_by_owner(self.target)
        for what, rows in fresh.items():
            assert current.get(what) == rows, what
