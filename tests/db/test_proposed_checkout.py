"""A checkout that was proposed into, as it is: its map and its revision are one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from etl.jobs.revising import write_to_checkout
from tests.cli.test_migrate_command import lint
from tests.db.revisions import CHECKOUT, revisions
from tests.unit.proposals import EVERY_HOME, EVERY_HOSTILE, EVERY_TYPE, NOW

# What is proposed is files; what revisions do to a server has test_local_migration.
pytestmark = pytest.mark.one_server

LIVED = """
import sys
from alembic import command
from alembic.script import ScriptDirectory
from etl.jobs.migrate import migrate, migrate_sql
from etl.store.engine import make_engine
from etl.store.migration import alembic_config, migrating

url, before, after = sys.argv[1:]
engine = make_engine(url, "anam")

def run(step, *arguments):
    config = alembic_config()
    with migrating(engine, "anam") as connection:
        config.attributes.update(connection=connection, schema="anam")
        step(config, *arguments)

migrate(engine, "anam")
run(command.check)
run(command.downgrade, before)
run(command.upgrade, after)
run(command.check)
migrate(engine, "anam")
print(migrate_sql("anam", since=before))
"""


def test_what_is_proposed_migrates_both_ways_and_is_what_the_map_says(tmp_path, empty_database_url):
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("etl", "migrations"):
        shutil.copytree(CHECKOUT / folder, checkout / folder, ignore=ignored)
    for file in ("pyproject.toml", "alembic.ini"):
        shutil.copy(CHECKOUT / file, checkout)
    before = revisions()[-1]
    written = write_to_checkout([*EVERY_TYPE, *EVERY_HOME, *EVERY_HOSTILE], checkout, NOW)
    done = subprocess.run(
        [sys.executable, "-c", LIVED, empty_database_url, before, written.revision],
        cwd=checkout,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ALTER TABLE personas ADD COLUMN IF NOT EXISTS hostile_0" in done.stdout
    script = done.stdout.partition("\n-- ")[2]
    assert lint(tmp_path, f"-- {script}") == ""
