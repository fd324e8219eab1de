"""Running the revisions: who may, what stands in the way, and from where."""

import os
import re
import subprocess
import sys
import threading
import zipfile

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command

import etl
from etl.errors import DatabaseError, LockedError
from etl.jobs.migrate import migrate, migrate_sql
from etl.store import migration
from etl.store.engine import make_engine
from etl.store.migration import alembic_config, migrating, upgrade_sql
from etl.store.revisions import current_and_head, require_head
from tests.db.revisions import CHECKOUT, add_revision, as_role, change


def test_at_the_head_there_is_nothing_to_say(engine):
    current, head = current_and_head(engine, "anam")
    assert current == head
    require_head(engine, "anam")


def test_a_schema_that_was_never_migrated_is_told(empty_database_url):
    engine = make_engine(empty_database_url, "anam")
    assert current_and_head(engine, "anam")[0] is None
    with pytest.raises(DatabaseError, match="has no tables yet; run `persona-etl migrate`"):
        require_head(engine, "anam")


def test_a_schema_that_is_behind_is_told(engine, copied_checkout):
    add_revision(copied_checkout, "op.execute('SELECT 1')", "op.execute('SELECT 1')")
    with pytest.raises(DatabaseError, match="this program needs later; run `persona-etl migrate`"):
        require_head(engine, "anam")
    migrate(engine, "anam")
    require_head(engine, "anam")


def test_a_schema_that_a_newer_release_migrated_is_left_alone(engine):
    change(engine, "UPDATE alembic_version SET version_num = 'fedcba987654'")
    for refuse in (require_head, migrate):
        with pytest.raises(DatabaseError, match="which this program does not know; install"):
            refuse(engine, "anam")


def test_a_failing_revision_keeps_those_before_it(empty_database_url, copied_checkout):
    engine = make_engine(empty_database_url, "anam")
    head = current_and_head(engine, "anam")[1]
    half = "(op.execute('CREATE TABLE half ()'), op.execute('SELECT 1/0'))"
    add_revision(copied_checkout, half, "op.execute('DROP TABLE half')")
    with pytest.raises(sa.exc.DataError):
        migrate(engine, "anam")
    assert current_and_head(engine, "anam")[0] == head
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT to_regclass('half')")).scalar() is None


def test_a_percent_sign_is_written_once_online_and_for_a_dba(engine, copied_checkout):
    comment = "COMMENT ON TABLE personas IS '100% :x'"
    add_revision(copied_checkout, f'op.execute("{comment}".replace(":", r"\\:"))', "op.f('x')")
    assert f"\n{comment};\n" in upgrade_sql("anam")
    migrate(engine, "anam")
    with engine.connect() as connection:
        told = connection.execute(sa.text("SELECT obj_description('personas'::regclass)"))
        assert told.scalar() == "100% :x"


def test_only_one_migrates_at_a_time(engine):
    with (
        migrating(engine, "anam"),
        pytest.raises(LockedError, match=r"another migrate is running: session \d+ on "),
    ):
        migrate(engine, "anam", wait_seconds=0)
    migrate(engine, "anam")


def test_who_waits_for_the_lock_is_in_no_transaction(engine, database_url):
    """CREATE INDEX CONCURRENTLY waits for all transactions, also for those that wait for it."""
    with migrating(engine, "anam") as connection:
        waiting = threading.Thread(target=migrate, args=(make_engine(database_url, "anam"), "anam"))
        waiting.start()
        try:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(sa.text("SET statement_timeout = '5s'"))
            for _ in range(5):
                connection.execute(sa.text("CREATE INDEX CONCURRENTLY slow ON personas (name)"))
                connection.execute(sa.text("DROP INDEX slow"))
        finally:
            connection.close()
            waiting.join()


@pytest.fixture
def busy_table(database_url, copied_checkout, monkeypatch):
    """A revision that alters a table, and a session that is in the way."""
    monkeypatch.setattr(migration, "_TABLE_LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migration, "_PAUSE_SECONDS", 0.1)
    add_revision(
        copied_checkout,
        "op.execute('ALTER TABLE personas ADD later text')",
        "op.execute('ALTER TABLE personas DROP later')",
    )
    with psycopg.connect(database_url) as session:
        session.execute("SELECT FROM anam.personas")
        yield session


def test_a_busy_table_is_tried_again(engine, busy_table):
    threading.Timer(0.3, busy_table.rollback).start()
    migrate(engine, "anam")
    require_head(engine, "anam")


def test_a_table_that_stays_busy_ends_in_an_error_that_says_so(engine, busy_table):
    with pytest.raises(DatabaseError, match="lock timeout; another session holds a lock"):
        migrate(engine, "anam")


def test_an_owner_of_the_schema_needs_no_right_on_the_database(role, empty_database_url):
    admin = make_engine(empty_database_url, "anam")
    change(admin, f"CREATE SCHEMA anam AUTHORIZATION {role}")
    change(admin, f"CREATE SCHEMA anam_reporting AUTHORIZATION {role}")
    change(admin, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
    owner = as_role(empty_database_url, role)
    migrate(owner, "anam")
    require_head(owner, "anam")
    with migrating(owner, "anam") as connection:
        config = alembic_config()
        config.attributes.update(connection=connection, schema="anam")
        command.check(config)
        command.downgrade(config, "base")


def test_who_may_not_create_the_schema_is_told(role, empty_database_url):
    with pytest.raises(DatabaseError, match="may not create schema anam; as one that may, run"):
        migrate(as_role(empty_database_url, role), "anam")


def test_who_may_not_look_is_not_told_to_migrate(role, database_url, engine):
    with pytest.raises(DatabaseError, match='GRANT USAGE ON SCHEMA "anam"'):
        require_head(as_role(database_url, role), "anam")
    change(engine, f"GRANT USAGE ON SCHEMA anam TO {role}")
    with pytest.raises(DatabaseError, match="permission denied for table alembic_version"):
        require_head(as_role(database_url, role), "anam")


def test_a_role_s_own_timeout_does_not_end_a_migration(role, empty_database_url, copied_checkout):
    admin = make_engine(empty_database_url, "anam")
    change(admin, f"CREATE SCHEMA anam AUTHORIZATION {role}")
    change(admin, f"CREATE SCHEMA anam_reporting AUTHORIZATION {role}")
    change(admin, f"ALTER ROLE {role} SET statement_timeout = '300ms'")
    add_revision(copied_checkout, "op.execute('SELECT pg_sleep(0.5)')", "op.execute('SELECT 1')")
    migrate(as_role(empty_database_url, role), "anam")


def test_a_generated_revision_is_clean_and_runs(empty_database_url, copied_checkout):
    engine = make_engine(empty_database_url, "anam")
    versions = copied_checkout / "migrations" / "versions"
    for file in versions.glob("*.py"):
        file.unlink()
    with migrating(engine, "anam") as connection:
        config = alembic_config()
        config.attributes.update(connection=connection, schema="anam")
        command.revision(config, "all of it", autogenerate=True)
    [file] = versions.glob("*.py")
    assert re.fullmatch(r"\d{8}_[0-9a-f]{12}_all_of_it\.py", file.name)
    ruff = [sys.executable, "-m", "ruff"]
    for verb in (["format", "--quiet"], ["check", "--fix", "--ignore=E501"]):
        subprocess.run([*ruff, *verb, "--no-cache", str(file)], cwd=copied_checkout, check=True)
    migrate(engine, "anam")
    with migrating(engine, "anam") as connection:
        config.attributes.update(connection=connection)
        command.check(config)


def test_plain_alembic_works_in_a_checkout(empty_database_url):
    environment = {
        **os.environ,
        "PERSONA_ETL_DATABASE__URL": empty_database_url,
        "PERSONA_ETL_DATABASE__SCHEMA": "by_hand",
    }

    def alembic(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    alembic("upgrade", "head")
    require_head(make_engine(empty_database_url, "by_hand"), "by_hand")
    assert "No new upgrade operations" in alembic("check")
    assert alembic("upgrade", "head", "--sql") == upgrade_sql("by_hand")
    assert "(head)" in alembic("current")
    # With the views in the way, and again without.
    migrate(make_engine(empty_database_url, "by_hand"), "by_hand")
    alembic("downgrade", "base")
    alembic("upgrade", "heads")


def test_the_wheel_carries_the_revisions(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=CHECKOUT, check=True, capture_output=True,
    )  # fmt: skip
    installed = tmp_path / "site"
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(installed)
    script = "from etl.store.migration import *; print(upgrade_sql('anam')); alembic_config()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == upgrade_sql("anam").strip()
    assert (installed / "etl" / "migrations" / "env.py").exists()


def test_an_installation_without_its_revisions_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(etl, "__file__", str(tmp_path / "etl" / "__init__.py"))
    with pytest.raises(DatabaseError, match="install persona-etl again"):
        alembic_config()


def test_a_schema_of_somebody_else_is_left_alone(empty_database_url):
    admin = make_engine(empty_database_url, "public")
    change(admin, "CREATE TABLE runs (id integer)")
    with pytest.raises(DatabaseError, match=r"schema public has runs already.*database\.schema"):
        migrate(admin, "public")
    with pytest.raises(DatabaseError, match="schema public has runs already"):
        require_head(admin, "public")


def test_a_schema_whose_views_would_be_in_the_place_of_tables_is_refused_at_once(
    empty_database_url,
):
    migrate(make_engine(empty_database_url, "b_reporting"), "b_reporting")
    engine = make_engine(empty_database_url, "b")
    with pytest.raises(DatabaseError, match=r"b_reporting.personas.*rename it, or name another"):
        migrate(engine, "b")
    with pytest.raises(DatabaseError, match="schema b has no tables yet"):
        require_head(engine, "b")


@pytest.mark.parametrize(
    "schema",
    ["$schema$", "a$procedure$b", "$$", "$check$", "a$body$;CREATE TABLE public.pwn();--", "{tag}"],
)
def test_no_name_of_a_schema_ends_a_block(empty_database_url, schema):
    engine = make_engine(empty_database_url, schema)
    script = migrate_sql(schema, since="base")
    with psycopg.connect(empty_database_url, autocommit=True) as dba:
        dba.execute(script.encode())
        assert dba.execute("SELECT to_regclass('public.pwn')").fetchone() == (None,)
    require_head(engine, schema)
    migrate(engine, schema)


def test_a_history_with_two_ends_is_no_bug_of_ours(engine):
    change(engine, "INSERT INTO alembic_version VALUES ('0000')")
    with pytest.raises(DatabaseError, match="more than one row"):
        require_head(engine, "anam")
