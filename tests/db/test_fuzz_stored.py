"""Postgres takes whatever becomes of hostile bodies, and a replay finds the tables right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from etl.sandbox import World
from tests.unit.hostile_bodies import hostile_bodies
from tests.unit.strategies import PERSONA_ID, properties

if TYPE_CHECKING:
    from tests.db.conftest import Target

PERSONAS = [f"00000000-0000-4000-8000-0000000000{n}" for n in ("b1", "b2", "b3")]


@pytest.fixture
def empty(copying):
    """A target to which the bodies bring their own personas."""
    with copying(World()) as made:
        yield made


def serve(target: Target, bodies: list[bytes]) -> list[str]:
    """Serves the bodies, a persona each; whose they are."""
    for persona_id, body in zip(PERSONAS, bodies, strict=False):
        own = re.sub(str(PERSONA_ID).encode(), persona_id.encode(), body, flags=re.IGNORECASE)
        target.world.set_payload(persona_id, own)
    return PERSONAS[: len(bodies)]


def assert_all_was_stored(target: Target) -> None:
    """Nobody was rejected by Postgres, or for a bug; and what is told is what was loaded."""
    summary = target.reports[-1]
    refused = [
        (row["persona_id"], row["message"])
        for row in target.rows("run_items", run_id=summary.run_id)
        if row["outcome"] == "failed" or "Postgres" in (row["message"] or "")
    ]
    assert refused == []
    assert summary.counts["not_attempted"] == 0
    event(", ".join(name for name, count in summary.counts.items() if count))


@properties(25)
@given(st.lists(hostile_bodies(rough=False), min_size=2, max_size=3))
def test_postgres_takes_whatever_hostile_personas_flatten_to(empty, bodies):
    ids = serve(empty, bodies)
    empty.sync(ids)
    assert_all_was_stored(empty)
    before = [empty.versions(persona_id) for persona_id in ids]
    empty.sync(ids)
    assert [empty.versions(persona_id) for persona_id in ids] == before
    empty.check_replay()


# The test above stores the same; test_dry_run.py sends the statements of a rehearsal.
@pytest.mark.one_server
@properties(10)
@given(st.lists(hostile_bodies(), min_size=2, max_size=3))
def test_a_dry_run_foresees_what_hostile_personas_come_to(empty, bodies):
    ids = serve(empty, bodies)
    said, _ = empty.dry_run(ids, API__CONCURRENCY="1")
    vanished_before = vanished(empty)
    did = empty.sync(ids, API__CONCURRENCY="1")
    assert_all_was_stored(empty)
    assert said.counts == did.counts
    assert said.value_issues == did.value_issues
    # What no longer comes is seen in what a run has written.
    assert said.new_drift_paths == did.new_drift_paths - len(vanished(empty) - vanished_before)


def vanished(target: Target) -> set[tuple[str, str]]:
    """The fields that the API no longer sends."""
    rows = target.rows("drift_paths", problem="missing", status="open")
    return {(row["kind"], row["path"]) for row in rows}
