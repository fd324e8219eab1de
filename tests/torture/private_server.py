"""A Postgres that one test has for itself, to be stopped, killed and started again at one address.

Its cluster and its user are those of the embedded server; unlike that one it may go and come back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from etl.store.cluster import ROLE, create_cluster, installation, reachable_programs, server_user

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

PATIENCE_SECONDS = 60

# However we die, the pipe closes, and the server is stopped.
_SUPERVISOR = """
exec 3<&0
"$@" </dev/null 3<&- & server=$!
(read -r _ <&3; kill -QUIT "$server") & watcher=$!
wait "$server"
kill "$watcher" 2>/dev/null
"""
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    # Commits must outlive the server, which is killed; not the machine, which is not.
    "fsync": "off",
    "synchronous_commit": "on",
}


class PrivateServer:
    """A cluster in `data`; `folder` holds the socket and, where need be, the programs."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = data
        self.folder = folder
        self.user = server_user()
        self.programs = reachable_programs(installation(), folder, self.user)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            create_cluster(data, self.programs, self.user, lock, durable=False)
        finally:
            os.close(lock)
        self.url = f"postgresql://{ROLE}@/postgres?host={folder}&port=5432"

    def start(self) -> None:
        options = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        program = str(self.programs / "postgres")
        with (self.folder / "log").open("a") as log:
            self.supervisor = subprocess.Popen(
                [
                    *["/bin/sh", "-c", _SUPERVISOR, "private", program],
                    *["-D", self.user.data_argument(self.data)],
                    *[f"--unix_socket_directories={self.folder}", *options],
                ],
                cwd=self.data,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self.user.uid,
                group=self.user.gid,
                extra_groups=self.user.groups,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Until it lets us in: after a crash it recovers first."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                assert self.is_up, (self.folder / "log").read_text()
                time.sleep(0.01)
            else:
                return

    @property
    def is_up(self) -> bool:
        return self.supervisor.poll() is None

    def restart(self, how: signal.Signals) -> None:
        """As `pg_ctl restart`: SIGQUIT is its mode immediate, SIGINT its mode fast."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, how)
        self.wait_for_the_end()
        self.start()

    def wait_for_the_end(self) -> None:
        with self.supervisor:
            self.supervisor.wait(PATIENCE_SECONDS)

    def backends(self, database: str) -> list[int]:
        """The processes of all sessions in a database but the one that asks."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = %s ORDER BY pid", [database]
            )
            return [pid for (pid,) in found]

    def is_used(self, database: str, *, by_others_than: int) -> bool:
        return self.backends(database) != [by_others_than]

    def file_of(self, url: str, table: str) -> Path:
        """Where the rows of a table are."""
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT pg_relation_filepath(%s)", [f"anam.{table}"])
            ((path,),) = found.fetchall()
        return self.data / str(path)


@contextmanager
def private_server(data: Path | None = None) -> Iterator[PrivateServer]:
    """Running for the length of the block; `data` is where, else it is in a temporary folder."""
    # Not pytest's own: the path of a socket has at most 107 bytes, and the server's user, who is
    # not always ourselves, has to get there.
    folder = Path(tempfile.mkdtemp(prefix="persona-etl-torture-", dir="/tmp"))
    try:
        server = PrivateServer(data or folder / "data", folder)
        try:
            server.start()
            yield server
        finally:
            # Leaving a Popen's `with` closes the pipe first, then waits.
            with server.supervisor:
                pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)
