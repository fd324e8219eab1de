"""`persona-etl backfill files` as a person or cron meets it: what it prints, and how it ends."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from etl.sandbox import generate
from tests.cli.terminal import Terminal
from tests.cli.test_completion import offered
from tests.cli.test_sync_command import rows, run, wait_until

CHECKOUT = Path(__file__).parents[2]
FILES = ("backfill", "files")
TIME = "2026-03-01T12:00:00Z"
COUNTS = ["requested", "created", "updated", "reshaped", "unchanged", "restored", "missing"]
COUNTS += ["forbidden", "rejected", "failed", "not_attempted"]


@pytest.fixture
def url(database_url, tmp_path, monkeypatch):
    """The URL of an empty database; there is no key, as none is needed."""
    monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", database_url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return database_url


@pytest.fixture(scope="module")
def payloads() -> list[dict[str, Any]]:
    world = generate(4, 3)
    return [world.payload(id_) for id_ in world.persona_ids]


def put(path: str, *values: Any) -> str:
    """A file with a value a line; bytes as they are."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(encoded(*values))
    return path


def encoded(*values: Any) -> bytes:
    return b"".join((v if isinstance(v, bytes) else json.dumps(v).encode()) + b"\n" for v in values)


def seen(payload: Any, time: str = TIME, **more: Any) -> dict[str, Any]:
    return {"observed_at": time, "payload": payload, **more}


def observed(url: str) -> list[str]:
    found = rows(url, "SELECT DISTINCT observed_at FROM observations ORDER BY 1")
    return [str(at) for (at,) in found]


def test_files_and_folders_in_every_format_go_in(url, payloads):
    a, b, c, d = payloads
    put("in/a.ndjson", seen(a))
    Path("in/b.json").write_text(json.dumps([seen(b)], indent=2))
    Path("in/deep").mkdir()
    Path("in/deep/c.jsonl.gz").write_bytes(gzip.compress(encoded(seen(c))))
    gone = seen(None, "2026-03-02T12:00:00Z", persona_id=d["id"])
    result = run(*FILES, "in", put("d.txt", seen(d), gone))
    assert (result.exit_code, result.stderr) == (0, "")
    first, *counts = result.stdout.splitlines()
    assert re.fullmatch(r"backfill files succeeded in \d+\.\d s, run [0-9a-f-]{36}", first)
    told = {name.strip(): int(count) for name, count in (x.rsplit(maxsplit=1) for x in counts)}
    stored = rows(url, "SELECT count(*) FROM observations")[0][0]
    assert (told["requested"], told["missing"], told["observations"]) == (5, 1, stored)
    assert rows(url, "SELECT count(*) FROM personas WHERE removed_at IS NULL") == [(3,)]
    assert run("backfill", "replay", "--check").exit_code == 0
    again = json.loads(run(*FILES, "in", "d.txt", "--json").stdout)
    assert again["observations"] == 0


def test_bad_lines_are_told_with_file_and_line_and_the_rest_goes_in(url, payloads):
    bad = [b'{"payload": {"apiKey": "canary'] * 22
    put("in/a.ndjson", seen(payloads[0]), *bad, seen(payloads[1]))
    Path("in/b.json.gz").write_bytes(gzip.compress(encoded(seen(payloads[2])) * 2)[:-6])
    result = run(*FILES, "in")
    assert result.exit_code == 3
    *rejected, more, error = result.stderr.splitlines()
    assert len(rejected) == 20
    assert " rejected in/a.ndjson:2: not JSON at offset 23  run_id=" in rejected[0]
    assert "… and 3 more  run_id=" in more
    assert error.startswith("persona-etl: error: 23 of 27 lines rejected, the rest is loaded")
    assert "canary" not in result.output
    assert rows(url, "SELECT count(*) FROM personas") == [(3,)]


def test_a_single_bad_line_is_told_once(url, payloads):
    result = run(*FILES, put("a.json", seen(payloads[0]), seen({"id": "no uuid"})))
    assert result.exit_code == 3
    assert result.stderr.count("a.json:2: ") == 1
    assert len(result.stderr.splitlines()) == 1


def test_json_is_one_object_with_everything(url, payloads):
    path = put("a.json", seen(payloads[0]), b"{", b"}")
    result = run("-q", *FILES, path, "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert UUID(found.pop("run_id"))
    assert (found["command"], found["status"]) == ("backfill files", "partial")
    assert list(found["counts"]) == COUNTS
    assert list(found)[:4] == ["command", "status", "started_at", "finished_at"]
    assert list(found)[4:7] == ["counts", "value_issues", "new_drift_paths"]
    assert (found["counts"]["requested"], found["counts"]["rejected"]) == (3, 2)
    assert found["rejected"] == [
        "a.json:2: not JSON at offset 1",
        "a.json:3: not JSON at offset 0",
    ]
    assert (found["forgotten"], found["not_kept"]) == (0, 0)
    assert found["observations"] > 0


def test_a_quiet_success_says_nothing(url, payloads):
    result = run("-q", *FILES, put("a.json", seen(payloads[0])))
    assert (result.exit_code, result.output) == (0, "")


def test_a_bare_payload_is_dated_by_the_flag_or_by_its_file(url, payloads):
    path = put("a.json", payloads[0])
    os.utime(path, (0, 1_772_366_400))
    assert run(*FILES, path).exit_code == 0
    assert observed(url) == ["2026-03-01 12:00:00+00:00"]
    for time in ("2025-01-02", "2025-01-03T01:00:00.5+01:00"):
        assert run(*FILES, path, "--observed-at", time).exit_code == 0
    assert observed(url)[:2] == [
        "2025-01-02 00:00:00+00:00",
        "2025-01-03 00:00:00.500000+00:00",
    ]


def test_standard_input_dates_itself_or_is_dated(url, payloads):
    a, b, *_ = payloads
    result = run(*FILES, "-", input=encoded(seen(a)))
    assert (result.exit_code, observed(url)) == (0, ["2026-03-01 12:00:00+00:00"])
    result = run(*FILES, "-", "--observed-at", "2026-03-02", input=gzip.compress(encoded(b)))
    assert (result.exit_code, observed(url)[1:]) == (0, ["2026-03-02 00:00:00+00:00"])
    result = run(*FILES, "-", input=b"")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_bare_payload_in_front_of_standard_input_is_refused_before_there_is_a_run(url, payloads):
    path = put("a.json", seen(payloads[0]))
    result = run(*FILES, path, "-", input=encoded(payloads[1]))
    assert result.exit_code == 2
    assert "say --observed-at, as in --observed-at 2026-11-03T14:00:00Z" in result.stderr
    assert rows(url, "SELECT * FROM runs") == []


def test_a_bare_payload_later_on_standard_input_is_rejected_alone(url, payloads):
    lines = encoded(b"{", seen(payloads[0]), payloads[1], seen(payloads[2]))
    result = run(*FILES, "-", input=lines)
    assert result.exit_code == 3
    assert "rejected -:1: not JSON at offset 1  run_id=" in result.stderr
    assert "rejected -:3: no observed_at: say --observed-at" in result.stderr
    assert rows(url, "SELECT count(*) FROM personas") == [(2,)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Missing argument 'PATH...'"),
        (("nowhere.json",), "nowhere.json: no such file or folder"),
        (("a.json", "empty"), "empty: nothing to read in this folder"),
        (("-", "-"), "-: standard input can be read once only"),
        (("a.json", "--observed-at", "yesterday"), "'yesterday' is no moment; write it like 2026-"),
        (("a.json", "--observed-at", "2026-02-30"), "'2026-02-30' is no moment; write it like"),
        (("a.json", "--observed-at", "2099-01-01"), "'2099-01-01' lies in the future"),
        (("a.json", "--observed-at", "2026-01-01T24:00:00Z"), "is no moment; write it like"),
    ],
)
def test_what_can_not_be_meant_is_refused_before_there_is_a_run(url, payloads, arguments, told):
    put("a.json", seen(payloads[0]))
    Path("empty").mkdir()
    result = run(*FILES, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert rows(url, "SELECT * FROM runs") == []


def test_a_name_that_would_steer_the_terminal_is_escaped(url):
    result = run(*FILES, put("a\x1b[31m.json", b"x"))
    assert result.exit_code == 3
    assert "a\\x1b[31m.json:1: not JSON" in result.stderr
    assert "\x1b" not in result.stderr


def test_a_pipe_that_brings_nothing_can_be_interrupted(url, payloads):
    with subprocess.Popen(
        [sys.executable, "-m", "etl", *FILES, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    ) as process:
        assert process.stdin is not None
        process.stdin.write(encoded(seen(payloads[0])))
        process.stdin.flush()
        wait_until(lambda: rows(url, "SELECT 1 FROM runs WHERE status = 'running'"))
        process.send_signal(signal.SIGTERM)
        # Nobody closes the pipe.
        assert process.wait(timeout=30) == 143
    assert rows(url, "SELECT status FROM runs") == [("interrupted",)]


def test_the_progress_line_says_how_far_in_mebibytes_and_in_lines_of_a_pipe(url, payloads):
    line = encoded(seen(payloads[0]))
    Path("a.ndjson").write_bytes(line * (5 * 2**20 // len(line)))
    command = [sys.executable, "-m", "etl", *FILES]
    with Terminal([*command, "a.ndjson"], PYTHONPATH=str(CHECKOUT)) as it:
        assert it.read_to_the_end() == 0
    assert re.search(r"MiB [1-5]/5, [1-9][\d,]* lines", it.raw)
    assert "entities folded" in it.raw
    piped = f"cat a.ndjson | {' '.join(command)} -"
    with Terminal(["sh", "-c", piped], PYTHONPATH=str(CHECKOUT)) as it:
        assert it.read_to_the_end() == 0
    assert re.search(r"lines [\d,]+ ", it.raw)
    assert "MiB" not in it.raw


def test_its_options_are_completed():
    assert offered("persona-etl backfill files", "--obs") == ["plain,--observed-at"]
