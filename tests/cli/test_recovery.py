"""Upgrade and recovery where no server has to be dumped, as docs/operations.md tells them.

A release is a tree beside the checkout: its code, with a revision more or less.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import alembic.config
import psycopg
import pytest

import etl
from etl.sandbox import running_sandbox
from etl.store.revisions import head_revision
from tests.cli.test_sync_command import run
from tests.run_under_way import a_run_under_way

CHECKOUT = Path(__file__).parents[2]

LATER = '''
"""A column more."""
import sqlalchemy as sa
from alembic import op
revision = "later"
down_revision = "{head}"
def upgrade(): op.add_column("runs", sa.Column("later", sa.Text(), comment="Later."))
def downgrade(): op.drop_column("runs", "later")
'''

# Whatever goes by the columns of tables ...
HELD_BACK = (
    "sync",
    "sync --dry-run",
    "backfill api",
    "backfill files lines.ndjson",
    "backfill replay",
    "backfill replay --check",
    "diff {persona}",
    "export",
    "verify",
    "drift",
    "drift propose",
    "drift accept mood",
    "forget --yes {persona}",
    "forget --dry-run {persona}",
    "prune --keep-runs-days 9",
    "prune --keep-runs-days 9 --dry-run",
)
# ... and what asks the views, whose names stay.
STILL_ANSWERED = ("runs", "runs last", "report", "prompts search a", "query SELECT(1)")

HISTORY = (
    "SELECT persona_id, version, name, valid_from, valid_to, change FROM {}.persona_history"
    " ORDER BY 1, 2"
)

# All that has happened was a week before.
A_WEEK_PASSES = """
    DO $$
    DECLARE
        moved record;
    BEGIN
        SET CONSTRAINTS ALL DEFERRED;
        FOR moved IN
            SELECT table_name,
                   string_agg(format('%1$I = %1$I - interval ''7 days''', column_name), ', ')
                   AS sets
              FROM information_schema.columns
             WHERE table_schema = 'anam' AND table_name <> 'share_links'
               AND data_type LIKE 'timestamp%'
               AND column_name NOT IN ('created_at', 'updated_at', 'source_updated_at')
             GROUP BY table_name
        LOOP
            EXECUTE format('UPDATE anam.%I SET %s', moved.table_name, moved.sets);
        END LOOP;
    END
    $$
"""


@pytest.fixture
def sandbox():
    with running_sandbox(count=3, moving=False) as running:
        yield running


@pytest.fixture
def copied(url):
    """A database with all personas in it."""
    assert run("sync").exit_code == 0
    return url


@pytest.fixture
def release(tmp_path, monkeypatch):
    """What puts a release in the place of this one: "newer", "older" by a revision, "this one"."""

    def become(name: str) -> Path:
        tree = CHECKOUT if name == "this one" else tmp_path / name
        monkeypatch.setattr(etl, "__file__", str(tree / "etl" / "__init__.py"))
        if tree != CHECKOUT:
            shutil.copytree(CHECKOUT / "migrations", tree / "migrations")
            shutil.copy(CHECKOUT / "alembic.ini", tree)
            (tree / "etl").mkdir()
            head = head_revision()
            (newest,) = (tree / "migrations" / "versions").glob(f"*_{head}_*.py")
            if name == "newer":
                newest.with_name("20990101_later.py").write_text(LATER.format(head=head))
            else:
                newest.unlink()
        return tree

    return become


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as session:
        cursor = session.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def everything(url: str) -> dict[str, str]:
    """What each table holds, as a hash."""
    tables = ask(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'anam'")
    hashed = "SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM anam.{} AS t"
    return {table: ask(url, hashed.format(table))[0][0] for (table,) in tables}


# ── Upgrading ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("made_by", "told"),
    [
        ("newer", "at revision later, which this program does not know; install the persona-etl"),
        ("older", "this program needs {head}; run `persona-etl migrate`"),
    ],
)
def test_a_program_beside_its_schema_says_so_and_writes_nothing(
    made_by, told, copied, sandbox, release
):
    if made_by == "older":
        alembic.config.main(["-c", str(CHECKOUT / "alembic.ini"), "-q", "downgrade", "-1"])
    release(made_by)
    assert run("migrate").exit_code == 0
    release("this one")
    persona = sandbox.persona_ids[0]
    Path("lines.ndjson").write_text(json.dumps({"id": persona}))
    before = everything(copied)
    told = told.format(head=head_revision())
    for command in HELD_BACK:
        done = run(*command.format(persona=persona).split())
        assert (done.exit_code, done.stdout) == (6, ""), command
        (line,) = done.stderr.splitlines()
        assert told in line, command
    for command in STILL_ANSWERED:
        assert run(*command.split()).exit_code == 0, command
    for command in ("status", "check"):
        done = run(command)
        assert done.exit_code == 6
        assert told in done.stdout + done.stderr
    if made_by == "newer":
        assert told in run("migrate").stderr
    assert everything(copied) == before


def test_a_run_meets_an_upgrade_and_a_rollback(url, sandbox, release, monkeypatch):
    with a_run_under_way(sandbox.world, lambda: run("sync")) as ended:
        tree = release("newer")
        assert run("migrate").exit_code == 0
    assert ended[0].exit_code == 6
    told = "the schema was migrated while this run was under way; what was done stays, run again"
    assert ask(url, "SELECT status, error FROM anam.runs") == [("failed", told)]
    done = run("sync", "--json")
    assert json.loads(done.stdout)["counts"]["created"] == 3
    # Back: the newer release undoes its revisions, then the older one makes its views.
    monkeypatch.chdir(tree)
    alembic.config.main(["-c", "alembic.ini", "-q", "downgrade", "-1"])
    release("this one")
    assert run("migrate").exit_code == 0
    assert json.loads(run("sync", "--json").stdout)["counts"]["unchanged"] == 3
    assert run("backfill", "replay", "--check").exit_code == 0


# ── After a week without a run ───────────────────────────────────────────────────────────────────


def test_one_sync_catches_up_and_history_says_how_much_it_knows_of_the_week(copied, sandbox):
    changed, same, _ = sandbox.persona_ids
    ask(copied, A_WEEK_PASSES)
    stale = run("status", "--max-age", "2h")
    assert (stale.exit_code, "last complete sync ended 7 d ago" in stale.stderr) == (8, True)
    sandbox.world.edit(changed, {"name": "Of the week"})
    assert run("sync").exit_code == 0
    assert run("status", "--max-age", "2h").exit_code == 0
    assert "the longest time without one was 7 d" in run("report", "--since", "8d").stdout
    assert run("backfill", "replay", "--check").exit_code == 0
    # The change was some time in that week.
    ((last, began),) = ask(
        copied,
        "SELECT old.last_observed_at, new.valid_from FROM anam.document_versions AS old"
        " JOIN anam.document_versions AS new USING (kind, entity_id)"
        f" WHERE entity_id = '{changed}' AND old.version = 1 AND new.version = 2",
    )
    assert 6 < (began - last).total_seconds() / 86400 < 8
    # Of whoever is as before, both ends are known.
    in_between = "SELECT observed_until < now() - interval '3 days' FROM anam_reporting"
    in_between += ".personas_as_of(now() - interval '3 days') WHERE persona_id = '{}'"
    assert ask(copied, in_between.format(changed)) == [(True,)]
    assert ask(copied, in_between.format(same)) == [(False,)]


# ── What somebody has done by hand ───────────────────────────────────────────────────────────────


def test_a_schema_can_be_renamed_with_all_that_is_in_it(copied, monkeypatch):
    before = ask(copied, HISTORY.format("anam_reporting"))
    ask(copied, "ALTER SCHEMA anam RENAME TO fleet")
    ask(copied, "ALTER SCHEMA anam_reporting RENAME TO fleet_reporting")
    monkeypatch.setenv("PERSONA_ETL_DATABASE__SCHEMA", "fleet")
    assert run("migrate").exit_code == 0
    assert run("check").exit_code == 0
    assert ask(copied, HISTORY.format("fleet_reporting")) == before
    assert json.loads(run("sync", "--json").stdout)["counts"]["unchanged"] == 3
    assert run("backfill", "replay", "--check").exit_code == 0
    assert [row[0] for row in ask(copied, "SELECT command FROM fleet.runs")] == ["sync", "sync"]


def test_a_view_that_was_dropped_is_told_and_made_again(copied):
    ask(copied, "DROP VIEW anam_reporting.personas")
    for command in ("report", "query SELECT(1)"):
        done = run(*command.split())
        assert (done.exit_code, "run `persona-etl migrate`" in done.stderr) == (6, True)
    assert "no personas in anam_reporting; run `persona-etl migrate`" in run("check").stdout
    assert run("sync").exit_code == 0
    assert run("migrate").exit_code == 0
    assert run("report").exit_code == 0
    assert run("check").exit_code == 0
