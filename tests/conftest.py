"""A real Postgres for the tests: a server per worker, and for each test a fresh database.

The template that a test's database is cloned from is built by the migrations, never by
`create_all`. PERSONA_ETL_TEST_DATABASE_URL puts another server, and a role that may create
databases there, in the place of the embedded one.
"""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from etl.jobs.migrate import migrate
from etl.store.embedded import embedded_server
from etl.store.engine import make_engine

SCHEMA = "anam"
_SERVER = "PERSONA_ETL_TEST_DATABASE_URL"


def pytest_xdist_auto_num_workers():
    """Half as many again as processors: who waits for a process or a timeout leaves one idle."""
    has_affinity = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return processors * 3 // 2


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No setting, key or database of whoever runs the tests leaks into them."""
    for name in os.environ:
        if name.startswith(("PERSONA_ETL_", "ANAM_", "PG")) and name != _SERVER:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def server_url():
    """The URL of a server where databases may be created."""
    if _SERVER in os.environ:
        yield os.environ[_SERVER]
        return
    with (
        tempfile.TemporaryDirectory(dir=_fast_folder(), prefix="persona-etl-tests-") as folder,
        embedded_server(Path(folder), durable=False) as url,
    ):
        yield url


def _fast_folder() -> Path | None:
    """In memory, where there is room: a clone then takes 8 ms, on a disk 70 ms."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30:
        return memory
    return None


@pytest.fixture(scope="session")
def new_database(server_url):
    """What makes a database, empty or a clone, that is dropped when its `with` ends."""
    with psycopg.connect(server_url, autocommit=True) as admin:

        @contextmanager
        def create(template=None):
            name = f"persona_etl_{uuid4().hex}"
            clone = f' TEMPLATE "{template}" STRATEGY file_copy' if template else ""
            admin.execute(f'CREATE DATABASE "{name}"{clone}')
            try:
                yield _database_at(server_url, name)
            finally:
                admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

        yield create


def _database_at(url: str, name: str) -> str:
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def template(new_database):
    """The name of a database that the migrations built and nobody is connected to."""
    with new_database() as url:
        migrate(make_engine(url, SCHEMA), SCHEMA)
        yield sa.make_url(url).database


@pytest.fixture
def database_url(new_database, template):
    """A database of this test's own, with the schema `anam` at the head."""
    with new_database(template) as url:
        yield url


@pytest.fixture
def empty_database_url(new_database):
    """A database of this test's own, with nothing in it."""
    with new_database() as url:
        yield url


@pytest.fixture
def engine(database_url):
    engine = make_engine(database_url, SCHEMA)
    yield engine
    engine.dispose()


@pytest.fixture
def new_role(server_url):
    """What makes a role that may log in, by the password `p@ss`, and nothing else; its name.

    To be asked for before the database, which is dropped first then, with all the role owns.
    """
    made = []

    def create(prefix: str = "persona_etl") -> str:
        made.append(f"{prefix}_{uuid4().hex}")
        admin.execute(f"CREATE ROLE \"{made[-1]}\" LOGIN PASSWORD 'p@ss'")
        return made[-1]

    with psycopg.connect(server_url, autocommit=True) as admin:
        yield create
        for name in made:
            admin.execute(f'DROP ROLE "{name}"')


@pytest.fixture
def plain_role(database_url):
    """The URL of a role that may only log in, and what runs SQL about {role} and {db}."""
    url = sa.make_url(database_url)
    role = f"plain_{url.database}"
    names = {"role": sql.Identifier(role), "db": sql.Identifier(str(url.database))}
    with psycopg.connect(database_url, autocommit=True) as admin:

        def execute(statement: str) -> None:
            admin.execute(sql.SQL(statement).format(**names))

        execute("CREATE ROLE {role} LOGIN PASSWORD 'canary'")
        plain = url.set(username=role, password="canary")
        yield plain.render_as_string(hide_password=False), execute
        execute("DROP OWNED BY {role} CASCADE")
        execute("DROP ROLE {role}")
