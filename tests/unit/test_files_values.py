"""Text in chunks becomes values with their lines, in every format and whatever is broken in it."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.files.values import members_of, values_in
from etl.payload.decode import decode, dumps
from tests.unit.strategies import exactly, properties

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Strings that look like what gives JSON its shape.
texts = st.text(st.sampled_from('a"\\{}[],:\n\t é\u2028'), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.just(-1.5e300) | texts
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, anything, max_size=4)


def cut(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


def read(text: bytes, size: int = 1000, **options: Any) -> list[tuple[int, bytes, str | None]]:
    """What is in a text that comes in chunks of this size."""
    return [(v.number, v.raw, v.problem) for v in values_in(cut(text, size), **options)]


def raws(text: bytes, **options: Any) -> list[bytes]:
    return [raw for _, raw, _ in read(text, **options)]


class Written:
    """A text that is put together, and on which line each value begins in it."""

    def __init__(self) -> None:
        self.text = b""
        self.lines: list[int] = []

    def add(self, text: str) -> None:
        self.text += text.encode()

    def value(self, text: str) -> None:
        self.lines.append(1 + self.text.count(b"\n"))
        self.add(text)


def write_lines(values: Iterable[Any], blank: str, end: str) -> Written:
    written = Written()
    for value in values:
        written.add(blank)
        written.value(json.dumps(value, ensure_ascii=False))
        written.add(end)
    return written


def write_array(values: list[Any], indent: int | None, ascii_: bool) -> Written:
    """As json.dumps writes it, or for None a value a line in brackets."""
    written = Written()
    written.add("[")
    for index, value in enumerate(values):
        written.add("," if index else "")
        written.add("\n" + " " * (indent or 0))
        plain = json.dumps(value, indent=indent, ensure_ascii=ascii_)
        written.value(plain.replace("\n", "\n" + " " * (indent or 0)))
    written.add("\n]\n")
    return written


def assert_reads(written: Written, values: list[Any], size: int, **options: Any) -> None:
    found = read(written.text, size, **options)
    assert [problem for _, _, problem in found if problem] == []
    assert exactly([json.loads(raw) for _, raw, _ in found]) == exactly(values)
    assert [number for number, _, _ in found] == written.lines


sizes = st.sampled_from([1, 2, 3, 7, 64, 10_000])


@properties(50)
@given(st.lists(objects), st.sampled_from(["", "\n", " \r\n", "\t"]), sizes, st.booleans())
def test_a_value_a_line_is_read_as_it_was_written(values, blank, size, is_known):
    for end in ("\n", "\r\n"):
        assert_reads(write_lines(values, blank, end), values, size, by_line=is_known)


@properties(50)
@given(st.lists(anything), sizes)
def test_any_value_a_line_is_read_where_the_name_says_so(values, size):
    assert_reads(write_lines(values, "", "\n"), values, size, by_line=True)


@properties(50)
@given(st.lists(anything), st.sampled_from([None, 1, 2, 4]), sizes, st.booleans())
def test_the_elements_of_an_array_are_read_as_they_were_written(values, indent, size, ascii_):
    assert_reads(write_array(values, indent, ascii_), values, size)


@properties(60)
@given(st.lists(anything), sizes)
def test_an_array_in_one_line_is_read_as_it_was_written(values, size):
    written = Written()
    written.text = json.dumps(values).encode()
    written.lines = [1] * len(values)
    assert_reads(written, values, size)


@properties(50)
@given(st.lists(objects), st.sampled_from([1, 2, "\t"]), st.sampled_from(["", "\n", "\n\n"]), sizes)
def test_pretty_values_one_after_the_other_are_read_as_they_were_written(
    values, indent, between, size
):
    written = Written()
    for value in values:
        written.value(json.dumps(value, indent=indent))
        written.add(between or "\n")
    assert_reads(written, values, size)


def test_values_one_after_the_other_need_no_line_feeds():
    assert raws(b'{"a":1}{"b":[2]} {"c":"}{"}') == [b'{"a":1}', b'{"b":[2]}', b'{"c":"}{"}']


@pytest.mark.parametrize(
    "broken",
    [
        b"no JSON",
        b'{"id": 1',
        b'{"id": "cut off',
        b'{"id": "cut off\\',
        b'{"id": {"deeper": [',
        b'mpt": "cut in front"}',
        b'{"id": 1} and more',
        b'{"id": 1},',
        b"}",
        b'"',
        b'{"id": "\xff\x00',
    ],
)
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 1000])
def test_a_broken_line_costs_itself_only_also_the_first(broken, place, size):
    lines = [b'{"a": 1}', b'{"b": {"c": 2}}', b'{"d": 3}']
    lines.insert(place, broken)
    found = read(b"\n".join(lines), size)
    assert found == [(number, line, None) for number, line in enumerate(lines, start=1)]


@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_wrong_around_values_is_told_and_they_are_read(size):
    comma = "a comma is missing before this, or there is one too many"
    closed = "a bracket is closed that was not opened"
    assert read(b"[1 2,\n\n,3,]\n4", size) == [
        (1, b"1", None),
        (1, b"", comma),
        (1, b"2", None),
        (3, b"", comma),
        (3, b"3", None),
        (3, b"", comma),
        (4, b"4", None),
    ]
    assert read(b"[{}\n]\n] {} rubbish", size) == [
        (1, b"{}", None),
        (3, b"", closed),
        (3, b"{}", None),
        (3, b"rubbish", None),
    ]
    assert read(b"[{}] , ", size) == [(1, b"{}", None), (1, b"", comma)]


def test_what_does_not_end_is_told():
    assert read(b'[{"a": 1},\n') == [(1, b'{"a": 1}', None), (2, b"", "the array does not end")]
    told = "the value that begins here does not end"
    assert read(b'[{"a": 1},\n\n{"b": [\n') == [(1, b'{"a": 1}', None), (3, b"", told)]
    assert read(b'\n{\n"a": "b\\') == [(2, b"", told)]


def test_a_lost_quote_does_not_turn_the_rest_of_a_pretty_file_inside_out():
    text = b'{\n  "a": "lost,\n  "b": 2\n}\n{\n  "c": "{"\n}\n'
    assert raws(text) == [b'{\n  "a": "lost,\n  "b": 2\n}', b'{\n  "c": "{"\n}']


@pytest.mark.parametrize(
    "giant",
    [
        b'{"a": "' + b"x" * 5000 + b'"}',
        b'{"a": ' + b"[" * 2500 + b"]" * 2500 + b"}",
        b"{" + b"\\" * 5000,
        b"x" * 5000,
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_line_that_is_too_long_is_left_out_and_the_next_ones_are_not(giant, is_first):
    limit = 2**10
    lines = [b'{"a": 1}', b'{"b": 2}', b'{"c": "']
    lines.insert(0 if is_first else 1, giant)
    expected = [
        (number, b"" if line == giant else line, "longer than 0 MiB" if line == giant else None)
        for number, line in enumerate(lines, start=1)
    ]
    assert read(b"\n".join(lines), 100, longest=limit) == expected


def test_an_element_that_is_too_long_is_left_out_and_the_next_ones_are_not():
    giant = b'{"a":\n"' + b'\\"' * 2000 + b'"}'
    text = b"[{},\n" + giant + b',\n"' + b"y" * 2000 + b'",' + b"1" * 2000 + b",\n7]"
    for size in (1, 100, 100_000):
        assert read(text, size, longest=1000) == [
            (1, b"{}", None),
            (2, b"", "longer than 0 MiB"),
            (4, b"", "longer than 0 MiB"),
            (4, b"", "longer than 0 MiB"),
            (5, b"7", None),
        ]


@pytest.mark.parametrize(
    "text",
    [b"x", b"[", b'["', b"\n", b'{"a":', b'{"a":1}', b'{"a":\n"', b"[[],", b'"\\', b"{\n\\"],
)
def test_memory_is_bounded_whatever_comes(text):
    # The same for ever; each chunk is made when it is asked for.
    chunks = (text * (4 * 1024 // len(text)) for _ in range(40))
    tracemalloc.start()
    try:
        for _ in values_in(chunks, longest=10_000):
            pass
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 300_000


@properties(60)
@given(st.binary(max_size=60) | texts.map(str.encode), st.binary(max_size=3), sizes)
def test_any_bytes_are_gone_through_alike_in_chunks_of_any_size(text, more, size):
    whole = text + more
    assert read(whole, size) == read(whole, 10_000)


@properties(50)
@given(objects, st.sampled_from([None, 2]))
def test_the_members_of_an_object_are_found_as_they_stand_there(value, indent):
    text = json.dumps(value, indent=indent, separators=(" ,", ": ")).encode()
    found = {json.loads(key): json.loads(raw) for key, raw in members_of(text)}
    assert exactly(found) == exactly(value)
    assert dumps(decode(text).value) == dumps(decode(json.dumps(found).encode()).value)
