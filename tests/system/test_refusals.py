"""A server that won't have us: one line that says why, where and what next, and exit 6."""

from __future__ import annotations

from urllib.parse import quote

from tests.system.conftest import create_role
from tests.system.server import private_folder, running_server


def test_a_wrong_password_is_told_without_it(database, job):
    url = f"postgresql://{quote(database.owner)}:wrong-password@127.0.0.1:{database.port}/db"
    line = job.fails(url)
    assert f'at 127.0.0.1:{database.port}/db: password authentication failed for user "ow' in line
    assert line.endswith("; check the user and password in database.url")
    assert "wrong-password" not in line


def test_no_password_is_told(database, job):
    line = job.fails(f"postgresql://{quote(database.owner)}@127.0.0.1:{database.port}/db")
    assert "no password supplied; put the password into database.url, PGPASSWORD or" in line


def test_the_wrong_user_of_the_operating_system_is_told(server, database, job):
    line = job.fails(f"postgresql:///postgres?host={server.folder}&port={server.port}")
    assert "create the role, or correct the user" in line


def test_a_user_that_pg_hba_keeps_out_is_told(database, job):
    create_role(database, "outsider")
    try:
        line = job.fails(database.url(user="outsider"))
    finally:
        database.execute("DROP ROLE outsider")
    assert "pg_hba.conf rejects connection" in line
    assert "let this user in from here, in the server's pg_hba.conf" in line


def test_a_server_in_recovery_is_told_to_be_no_primary(job):
    with private_folder() as folder:
        with running_server(folder) as server:
            job.copies(server.url())
        (folder / "data" / "standby.signal").touch()
        with running_server(folder, hot_standby="on") as server:
            told = "read-only transaction; point database.url at the primary"
            assert told in job.fails(server.url())
            elsewhere = {"PERSONA_ETL_DATABASE__SCHEMA": "elsewhere"}
            assert told in job.fails(server.url(), "migrate", **elsewhere)
            primary = f"{server.url()}?target_session_attrs=read-write"
            assert "must lead to the primary" in job.fails(primary)
