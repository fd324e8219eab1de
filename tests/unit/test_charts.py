"""The charts of the page: what they count, what they say of it, and that nothing steers them."""

import re
from dataclasses import replace
from datetime import date, timedelta
from xml.etree import ElementTree as ET

import pytest

from etl.report.charts import Chart, charts
from etl.report.digest import AgeBand, ChangeDay, RunDay
from etl.report.spans import Spans
from tests.unit.digests import EMPTY, NOW, hostile, week

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def of_a_week() -> dict[str, Chart]:
    return {chart.name: chart for chart in charts(week())}


def texts(chart: Chart) -> list[str]:
    assert chart.svg
    return [text.text or "" for text in ET.fromstring(chart.svg).iter(f"{SVG}text")]


def test_a_chart_says_in_words_what_it_shows(of_a_week: dict[str, Chart]) -> None:
    runs, changes, ages = (of_a_week[name] for name in ("runs", "changes", "ages"))
    assert runs.summary == "176 runs in 8 days."
    assert [(key.told, key.count) for key in runs.keys] == [
        ("succeeded", 166),
        ("partial", 3),
        ("failed or cut short", 7),
    ]
    assert changes.summary.startswith(
        "37 changes: personas (30), avatars (1), voices (1), tools (3), knowledge (2)."
    )
    assert ages.summary.startswith("408 live personas: within 1 h (370), 1 h to 6 h (32), ")


def test_the_table_of_a_chart_has_its_numbers(of_a_week: dict[str, Chart]) -> None:
    assert ("19 Nov 2026", "failed", "7", "1 min") in of_a_week["runs"].rows
    assert of_a_week["changes"].columns == (
        "Day", "Personas", "Avatars", "Voices", "Tools", "Knowledge",
    )  # fmt: skip
    assert ("19 Nov 2026", "11", "0", "0", "1", "0") in of_a_week["changes"].rows
    assert ("6 h to 1 d", "3") in of_a_week["ages"].rows


def test_a_bar_stands_for_as_many_runs_as_there_were() -> None:
    days = [RunDay(NOW.date(), "succeeded", 30, 1.0), RunDay(NOW.date(), "failed", 10, 1.0)]
    svg = charts(replace(EMPTY, run_days=days))[0].svg or ""
    heights = bars(svg)
    assert heights["var(--ran)"] == pytest.approx(3 * heights["var(--bad)"], rel=0.02)


@pytest.mark.parametrize("runs", [1, 2, 3, 5, 47])
def test_nobody_reads_of_half_a_run(runs: int) -> None:
    days = [RunDay(NOW.date(), "succeeded", runs, 1.0)]
    marks = [text for text in texts(charts(replace(EMPTY, run_days=days))[0]) if text[0].isdigit()]
    assert "0" in marks
    assert not [text for text in marks if "." in text]


def bars(svg: str) -> dict[str, float]:
    """How high the bars of each colour are."""
    return {
        found[2]: float(found[1])
        for found in re.finditer(r'd="M[^"]*?v([\d.]+)h[^"]*" fill="(var[^"]*)"', svg)
    }


def test_a_day_without_a_run_has_its_place_and_is_told() -> None:
    days = [RunDay(NOW.date(), "succeeded", 1, 1.0)]
    runs = charts(replace(EMPTY, run_days=days))[0]
    assert runs.summary == "1 run in 8 days, none in 7 days."
    assert len(Spans.of(EMPTY).starts) == 8


@pytest.mark.parametrize(
    ("days", "unit", "most"),
    [(0, "day", 1), (44, "day", 45), (45, "week", 8), (300, "week", 44), (900, "month", 31),
     (9000, "year", 26)],
)  # fmt: skip
def test_a_long_time_has_few_bars(days: int, unit: str, most: int) -> None:
    begun = NOW - timedelta(days=days)
    changes = [ChangeDay(begun.date(), "persona", "updated", 1)]
    spans = Spans.of(replace(EMPTY, since=begun, change_days=changes))
    assert spans.unit == unit
    assert len(spans.starts) <= most
    assert len({spans.label(start) for start in spans.starts}) == len(spans.starts)
    assert spans.begin(begun.date()) == spans.starts[0]
    assert spans.begin(NOW.date()) == spans.starts[-1]


def test_since_ever_begins_with_what_happened_first() -> None:
    ever = NOW.replace(year=1, month=1, day=2)
    days = [RunDay(date(2026, 11, 20), "succeeded", 1, 1.0)]
    assert len(Spans.of(replace(EMPTY, since=ever, run_days=days)).starts) == 4


def test_without_numbers_there_are_words_and_no_picture() -> None:
    assert [chart.svg for chart in charts(EMPTY)] == [None, None, None]
    assert [chart.summary for chart in charts(EMPTY)] == [
        "Nothing ran in this time.",
        "Nothing changed in this time.",
        "There are no live personas.",
    ]
    nobody = charts(replace(EMPTY, ages=[AgeBand("within 1 h", 0)]))[2]
    assert nobody.svg is None


def test_every_colour_is_the_pages(of_a_week: dict[str, Chart]) -> None:
    for chart in of_a_week.values():
        colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', chart.svg or ""))
        assert {c for c in colours if not c.startswith("var(--")} <= {"none", "transparent"}
        # The page's policy lets no style through that stands at an element.
        assert "style=" not in (chart.svg or "")


def test_labels_are_text_whatever_they_hold() -> None:
    drawn = charts(hostile())
    for chart in drawn:
        assert chart.svg
        names = {element.tag.removeprefix(SVG) for element in ET.fromstring(chart.svg).iter()}
        assert names <= {"svg", "g", "path", "line", "text", "rect", "circle"}
    assert any(text.startswith("<script>") for text in texts(drawn[2]))
    shown = "".join(text for chart in drawn for text in texts(chart))
    assert not set(shown) & set("\x00\x1b\x85\u202e\u2066\u200f\ud800")


def test_the_same_numbers_make_the_same_picture() -> None:
    assert charts(week()) == charts(week())
