"""People's own payloads: the forms that a file can have, and what is told of one that has none."""

from __future__ import annotations

import re

import pytest

from etl.sandbox import World
from etl.sandbox.payloads import read_payloads


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": "a"}, {"id": "b"}]',
        '{"data": [{"id": "a"}, {"id": "b"}], "meta": {}}',
        '{"id": "a"}\n{"id": "b"}\n',
        '\n{"id": "a"}\r\n\r\n{"id": "b"}',
    ],
)
def test_a_file_can_hold_many(text):
    assert read_payloads(text) == [{"id": "a"}, {"id": "b"}]


def test_a_file_can_hold_one():
    assert read_payloads('{"id": "a", "data": 5}') == [{"id": "a", "data": 5}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "this is no JSON: Expecting value"),
        ('{"id": ', "this is no JSON: Expecting value: line 1 column 8"),
        ('{"id": "a"}\n{"id": ', "this is no JSON: Extra data: line 2 column 1"),
        ('{"id": "a", "n": NaN}', "this is no JSON: NaN is no JSON"),
        ("5", "it is no JSON object, as a persona is"),
        ('[{"id": "a"}, null]', "[1] is no JSON object"),
        ('{"name": "Ada"}', 'it has no usable "id"'),
        ('[{"id": 5}]', '[0] has no usable "id"; write a UUID as a string'),
        ('[{"id": "a/b"}]', '[0] has no usable "id"'),
    ],
)
def test_a_mistake_is_told_with_its_place(text, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        read_payloads(text)


def test_what_a_payload_leaves_out_stays_out_of_what_is_served():
    world = World()
    world.add({"id": "a", "odd": [None]}, blanks=False)
    assert world.body("a") == b'{"id":"a","odd":[null]}'
    assert world.page(page=1, per_page=1).startswith(b'{"data":[{"id":"a"}]')
    world.edit("a", {"name": "Ada"}, touch=False)
    assert world.payload("a") == {"id": "a", "odd": [None], "name": "Ada"}


def test_one_id_is_one_persona_however_often_it_is_added():
    world = World()
    for name in ("first", "second"):
        world.add({"id": "A-B", "name": name}, blanks=False)
    assert world.persona_ids == ["a-b"]
    assert world.payload("A-b") == {"id": "A-B", "name": "second"}
