"""Builds that are broken on purpose are caught: by the tests that kill a run at any statement."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.torture.figures import tortured
from tests.torture.sizes import IS_LONG

CHECKOUT = Path(__file__).parents[2]
TORTURE = "tests/db/test_sync_killed.py::test_killed_at_any_statement_the_next_run_heals"


@dataclass(frozen=True)
class Change:
    """In a file the one place where `text` stands has `instead`."""

    file: str
    text: str
    instead: str


AUTOCOMMIT = 'execution_options(isolation_level="AUTOCOMMIT")'
BATCH_WITHOUT_TRANSACTION = [
    Change(
        "jobs/batches.py",
        "self.run.in_transaction(partial(self._load, batch))",
        "self._load(batch)",
    ),
    Change(
        "jobs/batches.py",
        "        return loaded, tally\n",
        "        self.connection.commit()\n        return loaded, tally\n",
    ),
]
MUTANTS = {
    # The deferred constraints refuse a chain that is written by halves, in any run.
    "a transaction for each statement": [
        Change(
            "jobs/batches.py",
            "loaded, tally = self.run.in_transaction(partial(self._load, batch))",
            f"with self.connection.{AUTOCOMMIT}.begin():\n"
            "                loaded, tally = self._load(batch)",
        ),
    ],
    # What they let pass: history first, then the tables, then the ledger.
    "a transaction for each part of a batch": [
        *BATCH_WITHOUT_TRANSACTION,
        Change(
            "jobs/load.py",
            "reckoned.news.folded)\n",
            "reckoned.news.folded)\n    connection.commit()\n",
        ),
        Change(
            "jobs/load.py",
            "    save_states(connection",
            "    connection.commit()\n    save_states(connection",
        ),
    ],
    "removals in the history before they are in the tables": [
        Change(
            "jobs/removal.py",
            "run.in_transaction(partial(remove, run.connection, part, run.run_id))",
            "remove(run.connection, part, run.run_id)\n        run.connection.commit()",
        ),
        Change(
            "jobs/observe.py",
            "    distrust(connection",
            "    connection.commit()\n    distrust(connection",
        ),
    ],
    "versions without their observations": [
        Change("store/versions.py", "    add_observations(connection, folded.new)\n", ""),
    ],
    "counts in a transaction of their own": [
        Change(
            "jobs/batches.py",
            "plus(loaded)\n        set_counts(",
            "plus(loaded)\n        (lambda *_: None)(",
        ),
        Change(
            "jobs/batches.py",
            "        self.tally = tally\n        log_outcomes",
            "        with self.connection.begin():\n"
            "            set_counts(self.connection, self.run_id, tally.columns(0))\n"
            "        self.tally = tally\n        log_outcomes",
        ),
    ],
    "orphans that nobody closes": [
        Change("jobs/opened_run.py", "close_orphans(connection)\n", "pass\n"),
    ],
    "an answer that is settled before it is loaded": [
        Change(
            "jobs/load.py",
            "    if reckoned.news is not None:\n",
            "    with connection.engine.begin() as other:\n"
            "        save_states(other, reckoned.states)\n"
            "    if reckoned.news is not None:\n",
        ),
    ],
}
IN_EVERY_TEST_RUN = ["a transaction for each part of a batch"]
# What finds the damage, by what it does to the data, and not for being no Python, say.
JUDGES = r"in (check_books|check_ledger|check_replay|is_as_undisturbed)\b"
REFUSED = {"a transaction for each statement": rf"ForeignKeyViolation|{JUDGES}"}


def mutated(changes: list[Change], folder: Path) -> None:
    """A copy of the package with these changes, beside what it looks for."""
    shutil.copytree(
        CHECKOUT / "etl", folder / "etl", ignore=shutil.ignore_patterns("__pycache__", "migrations")
    )
    for name in ("alembic.ini", "migrations"):
        (folder / name).symlink_to(CHECKOUT / name)
    for change in changes:
        file = folder / "etl" / change.file
        source = file.read_text()
        assert source.count(change.text) == 1, f"{change.file} has moved on: mutate it anew"
        file.write_text(source.replace(change.text, change.instead))


@pytest.mark.parametrize("name", MUTANTS if IS_LONG else IN_EVERY_TEST_RUN)
def test_a_broken_build_is_caught(name, tmp_path, server_url):
    mutated(MUTANTS[name], tmp_path)
    kept = {n: value for n, value in os.environ.items() if not n.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-x", "-pno:cacheprovider", "--tb=short", TORTURE],
        cwd=CHECKOUT,
        env=kept
        | {
            "PYTHONPATH": str(tmp_path),
            # The folder is already in the path, behind that one.
            "PYTHONSAFEPATH": "1",
            "PERSONA_ETL_TEST_DATABASE_URL": server_url,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert re.search(REFUSED.get(name, JUDGES), told), told
    tortured(f"broken build caught: {name}")
