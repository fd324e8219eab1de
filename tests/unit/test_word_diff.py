"""The word diff: exact for any texts, readable for prose, bounded for whatever comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.report.alignment import Effort, common_runs
from etl.report.word_diff import Piece, word_diff
from tests.unit.strategies import properties

WORDS = [
    "Be",
    "kind",
    "brief",
    " ",
    "  ",
    "\t",
    "\n",
    "\n\n",
    ". ",
    "!",
    "猫",
    "犬",
    "。",
    "e\u0301",
]
WORDS += ["👩", "\u200d", "🚀", "🏽", "🇩🇪", "don't", "\r\n", "\u2028", "[-", "-]", "\u202e", ""]
texts = st.lists(st.sampled_from(WORDS), max_size=40).map("".join) | st.text(max_size=30)


def shown(old: str, new: str) -> str:
    """As wdiff writes it."""
    marks = {"same": "{}", "old": "[-{}-]", "new": "{{+{}+}}"}
    return "".join(marks[kind].format(text) for kind, text in word_diff(old, new))


@given(texts, texts)
@properties(300)
def test_the_pieces_give_both_texts_back_exactly(old: str, new: str) -> None:
    pieces = word_diff(old, new)
    assert "".join(text for kind, text in pieces if kind != "new") == old
    assert "".join(text for kind, text in pieces if kind != "old") == new


@given(texts, texts)
@properties(100)
def test_pieces_are_never_empty_and_what_came_follows_what_went(old: str, new: str) -> None:
    pieces = word_diff(old, new)
    assert all(text for _, text in pieces)
    kinds = "".join(kind[0] for kind, _ in pieces)
    assert not any(pair in kinds for pair in ("ss", "oo", "nn", "no"))


@given(texts)
@properties(50)
def test_a_text_has_no_difference_from_itself(text: str) -> None:
    assert word_diff(text, text) == ([Piece("same", text)] if text else [])


@given(
    st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12)
)
@properties(200)
def test_as_much_is_found_to_stay_as_can_stay(old: list[str], new: list[str]) -> None:
    longest = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i, item in enumerate(old):
        for j, other in enumerate(new):
            fits = longest[i][j] + 1 if item == other else 0
            longest[i + 1][j + 1] = max(fits, longest[i][j + 1], longest[i + 1][j])
    runs = common_runs(old, new, Effort(10_000))
    assert all(old[a : a + n] == new[b : b + n] for a, b, n in runs)
    assert sum(run.length for run in runs) == longest[-1][-1]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "Be kind.", "{+Be kind.+}"),
        ("Be kind to all.", "Be brief to all.", "Be [-kind-]{+brief+} to all."),
        ("Be kind.", "Be very kind.", "Be {+very +}kind."),
        ("Be very kind. Smile.", "Be kind. Smile.", "Be [-very -]kind. Smile."),
        ("One red car.", "One blue bus.", "One [-red car-]{+blue bus+}."),
        ("- red\n- blue\n", "- green\n- pink\n", "- [-red-]{+green+}\n- [-blue-]{+pink+}\n"),
        ("One. Two. Three.", "One. Three. Four.", "One. [-Two. -]Three.{+ Four.+}"),
        ("Be kind.", "Be  kind.", "Be[- -]{+  +}kind."),
        ("Be kind. \nSmile", "Be kind.\nSmile", "Be kind.[- -]\nSmile"),
        ("I don't know", "I didn't know", "I [-don't-]{+didn't+} know"),
        ("私は猫が好き", "私は犬が好き", "私は[-猫-]{+犬+}が好き"),
        ("Hi 👩\u200d🚀!", "Hi 👩\u200d🔬!", "Hi [-👩\u200d🚀-]{+👩\u200d🔬+}!"),
        ("Hi 👋!", "Hi 👋🏽!", "Hi [-👋-]{+👋🏽+}!"),
        ("🇩🇪 🇫🇷", "🇩🇪 🇫🇮", "🇩🇪 [-🇫🇷-]{+🇫🇮+}"),
        ("un cafe\u0301", "un cafe", "un [-cafe\u0301-]{+cafe+}"),
    ],
)
def test_prose_reads_as_a_person_would_mark_it(old: str, new: str, expected: str) -> None:
    assert shown(old, new) == expected


def test_in_a_long_text_it_marks_just_the_words_that_changed() -> None:
    lines = [f"Rule {number}: never say {number * 7}.\n" for number in range(20_000)]
    old = "".join(lines)
    edited = [
        line.replace("never", "always") if n % 4_000 == 9 else line for n, line in enumerate(lines)
    ]
    changed = [piece for piece in word_diff(old, "".join(edited)) if piece.kind != "same"]
    assert changed == [Piece("old", "never"), Piece("new", "always")] * 5


def test_a_word_is_found_in_a_line_that_never_ends() -> None:
    old = "word " * 300_000
    new = old[:700_000] + "new " + old[700_000:]
    assert [piece for piece in word_diff(old, new) if piece.kind != "same"] == [
        Piece("new", "new ")
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a\n" * 200_000, "a\nb\n" * 100_000),
        (". " * 200_000, "! " * 200_000),
        ("\n" * 400_000, "\n \n" * 200_000),
        ("x" * 1_000_000, "y" * 1_000_000),
        (
            "".join(f"{n} is it. " for n in range(60_000)),
            "".join(f"{n} was it. " for n in range(60_000)),
        ),
    ],
    ids=["the same lines", "no words", "no lines", "one word", "each sentence"],
)
def test_what_is_beyond_the_bound_is_exact_too(old: str, new: str) -> None:
    pieces = word_diff(old, new)
    assert "".join(text for kind, text in pieces if kind != "new") == old
    assert "".join(text for kind, text in pieces if kind != "old") == new
