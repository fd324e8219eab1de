"""Which configurations agree in all but one setting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etl.report.one_apart import OneApart, one_apart

settings = st.dictionaries(st.sampled_from("abc"), st.sampled_from("01"))


def test_those_that_differ_in_one_setting_are_told_by_it() -> None:
    cara = {"voice": "1", "speed": "1.0", "prompt": "x"}
    found = one_apart([cara, cara | {"speed": "1.1"}, cara | {"speed": "2", "prompt": "y"}])
    assert found == [OneApart("speed", [0, 1])]


def test_a_setting_that_only_some_have_is_a_difference() -> None:
    assert one_apart([{"a": "1"}, {"a": "1", "b": "1"}, {"b": "1"}]) == [
        OneApart("a", [1, 2]),
        OneApart("b", [0, 1]),
    ]


@given(st.lists(settings, unique_by=lambda one: tuple(sorted(one.items()))))
def test_it_finds_what_comparing_all_with_all_finds(all_settings: list[dict[str, str]]) -> None:
    expected = set()
    for one in all_settings:
        for setting in "abc":
            alike = [
                number
                for number, other in enumerate(all_settings)
                if {**one, setting: ""} == {**other, setting: ""}
            ]
            if len(alike) > 1:
                expected.add((setting, tuple(alike)))
    found = one_apart(all_settings)
    assert {(odd.setting, tuple(odd.numbers)) for odd in found} == expected
    assert len(found) == len(expected)
    assert found == sorted(found)
