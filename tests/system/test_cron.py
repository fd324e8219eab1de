"""Debian's cron runs the job as docs/operations.md installs it, and mails what a person should see.

The daemon is our own and lives in a mount namespace: there /etc is a copy, and /opt, /run, /var/lib
and cron's spool are empty folders, so that the lines of the manual can be typed as they stand.
"""

from __future__ import annotations

import email.policy
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

import pytest
from click.testing import CliRunner

from etl.cli.main import cli
from etl.jobs.migrate import migrate
from etl.store.engine import make_engine
from etl.store.lock import WriterLock
from tests.system.conftest import PASSWORD
from tests.system.installed import CHECKOUT, require_root
from tests.system.manual import typed

if TYPE_CHECKING:
    from etl.sandbox import Sandbox

CRONTAB = CHECKOUT / "cron" / "persona-etl.crontab"

MOUNTED = {
    "etc": "/etc",
    "opt": "/opt",
    "var-lib": "/var/lib",
    "run": "/run",
    "crontabs": "/var/spool/cron/crontabs",
}
# What these lines of the manual fetch is here already.
FETCHING = ("apt-get ", "python3 -m venv ", "/opt/persona-etl/bin/pip ")
# Jobs of @reboot run when cron starts, as all others do when their minute comes: nobody has to
# wait for one. The manual's `sed` looks for lines that begin with a digit.
AT_ONCE = "0 0 1 1 *"


def crontab_with(*lines: str) -> str:
    """The crontab with other lines in the place of its last three, which are about the job."""
    *before, jitter, lock, job = CRONTAB.read_text(encoding="utf-8").splitlines()
    assert jitter.startswith("CRON_JITTER=")
    assert lock == "CRON_LOCK=/var/lib/persona-etl/sync.lock"
    assert job.endswith(" * * * * persona-etl-cron -q sync")
    return "\n".join([*before, *lines, ""])


def filled_in(url: str, api: Sandbox, **more: str) -> str:
    """The example of an environment file, as a person would fill it in."""
    text = (CHECKOUT / "cron" / "persona-etl.env").read_text(encoding="utf-8")
    for name, value in {"ANAM_API_KEY": api.key, "PERSONA_ETL_DATABASE__URL": url}.items():
        text, found = re.subn(f"(?m)^#?{name}=.*$", lambda _: f"{name}={value}", text)  # noqa: B023  called at once
        assert found == 1
    return text + "".join(f"{name}='{value}'\n" for name, value in more.items())


@dataclass(frozen=True)
class Machine:
    """Folders in the place of a machine's own, and the cron that lives with them."""

    root: Path

    def write(self, name: str, text: str) -> Path:
        file = self.root / name
        file.write_text(text, encoding="utf-8")
        return file

    def run(self, script: str, until: list[str]) -> str:
        """What a script prints that becomes cron; its jobs have ended then.

        `until` are the files, below the root, that are there when all jobs have begun.
        """
        mounts = [f"mount --bind {self.root / name} {at}" for name, at in MOUNTED.items()]
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-eu", self.write("script", "\n".join([*mounts, script]))],
            cwd=CHECKOUT,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and not all((self.root / name).exists() for name in until):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.terminate()
        # Cron's children, one a job, hold what it prints to until they have sent their mail.
        printed, _ = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGTERM), printed
        return printed

    def mails(self) -> list[EmailMessage]:
        parser = BytesParser(_class=EmailMessage, policy=email.policy.default)
        files = (self.root / "mails").iterdir()
        return [parser.parsebytes(file.read_bytes()) for file in files]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    require_root()
    for name in (*MOUNTED, "mails", "sbin"):
        (tmp_path / name).mkdir()
    subprocess.run(["cp", "-a", "/etc/.", tmp_path / "etc"], check=True)
    # No jobs but ours.
    shutil.rmtree(tmp_path / "etc" / "cron.d")
    (tmp_path / "etc" / "cron.d").mkdir()
    (tmp_path / "etc" / "crontab").unlink()
    shutil.chown(tmp_path / "crontabs", group="crontab")
    (tmp_path / "crontabs").chmod(0o1730)
    # The daemon, and what it hands its mail to: a machine need not have a sendmail.
    shutil.copy("/usr/sbin/cron", tmp_path / "sbin")
    made = Machine(tmp_path)
    stub = made.write("sbin/sendmail", f"#!/bin/sh\ncat >$(mktemp {tmp_path}/mails/XXXXXX)\n")
    stub.chmod(0o755)
    return made


def test_installed_by_the_manual_cron_mails_what_a_person_should_see(machine, database, api):
    """One cron runs all there is to see: each start of the job costs most of a second."""
    here = machine.root
    url = database.url()
    no_such = url.replace(quote(database.name), quote("Équipe"))
    at_the_api = {"ANAM_API_URL": api.url}
    other = {"PERSONA_ETL_DATABASE__SCHEMA": "other", **at_the_api}
    machine.write("right.env", filled_in(url, api, **at_the_api))
    machine.write("wrong.env", filled_in(no_such, api, **at_the_api))
    machine.write("other.env", filled_in(url, api, **other))
    # A crontab's lines are started in one order or its reverse: all are when both its ends are.
    ends = [f"persona-etl/started-{number}" for number in range(4)]
    first, second, third, fourth = (f"{AT_ONCE} touch /var/lib/{name}" for name in ends)
    machine.write(
        "users.crontab",
        crontab_with(
            first,
            "CRON_JITTER=1",
            "CRON_LOCK=/var/lib/persona-etl/sync.lock",
            f"{AT_ONCE} persona-etl-cron -q sync",
            'CRON_LOCK=""',
            "CRON_ENV_FILE=/etc/persona-etl/wrong.env",
            f"{AT_ONCE} persona-etl-cron -q sync",
            "CRON_ENV_FILE=/etc/persona-etl/other.env",
            f"{AT_ONCE} persona-etl-cron -q status --max-age 3h",
            second,
        ),
    )
    machine.write(
        "systems.crontab",
        crontab_with(
            third,
            "CRON_LOCK=/var/lib/persona-etl/held.lock",
            f"{AT_ONCE} persona-etl-cron -q sync",
            'CRON_LOCK=""',
            "CRON_ENV_FILE=/etc/persona-etl/other.env",
            f"{AT_ONCE} persona-etl-cron -q sync",
            fourth,
        ),
    )
    install, by_hand = typed("## Install")
    as_a_users, as_the_systems = typed("### cron")
    fetching = [line for line in install.splitlines() if line.startswith(FETCHING)]
    assert len(fetching) == len(FETCHING)
    script = f"""\
        mkdir -p /opt/persona-etl/bin
        ln -s {shlex.quote(sys.prefix)}/bin/persona-etl /opt/persona-etl/bin/
        {"".join(line for line in install.splitlines(keepends=True) if line[:-1] not in fetching)}
        cd /etc/persona-etl
        install -m 600 -o persona-etl {here}/wrong.env {here}/other.env .
        cat {here}/right.env >persona-etl.env
        sed -i 's/^#discover = false/discover = true/' persona-etl.toml
        runuser -u persona-etl -- cat persona-etl.env persona-etl.toml >/dev/null
        runuser -u persona-etl -- touch /var/lib/persona-etl/held.lock
        # The checkout may be where only root can go.
        usermod --non-unique --uid 0 persona-etl
        chown persona-etl /etc/persona-etl/*.env
        cd "$OLDPWD"

        {by_hand}
        # As they are shipped cron takes them; what is theirs comes in their place.
        {as_a_users}
        {as_the_systems}
        {as_a_users.replace("cron/persona-etl.crontab", f"{here}/users.crontab")}
        {as_the_systems.replace("cron/persona-etl.crontab", f"{here}/systems.crontab")}
        sed -i 's/^0 0 1 1 [*]/@reboot/' /etc/cron.d/persona-etl /var/spool/cron/crontabs/*
        mount --bind {here}/sbin /usr/sbin
        exec flock --no-fork {here}/var-lib/persona-etl/held.lock cron -f
    """
    migrate(make_engine(url, "other"), "other")
    with WriterLock(url, "other", command="sync", run_id=uuid4()):
        printed = machine.run(script, [f"var-lib/{name}" for name in ends])
    # By hand: migrated, all well, and copied.
    assert "\nwrong " not in printed
    assert "\nsync succeeded " in printed
    assert database.execute("SELECT status, created FROM anam.runs ORDER BY started_at") == [
        ("succeeded", 3),
        ("succeeded", 0),
    ]
    assert database.execute("SELECT status FROM other.runs") == [("skipped",)]
    # Neither the job that went well sent one, nor those that met a lock.
    mails = machine.mails()
    host = os.uname().nodename.partition(".")[0]
    told = {str(mail["Subject"]): mail.get_content() for mail in mails}
    assert told.keys() == {
        f"Cron <persona-etl@{host}> persona-etl-cron -q sync",
        f"Cron <persona-etl@{host}> persona-etl-cron -q status --max-age 3h",
    }
    of_the_age, of_the_job = (told[subject] for subject in sorted(told))
    assert of_the_job == (
        f'persona-etl: error: Postgres at 127.0.0.1:{database.port}/Équipe: database "Équipe" does'
        " not exist; create the database, or correct its name in database.url\n"
    )
    assert "\npersona-etl: error: not as fresh as 3 h: no sync has been completed" in of_the_age
    for mail in mails:
        assert mail["To"] == "oncall@example.com"
        assert api.key not in mail.as_string()
        assert quote(PASSWORD, safe="") not in mail.as_string()


def test_the_crontab_serves_as_a_file_of_the_system_too():
    _, as_the_systems = typed("### cron")
    command, _, file = as_the_systems.partition(">")
    assert "." not in Path(file).name  # Debian's cron reads none that has one.
    command_line = ["/bin/sh", "-c", command]
    made = subprocess.run(command_line, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    before = CRONTAB.read_text(encoding="utf-8")
    jobs = re.findall(r"^#?[0-9*@].*$", before, re.MULTILINE)
    assert [line for line in made.stdout.splitlines() if line not in before.splitlines()] == [
        job.replace(" persona-etl-cron", " persona-etl persona-etl-cron") for job in jobs
    ]


@pytest.mark.parametrize("behind", ["report", "replay --check", "prune", "sync", "status"])
def test_what_the_crontab_starts_is_a_command_of_ours(behind):
    """Also the lines that wait for somebody to take their # off."""
    crontab = CRONTAB.read_text(encoding="utf-8")
    lines = re.findall(r"^#?[0-9]\S* .* persona-etl-cron (.*)$", crontab, re.MULTILINE)
    meant = [line for line in lines if behind in line]
    assert meant
    for line in meant:
        # What is typed wrong is found before any help is given.
        assert CliRunner().invoke(cli, [*shlex.split(line), "--help"]).exit_code == 0


def test_no_line_of_the_crontab_has_what_cron_takes_for_a_newline():
    assert "%" not in CRONTAB.read_text(encoding="utf-8")
