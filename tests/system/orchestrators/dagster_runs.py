"""Runs in Dagster's virtual environment: a job of the folder for each line of stdin that names it.

Of each run it tells how it ended, at which try, and what it left for others to read.
"""

from __future__ import annotations

import json
import sys

import dagster as dg
from persona_etl_dagster import defs

instance = dg.DagsterInstance.local_temp()
print("ready", flush=True)
for line in sys.stdin:
    job = defs.get_job_def(line.strip())
    run = job.execute_in_process(instance=instance, raise_on_error=False)
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    retries = sum(event.is_step_restarted for event in events)
    shown: dict[str, object] = {}
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            found = event.step_materialization_data.materialization.metadata
            shown |= {name: value.value for name, value in found.items()}
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            shown["passed"] = event.asset_check_evaluation_data.passed
        elif event.is_step_failure:
            shown["error"] = event.step_failure_data.error.message
    state = instance.get_run_by_id(run.run_id).status.value
    print(json.dumps({"state": state, "tries": retries + 1, "shown": shown}), flush=True)
