"""`--all`: every persona that the API lists, and every live one that it lists no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from msgspec.structs import replace

from etl.sandbox import Fault

if TYPE_CHECKING:
    from tests.db.conftest import Target

# Who is asked for is decided here, not there: other files send the same statements.
pytestmark = pytest.mark.one_server


@pytest.fixture
def unread(copying):
    """A target with more personas than one page lists, none of them copied."""
    with copying(count=120) as made:
        yield made


def test_all_pages_are_read_and_each_persona_is_asked_for_once(unread):
    some = unread.world.persona_ids[:3]
    summary = unread.sync(some, discover=True)
    assert (summary.counts["requested"], summary.counts["created"]) == (120, 120)
    asked = unread.sandbox.requests.by_target
    assert [asked[persona_id] for persona_id in unread.world.persona_ids] == [1] * 120
    assert summary.http_requests == 120 + asked["list"]


def test_a_live_persona_that_is_listed_no_longer_is_asked_for(target):
    gone, *rest = target.world.persona_ids
    target.world.delete(gone)
    summary = target.sync(rest, discover=True)
    assert summary.counts["missing"] == 1
    assert target.persona(gone)["removed_at"] is not None
    again = target.sync(rest, discover=True)
    assert (again.counts["requested"], again.counts["missing"]) == (5, 0)


def test_ids_that_the_api_does_not_list_are_asked_for_too(target, caplog):
    nobody = "00000000-0000-4000-8000-0000000000ff"
    summary = target.sync([nobody], discover=True)
    assert (summary.counts["requested"], summary.counts["missing"]) == (7, 1)
    assert nobody in caplog.text


@pytest.mark.parametrize(
    ("fault", "exit_code"), [(Fault(status=401), 4), (Fault(status=403), 4), (Fault(status=400), 5)]
)
def test_without_a_list_the_run_ends_and_is_in_the_books(target, fault, exit_code):
    target.sandbox.order(replace(fault, target="list"))
    summary = target.sync(discover=True)
    assert (summary.status, summary.exit_code) == ("failed", exit_code)
    assert summary.counts["not_attempted"] == 6
    assert "persona" in str(summary.error)


def test_a_wait_that_is_too_long_defers_the_run(target):
    target.sandbox.order(Fault(status=429, headers={"Retry-After": "9999"}, target="list"))
    summary = target.sync(discover=True)
    assert (summary.status, summary.exit_code) == ("deferred", 5)


def test_a_deadline_bounds_the_listing_too(target):
    target.sandbox.order(Fault(delay_seconds=5, target="list"))
    summary = target.sync(discover=True, SAFETY__RUN_DEADLINE_SECONDS="0.1")
    assert (summary.status, summary.exit_code) == ("deferred", 5)


def test_nothing_listed_is_said(copying, caplog):
    with copying(count=0) as empty:
        summary = empty.sync([], discover=True)
        assert (summary.counts["requested"], summary.exit_code) == (0, 0)
        assert "lists no personas" in caplog.text


def test_a_dry_run_discovers_as_well(unread: Target) -> None:
    summary, foreseen = unread.dry_run([unread.world.persona_ids[0]], discover=True)
    assert summary.counts["created"] == 120
    assert len({change.entity_id for change in foreseen if change.kind == "persona"}) == 120
    assert UUID(unread.world.persona_ids[119]) in {change.entity_id for change in foreseen}
