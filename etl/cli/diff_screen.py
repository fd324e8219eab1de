"""What `diff` shows to people: which moments, what happened between them, then field by field."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from wcwidth import width

from etl.cli.prose import Marks, as_block
from etl.payload.decode import dumps
from etl.payload.differences import ABSENT
from etl.payload.paths import element, member
from etl.report.persona_diff import elements, is_prose, is_set, reference_at
from etl.report.text import as_line, counted, cut, escaped
from etl.report.word_diff import word_diff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etl.jobs.diff import Diff, Event
    from etl.payload.decode import Json
    from etl.payload.differences import Absence, Difference
    from etl.report.persona_diff import Comparison, Snapshot

_WIDTH = 80
_INDENT = "    "
_ROOM = _WIDTH - len(_INDENT)
_LONGEST_NAME = 40
# More of a value never fits on a line.
_LONGEST_VALUE = 200
# Of the changes between two moments so many are listed at either end, of an object's leaves and of
# what came to a set or went so many at all.
_EVENTS = 5
_LEAVES = 30

_HAPPENED: Final = {
    "created": "first seen",
    "removed": "removed: the API said 404",
    "restored": "restored: the API has it again",
    "reshaped": "reshaped: the API's shape moved, nobody edited",
    "pruned": "not kept",
}


def as_lines(found: Diff, *, coloured: bool) -> Iterator[str]:
    """All of it, of at most 80 columns a line."""
    marks = Marks(coloured)
    yield marks.heading(cut(f"{found.persona_id}  {_name(found.name)}".rstrip(), _WIDTH))
    before = ", just before the change" if found.is_last_change and found.events else ""
    yield f"from  {_time(found.before.at)}  {_stood(found.before)}{before}"
    yield f"to    {_time(found.after.at)}  {_stood(found.after)}"
    yield from _between(found.events)
    if verdict := list(_verdict(found)):
        yield ""
        yield from verdict
    for comparison in found.comparisons:
        yield ""
        yield from _compared(found, comparison, marks)
    if found.unfolded:
        yield ""
        yield "There are observations that no version tells of yet; the next run folds them in."


def _stood(snapshot: Snapshot) -> str:
    told = {"unseen": "not yet seen", "pruned": "not kept", "removed": "removed"}
    if snapshot.state != "live":
        return told[snapshot.state]
    return f"version {snapshot.version}"


def _between(events: list[Event]) -> Iterator[str]:
    if not events:
        yield "Nothing happened in between."
        return
    yield f"{counted(len(events), 'change')}:"
    few = len(events) <= 2 * _EVENTS
    for event in events if few else events[:_EVENTS]:
        yield _happened(event)
    if not few:
        yield f"  … {len(events) - 2 * _EVENTS:,} more; --json lists them …"
        for event in events[-_EVENTS:]:
            yield _happened(event)


def _happened(event: Event) -> str:
    kind, entity_id = event.key
    who = ""
    if kind != "persona":
        who = f" {_name(event.name) or entity_id}"
    what = _HAPPENED.get(event.change, event.change)
    told = f"  {_time(event.at)}  {_words(kind)}{who}, version {event.version}, {what}"
    return cut(told, _WIDTH)


def _verdict(found: Diff) -> Iterator[str]:
    """What there is to say besides the fields."""
    states = found.before.state, found.after.state
    first_seen = _time(found.first_seen_at)
    if found.kept_since and any(
        side.document is None and side.state != "unseen" for side in (found.before, found.after)
    ):
        yield f"Not kept: history before {_time(found.kept_since)} was pruned."
        if paths := _first_kept_paths(found):
            yield "Then something changed in these fields; what stood there before is not kept:"
            yield from (cut(f"{_INDENT}{_path(path)}", _WIDTH) for path in paths[:_LEAVES])
    elif states[1] == "unseen":
        yield f"It was not seen yet: that was first on {first_seen}."
    elif states[0] == "unseen":
        yield f"It was first seen on {first_seen}: there is nothing to compare with."
    elif "removed" in states:
        yield "While a persona is removed, what it showed last counts."
    if None not in (found.before.document, found.after.document) and not found.comparisons:
        if states[0] != states[1]:
            yield "No field differs."
        elif found.events:
            yield "No difference: it is again as it was."
        elif found.is_last_change:
            yield f"No change since it was first seen on {first_seen}."
        else:
            yield "No change."


def _first_kept_paths(found: Diff) -> list[str]:
    """What changed when the first version began that is kept, where that is what was asked for."""
    return [
        path
        for event in found.events
        if event.key[0] == "persona" and event.at == found.kept_since
        for path in event.changed_paths
    ]


def _compared(found: Diff, comparison: Comparison, marks: Marks) -> Iterator[str]:
    if comparison.kind != "persona":
        name = _name(comparison.name) or "without a name"
        old, new = comparison.versions
        versions = f"version {old}" if old == new else f"versions {old} → {new}"
        heading = f"{_words(comparison.kind)} {name}, shared, {versions}"
        yield marks.heading(cut(heading, _WIDTH))
        yield f"{_INDENT}{comparison.entity_id}"
    if not comparison.is_kept:
        yield f"{_INDENT}not kept: its history was pruned"
    if comparison.is_reshaped:
        yield "Only the API's shape moved, nobody edited:"
    for change in comparison.changes:
        yield from _changed(found, comparison, change, marks)


def _changed(
    found: Diff, comparison: Comparison, change: Difference, marks: Marks
) -> Iterator[str]:
    path = _path(comparison.full_path(change.path))
    shape = " (the API's shape)" if change.of_shape and not comparison.is_reshaped else ""
    values = change.old, change.new
    is_short = not is_prose(change) and not any(found.names(comparison, change))
    if is_short and not any(isinstance(value, list | dict) and value for value in values):
        line = f"{path}: {_json(change.old)} → {_json(change.new)}{shape}"
        if width(line) <= _WIDTH:
            yield line
            return
    is_exchanged = all(reference_at(change.path, value) for value in values)
    yield cut(f"{path}:{' exchanged' if is_exchanged else ''}{shape}", _WIDTH)
    for line in _values(found, comparison, change, marks):
        yield f"{_INDENT}{line}".rstrip()


def _values(found: Diff, comparison: Comparison, change: Difference, marks: Marks) -> Iterator[str]:
    """What stood there and what stands there, or just what differs in it."""
    old, new = change.old, change.new
    if is_prose(change):
        if old is None:
            yield marks.line("old", "null")
        one, other = (value if isinstance(value, str) else "" for value in (old, new))
        yield from as_block(word_diff(one, other), marks, _ROOM)
        if new is None:
            yield marks.line("new", "null")
        return
    went, came = ([] if value is ABSENT else [value] for value in (old, new))
    if is_set(comparison.kind, change.path):
        went, came = elements(change)
    elif isinstance(old, list | dict) and isinstance(new, list | dict):
        yield from as_block(word_diff(_indented(old), _indented(new)), marks, _ROOM)
        return
    yield from _side("old", change.path, went, found.before, marks)
    yield from _side("new", change.path, came, found.after, marks)


def _side(
    kind: Literal["old", "new"], path: str, values: list[Json], snapshot: Snapshot, marks: Marks
) -> Iterator[str]:
    """A line a value; of an object or array one for each value in it."""
    lines = (line for value in values for line in _told(path, value, snapshot))
    for line in islice(lines, _LEAVES):
        yield marks.line(kind, cut(line, _ROOM - 2))
    if next(lines, None) is not None:
        yield marks.line(kind, "… and more; --json has all of it …")


def _told(path: str, value: Json, snapshot: Snapshot) -> Iterator[str]:
    if reference := reference_at(path, value):
        name = snapshot.name_of(*reference)
        yield f"{reference[1]}  {_name(name) or 'without a name'}"
    else:
        for place, leaf in _leaves("", value):
            yield f"{_path(place)}: {_json(leaf)}" if place else _json(leaf)


def _leaves(path: str, value: Json) -> Iterator[tuple[str, Json]]:
    """The values in a value, by their paths."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(member(path, key), inner)
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(element(path, inner, index), inner)
    else:
        yield path, value


def _json(value: Json | Absence) -> str:
    """A value on a line. Strings are in quotes, so that white space is seen."""
    if value is ABSENT:
        return "(not sent)"
    return escaped(dumps(value).decode()[:_LONGEST_VALUE])


def _path(path: str) -> str:
    return escaped(path[:_LONGEST_VALUE])


def _indented(value: Json) -> str:
    return msgspec.json.format(dumps(value), indent=2).decode()


def _name(name: str | None) -> str:
    """A name on a line; it may be as long as the API likes."""
    return as_line((name or "")[:_LONGEST_VALUE], _LONGEST_NAME)


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _time(moment: datetime) -> str:
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
