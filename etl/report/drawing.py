"""How charts are drawn: by Vega, as SVG, in the colours that the page gives its own variables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import vl_convert
from wcwidth import width

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from etl.report.spans import Spans

# About as many as a card of the page and a phone are wide, so that letters keep their size.
_WIDTH = 300

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_CONFIG: Final = {
    # The page names the chart, and its words and table are beside it.
    "aria": False,
    "mark": {"aria": False},
    "background": None,
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "title": None,
        "labelColor": "var(--soft)",
        "labelFontSize": 12,
        "labelPadding": 6,
        "gridColor": "var(--line)",
        "domain": False,
        "ticks": False,
    },
}


def drawn(values: Sequence[dict[str, Any]], *, height: int, **spec: object) -> str:
    """SVG of what a Vega-Lite specification says of the values. The first takes half a second."""
    whole = {
        "$schema": _SCHEMA,
        "config": _CONFIG,
        "width": _WIDTH,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": values},
        **spec,
    }
    svg: str = vl_convert.vegalite_to_svg(whole, allowed_base_urls=[])
    return svg


def over(spans: Spans) -> dict[str, Any]:
    """The axis of time, with a place for each span whether something happened in it or not."""
    labels = [spans.label(start) for start in spans.starts]
    return {
        "field": "span",
        "type": "ordinal",
        "scale": {"domain": labels, "paddingInner": 0.35},
        # As many as can be read side by side.
        "axis": {
            "labelAngle": 0,
            "labelOverlap": "greedy",
            "labelSeparation": 8,
            "labelFlush": True,
        },
    }


def room(labels: Iterable[str]) -> dict[str, int]:
    """For the widest label in whatever font the reader has; Vega would measure another one."""
    return {"minExtent": 8 * max(map(width, labels), default=0) + 8, "labelLimit": 0}
