"""The views of the ledger: the runs, what became of whom in them, and what did not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl import tables
from etl.report.ours import text
from etl.report.views import View, comments, listed

if TYPE_CHECKING:
    from sqlalchemy import Table


def runs_view() -> View:
    """The ledger."""
    runs = tables.runs
    columns = {
        **comments(*runs.c),
        "duration_seconds": "From start to end; NULL while it runs.",
    }
    query = f"""
SELECT {listed("run", runs)},
       CASE WHEN isfinite(run.started_at) AND isfinite(run.finished_at)
            THEN extract(epoch FROM run.finished_at - run.started_at)
       END AS duration_seconds
  FROM runs AS run
"""
    return View("runs", "The ledger: a row a run, with how long it took.", columns, query)


def run_items_view() -> View:
    """A row a persona that a run did something to, or could not."""
    items, runs = tables.run_items, tables.runs
    columns = {
        **comments(items.c.run_id, runs.c.command, runs.c.started_at, items.c.persona_id),
        **comments(tables.personas.c.name),
        **comments(*(c for c in items.c if c.name not in {"run_id", "persona_id"})),
    }
    query = f"""
SELECT {listed("item", items)},
       run.command,
       run.started_at,
       persona.name
  FROM run_items AS item
  JOIN runs AS run ON run.run_id = item.run_id
  LEFT JOIN personas AS persona ON persona.persona_id = item.persona_id
"""
    comment = "What a run did to whom, with the persona's name. Unchanged personas have no row."
    return View("run_items", comment, columns, query)


def value_issues_view() -> View:
    """A row a value that did not fit its column."""
    issues = tables.value_issues
    columns = {
        **comments(issues.c.kind, issues.c.entity_id),
        "name": "What it is called; of a removed one, what it was called last.",
        **comments(*(c for c in issues.c if c.name not in {"kind", "entity_id"})),
    }
    query = f"""
SELECT {listed("issue", issues)},
       {_name_of("issue.kind", "issue.entity_id")} AS name
  FROM value_issues AS issue
"""
    return View("value_issues", _told(issues), columns, query)


def _name_of(kind: str, entity_id: str) -> str:
    """SQL of what an entity is called in the tables, where a removed one keeps its name."""
    cases = []
    for known in tables.KINDS:
        entity = tables.entity_table(known)
        (key,) = entity.primary_key.columns
        named = tables.name_column(known).name
        cases.append(
            f"""WHEN {text(known)} THEN (SELECT entity.{named} FROM {entity.name} AS entity
                                    WHERE entity.{key.name} = {entity_id})"""
        )
    return f"CASE {kind} {' '.join(cases)} END"


def rejections_view() -> View:
    """A row an answer that is no persona; what it held is in the table."""
    rejected = tables.rejected_payloads
    shown = [c for c in rejected.c if c.name != "body"]
    selected = ",\n       ".join(f"rejected.{c.name}" for c in shown)
    query = f"SELECT {selected}\n  FROM rejected_payloads AS rejected"
    return View("rejected_payloads", _told(rejected), comments(*shown), query)


def _told(table: Table) -> str:
    return table.comment or ""
