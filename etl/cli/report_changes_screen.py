"""What `report` shows of what changed: how much it is, then who and what, the first of each."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

from wcwidth import ljust, rjust, width

from etl.cli.labelled import INDENT, ROOM, labelled, minute
from etl.report.text import as_line, counted, cut, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.cli.prose import Marks
    from etl.report.digest import Digest, Happening, PromptChange

_LONGEST_NAME = 30
_SHORT_NAME = 16

# So many of each are shown.
_PROMPTS = 6
_FIELDS = 5
_RENAMED = 3
_SHARED = 4

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


def changed_lines(found: Digest, marks: Marks) -> Iterator[str]:
    """How much of each sort, then who and what."""
    if not found.happenings.count:
        yield marks.heading(f"Nothing changed since {minute(found.since)} UTC")
        return
    yield marks.heading("What changed")
    yield from _how_much(found)
    for change in ("created", "removed", "restored"):
        yield from _grouped(found, change)
    yield from _fields(found)
    yield from _renamed(found)
    yield from _prompts(found)
    yield from _shared(found)
    yield f"{INDENT}In full: `persona-etl diff PERSONA_ID`; all: the views changes and *_history"


def count_by_change(found: Digest, kind: str) -> Counter[str]:
    """How many versions of a kind began, by their change."""
    counts: Counter[str] = Counter()
    for day in found.change_days:
        if day.kind == kind:
            counts[day.change] += day.versions
    return counts


def _how_much(found: Digest) -> Iterator[str]:
    """A table: a row a kind, a column a change; of what there is none, neither."""
    counts = {kind: count_by_change(found, kind) for kind in _KINDS}
    shown = [change for change in _CHANGES if any(counts[kind][change] for kind in _KINDS)]
    yield f"{INDENT}{'':<16}" + "".join(rjust(change, 10) for change in shown)
    for kind, name in _KINDS.items():
        if counts[kind]:
            cells = (
                f"{counts[kind][change]:,}" if counts[kind][change] else "" for change in shown
            )
            yield f"{INDENT}{name:<16}{''.join(rjust(cell, 10) for cell in cells)}".rstrip()
    if "reshaped" in shown:
        yield f"{INDENT}reshaped: only the API's shape moved, nobody edited"
    if "pruned" in shown:
        yield f"{INDENT}pruned: what it was then is not kept"


def _grouped(found: Digest, change: str) -> Iterator[str]:
    """Who was: a line, however many they are; of those that are listed, by name."""
    names = sorted(_name(one) for one in _of_personas(found) if one.change == change)
    if names:
        count = count_by_change(found, "persona")[change]
        yield from labelled(change, listed(f"{count:,}: ", names, count, ROOM))


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
        yield from labelled("fields", ", ".join(told) + more)


def _renamed(found: Digest) -> Iterator[str]:
    renamed = [
        one
        for one in _of_personas(found)
        if one.change == "updated" and one.name_before != one.name and one.name_before
    ]
    for number, one in enumerate(renamed[:_RENAMED]):
        before = as_line(one.name_before, _LONGEST_NAME)
        yield from labelled("" if number else "renamed", f"{before} → {_name(one)}")
    if len(renamed) > _RENAMED:
        yield from labelled("", f"and {len(renamed) - _RENAMED:,} more, of the latest updates")


def _prompts(found: Digest) -> Iterator[str]:
    prompts = found.prompts
    if not prompts.count:
        return
    yield from labelled("prompts", f"{prompts.count:,} changed; words that came and went:")
    for prompt in prompts.first[:_PROMPTS]:
        yield _prompt(found, prompt)
    if more := prompts.count - len(prompts.first[:_PROMPTS]):
        yield f"{INDENT}{INDENT}and {more:,} more: --json or the view prompt_history"


def _prompt(found: Digest, prompt: PromptChange) -> str:
    name = as_line(prompt.name, _SHORT_NAME)
    told = f"{_when(found, prompt.at)}  {ljust(name, _SHORT_NAME)}  {_by_how_much(prompt):>9}"
    return f"{INDENT}{told}  {prompt.persona_id}"


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
        told = cut(told, ROOM - width(reach)) + reach
        yield from labelled("" if number else "shared", told)
    count = sum(
        day.versions
        for day in found.change_days
        if day.kind != "persona" and day.change in {"updated", "restored"}
    )
    if more := count - len(edited[:_SHARED]):
        yield from labelled("", f"and {more:,} more: the view changes")


def _of_personas(found: Digest) -> list[Happening]:
    return [one for one in found.happenings.first if one.kind == "persona"]


def _name(one: Happening) -> str:
    return as_line(one.name, _LONGEST_NAME) or str(one.entity_id)


def _when(found: Digest, moment: datetime) -> str:
    is_long = found.now - found.since > _LONG
    return moment.astimezone(UTC).strftime("%Y-%m-%d " if is_long else "%m-%d %H:%M")


def _short(number: int) -> str:
    return f"{number}" if number < _THOUSAND else f"{number // _THOUSAND}k"
