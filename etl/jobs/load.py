"""Writes what a batch comes to. A dry run has no use for this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.jobs.reckoning import reckon
from etl.store.ahead import Ahead
from etl.store.drift import record
from etl.store.issues import record_issues
from etl.store.ledger import add_items, add_rejections
from etl.store.observations import add_documents
from etl.store.projections import project, update_observed
from etl.store.states import save_states
from etl.store.versions import write

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.reckoning import Batch, Reckoned


def load(connection: Connection, batch: Batch, run_id: UUID) -> Reckoned:
    """Reckons a batch, then writes documents, observations, versions, rows and the ledger.

    A 404 is only entered in the ledger: removals are judged together, at the end of the run. Raises
    the driver's error when Postgres refuses the data; the caller splits the batch then.
    """
    reckoned = reckon(connection, batch, run_id, Ahead())
    if reckoned.news is not None:
        add_documents(connection, reckoned.news.documents)
        write(connection, reckoned.news.folded)
    # A persona brought just now may refer to a shared document that was not, and the reverse.
    late = [document for document in reckoned.stored if document.kind == "persona"]
    project(connection, [d for d in reckoned.stored if d.kind != "persona"])
    project(connection, reckoned.projected)
    project(connection, late, are_late=True)
    update_observed(connection, reckoned.observed)
    record_issues(connection, reckoned.issues)
    record(connection, reckoned.drift.rows)
    save_states(connection, reckoned.states)
    add_items(connection, run_id, reckoned.items)
    add_rejections(connection, run_id, reckoned.rejections)
    return reckoned
