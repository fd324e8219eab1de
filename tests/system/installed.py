"""persona-etl as it is installed, in a root file system that only its processes see.

Needs root: `rooted` mounts it. Below /opt/persona-etl is the wheel, below /opt/python our Python.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CHECKOUT = Path(__file__).parents[2]
PROGRAM = "/opt/persona-etl/bin/persona-etl"
# What its processes don't share with us, as unshare has it; and that they end with it.
_OWN = ("mount", "pid", "cgroup", "uts", "ipc", "fork", "kill-child")
_PACKAGES = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


@dataclass(frozen=True)
class Machine:
    """A root of its own, and the process tree that lives in it."""

    process: subprocess.Popen[str]

    @property
    def first(self) -> int:
        """Its process 1, by the number that it has out here.

        Raises ProcessLookupError when it has ended.
        """
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while self.process.poll() is None:
                if started := children.read_text().split():
                    return int(started[0])
                time.sleep(0.01)
        raise ProcessLookupError(self.process.args)

    def run(self, *command: str, code: int = 0) -> str:
        """What a command beside process 1 printed; it ends with `code`."""
        done = subprocess.run(
            ["nsenter", f"--target={self.first}", "--all", "--root", "--wdns=/", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout


def require_root() -> None:
    """Fails the test of anybody else; a skipped one would be missed by nobody."""
    if os.geteuid() != 0:
        pytest.fail("this test mounts folders and starts daemons: run make test-system as root")


def install(layer: Path) -> None:
    """Puts the wheel, and a virtual environment around it, where an installation has them."""
    home = layer / "opt/persona-etl"
    packages = home / _PACKAGES
    packages.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as built:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built]
        subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
        (wheel,) = Path(built).iterdir()
        zipfile.ZipFile(wheel).extractall(packages)
    # As pip does it; else each start would compile all of it.
    compileall.compile_dir(packages, quiet=1)
    (packages / "dependencies.pth").write_text("/opt/packages\n")
    (home / "pyvenv.cfg").write_text("home = /opt/python/bin\n")
    (home / "bin").mkdir()
    python = Path(sys.executable).resolve().name
    (home / "bin/python").symlink_to(f"/opt/python/bin/{python}")
    program = layer / PROGRAM[1:]
    program.write_text("#!/opt/persona-etl/bin/python\nfrom etl.cli.main import main\n\nmain()\n")
    program.chmod(0o755)
    libraries = layer / "etc/ld.so.conf.d/0-python.conf"
    libraries.parent.mkdir(parents=True)
    libraries.write_text("/opt/python/lib\n")


@contextlib.contextmanager
def rooted(
    layer: Path,
    command: Sequence[str],
    *,
    binds: Mapping[Path, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Machine]:
    """The command as process 1 over `layer`; it is killed at the end, with all that it started."""
    require_root()
    where = {
        Path(sys.base_prefix): "/opt/python",
        Path(sysconfig.get_path("purelib")): "/opt/packages",
        **(binds or {}),
    }
    with tempfile.TemporaryDirectory() as scratch, own_cgroup() as enter:
        machine = Machine(
            subprocess.Popen(
                ["sh", "-c", f'{enter}exec "$@"', "sh"]
                + ["unshare", *(f"--{what}" for what in _OWN)]
                + [str(Path(__file__).with_name("rooted")), scratch, str(layer)]
                + [f"{source}:{target}" for source, target in where.items()]
                + ["--", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(environ or {})},
            )
        )
        try:
            yield machine
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(machine.first, signal.SIGKILL)
            machine.process.communicate(timeout=20)


@contextlib.contextmanager
def own_cgroup() -> Iterator[str]:
    """Shell code that enters a group of processes of its own, which systemd then rules."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    folder = next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)
    if folder is None:
        yield ""
        return
    group = Path(tempfile.mkdtemp(prefix="persona-etl-", dir=folder))
    try:
        yield f"echo $$ >{group}/cgroup.procs; "
    finally:
        inside = [Path(path) for path, _, _ in os.walk(group, topdown=False)]
        deadline = time.monotonic() + 20
        while inside and time.monotonic() < deadline:
            try:
                inside[0].rmdir()
            except OSError:
                # The kernel takes its time over processes that were killed.
                time.sleep(0.01)
            else:
                inside.pop(0)
