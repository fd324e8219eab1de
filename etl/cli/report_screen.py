"""What `report` shows to people: a screen of at most some fifty lines of 80 columns."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from wcwidth import wrap

from etl.cli.labelled import INDENT, LABEL, WIDTH, labelled, minute
from etl.cli.prose import Marks
from etl.cli.report_changes_screen import changed_lines, count_by_change
from etl.report.text import as_line, counted, cut, length_of_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.report.digest import Concern, Digest, RunSum

# So many of each are shown.
_CONCERNS = 7
_TELLING = 2
_COMMANDS = 6
_LONGEST_COMMAND = 24

# Such a run has neither succeeded nor not.
_NEITHER: Final = {"running", "skipped"}


def as_lines(found: Digest, *, coloured: bool) -> Iterator[str]:
    """How things stand, what needs attention, what changed, how the runs went."""
    marks = Marks(coloured)
    length = length_of_time(found.now - found.since)
    period = f"{minute(found.since)} to {minute(found.now)} UTC, {length}"
    yield marks.heading(cut(f"{as_line(found.schema, 24)}  {period}", WIDTH))
    yield from _totals(found)
    yield ""
    yield from _attention(found, marks)
    yield ""
    yield from changed_lines(found, marks)
    yield ""
    yield from _runs(found, marks)


def _totals(found: Digest) -> Iterator[str]:
    totals = found.totals
    moved = count_by_change(found, "persona")
    parts = {"new": moved["created"], "back": moved["restored"], "gone": -moved["removed"]}
    told = ", ".join(f"{number:+,} {what}" for what, number in parts.items() if number)
    removed = f"; {totals.removed:,} removed in all" if totals.removed else ""
    yield from labelled("personas", f"{totals.live:,} live{f' ({told})' if told else ''}{removed}")
    if not totals.live:
        return
    shared = {
        "avatar": totals.avatars,
        "voice": totals.voices,
        "tool": totals.tools,
        "knowledge group": totals.knowledge_groups,
        "share link": totals.share_links,
    }
    yield from labelled("they have", ", ".join(counted(n, what) for what, n in shared.items()))
    prompts = counted(totals.prompts, "distinct prompt")
    distinct = f"{prompts}, {counted(totals.configurations, 'distinct configuration')}"
    yield from labelled("in use", distinct)
    bands = [f"{band.personas:,} {band.label}" for band in found.ages if band.personas]
    yield from labelled("last seen", ", ".join(bands))


def _attention(found: Digest, marks: Marks) -> Iterator[str]:
    if not found.concerns:
        yield marks.heading("Nothing needs attention")
        return
    yield marks.heading("Needs attention")
    for concern in found.concerns[:_CONCERNS]:
        yield from _concern(concern, marks)
    if rest := found.concerns[_CONCERNS:]:
        yield f"{INDENT}and {len(rest)} more: --json tells them"


def _concern(concern: Concern, marks: Marks) -> Iterator[str]:
    sign = marks.urgent("!") if concern.level == "act" else "·"
    lines = wrap(as_line(concern.told), WIDTH - 4, break_on_hyphens=False)
    told, rest = lines[:_TELLING], lines[_TELLING:]
    if rest:
        told[-1] = cut(f"{told[-1]} {rest[0]}", WIDTH - 4)
    for number, line in enumerate(told):
        yield f"{INDENT}{' ' if number else sign} {line}"
    if concern.next_step:
        for number, line in enumerate(
            wrap(as_line(concern.next_step), WIDTH - 6, break_on_hyphens=False)
        ):
            yield f"    {' ' if number else '→'} {line}"


def _runs(found: Digest, marks: Marks) -> Iterator[str]:
    if not found.run_sums:
        yield marks.heading(f"No run began since {minute(found.since)} UTC")
    else:
        yield marks.heading("Runs")
        by_command = [list(sums) for _, sums in groupby(found.run_sums, key=attrgetter("command"))]
        by_command.sort(key=lambda sums: -sum(one.runs for one in sums))
        shown = by_command[:_COMMANDS]
        longest = max(len(as_line(sums[0].command, _LONGEST_COMMAND)) for sums in shown)
        for sums in shown:
            told = ", ".join(_ended(one, with_times=not number) for number, one in enumerate(sums))
            command = as_line(sums[0].command, _LONGEST_COMMAND)
            yield from labelled(command, told, max(longest + 4, LABEL))
        ended = [one for one in found.run_sums if one.status not in _NEITHER]
        if total := sum(one.runs for one in ended):
            good = sum(one.runs for one in ended if one.status == "succeeded")
            yield from labelled("succeeded", f"{_percent(good, total)} of {counted(total, 'run')}")
    yield from _rhythm(found)


def _rhythm(found: Digest) -> Iterator[str]:
    rhythm = found.rhythm
    if rhythm.last_success_at:
        told = f"{length_of_time(found.now - rhythm.last_success_at)} ago"
        if rhythm.longest_gap_seconds is not None:
            longest = length_of_time(timedelta(seconds=rhythm.longest_gap_seconds))
            told += f"; the longest time without one was {longest}"
        yield from labelled("last sync", f"succeeded {told}")


def _ended(one: RunSum, *, with_times: bool) -> str:
    told = f"{one.runs:,} {as_line(one.status)}"
    if not with_times or one.median_seconds is None or one.slowest_seconds is None:
        return told
    if one.runs == 1:
        return f"{told} in {_seconds(one.median_seconds)}"
    times = f"median {_seconds(one.median_seconds)}, slowest {_seconds(one.slowest_seconds)}"
    return f"{told} ({times})"


def _percent(part: int, whole: int) -> str:
    """Never 100 % of what lacks one, nor 0 % of what has one."""
    if part in (0, whole):
        return f"{100 * part // whole} %"
    return f"{min(max(round(100 * part / whole), 1), 99)} %"


def _seconds(seconds: float) -> str:
    return length_of_time(timedelta(seconds=seconds)) if seconds >= 10 else f"{seconds:.1f} s"  # noqa: PLR2004  two digits tell enough
