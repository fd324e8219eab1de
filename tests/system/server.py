"""Servers made of Debian's packages: Postgres with TLS and all ways to log in, and PgBouncer.

Each has its data in a temporary folder and a free port, so that a cluster which the packages
started is left alone. As a program it runs a command that finds such a server's URL in
PERSONA_ETL_TEST_DATABASE_URL: `python -m tests.system.server COMMAND…`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PASSWORD = "secret"
OURSELVES = pwd.getpwuid(os.geteuid()).pw_name

# Who may log in, and how: by the role. The first line that fits counts.
PG_HBA = f"""
local     all {OURSELVES}           peer
hostssl   all certified   127.0.0.1/32  cert
hostnossl all tls_only    127.0.0.1/32  reject
host      all outsider    127.0.0.1/32  reject
local     all all                       scram-sha-256
host      all all         127.0.0.1/32  scram-sha-256
host      all all         ::1/128       scram-sha-256
"""

SETTINGS = {
    "listen_addresses": "localhost",
    # Its life ends with the test's: nothing has to reach the disk.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "100",
    "password_encryption": "scram-sha-256",
}


def programs() -> Path:
    """The folder of the newest Postgres that the packages brought."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max(found, key=lambda path: int(path.parts[-3])).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Server:
    """A running Postgres, whose superuser is `postgres` with PASSWORD."""

    folder: Path
    port: int

    def url(self, database: str = "postgres") -> str:
        """The superuser's URL, over TCP."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that the servers' user may pass through; in memory where there is room."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    with tempfile.TemporaryDirectory(
        dir=memory if roomy else "/tmp", prefix="persona-etl-system-"
    ) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def owned(path: Path) -> Path:
    """`path`, given to the user whom the servers run as: neither of them runs as root."""
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")
    return path


def as_server_user(command: Sequence[str]) -> list[str]:
    """The command, and what of `setpriv` stands before it, run as that user."""
    become = ["--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *become, *command]


@contextmanager
def running_process(
    command: Sequence[str], log: Path, stop: signal.Signals = signal.SIGINT
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground, until the `with` ends; `stop` ends it, whoever is connected."""
    with log.open("wb") as written:
        process = subprocess.Popen(
            # However we end, it ends.
            as_server_user([f"--pdeathsig={stop.name[3:]}", *command]),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            cwd="/",
            # A Ctrl-C is for pytest, which still needs the server to wind up.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(stop)
        process.wait(60)


def wait_until_answering(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.02)
        else:
            return


def create_cluster(data: Path) -> None:
    password = data.with_name("password")
    password.write_text(PASSWORD)
    data.mkdir(mode=0o700)
    owned(data)
    command = [str(programs() / "initdb"), f"--pgdata={data}", f"--pwfile={password}", "--no-sync"]
    chosen = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
    subprocess.run(as_server_user([*command, *chosen]), check=True, capture_output=True, cwd="/")
    (data / "pg_hba.conf").write_text(PG_HBA)


@contextmanager
def running_server(folder: Path, **settings: str) -> Iterator[Server]:
    """A server on the data in `folder`, which is made if there is none; its sockets are there."""
    data = owned(folder) / "data"
    if not data.exists():
        create_cluster(data)
    server = Server(folder, free_port())
    chosen = SETTINGS | settings
    options = [f"--{name}={value}" for name, value in chosen.items()]
    options += [f"--port={server.port}", f"--unix_socket_directories={folder}"]
    log = folder / "log"
    command = [str(programs() / "postgres"), "-D", str(data), *options]
    with running_process(command, log) as process:
        wait_until_answering(server.url(), process, log)
        yield server


@contextmanager
def running_pgbouncer(server: Server, **settings: str) -> Iterator[int]:
    """A PgBouncer before `server`, with its defaults but for `settings`; yields its port."""
    folder = server.folder / f"pgbouncer-{uuid4().hex}"
    folder.mkdir()
    port = free_port()
    chosen = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "auth_type": "scram-sha-256",
        # Users need no list: their secrets are read where Postgres keeps them.
        "auth_user": "postgres",
        "auth_file": str(folder / "users"),
        **settings,
    }
    (folder / "users").write_text(f'"postgres" "{PASSWORD}"\n')
    (folder / "ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in chosen.items())
    )
    log = folder / "log"
    command = ["/usr/sbin/pgbouncer", str(folder / "ini")]
    with running_process(command, log, signal.SIGTERM) as process:
        wait_until_answering(
            f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres", process, log
        )
        yield port


def main(command: list[str]) -> int:
    """Run the command beside a server."""
    with ExitStack() as stack:
        server = stack.enter_context(running_server(stack.enter_context(private_folder())))
        environment = os.environ | {"PERSONA_ETL_TEST_DATABASE_URL": server.url()}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
