"""What differs of a persona between two moments, and how it is shown to people."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import width

from etl.cli.diff import as_object
from etl.cli.diff_screen import as_lines
from etl.cli.prose import Marks, as_block
from etl.jobs.diff import Diff, Event
from etl.payload.canonical import same
from etl.payload.decode import decode, dumps
from etl.payload.differences import ABSENT, differences
from etl.payload.documents import references
from etl.report.persona_diff import Shown, Snapshot, compare, elements, is_set
from etl.report.word_diff import word_diff
from tests.db.odd_documents import odd_texts, pairs
from tests.unit.strategies import PERSONA_ID, properties

if TYPE_CHECKING:
    from etl.tables import Kind

WHEN = datetime(2026, 11, 3, 14, tzinfo=UTC)
ID = "bbbbbbbb-0000-4000-8000-00000000000b"
OTHER = "cccccccc-0000-4000-8000-00000000000c"
COLOUR = re.compile("\x1b\\[[0-9;]*m")


def snapshot(document: dict[str, Any], shared: dict[Any, Any] | None = None) -> Snapshot:
    return Snapshot(WHEN, "live", 1, WHEN, 1, document, shared or {})


def found(before: Snapshot, after: Snapshot, *events: Event, **given: Any) -> Diff:
    told: dict[str, Any] = {
        "name": "Ada",
        "is_last_change": False,
        "first_seen_at": WHEN,
        "kept_since": None,
        "unfolded": 0,
        **given,
    }
    comparisons = compare(PERSONA_ID, before, after)
    return Diff(
        PERSONA_ID, before=before, after=after, events=[*events], comparisons=comparisons, **told
    )


def shown(old: Any, new: Any, shared: dict[Any, Any] | None = None) -> list[str]:
    """The lines about fields."""
    lines = list(as_lines(found(snapshot(old, shared), snapshot(new, shared)), coloured=False))
    return lines[lines.index("") + 1 :]


def all_of(kind: Kind, old: dict[str, Any], new: dict[str, Any]) -> Diff:
    """The two as the documents of a persona, or of something that a persona shares."""
    if kind == "persona":
        return found(snapshot(old), snapshot(new))
    key = (kind, UUID(ID))
    before, after = (snapshot({}, {key: Shown(1, document)}) for document in (old, new))
    return found(before, after)


@given(pairs())
@properties(30)
def test_of_any_two_documents_each_difference_is_told_and_nothing_steers_the_terminal(pair):
    kind, old, new = pair
    diff = all_of(kind, old, new)
    expected = differences(kind, old, new)
    assert [change for each in diff.comparisons for change in each.changes] == expected
    told = as_object(diff)["changes"]
    assert decode(dumps(told)).value == told
    for change, difference in zip(told, expected, strict=True):
        assert (change["path"], change["of_shape"]) == (difference.path, difference.of_shape)
        assert same(change["old"], None if difference.old is ABSENT else difference.old)
        assert same(change["new"], None if difference.new is ABSENT else difference.new)
        assert (change["change"] == "added") == (difference.old is ABSENT)
        assert (change["change"] == "removed") == (difference.new is ABSENT)
    for coloured in (False, True):
        lines = [COLOUR.sub("", line) for line in as_lines(diff, coloured=coloured)]
        assert [line for line in lines if width(line) > 80 or not line.isprintable()] == []
    itself = all_of(kind, old, old)
    assert itself.comparisons == []
    assert list(as_lines(itself, coloured=False))[-1] == "No change."


@given(odd_texts, odd_texts)
@properties(100)
def test_of_short_texts_each_word_that_changed_is_shown(old, new):
    pieces = word_diff(old, new)
    block = "".join(as_block(pieces, Marks(coloured=False), 10_000))
    for kind, text in pieces:
        if kind != "same" and text.isalnum() and text.isascii():
            assert f"[-{text}-]" in block if kind == "old" else f"{{+{text}+}}" in block


tags = st.lists(st.sampled_from(["a", "b", 1, True, None, {"x": 1}]), max_size=5)


@given(tags, tags)
@properties(100)
def test_what_went_and_came_makes_one_set_of_the_other(old, new):
    for change in differences("voice", {"displayTags": old}, {"displayTags": new}):
        assert is_set("voice", change.path)
        went, came = (Counter(map(dumps, items)) for items in elements(change))
        assert Counter(map(dumps, old)) - went + came == Counter(map(dumps, new))
        assert not went & came


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"name": "Ada"}, {"name": "Bea"}, ['name: "Ada" → "Bea"']),
        ({"name": None}, {"name": "null"}, ['name: null → "null"']),
        ({"n": " a"}, {"n": "a "}, ['n: " a" → "a "']),
        (
            {"name": "A", "n": 1},
            {"name": "B"},
            ["n: 1 → (not sent) (the API's shape)", 'name: "A" → "B"'],
        ),
        ({}, {"n": 1}, ["Only the API's shape moved, nobody edited:", "n: (not sent) → 1"]),
        ({"n": "\x1b[2J\u202e"}, {"n": ""}, ['n: "\\u001b[2J\\u202e" → ""']),
        (
            {"name": "A", "widgetConfig": None},
            {"name": "B", "widgetConfig": {"theme": {"dark": True}, "pages": ["a"], "none": {}}},
            [
                'name: "A" → "B"',
                "widgetConfig:",
                "    - null",
                "    + theme.dark: true",
                '    + pages[0]: "a"',
                "    + none: {}",
            ],
        ),
        (
            {"widgetConfig": {"pages": ["a", "b"]}},
            {"widgetConfig": {"pages": ["b", "a"]}},
["widgetConfig.pages:", "    [", '      "[-a-]{+b+}",', '      "[-b-]{+a+}"', "    ]"],
        ),
        (
            {"name": "x" * 50},
            {"name": "y" * 50},
            ["name:", f'    - "{"x" * 50}"', f'    + "{"y" * 50}"'],
        ),
        (
            {"shareLinks": [{"id": ID, "allowedOrigins": ["a", "b"]}]},
            {"shareLinks": [{"id": ID, "allowedOrigins": ["c", "b"]}]},
            [f"shareLinks[{ID}].allowedOrigins:", '    - "a"', '    + "c"'],
        ),
        ({"brain": "a\nb"}, {"brain": None}, ["brain:", "    [-a↵-]", "    [-b-]", "    + null"]),
        ({"brain": None}, {"brain": "a\nb"}, ["brain:", "    - null", "    {+a↵+}", "    {+b+}"]),
    ],
)  # fmt: skip
def test_a_field_is_its_path_and_what_became_of_it(old, new, lines):
    assert shown(old, new) == lines


def test_what_a_persona_refers_to_is_told_by_name():
    shared = {
        ("voice", UUID(ID)): Shown(1, {"displayName": "Lucy"}),
        ("voice", UUID(OTHER)): Shown(1, {"displayName": "Leo"}),
        ("tool", UUID(ID)): Shown(1, {"name": "map"}),
    }
    old: dict[str, Any] = {"voice": {"id": ID}, "tools": None, "avatar": {"id": ID}}
    new: dict[str, Any] = {"voice": {"id": OTHER}, "tools": [{"id": ID}], "avatar": {"id": "none"}}
    assert references(new) <= shared.keys()
    assert shown(old, new, shared) == [
        f'avatar.id: "{ID}" → "none"',
        "tools:",
        "    - null",
        f"    + {ID}  map",
        "voice.id: exchanged",
        f"    - {ID}  Lucy",
        f"    + {OTHER}  Leo",
    ]


def test_a_shared_thing_that_changed_is_marked_and_has_a_part_of_its_own():
    before = snapshot({}, {("tool", UUID(ID)): Shown(1, {"name": "map", "config": {"a": 1}})})
    after = snapshot({}, {("tool", UUID(ID)): Shown(3, {"name": "atlas", "config": {"a": 2}})})
    lines = list(as_lines(found(before, after), coloured=False))
    assert lines[-4:] == [
        "tool atlas, shared, versions 1 → 3",
        f"    {ID}",
        f"tools[{ID}].config.a: 1 → 2",
        f'tools[{ID}].name: "map" → "atlas"',
    ]


PROMPT = "".join(f"Line {number} says hello.\n" for number in range(40))


def test_of_a_prompt_what_stayed_is_folded():
    old, new = PROMPT, PROMPT.replace("20 says", "20 shouts").replace("39 says hello.\n", "39.")
    assert shown({"prompt": old}, {"prompt": new})[1:] == [
        "    … 19 lines unchanged …",
        "    Line 19 says hello.",
        "    Line 20 [-says-]{+shouts+} hello.",
        "    Line 21 says hello.",
        "    … 16 lines unchanged …",
        "    Line 38 says hello.",
        "    Line 39[- says hello.↵-]",
        "    {+.+}",
    ]


def test_a_prompt_that_never_ends_a_line_is_folded_and_wrapped():
    old = "word " * 400
    lines = shown({"prompt": old}, {"prompt": old[:1000] + "new " + old[1000:]})
    assert lines[1] == "    … 177 words unchanged …"
    assert lines[-1] == "    … 176 words unchanged …"
    assert any("{+new +}" in line for line in lines)
    assert len(lines) < 10


def test_long_changes_are_cut_short_and_so_is_the_whole():
    lines = shown({"prompt": ""}, {"prompt": "many words\n" * 100_000})
    assert len(lines) < 300
    assert lines[-1] == "    … 99,728 lines more added …"
    scattered = "".join(f"{n}\nsame\n" for n in range(2000))
    lines = shown({"prompt": scattered}, {"prompt": re.sub(r"(?m)^\d+$", r"\g<0>0", scattered)})
    assert len(lines) == 402
    assert lines[-1] == "    … and more; --json has all of it …"


def test_colour_tells_what_came_also_to_whoever_can_t_tell_red_from_green():
    block = list(as_block(word_diff("Be kind.", "Be brief."), Marks(coloured=True), 76))
    assert block == ["Be \x1b[31;9mkind\x1b[0m\x1b[32;4mbrief\x1b[0m."]


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("Be  kind.", "Be kind.", ["Be[-··-]{+·+}kind."]),
        ("a\tb", "a b", ["a[-⇥-]{+·+}b"]),
        ("a\n\nb", "a\nb", ["a", "[-↵-]", "b"]),
        ("a b", "a\nb", ["a[-·-]{+↵+}", "b"]),
        ("a\r\nb", "a\nb", ["a[-\\u000d-]", "b"]),
        ("長い" * 9, "長い" * 8 + "短い", ["長い" * 5, "長い" * 3 + "[-長-]", "{+短+}い"]),
    ],
)
def test_white_space_is_seen_where_it_changed_and_every_script_is_wrapped(old, new, lines):
    assert list(as_block(word_diff(old, new), Marks(coloured=False), 20))[-3:] == lines


def event(change: str, minute: int, kind: Kind = "persona", **given: Any) -> Event:
    told: dict[str, Any] = {"not_before": None, "name": None, "version": 7, "changed_paths": []}
    return Event(
        WHEN + timedelta(minutes=minute), key=(kind, UUID(ID)), change=change, **told | given
    )


def test_what_lies_between_is_listed_up_to_ten():
    here = snapshot({"name": "A"})
    events = [event("updated", minute) for minute in range(300)]
    lines = list(as_lines(found(here, here, *events), coloured=False))
    assert lines[3] == "300 changes:"
    assert lines[4] == "  2026-11-03T14:00:00.000Z  persona, version 7, updated"
    assert lines[9] == "  … 290 more; --json lists them …"
    assert lines[-1] == "No difference: it is again as it was."
    assert len(lines) == 17


def test_a_removal_says_who_said_so():
    before = snapshot({"name": "A"})
    after = Snapshot(WHEN, "removed", 2, WHEN, 1, {"name": "A"})
    lines = list(as_lines(found(before, after, event("removed", 0)), coloured=False))
    assert lines[2:] == [
        "to    2026-11-03T14:00:00.000Z  removed",
        "1 change:",
        "  2026-11-03T14:00:00.000Z  persona, version 7, removed: the API said 404",
        "",
        "While a persona is removed, what it showed last counts.",
        "No field differs.",
    ]


def test_what_was_pruned_is_said_not_to_be_kept_and_which_fields_it_was():
    before = Snapshot(WHEN, "pruned", 1, WHEN, 1)
    first = event("updated", 5, changed_paths=["name", "brain.systemPrompt"])
    diff = found(before, snapshot({"name": "A"}), first, kept_since=first.at)
    assert list(as_lines(diff, coloured=False))[-4:] == [
        "Not kept: history before 2026-11-03T14:05:00.000Z was pruned.",
        "Then something changed in these fields; what stood there before is not kept:",
        "    name",
        "    brain.systemPrompt",
    ]
