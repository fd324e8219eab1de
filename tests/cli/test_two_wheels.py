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

import psycopg
import pytest
from sqlalchemy import make_url

from etl.sandbox import running_sandbox
from tests.local_revisions import MOOD, write

CHECKOUT = Path(__file__).parents[2]
IN_A_WHEEL = ("etl", "migrations", "pyproject.toml", "alembic.ini", "README.md", "LICENSE")

# What the later release brings: a line of the map, and a revision that takes a column over.
REVISION = '''"""The personas' mood.

Why: the API sends it.
"""

from alembic import op

revision = "later"
down_revision = {head!r}
branch_labels = None
depends_on = None


def upgrade():
    op.execute("LOCK TABLE local_columns IN ACCESS EXCLUSIVE MODE")
    op.execute("""
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM local_columns
                       WHERE table_name = 'personas' AND column_name = 'mood'
                         AND type <> '{type}') THEN
                ALTER TABLE personas RENAME mood TO mood__local;
            END IF;
            DELETE FROM local_columns WHERE table_name = 'personas' AND column_name = 'mood';
            ALTER TABLE personas ADD COLUMN IF NOT EXISTS mood {type};
            COMMENT ON COLUMN personas.mood IS 'How it feels.';
        END
        $$
    """)


def downgrade():
    op.drop_column("personas", "mood")
'''


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


def later_release(folder: Path, type_: str) -> Path:
    """A copy of this tree that maps `mood`, as this type; its wheel, installed."""
    tree = folder / "tree"
    for name in IN_A_WHEEL:
        copy = shutil.copytree if (CHECKOUT / name).is_dir() else shutil.copy
        tree.mkdir(exist_ok=True)
        copy(CHECKOUT / name, tree / name)
    tables = tree / "etl" / "tables.py"
    text = tables.read_text(encoding="utf-8")
    named = {"text": "Text()", "jsonb": "JSONB()"}[type_]
    line = f'    column("mood", {named}, "mood", comment="How it feels."),\n'
    text, count = re.subn(r'(    Column\("removed_at".*\n)', rf"\1{line}", text)
    assert count == 1
    tables.write_text(text, encoding="utf-8")
    versions = tree / "migrations" / "versions"
    head = max(file.name.split("_")[1] for file in versions.glob("*.py"))
    (versions / "20990101_later_mood.py").write_text(REVISION.format(head=head, type=type_))
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


@pytest.fixture(scope="module")
def sandbox():
    with running_sandbox(count=3, moving=False) as running:
        running.world.reshape(lambda payload: payload | {"mood": f"{payload['name']}'s mood"})
        yield running


@pytest.fixture(scope="module")
def team(new_database, sandbox, tmp_path_factory):
    """After the first release: copied, then a column of the team's own, filled by replay."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "persona-etl.toml").write_text('[migrations]\nlocal_dir = "ours"\n')
    (folder / "ours").mkdir()
    site = built(CHECKOUT, tmp_path_factory.mktemp("first"))
    with new_database() as url:
        made = Team(folder, url, ANAM_API_URL=sandbox.url, ANAM_API_KEY=sandbox.key)
        assert "local history at base;" in made.run(site, "migrate")
        made.run(site, "sync", *sandbox.persona_ids)
        write(folder / "ours", 1, [MOOD])
        assert "local history at local_0001;" in made.run(site, "migrate")
        assert made.query("SELECT DISTINCT mood FROM anam.personas") == [(None,)]
        made.run(site, "backfill", "replay")
        yield made


@pytest.fixture(params=["text", "jsonb"])
def later(request, new_database, team, tmp_path):
    """A copy of the team's database, the wheel of a release later, and the column's type there."""
    with new_database(make_url(team.url).database) as url:
        yield (
            Team(team.folder, url, **team.api),
            later_release(tmp_path, request.param),
            request.param,
        )


def test_a_later_release_takes_a_local_column_over(later, sandbox):
    team, site, type_ = later
    moods = "SELECT name || '''s mood', {} FROM {} ORDER BY 1"
    before = team.query(moods.format("mood", "anam.personas"))
    assert [told for told, _ in before] == [mood for _, mood in before]
    told = team.run(site, "migrate")
    assert "is at later now, local history at local_0001;" in told
    assert team.query("SELECT count(*) FROM anam.local_columns") == [(0,)]
    kept = "mood" if type_ == "text" else "mood__local"
    assert team.query(moods.format(kept, "anam.personas")) == before
    # Of the same type there is nothing to fill; else it is filled from the documents.
    team.run(site, "backfill", "replay", *(["--check"] if type_ == "text" else []))
    assert team.query(moods.format(kept, "anam.personas")) == before
    for table in ("anam.personas", "anam_reporting.personas", "anam_reporting.persona_history"):
        assert team.query(moods.format("mood", table)) == before
    edited = sandbox.persona_ids[0]
    sandbox.world.edit(edited, {"name": f"Edited {type_}"})
    team.run(site, "sync", *sandbox.persona_ids)
    name = f"Edited {type_}"
    expected = [(f"{name}'s mood",)]
    assert team.query(f"SELECT mood FROM anam.personas WHERE name = '{name}'") == expected
    # The folder may go: nothing hangs on it.
    (team.folder / "persona-etl.toml").rename(team.folder / "away.toml")
    try:
        assert "is at revision later already" in team.run(site, "migrate")
        team.run(site, "backfill", "replay", "--check")
    finally:
        (team.folder / "away.toml").rename(team.folder / "persona-etl.toml")
    for table in ("anam.personas", "anam_reporting.personas"):
        assert team.query(f"SELECT mood FROM {table} WHERE name = '{name}'") == expected
