"""What a role must be allowed, and schemas of any name."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from tests.system.conftest import create_role

ODD = 'Équipe "A" %s; --'


def in_schema(name: str) -> dict[str, str]:
    return {"PERSONA_ETL_DATABASE__SCHEMA": name}


def test_an_owner_of_the_schemas_alone_is_enough(database, job):
    """The DBA made both; nothing may be created beside them."""
    database.execute("ALTER DATABASE {db} OWNER TO postgres")
    database.execute("REVOKE ALL ON DATABASE {db} FROM PUBLIC")
    database.execute("GRANT CONNECT ON DATABASE {db} TO {owner}")
    for schema in ("anam", "anam_reporting"):
        database.execute("CREATE SCHEMA {schema} AUTHORIZATION {owner}", schema=schema)
    job.copies(database.url())
    database.execute("DROP OWNED BY {owner} CASCADE")


def test_who_may_not_create_the_schema_is_told_what_to_grant(database, job):
    database.execute("ALTER DATABASE {db} OWNER TO postgres")
    line = job.fails(database.url(), "migrate")
    assert "may not create schema" in line
    assert "grant the privilege to the role in database.url" in line


@pytest.mark.parametrize("schema", [ODD, "MixedCase", "a b", "naïve"])
def test_a_schema_may_have_any_name(schema, database, job):
    job.copies(database.url(), **in_schema(schema))
    tables = database.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'personas'")
    assert tables == [(schema,)]


def test_two_schemas_are_filled_side_by_side(database, job):
    first, second, third = job.api.persona_ids
    asked = {"anam": [first, second], "other": [third]}
    for schema in asked:
        done = job.run("migrate", url=database.url(), **in_schema(schema))
        assert (done.returncode, done.stderr) == (0, "")
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "etl", "-q", "sync", *ids],
            cwd=job.folder,
            env=job.environment(database.url(), **in_schema(schema)),
        )
        for schema, ids in asked.items()
    ]
    assert [run.wait(60) for run in runs] == [0, 0]
    for schema, ids in asked.items():
        found = database.execute(
            "SELECT persona_id::text FROM {schema}.personas ORDER BY 1", schema=schema
        )
        assert [persona_id for (persona_id,) in found] == sorted(ids)


@pytest.fixture
def writer(database, job):
    """A role that owns nothing: it may read and write the tables that `migrate` made."""
    assert job.run("migrate", url=database.url()).returncode == 0
    name = f"writer of {database.name}"
    create_role(database, name)
    database.execute("REVOKE ALL ON DATABASE {db} FROM PUBLIC")
    database.execute("GRANT CONNECT ON DATABASE {db} TO {role}", role=name)
    database.execute("GRANT USAGE ON SCHEMA anam TO {role}", role=name)
    database.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA anam TO {role}", role=name
    )
    yield name
    database.execute("DROP OWNED BY {role}", role=name)
    database.execute("DROP ROLE {role}", role=name)


def test_a_writer_that_owns_nothing_runs_the_job(writer, database, job):
    assert job.synced(database.url(user=writer))["created"] == 3
    assert job.synced(database.url(user=writer))["unchanged"] == 3


def test_a_writer_can_not_change_the_tables(writer, database, job):
    url = database.url(user=writer)
    assert "may not create schema" in job.fails(url, "migrate", **in_schema("elsewhere"))
    with (
        psycopg.connect(url, autocommit=True) as session,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        session.execute("ALTER TABLE anam.personas ADD COLUMN mine text")


def test_the_sql_for_a_dba_makes_what_the_job_needs(database, job):
    written = job.run("migrate", "--sql", url=database.url())
    assert (written.returncode, written.stderr) == (0, "")
    psql = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", database.url()]
    done = subprocess.run(psql, input=written.stdout, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "already" in job.run("migrate", url=database.url()).stdout
    assert job.synced(database.url())["created"] == 3
