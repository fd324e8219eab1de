"""What a monitor hears of each sync, and that a sync does not care whether it does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from etl.sandbox import Fault, running_sandbox
from etl.store.lock import WriterLock
from tests.canaries import Canaries, leaks, leaks_in_database
from tests.cli.test_sync_command import rows, run, started, wait_until
from tests.monitor import hangs, running_monitor, says


@pytest.fixture(scope="module")
def sandbox():
    with running_sandbox(count=3, key="canary-key", moving=False) as running:
        yield running


@pytest.fixture
def monitor(url, monkeypatch):
    """One that takes all pings, and is set."""
    with running_monitor() as running:
        monkeypatch.setenv("PERSONA_ETL_NOTIFY__PING_URL", f"{running.url}/check-1")
        yield running


def last_run(url: str) -> object:
    return rows(url, "SELECT run_id FROM runs ORDER BY started_at DESC LIMIT 1")[0][0]


def spoil(url: str, what: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION '{what}'; END $$;"
            " CREATE TRIGGER spoil BEFORE INSERT OR UPDATE ON anam.persona_sync_state"
            " EXECUTE FUNCTION spoil()"
        )


# ── How runs end ─────────────────────────────────────────────────────────────────────────────────


def test_a_success_is_told_with_its_summary(url, monitor):
    result = run("sync")
    assert (result.exit_code, result.stderr) == (0, "")
    run_id = last_run(url)
    assert monitor.targets == [f"/check-1/start?rid={run_id}", f"/check-1?rid={run_id}"]
    assert {heard.method for heard in monitor.heard} == {"POST"}
    start, end = (heard.body for heard in monitor.heard)
    assert (start, end) == ("", result.stdout.rstrip("\n"))
    assert end.startswith("sync succeeded in ")


def test_the_end_is_told_when_the_start_is_and_the_run_waits_for_neither(url, monitor):
    heard_by_then = []

    def answers_when_the_run_is_over(monitor, handler):
        wait_until(lambda: rows(url, "SELECT 1 FROM runs WHERE status = 'succeeded'"))
        time.sleep(0.2)
        heard_by_then.append(len(monitor.heard))
        says(200)(monitor, handler)

    monitor.answers = [answers_when_the_run_is_over, says(200)]
    assert run("sync").stderr == ""
    assert (heard_by_then, len(monitor.heard)) == ([1], 2)


@pytest.mark.parametrize("options", [("-q",), ("--log-format", "json")])
def test_the_monitor_hears_the_same_whoever_else_hears_what(url, monitor, options):
    assert run(*options, "sync", "--json").exit_code == 0
    assert monitor.heard[1].body.startswith("sync succeeded in ")


def test_a_failure_is_told_with_its_exit_code_and_its_error(url, sandbox, monitor):
    sandbox.order(Fault(status=403, target=sandbox.persona_ids[0]))
    result = run("sync")
    assert result.exit_code == 3
    assert monitor.targets[1] == f"/check-1/3?rid={last_run(url)}"
    assert monitor.heard[1].body == (result.stdout + result.stderr).rstrip("\n")
    assert "persona-etl: error: 1 of 3 personas not copied" in monitor.heard[1].body


def test_a_query_of_the_url_is_kept(url, monitor, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_NOTIFY__PING_URL", f"{monitor.url}/check-1/?team=a%26b")
    assert run("sync").exit_code == 0
    rid = last_run(url)
    assert monitor.targets == [f"/check-1{to}?team=a%26b&rid={rid}" for to in ("/start", "")]


@pytest.mark.parametrize(
    ("setting", "code", "told"),
    [
        (("ANAM_API_KEY", None), 2, "no API key; "),
        (("PERSONA_ETL_DATABASE__URL", None), 2, "no database; "),
        (("PERSONA_ETL_PERSONAS__IDS", None), 2, "no personas; "),
        (
            ("PERSONA_ETL_DATABASE__URL", "postgresql://u:hunter2-7@127.0.0.1:1/d"),
            6,
            "Postgres at 127.0.0.1:1/d: ",
        ),
        (("PERSONA_ETL_DATABASE__SCHEMA", "elsewhere"), 6, "schema elsewhere has no"),
    ],
)
def test_what_goes_wrong_before_there_is_a_run_is_told_too(
    monitor, monkeypatch, setting, code, told
):
    name, value = setting
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    assert run("sync").exit_code == code
    (heard,) = monitor.heard
    # By then a run that was to be has an id, by which the log is found.
    assert heard.target.partition("?")[0] == f"/check-1/{code}"
    assert ("?rid=" in heard.target) == (code == 6)
    assert heard.body.startswith(f"persona-etl: error: {told}")
    assert "hunter2-7" not in heard.body


def test_a_mistyped_id_is_told_in_one_line(url, monitor):
    assert run("sync", "not-an-id\n\x1b[2J").exit_code == 2
    (heard,) = monitor.heard
    assert heard.target == "/check-1/2"
    assert len(heard.body.splitlines()) == 1
    assert "\x1b" not in heard.body


def test_settings_that_are_wrong_leave_nobody_to_tell(url, monitor, monkeypatch):
    monkeypatch.setenv("PERSONA_ETL_API__CONCURRENCY", "99")
    assert run("sync").exit_code == 2
    assert monitor.heard == []


def test_a_bug_is_told_by_its_name_and_not_by_what_it_says(url, monitor):
    spoil(url, "canary: a prompt")
    assert run("sync").exit_code == 1
    assert monitor.targets[1] == f"/check-1/1?rid={last_run(url)}"
    told = monitor.heard[1].body.splitlines()
    assert told[0].startswith("sync failed in ")
    assert told[-1].endswith(", a bug of persona-etl; please report it with its traceback")
    assert "canary" not in monitor.heard[1].body


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_where_only_the_printing_failed_what_the_run_did_counts(url, monitor):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "etl", "sync"],
            stdout=full,
            stderr=subprocess.DEVNULL,
            check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
    assert done.returncode == 74
    assert monitor.targets[1] == f"/check-1?rid={last_run(url)}"
    assert monitor.heard[1].body.startswith("sync succeeded in ")


def test_a_run_that_began_is_told_of_to_its_end_also_when_another_takes_its_lock(
    url, sandbox, monitor
):
    """A monitor that heard of a beginning would wait for the end, and then raise the alarm."""
    sandbox.order(Fault(delay_seconds=1, target=sandbox.persona_ids[2]))
    with started("sync") as process:
        wait_until(lambda: monitor.heard)
        rows(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND"
            " database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        lock = WriterLock(url, "anam", command="sync", run_id=UUID(int=7))
        assert lock.acquire_within(5)
        with lock:
            process.communicate(timeout=20)
    assert process.returncode == 75
    assert [target.partition("?")[0] for target in monitor.targets] == [
        "/check-1/start",
        "/check-1/75",
    ]


# ── Of what nothing is told ──────────────────────────────────────────────────────────────────────


def test_a_skipped_run_is_quiet(url, monitor):
    with WriterLock(url, "anam", command="sync", run_id=UUID(int=7)):
        assert run("sync").exit_code == 75
    assert rows(url, "SELECT status FROM runs") == [("skipped",)]
    assert monitor.heard == []


def test_no_other_command_counts_as_the_job(url, monitor):
    for command in ("sync --dry-run", "backfill api", "verify", "check", "backfill replay"):
        assert run(*command.split()).exit_code == 0
    assert monitor.heard == []


# ── A monitor that fails ─────────────────────────────────────────────────────────────────────────


def warnings(stderr: str) -> list[str]:
    return [
        line.partition(" warning ")[2].partition("  run_id=")[0] for line in stderr.splitlines()
    ]


@pytest.mark.parametrize(
    ("status", "told", "is_shown_under_q"),
    [
        (404, "the monitor answers 404; check notify.ping_url", True),
        (500, "the monitor answers 500", False),
    ],
)
def test_a_ping_that_fails_is_one_warning_and_changes_nothing_else(
    url, monitor, status, told, is_shown_under_q
):
    """Under -q only where somebody has to change something: mails about the monitor help nobody."""
    monitor.answers = [says(status)]
    result = run("sync")
    assert (result.exit_code, result.stdout.split()[1]) == (0, "succeeded")
    warning = f"{monitor.url} was not told how the run ended: {told}"
    assert warnings(result.stderr) == [warning]
    assert warnings(run("-q", "sync").stderr) == ([warning] if is_shown_under_q else [])


def test_a_start_that_is_not_heard_is_told_where_the_end_is(url, monitor):
    monitor.answers = [says(500), says(200)]
    result = run("sync")
    assert warnings(result.stderr) == [
        f"{monitor.url} was not told that the run began: the monitor answers 500"
    ]


@pytest.mark.parametrize(("at", "number"), [("start", signal.SIGINT), ("end", signal.SIGTERM)])
def test_a_signal_ends_a_ping_that_hangs_and_the_run_s_exit_code_remains(
    url, sandbox, monitor, number, at
):
    """By then the summary is printed: neither the run nor its result has waited for the ping."""
    monitor.answers = [hangs] if at == "start" else [says(200), hangs]
    sandbox.order(Fault(status=403, target=sandbox.persona_ids[0]))
    with started("sync") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("sync partial in ")
        assert process.stderr.readline().startswith("persona-etl: error: 1 of 3 personas")
        wait_until(lambda: len(monitor.heard) == (1 if at == "start" else 2))
        # Of the start it was heard long ago: that now it is waited for, nobody can see.
        time.sleep(0.2)
        sent = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=20)
    assert time.monotonic() - sent < 8
    assert (process.returncode, stderr) == (3, "")


def test_a_run_that_is_stopped_says_so_and_hurries(url, sandbox, monitor):
    last = sandbox.persona_ids[2]
    sandbox.order(Fault(status=503, retry_after="60", target=last))
    monitor.answers = [hangs]
    with started("sync", "--json") as process:
        wait_until(lambda: rows(url, "SELECT 1 FROM personas") and monitor.heard)
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
    # Two pings that hang take 20 s when nobody is in a hurry; the machine may be busy.
    assert time.monotonic() - sent < 14
    assert (process.returncode, json.loads(stdout)["status"]) == (143, "interrupted")
    assert monitor.targets[1] == f"/check-1/143?rid={last_run(url)}"
    error = "persona-etl: error: interrupted; what was loaded stays, the next run goes on"
    assert monitor.heard[1].body.endswith(error)
    first, warning = stderr.splitlines()
    assert (first, ": no whole answer in time  run_id=" in warning) == (error, True)


def test_who_is_stopped_before_there_is_a_run_says_so(url, monitor, monkeypatch, tmp_path):
    metrics = tmp_path / "persona_etl.prom"
    monkeypatch.setenv("PERSONA_ETL_METRICS__TEXTFILE", str(metrics))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("PERSONA_ETL_DATABASE__URL", f"postgresql://u@127.0.0.1:{port}/db")
        with started("sync") as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
            connection.close()
        # Nor is that database asked again, for the metrics: who stops a run waits for seconds.
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()
    assert 'last_run_exit_code{schema="anam",command="sync"} 130\n' in metrics.read_text()
    assert 'command="sync",status="interrupted"} 1\n' in metrics.read_text()
    (heard,) = monitor.heard
    assert (process.returncode, heard.target.partition("?")[0]) == (130, "/check-1/130")
    assert heard.body == "persona-etl: error: interrupted"


# ── Secrets ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_in_file", [False, True])
def test_the_url_is_told_nowhere_and_no_secret_is_told_to_the_monitor(
    url, monitor, monkeypatch, tmp_path, is_in_file
):
    canary = Canaries()
    secret = f"{monitor.url}/{canary()}/x?token={canary()}".replace("://", f"://u:{canary()}@")
    if is_in_file:
        monkeypatch.delenv("PERSONA_ETL_NOTIFY__PING_URL")
        (tmp_path / "persona-etl.toml").write_text(f'[notify]\nping_url = "{secret}"\n')
    else:
        monkeypatch.setenv("PERSONA_ETL_NOTIFY__PING_URL", secret)
    monitor.answers = [says(404, secret.encode(), Location=secret)]
    told = [run("-v", "--log-format", form, "sync").output for form in ("text", "json")]
    spoil(url, f"what libraries say: {secret}")
    told += [run(*command.split()).output for command in ("-v sync", "check", "status", "runs")]
    assert "[hidden]" in "".join(told)
    assert "was not told how the run ended" in "".join(told)
    assert leaks("".join(told)) == []
    heard = [heard.body for heard in monitor.heard]
    assert leaks("".join(heard)) == []
    assert "canary-key" not in "".join(heard)
    with psycopg.connect(url) as connection:
        connection.execute("DROP FUNCTION spoil() CASCADE")
    assert leaks_in_database(url) == []


def test_an_error_that_quotes_a_secret_is_sent_without(url, monitor, monkeypatch):
    monkeypatch.setenv("ANAM_API_KEY", "sk-hidden-0001")
    assert run("sync", "sk-hidden-0001").exit_code == 2
    assert "[hidden]" in monitor.heard[0].body
    assert "sk-hidden" not in monitor.heard[0].body


# ── check ────────────────────────────────────────────────────────────────────────────────────────


def test_check_says_where_pings_go_and_sends_none(url, monitor, monkeypatch):
    *_, line = run("check").stdout.splitlines()
    assert line == f"ok     ping        to {monitor.url}, not tried: a ping would count as a run"
    assert monitor.heard == []
    monkeypatch.setenv("PERSONA_ETL_NOTIFY__PING_URL", "https://hc-ping.example/check-1")
    monkeypatch.setenv("https_proxy", "socks5://proxy.example")
    result = run("check")
    *_, line = result.stdout.splitlines()
    assert line.startswith("wrong  ping        HTTPS_PROXY or ALL_PROXY: not a usable proxy")
    assert result.exit_code == 2
