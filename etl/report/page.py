"""A digest as one page of HTML, which asks nothing of any network and runs its own script alone.

Its words and their order are in `page.html.jinja`, its looks in `page.css`, its search in
`page.js`; charts come from `charts.py`, edited prompts from `edits.py`, and how values stand
there is said in `shown.py`. Here is what of a digest is told, and how much. Needs the extra `html`.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from etl.report.by_day import by_day
from etl.report.charts import charts
from etl.report.digest import Listed, T
from etl.report.edits import edited
from etl.report.shown import clock, length, number, of, period, shown, ticked
from etl.report.text import length_of_time
from etl.tables import FAILURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Template

    from etl.report.charts import Chart
    from etl.report.digest import Digest
    from etl.report.edits import Edited

LARGEST: Final = 2_000_000
"""Bytes of a page. Rather than become larger it shows less, and says so."""

_HOME: Final = Path(__file__).parent

# What there may be more of than anybody reads on a page.
_MOST_NUMBERS = 100
_MOST_PROMPTS = 20
# Then nothing is left but what there is one of.
_MOST_HALVINGS = 11
_MOST_PATHS = 6
# Later ones are folded.
_OPEN_PROMPTS = 5
_OPEN_ROWS = 20
# A change seen so soon after is told by one time.
_CLOSE = timedelta(hours=6)

_CHANGES: Final = {
    "created": ("+", "good", "first seen"),
    "updated": ("~", "fair", "changed"),
    "reshaped": ("≈", "idle", "reshaped by the API, nobody edited"),
    "removed": ("\u2212", "bad", "removed: the API said 404"),
    "restored": ("+", "good", "is back"),
    "pruned": ("·", "idle", "history before is not kept"),
}
_STATUSES: Final = {
    "succeeded": ("✓", "good"),
    "partial": ("!", "fair"),
    "missing": ("?", "fair"),
    **dict.fromkeys(("crashed", "interrupted", *FAILURES), ("✕", "bad")),
}
_UNKNOWN: Final = ("·", "idle")


def as_page(digest: Digest) -> str:
    """The whole page, of at most `LARGEST` bytes in UTF-8."""
    drawn = charts(digest)
    prompts = [edited(change) for change in digest.prompts.first[:_MOST_PROMPTS]]
    for halvings in range(_MOST_HALVINGS):
        bounded = _bounded(digest, halvings)
        page = _filled(bounded, drawn, prompts[: len(bounded.prompts.first)])
        if len(page.encode()) <= LARGEST:
            break
    return page


def _bounded(digest: Digest, halvings: int) -> Digest:
    """The first of everything: as many as somebody might read, halved so many times."""

    def first(most: int, listed: Listed[T]) -> Listed[T]:
        return Listed(listed.count, listed.first[: most >> halvings])

    return replace(
        digest,
        concerns=digest.concerns[: (50 >> halvings) or 1],
        changed_fields=first(8, digest.changed_fields),
        happenings=first(200, digest.happenings),
        prompts=first(_MOST_PROMPTS, digest.prompts),
        runs=first(60, digest.runs),
        failing=first(50, digest.failing),
        never_seen=first(50, digest.never_seen),
        links=first(100, digest.links),
        drift=first(100, digest.drift),
        personas=first(1000, digest.personas),
    )


def _filled(digest: Digest, drawn: Sequence[Chart], prompts: Sequence[Edited]) -> str:
    style, script = ((_HOME / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return _template().render(
        d=digest,
        this_year=digest.now.astimezone(UTC).year,
        # Ours, and as they are: their hashes are in the policy.
        policy=Markup(  # noqa: S704  our own words
            f"default-src 'none'; img-src data:; style-src {_hash(style)};"
            f" script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
        ),
        style=Markup(style),  # noqa: S704  our own file
        script=Markup(script),  # noqa: S704  our own file
        changed=digest.happenings.count,
        sections=_sections(digest),
        figures=_figures(digest),
        charts=drawn,
        period=period(digest.since, digest.now),
        days=list(by_day(digest.happenings.first)),
        prompts=prompts,
        troubles=[*digest.failing.first, *digest.never_seen.first],
        rhythm=_rhythm(digest),
        personas=digest.personas.first,
        listed_ids={persona.persona_id for persona in digest.personas.first},
        telling={*FAILURES, "missing"},
        most_numbers=_MOST_NUMBERS,
        most_paths=_MOST_PATHS,
        open_prompts=_OPEN_PROMPTS,
        open_rows=_OPEN_ROWS,
        close=_CLOSE,
        left_out=_left_out(digest),
        status_mark=lambda name: _STATUSES.get(name, _UNKNOWN)[0],
        status_class=lambda name: _STATUSES.get(name, _UNKNOWN)[1],
        change_mark=lambda name: _CHANGES.get(name, _UNKNOWN)[0],
        change_class=lambda name: _CHANGES.get(name, _UNKNOWN)[1],
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_HOME),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    environment.filters |= {
        "clock": clock,
        "date": lambda day: f"{day.day} {day:%B}",
        "drawn": _drawn,
        "happened": lambda change: _CHANGES[change][2] if change in _CHANGES else change,
        "of": of,
        "ticked": ticked,
        "took": lambda seconds: "" if seconds is None else length(seconds),
        "weekday": lambda day: f"{day:%A}",
        "words": lambda name: name.replace("_", " "),
    }
    return environment.get_template("page.html.jinja")


def _drawn(svg: str, chart: Chart) -> Markup:
    """A chart as an image that says what it shows. Its own texts Vega has escaped."""
    keys = (f"{number(key.count)} {key.told}" for key in chart.keys)
    told = ". ".join([chart.title, chart.summary.rstrip("."), *keys])
    rest = Markup(svg.removeprefix("<svg "))  # noqa: S704  # no text of it is unescaped
    return Markup('<svg role="img" aria-label="{}" {}').format(told, rest)


def _hash(text: str) -> str:
    """What the policy says of the one script and the one style that may be."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _figures(digest: Digest) -> list[tuple[str, int]]:
    totals = digest.totals
    return [
        ("live personas", totals.live),
        ("removed", totals.removed),
        ("distinct prompts", totals.prompts),
        ("distinct configurations", totals.configurations),
        ("avatars", totals.avatars),
        ("voices", totals.voices),
        ("tools", totals.tools),
        ("knowledge groups", totals.knowledge_groups),
        ("share links", totals.share_links),
    ]


def _sections(digest: Digest) -> list[tuple[str, str, int | None]]:
    failing = digest.failing.count + digest.never_seen.count
    return [
        ("attention", "Attention", len(digest.concerns)),
        ("changes", "Changes", digest.happenings.count),
        ("prompts", "Prompts", digest.prompts.count),
        *([("failing", "Failing", failing)] if failing else []),
        ("links", "Links", digest.links.count),
        ("drift", "Drift", digest.drift.count),
        ("runs", "Runs", digest.runs.count),
        ("personas", "Personas", digest.personas.count),
    ]


def _rhythm(digest: Digest) -> str:
    """How regularly syncs come, in a sentence or two."""
    rhythm = digest.rhythm
    if rhythm.last_complete_at is None:
        return "No sync has asked for all personas yet."
    ago = length_of_time(digest.now - rhythm.last_complete_at)
    told = f"The last sync of all personas ended {ago} before this report."
    if rhythm.last_success_at is None:
        told += " None has been without failures yet."
    elif rhythm.last_success_at != rhythm.last_complete_at:
        ago = length_of_time(digest.now - rhythm.last_success_at)
        told += f" The last without failures ended {ago} before it."
    if rhythm.longest_gap_seconds is not None:
        told += f" The longest gap between two was {length(rhythm.longest_gap_seconds)};"
    else:
        told += " Of this time no gap can be told;"
    return f"{told} one is late after {length(rhythm.late_after_seconds)}."


def _left_out(digest: Digest) -> str:
    told = {
        "happenings": "changes",
        "prompts": "edited prompts",
        "runs": "runs",
        "failing": "failing personas",
        "never_seen": "personas never seen",
        "links": "share links",
        "drift": "differences",
        "personas": "personas",
    }
    return ", ".join(
        f"{number(len(listed.first))} of {number(listed.count)} {word}"
        for name, word in told.items()
        if (listed := getattr(digest, name)).count > len(listed.first)
    )
