"""Paths, written and read again."""

from __future__ import annotations

from functools import reduce
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.flatten import flatten
from etl.map import Line, extended, home, names, steps
from etl.payload.paths import any_member, member
from tests.unit.strategies import properties

SOME_ID = UUID("00000000-0000-4000-8000-00000000000a")
ODD = ['a "b" \\ c', "a.b", "[]", "*", "", "ключ", "x[].y", "1", "'; DROP TABLE x; --", "%s :x\n"]

keys = st.sampled_from([*ODD, "mood", "x-y", "$inline"]) | st.text(max_size=8)


def written(path, step):
    return f"{path}[]" if step is None else member(path, step)


@properties(200)
@given(wanted=st.lists(keys | st.none(), max_size=5))
def test_a_path_is_read_as_the_steps_that_it_was_written_from(wanted):
    assert list(steps(reduce(written, wanted, ""))) == wanted


@pytest.mark.parametrize(
    "path",
    [
        any_member("x"),
        any_member(""),
        ".x",
        "x.",
        "x..y",
        "x[0]",
        'x["y"',
        "x y",
        "x…",
        f"shareLinks[{SOME_ID}].x",
        "ключ",
    ],
)
def test_what_is_no_path_of_the_map_is_refused(path):
    with pytest.raises(ValueError, match="no path"):
        steps(path)


def test_a_path_through_an_array_has_no_keys():
    with pytest.raises(ValueError, match="through an array"):
        names("shareLinks[].label")


@pytest.mark.parametrize("key", ["mood", *ODD])
@pytest.mark.parametrize(
    ("around", "table"),
    [("", "personas"), ("brain", "brains"), ("primaryShareLink", "personas")],
)
def test_a_line_fills_its_column_and_its_list_whatever_the_key_is(key, around, table):
    path = member(around, key)
    assert home("persona", path) == table
    column = extended((Line("persona", path, table, "added", "text", (), "It."),))
    array = extended((Line("persona", f"{path}[]", "a_list", "value", "text", (), "It."),))

    def rows(the_map, value):
        inner = {key: value}
        return flatten(
            "persona", SOME_ID, {around: inner} if around else inner, the_map=the_map
        ).rows

    filled = rows(column, "happy")
    assert filled[table][0]["added"] == "happy"
    listed = rows(array, ["a", "b"])
    assert [row["value"] for row in listed["a_list"]] == ["a", "b"]
    assert filled[table][0]["extra"] is listed[table][0]["extra"] is None


@pytest.mark.parametrize("key", ODD)
def test_a_line_of_share_links_fills_its_column_and_its_list(key):
    path = member("shareLinks[]", key)
    assert home("persona", path) == "share_links"
    link: dict[str, Any] = {"id": str(SOME_ID), key: "happy"}
    the_map = extended((Line("persona", path, "share_links", "added", "text", (), "It."),))
    rows = flatten("persona", SOME_ID, {"shareLinks": [link]}, the_map=the_map).rows
    assert (rows["share_links"][0]["added"], rows["share_links"][0]["extra"]) == ("happy", None)
    the_map = extended((Line("persona", f"{path}[]", "a_list", "value", "text", (), "It."),))
    link[key] = ["a"]
    rows = flatten("persona", SOME_ID, {"shareLinks": [link]}, the_map=the_map).rows
    assert rows["a_list"] == [{"share_link_id": SOME_ID, "position": 0, "value": "a"}]


def test_a_line_of_another_object_s_table_is_refused():
    with pytest.raises(ValueError, match="brains"):
        extended((Line("persona", "mood", "brains", "mood", "text", (), "It."),))
