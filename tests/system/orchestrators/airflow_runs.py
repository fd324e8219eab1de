"""Runs in Airflow's virtual environment: the DAG of the folder, once for each line of stdin.

Of each run it tells how the task ended, at which try, and what it left for others to read.
"""

from __future__ import annotations

import json
import sys

from airflow.utils.db import initdb
from persona_etl_dag import dag

initdb()
print("ready", flush=True)
for _ in sys.stdin:
    (task,) = dag.test().get_task_instances()
    told = {"state": task.state, "tries": task.try_number, "shown": task.xcom_pull("sync")}
    print(json.dumps(told), flush=True)
