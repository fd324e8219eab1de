"""`persona-etl sandbox` as a person meets it: what it prints, how it ends, how it fails."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager

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
        assert "3 personas" in welcome
        assert "persona-etl migrate" in welcome
        assert "persona-etl sync --all" in welcome
        assert max(len(line) for line in welcome.splitlines()) <= 80
        assert len(names(url, key)) == 3
        what, where = told(r"curl -X PATCH -d '(.*)'", welcome), told(r"\\\n +(\S+)", welcome)
        assert httpx.patch(where, content=what, trust_env=False).status_code == 200
        assert "Ada" in names(url, key)
        what, where = re.findall(r"curl -d '(.*)' (\S+)", welcome)[0]
        assert httpx.post(where, content=what, trust_env=False).json() == {"numbers": [1]}
        assert httpx.get(f"{url}/v1/personas", trust_env=False).status_code == 429
        what, where = re.findall(r"curl -d '(.*)' (\S+)", welcome)[1]
        assert httpx.post(where, content=what, trust_env=False).json() == {"done": True}
        assert httpx.get(told(r"curl (http\S+)", welcome), trust_env=False).json()["calls"]


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


def answers(url: str, path: str, count: int = 1) -> list[httpx.Response]:
    headers = {"Authorization": "Bearer sandbox-key"}
    return [httpx.get(url + path, headers=headers, trust_env=False) for _ in range(count)]


def test_faults_latency_and_a_rate_limit_can_be_had_from_the_start():
    with started(
        "--personas=1",
        "--fault=list:503:retry_after=7",
        "--fault=personas:404:always",
        "--rate-limit=2/60:headers=org_hour:retry_after=none",
        "--latency=0.01",
    ) as (_, welcome):
        url = told(r"ANAM_API_URL=(\S+)", welcome)
        listed = answers(url, "/v1/personas", 4)
        assert [answer.status_code for answer in listed] == [503, 200, 200, 429]
        assert listed[0].headers["retry-after"] == "7"
        assert listed[1].headers["x-ratelimit-org-hour-remaining"] == "1"
        assert "retry-after" not in listed[3].headers
        assert [a.status_code for a in answers(url, "/v1/personas/x", 2)] == [404, 404]
        httpx.post(f"{url}/_sandbox/reset", trust_env=False)
        assert answers(url, "/v1/personas")[0].status_code == 503
        state = httpx.get(f"{url}/_sandbox/state", trust_env=False).json()
        assert state["behaviour"]["latency_seconds"] == 0.01


def test_ones_own_payloads_are_served_as_they_are(tmp_path):
    one, many = tmp_path / "one.json", tmp_path / "many.ndjson"
    mine = {"id": "0c9d6d52-1f3f-4f2a-9a39-5a2a6dd0c1a1", "name": "Mine", "odd": {"x": [1, None]}}
    one.write_text(json.dumps(mine))
    many.write_text('{"id": "a", "name": "A"}\n{"id": "b", "name": "B"}\n')
    with started("--payload", str(one), "--payload", str(many)) as (_, welcome):
        url = told(r"ANAM_API_URL=(\S+)", welcome)
        assert names(url, "sandbox-key") == ["Mine", "A", "B"]
        assert answers(url, f"/v1/personas/{mine['id']}")[0].json() == mine
        assert answers(url, "/v1/personas/b")[0].json() == {"id": "b", "name": "B"}


@pytest.mark.parametrize("shape", ["later", '{"add": {"version": 1}, "remove": ["personaPreset"]}'])
def test_the_shape_can_be_another_from_the_start(tmp_path, shape):
    file = tmp_path / "ids.txt"
    with started("--personas=1", f"--write-ids={file}", "--shape", shape) as (_, welcome):
        url = told(r"ANAM_API_URL=(\S+)", welcome)
        path = f"/v1/personas/{file.read_text().strip()}"
        payload = answers(url, path)[0].json()
        assert "personaPreset" not in payload
        assert "version" in payload
        httpx.delete(f"{url}/_sandbox/reshape", trust_env=False)
        assert "personaPreset" in answers(url, path)[0].json()
        httpx.post(f"{url}/_sandbox/reset", trust_env=False)
        assert answers(url, path)[0].json().keys() == payload.keys()


def test_made_up_personas_can_be_had_beside_ones_own(tmp_path):
    file = tmp_path / "one.json"
    file.write_text('{"id": "a", "name": "A"}')
    with started("--payload", str(file), "--personas", "2") as (_, welcome):
        assert len(names(told(r"ANAM_API_URL=(\S+)", welcome), "sandbox-key")) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fault", "typo:500"], '--fault typo:500: "typo" is no fault; see `persona-etl sandbox'),
        (["--fault", "500", "--fault", "statsu=1"], '--fault statsu=1: "statsu" is no part of a'),
        (["--rate-limit", "many"], '--rate-limit many: "many" is no limit; write REQUESTS/SECONDS'),
        (["--shape", "latter"], '--shape latter: "latter" is no shape; did you mean later?'),
        (["--shape", "{"], "--shape {: this is no JSON"),
        (["--shape", '{"add": {"": 1}}'], '"" is no path; write one such as'),
        (["--payload", "bad.json"], '--payload bad.json: it has no usable "id"; write a UUID'),
        (["--payload", "latin.json"], "--payload latin.json: it is not UTF-8"),
        (["--payload", "deep.json"], "--payload deep.json: it is nested too deeply"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "latin.json").write_bytes(b'{"id": "\xe9"}')
    (tmp_path / "deep.json").write_text('{"id": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}")
    result = CliRunner().invoke(cli, ["sandbox", "--port", "0", *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert told in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_however_slow_its_answers_are(number):
    faults = ("--fault=delay_seconds=60", "--fault=trickle_seconds=60", "--fault=stall")
    with ExitStack() as stack:
        process, welcome = stack.enter_context(started("--personas=1", *faults))
        url = told(r"ANAM_API_URL=(\S+)", welcome)
        host, port = url.removeprefix("http://").split(":")
        for asked in range(4):
            # The fourth says nothing at all.
            request = b"GET /v1/personas HTTP/1.1\r\nHost: x\r\n\r\n" if asked < 3 else b""
            connection = socket.create_connection((host, int(port)))
            stack.enter_context(connection).sendall(request)
        while httpx.get(f"{url}/_sandbox/requests", trust_env=False).json()["in_flight"] < 3:
            pass
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_the_signal_handlers_of_the_caller_come_back():
    before = signal.getsignal(signal.SIGTERM)
    CliRunner().invoke(cli, ["sandbox", "--host", "0.0.0.0"])
    assert signal.getsignal(signal.SIGTERM) is before
