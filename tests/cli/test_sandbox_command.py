"""`persona-etl sandbox` as a person meets it: what it prints, how it ends, how it fails."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from click.testing import CliRunner

from etl.cli.main import cli


@contextmanager
def started(*arguments: str):
    """The running command and the lines of its welcome."""
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-m", "etl", "sandbox", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            welcome = ""
            while "Ctrl-C" not in welcome:
                line = process.stdout.readline()
                assert line, "it ended before its welcome did"
                welcome += line
            yield process, welcome
        finally:
            process.kill()


def told(pattern: str, welcome: str) -> str:
    match = re.search(pattern, welcome)
    assert match, welcome
    return match[1]


def names(url: str, key: str) -> list[str]:
    answer = httpx.get(
        f"{url}/v1/personas",
        params={"perPage": 100},
        headers={"Authorization": f"Bearer {key}"},
        trust_env=False,
    )
    return [persona["name"] for persona in answer.json()["data"]]


def test_the_welcome_says_what_to_type_next_and_it_works():
    with started("--personas", "3") as (_, welcome):
        url = told(r"ANAM_API_URL=(\S+)", welcome)
        key = told(r"ANAM_API_KEY=(\S+)", welcome)
        assert welcome.startswith(url)
        assert "3 made-up personas" in welcome
        assert "persona-etl migrate" in welcome
        assert re.search(r"persona-etl sync [0-9a-f-]{36}$", welcome, flags=re.MULTILINE)
        assert len(names(url, key)) == 3
        where, what = told(r"curl -X PATCH (\S+)", welcome), told(r"-d '(.*)'", welcome)
        assert httpx.patch(where, content=what, trust_env=False).status_code == 200
        assert "Ada" in names(url, key)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(number):
    with started("--personas", "1") as (process, _):
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_the_ids_can_be_written_for_sync_to_read(tmp_path):
    file = tmp_path / "ids.txt"
    with started("--personas", "4", "--seed", "9", "--write-ids", str(file)) as (_, welcome):
        url = told(r"ANAM_API_URL=(\S+)", welcome)
        assert f"persona-etl sync --ids-from {file}" in welcome
        ids = file.read_text().splitlines()
        assert len(ids) == 4
        headers = {"Authorization": "Bearer sandbox-key"}
        for id_ in ids:
            answer = httpx.get(f"{url}/v1/personas/{id_}", headers=headers, trust_env=False)
            assert answer.json()["id"] == id_


def test_a_key_of_ones_own_is_used_and_not_shown():
    with started("--personas", "1", "--key", "my-own-key") as (_, welcome):
        url = told(r"ANAM_API_URL=(\S+)", welcome)
        assert "my-own-key" not in welcome
        assert len(names(url, "my-own-key")) == 1


@pytest.mark.parametrize(("flags", "moves"), [([], True), (["--static"], False)])
def test_a_static_sandbox_says_the_same_twice(flags, moves, tmp_path):
    file = tmp_path / "ids.txt"
    with started("--personas", "1", "--write-ids", str(file), *flags) as (_, welcome):
        url = told(r"ANAM_API_URL=(\S+)", welcome)
        path = f"{url}/v1/personas/{file.read_text().strip()}"
        headers = {"Authorization": "Bearer sandbox-key"}
        first, second = (httpx.get(path, headers=headers, trust_env=False) for _ in "ab")
        assert (first.content != second.content) == moves


def test_a_port_in_use_is_one_line_and_exit_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(cli, ["sandbox", "--port", port])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"127.0.0.1:{port} (Address already in use)" in result.stderr


def test_an_address_that_others_could_reach_is_refused():
    result = CliRunner().invoke(cli, ["sandbox", "--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "--host 0.0.0.0: the sandbox only listens on loopback" in result.stderr


def test_an_ids_file_that_cannot_be_written_is_one_line_and_exit_2(tmp_path):
    file = tmp_path / "missing" / "ids.txt"
    result = CliRunner().invoke(cli, ["sandbox", "--port", "0", "--write-ids", str(file)])
    assert result.exit_code == 2
    assert f"--write-ids {file}: No such file or directory" in result.stderr


def test_without_h11_it_says_what_to_install():
    code = (
        "import sys; sys.modules['h11'] = None\n"
        "from etl.cli.main import main; sys.argv[1:] = ['sandbox']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert 'pip install "persona-etl[sandbox]"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_signal_handlers_of_the_caller_come_back():
    before = signal.getsignal(signal.SIGTERM)
    CliRunner().invoke(cli, ["sandbox", "--host", "0.0.0.0"])
    assert signal.getsignal(signal.SIGTERM) is before
