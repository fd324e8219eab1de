"""What `report` finds: of the changes, of the runs, and of what somebody should look at."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from etl.cli.report_screen import as_lines
from etl.jobs.migrate import migrate
from etl.jobs.query import answered
from etl.jobs.report import report
from etl.report.digest import LONGEST_PROMPT
from etl.sandbox import Fault
from etl.settings import load_settings
from etl.store.engine import make_engine
from tests.cli.test_status_command import enter
from tests.db.test_attached_views import link
from tests.db.test_forget import forget_in
from tests.db.test_replay import leave_unfolded
from tests.db.test_view_session import as_role

if TYPE_CHECKING:
    from etl.report.digest import Concern, Digest, Happening
    from tests.db.conftest import Target

LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)
NEVER = "00000000-0000-4000-8000-0000000000ff"


def found(
    target: Target,
    since: datetime | timedelta = LONG_AGO,
    *,
    url: str | None = None,
    listed: int = 100,
    personas_listed: int = 0,
    **settings: str,
) -> Digest:
    return report(
        load_settings(target.environment(**settings), cwd=target.folder),
        url=url or target.url,
        since=since,
        listed=listed,
        personas_listed=personas_listed,
    )


def concerns(digest: Digest) -> dict[str, Concern]:
    """By code, but for those of links, which generated personas have by chance."""
    return {one.code: one for one in digest.concerns if not one.code.startswith("links_")}


def happened(digest: Digest, change: str, kind: str = "persona") -> list[Happening]:
    return [one for one in digest.happenings.first if (one.kind, one.change) == (kind, change)]


def counted(digest: Digest) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for day in digest.change_days:
        key = day.kind, day.change
        counts[key] = counts.get(key, 0) + day.versions
    return counts


def answers_as_printed(target: Target, digest: Digest, concern: Concern) -> int:
    """How many rows the next step has, pasted from the screen: it may stand on several lines."""
    only = replace(digest, concerns=[concern])
    (told,) = re.findall(
        r'`persona-etl query "(.*?)"`', "\n".join(as_lines(only, coloured=False)), re.DOTALL
    )
    settings = load_settings(target.environment(), cwd=target.folder)
    with answered(settings, told, url=target.url, timeout=timedelta(seconds=60)) as answer:
        assert len(answer.columns) <= 5, "more is no table on 80 columns"
        return len(list(answer.rows))


# ── What changed ─────────────────────────────────────────────────────────────────────────────────


def test_what_was_edited_is_told_with_its_reach_and_a_first_load_does_not_hide_it(target) -> None:
    told, named, gone, back, *_ = target.world.persona_ids
    target.world.edit(told, {"brain": {"systemPrompt": "You are kind. You listen."}})
    target.world.edit(named, {"shareLinks": [link(n, usageLimit=5) for n in (1, 2)]})
    target.sync()
    before = target.now()
    target.world.edit(told, {"brain": {"systemPrompt": "You are very kind, and you listen."}})
    links = [link(n, usageLimit=6) for n in (1, 2)]
    target.world.edit(named, {"name": "After", "skipGreeting": None, "shareLinks": links})
    avatar = target.world.payload(told)["avatar"]["id"]
    target.world.edit(avatar, {"activeVersion": "v9"}, "avatars")
    target.world.delete(gone)
    target.world.delete(back)
    target.sync([told, named, gone, back, *target.world.persona_ids])
    target.world.restore(back)
    target.sync()
    target.world.reshape(lambda payload: payload | {"newMember": 1})
    target.sync()
    digest = found(target, listed=1)
    assert counted(digest)["persona", "created"] == 6
    assert counted(digest)["persona", "reshaped"] == 5
    assert digest.happenings.count == sum(counted(digest).values())
    for change, persona_id in {"removed": gone, "restored": back, "created": None}.items():
        (one,) = happened(digest, change)
        assert persona_id in (None, str(one.entity_id)) or change == "removed"
    late = found(target, before)
    assert [one.name for one in happened(late, "updated")].count("After") == 1
    (renamed,) = [one for one in happened(late, "updated") if one.name != one.name_before]
    assert (str(renamed.entity_id), renamed.name) == (named, "After")
    assert {str(one.entity_id) for one in happened(late, "removed")} == {gone, back}
    assert all(one.name for one in happened(late, "removed"))
    (edited,) = happened(late, "updated", "avatar")
    live = [one for one in target.rows("personas", avatar_id=UUID(avatar)) if not one["removed_at"]]
    assert (edited.paths, edited.personas) == (["activeVersion"], len(live))
    (prompt,) = late.prompts.first
    assert (str(prompt.persona_id), late.prompts.count) == (told, 1)
    assert (prompt.old, prompt.new) == (
        "You are kind. You listen.",
        "You are very kind, and you listen.",
    )
    # `You` is there once less, `very`, `and` and `you` are new.
    assert (prompt.words_gone, prompt.words_come) == (1, 3)
    assert prompt.not_before
    assert prompt.not_before <= prompt.at
    fields = {(one.kind, one.path): one.versions for one in late.changed_fields.first}
    assert fields["avatar", "activeVersion"] == fields["persona", "brain.systemPrompt"] == 1
    # In one version, though of two links.
    assert fields["persona", "shareLinks[].usageLimit"] == fields["persona", "name"] == 1
    assert ("persona", "newMember") not in fields
    assert (late.totals.live, late.totals.removed) == (5, 1)
    assert concerns(late).keys() == {"drift"}


def test_a_prompt_that_goes_with_its_brain_has_changed_and_a_long_one_is_cut(target) -> None:
    bare, long, *_ = target.world.persona_ids
    target.world.edit(bare, {"brain": {"systemPrompt": None}})
    target.sync()
    before = target.now()
    target.world.edit(bare, {"brain": None})
    target.world.edit(long, {"brain": {"systemPrompt": "Wort " * 1_000_000}})
    target.sync()
    digest = found(target, before)
    (prompt,) = digest.prompts.first
    assert (digest.prompts.count, str(prompt.persona_id)) == (1, long)
    assert prompt.new == ("Wort " * 1_000_000)[:LONGEST_PROMPT]
    assert (prompt.new_length, prompt.words_come) == (5_000_000, None)
    before = target.now()
    target.world.edit(long, {"brain": None})
    target.sync()
    (prompt,) = found(target, before).prompts.first
    assert (prompt.old_length, prompt.new, prompt.new_length) == (5_000_000, None, None)


def test_the_past_that_is_not_kept_and_times_without_end_are_told_as_far_as_they_go(target) -> None:
    persona_id = target.world.persona_ids[0]
    before = target.now()
    target.world.edit(persona_id, {"name": "After", "brain": {"systemPrompt": "New."}})
    target.sync()
    target.is_corrupted = True
    where = f"WHERE entity_id = '{persona_id}'"
    target.query(
        "UPDATE document_versions SET change = 'pruned', content_hash = NULL,"
        f" last_observed_at = 'infinity' {where} AND version = 1"
    )
    digest = found(target)
    assert counted(digest)["persona", "pruned"] == 1
    assert happened(digest, "pruned")[0].name == "After"
    (prompt,) = found(target, before).prompts.first
    assert (prompt.old, prompt.words_gone, prompt.not_before) == (None, None, None)
    assert happened(found(target, before), "updated")[0].not_before is None


def test_a_field_of_several_links_has_changed_once_in_a_version(target) -> None:
    target.world.edit(target.world.persona_ids[0], {"name": "After"})
    target.sync()
    target.is_corrupted = True
    target.query(
        "UPDATE document_versions SET changed_paths = %s WHERE change = 'updated'",
        [[f"shareLinks[{uuid4()}].enabled" for _ in range(3)]],
    )
    (field,) = found(target).changed_fields.first
    assert (field.path, field.versions) == ("shareLinks[].enabled", 1)


# ── What somebody should look at ─────────────────────────────────────────────────────────────────


def test_an_empty_database_says_what_to_do_and_has_no_changes(copying) -> None:
    with copying(count=1) as target:
        digest = found(target)
        assert (digest.happenings.count, digest.runs.count, digest.totals.live) == (0, 0, 0)
        (concern,) = digest.concerns
        assert (concern.code, concern.level) == ("no_sync", "act")
        assert "`persona-etl sync`" in str(concern.next_step)
        (persona_id,) = target.world.persona_ids
        seen = {"observed_at": "2026-01-01T00:00:00Z"}
        target.load(seen | {"payload": target.world.payload(persona_id)})
        digest = found(target)
        assert concerns(digest)["no_sync"].level == "look"
        assert digest.ages[-1].personas == 1
        target.sync()
        assert concerns(found(target)).keys() <= {"drift"}
        target.world.delete(persona_id)
        target.sync([persona_id])
        concern = concerns(found(target))["none_live"]
        assert (concern.level, concern.told) == ("act", "No persona is live: 1 was removed.")


def test_options_that_went_with_the_voice_are_told_until_somebody_sets_them(target) -> None:
    persona_id = target.world.persona_ids[0]
    one, other, *_ = target.world.shared_ids("voices")
    target.world.edit(persona_id, {"voice": one, "voiceGenerationOptions": {"stability": 0.5}})
    target.sync()
    assert "voice_options_lost" not in concerns(found(target))
    target.world.edit(
        persona_id, {"voice": other, "voiceGenerationOptions": None, "name": "Who \x1b[2J"}
    )
    target.sync()
    concern = concerns(found(target))["voice_options_lost"]
    assert (concern.count, concern.level) == (1, "act")
    assert concern.told.startswith("Who [2J lost")
    target.world.edit(persona_id, {"voiceGenerationOptions": {"stability": 0.7}})
    target.sync()
    assert "voice_options_lost" not in concerns(found(target))


def test_who_fails_and_who_was_never_seen_is_told_and_who_was_forgotten_is_not(target) -> None:
    failing, *others = target.world.persona_ids
    target.sandbox.order(Fault(status=400, target=failing, times=None))
    target.sync([failing, *others, NEVER])
    forgotten = str(uuid4())
    target.load({"observed_at": "2026-01-01T00:00:00Z", "persona_id": forgotten, "payload": None})
    forget_in(target, forgotten)
    ids = ",".join([failing, *others, NEVER, str(uuid4()), forgotten])
    digest = found(target, PERSONAS__IDS=ids)
    told = concerns(digest)
    assert told["failing"].count == 1
    assert "last seen" in told["failing"].told
    assert [str(one.persona_id) for one in digest.failing.first] == [failing]
    assert told["never_seen"].count == digest.never_seen.count == 2
    assert NEVER in [str(one.persona_id) for one in digest.never_seen.first]
    assert "stale" not in told


def test_who_is_not_asked_for_any_more_is_stale_where_syncs_go_on(target) -> None:
    target.is_corrupted = True
    kept, left, *_ = target.world.persona_ids
    target.query(
        "UPDATE persona_sync_state SET last_success_at = now() - interval '30 hours'"
        " WHERE persona_id = %s",
        [left],
    )
    assert concerns(found(target))["stale"].count == 1
    ages = {band.label: band.personas for band in found(target).ages if band.personas}
    assert ages == {"under 1 h": 5, "1 to 7 d": 1}
    # Of whom the settings don't name nobody expects it.
    assert "stale" not in concerns(found(target, PERSONAS__IDS=kept))


def test_how_late_a_sync_is_depends_on_how_often_they_come(target) -> None:
    target.is_corrupted = True

    def age(interval: str) -> None:
        target.query(
            f"UPDATE runs SET started_at = started_at - interval '{interval}',"
            f" finished_at = finished_at - interval '{interval}'"
        )

    age("30 hours")
    digest = found(target, timedelta(days=7))
    assert digest.rhythm.late_after_seconds == timedelta(days=1).total_seconds()
    assert "more than 24 h is unusual" in concerns(digest)["sync_late"].told
    assert digest.rhythm.longest_gap_seconds == pytest.approx(30 * 3600, abs=60)
    for _ in range(3):
        enter(target.url, status="partial")
        age("7 days")
    digest = found(target, timedelta(days=7))
    assert digest.rhythm.late_after_seconds == pytest.approx(21 * 86400, abs=60)
    assert "sync_late" not in concerns(digest)
    assert digest.runs.count == 0
    assert digest.rhythm.longest_gap_seconds == pytest.approx(7 * 86400, abs=60)
    succeeded, completed = digest.rhythm.last_success_at, digest.rhythm.last_complete_at
    assert succeeded
    assert completed
    assert succeeded < completed


def test_runs_that_stopped_failed_or_died_are_told(target) -> None:
    first, second, *_ = target.world.persona_ids
    target.world.delete(first)
    target.world.delete(second)
    assert target.sync([first, second]).exit_code == 7
    told = concerns(found(target))["mass_removal"]
    assert told.level == "act"
    assert "none was removed" in told.told
    target.query(
        "UPDATE runs SET started_at = started_at - interval '1 h',"
        " finished_at = finished_at - interval '1 h'"
    )
    enter(target.url, status="failed", error="the API is \x1b[31m gone")
    digest = found(target)
    assert concerns(digest)["mass_removal"].level == "look"
    assert concerns(digest)["sync_failed"].told.endswith("the API is [31m gone")
    target.query("UPDATE runs SET status = 'running', finished_at = NULL WHERE status = 'failed'")
    assert concerns(found(target))["died"].count == 2
    sums = {(one.command, one.status): one for one in found(target).run_sums}
    assert sums["sync", "running"].runs == 2
    assert sums["sync", "running"].median_seconds is None
    assert sums["sync", "succeeded"].slowest_seconds is not None


def test_a_load_that_was_cut_short_and_what_did_not_fit_are_told(target) -> None:
    target.is_corrupted = True
    first, second, *_ = target.world.persona_ids
    target.world.edit(first, {"voiceSpeed": "fast"})
    target.sandbox.order(Fault(status=200, wrong="html", target=second, times=None))
    target.sync()
    leave_unfolded(target, first)
    told = concerns(found(target))
    assert told.keys() >= {"value_issues", "rejected", "unfolded", "failing", "drift"}
    assert "voiceSpeed" in told["value_issues"].told
    for code in ("value_issues", "rejected"):
        assert answers_as_printed(target, found(target), told[code]) == told[code].count
    assert next(iter(told)) in {"unfolded", "failing"}
    assert "rejected" not in concerns(found(target, target.now()))


def test_links_are_told_once_each_the_most_urgent_first(target) -> None:
    target.is_corrupted = True
    target.query("DELETE FROM share_link_allowed_origins")
    target.query("DELETE FROM share_links")
    ids = {}
    for why, values in {
        "fine": "true, now() + interval '15 days', NULL, NULL, false",
        "wide": "true, NULL, NULL, NULL, true",
        "expired": "true, now() - interval '2 days', NULL, NULL, true",
        "used up": "true, NULL, 5, 5, false",
        "soon": "true, now() + interval '49 hours', NULL, NULL, true",
        "off": "false, now() - interval '2 days', NULL, NULL, true",
        "endless": "true, 'infinity', NULL, NULL, true",
    }.items():
        ids[why] = uuid4()
        target.query(
            "INSERT INTO share_links (share_link_id, persona_id, enabled, expires_at, usage_limit,"
            f" usage_count, allow_all_origins) VALUES (%s, %s, {values})",
            [ids[why], target.world.persona_ids[0]],
        )
    digest = found(target)
    listed = [one.share_link_id for one in digest.links.first]
    assert listed[:3] == [ids["soon"], ids["used up"], ids["expired"]]
    assert set(listed[3:]) == {ids["wide"], ids["endless"]}
    assert digest.links.count == 5
    assert digest.links.first[0].why == "expires in 2 d 1 h, opens on every site"
    counts = {one.code: one.count for one in digest.concerns if one.code.startswith("links_")}
    assert counts == {"links_expiring": 1, "links_used_up": 1, "links_expired": 1, "links_open": 3}
    for concern in digest.concerns:
        if concern.code.startswith("links_"):
            assert answers_as_printed(target, digest, concern) == concern.count, concern


# ── Whoever asks ─────────────────────────────────────────────────────────────────────────────────


def test_a_role_that_may_read_the_reports_alone_is_told_the_same(role, target) -> None:
    target.world.edit(target.world.persona_ids[0], {"brain": {"systemPrompt": "New."}})
    target.sync()
    migrate(make_engine(target.url, target.schema), target.schema, readers=[role])
    since = timedelta(days=1)
    owners = found(target, since, personas_listed=4)
    readers = found(target, since, personas_listed=4, url=as_role(target, role))
    assert [len(one.personas.first) for one in (owners, readers)] == [4, 4]
    for field in ("totals", "happenings", "prompts", "change_days", "runs", "links", "personas"):
        assert getattr(readers, field) == getattr(owners, field), field
    assert owners.personas.count == 6


def test_a_schema_may_have_any_name(copying, empty_database_url) -> None:
    schema = 'odd "name":now %s'
    migrate(make_engine(empty_database_url, schema), schema)
    with copying(count=2, url=empty_database_url, schema=schema) as target:
        target.sync()
        digest = found(target)
    assert (digest.schema, digest.totals.live) == (schema, 2)
