"""What `status` shows to people: one screen, at most 24 lines of 80 columns."""

from __future__ import annotations

import textwrap
from itertools import chain, repeat
from typing import TYPE_CHECKING

from etl.cli.logs import timestamp
from etl.cli.runs_screen import next_step, without_request
from etl.jobs.status import REMOVED_LATELY
from etl.report.text import counted, cut, escaped, length_of_time, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from etl.jobs.status import Status
    from etl.store.entries import RunRow
    from etl.store.standing import PersonaRow, Sort

_WIDTH = 80
_LABEL = 14
_ROOM = _WIDTH - _LABEL
_LONGEST_NAME = 24
_FAILING = 2


def as_lines(found: Status) -> list[str]:
    """The runs, the personas, then what waits for somebody; what there is none of is left out."""
    parts = {
        "last run": _last_run(found),
        "last sync": _last_sync(found),
        "last success": _last_success(found),
        "now": _now(found),
        "personas": _live(found),
        "too old": _too_old(found),
        "failing": _failing(found),
        "never seen": _never_seen(found),
        "removed": _removed(found),
        "untracked": _untracked(found),
        "to look at": _to_look_at(found),
        "schema": _schema(found),
    }
    return [
        cut(f"{label:<{_LABEL}}{line}", _WIDTH)
        for name, lines in parts.items()
        for label, line in zip(chain([name], repeat("")), lines, strict=False)
    ]


def _last_run(found: Status) -> Iterator[str]:
    run = found.ledger.last
    if run is None:
        yield "none has ended yet"
        return
    yield _ended(found, run, f"{run.command} {run.status} ")
    took = f", took {length_of_time(run.finished_at - run.started_at)}" if run.finished_at else ""
    yield f"run {run.run_id}{took}"
    if run.counts["requested"]:
        yield _counts(run)
    # Of these two the error says no more than the status.
    if run.error and run.status not in {"interrupted", "crashed"}:
        yield from _wrapped(run.error)
    # Of a backfill it is known who is left.
    if run.command == "backfill api" and next_step("sync", run.status):
        yield f"what was loaded stays; `persona-etl runs {str(run.run_id)[:8]}` tells the rest"
    elif step := next_step(run.command, run.status):
        yield step


def _last_sync(found: Status) -> Iterator[str]:
    """Where something else ran after it."""
    run = found.ledger.last_sync
    if run and run != found.ledger.last:
        command = "" if run.command == "sync" else f"{run.command} "
        yield _ended(found, run, f"{command}{run.status} ")
        if run.error:
            yield escaped(run.error)


def _last_success(found: Status) -> Iterator[str]:
    run, ledger = found.ledger.last_success, found.ledger
    if run is None:
        yield "no sync has succeeded yet"
    elif run not in (ledger.last, ledger.last_sync):
        yield _ended(found, run)


def _ended(found: Status, run: RunRow, what: str = "") -> str:
    at = run.finished_at or run.started_at
    return f"{what}{_ago(found, at)}, {timestamp(at)}"


def _now(found: Status) -> Iterator[str]:
    run, holder = found.running, found.holder
    if run:
        lock = " and holds the lock" if holder and holder.run_id == run.run_id else ""
        running_for = length_of_time(found.age(run.started_at))
        yield f"{run.command} is running for {running_for}{lock}{_how_far(run)}"
        yield f"run {run.run_id} on {escaped(run.host)}"
    if holder and not (run and holder.run_id == run.run_id):
        since = f" since {timestamp(holder.since)}" if holder.since else ""
        yield f"{escaped(holder.command or f'session {holder.pid}')} holds the lock{since}"
        if holder.run_id:
            yield f"run {holder.run_id}{f' on {holder.client}' if holder.client else ''}"
    elif not run:
        yield f"nothing runs{', as far as a replica knows' if found.is_replica else ''}"
        if found.unfolded:
            what = counted(found.unfolded, "document")
            yield f"a load from files was cut short; the next run folds {what}"
    for dead in found.orphans[:1]:
        more = f" and {len(found.orphans) - 1} more" if len(found.orphans) > 1 else ""
        ago = _ago(found, dead.started_at)
        yield f"{dead.command} of {ago}{more} died{_how_far(dead)}; the next run closes it"
    if found.ledger.skipped and found.ledger.last_skipped_at:
        ago = _ago(found, found.ledger.last_skipped_at)
        yield f"runs skipped meanwhile, as the lock was taken: {found.ledger.skipped}, latest {ago}"


def _how_far(run: RunRow) -> str:
    settled = run.counts["requested"] - run.counts["not_attempted"]
    return f", {settled} of {run.counts['requested']} settled" if run.counts["requested"] else ""


def _live(found: Status) -> Iterator[str]:
    seen = found.personas
    if not seen.live:
        yield "none is live"
    elif seen.oldest and seen.median and seen.newest:
        oldest, median, newest = (
            length_of_time(found.age(moment)) for moment in (seen.oldest, seen.median, seen.newest)
        )
        ago = f"{newest} ago" if oldest == newest else f"{newest} to {oldest} ago"
        if seen.unconfirmed:
            # There is one line for it: the median gives way.
            yield f"{seen.live} live, {seen.unconfirmed} from files alone, others seen {ago}"
        else:
            line = f"{seen.live} live, last seen {ago}"
            yield line if oldest == newest else f"{line}, median {median}"
    else:
        yield f"{seen.live} live, known from files alone, not shown by the API yet"


def _too_old(found: Status) -> Iterator[str]:
    if found.personas.stale.count:

        def told(row: PersonaRow) -> str:
            return f"{_name(row)} ({_age(found, row.last_success_at)})"

        yield _listed(found.personas.stale, told)


def _failing(found: Status) -> Iterator[str]:
    failing = found.personas.failing
    count = f"{failing.count}: "
    for number, row in enumerate(failing.first[:_FAILING]):
        named = f" {_name(row)}" if row.name else ""
        yield f"{' ' * len(count) if number else count}{row.persona_id}{named}"
        often = f"{row.consecutive_failures} times" if row.consecutive_failures > 1 else "once"
        seen = (
            f"since seen {_age(found, row.last_success_at)}"
            if row.last_success_at
            else "and never seen"
        )
        why = f": {without_request(escaped(row.last_error))}" if row.last_error else ""
        yield f"{' ' * len(count)}{row.last_outcome} {often} {seen}{why}"


def _never_seen(found: Status) -> Iterator[str]:
    if found.personas.never_seen.count:

        def told(row: PersonaRow) -> str:
            return f"{row.persona_id} ({row.last_outcome or 'not asked for yet'})"

        yield _listed(found.personas.never_seen, told)


def _removed(found: Status) -> Iterator[str]:
    if found.personas.removed.count:

        def told(row: PersonaRow) -> str:
            return f"{_name(row)} ({_age(found, row.removed_at)})"

        yield _listed(found.personas.removed, told, f" in {REMOVED_LATELY.days} days")


def _untracked(found: Status) -> Iterator[str]:
    if found.knows_untracked and found.personas.untracked.count:
        yield _listed(found.personas.untracked, _name, " not in the settings")


def _to_look_at(found: Status) -> Iterator[str]:
    if found.value_issues is None or found.drift_paths is None:
        yield "value issues and API changes: not visible to this role"
        return
    counts = {"value issue": found.value_issues, "API change": found.drift_paths}
    if any(counts.values()):
        told = ", ".join(counted(number, what) for what, number in counts.items() if number)
        yield f"{told}: see `persona-etl drift`" if found.drift_paths else told


def _schema(found: Status) -> Iterator[str]:
    schema, revision = escaped(found.schema), found.revision
    waits = ["local revisions wait"] if revision.local_waits else []
    if revision.has_views_of_another_release:
        waits.append(f"views of {escaped(str(revision.views))}")
    if revision.wrong:
        yield f"{schema} at revision {escaped(str(revision.at))}, not what this program needs"
    elif waits:
        at = f" at revision {escaped(revision.at)}" if revision.at else ""
        yield f"{schema}{at}; {', '.join(waits)}: `persona-etl migrate`"
    elif revision.at:
        yield f"{schema} at revision {escaped(revision.at)}"
    else:
        yield f"{schema}, its revision is not visible to this role"


def _counts(run: RunRow) -> str:
    parts = [
        f"{count} {name.replace('_', ' ')}"
        for name, count in run.counts.items()
        if count and name != "requested"
    ]
    return f"{counted(run.counts['requested'], 'persona')}: {', '.join(parts)}"


def _listed(sort: Sort, told: Callable[[PersonaRow], str], what: str = "") -> str:
    """How many, and as many of them as fit the line."""
    return listed(f"{sort.count}{what}: ", [told(row) for row in sort.first], sort.count, _ROOM)


def _name(row: PersonaRow) -> str:
    return cut(escaped(row.name), _LONGEST_NAME) if row.name else str(row.persona_id)


def _ago(found: Status, moment: datetime) -> str:
    return f"{length_of_time(found.age(moment))} ago"


def _age(found: Status, moment: datetime | None) -> str:
    return _ago(found, moment) if moment else "never"


def _wrapped(message: str) -> Iterator[str]:
    """An error on two lines, as far as it goes."""
    told = without_request(escaped(message)).strip()
    first = next(iter(textwrap.wrap(told, _ROOM, break_on_hyphens=False)), "")
    yield first
    if rest := told[len(first) :].strip():
        yield cut(rest, _ROOM)
