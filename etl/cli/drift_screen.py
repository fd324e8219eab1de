"""What `drift` and `drift propose` show to people, within 80 columns but for what is to be copied.

A path is never cut, as it is what one types; nothing in it can steer the terminal.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from wcwidth import ljust, width, wrap

from etl.jobs.typed_paths import as_typed
from etl.proposal.model import Proposal, Refusal
from etl.report.text import counted, cut, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from etl.jobs.drift import Difference, Listing, Revised
    from etl.map import Line
    from etl.proposal.model import Drift

_WIDTH = 80
# Right of the paths stand the days and the count.
_ROOM = 45
_LONGEST_MEMBER = 40


def as_lines(found: Listing) -> Iterator[str]:
    """By kind what differs and what would be proposed; then what to do."""
    for kind, group in groupby(found.differences, key=lambda d: d.drift.kind):
        yield f"{kind:<{_ROOM}}  {'first seen':<10}  {'last seen':<10}  {'times':>9}"
        for difference in group:
            yield from _difference(difference)
        yield ""
    yield _how_many(found)
    if not found.knows_proposals:
        yield "What would be proposed is told to roles that may read the tables."
    elif any(isinstance(d.proposed, Proposal) for d in found.differences):
        yield "Next: `persona-etl drift propose` writes a revision to read; nothing is altered."
    elif any(isinstance(d.proposed, Refusal) and d.proposed.is_waiting for d in found.differences):
        yield "Next: `persona-etl migrate`, then `persona-etl backfill replay`."
    elif any(d.drift.status == "open" for d in found.differences):
        yield "Next: `persona-etl drift accept PATH` what is fine, or `drift ignore PATH`."


def as_proposed(revised: Revised, here: Path) -> Iterator[str]:
    """The columns, what gets none and why, the files, and what to do with them."""
    for proposal in revised.proposals:
        values = counted(proposal.values, "value")
        yield from _path_and(proposal.drift, f" → {_answer(proposal)}; from {values}")
    refusals = [refusal for refusal in revised.refusals if not refusal.is_waiting]
    if refusals and revised.proposals:
        yield "Not proposed:"
    for refusal in refusals:
        yield from _path_and(refusal.drift, f": {_answer(refusal)}")
    if waiting := len(revised.refusals) - len(refusals):
        told = counted(waiting, "field")
        yield f"{told} proposed already; `persona-etl migrate` adds what waits."
    if revised.shown:
        for file, text in revised.shown.items():
            yield ""
            yield f"# {short(file, here)}"
            yield from (escaped(line) for line in text.splitlines())
        yield ""
        yield "Nothing was written. Without --dry-run these files are."
    elif revised.revision is not None:
        yield f"Revision {revised.revision}:"
        yield from (f"  {short(file, here)}" for file in revised.files)
        yield "Read it; nothing is altered yet. Then:"
        yield "  persona-etl migrate"
        yield "  persona-etl backfill replay"
    elif not revised.refusals:
        yield "Nothing to propose: `persona-etl drift --all` shows what is known."


def column(line: Line) -> str:
    """What a line of the map makes: `personas.mood text`, `table persona_moods (value text)`."""
    if line.is_list:
        return f"table {line.table} ({line.column} {line.type})"
    return f"{line.table}.{line.column} {line.type}"


def short(file: Path, here: Path) -> str:
    """A file's name as one would type it here."""
    return escaped(str(file.relative_to(here) if file.is_relative_to(here) else file))


def _difference(difference: Difference) -> Iterator[str]:
    drift = difference.drift
    path = f"  {escaped(drift.path)}"
    seen = f"{_day(drift.first_seen_at)}  {_day(drift.last_seen_at)}  {drift.occurrences:>9,}"
    if width(path) > _ROOM:
        yield path
        path = ""
    yield f"{ljust(path, _ROOM)}  {seen}"
    status = "" if drift.status == "open" else f"; {drift.status}"
    yield from _wrapped(f"{_what(drift)}{status}", "    ")
    if difference.proposed is not None:
        arrow = "→ " if isinstance(difference.proposed, Proposal) else ""
        yield from _wrapped(f"{arrow}{_answer(difference.proposed)}", "    ")


def _what(drift: Drift) -> str:
    match drift.problem:
        case "missing":
            return f"no longer sent since {_day(drift.last_seen_at)}"
        case "new_value":
            members = (cut(escaped(member), _LONGEST_MEMBER) for member in drift.new_members)
            return f"new value: {', '.join(members)}"
        case "type_changed":
            return f"other type: {_types(drift)}"
        case "unknown":
            return f"new field: {_types(drift)}"


def _types(drift: Drift) -> str:
    """The JSON types, and what the values look like where that says more."""
    types = " or ".join(map(escaped, drift.json_types))
    if set(drift.shapes) <= set(drift.json_types):
        return types
    return f"{types} ({', '.join(map(escaped, drift.shapes))})"


def _answer(answer: Proposal | Refusal) -> str:
    if isinstance(answer, Refusal):
        return escaped(answer.reason)
    beside = f"beside {escaped(answer.beside)}: " if answer.beside else ""
    told = f"{beside}{escaped(column(answer.line))}"
    if (renamed := answer.renamed) is None:
        return told
    same = f"the same in {renamed.equal:,} of {renamed.seen:,}"
    return f"{told}; looks like {escaped(renamed.path)}, renamed: {same}"


def _how_many(found: Listing) -> str:
    shown = len(found.differences)
    hidden = f"{found.hidden:,} ignored or mapped: --all shows them" if found.hidden else ""
    if not shown:
        return f"The API and the map agree{f', but for {hidden}' if hidden else ''}."
    return f"{counted(shown, 'difference')}{f', and {hidden}' if hidden else ''}."


def _path_and(drift: Drift, what: str) -> Iterator[str]:
    """On one line where that is wide enough; else the path stays whole, and the rest is wrapped."""
    path = as_typed(drift)
    if width(path + what) <= _WIDTH:
        yield path + what
    else:
        yield path
        yield from _wrapped(what.removeprefix(":").strip(), "  ")


def _wrapped(text: str, indent: str) -> Sequence[str]:
    return wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
