"""The page of a digest: what it tells, that all of it is text, and that it stays small."""

import base64
import hashlib
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta, timezone
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.errors import UsageError
from etl.report.digest import LONGEST_PROMPT, Concern, Digest, Happening, Listed, Rhythm
from etl.report.extra import require_html_libraries
from etl.report.page import LARGEST, as_page
from etl.report.text import as_line
from tests.unit.digests import EMPTY, HOSTILE, NOW, hostile, id_of, persona, prompt_change, week


class Page(HTMLParser):
    """What stands in a page: its elements, their attributes, its text, its script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.said: list[str] = []
        self.inside: list[str] = []
        self.raw: dict[str, str] = {}
        self.feed(page)
        self.text = " ".join("".join(self.said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in {"script", "style"}:
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.raw[self.inside[-1]] = data
        else:
            self.said.append(data)


def told(digest: Digest) -> str:
    return Page(as_page(digest)).text


@pytest.fixture(scope="module")
def of_a_week() -> Page:
    return Page(as_page(week()))


@pytest.fixture(scope="module")
def of_hostility() -> Page:
    return Page(as_page(hostile()))


def test_the_page_begins_with_the_time_and_what_needs_attention(of_a_week: Page) -> None:
    text = of_a_week.text
    assert "16\u201323 November 2026" in text
    assert "408 live personas, 37 changes, 3 things to look at." in text
    order = [text.index(word) for word in ("Needs attention", "What changed", "Prompts that were",
                                           "Share links that", "Drift:", "412 ")]  # fmt: skip
    assert order[:5] == sorted(order[:5])
    assert "Act 3 personas failed" in text.replace("! Act", "Act")


def test_nothing_in_it_leads_anywhere_but_into_the_page(of_a_week: Page) -> None:
    leading = {"href", "src", "srcset", "action", "data", "poster", "xlink:href", "background"}
    addresses = {value for _, name, value in of_a_week.attributes if name in leading}
    assert {a for a in addresses if not a.startswith("#")} == {"data:,"}
    ids = {value for _, name, value in of_a_week.attributes if name == "id"}
    assert {a.removeprefix("#") for a in addresses if a.startswith("#")} <= ids
    assert "url(" not in of_a_week.raw["style"]
    assert "@import" not in of_a_week.raw["style"]


def test_an_id_stands_once(of_hostility: Page, of_a_week: Page) -> None:
    for page in (of_hostility, of_a_week):
        ids = Counter(value for _, name, value in page.attributes if name == "id")
        assert not {id_ for id_, times in ids.items() if times > 1}


def test_the_policy_allows_its_own_script_and_style_and_nothing_else(of_hostility: Page) -> None:
    (policy,) = (v for _, name, v in of_hostility.attributes if v.startswith("default-src"))
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        digest = hashlib.sha256(of_hostility.raw[kind].encode()).digest()
        assert f"{kind}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
        assert of_hostility.elements[kind] == 1
    assert not [a for a in of_hostility.attributes if a[1] == "style" or a[1].startswith("on")]


def test_whatever_a_payload_brings_is_text(of_hostility: Page, of_a_week: Page) -> None:
    assert set(of_hostility.elements) <= set(of_a_week.elements)
    for text in HOSTILE:
        assert as_line(text) in of_hostility.text
    named = {name for _, name, _ in of_hostility.attributes}
    assert named <= {name for _, name, _ in of_a_week.attributes}


def test_what_turns_or_hides_text_is_spelled_out_in_a_prompt(of_hostility: Page) -> None:
    everything = "".join(of_hostility.said)
    assert "\\u202egnirts" in everything
    assert "a\\u0000b\\u001b[31mc\\u0085\\ud800" in everything
    assert not [c for c in everything if not c.isprintable() and c not in "\n\t\u202f\u200d"]


@given(text=st.text(st.characters(codec=None), max_size=60))
def test_no_text_changes_what_the_page_is_made_of(text: str) -> None:
    def of(words: str) -> Page:
        return Page(
            as_page(
                replace(
                    EMPTY,
                    personas=Listed(1, [replace(persona(1), name=words, llm_id=words)]),
                    prompts=Listed(1, [prompt_change(1, 1, None, words)]),
                    concerns=[Concern("x", "act", 1, words.replace("`", ""), None)],
                )
            )
        )

    page, plain = of(f"x{text}x"), of("xx")
    assert page.elements == plain.elements
    assert [a[:2] for a in page.attributes] == [a[:2] for a in plain.attributes]
    assert page.raw == plain.raw
    page.text.encode()


def test_a_quiet_week_says_so_everywhere() -> None:
    text = told(EMPTY)
    for words in (
        "0 live personas, 0 changes, nothing that needs you.",
        "Nothing needs you.",
        "Nothing changed since 16 Nov, 07:12.",
        "No prompt was edited since 16 Nov, 07:12.",
        "No share link expires soon, is used up or is wide open.",
        "They differ nowhere that nobody has decided about.",
        "Nothing ran since 16 Nov, 07:12;",
        "There are none yet;",
    ):
        assert words in text
    assert "Not all is here" not in text
    assert "could not be copied" not in text


def test_what_there_is_no_room_for_is_not_said_not_to_be() -> None:
    none: Listed[Any] = Listed(7, [])
    digest = replace(week(), happenings=none, prompts=none, links=none, drift=none, runs=none)
    text = told(replace(digest, personas=none))
    for words in ("Nothing", "No prompt", "No share link", "They differ nowhere", "There are none"):
        assert words not in text
    assert text.count("0 of 7 ") == 12


def _long(n: int, word: str) -> str:
    return "".join(
        f"Sentence {n} of {m} is {word if m % 7 == 0 else 'long'}.\n" for m in range(200)
    )


def test_a_thousand_personas_two_hundred_changes_and_twenty_edits_are_under_two_megabytes() -> None:
    edits = [prompt_change(n, n, _long(n, "kind"), _long(n, "brief")) for n in range(20)]
    page = as_page(replace(week(1000, 200, 20), prompts=Listed(20, edits)))
    assert len(page.encode()) < LARGEST
    assert Page(page).elements["tr"] > 1000
    assert "Not all is here: 25 of 176 runs." in Page(page).text


def test_of_more_the_first_are_there_and_it_says_so() -> None:
    page = Page(as_page(week(12_345, 1234, 56)))
    for count, what, view in (
        ("1 000 of 12 345", "personas", "personas"),
        ("200 of 1 234", "changes", "changes"),
        ("20 of 56", "edited prompts", "prompt_history"),
    ):
        where = f'persona-etl query "SELECT * FROM {view}"'
        assert f"{count} {what} are here; {where} has all." in page.text
    left_out = "Not all is here: 200 of 1 234 changes, 20 of 56 edited prompts, 25 of 176 runs"
    assert left_out in page.text
    assert (
        sum(value.startswith("persona-") for _, name, value in page.attributes if name == "id")
        == 1000
    )


def test_however_long_the_texts_are_the_page_stays_small() -> None:
    heaped = "<a\u0301\u0301\u0301" * 100_000
    many = [replace(persona(n), name=heaped, llm_id=heaped, voice_name=heaped) for n in range(1000)]
    full = hostile()
    page = as_page(
        replace(
            full,
            personas=Listed(1000, many),
            happenings=Listed(
                200, [replace(full.happenings.first[0], name=heaped, paths=[heaped] * 50)] * 200
            ),
            prompts=Listed(20, [prompt_change(n, 1, heaped, heaped[::-1]) for n in range(20)]),
            concerns=[Concern("x", "act", 1, heaped, heaped)] * 200,
        )
    )
    assert len(page.encode()) <= LARGEST
    assert "of 1\u202f000 personas are here" in page
    assert "of 200 changes are here" in page


def test_an_edit_shows_the_words_amid_what_is_around_them() -> None:
    before = "Sentence that stays. " * 100
    change = prompt_change(1, 1, f"{before}Be kind. {before}", f"{before}Be brief. {before}")
    page = as_page(replace(EMPTY, prompts=Listed(1, [change])))
    assert '<del><span class="vh">[gone: </span>kind<span class="vh">]</span></del>' in page
    assert '<ins><span class="vh">[new: </span>brief<span class="vh">]</span></ins>' in page
    text = Page(page).text
    assert text.count("characters the same") == 2
    assert text.count("Sentence that stays.") < 20
    assert "<summary>Show the difference" not in page
    assert "4\u202f209 characters → 4\u202f210" in page


def test_a_line_that_alone_came_is_seen() -> None:
    page = as_page(
        replace(EMPTY, prompts=Listed(1, [prompt_change(1, 1, "One.\nTwo.", "One.\n\nTwo.")]))
    )
    assert "↵\n" in page


def test_a_long_edit_is_folded_and_what_is_left_out_is_told() -> None:
    words = " ".join(f"word{n}" for n in range(2000))
    page = as_page(replace(EMPTY, prompts=Listed(1, [prompt_change(1, 1, words, words.upper())])))
    assert "<summary>Show the difference" in page
    assert "characters not shown" in page
    assert f"<code>persona-etl diff {id_of(1)}</code> shows more" in page


def test_prompts_that_the_digest_has_cut_are_said_to_be() -> None:
    long = ("x" * 99 + " ") * (LONGEST_PROMPT // 100)
    change = prompt_change(1, 1, long, f"Y{long[1:]}")
    assert "Not all of it" in told(replace(EMPTY, prompts=Listed(1, [change])))


def test_a_prompt_that_came_or_went_is_told() -> None:
    for old, new, words in ((None, "Hi.", "had no prompt"), ("Hi.", None, "has none any more")):
        text = told(replace(EMPTY, prompts=Listed(1, [prompt_change(1, 1, old, new)])))
        assert words in text


FIRST_SEEN = week().happenings.first[2]


def happening(n: int, **changed: object) -> Happening:
    return replace(FIRST_SEEN, entity_id=id_of(n), **changed)  # type: ignore[arg-type]


def test_many_of_a_sort_on_a_day_are_one_line_that_unfolds() -> None:
    first_load = [happening(n) for n in range(300)]
    page = as_page(replace(EMPTY, happenings=Listed(300, first_load)))
    assert "200 personas" in Page(page).text
    assert page.count('<li class="happening">') == 200
    assert page.index("<summary>") < page.index('<li class="happening">')


def test_only_what_was_renamed_tells_what_it_was_called() -> None:
    renamed, removed = happening(1, name="New", name_before="Old"), happening(2, change="removed")
    removed = replace(removed, name="Same", name_before="Same")
    text = told(replace(EMPTY, happenings=Listed(2, [renamed, removed])))
    assert "was called Old" in text
    assert text.count("was called") == 1


def test_how_many_fields_more_changed_is_not_run_into_the_version() -> None:
    paths = [f"field{n}" for n in range(9)]
    edited = replace(happening(1), paths=paths, version=3)
    assert "field5 and 3 more · version 3" in told(replace(EMPTY, happenings=Listed(1, [edited])))


def test_what_is_behind_the_first_of_a_long_table_unfolds() -> None:
    digest = week()
    links = [replace(digest.links.first[0], usage_count=n) for n in range(63)]
    page = as_page(replace(digest, links=Listed(63, links)))
    shown, _, folded = page[page.index('id="links"') :].partition("43 more links</summary>")
    assert shown.count('data-label="State"') == 20
    assert folded.count('data-label="State"') == 43
    assert "more links" not in as_page(replace(digest, links=Listed(20, links[:20])))


def test_a_run_tells_what_it_came_to(of_a_week: Page) -> None:
    assert "412 requested, 409 unchanged, 3 updated" in of_a_week.text


def test_the_latest_days_are_open_and_earlier_ones_unfold() -> None:
    page = as_page(week())
    assert page.index('<li class="happening">') < page.index("<summary>6 changes")


def test_times_are_told_in_utc_and_of_other_years_with_the_year() -> None:
    tokyo = timezone(timedelta(hours=9))
    one = happening(1, at=NOW.astimezone(tokyo), not_before=NOW - timedelta(days=400))
    page = as_page(replace(EMPTY, happenings=Listed(1, [one])))
    assert '<time datetime="2026-11-23T07:12:40Z">07:12</time>' in page
    assert "some time after <time" in page
    assert "19 Oct 2025, 07:12</time>" in page


def test_a_persona_is_linked_where_the_table_has_it() -> None:
    gone = replace(happening(5), name="Somebody else")
    page = as_page(replace(week(3), happenings=Listed(2, [happening(1), gone])))
    assert f'<a href="#persona-{id_of(1)}">' in page
    assert f'href="#persona-{id_of(5)}"' not in page


def test_the_rhythm_of_syncs_is_told() -> None:
    hour = timedelta(hours=1)
    rhythm = Rhythm(NOW - 30 * hour, NOW - hour, 7200.0, 86_400.0)
    assert (
        "The last sync of all personas ended 1 h before this report. The last without failures"
        " ended 30 h before it. The longest gap between two was 2 h; one is late after 24 h."
    ) in told(replace(EMPTY, rhythm=rhythm))
    assert "No sync has asked for all personas yet." in told(EMPTY)


def test_the_same_digest_makes_the_same_page() -> None:
    assert as_page(week()) == as_page(week())


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require_html_libraries()
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(
        UsageError, match=r"needs vl_convert: run `pip install 'persona-etl\[html\]'`"
    ):
        require_html_libraries()
