"""What `report` shows to people: a screen of at most some fifty lines of 80 columns."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from wcwidth import ljust, rjust, width, wrap

from etl.cli.prose import Marks
from etl.report.text import as_line, counted, cut, length_of_time, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.report.digest import Concern, Digest, Happening, PromptChange, RunSum

_WIDTH = 80
_LABEL = 12
_ROOM = _WIDTH - _LABEL
_INDENT = "  "
_LONGEST_NAME = 30
_SHORT_NAME = 16

# So many of each are shown.
_CONCERNS = 7
_TELLING = 2
_PROMPTS = 6
_FIELDS = 5
_RENAMED = 3
_SHARED = 4
_COMMANDS = 6
_LONGEST_COMMAND = 24

# From then on the year says more than the minute.
_LONG = timedelta(days=300)
_THOUSAND = 1000

_CHANGES: Final = ("created", "updated", "removed", "restored", "reshaped", "pruned")
_KINDS: Final = {
    "persona": "personas",
    "avatar": "avatars",
    "voice": "voices",
    "tool": "tools",
    "knowledge_group": "knowledge groups",
}
_NEITHER: Final = {"running", "skipped"}


def as_lines(found: Digest, *, coloured: bool) -> Iterator[str]:
    """How things stand, what needs attention, what changed, how the runs went."""
    marks = Marks(coloured)
    length = length_of_time(found.now - found.since)
    period = f"{_minute(found.since)} to {_minute(found.now)} UTC, {length}"
    yield marks.heading(cut(f"{as_line(found.schema, 24)}  {period}", _WIDTH))
    yield from _totals(found)
    yield ""
    yield from _attention(found, marks)
    yield ""
    yield from _changed(found, marks)
    yield ""
    yield from _runs(found, marks)


def _totals(found: Digest) -> Iterator[str]:
    totals = found.totals
    moved = _count_by_change(found, "persona")
    parts = {"new": moved["created"], "back": moved["restored"], "gone": -moved["removed"]}
    told = ", ".join(f"{number:+,} {what}" for what, number in parts.items() if number)
    removed = f"; {totals.removed:,} removed in all" if totals.removed else ""
    yield from _labelled("personas", f"{totals.live:,} live{f' ({told})' if told else ''}{removed}")
    if not totals.live:
        return
    shared = {
        "avatar": totals.avatars,
        "voice": totals.voices,
        "tool": totals.tools,
        "knowledge group": totals.knowledge_groups,
        "share link": totals.share_links,
    }
    yield from _labelled("they have", ", ".join(counted(n, what) for what, n in shared.items()))
    prompts = counted(totals.prompts, "distinct prompt")
    distinct = f"{prompts}, {counted(totals.configurations, 'distinct configuration')}"
    yield from _labelled("in use", distinct)
    bands = [f"{band.personas:,} {band.label}" for band in found.ages if band.personas]
    yield from _labelled("last seen", ", ".join(bands))


def _attention(found: Digest, marks: Marks) -> Iterator[str]:
    if not found.concerns:
        yield marks.heading("Nothing needs attention")
        return
    yield marks.heading("Needs attention")
    for concern in found.concerns[:_CONCERNS]:
        yield from _concern(concern, marks)
    if rest := found.concerns[_CONCERNS:]:
        yield f"{_INDENT}and {len(rest)} more: --json tells them"


def _concern(concern: Concern, marks: Marks) -> Iterator[str]:
    sign = marks.urgent("!") if concern.level == "act" else "·"
    lines = wrap(as_line(concern.told), _WIDTH - 4, break_on_hyphens=False)
    told, rest = lines[:_TELLING], lines[_TELLING:]
    if rest:
        told[-1] = cut(f"{told[-1]} {rest[0]}", _WIDTH - 4)
    for number, line in enumerate(told):
        yield f"{_INDENT}{' ' if number else sign} {line}"
    if concern.next_step:
        for number, line in enumerate(
            wrap(as_line(concern.next_step), _WIDTH - 6, break_on_hyphens=False)
        ):
            yield f"    {' ' if number else '→'} {line}"


def _changed(found: Digest, marks: Marks) -> Iterator[str]:
    if not found.happenings.count:
        yield marks.heading(f"Nothing changed since {_minute(found.since)} UTC")
        return
    yield marks.heading("What changed")
    yield from _how_much(found)
    for change in ("created", "removed", "restored"):
        yield from _grouped(found, change)
    yield from _fields(found)
    yield from _renamed(found)
    yield from _prompts(found)
    yield from _shared(found)
    yield f"{_INDENT}In full: `persona-etl diff PERSONA_ID`; all: the views changes and *_history"


def _how_much(found: Digest) -> Iterator[str]:
    """A table: a row a kind, a column a change; of what there is none, neither."""
    counts = {kind: _count_by_change(found, kind) for kind in _KINDS}
    shown = [change for change in _CHANGES if any(counts[kind][change] for kind in _KINDS)]
    yield f"{_INDENT}{'':<16}" + "".join(rjust(change, 10) for change in shown)
    for kind, name in _KINDS.items():
        if counts[kind]:
            cells = (
                f"{counts[kind][change]:,}" if counts[kind][change] else "" for change in shown
            )
            yield f"{_INDENT}{name:<16}{''.join(rjust(cell, 10) for cell in cells)}".rstrip()
    if "reshaped" in shown:
        yield f"{_INDENT}reshaped: only the API's shape moved, nobody edited"
    if "pruned" in shown:
        yield f"{_INDENT}pruned: what it was then is not kept"


def _grouped(found: Digest, change: str) -> Iterator[str]:
    """Who was: a line, however many they are; of those that are listed, by name."""
    names = sorted(_name(one) for one in _of_personas(found) if one.change == change)
    if names:
        count = _count_by_change(found, "persona")[change]
        yield from _labelled(change, listed(f"{count:,}: ", names, count, _ROOM))


def _fields(found: Digest) -> Iterator[str]:
    """Which were edited most."""
    fields = found.changed_fields
    told = [
        f"{'' if one.kind == 'persona' else f'{one.kind} '}"
        f"{as_line(one.path, _LONGEST_NAME)} {one.versions:,}"
        for one in fields.first[:_FIELDS]
    ]
    if told:
        more = f" and {fields.count - len(told):,} more" if fields.count > len(told) else ""
        yield from _labelled("fields", ", ".join(told) + more)


def _renamed(found: Digest) -> Iterator[str]:
    renamed = [
        one
        for one in _of_personas(found)
        if one.change == "updated" and one.name_before != one.name and one.name_before
    ]
    for number, one in enumerate(renamed[:_RENAMED]):
        before = as_line(one.name_before, _LONGEST_NAME)
        yield from _labelled("" if number else "renamed", f"{before} → {_name(one)}")
    if len(renamed) > _RENAMED:
        yield from _labelled("", f"and {len(renamed) - _RENAMED:,} more, of the latest updates")


def _prompts(found: Digest) -> Iterator[str]:
    prompts = found.prompts
    if not prompts.count:
        return
    yield from _labelled("prompts", f"{prompts.count:,} changed; words that came and went:")
    for prompt in prompts.first[:_PROMPTS]:
        yield _prompt(found, prompt)
    if more := prompts.count - len(prompts.first[:_PROMPTS]):
        yield f"{_INDENT}{_INDENT}and {more:,} more: --json or the view prompt_history"


def _prompt(found: Digest, prompt: PromptChange) -> str:
    name = as_line(prompt.name, _SHORT_NAME)
    told = f"{_when(found, prompt.at)}  {ljust(name, _SHORT_NAME)}  {_by_how_much(prompt):>9}"
    return f"{_INDENT}{told}  {prompt.persona_id}"


def _by_how_much(prompt: PromptChange) -> str:
    gone, come = prompt.words_gone, prompt.words_come
    if gone is not None and come is not None:
        return f"+{_short(come)} -{_short(gone)}" if gone or come else "reordered"
    if prompt.old_length is None or prompt.new_length is None:
        return "not kept"
    longer = prompt.new_length - prompt.old_length
    return f"{'-' if longer < 0 else '+'}{_short(abs(longer))} ch"


def _shared(found: Digest) -> Iterator[str]:
    edited = [one for one in found.happenings.first if one.kind != "persona"]
    edited = [one for one in edited if one.change in {"updated", "restored"}]
    for number, one in enumerate(edited[:_SHARED]):
        who = counted(one.personas, "persona")
        paths = ", ".join(as_line(path, _LONGEST_NAME) for path in islice(one.paths, 4))
        kind = one.kind.replace("_", " ")
        told = f"{kind} {_name(one)}: {paths}"
        reach = f"; {who} {'has' if one.personas == 1 else 'have'} it"
        told = cut(told, _ROOM - width(reach)) + reach
        yield from _labelled("" if number else "shared", told)
    count = sum(
        day.versions
        for day in found.change_days
        if day.kind != "persona" and day.change in {"updated", "restored"}
    )
    if more := count - len(edited[:_SHARED]):
        yield from _labelled("", f"and {more:,} more: the view changes")


def _runs(found: Digest, marks: Marks) -> Iterator[str]:
    if not found.run_sums:
        yield marks.heading(f"No run began since {_minute(found.since)} UTC")
    else:
        yield marks.heading("Runs")
        by_command = [list(sums) for _, sums in groupby(found.run_sums, key=attrgetter("command"))]
        by_command.sort(key=lambda sums: -sum(one.runs for one in sums))
        shown = by_command[:_COMMANDS]
        longest = max(len(as_line(sums[0].command, _LONGEST_COMMAND)) for sums in shown)
        for sums in shown:
            told = ", ".join(_ended(one, with_times=not number) for number, one in enumerate(sums))
            command = as_line(sums[0].command, _LONGEST_COMMAND)
            yield from _labelled(command, told, max(longest + 4, _LABEL))
        ended = [one for one in found.run_sums if one.status not in _NEITHER]
        if total := sum(one.runs for one in ended):
            good = sum(one.runs for one in ended if one.status == "succeeded")
            yield from _labelled("succeeded", f"{_percent(good, total)} of {counted(total, 'run')}")
    yield from _rhythm(found)


def _rhythm(found: Digest) -> Iterator[str]:
    rhythm = found.rhythm
    if rhythm.last_success_at:
        told = f"{length_of_time(found.now - rhythm.last_success_at)} ago"
        if rhythm.longest_gap_seconds is not None:
            longest = length_of_time(timedelta(seconds=rhythm.longest_gap_seconds))
            told += f"; the longest time without one was {longest}"
        yield from _labelled("last sync", f"succeeded {told}")


def _ended(one: RunSum, *, with_times: bool) -> str:
    told = f"{one.runs:,} {as_line(one.status)}"
    if not with_times or one.median_seconds is None or one.slowest_seconds is None:
        return told
    if one.runs == 1:
        return f"{told} in {_seconds(one.median_seconds)}"
    times = f"median {_seconds(one.median_seconds)}, slowest {_seconds(one.slowest_seconds)}"
    return f"{told} ({times})"


def _of_personas(found: Digest) -> list[Happening]:
    return [one for one in found.happenings.first if one.kind == "persona"]


def _count_by_change(found: Digest, kind: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for day in found.change_days:
        if day.kind == kind:
            counts[day.change] += day.versions
    return counts


def _labelled(label: str, told: str, size: int = _LABEL) -> Iterator[str]:
    """On as many lines as it takes, all behind the label."""
    for number, line in enumerate(wrap(told, _WIDTH - size, break_on_hyphens=False)):
        yield f"{_INDENT}{ljust('' if number else label, size - 2)}{line}".rstrip()


def _name(one: Happening) -> str:
    return as_line(one.name, _LONGEST_NAME) or str(one.entity_id)


def _when(found: Digest, moment: datetime) -> str:
    is_long = found.now - found.since > _LONG
    return moment.astimezone(UTC).strftime("%Y-%m-%d " if is_long else "%m-%d %H:%M")


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _percent(part: int, whole: int) -> str:
    """Never 100 % of what lacks one, nor 0 % of what has one."""
    if part in (0, whole):
        return f"{100 * part // whole} %"
    return f"{min(max(round(100 * part / whole), 1), 99)} %"


def _seconds(seconds: float) -> str:
    return length_of_time(timedelta(seconds=seconds)) if seconds >= 10 else f"{seconds:.1f} s"  # noqa: PLR2004  two digits tell enough


def _short(number: int) -> str:
    return f"{number}" if number < _THOUSAND else f"{number // _THOUSAND}k"
