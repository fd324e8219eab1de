"""The units of cron/: systemd finds nothing wrong with them, and runs them as process 1."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from etl.jobs.migrate import migrate
from etl.sandbox import Fault, running_sandbox
from etl.settings import load_settings
from etl.store.engine import make_engine
from etl.store.lock import WriterLock
from tests.system.installed import CHECKOUT, PROGRAM, install, rooted
from tests.system.manual import typed
from tests.system.server import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etl.sandbox import Sandbox
    from tests.system.installed import Machine
    from tests.system.server import Server

UNITS = sorted(
    path for path in (CHECKOUT / "cron").iterdir() if path.suffix in {".service", ".timer"}
)
SERVICE = CHECKOUT / "cron/persona-etl.service"
# Where Debian's packages have theirs.
THEIRS = Path("/usr/lib/systemd/system")
# What a machine without hardware needs of them.
KEPT = """basic.target network-online.target network.target paths.target shutdown.target
    slices.target sockets.target sysinit.target systemd-journald.service systemd-journald.socket
    systemd-journald-dev-log.socket timers.target umount.target"""


# --- as they are written


def verified(folder: Path, change: str = "", instead: str = "") -> str:
    """What systemd says against the timer and what it leads to; it exits 0 for most of it."""
    shutil.copytree(THEIRS, folder / THEIRS.relative_to("/"), symlinks=True)
    for program in (PROGRAM, "/bin/sh"):
        file = folder / program[1:]
        file.parent.mkdir(parents=True)
        file.touch(mode=0o755)
    units = folder / "etc/systemd/system"
    units.mkdir(parents=True)
    for unit in UNITS:
        text = unit.read_text()
        (units / unit.name).write_text(text.replace(change, instead) if change else text)
    command = ["systemd-analyze", f"--root={folder}", "verify", *(unit.name for unit in UNITS)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_systemd_finds_nothing_wrong(tmp_path):
    assert verified(tmp_path) == ""


@pytest.mark.parametrize(
    ("change", "instead", "told"),
    [
        ("\nUMask=", "\nUmask=", "Unknown key"),
        ("=4h", "=4 horses", "Failed to parse"),
        (":07/30", ":77/30", "Failed to parse calendar"),
        ("/bin/persona-etl -q", "/bin/personaetl -q", "is not executable"),
    ],
)
def test_systemd_finds_what_is_wrong(change, instead, told, tmp_path):
    assert told in verified(tmp_path, change, instead)


def exposure(unit: Path) -> int:
    """How the security review of a unit ends: 1 when it is more exposed than 1.1 of 10."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=11", str(unit)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_the_service_is_hardened():
    assert exposure(SERVICE) == 0


def test_a_service_less_hardened_is_noticed(tmp_path):
    less = tmp_path / SERVICE.name
    less.write_text(SERVICE.read_text().replace("\nNoNewPrivileges=true", ""))
    assert exposure(less) == 1


def test_the_settings_of_the_service_are_ours(tmp_path):
    assignments = re.findall(r"^Environment=(\w+)=(.*)$", SERVICE.read_text(), re.MULTILINE)
    environ = {name: value.replace("%d", str(tmp_path)) for name, value in assignments}
    assert environ.pop("PERSONA_ETL_CONFIG") == "/etc/persona-etl/persona-etl.toml"
    (tmp_path / "api-key").write_text("the-key")
    (tmp_path / "api-key").chmod(0o400)
    key = load_settings(environ, cwd=tmp_path).require_key()
    assert key.get_secret_value() == "the-key"


# --- as systemd runs them

KEY = "key-of-the-canary"
FAILED = "persona-etl-failed.service"
SENDMAIL = """#!/bin/sh
cat >/tmp/mail
"""


@contextmanager
def booted(layer: Path, sockets: Path) -> Iterator[Machine]:
    """A machine whose process 1 is systemd, which has hardly any of Debian's units."""
    keep = " -o ".join(f"-name {name}" for name in KEPT.split())
    boot = f"""
        cd {THEIRS} && find . -type f ! \\( {keep} \\) -delete
        rm -rf /etc/systemd/system /usr/lib/systemd/system-generators /etc/machine-id
        mkdir /etc/systemd/system
        mount --make-rshared /
        exec /lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=no
    """
    binds = {sockets: "/run/postgresql", CHECKOUT / "cron": "/src/cron"}
    command = ["sh", "-euc", boot]
    with rooted(layer, command, binds=binds, environ={"container": "test"}) as machine:
        deadline = time.monotonic() + 30
        while "running" not in machine.run("sh", "-c", "systemctl is-system-running 2>&1 || :"):
            assert time.monotonic() < deadline, machine.run("systemctl", "list-jobs")
            time.sleep(0.05)
        # What Debian does as it boots: the journal's group may read it.
        machine.run("systemd-tmpfiles", "--create", "--prefix=/run/log")
        yield machine


@pytest.fixture(scope="module")
def api() -> Iterator[Sandbox]:
    with running_sandbox(count=3, moving=False, key=KEY) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def database(server: Server) -> Iterator[str]:
    """The URL of a database with our tables, for all tests here."""
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE units")
        migrate(make_engine(server.url("units"), "anam"), "anam")
        yield server.url("units")
        admin.execute("DROP DATABASE units WITH (FORCE)")


@pytest.fixture(scope="module")
def machine(server, database, api, tmp_path_factory) -> Iterator[Machine]:
    """One where the units were installed as the manual says."""
    layer = tmp_path_factory.mktemp("layer")
    install(layer)
    settings = layer / "etc/persona-etl"
    settings.mkdir(parents=True)
    (settings / "api-key").write_text(f"{KEY}\n")
    (settings / "pg_service.conf").write_text(
        f"[persona-etl]\nhost=/run/postgresql\nport={server.port}\n"
        f"dbname=units\nuser=postgres\npassword={PASSWORD}\n"
    )
    (settings / "persona-etl.toml").write_text(
        f'[api]\nbase_url = "{api.url}"\n[personas]\ndiscover = true\n'
        '[database]\nurl = "postgresql://?service=persona-etl"\n'
    )
    mail = layer / "usr/sbin/sendmail"
    mail.parent.mkdir(parents=True)
    mail.write_text(SENDMAIL)
    mail.chmod(0o755)
    with booted(layer, server.folder) as running:
        running.run("mkdir", "-p", "/var/lib/node_exporter/textfile")
        # What systemd said is shown if one of the commands fails.
        begin = "trap 'journalctl --no-pager' EXIT; cd /src\n"
        running.run("sh", "-euxc", begin + typed("### systemd")[0])
        # Else it would start one of its own while a test looks.
        running.run("systemctl", "stop", "persona-etl.timer")
        running.run("chown", "persona-etl", "/var/lib/node_exporter/textfile")
        yield running


def properties(machine: Machine, *names: str, unit: str = "persona-etl.service") -> list[str]:
    return [machine.run("systemctl", "show", "--value", "-p", name, unit).strip() for name in names]


def last_run(database: str) -> tuple[object, ...] | None:
    with psycopg.connect(database) as session:
        statement = "SELECT command, status FROM anam.runs ORDER BY started_at DESC LIMIT 1"
        return session.execute(statement).fetchone()


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_manual_installs_a_service_that_copies(machine, database):
    assert properties(machine, "Result", "ExecMainStatus") == ["success", "0"]
    assert last_run(database) == ("sync", "succeeded")


def test_the_timer_is_on_and_waits_for_its_next_moment(machine):
    assert machine.run("systemctl", "is-enabled", "persona-etl.timer") == "enabled\n"
    machine.run("systemctl", "start", "persona-etl.timer")
    wanted = ("NextElapseUSecRealtime", "Unit")
    (due, unit) = properties(machine, *wanted, unit="persona-etl.timer")
    machine.run("systemctl", "stop", "persona-etl.timer")
    assert re.fullmatch(r"\w{3} \d{4}-\d\d-\d\d \d\d:(0[7-9]|1[0-2]|3[7-9]|4[0-2]):\d\d \w+", due)
    assert unit == "persona-etl.service"


def test_no_secret_is_shown_to_who_asks_systemd(machine):
    told = machine.run("systemctl", "show", "persona-etl.service")
    told += machine.run("journalctl", "--no-pager", "-u", "persona-etl.service")
    assert "api-key" in told
    assert KEY not in told
    assert f"password={PASSWORD}" not in told


def test_a_run_beside_another_is_no_failure(machine, database):
    with WriterLock(database, "anam", command="backfill", run_id=uuid4()):
        machine.run("systemctl", "start", "persona-etl.service")
    assert properties(machine, "Result", "ExecMainStatus") == ["success", "75"]
    assert last_run(database) == ("sync", "skipped")
    assert "/tmp/mail" not in machine.run("find", "/tmp")


def test_a_run_that_is_stopped_ends_in_good_order_and_is_no_failure(machine, database, api):
    api.order(Fault(delay_seconds=60))
    try:
        machine.run("systemctl", "start", "--no-block", "persona-etl.service")
        wait_until(lambda: last_run(database) == ("sync", "running"))
        machine.run("systemctl", "stop", "persona-etl.service")
    finally:
        api.clear_faults()
    assert properties(machine, "Result", "ExecMainStatus") == ["success", "143"]
    assert last_run(database) == ("sync", "interrupted")
    assert "/tmp/mail" not in machine.run("find", "/tmp")


def test_a_failed_run_is_told_by_mail(machine, database, api):
    api.order(Fault(status=401, times=9))
    try:
        machine.run("systemctl", "start", "persona-etl.service", code=1)
        wait_until(lambda: properties(machine, "ActiveState", unit=FAILED) == ["inactive"])
    finally:
        api.clear_faults()
    assert properties(machine, "Result", "ExecMainStatus") == ["exit-code", "4"]
    assert last_run(database) == ("sync", "failed")
    head, body = machine.run("cat", "/tmp/mail").split("\n\n", 1)
    assert head.startswith("To: root\nSubject: persona-etl on ")
    assert head.endswith(": exit-code 4")
    assert body.startswith("persona-etl: error: ")
    assert body.endswith("More: persona-etl runs last; journalctl -u persona-etl.service\n")
    machine.run("rm", "/tmp/mail")


def test_who_is_told_to_stop_for_taking_too_long_has_failed(machine):
    """143 is a success only where somebody stopped it."""
    endless = 'trap "exit 143" TERM; sleep 60 & wait'
    with changed(machine, f"ExecStart=\nExecStart=/bin/sh -c '{endless}'\nTimeoutStartSec=200ms"):
        machine.run("systemctl", "start", "persona-etl.service", code=1)
    assert properties(machine, "Result", "ExecMainStatus") == ["timeout", "143"]


def test_a_run_can_write_its_metrics_and_nothing_else(machine):
    tried = [
        "/var/lib/node_exporter/textfile",
        "/var/cache",
        "/opt/persona-etl",
        "/etc/persona-etl",
    ]
    touch = "; ".join(f"touch {folder}/of-the-run" for folder in tried)
    look = "cat /proc/self/status; ls /root"
    with changed(
        machine, f"ExecStart=\nExecStart=/bin/sh -c '{touch}; touch /tmp/of-the-run; {look}'"
    ):
        machine.run("systemctl", "start", "persona-etl.service", code=1)
    told = machine.run("journalctl", "--no-pager", "--output=cat", "-u", "persona-etl.service")
    assert told.count("Read-only file system") == 3
    assert "cannot open directory '/root'" in told
    assert re.search(r"^Seccomp:\s2$", told, re.MULTILINE)
    assert re.search(r"^CapBnd:\s0+$", told, re.MULTILINE)
    found = machine.run("find", *tried, "/tmp", "-name", "of-the-run").split()
    assert found == ["/var/lib/node_exporter/textfile/of-the-run"]


@contextmanager
def changed(machine: Machine, drop_in: str) -> Iterator[None]:
    """The service with something said otherwise, as `systemctl edit` does it."""
    folder = "/run/systemd/system/persona-etl.service.d"
    machine.run("mkdir", "-p", folder)
    machine.run("sh", "-c", f"cat >{folder}/changed.conf <<'EOF'\n[Service]\n{drop_in}\nEOF")
    machine.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        machine.run("rm", "-r", folder)
        machine.run("systemctl", "daemon-reload")
