"""Every way in which libpq finds its server, the whole job over each."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from tests.system.conftest import PASSWORD
from tests.system.server import OURSELVES

# The URL, and what is in the environment besides; {…} stand for what the server was given.
WAYS = {
    "TCP": ("postgresql://{user}:{password}@127.0.0.1:{port}/{db}", {}),
    "the short scheme": ("postgres://{user}:{password}@localhost:{port}/{db}", {}),
    "as parameters": (
        "postgresql:///{db}?host=127.0.0.1&port={port}&user={user}&password={password}",
        {},
    ),
    "PGPASSWORD": ("postgresql://{user}@127.0.0.1:{port}/{db}", {"PGPASSWORD": PASSWORD}),
    "PGPASSFILE": ("postgresql://{user}@127.0.0.1:{port}/{db}", {"PGPASSFILE": "{home}/.pgpass"}),
    "the passfile at home": ("postgresql://{user}@127.0.0.1:{port}/{db}", {}),
    "a passfile as parameter": (
        "postgresql://{user}@127.0.0.1:{port}/{db}?passfile={home}/.pgpass",
        {"HOME": "/nowhere"},
    ),
    "a service": ("postgresql://?service=ours", {"PGSERVICEFILE": "{home}/services"}),
    "PGSERVICE": (
        "postgresql://",
        {"PGSERVICEFILE": "{home}/services", "PGSERVICE": "ours"},
    ),
    "libpq's environment": (
        "postgresql://",
        {
            "PGHOST": "127.0.0.1",
            "PGPORT": "{port}",
            "PGUSER": "{plain_user}",
            "PGDATABASE": "{plain_db}",
            "PGPASSWORD": PASSWORD,
        },
    ),
    "several hosts": (
        (
            "postgresql://{user}:{password}@127.0.0.1:1,localhost:{port}/{db}"
            "?target_session_attrs=read-write"
        ),
        {},
    ),
    "a socket": ("postgresql://{user}:{password}@/{db}?host={folder}&port={port}", {}),
    "a socket in the authority": ("postgresql://{user}:{password}@{socket}:{port}/{db}", {}),
    "a socket in PGHOST": (
        "postgresql:///{db}",
        {"PGHOST": "{folder}", "PGPORT": "{port}", "PGUSER": "{plain_user}"},
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_whole_job_runs_over(way, server, database, job, tmp_path):
    # There a backslash goes before itself and before a colon.
    escaped = re.sub(r"([\\:])", r"\\\1", PASSWORD)
    (tmp_path / ".pgpass").write_text(f"*:*:*:*:{escaped}\n")
    (tmp_path / ".pgpass").chmod(0o600)
    (tmp_path / "services").write_text(
        f"[ours]\nhost=localhost\nport={server.port}\n"
        f"dbname={database.name}\nuser={database.owner}\npassword={PASSWORD}\n"
    )
    values = {
        "user": quote(database.owner),
        "plain_user": database.owner,
        "password": quote(PASSWORD, safe=""),
        "port": server.port,
        "db": quote(database.name),
        "plain_db": database.name,
        "folder": server.folder,
        "socket": quote(str(server.folder), safe=""),
        "home": tmp_path,
    }
    url, environment = WAYS[way]
    found = {name: text.format(**values) for name, text in environment.items()}
    job.copies(url.format(**values), **found)
    assert database.execute("SELECT count(*) FROM anam.personas") == [(3,)]


def test_the_operating_systems_user_is_enough_on_a_socket(server, database, job):
    database.execute("CREATE ROLE {us} LOGIN", us=OURSELVES)
    database.execute("ALTER DATABASE {db} OWNER TO {us}", us=OURSELVES)
    try:
        job.copies(f"postgresql:///{quote(database.name)}?host={server.folder}&port={server.port}")
    finally:
        database.execute("REASSIGN OWNED BY {us} TO postgres", us=OURSELVES)
        database.execute("ALTER DATABASE {db} OWNER TO {owner}")
        database.execute("DROP ROLE {us}", us=OURSELVES)
