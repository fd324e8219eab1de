"""What `runs` shows to people, within 80 columns but for the paths that are to be copied."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wcwidth import ljust, width, wrap

from etl.cli.logs import timestamp
from etl.report.text import counted, cut, escaped, length_of_time
from etl.tables import FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from etl.jobs.runs import Listed, Told
    from etl.store.entries import Entry, ItemRow

_WIDTH = 80
_LABEL = 11
_ROOM = _WIDTH - _LABEL
_SHORT_ID = 8
_GAP = "  "

# Where the counts say little, and the error says why.
_TELLING_BY_ERROR = {"failed", "skipped", "deferred"}
_CUT_SHORT = {"running", "interrupted", "crashed"}

# What was asked for, where that is told already or matters less than what came of it.
_REQUEST = re.compile(r"GET \S*/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}: ")


def listed_lines(found: Listed) -> list[str]:
    """A line a run: when, the id, which command, how it stands, how long, what it came to.

    What does not fit there has a line of its own below: it is why somebody is looking.
    """
    if found.is_empty:
        return ["the ledger is empty: nothing has run yet; `persona-etl sync` does"]
    if not found.runs:
        return ["there is no such run; `persona-etl runs` without options lists the latest"]
    names = ("started (UTC)", "run", "command", "status", "took")
    rows = [
        (
            f"{run.started_at:%Y-%m-%d %H:%M}",
            str(run.run_id)[:_SHORT_ID],
            escaped(run.command),
            "died" if run.run_id in found.died else escaped(run.status),
            "" if run.run_id in found.died else _took(run, found.now),
        )
        for run in found.runs
    ]
    widths = [max(map(width, cells)) for cells in zip(names, *rows, strict=True)]
    head, *aligned = (
        _GAP.join(ljust(cell, size) for cell, size in zip(row, widths, strict=True))
        for row in (names, *rows)
    )
    lines = [cut(f"{head}{_GAP}what it came to", _WIDTH)]
    for begun, came_to in zip(aligned, map(_came_to, found.runs), strict=True):
        line = f"{begun}{_GAP}{came_to}".rstrip()
        fits = width(line) <= _WIDTH
        lines += [line] if fits else [cut(begun.rstrip(), _WIDTH), cut(_GAP + came_to, _WIDTH)]
    return lines


def told_lines(told: Told) -> Iterator[str]:
    """The run, what went wrong with whom, then what is left and how to go on."""
    run = told.run
    yield from _labelled("run", str(run.run_id))
    yield from _labelled("command", escaped(run.command))
    if run.resumes:
        yield from _labelled("resumes", f"run {run.resumes}")
    status = f"{run.status}, but nobody is at work on it: it has died"
    yield from _labelled("status", status if told.has_died else escaped(run.status))
    ago = length_of_time(told.now - run.started_at)
    yield from _labelled("started", f"{timestamp(run.started_at)}, {ago} ago")
    if run.finished_at:
        yield from _labelled("ended", f"{timestamp(run.finished_at)}, took {_took(run, told.now)}")
    where = f"{escaped(run.host)}, process {run.pid}, persona-etl {escaped(run.version)}"
    yield from _labelled("on", where)
    if run.counts["requested"] or run.command in {"sync", "backfill api"}:
        yield from _labelled("personas", f"{run.counts['requested']}{_outcomes(run)}")
    if run.http_requests:
        yield from _labelled("requests", str(run.http_requests))
    if run.new_drift_paths:
        changes = counted(run.new_drift_paths, "API change")
        yield from _labelled("drift", f"{changes} new in this run: see `persona-etl drift`")
    if run.error:
        # Whoever reads this need not be told where to read it.
        see = f"; see `persona-etl runs {run.run_id}`"
        yield from _labelled("error", escaped(run.error.removesuffix(see)))
    yield from _to_whom(told)
    yield from _issues(told)
    yield from _left(told)


def _labelled(name: str, text: str) -> Iterator[str]:
    """On as many lines as it takes; a word that is too long for one is broken."""
    lines = wrap(text, _ROOM, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        yield f"{'' if number else name:<{_LABEL}}{line}"


def _to_whom(told: Told) -> Iterator[str]:
    if told.items is None:
        yield ""
        yield "What it did to whom is not visible to this role; those that may read the"
        yield "tables see it."
        return
    for items in told.items:
        if items.outcome == "not_attempted":
            continue
        yield ""
        yield f"{items.count} {escaped(items.outcome)}"
        for item in items.first:
            yield from _item(item, items.outcome)
        if more := items.count - len(items.first):
            yield f"  and {more} more: --limit {items.count} shows all"


def _item(item: ItemRow, outcome: str) -> Iterator[str]:
    name = f" {escaped(item.name)}" if item.name else ""
    yield cut(f"  {item.persona_id}{name}", _WIDTH)
    if outcome in FAILURES:
        for line in wrap(_what_went_wrong(item), _WIDTH - 4, break_on_hyphens=False):
            yield f"    {line}"


def _what_went_wrong(item: ItemRow) -> str:
    """How often it was tried, for how long, and what came of it: each said once."""
    attempts = counted(item.attempts, "attempt")
    message = without_request(escaped(item.message or "")).replace(f" after {attempts}", "")
    answer = str(item.http_status) if item.http_status else "no answer"
    is_told = bool(message) and (item.http_status is None or answer in message)
    told = f"{attempts} in {item.duration_ms / 1000:.1f} s{'' if is_told else f', {answer}'}"
    return f"{told}: {message}" if message else told


def without_request(message: str) -> str:
    """An error without the address of the persona that it is about."""
    return _REQUEST.sub("", message)


def _issues(told: Told) -> Iterator[str]:
    issues = told.issues
    if issues is None or not issues.count:
        return
    yield ""
    yield f"{counted(issues.count, 'value issue')} open, met last in this run"
    for issue in issues.first:
        yield cut(f"  {issue.kind} {issue.entity_id} {escaped(issue.path)}", _WIDTH)
        yield cut(f"    {escaped(issue.problem)}", _WIDTH)
    if more := issues.count - len(issues.first):
        yield f"  and {more} more: --limit {issues.count} shows all"


def next_step(command: str, status: str) -> str | None:
    """What the end of a run means for the next one, where that is not plain."""
    if command == "sync":
        if status == "partial":
            return "the next run asks for those again"
        if status in {"deferred", "interrupted", "crashed"}:
            return "what was loaded stays; the next run begins with the rest"
    elif status in {"interrupted", "crashed"}:
        return "what was done stays; run it again"
    return None


def _left(told: Told) -> Iterator[str]:
    run, left = told.run, told.left
    if run.command != "backfill api":
        if step := next_step(run.command, "crashed" if told.has_died else run.status):
            yield ""
            if not_asked := run.counts["not_attempted"]:
                step = step.replace("the rest", f"the {not_asked:,} not asked for")
            yield f"{step[:1].upper()}{step[1:]}."
        return
    if told.items is None:
        return
    yield ""
    if left is None:
        yield "Whom it wanted is not known: it can't be resumed."
    elif run.status == "running" and not told.has_died:
        yield f"{counted(left, 'persona')} left so far."
    elif left:
        yield f"{counted(left, 'persona')} left; to go on with those:"
        yield f"  persona-etl backfill api --resume {run.run_id}"
    else:
        yield "Nothing is left of it."


def _came_to(run: Entry) -> str:
    requested = run.counts["requested"]
    if run.error and (run.status in _TELLING_BY_ERROR or not requested):
        return without_request(escaped(run.error))
    if run.status in _CUT_SHORT and requested:
        return f"{requested - run.counts['not_attempted']} of {requested} settled"
    if not requested:
        return ""
    # Of most runs most are unchanged: that goes without saying where something is to be said.
    moved = _outcomes(run).removesuffix(f", {run.counts['unchanged']} unchanged")
    return f"{requested}{moved}"


def _outcomes(run: Entry) -> str:
    """By outcome: what asks for somebody first."""
    order = ("not_attempted", *FAILURES, "missing", "created", "updated", "reshaped", "restored")
    parts = [
        f"{run.counts[name]} {name.replace('_', ' ')}"
        for name in (*order, "unchanged")
        if run.counts[name]
    ]
    return f": {', '.join(parts)}" if parts else ""


def _took(run: Entry, now: datetime) -> str:
    if run.status == "running":
        return length_of_time(now - run.started_at)
    return length_of_time(run.finished_at - run.started_at) if run.finished_at else ""
