"""Debian's cron runs the job as docs/operations.md installs it, and mails what a person should see.

The daemon is our own and lives in a mount namespace: there /etc is a copy, and /opt, /run, /var/lib
and cron's spool are empty folders, so that the lines of the manual can be typed as they stand.
"""

from __future__ import annotations

import email.policy
import fcntl
import json
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
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.jobs.migrate import migrate
from etl.store.engine import make_engine
from etl.store.lock import WriterLock
from tests.system.conftest import PASSWORD

if TYPE_CHECKING:
    from etl.sandbox import Sandbox

CHECKOUT = Path(__file__).parents[2]
WRAPPER = CHECKOUT / "cron" / "persona-etl-cron"
CRONTAB = CHECKOUT / "cron" / "persona-etl.crontab"
MANUAL = CHECKOUT / "docs" / "operations.md"


# Style that would make them harder to read: braces around each variable, and a word about each
# command in a substitution whose failure shows in what it prints.
STYLE = "SC2250,SC2312"


def shell_files() -> list[Path]:
    """All files of the checkout that a shell runs, by their first line."""
    found = []
    for folder, folders, names in os.walk(CHECKOUT):
        at_top = Path(folder) == CHECKOUT
        folders[:] = [
            name
            for name in folders
            if not (Path(folder, name) / "pyvenv.cfg").exists()
            and (name == ".ci" or not (at_top and name.startswith(".")))
        ]
        for file in (Path(folder, name) for name in names):
            with file.open("rb") as opened:
                if re.match(rb"#!.*\b(sh|bash|dash)\b", opened.readline(100)):
                    found.append(file)
    return found


def test_shellcheck_has_nothing_to_say():
    files = shell_files()
    assert {WRAPPER, CHECKOUT / ".ci" / "run", CHECKOUT / "tests/system/install"} <= set(files)
    command = ["shellcheck", "--enable=all", f"--exclude={STYLE}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# --- the wrapper, before a program that only says how it was started ---

SAYS = """#!/bin/sh
printf '%s' "${TOLD-}" >&2
printf '%s\\n' "$*"
eval "${DOES-}"
exit "${CODE-0}"
"""


@dataclass(frozen=True)
class Wrapper:
    """It is in a folder whose name has a blank, with a stand-in for persona-etl beside it."""

    folder: Path

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Under what `env -i` leaves: not even a PATH or a HOME."""
        return subprocess.run(
            [self.folder / WRAPPER.name, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def settings(self, text: str, mode: int = 0o600) -> str:
        """The path of an environment file."""
        file = self.folder / "settings.env"
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        file.chmod(mode)
        return str(file)


@pytest.fixture(scope="module")
def wrapper(tmp_path_factory) -> Wrapper:
    folder = tmp_path_factory.mktemp("a folder")
    shutil.copy(WRAPPER, folder)
    program = folder / "persona-etl"
    program.write_text(SAYS)
    program.chmod(0o755)
    return Wrapper(folder)


def test_the_job_is_a_quiet_sync_unless_another_command_is_given(wrapper):
    assert wrapper.run().stdout == "-q sync\n"
    assert wrapper.run("report", "--since", "2 d").stdout == "report --since 2 d\n"


def environment_of(wrapper: Wrapper, text: str) -> dict[str, str]:
    """What an environment file of this text sets."""
    shows = (
        f"{shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    )
    done = wrapper.run(CRON_ENV_FILE=wrapper.settings(text), DOES=shows)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, str] = json.loads(done.stdout.partition("\n")[2])
    return found


def test_an_environment_file_is_read_and_nothing_in_it_is_run(wrapper, tmp_path):
    text = f"""\
        # a comment, and an empty line
        \t
        PLAIN=a=b#c"d'e%2F
        export EXPORTED=yes
        DOUBLE="two words # and $HOME `id` \\ "
        SINGLE='$(touch {tmp_path}/run) " ; touch {tmp_path}/run'
        EMPTY=
        EMPTY_TOO=""
        TWICE=one
        TWICE=two
        LAST=without a newline""".replace("LAST=without a newline", "LAST=unended")
    for ends in ("\n", "\r\n", "  \r\n"):
        found = environment_of(wrapper, text.replace("\n", ends))
        assert found["PLAIN"] == "a=b#c\"d'e%2F"
        assert found["EXPORTED"] == "yes"
        assert found["DOUBLE"] == "two words # and $HOME `id` \\ "
        assert found["SINGLE"] == f'$(touch {tmp_path}/run) " ; touch {tmp_path}/run'
        assert (found["EMPTY"], found["EMPTY_TOO"]) == ("", "")
        assert (found["TWICE"], found["LAST"]) == ("two", "unended")
    assert list(tmp_path.iterdir()) == []


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r'"))


@settings(max_examples=5, deadline=None)
@given(values=st.lists(VALUES, min_size=100, max_size=200))
def test_what_stands_in_single_quotes_arrives_as_it_is(wrapper, values):
    expected = {f"VALUE_{number}": value for number, value in enumerate(values)}
    text = "".join(f"{name}='{value}'\n" for name, value in expected.items())
    found = environment_of(wrapper, text)
    assert {name: value for name, value in found.items() if name in expected} == expected


@pytest.mark.parametrize(
    "line",
    [
        "canary",
        "canary sk=1",
        "KEY = canary",
        "1KEY=canary",
        "KEY=canary # of staging",
        'KEY="canary',
        "KEY='canary' # of staging",
        "KEY='it's canary'",
        "KEY+=canary",
        "A-B=canary",
        "=canary",
    ],
)
def test_a_line_that_could_be_misread_is_refused_and_not_shown(line, wrapper):
    file = wrapper.settings(f"# one\nTWO=2\n{line}\n")
    done = wrapper.run(CRON_ENV_FILE=file)
    told = f"persona-etl-cron: {file}: line 3 is not NAME=value, or its value needs quotes\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o601, 0o644])
def test_a_file_of_secrets_that_others_can_open_is_refused(mode, wrapper):
    file = wrapper.settings("KEY=canary\n", mode)
    done = wrapper.run(CRON_ENV_FILE=file)
    told = f"{file}: others than its owner can open it; run: chmod 600 {file}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"persona-etl-cron: {told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("KEY='can\0ary'\n", "not text: it has NUL bytes"),
        (f"KEY=canary{'y' * 130_000}\n", "larger than 100 kB, so no file of settings"),
    ],
)
def test_a_file_that_no_environment_can_hold_is_refused(text, told, wrapper):
    file = wrapper.settings(text)
    done = wrapper.run(CRON_ENV_FILE=file)
    assert (done.returncode, done.stderr) == (2, f"persona-etl-cron: {file}: {told}\n")


def test_nobody_takes_over_the_settings_of_another_user(wrapper):
    """Who may write PATH and LD_PRELOAD there could make root run anything."""
    file = wrapper.settings("PATH=/tmp\n")
    os.chown(file, 65534, 65534)
    done = wrapper.run(CRON_ENV_FILE=file)
    told = f"{file}: its owner could make root run anything; run this as its owner, or chown it\n"
    assert (done.returncode, done.stderr) == (2, f"persona-etl-cron: {told}")


def test_a_path_without_the_tools_is_not_told_as_a_wrong_wait(wrapper):
    done = wrapper.run(CRON_ENV_FILE=wrapper.settings("PATH=/nowhere\n"))
    assert done.returncode != 0
    assert "CRON_JITTER" not in done.stderr


def test_a_file_that_is_named_has_to_be_there(wrapper):
    done = wrapper.run(CRON_ENV_FILE="/nowhere/at all")
    assert done.returncode == 2
    assert done.stderr.startswith("persona-etl-cron: /nowhere/at all: not there, or not for ")


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 7, 8, 74, 130, 143])
def test_exit_codes_and_words_are_passed_on(code, wrapper):
    done = wrapper.run("x", CODE=str(code), TOLD="why")
    assert (done.returncode, done.stdout, done.stderr) == (code, "x\n", "why\n")


def test_another_run_being_busy_is_no_news(wrapper):
    for told in ("another run holds the lock", ""):
        done = wrapper.run("x", CODE="75", TOLD=told)
        assert (done.returncode, done.stderr) == (0, "")


def test_where_the_lock_is_held_nothing_is_started_and_the_system_s_log_says_so(wrapper, tmp_path):
    lock, logged = tmp_path / "a lock", tmp_path / "logged"
    logger = wrapper.folder / "logger"
    logger.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >'{logged}'\n")
    logger.chmod(0o755)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = wrapper.run(CRON_LOCK=str(lock))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert logged.read_text() == f"-t\npersona-etl\nnot started: another holds {lock}\n"
        logger.write_text("#!/bin/sh\necho no /dev/log >&2; exit 1\n")
        done = wrapper.run(CRON_LOCK=str(lock))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    logger.unlink()
    assert wrapper.run(CRON_LOCK=str(lock)).stdout == "-q sync\n"
    done = wrapper.run(CRON_LOCK="/nowhere/lock")
    assert (done.returncode, done.stdout) == (66, "")
    assert "/nowhere/lock" in done.stderr


def test_a_run_without_end_is_told_to_stop_and_its_words_come_first(wrapper):
    does = "sleep 30 & trap 'kill $!; printf interrupted >&2; exit 143' TERM; wait"
    done = wrapper.run(DOES=does, CRON_TIMEOUT="0.1")
    assert done.returncode == 143
    assert done.stderr == (
        "interrupted\n"
        "persona-etl-cron: told to stop after 0.1, which is CRON_TIMEOUT;"
        " see: persona-etl runs last\n"
    )


def test_a_ctrl_c_reaches_the_command(wrapper, tmp_path):
    does = f"trap 'kill $!; touch {tmp_path}/told; exit 130' INT; sleep 30 & echo ready; wait"
    process = subprocess.Popen(
        [wrapper.folder / WRAPPER.name],
        env={"DOES": does},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["-q sync\n", "ready\n"]
        # A terminal tells the whole group.
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
    assert (tmp_path / "told").exists()


def test_a_run_that_is_killed_says_so(wrapper):
    done = wrapper.run(DOES="kill -KILL $$")
    assert done.returncode == 137
    # The shell has a word of its own before it.
    assert done.stderr.splitlines()[-1] == (
        "persona-etl-cron: killed: out of memory, or still there two minutes after the 4h of"
        " CRON_TIMEOUT; see: persona-etl runs last"
    )


def test_a_wait_that_is_no_number_is_refused(wrapper):
    done = wrapper.run(CRON_JITTER="5m")
    told = "persona-etl-cron: CRON_JITTER: write whole seconds\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(closed, wrapper):
    line = f'"$0" x {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", line, wrapper.folder / WRAPPER.name],
        env={"CODE": "6", "TOLD": "why"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 6


# --- the job, installed by the manual and run by Debian's cron ---

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


def typed(section: str) -> list[str]:
    """The blocks that the manual has typed in one of its sections."""
    _, _, rest = MANUAL.read_text(encoding="utf-8").partition(f"\n{section}\n")
    until_the_next = re.split(r"^##", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```$", until_the_next, re.DOTALL | re.MULTILINE)


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
    if os.geteuid() != 0:
        pytest.fail("this test mounts folders and starts cron: run make test-system as root")
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
    jobs = re.findall(r"^[0-9*@].*$", before, re.MULTILINE)
    assert [line for line in made.stdout.splitlines() if line not in before.splitlines()] == [
        job.replace(" persona-etl-cron", " persona-etl persona-etl-cron") for job in jobs
    ]


def test_no_line_of_the_crontab_has_what_cron_takes_for_a_newline():
    assert "%" not in CRONTAB.read_text(encoding="utf-8")
