"""Where the tables may be, and what a role needs."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from etl.errors import DatabaseError
from etl.jobs.migrate import migrate
from etl.store.engine import make_engine

ODD = 'Team "A" %s; --'


def test_sync_works_in_a_schema_of_any_name(copying, empty_database_url):
    migrate(make_engine(empty_database_url, ODD), ODD)
    with copying(count=4, url=empty_database_url, schema=ODD) as target:
        assert target.sync().counts["created"] == 4
        gone, edited, *others = target.world.persona_ids
        target.world.delete(gone)
        target.world.edit(edited, {"name": "Edited", "shareLinks": []})
        counts = target.sync([gone, edited, *others]).counts
        assert (counts["missing"], counts["updated"]) == (1, 1)
        assert target.persona(edited)["name"] == "Edited"


def test_two_schemas_of_one_database_know_nothing_of_each_other(copying, database_url):
    migrate(make_engine(database_url, "second"), "second")
    with copying(count=4) as one, copying(count=3, seed=2, schema="second") as two:
        one.sync()
        before = one.dump()
        assert two.sync().counts["created"] == 3
        assert one.dump() == before
        assert len(two.rows("personas")) == 3
        two.sync(two.world.persona_ids)
        assert one.sync().counts["unchanged"] == 4


@pytest.fixture
def as_a_mere_writer(database_url):
    """The URL of a role that owns nothing and may only read and write the tables."""
    url = sa.make_url(database_url)
    role = f"writer_{url.database}"
    grants = (
        "CREATE ROLE {role} LOGIN PASSWORD 'canary-password'",
        "GRANT USAGE ON SCHEMA anam TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA anam TO {role}",
        "REVOKE CREATE, TEMPORARY ON DATABASE {database} FROM PUBLIC",
    )
    names = {"role": sql.Identifier(role), "database": sql.Identifier(str(url.database))}
    with psycopg.connect(database_url, autocommit=True) as owner:
        for grant in grants:
            owner.execute(sql.SQL(grant).format(**names))
        yield url.set(username=role, password="canary-password").render_as_string(
            hide_password=False
        )
        owner.execute(sql.SQL("DROP OWNED BY {role}").format(**names))
        owner.execute(sql.SQL("DROP ROLE {role}").format(**names))


def test_reading_and_writing_is_all_that_a_role_must_be_allowed(copying, as_a_mere_writer):
    with copying(count=6) as target:
        target.url = as_a_mere_writer
        gone, edited, *others = target.world.persona_ids
        assert target.sync().counts["created"] == 6
        target.world.delete(gone)
        target.world.edit(edited, {"name": "Edited", "tools": [], "shareLinks": []})
        counts = target.sync([gone, edited, *others]).counts
        assert (counts["missing"], counts["updated"]) == (1, 1)


def test_a_privilege_that_is_missing_is_named(copying, as_a_mere_writer):
    with copying(count=2) as target:
        target.query("REVOKE INSERT ON brains FROM PUBLIC")
        role = sa.make_url(as_a_mere_writer).username
        target.query(f'REVOKE INSERT ON brains FROM "{role}"')
        target.url = as_a_mere_writer
        summary = target.sync()
        assert (summary.status, summary.exit_code) == ("failed", 6)
        assert "permission denied for table brains; grant" in str(summary.error)
        target.query(f'GRANT INSERT ON brains TO "{role}"')
        assert target.sync().counts["created"] == 2


def test_sync_before_migrate_says_so_and_leaves_nothing(copying, empty_database_url):
    with copying(count=1, url=empty_database_url) as target:
        target.is_corrupted = True
        with pytest.raises(DatabaseError, match="run `persona-etl migrate`") as caught:
            target.sync()
        assert caught.value.exit_code == 6
        assert target.reports == []
        assert target.query("SELECT 1 FROM pg_tables WHERE schemaname = 'anam'") == []
    assert target.sandbox.requests.total == 0
