"""cron/persona-etl-cron before a program that only says how it was started."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.system.installed import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

WRAPPER = CHECKOUT / "cron" / "persona-etl-cron"

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
        # The one before may be somebody else's.
        file.unlink(missing_ok=True)
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


def test_it_does_not_mind_to_be_called_in_a_folder_that_is_not_for_its_user(wrapper, tmp_path):
    """Such as root's, by `sudo -u`. Here root is who may not: it has no powers."""
    shutil.chown(tmp_path, user=65534)
    tmp_path.chmod(0o700)
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", wrapper.folder / WRAPPER.name],
        cwd=tmp_path,
        env={"CRON_ENV_FILE": wrapper.settings("KEY=1\n")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "-q sync\n", "")


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
