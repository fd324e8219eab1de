"""What a role finds and may do, as `check` tells it."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from etl.store.access import look_at_schema, look_at_server, needed_privileges
from etl.store.engine import make_engine
from etl.tables import metadata
from tests.db.test_replay import leave_unfolded

EVERYTHING_NEEDED = [
    (privilege, table.name)
    for table in metadata.sorted_tables
    for privilege in needed_privileges(table)
]


@pytest.fixture
def run(plain_role):
    """Runs SQL as the owner, with {role} in it."""
    return plain_role[1]


@pytest.fixture
def role_url(plain_role):
    """The URL of a role that may do nothing but log in."""
    return plain_role[0]


def test_the_server_is_told(database_url):
    server = look_at_server(make_engine(database_url, "anam"))
    url = sa.make_url(database_url)
    assert (server.database, server.role) == (url.database, url.username)
    assert server.version.startswith(str(server.major))
    assert 15 <= server.major <= 18
    assert not server.read_only


def test_a_read_only_database_is_told(database_url):
    with psycopg.connect(database_url, autocommit=True) as owner:
        name = sql.Identifier(str(sa.make_url(database_url).database))
        setting = "ALTER DATABASE {} SET default_transaction_read_only = on"
        owner.execute(sql.SQL(setting).format(name))
    assert look_at_server(make_engine(database_url, "anam")).read_only


def test_the_owner_of_all_may_do_all(database_url):
    access = look_at_schema(make_engine(database_url, "anam"), "anam", "anam_reporting")
    assert (access.exists, access.has_tables, access.may_use) == (True, True, True)
    assert (access.may_migrate, access.lacking) == (True, [])


def test_a_schema_that_is_not_there_can_be_made_or_not(run, database_url, role_url):
    access = look_at_schema(make_engine(database_url, "other"), "other", "other_reporting")
    assert (access.exists, access.has_tables, access.may_migrate) == (False, False, True)
    access = look_at_schema(make_engine(role_url, "other"), "other", "other_reporting")
    assert (access.exists, access.has_tables, access.may_migrate) == (False, False, False)


def test_a_role_without_any_right_lacks_all_that_is_needed(role_url):
    access = look_at_schema(make_engine(role_url, "anam"), "anam", "anam_reporting")
    assert (access.exists, access.has_tables) == (True, True)
    assert (access.may_use, access.may_migrate) == (False, False)
    assert sorted(access.lacking) == sorted(EVERYTHING_NEEDED)


def test_to_make_tables_is_not_enough_to_migrate_those_of_another(run, role_url):
    run("GRANT ALL ON SCHEMA anam TO {role}")
    access = look_at_schema(make_engine(role_url, "anam"), "anam", "anam_reporting")
    assert (access.may_use, access.may_migrate) == (True, False)


def test_what_is_called_needed_is_enough_for_sync(copying, run, role_url):
    run("GRANT USAGE ON SCHEMA anam TO {role}")
    run("GRANT SELECT ON anam.alembic_version TO {role}")
    for privilege, table in EVERYTHING_NEEDED:
        run(f"GRANT {privilege} ON anam.{table} TO {{role}}")
    assert look_at_schema(make_engine(role_url, "anam"), "anam", "anam_reporting").lacking == []
    with copying(count=6, moving=True) as target:
        target.url = role_url
        gone, edited, bare, odd, *others = target.world.persona_ids
        avatar = target.world.shared_ids("avatars")[0]
        assert target.sync().counts["created"] == 6
        target.world.delete(gone)
        target.world.edit(edited, {"name": "Edited", "tools": [], "shareLinks": []})
        target.world.edit(bare, {"voiceDetectionOptions": None, "knowledge": [], "newField": 1})
        target.world.edit(odd, {"voiceSpeed": "fast"})
        target.world.edit(avatar, {"availableVersions": []}, "avatars")
        counts = target.sync([gone, edited, bare, odd, *others]).counts
        assert (counts["missing"], counts["updated"]) == (1, 3)
        leave_unfolded(target, edited)
        target.world.restore(gone)
        target.world.set_payload(odd, b"no")
        counts = target.sync().counts
        assert (counts["restored"], counts["rejected"]) == (2, 1)


@pytest.mark.parametrize(("privilege", "table"), [("DELETE", "persona_tools"), ("INSERT", "runs")])
def test_a_privilege_that_is_taken_away_is_named(run, role_url, privilege, table):
    run("GRANT USAGE ON SCHEMA anam TO {role}")
    run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA anam TO {role}")
    run(f"REVOKE {privilege} ON anam.{table} FROM {{role}}")
    assert look_at_schema(make_engine(role_url, "anam"), "anam", "anam_reporting").lacking == [
        (privilege, table)
    ]
