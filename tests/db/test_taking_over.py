"""Columns that a team added, and the release that maps their fields later: no value is lost."""

from __future__ import annotations

import runpy
from io import StringIO
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from etl.errors import DatabaseError
from etl.jobs.migrate import migrate, migrate_sql, run_past_views
from etl.jobs.revising import write_to_checkout, write_to_folder
from etl.store.mapped import read_map
from etl.store.revisions import head_revision
from tests.db.revisions import CHECKOUT, alembic, change, tables_of
from tests.unit.proposals import EVERY_HOME, EVERY_HOSTILE, EVERY_TYPE, NOW, listed, proposal

PERSONA = UUID(int=1)


@pytest.fixture
def checkout(copied_checkout):
    """A checkout that may be proposed into."""
    (copied_checkout / "etl" / "tables.py").write_bytes((CHECKOUT / "etl/tables.py").read_bytes())
    return copied_checkout


@pytest.fixture
def release(engine, checkout):
    """What writes, migrates and returns the revision of a release that maps these fields."""

    def map_(*proposals):
        written = write_to_checkout(proposals, checkout, NOW)
        migrate(engine, "anam")
        return written

    return map_


@pytest.fixture
def local(engine, tmp_path):
    """What writes a local revision of these fields and runs it, up or down."""

    def add(*proposals):
        written = write_to_folder(proposals, tmp_path / "local", NOW)
        return run_local(engine, written, "upgrade")

    change(engine, f"INSERT INTO personas (persona_id) VALUES ('{PERSONA}')")
    return add


def run_local(engine, written, direction):
    """Runs one revision of a local history, as `migrate` runs those of a release."""

    def run():
        with connection.begin():
            running(MigrationContext.configure(connection), written, direction)

    with engine.connect() as connection:
        run_past_views(connection, "anam", run)
    return written


def running(context, written, direction):
    module = runpy.run_path(str(written.files[0]))
    with Operations.context(context):
        module[direction]()


def lines(engine):
    """What is local: column and path."""
    with engine.connect() as connection:
        found = read_map(connection).lines
        rows = connection.execute(sa.text("SELECT table_name, column_name FROM local_columns"))
        assert len(rows.all()) == len(found)
    return {f"{line.table}.{line.column}": line.path for line in found}


def rows(engine, table):
    with engine.connect() as connection:
        return [
            {name: value for name, value in row.items() if value is not None}
            for row in connection.execute(sa.text(f'SELECT * FROM "{table}"')).mappings()
        ]


@pytest.mark.parametrize("proposals", [EVERY_TYPE, EVERY_HOME, EVERY_HOSTILE])
def test_a_local_revision_makes_what_its_lines_say_and_leaves_nothing(engine, local, proposals):
    before = tables_of(engine)
    written = local(*proposals)
    with engine.connect() as connection:
        the_map = read_map(connection)
        assert set(the_map.lines) == {each.line for each in proposals}
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, the_map.metadata)
        assert [d for d in differences if "alembic_version" not in str(d)] == []
    run_local(engine, written, "downgrade")
    assert tables_of(engine) ^ before == set()
    assert lines(engine) == {}


def test_a_local_revision_is_the_same_as_a_script(engine, tmp_path):
    printed = StringIO()
    written = write_to_folder([*EVERY_HOSTILE, *EVERY_HOME], tmp_path / "local", NOW)
    settings = {"as_sql": True, "literal_binds": True, "output_buffer": printed}
    offline = MigrationContext.configure(
        dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, opts=settings
    )
    running(offline, written, "upgrade")
    with engine.begin() as connection:
        connection.connection.driver_connection.execute(printed.getvalue().encode())
        by_script = set(read_map(connection).lines)
    made = tables_of(engine)
    run_local(engine, written, "downgrade")
    run_local(engine, written, "upgrade")
    assert tables_of(engine) ^ made == set()
    with engine.connect() as connection:
        assert set(read_map(connection).lines) == by_script


def test_what_the_release_has_already_is_left_to_it(engine, local, release):
    release(proposal(), listed())
    made = tables_of(engine)
    written = local(proposal(), listed(), proposal("new", "new"))
    assert lines(engine) == {"personas.new": "new"}
    run_local(engine, written, "downgrade")
    assert tables_of(engine) == made


def test_a_column_of_the_same_field_and_type_is_kept(engine, local, release):
    written = local(proposal(comment="Ours."), listed(comment="Ours."))
    change(engine, "UPDATE personas SET mood = 'good'")
    change(engine, f"INSERT INTO persona_languages VALUES ('{PERSONA}', 0, 'de')")
    taken = release(proposal(), listed())
    assert rows(engine, "personas") == [{"persona_id": PERSONA, "mood": "good"}]
    assert rows(engine, "persona_languages") == [
        {"persona_id": PERSONA, "position": 0, "value": "de"}
    ]
    assert lines(engine) == {}
    made = tables_of(engine)
    assert "Ours." not in str(made)
    # What was taken over is not local any more, and a release's downgrade drops it.
    run_local(engine, written, "downgrade")
    assert tables_of(engine) == made
    with alembic(engine) as config:
        command.downgrade(config, "-1")
    assert "mood" not in rows(engine, "personas")[0]
    with alembic(engine) as config:
        command.upgrade(config, taken.revision)
    assert tables_of(engine) == made


def test_on_another_type_the_local_column_stays_under_another_name(engine, local, release):
    local(proposal(), listed())
    change(engine, "UPDATE personas SET mood = '12'")
    change(engine, f"INSERT INTO persona_languages VALUES ('{PERSONA}', 0, '7')")
    release(proposal(type_="bigint"), listed(type_="bigint"))
    assert rows(engine, "personas") == [{"persona_id": PERSONA, "mood__local": "12"}]
    assert rows(engine, "persona_languages") == []
    assert rows(engine, "persona_languages__local")[0]["value"] == "7"
    assert lines(engine) == {}


def test_a_column_of_another_field_makes_room_and_stays_local(engine, local, release):
    written = local(
        proposal("oldMood"), listed("oldLanguages[]"), proposal("brain.a", "accent", table="brains")
    )
    change(engine, "UPDATE personas SET mood = 'good'")
    change(engine, f"INSERT INTO persona_languages VALUES ('{PERSONA}', 0, 'de')")
    release(proposal(), listed(), proposal("brain.accent", "accent", table="brains", type_="jsonb"))
    assert rows(engine, "personas") == [{"persona_id": PERSONA, "mood__local": "good"}]
    assert rows(engine, "persona_languages") == []
    assert rows(engine, "persona_languages__local")[0]["value"] == "de"
    assert lines(engine) == {
        "brains.accent__local": "brain.a",
        "persona_languages__local.value": "oldLanguages[]",
        "personas.mood__local": "oldMood",
    }
    # Its own revision still finds it.
    run_local(engine, written, "downgrade")
    assert "__local" not in str(tables_of(engine))


def test_a_local_column_of_the_same_field_under_another_name_is_put_aside(engine, local, release):
    local(proposal(column="our_mood"), listed(table="our_languages"))
    change(engine, "UPDATE personas SET our_mood = 'good'")
    change(engine, f"INSERT INTO our_languages VALUES ('{PERSONA}', 0, 'de')")
    release(proposal(), listed())
    assert rows(engine, "personas") == [{"persona_id": PERSONA, "our_mood__local": "good"}]
    assert rows(engine, "our_languages__local")[0]["value"] == "de"
    assert lines(engine) == {}


def test_a_name_that_is_not_free_leaves_what_is_not_in_the_way(engine, local, release):
    local(proposal(column="our_mood"))
    change(engine, "ALTER TABLE personas ADD our_mood__local text")
    change(engine, "UPDATE personas SET our_mood = 'good'")
    release(proposal())
    assert rows(engine, "personas") == [{"persona_id": PERSONA, "our_mood": "good"}]
    assert lines(engine) == {}


def test_the_second_column_of_a_field_that_changed_its_type_is_left_alone(engine, local, release):
    speed = proposal("skipGreeting", "skip_greeting_text", problem="type_changed")
    local(speed)
    change(engine, "UPDATE personas SET skip_greeting_text = 'fast'")
    release(proposal("skipGreeting", "skip_greeting_object", "jsonb", problem="type_changed"))
    assert lines(engine) == {"personas.skip_greeting_text": "skipGreeting"}
    release(speed)
    assert rows(engine, "personas") == [{"persona_id": PERSONA, "skip_greeting_text": "fast"}]
    assert lines(engine) == {}


def test_columns_that_change_places_lose_nothing(engine, local, release):
    local(proposal("a", "b"), proposal("b", "a"))
    change(engine, "UPDATE personas SET a = 'of b', b = 'of a'")
    release(proposal("a", "a"), proposal("b", "b"))
    assert set(rows(engine, "personas")[0].values()) == {PERSONA, "of a", "of b"}
    assert lines(engine) == {}


def test_a_local_column_that_somebody_dropped_is_made_anew(engine, local, release):
    local(proposal("x"), listed())
    change(engine, "ALTER TABLE personas DROP mood; DROP TABLE persona_languages")
    release(proposal(), listed())
    assert lines(engine) == {}
    assert rows(engine, "persona_languages") == []


@pytest.mark.parametrize(
    ("own", "proposed", "named"),
    [
        ("ALTER TABLE personas ADD mood text", proposal(), r"personas\.mood"),
        ("CREATE TABLE persona_languages ()", listed(), "persona_languages"),
        ("CREATE VIEW persona_languages AS SELECT 1 AS x", listed(), "persona_languages"),
    ],
)
def test_what_somebody_else_made_is_not_touched(engine, release, own, proposed, named):
    change(engine, own)
    before = tables_of(engine)
    told = f"{named} is there, made by neither a release nor a local revision; rename or drop"
    with pytest.raises(DatabaseError, match=told):
        release(proposed)
    assert tables_of(engine) == before


def test_as_a_script_the_release_takes_over_as_well(engine, database_url, local, checkout):
    local(proposal(), proposal("b", "b"))
    change(engine, "UPDATE personas SET mood = 'good', b = 'bad'")
    before = head_revision()
    write_to_checkout([proposal(), *EVERY_HOSTILE, *EVERY_HOME[:4]], checkout, NOW)
    with psycopg.connect(database_url, autocommit=True) as dba:
        dba.execute(migrate_sql("anam", since=before).encode())
    assert rows(engine, "personas") == [{"persona_id": PERSONA, "mood": "good", "b": "bad"}]
    assert lines(engine) == {"personas.b": "b"}
    made = tables_of(engine)
    with alembic(engine) as config:
        command.downgrade(config, before)
    migrate(engine, "anam")
    assert tables_of(engine) ^ made == set()
