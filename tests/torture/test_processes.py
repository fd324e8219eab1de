"""Processes that die at any moment, while the world moves on: nothing is lost, nothing made up."""

from __future__ import annotations

import signal
import time
from random import Random

import pytest

from tests.torture.figures import tortured
from tests.torture.judging import check_ledger, locks_left, timeless
from tests.torture.processes import Command
from tests.torture.served import Served, tables_by_owner
from tests.torture.sizes import ROUNDS, SEED
from tests.torture.stirring import Stirred


class Life:
    """A target whose world is stirred between runs, and what its API has served."""

    def __init__(self, target, seed: int) -> None:
        self.target = target
        self.served = Served(target.world)
        self.stirred = Stirred(target.world, seed)
        self.dice = Random(seed)
        self.seconds = Command(target).finish()

    def run_is_struck(self, number: signal.Signals) -> tuple[int, dict | None]:
        """How a run of the stirred world ended that met a signal, and its row, if it has one."""
        known = {run["run_id"] for run in self.target.rows("runs")}
        self.stirred.stir()
        command = Command(self.target)
        command.until_chance(self.dice, self.seconds)
        code = command.strike(number)
        assert code in (0, 3, -number, 128 + number), command.stderr
        new = [run for run in self.target.rows("runs") if run["run_id"] not in known]
        assert len(new) <= 1
        return code, new[0] if new else None

    def goes_on(self) -> None:
        """A run that nothing disturbs."""
        self.stirred.stir()
        Command(self.target).finish()
        self.is_sound()

    def is_sound(self) -> None:
        """What was done by half is not there at all."""
        assert [one.as_line() for one in self.target.check().findings.first] == []

    def ends_well(self, copying, url) -> None:
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
        with self.target.at(url):
            Command(self.target).finish()
            fresh = tables_by_owner(self.target)
        current = tables_by_owner(self.target)
        for what, rows in fresh.items():
            assert current.get(what) == rows, what


@pytest.fixture
def another_url(new_database, template):
    with new_database(template) as url:
        yield url


def test_killed_at_any_moment_the_history_is_true(copying, another_url):
    with copying(count=30, seed=SEED) as target:
        life = Life(target, SEED)
        for _ in range(ROUNDS or 12):
            code, run = life.run_is_struck(signal.SIGKILL)
            where = "before it was in the ledger" if run is None else "when it was in the ledger"
            tortured(f"SIGKILL: {where}" if code < 0 else "SIGKILL: too late, it had ended")
            life.is_sound()
            if life.dice.random() < 0.2:
                life.goes_on()
                assert not target.rows("runs", status="running")
        life.ends_well(copying, another_url)
        assert target.rows("runs", status="crashed")


def test_told_to_stop_at_any_moment_it_stops_in_good_order(copying, another_url):
    with copying(count=30, seed=SEED + 1) as target:
        life = Life(target, SEED + 1)
        for _ in range(ROUNDS // 3 or 6):
            code, run = life.run_is_struck(signal.SIGTERM)
            if code in (0, 3):
                assert run is not None
                assert run["status"] in ("succeeded", "partial"), run
            elif run is not None:
                assert (code, run["status"]) == (143, "interrupted"), run
            tortured("SIGTERM: it had ended" if code in (0, 3) else "SIGTERM: interrupted")
            life.is_sound()
            check_ledger(target)
        life.ends_well(copying, another_url)
