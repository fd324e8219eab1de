"""Processes that die at any moment, while the world moves on: nothing is lost, nothing made up."""

from __future__ import annotations

import signal

import pytest

from tests.torture.figures import tortured
from tests.torture.judging import check_ledger
from tests.torture.life import Life
from tests.torture.sizes import ROUNDS, SEED


@pytest.fixture
def another_url(new_database, template):
    with new_database(template) as url:
        yield url


def test_killed_at_any_moment_the_history_is_true(copying, another_url):
    with copying(count=30, seed=SEED) as target:
        life = Life(target, SEED)
        for _ in range(ROUNDS or 12):
            _, run = life.run_is_struck(signal.SIGKILL)
            tortured(f"SIGKILL: {run['status'] if run else 'not yet in the ledger'}")
            life.is_sound()
            if life.dice.random() < 0.2:
                life.goes_on()
                assert not target.rows("runs", status="running")
        life.ends_well(another_url)
        assert target.rows("runs", status="crashed")


def test_told_to_stop_at_any_moment_it_stops_in_good_order(copying, another_url):
    with copying(count=30, seed=SEED + 1) as target:
        life = Life(target, SEED + 1)
        for _ in range(ROUNDS // 3 or 4):
            code, run = life.run_is_struck(signal.SIGTERM)
            if run is None:
                where = "before it was in the ledger"
            elif run["status"] == "interrupted":
                where = "it was interrupted"
                assert code == 143, run
            else:
                # After its books were closed a signal finds nothing to stop any more.
                where = "too late, it had ended"
                assert run["status"] in ("succeeded", "partial"), run
            tortured(f"SIGTERM: {where}")
            life.is_sound()
            check_ledger(target)
        life.ends_well(another_url)
