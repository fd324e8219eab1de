"""persona-etl as an asset of Dagster: docs/dagster.md. Copy this file into a code location."""

import json
import logging
import os
import subprocess
import threading

import dagster as dg

# A persona that was not seen for so long is stale.
MAX_AGE = "2h"

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


@dg.asset(group_name="anam", kinds={"postgres"}, pool="persona_etl", output_required=False)
def personas(context: dg.AssetExecutionContext):
    """Anam's personas and their history, in Postgres."""
    code, summary, said = finish(start("sync"), context.log)
    metadata = {
        "exit_code": code,
        "run_id": summary.get("run_id") or "",
        **summary.get("counts", {}),
    }
    match OUTCOMES.get(code, "failure"):
        case "success":
            context.log.log(logging.WARNING if code else logging.INFO, "exit %d: %s", code, said)
            yield dg.MaterializeResult(metadata=metadata)
        case "skip":
            # The step succeeds, and nothing is materialized.
            context.log.info("skipped: %s", said)
        case "retry":
            again = dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=RETRY_SECONDS)
            raise again from RuntimeError(f"exit {code}: {said}")
        case _:
            raise dg.Failure(f"exit {code}: {said}", metadata=metadata, allow_retries=False)


@dg.asset_check(asset=personas)
def fresh(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Whether each persona was seen within MAX_AGE, whoever copied it."""
    code, summary, said = finish(start("status", "--max-age", MAX_AGE), context.log)
    # 8 is the answer no. Any other is no answer.
    if code not in (0, 8):
        raise dg.Failure(f"exit {code}: {said}", allow_retries=False)
    return dg.AssetCheckResult(passed=code == 0, description=said, metadata={"status": summary})


sync_job = dg.define_asset_job(
    "persona_etl",
    selection=dg.AssetSelection.assets(personas).without_checks(),
    tags={"dagster/max_runtime": str(TIMEOUT_SECONDS)},
)
# On its own: in the job above it would only look after a sync that went well.
fresh_job = dg.define_asset_job(
    "persona_etl_fresh", selection=dg.AssetSelection.checks_for_assets(personas)
)

defs = dg.Definitions(
    assets=[personas],
    asset_checks=[fresh],
    jobs=[sync_job, fresh_job],
    schedules=[
        dg.ScheduleDefinition(job=sync_job, cron_schedule="7,37 * * * *", execution_timezone="UTC"),
        dg.ScheduleDefinition(job=fresh_job, cron_schedule="0 * * * *", execution_timezone="UTC"),
    ],
)
