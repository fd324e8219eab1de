"""`persona-etl export` as a person or cron meets it: what it writes where, and how it ends."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from etl.sandbox import running_sandbox
from etl.store.lock import WriterLock
from tests.cli.test_sync_command import LOCKS, rows, run, started, wait_until

BOTH = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
FULL = Path("/dev/full")


@pytest.fixture
def url(database_url, tmp_path, monkeypatch):
    """The URL of a database with four personas. The API is gone, and so is its key."""
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", database_url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with running_sandbox(count=4, moving=False) as sandbox, monkeypatch.context() as meanwhile:
        meanwhile.setenv("ANAM_API_KEY", sandbox.key)
        meanwhile.setenv("ANAM_API_URL", sandbox.url)
        assert run("sync", *sandbox.persona_ids).exit_code == 0
    return database_url


def files(folder: Path) -> list[str]:
    """All that stands in a folder, hidden files too."""
    return sorted(file.name for file in folder.iterdir())


def test_lines_go_to_standard_output_and_a_summary_to_stderr(url):
    result = run("export")
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    observations = len(rows(url, "SELECT FROM observations"))
    assert {line["payload"]["id"] for line in lines} == {line["persona_id"] for line in lines}
    (summary,) = result.stderr.splitlines()
    assert summary.endswith(f"exported  observations={observations} lines={len(lines)} personas=4")
    assert run("export", "-o", "-").stdout == result.stdout
    quiet = run("-q", "export")
    assert (quiet.stdout, quiet.stderr) == (result.stdout, "")
    # Neither the lock nor the ledger has anything to do with it.
    with WriterLock(url, "anam", command="sync", run_id=UUID(int=7)):
        assert run("-q", "export").stdout == result.stdout
    assert rows(url, "SELECT command FROM runs") == [("sync",)]


def test_a_file_is_compressed_by_its_name_and_the_same_each_time(url, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    told = run("-q", "export").stdout.encode()
    before = os.umask(0o027)
    try:
        for name in ("a.ndjson", "b.ndjson.gz", "c.GZ"):
            result = run("export", "-o", str(folder / name))
            assert (result.exit_code, result.stdout) == (0, "")
            assert f"file={folder / name}" in result.stderr
    finally:
        os.umask(before)
    assert files(folder) == ["a.ndjson", "b.ndjson.gz", "c.GZ"]
    assert (folder / "a.ndjson").read_bytes() == told
    packed = (folder / "b.ndjson.gz").read_bytes()
    assert gzip.decompress(packed) == told
    assert (folder / "c.GZ").read_bytes() == packed
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o640}


def test_a_link_goes_on_to_be_one(url, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    for _ in range(2):
        assert run("export", "-o", "link").exit_code == 0
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "file").read_bytes().count(b"\n") == 8
    assert files(tmp_path / "there") == ["file"]


def test_nothing_to_export_writes_nothing_and_says_so(url, tmp_path):
    (tmp_path / "old").write_text("as it was")
    for file in ("-", "old", "new"):
        result = run("export", "--since", "9000-01-01", "-o", file)
        assert (result.exit_code, result.stdout) == (0, "")
        assert "nothing was observed that is asked for" in result.stderr
    assert files(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "as it was"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--persona", "x"), "'--persona': \"x\" is not a UUID"),
        (("--persona", str(UUID(int=9))), f"{UUID(int=9)} was never observed here"),
        (("--since", "noon"), "'noon' is no moment; write it like 2026-11-03 or"),
        (("--since", "2026-02-02", "--until", "2026-02-02T00:00:00Z"), "--since must lie before"),
        (("-o", "."), "cannot be written"),
        (("-o", "nowhere/x.gz"), "nowhere/x.gz: cannot be written (No such file or directory)"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(url, tmp_path, arguments, told):
    result = run("export", "-o", "x", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert files(tmp_path) == []


def test_times_are_moments_or_days(url):
    everything = run("-q", "export").stdout
    assert (
        run("-q", "export", "--since", "2026-01-01", "--until", "9000-01-01").stdout == everything
    )
    (first,) = rows(url, "SELECT to_jsonb(min(observed_at)) #>> '{}' FROM observations")[0]
    result = run("export", "--until", str(first))
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_role_that_may_only_read_is_enough(url, plain_role, monkeypatch):
    expected = run("-q", "export").stdout
    role_url, execute = plain_role
    execute("GRANT USAGE ON SCHEMA anam TO {role}")
    execute("GRANT SELECT ON ALL TABLES IN SCHEMA anam TO {role}")
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", role_url)
    assert run("-q", "export").stdout == expected


def shell(script: str) -> subprocess.CompletedProcess[str]:
    """As a person types it; `etl` is the command."""
    whole = f'etl() {{ "{sys.executable}" -m etl "$@"; }}; {script}'
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        ["bash", "-c", whole],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_reader_that_has_seen_enough_wants_no_remark(url):
    # More than a pipe holds.
    with psycopg.connect(url, options="-c search_path=anam") as connection:
        connection.execute(
            "UPDATE documents"
            " SET document = document || jsonb_build_object('x', repeat('x', 300000))"
        )
    done = shell("etl export | head -c 20; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stdout, done.stderr) == (141, '{"observed_at":"2026'[:20], "")


@contextmanager
def no_file_beyond(size: int):
    """As `ulimit -f`, for this process and for so long."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")
def test_a_full_disk_is_told_and_leaves_what_was_there(url, tmp_path):
    (tmp_path / "old").write_text("as it was")
    told = "persona-etl: error: {}: File too large; it is left as it was\n"
    done = shell("ulimit -f 1; etl export -o old")
    assert (done.returncode, done.stderr) == (74, told.format("old"))
    with no_file_beyond(512):
        done = run("export", "-o", "new.gz")
    assert (done.exit_code, done.stderr) == (74, told.format("new.gz"))
    assert files(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "as it was"
    done = run("export", "-o", "/dev/full")
    assert (done.exit_code, FULL.is_char_device()) == (74, True)
    assert "/dev/full: No space left on device; what it got is incomplete" in done.stderr


@contextmanager
def waiting(url: str, *command: str, table: str):
    """The command, at the point where it needs a table that somebody has locked."""
    with psycopg.connect(url, options="-c search_path=anam") as someone:
        someone.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        with started(*command) as process:
            wait_until(lambda: rows(url, f"{LOCKS} AND NOT granted"))
            yield process


@BOTH
def test_a_signal_ends_it_and_leaves_what_was_there(url, tmp_path, number, code):
    (tmp_path / "old.gz").write_text("as it was")
    with waiting(url, "export", "-o", "old.gz", table="documents") as process:
        assert len(files(tmp_path)) == 2
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (code, "")
    assert "Traceback" not in stderr
    assert files(tmp_path) == ["old.gz"]
    assert (tmp_path / "old.gz").read_text() == "as it was"
