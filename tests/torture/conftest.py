"""The closing summary of the long torture, and the database tests' own way to make a target."""

from __future__ import annotations

from tests.db.conftest import copying
from tests.torture.figures import summary
from tests.torture.sizes import IS_LONG, ROUNDS, SEED

__all__ = ["copying"]


def pytest_terminal_summary(terminalreporter):
    if IS_LONG:
        terminalreporter.section(f"torture: ROUNDS={ROUNDS} SEED={SEED}")
        for line in summary():
            terminalreporter.write_line(line)
