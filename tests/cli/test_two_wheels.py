"""A team adds a column of its own; a later release maps the same field. Nothing is lost.

Each release is a wheel, built from a tree, and runs where there is no checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import psycopg
import pytest

from etl.jobs.revising import write_to_checkout, write_to_folder
from etl.sandbox import running_sandbox
from tests.unit.proposals import NOW, proposal

CHECKOUT = Path(__file__).parents[2]
IN_A_WHEEL = ("etl", "migrations", "pyproject.toml", "alembic.ini", "README.md", "LICENSE")


def built(tree: Path, folder: Path) -> Path:
    """The wheel of a tree, installed into a folder of its own."""
    made = folder / "dist"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", made],
        cwd=tree, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = made.iterdir()
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def later_release(folder: Path) -> Path:
    """A release whose checkout was proposed into: it maps `mood` as the team does, `rank` not so.

    Its wheel, installed.
    """
    tree = folder / "tree"
    for name in IN_A_WHEEL:
        copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
        tree.mkdir(exist_ok=True)
        copy(CHECKOUT / name, tree / name)
    fields = [proposal("mood", "mood"), proposal("rank", "rank", "jsonb", json_types=("number",))]
    write_to_checkout(fields, tree, NOW)
    return built(tree, folder)


class Team:
    """Who runs persona-etl: a folder with settings, an API and a database."""

    def __init__(self, folder: Path, url: str, **api: str) -> None:
        self.folder = folder
        self.url = url
        self.api = api

    def run(self, site: Path, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "etl", *arguments],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "PYTHONPATH": str(site),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PERSONA_ETL_DATABASE__URL": self.url,
                **self.api,
                **environment,
            },
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def query(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url) as session:
            return session.execute(statement.encode()).fetchall()


@pytest.fixture
def sandbox():
    def moved(payload: dict[str, Any]) -> dict[str, Any]:
        name = payload["name"]
        return payload | {"mood": f"{name}'s mood", "rank": len(name)}

    with running_sandbox(count=3, moving=False) as running:
        running.world.reshape(moved)
        yield running


@pytest.fixture
def team(empty_database_url, sandbox, tmp_path):
    """After the first release: copied, then columns of the team's own, filled by replay."""
    folder = tmp_path / "team"
    folder.mkdir()
    (folder / "persona-etl.toml").write_text('[migrations]\nlocal_dir = "ours"\n')
    site = built(CHECKOUT, tmp_path / "first")
    made = Team(folder, empty_database_url, ANAM_API_URL=sandbox.url, ANAM_API_KEY=sandbox.key)
    assert "local history at base;" in made.run(site, "migrate")
    made.run(site, "sync", *sandbox.persona_ids)
    write_to_folder([proposal(), proposal("rank", "rank", "bigint")], folder / "ours", NOW)
    assert "local history at local_0001;" in made.run(site, "migrate")
    assert made.query("SELECT DISTINCT mood FROM anam.personas") == [(None,)]
    made.run(site, "backfill", "replay")
    return made


def test_a_later_release_takes_local_columns_over(team, sandbox, tmp_path):
    site = later_release(tmp_path)
    query = "SELECT name, mood, {} FROM {} ORDER BY 1"
    before = team.query(query.format("rank", "anam.personas"))
    assert [mood for _, mood, _ in before] == [f"{name}'s mood" for name, *_ in before]
    assert all(isinstance(rank, int) for *_, rank in before)
    assert re.search(r"is at 0\d+ now, local history at local_0001;", team.run(site, "migrate"))
    # Of the same type a column is the release's now; of another it stays beside, and is refilled.
    assert team.query("SELECT column_name FROM anam.local_columns") == []
    assert team.query(query.format("rank__local", "anam.personas")) == before
    team.run(site, "backfill", "replay")
    for table in ("anam.personas", "anam_reporting.personas", "anam_reporting.persona_history"):
        assert team.query(query.format("rank", table)) == before
    # The folder may go: nothing hangs on it.
    (team.folder / "persona-etl.toml").unlink()
    sandbox.world.edit(sandbox.persona_ids[0], {"name": "Edited"})
    team.run(site, "sync", *sandbox.persona_ids)
    for table in ("anam.personas", "anam_reporting.personas"):
        edited = f"SELECT mood, rank FROM {table} WHERE name = 'Edited'"
        assert team.query(edited) == [("Edited's mood", len("Edited"))]
    assert "is at revision" in team.run(site, "migrate")
    team.run(site, "backfill", "replay", "--check")
