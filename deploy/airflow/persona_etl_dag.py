"""persona-etl as a DAG of Airflow 3: docs/airflow.md. Copy this file into the folder of DAGs."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, BaseOperator, Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

# Connections of Airflow: the password of the first is the API key, the second is a Postgres.
API = "anam"
DATABASE = "personas"

# The program, in a virtual environment of its own; nothing of it is imported here.
PROGRAM = "/opt/persona-etl/bin/persona-etl"
SETTINGS = "/etc/persona-etl/persona-etl.toml"

# When the job stops asking by itself, and when it is stopped. It needs some time in between.
DEADLINE_SECONDS = 25 * 60
TIMEOUT_SECONDS = 30 * 60
# When it is killed that has not stopped by then.
KILL_SECONDS = 2 * 60

RETRIES = 2
RETRY_SECONDS = 5 * 60

# What becomes of each exit code. Those that are not here fail, and a retry would not help them.
OUTCOMES = {
    0: "success",
    # Some personas failed, the others are copied. As "success" it would warn in the log only.
    3: "failure",
    # The API, Postgres, or a signal that was not ours: likely to be over in a few minutes.
    5: "retry",
    6: "retry",
    130: "retry",
    143: "retry",
    # Another run is at it.
    75: "skip",
}


def start(*command: str, **secrets: str) -> subprocess.Popen[str]:
    """Start a command. Secrets go through its environment: everybody may read a command line."""
    environment = {
        "PERSONA_ETL_CONFIG": SETTINGS,
        **os.environ,
        "PERSONA_ETL_SAFETY__RUN_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
        **secrets,
    }
    # Modules of the orchestrator would come before the program's own.
    environment.pop("PYTHONPATH", None)
    return subprocess.Popen(
        [PROGRAM, "--log-format", "json", *command, "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whatever it prints is no reason to stop it.
        encoding="utf-8",
        errors="replace",
        # What is sent to our whole group is not for it: a second SIGTERM would hurry it, and when
        # we are killed it can still finish what it has begun.
        start_new_session=True,
    )


def finish(child: subprocess.Popen[str], log: logging.Logger) -> tuple[int, dict, str]:
    """Wait for the end. Returns the exit code, what `--json` printed, and how it went in words."""
    said = ""
    try:
        # What it prints to stdout is one small object, which the pipe holds until it is read.
        for line in child.stderr:
            said = tell(line, log) or said
        code = child.wait()
    except BaseException:
        # Cancelled, or too late. It loads what has arrived and closes its row in the ledger.
        child.terminate()
        late = threading.Timer(KILL_SECONDS, child.kill)
        late.start()
        try:
            for line in child.stderr:
                tell(line, log)
            child.wait()
        finally:
            late.cancel()
        raise
    # As shells count those that a signal ended.
    code = 128 - code if code < 0 else code
    try:
        summary = json.loads(child.stdout.read())
    except ValueError:
        # It failed before it printed anything, or while it did.
        summary = {}
    counts = {name: count for name, count in summary.get("counts", {}).items() if count}
    counted = ", ".join(f"{count} {name}" for name, count in counts.items())
    return code, summary, said or counted or f"persona-etl ended with {code}"


def tell(line: str, log: logging.Logger) -> str:
    """Pass on one line of the log, at its level. Returns the error, if it is one."""
    try:
        entry = json.loads(line)
        level = getattr(logging, entry.pop("level").upper())
        event = entry.pop("event")
    except (ValueError, TypeError, LookupError, AttributeError):
        log.error("%s", line.rstrip())  # noqa: TRY400  about the line, not how we read it
        return ""
    more = [f"{name}={said}" for name, said in entry.items() if name not in ("timestamp", "logger")]
    log.log(level, "%s", " ".join([event, *more]))
    # Of the error that ended the run; its summary has an exit code too.
    return event if "exit_code" in entry and level == logging.ERROR else ""


class PersonaEtl(BaseOperator):
    """Runs `persona-etl sync` and ends as its exit code says."""

    child = None

    def execute(self, context):
        """Put the summary into the XCom `return_value`, however it ended."""
        log = logging.getLogger(__name__)
        key = Connection.get(API).password
        url = Connection.get(DATABASE).get_uri()
        self.child = start("sync", ANAM_API_KEY=key, PERSONA_ETL_DATABASE__URL=url)
        code, summary, said = finish(self.child, log)
        context["ti"].xcom_push("return_value", summary)
        match OUTCOMES.get(code, "failure"):
            case "success":
                log.log(logging.WARNING if code else logging.INFO, "exit %d: %s", code, said)
            case "skip":
                raise AirflowSkipException(said)
            case "retry":
                raise AirflowException(f"exit {code}: {said}")
            case _:
                raise AirflowFailException(f"exit {code}: {said}")

    def on_kill(self):
        """Pass the signal on; `execute` waits for the end."""
        if self.child is not None:
            self.child.terminate()


with DAG(
    "persona_etl",
    description="Copies Anam personas into Postgres, with their history",
    schedule="7,37 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # The API shows only now: one run brings all that has changed since the last.
    catchup=False,
    max_active_runs=1,
) as dag:
    PersonaEtl(
        task_id="sync",
        retries=RETRIES,
        retry_delay=timedelta(seconds=RETRY_SECONDS),
        execution_timeout=timedelta(seconds=TIMEOUT_SECONDS),
    )
