"""`persona-etl migrate` as a person, a DBA and a deployment meet it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from etl.cli.main import cli
from etl.report.catalogue import all_views
from etl.sandbox import running_sandbox
from etl.store.engine import make_engine
from etl.store.revisions import head_revision, require_head
from etl.tables import metadata
from tests.db.revisions import catalog, change, url_as
from tests.local_revisions import LANGUAGES, MAKE_LANGUAGES, MOOD, write

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """No settings but the environment's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def roles(new_role):
    """An owner, a reader and a writer, whose names SQL has to quote."""
    return new_role("Owner-"), new_role("Reader-"), new_role("Writer-")


def run(url: str | None, *arguments: str, **environment: str):
    """Runs the command in this process, with this database configured."""
    named = {} if url is None else {"PERSONA_ETL_DATABASE__URL": url}
    return CliRunner().invoke(cli, list(arguments), env=named | environment, catch_exceptions=False)


def owned(url: str, owner: str) -> str:
    """The URL for a plain owner, who may not make a schema but has been given both."""
    with psycopg.connect(url, autocommit=True) as admin:
        for schema in ("anam", "anam_reporting"):
            admin.execute(f'CREATE SCHEMA {schema} AUTHORIZATION "{owner}"'.encode())
        admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        admin.execute("DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC',"
                      " current_database()); END $$")  # fmt: skip
        admin.execute("DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO PUBLIC',"
                      " current_database()); END $$")  # fmt: skip
    return url_as(url, owner)


def run_as_a_script(url: str, script: str) -> None:
    """As psql does: the simple protocol, in autocommit, many statements."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(script.encode())


def test_migrate_tells_where_the_schema_was_and_is(empty_database_url):
    first = run(empty_database_url, "migrate")
    assert (first.exit_code, first.stderr) == (0, "")
    made = "its views are made anew\n"
    assert first.stdout == f"schema anam had no tables, is at {head_revision()} now; {made}"
    again = run(empty_database_url, "migrate")
    assert again.stdout == f"schema anam is at revision {head_revision()} already; {made}"
    quiet = run(empty_database_url, "-q", "migrate")
    assert (quiet.exit_code, quiet.output) == (0, "")
    with psycopg.connect(empty_database_url) as connection:
        for view in all_views():
            connection.execute(f"SELECT FROM anam_reporting.{view.name}".encode())


def test_the_script_builds_exactly_what_migrate_builds(roles, new_database):
    owner, reader, writer = roles
    options = ("--grant-reader", reader, "--grant-writer", writer)
    built = []
    for by_script in (False, True):
        with new_database() as url:
            of_owner = owned(url, owner)
            if by_script:
                printed = run(of_owner, "migrate", "--sql", *options)
                assert (printed.exit_code, printed.stderr) == (0, "")
                run_as_a_script(of_owner, printed.stdout)
            else:
                assert run(of_owner, "migrate", *options).exit_code == 0
            require_head(make_engine(of_owner, "anam"), "anam")
            built.append(catalog(make_engine(url, "anam")))
    assert built[0] ^ built[1] == set()
    assert all(role in str(built[0]) for role in (owner, reader, writer))


def test_a_script_starts_after_the_revision_that_the_database_is_at(database_url):
    before = catalog(make_engine(database_url, "anam"))
    printed = run(database_url, "migrate", "--sql")
    head = head_revision()
    assert printed.stdout.startswith(f"-- persona-etl 0.1.0: schema anam, {head} to {head}\n-- ")
    assert "CREATE TABLE" not in printed.stdout
    assert printed.stderr == ""
    run_as_a_script(database_url, printed.stdout)
    # Twice in one session too: the lock is given back.
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(printed.stdout.encode())
        connection.execute(printed.stdout.encode())
    assert catalog(make_engine(database_url, "anam")) == before


@pytest.mark.parametrize("url", [None, "postgresql://nobody@127.0.0.1:1/nowhere"])
def test_without_a_database_the_script_starts_at_the_beginning_and_says_so(url, empty_database_url):
    printed = run(url, "migrate", "--sql")
    assert printed.exit_code == 0
    assert f"schema anam, base to {head_revision()}\n" in printed.stdout
    assert "-- SQL from the beginning, as" in printed.stdout.partition("\n\n")[0]
    assert printed.stderr.startswith("persona-etl: SQL from the beginning, as ")
    assert run(url, "-q", "migrate", "--sql").stderr == ""
    run_as_a_script(empty_database_url, printed.stdout)
    require_head(make_engine(empty_database_url, "anam"), "anam")


def test_from_asks_no_database(database_url):
    base = run("postgresql://nobody@127.0.0.1:1/nowhere", "migrate", "--sql", "--from", "base")
    assert (base.exit_code, base.stderr) == (0, "")
    assert "CREATE TABLE avatars" in base.stdout
    head = run(database_url, "migrate", "--sql", "--from", head_revision())
    assert "CREATE TABLE" not in head.stdout


@pytest.mark.parametrize("arguments", [["--from", "base"], ["--sql", "--from", "nope"]])
def test_a_senseless_from_is_refused(arguments):
    refused = run(None, "migrate", *arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")


def test_a_stale_script_does_nothing(database_url):
    before = catalog(make_engine(database_url, "anam"))
    stale = run(database_url, "migrate", "--sql", "--from", "base").stdout
    with pytest.raises(psycopg.errors.RaiseException, match="this script starts at base"):
        run_as_a_script(database_url, stale)
    assert catalog(make_engine(database_url, "anam")) == before


def test_a_script_and_a_migrate_exclude_each_other(database_url):
    script = run(database_url, "migrate", "--sql").stdout
    with psycopg.connect(database_url, autocommit=True) as dba:
        lock, _, _ = script.partition("BEGIN;\n")
        dba.execute(lock.encode())
        with pytest.raises(psycopg.errors.RaiseException, match="another migrate is running"):
            run_as_a_script(database_url, script)


def test_no_script_for_a_schema_that_a_newer_release_migrated(database_url):
    change(make_engine(database_url, "anam"), "UPDATE alembic_version SET version_num = 'newer'")
    refused = run(database_url, "migrate", "--sql")
    assert (refused.exit_code, refused.stdout) == (6, "")
    assert "does not know" in refused.stderr


def test_a_reader_reads_the_views_and_nothing_else(roles, empty_database_url):
    owner, reader, _ = roles
    of_owner = owned(empty_database_url, owner)
    assert run(of_owner, "migrate", "--grant-reader", reader).exit_code == 0
    change(make_engine(of_owner, "anam"), "CREATE VIEW anam_reporting.later AS SELECT 1 AS one")
    with psycopg.connect(url_as(empty_database_url, reader), autocommit=True) as session:
        for name in [*(view.name for view in all_views()), "later"]:
            session.execute(f"SELECT * FROM anam_reporting.{name}".encode())
        for forbidden in (
            *(f"SELECT FROM anam.{table}" for table in metadata.tables),
            "DELETE FROM anam.runs",
            "CREATE TABLE anam_reporting.mine ()",
            "CREATE TABLE anam.mine ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(forbidden.encode())


def test_a_writer_syncs_and_changes_no_table(roles, empty_database_url):
    owner, _, writer = roles
    of_owner, of_writer = owned(empty_database_url, owner), url_as(empty_database_url, writer)
    assert run(of_owner, "migrate", "--grant-writer", writer).exit_code == 0
    with running_sandbox(count=6, moving=False) as sandbox:
        api = {"ANAM_API_KEY": sandbox.key, "ANAM_API_URL": sandbox.url}
        gone, edited, *_ = ids = sandbox.persona_ids
        first = run(of_writer, "sync", *ids, **api)
        assert first.exit_code == 0, first.output
        assert "created              6" in first.stdout
        sandbox.world.delete(gone)
        sandbox.world.edit(edited, {"name": "Edited", "tools": [], "shareLinks": []})
        second = run(of_writer, "sync", *ids, **api)
        assert second.exit_code == 0, second.output
        assert "updated              1" in second.stdout
        assert "missing              1" in second.stdout
    change(make_engine(of_owner, "anam"), "CREATE TABLE later (a integer)")
    with psycopg.connect(of_writer, autocommit=True) as session:
        session.execute("INSERT INTO anam.later VALUES (1)")
        for forbidden in (
            "CREATE TABLE anam.mine ()",
            "ALTER TABLE anam.personas ADD mine text",
            "DROP TABLE anam.brains",
            "TRUNCATE anam.brains",
            "UPDATE anam.alembic_version SET version_num = 'x'",
            "DELETE FROM anam.alembic_version",
            "CREATE TABLE anam_reporting.mine ()",
            "SELECT FROM anam_reporting.runs",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(forbidden.encode())
        refused = run(of_writer, "migrate")
        assert refused.exit_code == 6
        assert f"its tables belong to role {owner}; run `persona-etl migrate`" in refused.stderr


@pytest.mark.parametrize("option", ["--grant-reader", "--grant-writer"])
def test_a_role_that_is_not_there_is_named_before_anything_is_done(option, empty_database_url):
    refused = run(empty_database_url, "migrate", option, "no such")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert 'no such role in Postgres: no such; make it first, e.g. CREATE ROLE "no such"' in (
        refused.stderr
    )
    assert "anam" not in str(catalog(make_engine(empty_database_url, "anam")))


def test_squawk_finds_nothing_in_the_script(tmp_path):
    assert lint(tmp_path, run(None, "migrate", "--sql", "--grant-reader", "x").stdout) == ""


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("CREATE INDEX x ON personas (name);", "require-concurrent-index-creation"),
        ("ALTER TABLE personas ALTER name TYPE varchar(9);", "changing-column-type"),
        ("ALTER TABLE personas ADD x text NOT NULL;", "adding-required-field"),
    ],
)
def test_squawk_finds_what_hurts(tmp_path, statement, rule):
    script = run(None, "migrate", "--sql", "--from", head_revision()).stdout
    assert rule in lint(tmp_path, script.replace("BEGIN;\n", f"BEGIN;\n{statement}\n", 1))


def lint(folder: Path, script: str) -> str:
    """What squawk says to the SQL, with the checkout's own settings.

    A transaction at a time, each behind the session's settings: of several in one file it takes
    the first for none.
    """
    head, *transactions = script.split("\nBEGIN;\n")
    said = ""
    for number, transaction in enumerate(transactions):
        file = folder / f"migrate-{number}.sql"
        file.write_text(f"{head}\nBEGIN;\n{transaction}", encoding="utf-8")
        squawk = Path(sys.executable).with_name("squawk")
        done = subprocess.run(
            [squawk, "--config", CHECKOUT / ".squawk.toml", "--reporter", "gcc", file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        assert (done.returncode == 0) == (done.stdout == "")
        said += done.stdout
    return said


def test_help_names_every_option():
    shown = CliRunner().invoke(cli, ["migrate", "--help"]).stdout
    named = ("--sql", "--from REVISION", "--local-to REVISION")
    for option in (*named, "--grant-reader ROLE", "--grant-writer ROLE"):
        assert option in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_an_owner_without_the_second_schema_is_told_what_is_missing(roles, empty_database_url):
    owner, *_ = roles
    of_owner = owned(empty_database_url, owner)
    change(make_engine(empty_database_url, "anam"), "DROP SCHEMA anam_reporting")
    refused = run(of_owner, "migrate")
    assert refused.exit_code == 6
    assert "CREATE SCHEMA anam_reporting AUTHORIZATION" in refused.stderr
    assert {row[1] for row in catalog(make_engine(empty_database_url, "anam"))} == {
        "anam",
        "public",
    }


# --- a team's own revisions


@pytest.fixture
def local_dir(tmp_path):
    """A column and a list, in the folder that the settings name; its variable."""
    (tmp_path / "persona-etl.toml").write_text('[migrations]\nlocal_dir = "ours"\n')
    folder = tmp_path / "ours"
    write(folder, 1, [MOOD])
    drop = '    op.drop_table("persona_languages")'
    write(folder, 2, [LANGUAGES], up=MAKE_LANGUAGES, down=drop)
    return folder


def test_migrate_tells_where_the_local_history_is(empty_database_url, local_dir):
    head = head_revision()
    for arguments, told in (
        ((), f"had no tables, is at {head} now, local history at local_0002"),
        (("--local-to", "base"), f"is at revision {head} already, local history at base"),
        (("--local-to", "local_0001"), f"is at revision {head} already, local history at local_00"),
    ):
        shown = run(empty_database_url, "migrate", *arguments)
        assert (shown.exit_code, shown.stderr) == (0, "")
        assert told in shown.stdout
    (local_dir.parent / "persona-etl.toml").unlink()
    assert ", local history at local_0001;" in run(empty_database_url, "migrate").stdout


def test_what_is_wrong_with_local_revisions_is_one_line_and_a_code(database_url, local_dir):
    def refused(code: int, *arguments: str, says: str) -> None:
        shown = run(database_url, "migrate", *arguments)
        assert (shown.exit_code, shown.stdout, shown.stderr.count("\n")) == (code, "", 1)
        assert says in shown.stderr

    refused(2, "--local-to", "local_0003", says="local_0003: no revision in")
    refused(2, "--sql", "--local-to", "local_0003", says="local_0003: no revision in")
    (local_dir / "notes.py").write_text("x = 1\n")
    for sql in ((), ("--sql",)):
        refused(2, *sql, says="ours/notes.py: no revision; keep nothing else in this folder")
    (local_dir / "notes.py").unlink()
    assert run(database_url, "migrate").exit_code == 0
    (local_dir / "20261123_local_0002_columns.py").unlink()
    for sql in ((), ("--sql",)):
        refused(6, *sql, says="is at local revision local_0002, which is not in")
    with psycopg.connect(database_url, autocommit=True) as session:
        session.execute("UPDATE anam.alembic_version_local SET version_num = 'local_0001'")
    write(local_dir, 2, up='    op.execute("ALTER TABLE personas ADD mood text")')
    refused(6, says='0002_columns.py: Postgres: column "mood" of relation "personas" already exi')
    (local_dir.parent / "persona-etl.toml").unlink()
    refused(2, "--local-to", "base", says="name their folder in migrations.local_dir")


def test_the_script_has_the_local_revisions_that_the_database_lacks(database_url, local_dir):
    printed = run(database_url, "migrate", "--sql")
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert "\n-- local history, base to local_0002\n" in printed.stdout
    run_as_a_script(database_url, printed.stdout)
    again = run(database_url, "migrate", "--sql", "--from", head_revision()).stdout
    assert "\n-- local history, local_0002 to local_0002\n" in again
    undone = run(database_url, "migrate", "--sql", "--local-to", "local_0001").stdout
    assert "DROP TABLE persona_languages" in undone
    run_as_a_script(database_url, undone)
    assert (
        ", local history at local_0001;"
        in run(database_url, "migrate", "--local-to", "local_0001").stdout
    )
    # A script that asks no database is for one that has nothing.
    new = run("postgresql://nobody@127.0.0.1:1/nowhere", "migrate", "--sql", "--from", "base")
    assert (new.exit_code, new.stderr) == (0, "")
    assert "\n-- local history, base to local_0002\n" in new.stdout


def test_a_script_from_a_revision_says_that_the_local_history_is_a_guess(local_dir):
    printed = run(None, "migrate", "--sql", "--from", head_revision())
    assert printed.stderr == (
        "persona-etl: local SQL from the beginning, as no database is configured\n"
    )
    assert "\n-- local SQL from the beginning, as no database" in printed.stdout


def test_squawk_finds_nothing_in_local_revisions(tmp_path, local_dir):
    script = run(None, "migrate", "--sql").stdout
    assert "ADD mood text" in script
    assert lint(tmp_path, script) == ""
