"""The files of deploy/airflow, deploy/dagster and deploy/prefect: each in its own tool, for real.

Each tool has a virtual environment of its own, without persona-etl in it, which `make test-system`
makes. In it a process runs the file as often as it is told to (tests/system/orchestrators).
"""

from __future__ import annotations

import json
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
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
DRIVERS = Path(__file__).parent / "orchestrators"
PROGRAM = Path(sys.executable).with_name("persona-etl")
ENVIRONMENTS = Path(sys.prefix) / "orchestrators"


class Tool(NamedTuple):
    """An orchestrator: its file, what it is asked to run, and its names for how a run ends."""

    file: str
    job: str
    success: str
    skipped: str
    failed: str


TOOLS = {
    "airflow": Tool("persona_etl_dag", "persona_etl", "success", "skipped", "failed"),
    "dagster": Tool("persona_etl_dagster", "persona_etl", "SUCCESS", "SUCCESS", "FAILURE"),
    "prefect": Tool("persona_etl_flow", "persona-etl", "Completed", "Skipped", "Failed"),
}


def source(name: str) -> str:
    return (CHECKOUT / "deploy" / name / f"{TOOLS[name].file}.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Orchestrator:
    """A process in which a tool runs the file, and the log that it writes."""

    tool: Tool
    process: subprocess.Popen[str]
    log: Path

    def begin(self, job: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{job or self.tool.job}\n")
        self.process.stdin.flush()

    def told(self) -> dict[str, Any]:
        """What the next line of stdout says, of a run or of nothing else."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # Some tools log to stdout.
            if line.startswith('{"state": '):
                ended: dict[str, Any] = json.loads(line)
                return ended
        raise AssertionError(self.log.read_text(encoding="utf-8"))

    def run(self, job: str = "") -> dict[str, Any]:
        self.begin(job)
        return self.told()


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
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [ENVIRONMENTS / name / "bin" / "python", DRIVERS / f"{name}_runs.py"],
            cwd=folder,
            env=environment(folder, name, job.api.key, database.url()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    with process:
        try:
            yield Orchestrator(tool, process, log)
        finally:
            process.kill()


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

    # 3: the others are copied.
    api.order(Fault(status=403, target=api.persona_ids[0]))
    ended = orchestrator.run()
    assert (ended["state"], ended["tries"]) == (tool.failed, 1)

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

    # Cancelled: what the tool stops is over before the tool says so.
    last = api.persona_ids[-1]
    api.requests.clear()
    api.order(Fault(delay_seconds=60, target=last))
    orchestrator.begin()
    wait_until(lambda: api.requests.by_target[last], orchestrator)
    orchestrator.process.send_signal(signal.SIGTERM)
    print(orchestrator.process.communicate(timeout=60)[0], orchestrator.process.returncode)

    assert statuses(database)[:7] == [
        "deferred", "succeeded", "partial", "failed", "interrupted", "skipped", "interrupted",
    ]  # fmt: skip
    log = orchestrator.log.read_text(encoding="utf-8")
    assert "interrupted; what was loaded stays" in log
    assert api.key not in log
    print(log)
    assert 0


def wait_until(happens, orchestrator: Orchestrator) -> None:
    deadline = time.monotonic() + 60
    while not happens():
        assert orchestrator.process.poll() is None, orchestrator.log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline
        time.sleep(0.02)
