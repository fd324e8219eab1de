"""A team adds columns of its own; a later release maps the same fields. Nothing is lost.

Each release is a wheel, built from a tree, and runs where there is no checkout. Both sides have
their columns from `drift propose`: the team in its folder, the release in its tree, out of what
each of them has seen.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import make_url

from etl.sandbox import Reshape, running_sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable

CHECKOUT = Path(__file__).parents[2]
IN_A_WHEEL = ("etl", "migrations", "pyproject.toml", "alembic.ini", "README.md", "LICENSE")

# What the API sends, and what it sent when the release's makers looked.
SENT = {
    "mood": "calm",
    "score": 7,
    "vibe": "warm",
    "languages": ["en", None, "de"],
    "ranks": [3, 1, 3],
    "shareLinks.storefront": "for the shop",
}
SEEN = SENT | {"score": {"of": 7}, "ranks": ["first", 3]}

OURS = {"PERSONA_ETL_MIGRATIONS__LOCAL_DIR": "ours"}

LANGUAGES = "persona_languages GROUP BY persona_id", "array_agg(value ORDER BY position)"
RANKS = "persona_ranks GROUP BY persona_id", "array_agg(value ORDER BY position)"
RANKS_LOCAL = "persona_ranks__local GROUP BY persona_id", "array_agg(value ORDER BY position)"

# Where a value stands, and which. What the team and the release have alike ...
ALIKE = {
    ("personas", "mood"): "calm",
    LANGUAGES: ["en", None, "de"],
    ("share_links", "storefront"): "for the shop",
}
# ... what the team has otherwise, how that is called when the release has come, and the release's.
TEAMS = ALIKE | {("personas", "score"): 7, ("personas", "vibe"): "warm", RANKS: [3, 1, 3]}
ASIDE = {
    ("personas", "score__local"): 7,
    ("personas", "vibe__local"): "warm",
    RANKS_LOCAL: [3, 1, 3],
}
RELEASED = ALIKE | {
    ("personas", "score"): 7,
    ("personas", "feeling"): "warm",
    RANKS: ["3", "1", "3"],
}
SHOWN = {"mood": "calm", "score": 7, "feeling": "warm"}
SHOWN |= {"languages": ["en", None, "de"], "ranks": ["3", "1", "3"]}


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

    def values(self, places: Iterable[tuple[str, str]]) -> dict[tuple[str, str], object]:
        """What stands at each place, which is to be the same in all rows."""
        found = {}
        for table, column in places:
            schema = "" if table.startswith("anam_reporting.") else "anam."
            rows = {
                repr(value): value
                for (value,) in self.query(f"SELECT {column} FROM {schema}{table}")
            }
            (found[table, column],) = rows.values() or [None]
        return found


@pytest.fixture(scope="module")
def sandbox():
    with running_sandbox(count=3, moving=False) as running:
        running.world.reshape(Reshape(add=SENT))
        yield running


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The wheel of the release that knows none of these fields."""
    return built(CHECKOUT, tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def later(new_database, sandbox, tmp_path_factory):
    """The wheel of a tree that `drift propose` was run in, at a database of its makers' own."""
    folder = tmp_path_factory.mktemp("later")
    tree = folder / "tree"
    tree.mkdir()
    for name in IN_A_WHEEL:
        copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
        copy(CHECKOUT / name, tree / name)
    with new_database() as url:
        makers = Team(tree, url, ANAM_API_URL=sandbox.url, ANAM_API_KEY=sandbox.key)
        makers.run(tree, "migrate")
        sandbox.world.reshape(Reshape(add=SEEN))
        makers.run(tree, "sync", *sandbox.persona_ids)
        sandbox.world.reshape(Reshape(add=SENT))
        makers.run(tree, "drift", "propose", "vibe", "--name", "feeling")
        makers.run(tree, "migrate")
        told = makers.run(tree, "drift", "propose")
    assert "personas.score jsonb" in told
    assert "table persona_ranks (value text)" in told
    return built(tree, folder)


@pytest.fixture(scope="module")
def copied(new_database, sandbox, first, tmp_path_factory):
    """A team that has copied, and nothing of its own."""
    with new_database() as url:
        api = {"ANAM_API_URL": sandbox.url, "ANAM_API_KEY": sandbox.key}
        team = Team(tmp_path_factory.mktemp("team"), url, **api)
        team.run(first, "migrate")
        team.run(first, "sync", *sandbox.persona_ids)
        yield team


@pytest.fixture(scope="module")
def filled(new_database, copied, first):
    """The same team with places of its own for all of it, which a replay filled."""
    with new_database(make_url(copied.url).database) as url:
        team = Team(copied.folder, url, **copied.api, **OURS)
        team.run(first, "drift", "propose")
        assert "local history at local_0001;" in team.run(first, "migrate")
        assert set(team.values(TEAMS).values()) == {None}
        team.run(first, "backfill", "replay")
        assert team.values(TEAMS) == TEAMS
        yield team


@pytest.mark.parametrize("folder", ["ours", ""], ids=["with its folder", "without"])
def test_a_later_release_takes_over_what_a_team_has_added(
    new_database, filled, later, sandbox, folder
):
    with new_database(make_url(filled.url).database) as url:
        team = Team(filled.folder, url, **filled.api | {next(iter(OURS)): folder})
        assert "local history at local_0001;" in team.run(later, "migrate")
        assert team.query("SELECT count(*) FROM anam.local_columns") == [(0,)]
        # What is alike has its values at once, and no value is gone.
        assert team.values(ALIKE | ASIDE) == ALIKE | ASIDE
        team.run(later, "backfill", "replay")
        assert team.values(RELEASED | ASIDE) == RELEASED | ASIDE
        shows_the_same(team)
        # What is put aside is no matter of runs.
        edited, *_ = sandbox.persona_ids
        sandbox.world.edit(edited, {"name": f"Edited {folder}"})
        team.run(later, "sync", *sandbox.persona_ids)
        team.run(later, "backfill", "replay", "--check")
        shows_the_same(team)
        assert re.search(r"is at revision \d{4} already", team.run(later, "migrate"))
        assert team.values(RELEASED | ASIDE) == RELEASED | ASIDE


def test_a_release_that_comes_before_the_local_revisions_were_run_has_its_way(
    new_database, copied, filled, later
):
    with new_database(make_url(copied.url).database) as url:
        team = Team(filled.folder, url, **filled.api)
        assert "local history at local_0001;" in team.run(later, "migrate")
        team.run(later, "backfill", "replay")
        assert team.values(RELEASED) == RELEASED
        # Under a name that is not the release's, the team has its column all the same.
        named = team.query("SELECT table_name, column_name FROM anam.local_columns")
        assert named == [("personas", "vibe")]
        assert team.values([("personas", "vibe")]) == {("personas", "vibe"): "warm"}
        shows_the_same(team)
        team.run(later, "backfill", "replay", "--check")


def shows_the_same(team: Team) -> None:
    """The views have what the API sends, of today and of the past."""
    for view in ("personas", "persona_history", "personas_as_of(now())"):
        shown = {(f"anam_reporting.{view}", column): value for column, value in SHOWN.items()}
        assert team.values(shown) == shown
