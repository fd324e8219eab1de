"""TLS as libpq does it: whom we trust, whom the server trusts, and what is said otherwise."""

from __future__ import annotations

import shutil
from urllib.parse import quote

import pytest

from tests.system.conftest import create_role


@pytest.fixture
def ca(server):
    return f"{server.folder}/ca.crt"


@pytest.fixture
def other_ca(server):
    return f"{server.folder}/other_ca.crt"


@pytest.fixture
def tls_only(database):
    """A role that the server lets in over TLS alone."""
    create_role(database, "tls_only")
    database.execute("ALTER DATABASE {db} OWNER TO tls_only")
    yield "tls_only"
    database.execute("ALTER DATABASE {db} OWNER TO {owner}")
    database.execute("DROP OWNED BY tls_only CASCADE")
    database.execute("DROP ROLE tls_only")


def test_a_role_that_needs_tls_gets_it_unasked(tls_only, database, job):
    job.copies(database.url(user=tls_only))


def test_an_encrypted_session_can_be_required(tls_only, database, job):
    job.copies(database.url("?sslmode=require", user=tls_only))


def test_who_turns_tls_off_is_told_where_it_is_required(tls_only, database, job):
    line = job.fails(database.url("?sslmode=disable", user=tls_only))
    assert "pg_hba.conf rejects connection" in line
    assert "no encryption; set sslmode=require" in line


def test_the_servers_certificate_is_verified_against_a_ca_in_the_url(database, job, ca):
    parameters = f"?sslmode=verify-full&sslrootcert={ca}"
    job.copies(database.url(parameters, host="localhost"))


def test_the_servers_certificate_is_verified_against_a_ca_in_the_environment(database, job, ca):
    url = database.url(host="localhost")
    job.copies(url, PGSSLMODE="verify-full", PGSSLROOTCERT=ca)


def test_a_ca_at_home_is_found(database, job, ca, tmp_path):
    (tmp_path / ".postgresql").mkdir()
    shutil.copy(ca, tmp_path / ".postgresql" / "root.crt")
    job.copies(database.url("?sslmode=verify-full", host="localhost"))


def test_without_a_ca_there_is_nothing_to_verify_against(database, job):
    line = job.fails(database.url("?sslmode=verify-full", host="localhost"))
    assert "root certificate file" in line
    assert "set sslrootcert" in line


def test_a_certificate_of_another_ca_is_refused(database, job, other_ca):
    line = job.fails(database.url(f"?sslmode=verify-ca&sslrootcert={other_ca}"))
    assert f"127.0.0.1:{database.port}/{database.name}: " in line
    assert "certificate verify failed; set sslrootcert" in line


def test_a_certificate_for_another_host_is_refused(database, job, ca):
    line = job.fails(database.url(f"?sslmode=verify-full&sslrootcert={ca}"))
    assert 'certificate for "localhost" ' in line
    assert 'does not match host name "127.0.0.1"; write the host as' in line


@pytest.fixture
def certified(database):
    """A role that logs in with the client certificate alone."""
    database.execute("CREATE ROLE certified LOGIN")
    database.execute("ALTER DATABASE {db} OWNER TO certified")
    yield f"postgresql://certified@localhost:{database.port}/{quote(database.name)}"
    database.execute("ALTER DATABASE {db} OWNER TO {owner}")
    database.execute("DROP OWNED BY certified CASCADE")
    database.execute("DROP ROLE certified")


@pytest.fixture
def client(server):
    return {"cert": f"{server.folder}/client.crt", "key": f"{server.folder}/client.key"}


def test_a_client_certificate_in_the_url_logs_in(certified, job, ca, client):
    parameters = f"?sslmode=verify-full&sslrootcert={ca}"
    job.copies(f"{certified}{parameters}&sslcert={client['cert']}&sslkey={client['key']}")


def test_a_client_certificate_in_the_environment_logs_in(certified, job, client):
    job.copies(certified, PGSSLMODE="require", PGSSLCERT=client["cert"], PGSSLKEY=client["key"])


def test_a_client_certificate_that_is_missing_is_told(certified, job):
    line = job.fails(f"{certified}?sslmode=require")
    assert "certificate; set sslcert and sslkey" in line


def test_a_key_that_others_may_read_is_told(certified, job, client, tmp_path):
    shutil.copy(client["key"], tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    line = job.fails(f"{certified}?sslmode=require&sslcert={client['cert']}&sslkey={tmp_path}/key")
    assert "private key file" in line
    assert "check sslcert and sslkey" in line
