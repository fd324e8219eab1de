"""Texts that are nearly alike are grouped around one of them, and no chain makes a group."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Indel

from etl.report.likeness import _CHARACTERS, _Characters, _read, groups_of, similarity
from etl.sandbox import prose

AT_LEAST = 0.9


def grouped(*texts: str, at_least: float = AT_LEAST) -> list[set[int]]:
    """Which are in a group together; each is used once."""
    found = groups_of([(text, 1) for text in texts], at_least)
    return [{group.reference, *(one.number for one in group.others)} for group in found]


def numbered(count: int, word: str = "word") -> str:
    return " ".join(f"{word}{number}" for number in range(count))


def test_likeness_is_the_share_of_words_that_both_have_in_the_same_order() -> None:
    assert similarity("one two three four", "one two three four") == 1
    assert similarity("one two three four", "one two four") == pytest.approx(6 / 7)
    assert similarity("one two three four", "four three two one") == 0.25
    assert similarity("one two", "three four") == 0
    assert similarity("You are Cara.", "You are Zoë.") == 0.75


def test_white_space_is_no_difference_and_case_is_one() -> None:
    assert similarity("one\n two\tthree", "one two  three ") == 1
    assert similarity("One two", "one two") == 0.5
    assert similarity("", " \n") == 1
    assert similarity("", "one") == 0


@pytest.mark.parametrize(
    ("one", "other"), [("東京の天気", "東京の空気"), ("🤖🎉👍🏽🙏❤", "🤖🎉👍🏽🙏💙")]
)
def test_where_nothing_stands_between_words_each_sign_is_one(one: str, other: str) -> None:
    assert 0.6 < similarity(one, other) < 0.95


def test_those_nearly_like_one_are_its_group_and_the_others_are_in_none() -> None:
    first, second = numbered(50), numbered(50, "other")
    assert grouped(first, second, first + " more", "word1", second.replace("other7", "x"), "") == [
        {0, 2},
        {1, 4},
    ]


def test_a_group_is_told_by_the_most_used_and_of_equals_by_the_most_usual() -> None:
    usual = numbered(60)
    texts = [usual.replace(f"word{number}", "mine", 1) for number in range(0, 50, 10)]
    group = groups_of([(text, 1) for text in [*texts, usual]], AT_LEAST)[0]
    assert group.reference == len(texts)
    group = groups_of([(texts[0], 1), (texts[1], 2), (usual, 1)], AT_LEAST)[0]
    assert group.reference == 1
    assert [one.number for one in group.others] == [2, 0]
    assert group.others[0].similarity > group.others[1].similarity


def test_small_steps_do_not_add_up_to_a_group() -> None:
    words = numbered(100).split()
    chain = [" ".join(words)]
    for start in range(0, 100, 5):
        words[start : start + 5] = [f"new{start + one}" for one in range(5)]
        chain.append(" ".join(words))
    assert similarity(chain[0], chain[1]) == pytest.approx(0.95)
    assert similarity(chain[0], chain[-1]) == 0
    groups = grouped(*chain)
    assert len(groups) >= 4
    assert all(max(group) - min(group) <= 4 for group in groups)


def test_a_long_template_alone_makes_nothing_alike_and_hides_nothing() -> None:
    template = numbered(90)
    own = [f"{template} {numbered(30, f'own{number}x')}" for number in range(600)]
    assert grouped(*own) == []
    copies = [f"{text} and more" for text in own[:90]]
    found = grouped(*own, *copies)
    assert sorted(map(sorted, found)) == [[number, 600 + number] for number in range(90)]


def edits(rng: Random) -> list[str]:
    """Prompts out of the same twenty rules, and copies with words of theirs exchanged."""
    texts: list[str] = []
    while len(texts) < 100:
        words = prose.system_prompt(rng).split(" ")
        texts.append(" ".join(words))
        for place in rng.sample(range(len(words)), len(words) // 25):
            words[place] = f"new{rng.random()}"
        texts.append(" ".join(words))
    return texts


def test_hardly_one_is_missed_that_is_nearly_alike() -> None:
    texts = edits(Random(4))
    groups = groups_of([(text, 1) for text in texts], AT_LEAST)
    joined = {one.number for group in groups for one in group.others}
    characters = _Characters()
    apart = [_read(t, characters).words for number, t in enumerate(texts) if number not in joined]
    assert len(apart) < 0.6 * len(texts)
    missed = [
        Indel.normalized_similarity(one, other) >= AT_LEAST for one, other in combinations(apart, 2)
    ]
    assert sum(missed) <= 1


sentences = st.lists(st.sampled_from("abcde"), max_size=12).map(" ".join)


@given(
    st.lists(st.tuples(sentences, st.integers(1, 3)), max_size=12, unique_by=lambda one: one[0]),
    st.sampled_from([0.5, 0.75, 0.9, 1]),
)
def test_each_of_a_group_is_so_alike_and_none_is_in_two(
    texts: list[tuple[str, int]], at_least: float
) -> None:
    seen: list[int] = []
    for group in groups_of(texts, at_least):
        assert group.others
        seen += [group.reference, *(one.number for one in group.others)]
        for one in group.others:
            assert texts[one.number][1] <= texts[group.reference][1]
            assert one.similarity >= at_least
            exact = similarity(texts[group.reference][0], texts[one.number][0])
            assert one.similarity == pytest.approx(exact)
    assert len(seen) == len(set(seen))


def test_the_same_texts_make_the_same_groups_in_every_process() -> None:
    texts = [(text, 1) for text in edits(Random(1))[:30]]
    code = (
        "import sys, json; from etl.report.likeness import groups_of\n"
        "print(groups_of(json.load(sys.stdin), 0.9))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = groups_of(texts, AT_LEAST)
    assert found
    assert told == f"{found}\n"


class Full(_Characters):
    """As it is after as many words as there are characters."""

    def __len__(self) -> int:
        return _CHARACTERS + super().__len__()


def test_more_words_than_characters_are_still_told_apart() -> None:
    # In the order in which they are met: successions of words must not look like earlier ones.
    early, late = (_read(numbered(200), words()).words for words in (_Characters, Full))
    assert len(set(late)) == 200
    assert Indel.similarity(early, late) < 3


def test_a_text_without_an_end_of_a_word_takes_no_time() -> None:
    assert similarity("x" * 1_000_000, "x" * 1_000_000) == 1
    assert similarity("x" * 1_000_000, "y") == 0


def test_it_tells_now_and_then_how_many_were_compared():
    told: list[tuple[int, int]] = []
    groups_of([(str(n), 1) for n in range(250)], AT_LEAST, lambda *how_far: told.append(how_far))
    assert told == [(0, 250), (100, 250), (200, 250)]
