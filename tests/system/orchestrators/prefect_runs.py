"""Runs in Prefect's virtual environment: the flow of the folder, once for each line of stdin.

Of each run it tells how it ended, at which try, and what it left for others to read.
"""

from __future__ import annotations

import json
import os
import sys

from persona_etl_flow import API_KEY, DATABASE_URL, persona_etl
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import TaskRunSort

Secret(value=os.environ.pop("TEST_API_KEY")).save(API_KEY)
Secret(value=os.environ.pop("TEST_DATABASE_URL")).save(DATABASE_URL)
print("ready", flush=True)
for _ in sys.stdin:
    state = persona_etl(return_state=True)
    with get_client(sync_client=True) as client:
        task = client.read_task_runs(sort=TaskRunSort.EXPECTED_START_TIME_DESC, limit=1)[0]
    told = {"state": state.name, "tries": task.run_count, "shown": state.message}
    print(json.dumps(told), flush=True)
