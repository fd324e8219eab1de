"""A team's own revisions: run after the release's, undone, refused, and printed for a DBA."""

from __future__ import annotations

import threading
from shutil import rmtree
from typing import TYPE_CHECKING

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command

from etl.errors import DatabaseError, UsageError
from etl.jobs.migrate import migrate, migrate_sql
from etl.store import migration
from etl.store.access import look_at_schema
from etl.store.engine import make_engine
from etl.store.local_migration import look_at_local
from etl.store.mapped import stamp_of
from etl.store.revisions import current_and_head, head_revision, require_head
from tests.db.revisions import add_revision, alembic, as_role, catalog, change, tables_of, url_as
from tests.local_revisions import LANGUAGES, MAKE_LANGUAGES, MOOD, RANK, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.db.conftest import Target

COLUMNS = """
    SELECT column_name FROM information_schema.columns
     WHERE table_schema || '.' || table_name = :of
"""


@pytest.fixture
def folder(tmp_path):
    """Two revisions: columns of two tables, and a list's table."""
    made = tmp_path / "our 100% own"
    write(made, 1, [MOOD, RANK])
    drop = '    op.drop_table("persona_languages")'
    write(made, 2, [LANGUAGES], up=MAKE_LANGUAGES, down=drop)
    return made


def local(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        return look_at_local(connection).revision


def columns(engine: sa.Engine, of: str) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(sa.text(COLUMNS), {"of": of}).scalars())


def stamp(engine: sa.Engine) -> tuple[str, ...]:
    with engine.connect() as connection:
        return stamp_of(connection)


def speaking(payload):
    """A later shape of the API."""
    return payload | {"mood": payload["name"][:4], "languages": ["en", None, "en"]}


def test_local_revisions_are_run_once_after_the_release_s(empty_database_url, folder):
    engine = make_engine(empty_database_url, "anam")
    assert migrate(engine, "anam", local_dir=folder) == "local_0002"
    require_head(engine, "anam")
    assert "mood" in columns(engine, "anam.personas") & columns(engine, "anam_reporting.personas")
    assert "persona_languages" in str(tables_of(engine))
    before = catalog(engine)
    assert migrate(engine, "anam", local_dir=folder) == "local_0002"
    assert catalog(engine) == before
    # Without the folder they stay as they are, and the views show them.
    assert migrate(engine, "anam") == "local_0002"
    assert catalog(engine) == before


def test_without_the_folder_runs_fill_what_it_added(copying, engine, folder):
    with copying(count=4) as target:
        target.sync()
        target.world.reshape(speaking)
        target.sync()
        migrate(engine, "anam", local_dir=folder)
        rmtree(folder)
        target.replay()
        names = {row["name"][:4] for row in target.rows("personas")}
        assert {row["mood"] for row in target.rows("personas")} == names
        spoken = target.query("SELECT value FROM persona_languages ORDER BY persona_id, position")
        assert [row["value"] for row in spoken] == ["en", None, "en"] * 4
        one = target.world.persona_ids[0]
        target.world.edit(one, {"name": "Zoe!"})
        assert target.sync().counts["updated"] == 1
        assert target.persona(one)["mood"] == "Zoe!"
        assert target.verify().exit_code == 0
        shown = target.query("SELECT mood FROM anam_reporting.personas WHERE mood = 'Zoe!'")
        assert len(shown) == 1


def test_the_stamp_moves_with_the_local_history(engine, folder):
    seen = [stamp(engine)]
    for revision in ("local_0001", "local_0002", "base"):
        migrate(engine, "anam", local_dir=folder, local_to=revision)
        seen.append(stamp(engine))
    assert len(set(seen)) == 3
    assert seen[0] == seen[-1]


def test_a_local_revision_goes_down_and_up_without_a_trace(copying, engine, folder):
    with copying(count=4) as target:
        target.world.reshape(speaking)
        target.sync()
        made = [tables_of(engine), catalog(engine, "anam_reporting")]
        assert migrate(engine, "anam", local_dir=folder) == "local_0002"
        target.replay()
        assert migrate(engine, "anam", local_dir=folder, local_to="local_0001") == "local_0001"
        assert migrate(engine, "anam", local_dir=folder, local_to="base") == "base"
        assert [tables_of(engine), catalog(engine, "anam_reporting")] == made
        with alembic(engine) as config:
            command.check(config)
        # Nothing is lost: the values are in the documents, and in `extra` again.
        target.replay()
        assert {tuple(row["extra"]) for row in target.rows("personas")} == {("mood", "languages")}
        migrate(engine, "anam", local_dir=folder)
        target.replay()
        assert {row["extra"] for row in target.rows("personas")} == {None}
        assert {row["rank"] for row in target.rows("voices")} == {None}


def test_a_revision_that_a_view_stands_in_the_way_of_is_run(engine, folder):
    retype = """
    op.execute("ALTER TABLE personas ALTER mood TYPE bigint USING mood::bigint")
    op.execute("UPDATE local_columns SET type = 'bigint' WHERE column_name = 'mood'")"""
    migrate(engine, "anam", local_dir=folder)
    write(folder, 3, up=retype, down=retype.replace("bigint", "text"))
    migrate(engine, "anam", local_dir=folder)
    with engine.connect() as connection:
        kind = connection.scalar(sa.text("SELECT pg_typeof(mood)::text FROM personas LIMIT 1"))
        connection.execute(sa.text("SELECT mood FROM anam_reporting.personas"))
    assert kind in (None, "bigint")


def test_a_failing_revision_keeps_those_before_it_and_the_views(engine, folder, copied_checkout):
    """The release's and the first local one stay, and the views show what is there."""
    add_revision(
        copied_checkout,
        "op.execute('ALTER TABLE personas ALTER llm_id TYPE varchar')",
        "op.execute('ALTER TABLE personas ALTER llm_id TYPE text')",
    )
    file = write(folder, 2, [LANGUAGES], up="    op.execute(\"SELECT 1 / 0 AS 'canary'\")")
    with pytest.raises(DatabaseError, match=r"0002_columns.py: Postgres: .*; correct it, then run"):
        migrate(engine, "anam", local_dir=folder)
    assert (current_and_head(engine, "anam")[0], local(engine)) == ("later", "local_0001")
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT mood, llm_id FROM anam_reporting.personas"))
    write(folder, 2, [LANGUAGES], up=MAKE_LANGUAGES, down="    pass")
    assert file.exists()
    assert migrate(engine, "anam", local_dir=folder) == "local_0002"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told(empty_database_url, folder, code, says):
    engine = make_engine(empty_database_url, "anam")
    file = write(folder, 2)
    file.write_text(f"{file.read_text()}\n{code}\n")
    with pytest.raises(UsageError, match=f"0002_columns.py: {says}; correct it, then run again"):
        migrate(engine, "anam", local_dir=folder)
    require_head(engine, "anam")
    assert local(engine) == "base"
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT FROM anam_reporting.personas"))


def test_a_mistake_in_the_folder_is_told_before_anything_is_done(empty_database_url, folder):
    engine = make_engine(empty_database_url, "anam")
    for options, says in (
        ({"local_dir": next(folder.glob("*.py"))}, "name the folder of your revisions"),
        ({"local_dir": folder, "local_to": "local_0007"}, "local_0007: no revision in"),
        ({"local_to": "base"}, "name their folder in migrations.local_dir"),
    ):
        with pytest.raises(UsageError, match=says):
            migrate(engine, "anam", **options)
    assert "anam" not in str(catalog(engine))


def test_a_target_that_is_ahead_of_the_folder_is_left_as_it_is(engine, folder):
    migrate(engine, "anam", local_dir=folder)
    (folder / "20261123_local_0002_columns.py").unlink()
    before = catalog(engine)
    ahead = "is at local revision local_0002, which is not in .*; get its file from whoever ran it"
    with pytest.raises(DatabaseError, match=ahead):
        migrate(engine, "anam", local_dir=folder)
    assert catalog(engine) == before
    require_head(engine, "anam")


def test_a_busy_table_is_tried_again_for_a_local_revision(
    engine, database_url, folder, monkeypatch
):
    monkeypatch.setattr(migration, "_TABLE_LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migration, "_PAUSE_SECONDS", 0.1)
    with psycopg.connect(database_url) as session:
        session.execute("SELECT FROM anam.local_columns")
        with pytest.raises(DatabaseError, match="lock timeout; another session holds a lock"):
            migrate(engine, "anam", local_dir=folder)
        threading.Timer(0.3, session.rollback).start()
        assert migrate(engine, "anam", local_dir=folder) == "local_0002"


def test_the_release_does_not_go_down_below_a_local_history(engine, folder):
    """It would come up again without the lines, and say that there is nothing to run."""
    migrate(engine, "anam", local_dir=folder)
    with alembic(engine) as config, pytest.raises(sa.exc.DBAPIError, match="--local-to base` fir"):
        command.downgrade(config, "0001")
    migrate(engine, "anam", local_dir=folder, local_to="base")
    with alembic(engine) as config:
        command.downgrade(config, "base")
    assert migrate(engine, "anam", local_dir=folder) == "local_0002"


def test_a_local_history_of_somebody_else_is_left_alone(empty_database_url, engine, folder):
    empty = make_engine(empty_database_url, "anam")
    change(empty, "CREATE SCHEMA anam")
    change(empty, "CREATE TABLE anam.alembic_version_local (version_num text)")
    with pytest.raises(DatabaseError, match="schema anam has alembic_version_local already"):
        migrate(empty, "anam")
    change(engine, "CREATE TABLE alembic_version_local (version_num varchar(32) NOT NULL)")
    change(engine, "INSERT INTO alembic_version_local VALUES ('theirs')")
    with pytest.raises(DatabaseError, match="is at local revision theirs, which is not in"):
        migrate(engine, "anam", local_dir=folder)
    change(engine, "INSERT INTO alembic_version_local VALUES ('two')")
    with pytest.raises(DatabaseError, match="alembic_version_local has more than one row"):
        migrate(engine, "anam", local_dir=folder)


def test_a_line_that_is_none_is_told(engine):
    values = "('people', 'x', 'persona', 'x', 'text', '{}', 'x', 'by hand')"
    columns = "table_name, column_name, kind, path, type, json_types, comment, revision"
    change(engine, f"INSERT INTO local_columns ({columns}) VALUES {values}")
    with pytest.raises(DatabaseError, match=r"x is a member of what .*: people; correct the line"):
        migrate(engine, "anam")
    change(engine, "UPDATE local_columns SET table_name = 'personas', type = 'money'")
    with pytest.raises(DatabaseError, match=r"local_columns: .*money.*; correct the line"):
        migrate(engine, "anam")


@pytest.mark.parametrize(
    ("by_hand", "found"),
    [
        ("ALTER TABLE personas DROP mood CASCADE", "personas.mood is gone"),
        (
            "ALTER TABLE personas DROP mood CASCADE; ALTER TABLE personas ADD mood bigint",
            "personas.mood is bigint, but text",
        ),
        ("DROP TABLE persona_languages CASCADE", "persona_languages.value is gone"),
    ],
)
def test_a_column_that_is_not_as_its_line_says_is_told(copying, engine, folder, by_hand, found):
    migrate(engine, "anam", local_dir=folder)
    change(engine, by_hand)
    with copying(count=1) as target:
        target.is_corrupted = True
        for run_ in (target.sync, target.check, lambda: migrate(engine, "anam", local_dir=folder)):
            with pytest.raises(DatabaseError, match=rf"{found}.* in local_columns; put it back,"):
                run_()
        change(engine, "DELETE FROM local_columns")
        migrate(engine, "anam")
        target.sync()


# --- for a DBA


def script(engine: sa.Engine, folder: Path | None, local_to: str | None = None) -> str:
    with engine.connect() as connection:
        state = look_at_local(connection)
    since = current_and_head(engine, "anam")[0] or "base"
    return migrate_sql("anam", since=since, local_dir=folder, local_to=local_to, local_since=state)


def run(url: str, printed: str) -> None:
    with psycopg.connect(url, autocommit=True) as dba:
        dba.execute(printed.encode())


def test_the_script_does_what_migrate_does_from_wherever_it_starts(new_database, folder, template):
    """From nothing, from the head, from the first local revision, and down again."""
    for from_template, steps in (
        (None, [None]),
        (template, [None]),
        (template, ["local_0001", "local_0002", "local_0001", "base"]),
    ):
        built = []
        for by_script in (False, True):
            with new_database(from_template) as url:
                engine = make_engine(url, "anam")
                for step in steps:
                    if by_script:
                        run(url, script(engine, folder, step))
                    else:
                        migrate(engine, "anam", local_dir=folder, local_to=step)
                assert local(engine) == (steps[-1] or "local_0002")
                built.append(catalog(engine))
        assert built[0] ^ built[1] == set()


def test_a_script_says_where_both_histories_start(engine, folder):
    migrate(engine, "anam", local_dir=folder, local_to="local_0001")
    head = head_revision()
    first, second, _ = script(engine, folder).split("\n", 2)
    assert first.endswith(f"schema anam, {head} to {head}")
    assert second == "-- local history, local_0001 to local_0002"


def test_a_script_without_the_folder_keeps_what_it_added(engine, database_url, folder):
    migrate(engine, "anam", local_dir=folder)
    before = catalog(engine)
    run(database_url, script(engine, None))
    assert catalog(engine) == before


def test_a_script_for_another_state_of_the_local_history_does_nothing(engine, database_url, folder):
    stale = script(engine, folder)
    run(database_url, stale)
    before = catalog(engine)
    with pytest.raises(psycopg.errors.RaiseException, match="at revision local_0002, this script"):
        run(database_url, stale)
    assert catalog(engine) == before


def test_no_script_for_a_target_that_is_ahead_of_the_folder(engine, folder):
    migrate(engine, "anam", local_dir=folder)
    (folder / "20261123_local_0002_columns.py").unlink()
    with pytest.raises(DatabaseError, match="which is not in"):
        script(engine, folder)


# --- roles


def test_a_writer_that_was_granted_before_fills_what_a_local_revision_adds(
    new_role, copying, folder
):
    with copying(count=3) as target:
        role, engine = new_role(), make_engine(target.url, "anam")
        migrate(engine, "anam", writers=[role])
        target.world.reshape(speaking)
        migrate(engine, "anam", local_dir=folder)
        as_writer = as_role(target.url, role)
        assert look_at_schema(as_writer, "anam", "anam_reporting").lacking == []
        target.url = url_as(target.url, role)
        assert target.sync().counts["created"] == 3
        assert target.query("SELECT name FROM personas WHERE mood IS NULL") == []
        assert len(target.query("SELECT value FROM persona_languages")) == 9
        with as_writer.connect() as connection:
            assert look_at_local(connection).revision == "local_0002"
        for forbidden in ("alembic_version_local", "local_columns"):
            for verb in (f"DELETE FROM {forbidden}", f"TRUNCATE {forbidden}"):
                with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                    change(as_writer, verb)
        target.query(f'REVOKE DELETE ON persona_languages FROM "{role}"')
        assert look_at_schema(as_writer, "anam", "anam_reporting").lacking == [
            ("DELETE", "persona_languages")
        ]


def test_a_writer_that_is_granted_later_fills_what_a_local_revision_added(
    new_role, copying, folder
):
    with copying(count=3) as target:
        role, engine = new_role(), make_engine(target.url, "anam")
        migrate(engine, "anam", local_dir=folder)
        migrate(engine, "anam", local_dir=folder, writers=[role])
        target.world.reshape(speaking)
        target.url = url_as(target.url, role)
        assert target.sync().counts["created"] == 3
        with as_role(target.owners_url, role).connect() as connection:
            assert look_at_local(connection).revision == "local_0002"


# --- while others are at work


def test_readers_notice_no_local_revision(copying, engine, folder):
    """Columns that are added and taken away while the views are read, over and over."""
    done, reads = threading.Event(), [0, 0]
    errors: list[Exception] = []

    def read(number: int, view: str) -> None:
        with psycopg.connect(target.url, autocommit=True) as session:
            while not done.is_set():
                try:
                    session.execute(f"SELECT count(name) FROM anam_reporting.{view}".encode())
                except psycopg.Error as exc:
                    errors.append(exc)
                reads[number] += 1

    with copying(count=6) as target:
        target.world.reshape(speaking)
        target.sync()
        readers = [
            threading.Thread(target=read, args=(number, view))
            for number, view in enumerate(("personas", "persona_history"))
        ]
        for reader in readers:
            reader.start()
        try:
            migrate(engine, "anam", local_dir=folder)
        finally:
            done.set()
            for reader in readers:
                reader.join()
        assert errors == []
        assert min(reads) > 0
        target.replay()


MIGRATED = "the schema was migrated while this run was under way; what was done stays, run again"


@pytest.mark.parametrize("nth", [1, 8])
def test_a_run_stops_when_a_local_revision_comes_in_between(copying, engine, folder, nth):
    """As the API answers for the nth persona; before, batches may have been loaded."""
    asked: list[str] = []

    def migrating(payload):
        asked.append(payload["id"])
        if len(asked) == nth:
            migrate(engine, "anam", local_dir=folder)
        return speaking(payload)

    with copying(count=8) as target:
        target.world.reshape(migrating)
        summary = target.sync(API__CONCURRENCY="1")
        assert (summary.exit_code, str(summary.error)) == (6, MIGRATED)
        all_is_filled(target, 8)


def test_a_run_beside_a_local_revision_stops_or_finishes(copying, engine, folder):
    """Migrated from the moment that it has begun to load."""
    with copying(count=20, latency_seconds=0.05) as target:
        target.world.reshape(speaking)
        ended: list[tuple[int, str]] = []

        def copy() -> None:
            summary = target.sync(API__CONCURRENCY="2")
            ended.append((summary.exit_code, str(summary.error)))

        beside = threading.Thread(target=copy)
        beside.start()
        while not target.query("SELECT 1 FROM personas LIMIT 1"):
            assert beside.is_alive()
        migrate(engine, "anam", local_dir=folder)
        beside.join()
        assert ended in ([(0, "None")], [(6, MIGRATED)])
        all_is_filled(target, 20)


def all_is_filled(target: Target, count: int) -> None:
    """After a replay, as the new columns ask for one, and after another run."""
    target.replay()
    target.check_replay()
    assert target.sync().exit_code == 0
    assert len(target.rows("personas")) == count
    assert target.query("SELECT name FROM personas WHERE mood IS NULL") == []
