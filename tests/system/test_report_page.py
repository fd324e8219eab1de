"""The page of a report in a browser: what it asks for, runs, shows, and who can use it."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from etl.report.page import as_page
from tests.unit.digests import EMPTY, hostile, id_of, week

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

PHONE, DESK = 360, 1280


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with sync_playwright() as driver:
        # As root it has no sandbox to offer.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments, headless=True
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    usual = week(130)
    # Of many alike a few are enough for axe, which looks at each.
    few = replace(week(6, 6, 3), runs=replace(usual.runs, first=usual.runs.first[:5]))
    digests = {"week": usual, "few": few, "hostile": hostile(), "empty": EMPTY}
    for name, digest in digests.items():
        (folder / f"{name}.html").write_text(as_page(digest), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in digests}


@contextmanager
def opened(browser: Browser, file: Path, **how: Any) -> Iterator[Page]:
    """The page in a window of its own; whatever it complains about fails the test."""
    width = how.pop("width", DESK)
    context = browser.new_context(
        viewport={"width": width, "height": 900}, reduced_motion="reduce", **how
    )
    page = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert complaints == []
    # The icon is there, in the page itself: otherwise a browser would ask for one.
    assert {url.partition("#")[0] for url in asked} <= {file.as_uri(), "data:,"}


@pytest.fixture
def page(browser: Browser, files: dict[str, Path]) -> Iterator[Page]:
    """That of a usual week, on a desk."""
    with opened(browser, files["week"]) as page:
        yield page


def names(page: Page) -> list[str]:
    """Of the personas that the table shows."""
    return page.locator("#table tbody tr:visible th bdi").all_inner_texts()


def test_a_page_full_of_scripts_runs_none_of_them(browser: Browser, files: dict[str, Path]) -> None:
    with opened(browser, files["hostile"]) as page:
        page.locator("[onmouseover]").count()
        assert page.title().startswith("Personas, 16")
        assert page.locator("body").is_visible()
        assert page.locator("script").count() == 1
        assert page.locator("img, iframe, object, embed, form, base").count() == 0
        assert page.locator("h3", has_text="<script>document.title='owned'</script>").count()


def test_even_a_script_that_got_in_would_not_run(browser: Browser, files: dict[str, Path]) -> None:
    """The policy holds where escaping failed."""
    context = browser.new_context()
    page = context.new_page()
    bad = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
    broken = files["empty"].read_text(encoding="utf-8").replace("<footer>", f"{bad}<footer>")
    (file := files["empty"].with_name("broken.html")).write_text(broken, encoding="utf-8")
    page.goto(file.as_uri())
    page.wait_for_load_state()
    assert page.locator("img").count() == 1
    assert page.title() != "owned"
    context.close()


def test_the_search_filters_and_says_how_many_there_are(page: Page) -> None:
    said = page.get_by_role("status")
    assert said.inner_text() == "130 in all"
    assert len(names(page)) == 50
    search = page.get_by_role("searchbox", name="Search")
    search.fill("COACH  grete")
    assert said.inner_text() == "2 of 130 match"
    assert names(page) == ["Coach · Grete 16", "Coach · Grete 76"]
    search.fill(str(id_of(77))[-6:])
    assert len(names(page)) == 1
    search.fill("nobody is called so")
    assert said.inner_text() == "0 of 130 match"
    assert names(page) == []
    # Who has no such keys finds it all the same, and who has, too.
    for typed in ("coach  GRETÉ", "coach grete\u0301"):
        search.fill(typed)
        assert len(names(page)) == 2
    search.fill("")
    assert said.inner_text() == "130 in all"


def test_the_table_has_pages(page: Page) -> None:
    pages = page.get_by_role("navigation", name="Pages of personas")
    first = names(page)
    assert "Page 1 of 3" in pages.inner_text()
    assert pages.get_by_role("button", name="Previous").is_disabled()
    pages.get_by_role("button", name="Next").click()
    pages.get_by_role("button", name="Next").click()
    assert "Page 3 of 3" in pages.inner_text()
    assert len(names(page)) == 30
    assert pages.get_by_role("button", name="Next").is_disabled()
    pages.get_by_role("button", name="Previous").click()
    pages.get_by_role("button", name="Previous").click()
    assert names(page) == first


def test_a_column_orders_the_rows_by_its_numbers_and_what_is_empty_comes_last(page: Page) -> None:
    lengths = page.locator("#table tbody tr:visible td:nth-child(5)")
    head = page.get_by_role("columnheader", name="Prompt")
    head.get_by_role("button").click()
    up = [int(text.replace("\u202f", "")) for text in lengths.all_inner_texts()]
    assert up == sorted(up)
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Next").click()
    assert lengths.all_inner_texts()[-1] == "\u2013"


def test_a_link_to_a_persona_finds_it_on_its_page(page: Page) -> None:
    page.get_by_role("searchbox").fill("nothing")
    page.locator(f'a[href="#persona-{id_of(127)}"]').first.click()
    assert page.locator(f"#persona-{id_of(127)}").is_visible()
    assert "Page 3 of 3" in page.locator("#pager").inner_text()


def test_without_scripts_all_of_it_can_be_read(browser: Browser, files: dict[str, Path]) -> None:
    with opened(browser, files["week"], java_script_enabled=False) as page:
        assert len(names(page)) == 130
        assert not page.locator("#search").is_visible()
        page.locator("summary").first.click()
        assert page.locator("details[open]").count() == 1


def test_the_keyboard_reaches_all_there_is_to_use(page: Page) -> None:
    usable = page.locator(
        "a:visible, button:visible:not([disabled]), input:visible, summary:visible,"
        " [tabindex='0']:visible"
    )
    reached: set[str] = set()
    for step in range(usable.count() + 1):
        page.keyboard.press("Tab")
        here = page.evaluate(
            """() => {
              const e = document.activeElement, ring = getComputedStyle(e);
              return [e.tagName, e.textContent.trim(),
                      ring.outlineStyle != 'none' && ring.outlineWidth,
                      [...document.querySelectorAll('*')].indexOf(e)];
            }"""
        )
        if step == 0:
            assert here[1] == "Skip to the report"
            assert page.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]
        if here[0] != "BODY":
            assert here[2] not in {False, "0px"}, f"nobody sees where the focus is: {here}"
            reached.add(str(here[3]))
    assert len(reached) >= usable.count()
    page.locator("th button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort]").count() == 1


@pytest.mark.parametrize("name", ["week", "hostile", "empty"])
def test_nothing_is_wider_than_the_screen(
    browser: Browser, files: dict[str, Path], name: str
) -> None:
    with opened(browser, files[name]) as page:
        page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        for width in (320, PHONE, 700, 1030, DESK):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "width"), [("few", DESK), ("few", PHONE), ("empty", DESK)])
def test_it_is_accessible(
    browser: Browser, files: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    with opened(browser, files[name], width=width, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        found = Axe().run(page).response["violations"]
        assert [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in found] == []


def test_bars_and_dots_stand_out_from_their_ground(
    browser: Browser, files: dict[str, Path]
) -> None:
    """Three to one, as WCAG wants of graphics; axe looks at text alone."""
    for scheme in ("light", "dark"):
        with opened(browser, files["week"], color_scheme=scheme) as page:
            for colour in ("--ran", "--fair", "--bad", "--idle", "--accent"):
                assert contrast(page, colour, "--card") >= 3, (scheme, colour)


def contrast(page: Page, one: str, other: str) -> float:
    def luminance(name: str) -> float:
        colour = page.evaluate(
            "(name) => getComputedStyle(document.documentElement).getPropertyValue(name)", name
        ).strip("# ")
        parts = [int(colour[n : n + 2], 16) / 255 for n in (0, 2, 4)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_headings_leave_out_no_level(browser: Browser, files: dict[str, Path]) -> None:
    with opened(browser, files["week"]) as page:
        levels = page.evaluate(
            "[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])"
        )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_each_chart_is_an_image_with_words_for_it(page: Page) -> None:
    images = page.get_by_role("img")
    assert images.count() == 3
    said = [images.nth(n).get_attribute("aria-label") or "" for n in range(3)]
    assert said[0].startswith("Runs by day. 176 runs in 8 days. 166 succeeded. 3 partial. 7 failed")
    assert said[1].startswith("Changes by kind. 37 changes: personas (30)")
    assert said[2].startswith("Last seen. 133 live personas: within 1 h")


def test_it_prints_dark_on_white_without_what_paper_has_no_use_for(
    browser: Browser, files: dict[str, Path]
) -> None:
    with opened(browser, files["week"], color_scheme="dark") as page:
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.emulate_media(media="print")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark, paper) == ("rgb(19, 21, 24)", "rgb(255, 255, 255)")
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 35, 40)"
        for useless in ("#search", "#pager button", ".top nav"):
            assert not page.locator(useless).first.is_visible()
        # Of more personas than fit a page it says which these are.
        assert page.locator("#found").inner_text() == "130 in all"
        assert page.locator("#pager").inner_text().strip() == "Page 1 of 3"
        printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    # Some pages, and not one of a thousand rows each.
    assert 3 <= printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") <= 20
