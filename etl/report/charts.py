"""The charts of the page: runs, change activity and freshness, each with words and a table besides.

Vega draws them here, so that the page needs no script for it. Their colours are the page's own
variables; what they show is told by their summaries too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from etl.report.drawing import drawn, over, room
from etl.report.shown import counted, number
from etl.report.spans import Spans
from etl.report.text import as_line, length_of_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from etl.report.digest import AgeBand, Digest

# In pixels.
_ROW = 30
_WIDEST_LABEL = 24

# What has one colour. The statuses themselves are in the table.
_ENDED: Final = {
    "succeeded": "succeeded",
    "partial": "partial",
    "failed": "failed",
    "crashed": "failed",
    "interrupted": "failed",
}
_ELSE = "other"
_RUN_COLOURS: Final = {
    "succeeded": "var(--ran)",
    "partial": "var(--fair)",
    "failed": "var(--bad)",
    _ELSE: "var(--idle)",
}
_RUN_WORDS: Final = {
    "succeeded": "succeeded",
    "partial": "partial",
    "failed": "failed or cut short",
    _ELSE: "skipped, deferred or running",
}
_KIND_WORDS: Final = {
    "persona": "personas",
    "avatar": "avatars",
    "voice": "voices",
    "tool": "tools",
    "knowledge_group": "knowledge",
}

_TICKS = 4


@dataclass(frozen=True, slots=True)
class Key:
    """What a colour stands for, and how many there are of it."""

    name: str
    told: str
    count: int


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture; what it shows in a sentence; its numbers. Without numbers there is no picture."""

    name: str
    title: str
    summary: str
    svg: str | None
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    keys: Sequence[Key] = ()


def charts(digest: Digest) -> list[Chart]:
    """All of them, in the page's order."""
    spans = Spans.of(digest)
    return [_runs(digest, spans), _changes(digest, spans), _ages(digest.ages)]


def _runs(digest: Digest, spans: Spans) -> Chart:
    days = digest.run_days
    by_end: Counter[str] = Counter()
    by_span: Counter[tuple[str, str]] = Counter()
    for day in days:
        end = _ENDED.get(day.status, _ELSE)
        by_end[end] += day.runs
        by_span[spans.label(day.day), end] += day.runs
    keys = [Key(e, told, by_end[e]) for e, told in _RUN_WORDS.items() if by_end[e]]
    rows = [
        (_date(day.day), as_line(day.status), number(day.runs), _took(day.median_seconds))
        for day in sorted(days, key=lambda day: (day.day, day.status), reverse=True)
    ]
    values = [
        {"span": span, "end": end, "runs": runs, "order": list(_RUN_WORDS).index(end)}
        for (span, end), runs in by_span.items()
    ]
    by_label: Counter[str] = Counter()
    for (span, _), runs in by_span.items():
        by_label[span] += runs
    # Vega's tickMinStep does not keep it from counting in halves.
    ticks = min(max(by_label.values(), default=1), _TICKS)
    spec: dict[str, Any] = {
        "mark": "bar",
        "encoding": {
            "x": over(spans),
            "y": {
                "field": "runs",
                "type": "quantitative",
                "axis": {"tickCount": ticks, "format": "~s"},
            },
            "order": {"field": "order"},
            "color": {
                "field": "end",
                "type": "nominal",
                "legend": None,
                "scale": {
                    "domain": list(_RUN_COLOURS),
                    "range": list(_RUN_COLOURS.values()),
                },
            },
        },
    }
    return Chart(
        "runs",
        f"Runs by {spans.unit}",
        _of_runs(by_end.total(), spans, {day.day for day in days}),
        drawn(values, height=165, **spec) if days else None,
        ("Day", "Status", "Runs", "Median length"),
        rows,
        keys,
    )


def _of_runs(total: int, spans: Spans, days: set[date]) -> str:
    if not total:
        return "Nothing ran in this time."
    idle = len(spans.starts) - len({spans.begin(day) for day in days})
    without = f", none in {counted(idle, spans.unit)}" if idle else ""
    return f"{counted(total, 'run')} in {counted(len(spans.starts), spans.unit)}{without}."


def _changes(digest: Digest, spans: Spans) -> Chart:
    days = digest.change_days
    by_kind: Counter[str] = Counter()
    by_day: Counter[tuple[date, str]] = Counter()
    by_span: Counter[tuple[str, str]] = Counter()
    for day in days:
        kind = _kind(day.kind)
        by_kind[kind] += day.versions
        by_day[day.day, kind] += day.versions
        by_span[spans.label(day.day), kind] += day.versions
    shown = [*_KIND_WORDS.values(), *sorted(set(by_kind) - set(_KIND_WORDS.values()))]
    kinds = [kind for kind in shown if by_kind[kind]]
    rows = [
        (_date(day), *(number(by_day[day, kind]) for kind in kinds))
        for day in sorted({day.day for day in days}, reverse=True)
    ]
    values = [
        {"span": span, "kind": kind, "versions": versions}
        for (span, kind), versions in by_span.items()
    ]
    spec: dict[str, Any] = {
        "mark": {"type": "circle", "color": "var(--accent)", "opacity": 0.85},
        "encoding": {
            "x": over(spans),
            "y": {
                "field": "kind",
                "type": "nominal",
                "scale": {"domain": kinds},
                "axis": {"grid": True, **room(kinds)},
            },
            "size": {
                "field": "versions",
                "type": "quantitative",
                "legend": None,
                "scale": {"range": [30, 400], "domainMin": 1},
            },
        },
    }
    return Chart(
        "changes",
        "Changes by kind",
        _sentence(
            counted(by_kind.total(), "change"),
            [f"{kind} ({number(by_kind[kind])})" for kind in kinds],
        )
        + " The larger a dot, the more changed."
        if days
        else "Nothing changed in this time.",
        drawn(values, height=_ROW * max(len(kinds) + 1, 4), **spec) if days else None,
        ("Day", *(kind.capitalize() for kind in kinds)),
        rows,
    )


def _ages(ages: Sequence[AgeBand]) -> Chart:
    total = sum(band.personas for band in ages)
    labels = [as_line(band.label, _WIDEST_LABEL) for band in ages]
    values = [
        {"seen": label, "personas": band.personas, "told": number(band.personas)}
        for label, band in zip(labels, ages, strict=True)
    ]
    spec: dict[str, Any] = {
        "encoding": {
            "y": {
                "field": "seen",
                "type": "nominal",
                "sort": None,
                "axis": room(labels),
            },
            "x": {
                "field": "personas",
                "type": "quantitative",
                "axis": None,
                # Room for the number behind the longest bar.
                "scale": {
                    "domain": [0, max(1.0, 1.3 * max((b.personas for b in ages), default=0))]
                },
            },
        },
        "layer": [
            {"mark": {"type": "bar", "color": "var(--accent)", "height": 14}},
            {
                "mark": {
                    "type": "text",
                    "align": "left",
                    "dx": 6,
                    "fontSize": 12,
                    "color": "var(--ink)",
                },
                "encoding": {"text": {"field": "told"}},
            },
        ],
    }
    told = [
        f"{label} ({number(band.personas)})"
        for label, band in zip(labels, ages, strict=True)
        if band.personas
    ]
    return Chart(
        "ages",
        "Last seen",
        _sentence(counted(total, "live persona"), told) if total else "There are no live personas.",
        drawn(values, height=_ROW * len(ages) + 10, **spec) if total else None,
        ("Last seen", "Live personas"),
        [(label, number(band.personas)) for label, band in zip(labels, ages, strict=True)],
    )


def _sentence(total: str, parts: Iterable[str]) -> str:
    listed = ", ".join(parts)
    return f"{total}: {listed}." if listed else f"{total}."


def _kind(kind: str) -> str:
    return _KIND_WORDS.get(kind) or as_line(kind, _WIDEST_LABEL)


def _date(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def _took(seconds: float | None) -> str:
    return "" if seconds is None else length_of_time(timedelta(seconds=seconds))
