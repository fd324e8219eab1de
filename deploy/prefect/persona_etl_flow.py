"""persona-etl as a flow of Prefect 3: docs/prefect.md. `python persona_etl_flow.py` serves it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading

from prefect import flow, get_run_logger, task
from prefect.blocks.system import Secret
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.schedules import Cron
from prefect.states import Completed, Failed, State

# Blocks of the type Secret.
API_KEY = "anam-api-key"
DATABASE_URL = "personas-database-url"

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


class TryAgainError(Exception):
    """What is likely to be over in a few minutes."""


def is_worth_a_retry(_task, _task_run, state) -> bool:
    """Of all that can go wrong with a task."""
    return isinstance(state.result(raise_on_failure=False), TryAgainError)


@task(
    retries=RETRIES,
    retry_delay_seconds=RETRY_SECONDS,
    retry_condition_fn=is_worth_a_retry,
    timeout_seconds=TIMEOUT_SECONDS,
)
def sync():
    """Run `persona-etl sync` and end as its exit code says."""
    key, url = Secret.load(API_KEY).get(), Secret.load(DATABASE_URL).get()
    child = start("sync", ANAM_API_KEY=key, PERSONA_ETL_DATABASE__URL=url)
    code, summary, said = finish(child, get_run_logger())
    match OUTCOMES.get(code, "failure"):
        case "success":
            return Completed(name="Partial" if code else None, message=said, data=summary)
        case "skip":
            return Completed(name="Skipped", message=said, data=summary)
        case "retry":
            raise TryAgainError(f"exit {code}: {said}")
        case _:
            return Failed(message=f"exit {code}: {said}", data=summary)


@flow(name="persona-etl")
def persona_etl():
    """Copy Anam personas into Postgres, with their history."""
    state = sync(return_state=True)
    # A task's own state would only be counted. One like it becomes the flow's, words and all.
    return State(type=state.type, name=state.name, message=state.message)


DEPLOYMENT = {
    "name": "half-hourly",
    "schedules": [Cron("7,37 * * * *", timezone="UTC")],
    # A run that comes while another is under way is cancelled: the next brings what it would have.
    "global_limit": ConcurrencyLimitConfig(
        limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
    ),
}

if __name__ == "__main__":
    persona_etl.serve(**DEPLOYMENT)
