"""The files of deploy/airflow, deploy/dagster and deploy/prefect: each in its own tool, for real.

Each tool has a virtual environment of its own, without persona-etl in it, which `make test-system`
makes. In it a process runs the file as often as it is told to (tests/system/orchestrators).
"""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from etl.sandbox import Fault
from tests.system.test_lock_over import a_run_that_waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = Path(__file__).parents[2]
DRIVERS = Path(__file__).parent / "orchestrators"
PROGRAM = Path(sys.executable).with_name("persona-etl")
ENVIRONMENTS = Path(sys.prefix) / "orchestrators"


class Tool(NamedTuple):
    """An orchestrator: its file, and its names for how a run ends."""

    file: str
    success: str
    skipped: str
    failed: str
    after_sigterm: str | None
    """None: it dies of it, as its runner would have it."""


TOOLS = {
    "airflow": Tool("persona_etl_dag", "success", "skipped", "failed", "success"),
    "dagster": Tool("persona_etl_dagster", "SUCCESS", "SUCCESS", "FAILURE", "FAILURE"),
    "prefect": Tool("persona_etl_flow", "Completed", "Skipped", "Failed", None),
}


def source(name: str) -> str:
    return (CHECKOUT / "deploy" / name / f"{TOOLS[name].file}.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Orchestrator:
    """A process in which a tool runs the file, and all that it prints, the log in between."""

    tool: Tool
    process: subprocess.Popen[str]
    log: Path

    def begin(self, job: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{job}\n")
        self.process.stdin.flush()

    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def ended(self) -> list[dict[str, Any]]:
        """What the process told of each run that is over."""
        lines = self.printed().splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"state": ')]

    def run(self, job: str = "persona_etl") -> dict[str, Any]:
        before = len(self.ended())
        self.begin(job)
        self.wait_until(lambda: len(self.ended()) > before)
        return self.ended()[-1]

    def wait_until(self, happens: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not happens():
            assert self.process.poll() is None, self.printed()
            assert time.monotonic() < deadline, self.printed()
            time.sleep(0.02)


@pytest.fixture(params=TOOLS)
def orchestrator(request, job, database, tmp_path) -> Iterator[Orchestrator]:
    """The tool, which has the program's path, the settings and the secrets that its page says."""
    name = request.param
    tool = TOOLS[name]
    folder = tmp_path / name
    folder.mkdir()
    settings = folder / "persona-etl.toml"
    ids = json.dumps(list(job.api.persona_ids))
    settings.write_text(f'[api]\nbase_url = "{job.api.url}"\n[personas]\nids = {ids}\n')
    # As a team would edit its copy; only that we don't wait between two tries.
    edited = source(name)
    for constant, value in {"PROGRAM": PROGRAM, "SETTINGS": settings}.items():
        edited = re.sub(rf"^{constant} = .*", f'{constant} = "{value}"', edited, flags=re.MULTILINE)
    edited = re.sub(r"^RETRY_SECONDS = .*", "RETRY_SECONDS = 0", edited, flags=re.MULTILINE)
    (folder / f"{tool.file}.py").write_text(edited, encoding="utf-8")
    log = folder / "log"
    with log.open("w") as printed:
        process = subprocess.Popen(
            [ENVIRONMENTS / name / "bin" / "python", DRIVERS / f"{name}_runs.py"],
            cwd=folder,
            env=environment(folder, name, job.api.key, database.url()),
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=printed,
            text=True,
            start_new_session=True,
        )
    with process:
        try:
            yield Orchestrator(tool, process, log)
        finally:
            # Prefect has a server of its own in a process beside, which may be gone with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def environment(folder: Path, name: str, key: str, url: str) -> dict[str, str]:
    """What a worker of the tool finds set."""
    of_tool = {
        "airflow": {
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW_CONN_ANAM": json.dumps({"conn_type": "http", "password": key}),
            "AIRFLOW_CONN_PERSONAS": url,
        },
        "dagster": {
            "DAGSTER_HOME": str(folder),
            "ANAM_API_KEY": key,
            "PERSONA_ETL_DATABASE__URL": url,
        },
        "prefect": {
            "PREFECT_HOME": str(folder),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            "TEST_API_KEY": key,
            "TEST_DATABASE_URL": url,
        },
    }
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(folder),
        # Nobody is told that we were here.
        "DO_NOT_TRACK": "1",
        "DAGSTER_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **of_tool[name],
    }


def statuses(database) -> list[str]:
    found = database.execute("SELECT status FROM anam.runs ORDER BY started_at")
    return [status for (status,) in found]


def test_runs_end_as_their_exit_codes_say(orchestrator, job, database):
    tool, api = orchestrator.tool, job.api
    assert job.run("migrate", url=database.url()).returncode == 0
    api.reset()

    # 5, then 0: after a retry all is well.
    api.order(Fault(status=429, retry_after=9999))
    ended = orchestrator.run()
    assert (ended["state"], ended["tries"]) == (tool.success, 2)
    assert "created" in json.dumps(ended["shown"])

    if tool is TOOLS["dagster"]:
        assert orchestrator.run("persona_etl_fresh")["shown"] == {"passed": True}

    # 4: nobody tries again.
    api.order(Fault(status=401, times=None))
    ended = orchestrator.run()
    assert (ended["state"], ended["tries"]) == (tool.failed, 1)
    api.clear_faults()

    # 75: somebody else is at it.
    with a_run_that_waits(job, database.url()) as other:
        ended = orchestrator.run()
        other.terminate()
        other.communicate(timeout=60)
    assert (ended["state"], ended["tries"]) == (tool.skipped, 1)

    # Cancelled: the job is over before the tool says that it is.
    last, before = api.persona_ids[-1], len(orchestrator.ended())
    api.requests.clear()
    api.order(Fault(delay_seconds=60, target=last))
    orchestrator.begin("persona_etl")
    orchestrator.wait_until(lambda: api.requests.by_target[last])
    orchestrator.process.send_signal(signal.SIGTERM)
    if tool.after_sigterm is None:
        orchestrator.process.wait(60)
    else:
        orchestrator.wait_until(lambda: len(orchestrator.ended()) > before)
        assert orchestrator.ended()[-1]["state"] == tool.after_sigterm

    assert statuses(database)[:6] == [
        "deferred", "succeeded", "failed", "interrupted", "skipped", "interrupted",
    ]  # fmt: skip
    assert "interrupted; what was loaded stays" in orchestrator.printed()
    assert api.key not in orchestrator.printed()


@pytest.mark.parametrize("name", TOOLS)
def test_the_page_says_what_becomes_of_each_exit_code(name):
    """Of those that the README has for a sync; 8 is none, and 141 has nobody to print to."""
    (outcomes,) = re.findall(r"^OUTCOMES = (\{.*?^\})", source(name), re.MULTILINE | re.DOTALL)
    becomes = ast.literal_eval(outcomes)
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    codes = [
        int(code)
        for row in re.findall(r"^\| (\d.*?) \|", table, re.MULTILINE)
        for code in row.split(", ")
    ]
    page = (CHECKOUT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \| (\w+) \|", page, re.MULTILINE)
    told = {int(code): outcome for codes, outcome in rows for code in codes.split(", ")}
    assert told == {code: becomes.get(code, "failure") for code in codes if code not in (8, 141)}


def test_what_runs_the_program_is_the_same_in_all_three():
    """Each file is copied alone, so none can import it from another."""
    begins, ends = (
        "# The program, in a virtual environment",
        '    return event if "exit_code" in entry',
    )
    first, *others = [source(name).partition(begins)[2].partition(ends)[0] for name in TOOLS]
    assert len(first) > 1000
    assert others == [first, first]


def finished(does: str, tmp_path: Path, **constants: object) -> tuple[int, dict[str, Any], str]:
    """What the files make of a program that does this; without their tools, which are not here."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    whole = ast.parse(source("airflow"))
    kinds = (ast.Import, ast.Assign, ast.FunctionDef)
    module = ast.Module([node for node in whole.body if isinstance(node, kinds)], [])
    found: dict[str, Any] = {}
    exec(compile(module, "airflow", "exec"), found)
    found |= {"PROGRAM": str(program), **constants}
    with found["start"]("sync") as child:
        ended: tuple[int, dict[str, Any], str] = found["finish"](child, logging.getLogger("run"))
    return ended


@pytest.mark.parametrize(
    ("does", "code", "said"),
    [
        ("printf 'caf\\351\\n' >&2; echo '{\"counts\": {\"created\": 2}}'", 0, "2 created"),
        ('printf \'[1]\\n7\\n"x"\\n{}\\n{"level": 1, "event": 1}\\n\' >&2', 0, ""),
        ("printf '{\"run_'; exit 74", 74, ""),
        ("head -c 10000000 /dev/zero >&2; exit 9", 9, ""),
        ("kill -KILL $$", 137, ""),
        ("kill -TERM $$", 143, ""),
    ],
)
def test_whatever_the_program_prints_it_ends_as_its_exit_code_says(does, code, said, tmp_path):
    ended, _, told = finished(does, tmp_path)
    assert (ended, told) == (code, said or f"persona-etl ended with {code}")


def test_a_program_that_does_not_stop_is_killed_in_the_end(tmp_path, caplog):
    def cancel(record: logging.LogRecord) -> bool:
        caplog.handler.removeFilter(cancel)
        raise TimeoutError

    caplog.handler.addFilter(cancel)
    with pytest.raises(TimeoutError):
        finished("trap '' TERM; echo ready >&2; exec sleep 60", tmp_path, KILL_SECONDS=0.1)


@pytest.mark.parametrize("name", TOOLS)
def test_the_page_names_the_version_that_it_was_run_with(name):
    package = {"airflow": "apache-airflow-core"}.get(name, name)
    lock = (DRIVERS / f"{name}.lock").read_text(encoding="utf-8")
    (version,) = re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE)
    page = (CHECKOUT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert f"{name.title()} {version}" in page
