"""What somebody should know, out of what the report has read: a sentence each, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from etl.jobs.report_state import EXPIRES_SOON
from etl.report.digest import Concern
from etl.report.text import as_line, counted, length_of_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from etl.jobs.report_state import LinkSums, Told
    from etl.report.digest import Drift, Listed, Rhythm, Totals, Trouble
    from etl.store.entries import RunRow

_LONGEST_NAME = 30
_LONGEST_ERROR = 400

_HOUR = timedelta(hours=1)

# What is asked for next are rows that were counted, as a table of 80 columns has room for.
_A_LINK = "SELECT persona_name, type"

# Endings of a sync that somebody should look at; of a partial one the personas are told.
_BROKEN = {
    "failed": "`persona-etl check` says what is in the way",
    "deferred": "what was loaded stays; the next sync begins with the rest",
    "interrupted": "what was loaded stays; the next sync begins with the rest",
    "crashed": "what was loaded stays; `persona-etl sync` begins with the rest",
}


@dataclass(frozen=True, slots=True)
class Findings:
    """All that there may be something to say about."""

    now: datetime
    since: datetime
    totals: Totals
    rhythm: Rhythm
    is_running: bool
    died: Sequence[RunRow]
    last_sync: RunRow | None
    """That ended, of whatever kind."""
    stopped_removals: int
    last_stopped_at: datetime | None
    failing: Listed[Trouble]
    stale: Listed[Trouble]
    never_seen: Listed[Trouble]
    unfolded: int
    links: LinkSums
    lost_options: int
    lost_options_of: str
    drift: Listed[Drift]
    value_issues: Told
    rejected: Told

    def ago(self, moment: datetime) -> str:
        """How long ago a moment was."""
        return length_of_time(self.now - moment)


def concerns(found: Findings) -> list[Concern]:
    """The most urgent first."""
    told = [*_runs(found), *_personas(found), *_links(found), *_data(found)]
    return sorted(told, key=lambda concern: concern.level != "act")


def _runs(found: Findings) -> Iterator[Concern]:
    last = found.last_sync
    if found.died:
        run = found.died[0]
        count = len(found.died)
        which = f"A {run.command} that began" if count == 1 else f"{count:,} runs, the last begun"
        told = f"{which} {found.ago(run.started_at)} ago died: it says running, and nobody writes."
        yield Concern("died", "act", count, told, "the next run closes it: `persona-etl sync`")
    is_stop = last is not None and last.started_at == found.last_stopped_at
    if last and last.status in _BROKEN:
        why = f": {as_line(last.error, _LONGEST_ERROR)}" if last.error else "."
        told = f"The last {last.command} {_ended(last.status)}{found.ago(last.started_at)} ago{why}"
        # Its own words end in what to do.
        whole = f"`persona-etl runs {str(last.run_id)[:8]}` tells all of it"
        next_step = whole if is_stop else _BROKEN[last.status]
        yield Concern("mass_removal" if is_stop else "sync_failed", "act", 1, told, next_step)
    if found.last_stopped_at and not is_stop:
        count = found.stopped_removals
        runs = "A run" if count == 1 else f"{count:,} runs"
        told = (
            f"{runs} stopped rather than remove many personas,"
            f" the last {found.ago(found.last_stopped_at)} ago; later ones did not."
        )
        next_step = "`persona-etl runs --status failed` tells which"
        yield Concern("mass_removal", "look", count, told, next_step)
    yield from _late(found)
    if found.unfolded:
        told = f"A load from files was cut short: {_are(found.unfolded, 'document')} to be folded."
        next_step = "the next run folds them: `persona-etl backfill replay`"
        yield Concern("unfolded", "act", found.unfolded, told, next_step)


def _late(found: Findings) -> Iterator[Concern]:
    """When nobody has been asked for everybody for long."""
    if found.is_running:
        next_step = "one is running; `persona-etl status` says how far it is"
    else:
        next_step = "`persona-etl sync`; see whether cron still runs it"
    complete = found.rhythm.last_complete_at
    if complete is None:
        if found.totals.live + found.totals.removed:
            told = "No sync has been completed yet: what is here comes from files."
            yield Concern("no_sync", "look", 1, told, next_step)
        else:
            told = "No sync has been completed yet: nothing is here."
            next_step = next_step if found.is_running else "`persona-etl sync` copies the personas"
            yield Concern("no_sync", "act", 1, told, next_step)
    elif is_late(found.rhythm, found.now):
        limit = length_of_time(timedelta(seconds=found.rhythm.late_after_seconds))
        told = f"No sync was completed for {found.ago(complete)}; more than {limit} is unusual."
        yield Concern("sync_late", "act", 1, told, next_step)


def is_late(rhythm: Rhythm, now: datetime) -> bool:
    """Whether a sync should have been completed since the last one that was."""
    last = rhythm.last_complete_at
    return last is None or (now - last).total_seconds() > rhythm.late_after_seconds


def _personas(found: Findings) -> Iterator[Concern]:
    if found.rhythm.last_complete_at and not found.totals.live:
        removed = found.totals.removed
        told = "No persona is here, though a sync was completed."
        if removed:
            told = f"No persona is live: {'1 was' if removed == 1 else f'{removed} were'} removed."
        next_step = "`persona-etl check` counts what the API lists; is the key the right one?"
        yield Concern("none_live", "act", 1, told, next_step)
    if failing := found.failing.count:
        first = found.failing.first[0]
        why = as_line(first.last_error, _LONGEST_ERROR) or first.last_outcome
        who, copied = _who(first), "can't be copied"
        which = f"{who} {copied}" if failing == 1 else f"{failing:,} personas {copied}; {who}"
        told = f"{which}, {_since(found, first)}: {why}"
        next_step = "`persona-etl runs last` tells each; `persona-etl sync` asks again"
        yield Concern("failing", "act", failing, told, next_step)
    # Where no sync comes that is the reason, and who fails is told already.
    others = [one for one in found.stale.first if not one.consecutive_failures]
    if others and not is_late(found.rhythm, found.now):
        stale, first = found.stale.count, others[0]
        length = timedelta(seconds=found.rhythm.late_after_seconds)
        which = _they(stale, "live persona", "was", "were")
        told = (
            f"{which} not seen for {length_of_time(length)}: {_who(first)}, {_since(found, first)}"
        )
        hours = round(length / _HOUR)
        next_step = f"`persona-etl status --max-age {hours}h` lists them; do the settings name all?"
        yield Concern("stale", "act", stale, f"{told}.", next_step)
    if never := found.never_seen.count:
        first = found.never_seen.first[0]
        others_too = "" if never == 1 else f" and {never - 1:,} more"
        told = f"The settings name {first.persona_id}{others_too}, which no sync has ever seen."
        yield Concern("never_seen", "look", never, told, "check the ids: probably a typo")
    if lost := found.lost_options:
        who = as_line(found.lost_options_of, _LONGEST_NAME) or "one without a name"
        which = f"{who} lost" if lost == 1 else f"{lost:,} personas, {who} first, lost"
        told = f"{which} voice generation options when another voice was chosen."
        next_step = "`persona-etl diff PERSONA_ID` tells which; set them again at Anam if meant"
        yield Concern("voice_options_lost", "act", lost, told, next_step)


def _links(found: Findings) -> Iterator[Concern]:
    links = found.links
    if links.expiring:
        days = EXPIRES_SOON.days
        first = f", the first in {length_of_time(links.next - found.now)}" if links.next else ""
        which = _they(links.expiring, "share link", "expires", "expire")
        told = f"{which} within {days} days{first}."
        next_step = _query(
            f"{_A_LINK}, expires_at FROM share_links WHERE state = 'open'"
            f" AND expires_at <= now() + interval '{days}d' ORDER BY expires_at"
        )
        yield Concern("links_expiring", "act", links.expiring, told, next_step)
    if count := links.used_up:
        told = f"{_are(count, 'share link')} enabled and used up: nobody gets in any more."
        next_step = _query(
            f"{_A_LINK}, usage_count, usage_limit FROM share_links WHERE state = 'used up'"
        )
        yield Concern("links_used_up", "act", count, told, next_step)
    if count := links.expired:
        told = f"{_are(count, 'share link')} enabled though expired."
        next_step = _query(f"{_A_LINK}, expires_at FROM share_links WHERE state = 'expired'")
        yield Concern("links_expired", "look", count, told, next_step)
    if count := links.wide_open:
        which = _they(count, "share link", "opens", "open")
        next_step = _query(
            f"{_A_LINK}, expires_at FROM share_links WHERE state = 'open' AND allow_all_origins"
        )
        yield Concern("links_open", "look", count, f"{which} on every site.", next_step)


def _data(found: Findings) -> Iterator[Concern]:
    if count := found.drift.count:
        first = found.drift.first[0]
        path = as_line(first.path, _LONGEST_NAME)
        told = f"The API has moved in {counted(count, 'field')}, last seen in {first.kind} {path}."
        next_step = "`persona-etl drift` shows where, and what to do"
        yield Concern("drift", "look", count, told, next_step)
    if count := found.value_issues.count:
        values = _they(count, "value", "does", "do")
        latest = as_line(found.value_issues.latest, 2 * _LONGEST_NAME)
        told = f"{values} not fit, so that the column is NULL; the latest: {latest}."
        next_step = _query(
            "SELECT kind, name, path, problem, got FROM value_issues WHERE resolved_at IS NULL"
        )
        yield Concern("value_issues", "look", count, told, next_step)
    if count := found.rejected.count:
        answers = _they(count, "answer", "was", "were")
        latest = as_line(found.rejected.latest, 2 * _LONGEST_NAME)
        told = f"{answers} no persona, the latest: {latest}."
        next_step = _query(
            "SELECT persona_id, observed_at, reason FROM rejected_payloads"  # noqa: S608  told only
            f" WHERE observed_at >= '{_second(found.since)}'"
        )
        yield Concern("rejected", "look", count, told, next_step)


def _they(number: int, what: str, does: str, do: str) -> str:
    return f"{counted(number, what)} {does if number == 1 else do}"


def _are(number: int, what: str) -> str:
    return _they(number, what, "is", "are")


def _ended(status: str) -> str:
    told = {"deferred": "was put off ", "interrupted": "was interrupted "}
    return told.get(status, f"{status} ")


def _who(persona: Trouble) -> str:
    return as_line(persona.name, _LONGEST_NAME) or str(persona.persona_id)


def _since(found: Findings, persona: Trouble) -> str:
    seen = persona.last_success_at
    return f"last seen {found.ago(seen)} ago" if seen else "never seen"


def _query(sql: str) -> str:
    return f'`persona-etl query "{sql}"`'


def _second(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
