"""A Debian server with databases to order, a stand-in API, and the job as cron would start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from etl.sandbox import running_sandbox
from tests.system.certificates import issue_all
from tests.system.server import private_folder, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from etl.sandbox import Sandbox
    from tests.system.server import Server

# What a URL, a shell and a password file each hold dear.
PASSWORD = "p%41@s:s/w o?r#d'\"\\ä€"


@dataclass(frozen=True)
class Database:
    """A database of a test's own, its owner, who is no superuser, and a way to look inside."""

    name: str
    owner: str
    port: int
    admin: psycopg.Connection[Any]

    def url(self, parameters: str = "", *, user: str | None = None, host: str = "127.0.0.1") -> str:
        """The URL of the owner, or of another role with the same password."""
        login = f"{quote(user or self.owner)}:{quote(PASSWORD, safe='')}"
        return f"postgresql://{login}@{host}:{self.port}/{quote(self.name)}{parameters}"

    def execute(self, statement: str, **names: str) -> list[tuple[Any, ...]]:
        """SQL as a superuser; `names` are quoted into it, as are {db} and {owner}."""
        known = {"db": self.name, "owner": self.owner, **names}
        quoted = {name: sql.Identifier(value) for name, value in known.items()}
        cursor = self.admin.execute(sql.SQL(statement).format(**quoted))
        return cursor.fetchall() if cursor.description else []


@dataclass(frozen=True)
class Job:
    """persona-etl in a process of its own, which finds nothing set but what it is given."""

    api: Sandbox
    folder: Path

    def run(
        self, *arguments: str, url: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "etl", *arguments],
            cwd=self.folder,
            env=self.environment(url, **environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def environment(self, url: str, **environment: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "ANAM_API_URL": self.api.url,
            "ANAM_API_KEY": self.api.key,
            "PERSONA_ETL_DATABASE__URL": url,
            "PERSONA_ETL_PERSONAS__IDS": ",".join(self.api.persona_ids),
            **environment,
        }

    def copies(self, url: str, **environment: str) -> None:
        """Migrates and syncs, and both go well."""
        migrated = self.run("migrate", url=url, **environment)
        assert (migrated.returncode, migrated.stderr) == (0, "")
        assert self.synced(url, **environment)["created"] == len(self.api.persona_ids)

    def synced(self, url: str, **environment: str) -> dict[str, int]:
        """What a sync that went well counted."""
        done = self.run("sync", "--json", url=url, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        counts: dict[str, int] = json.loads(done.stdout)["counts"]
        return counts

    def fails(self, url: str, *arguments: str, code: int = 6, **environment: str) -> str:
        """The one line that a command, else `sync`, ends with; it never has the password."""
        done = self.run(*(arguments or ("sync",)), url=url, **environment)
        assert done.returncode == code, done.stdout + done.stderr
        for secret in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD)):
            assert secret not in done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("persona-etl: error: ")
        return line


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One for all tests of a worker. Its certificates are in its folder."""
    with private_folder() as folder:
        issue_all(folder)
        yield from running_with_tls(folder)


def running_with_tls(folder: Path) -> Iterator[Server]:
    names = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl_ca_file": "ca.crt"}
    files = {setting: str(folder / name) for setting, name in names.items()}
    with running_server(folder, ssl="on", **files) as running:
        yield running


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    """An empty database that belongs to a plain role."""
    unique = uuid4().hex[:12]
    with psycopg.connect(server.url(), autocommit=True) as admin:
        made = Database(f"personas {unique}", f"owner {unique}", server.port, admin)
        create_role(made, made.owner)
        made.execute("CREATE DATABASE {db} OWNER {owner}")
        with psycopg.connect(server.url(quote(made.name)), autocommit=True) as inside:
            yield Database(made.name, made.owner, made.port, inside)
        made.execute("DROP DATABASE {db} WITH (FORCE)")
        made.execute("DROP ROLE {owner}")


def create_role(database: Database, name: str) -> None:
    """A role that may log in with PASSWORD, and nothing else."""
    statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
    database.admin.execute(statement.format(sql.Identifier(name), sql.Literal(PASSWORD)))


@pytest.fixture(scope="session")
def api() -> Iterator[Sandbox]:
    with running_sandbox(count=3, moving=False) as sandbox:
        yield sandbox


@pytest.fixture
def job(api: Sandbox, tmp_path: Path) -> Job:
    return Job(api, tmp_path)
