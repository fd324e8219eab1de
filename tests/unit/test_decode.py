"""Bytes become JSON strictly, numbers keep their value, and nothing unstorable gets through."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.errors import PayloadRejectedError
from etl.payload.decode import MAX_LEVELS, MAX_VALUES, Decoded, Location, decode, dumps, loads
from tests.unit.strategies import properties

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTED = Path(__file__).parents[1] / "payloads" / "documented.json"

numbers = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)
    | st.builds(
        lambda digits, power: Decimal(f"{digits}e{power}"), st.integers(), st.integers(-900, 900)
    )
)
storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def json_values(
    scalars: st.SearchStrategy[Any], keys: st.SearchStrategy[str]
) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


def strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings_in(item)


def reached(value: Any, location: Location) -> Any:
    for step in location:
        value = value[step]
    return value


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON: the body is empty"),
        (b"\xef\xbb\xbf", "not JSON: the body is empty"),
        (b"  ", "not JSON at offset 2"),
        (b"<html>SECRET</html>", "not JSON at offset 0"),
        (b'{"a": 1} SECRET', "not JSON at offset 9"),
        (b'{"a": 1}{', "not JSON at offset 8"),
        (b'{"a": "SECRET', "not JSON at offset 6"),
        (b'["a\nSECRET"]', "not JSON at offset 3"),
        (b'["NaN", NaN]', "not JSON: NaN at offset 8"),
        (b'["\\"Infinity", Infinity]', "not JSON: Infinity at offset 15"),
        (b"[1, -Infinity]", "not JSON: -Infinity at offset 4"),
        (b'{"a": 1, "a": 1}', "a repeated key in the object that ends at offset 15"),
        (
            b'[{"}": 1}, {"SECRET": 1, "\\u0053ECRET": 2}]',
            "a repeated key in the object that ends at offset 41",
        ),
        (b"[" * 501 + b"]" * 501, "more than 500 levels at offset 500"),
        (b"[" * 1_000_000, "more than 500 levels at offset 500"),
        (b'{"a":[' * 251, "more than 500 levels at offset 1500"),
        (b"[\x00]", "not JSON at offset 1"),
        (b"\xff", "not JSON at offset 0"),
        ("[1]".encode("utf-16"), "not JSON at offset 0"),
        (b"[01]", "not JSON at offset 2"),
        (b"[1.]", "not JSON at offset 2"),
        (b"[+1]", "not JSON at offset 1"),
    ],
)
def test_what_is_not_strict_json_is_rejected_for_one_reason_that_holds_nothing_of_it(body, reason):
    with pytest.raises(PayloadRejectedError) as caught:
        decode(body)
    assert str(caught.value) == reason


def test_a_comma_too_many_is_no_json():
    # At which offset depends on the version of Python.
    with pytest.raises(PayloadRejectedError, match="not JSON at offset"):
        decode(b"[1,]")


def test_numbers_that_print_much_longer_than_they_came_are_text_from_some_point_on():
    # A million of them in jsonb are a gigabyte that Postgres can't print again.
    decoded = decode(b"[" + b",".join([b"1e999"] * 5000) + b"]")
    assert isinstance(decoded.value, list)
    numbers = [value for value in decoded.value if not isinstance(value, str)]
    assert 0 < len(numbers) * 1000 < 1_100_000
    assert decoded.oversized == [(index,) for index in range(len(numbers), 5000)]
    assert decoded.value[-1] == "1e999"


def test_exactly_the_allowed_levels_decode_far_down_the_stack():
    half = MAX_LEVELS // 2
    body = b'{"a":' * half + b"[" * half + b'"\\u0000", 1e9999, 1.50' + b"]" * half + b"}" * half

    def below(frames: int) -> Decoded:
        return below(frames - 1) if frames else decode(body)

    decoded = below(300)
    bottom = ("a",) * half + (0,) * (half - 1)
    assert decoded.mended == [(*bottom, 0)]
    assert decoded.oversized == [(*bottom, 1)]
    assert reached(decoded.value, bottom) == ["\ufffd", "1e9999", 1.5]
    assert loads(dumps(decoded.value)) == decoded.value


def test_brackets_in_strings_are_not_levels():
    text = '[{"' * 400
    assert decode(json.dumps([text]).encode()).value == [text]
    assert decode(b"[" + b"[{}]," * 600 + b"[]]").value == [[{}]] * 600 + [[]]


def test_a_byte_order_mark_is_dropped():
    assert decode(b'\xef\xbb\xbf{"a":1}').value == {"a": 1}


@pytest.mark.parametrize(
    ("body", "value", "mended"),
    [
        (b'"caf\xe9"', "caf\ufffd", [()]),
        (b'"a\x00b"', "a\ufffdb", [()]),
        (b'"a\\u0000b"', "a\ufffdb", [()]),
        (b'"\\ud800"', "\ufffd", [()]),
        (b'"\\uDC00x"', "\ufffdx", [()]),
        (b'"\\udc00\\ud800"', "\ufffd\ufffd", [()]),
        (b'"\xed\xa0\x80"', "\ufffd\ufffd\ufffd", [()]),
        (b'"\\ud83d\\ude00"', "\U0001f600", []),
        ('"\U0001f600"'.encode(), "\U0001f600", []),
        (b'"\\\\u0000"', "\\u0000", []),
        (b'"\\ufffd"', "\ufffd", []),
        (
            b'{"a":{"b":["x","\\u0000"],"c":"\\ud800"}}',
            {"a": {"b": ["x", "\ufffd"], "c": "\ufffd"}},
            [("a", "b", 1), ("a", "c")],
        ),
        (b'{"\\u0000":"\\u0000"}', {"\ufffd": "\ufffd"}, [("\ufffd",)]),
    ],
)
def test_what_postgres_cannot_store_becomes_a_replacement_and_is_reported(body, value, mended):
    decoded = decode(body)
    assert (decoded.value, decoded.mended, decoded.oversized) == (value, mended, [])


def test_mended_keys_stay_apart_whatever_their_order():
    members = {b"\\ud800": b"1", b"\\ud801": b"2", b"\xef\xbf\xbd": b"3", b"\x00": b"4"}
    bodies = [
        b"{" + b",".join(b'"%b":%b' % member for member in order) + b"}"
        for order in (list(members.items()), list(reversed(members.items())))
    ]
    values: list[Any] = [decode(body).value for body in bodies]
    assert values[0] == values[1]
    assert sorted(values[0].values()) == [1, 2, 3, 4]
    assert values[0]["\ufffd"] == 3
    assert sorted(decode(bodies[0]).mended) == [
        ("\ufffd\ufffd",),
        ("\ufffd\ufffd2",),
        ("\ufffd\ufffd3",),
    ]


def test_any_number_of_keys_that_become_the_same_are_told_apart_in_short_names():
    halves = [b"\\ud8%02x" % n for n in range(256)]
    members = [b'"%b%b":0' % (one, other) for one in halves for other in halves[:100]]
    decoded = decode(b"{" + b",".join(members) + b"}")
    names = [name for (name,) in decoded.mended if isinstance(name, str)]
    assert len(set(names)) == len(members)
    assert max(map(len, names)) < 10


def test_a_body_may_hold_a_million_values():
    whole = b"[" + b"0," * (MAX_VALUES - 4) + b'0, ",[{", {}]'
    decode(whole)
    with pytest.raises(PayloadRejectedError, match=f"more than {MAX_VALUES} values at offset"):
        decode(whole[:-1] + b",0]")


def test_what_stands_in_strings_is_no_value():
    decode(b'"' + b'[{,\\"' * MAX_VALUES + b'"')


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("1.0", 1), ("1e0", 1), ("-0.0", 0), ("-0", 0), ("0e99999999999999999999999", 0),
        ("10E-1", 1), ("1e18", 10**18), ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)), ("-9223372036854775808.000", -(2**63)),
        ("9223372036854775808", Decimal(2**63)), ("-9223372036854775809", Decimal(-(2**63) - 1)),
        ("1" + "0" * 40, 1e40), ("1e40", 1e40), ("0.1", 0.1), ("0.100000000000000000000", 0.1),
        ("0.1000000000000000055511151231257827", Decimal("0.1000000000000000055511151231257827")),
        ("123456789.123456", 123456789.123456), ("5e-324", 5e-324),
        ("4.9e-324", Decimal("4.9E-324")), ("1e400", Decimal("1E+400")),
        ("100e398", Decimal("1E+400")), ("-1e-1000", Decimal("-1E-1000")),
        ("1e-0000000000000000000000000000003", 0.001),
        ("0." + "0" * 5000 + "1e5001", 1), ("1" * 1000, Decimal("1" * 1000)),
    ],
)  # fmt: skip
def test_a_number_has_one_form_by_its_value(token, value):
    for got in (decode(token.encode()).value, loads(token)):
        assert (type(got), got, str(got)) == (type(value), value, str(value))
    assert decode(token.encode()).oversized == []
    assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    "token",
    [
        "1e1001",
        "-1E1001",
        "1e-1001",
        "1" * 1001,
        "0.1" + "1" * 1000,
        "1" * 5000,
        "1e" + "9" * 5000,
        "-1e-" + "9" * 30,
    ],
)
def test_a_number_beyond_postgres_becomes_its_own_text_and_is_reported(token):
    decoded = decode(b'{"a":[0,%b]}' % token.encode())
    assert decoded.value == {"a": [0, token]}
    assert type(reached(decoded.value, ("a", 1))) is str
    assert (decoded.mended, decoded.oversized) == ([], [("a", 1)])


def test_the_documented_persona_decodes_to_what_it_says():
    body = DOCUMENTED.read_bytes()
    decoded = decode(body)
    assert decoded.value == json.loads(body)
    assert (decoded.mended, decoded.oversized) == ([], [])


@properties(300)
@given(json_values(st.none() | st.booleans() | numbers | storable_text, storable_text))
def test_what_was_dumped_decodes_to_the_same(value):
    def exact(dumped: bytes) -> Any:
        return json.loads(dumped, parse_int=Decimal, parse_float=Decimal)

    normal = decode(dumps(value))
    assert exact(dumps(normal.value)) == exact(dumps(value))
    assert (normal.mended, normal.oversized) == ([], [])
    assert decode(dumps(normal.value)) == normal
    assert repr(loads(dumps(normal.value))) == repr(normal.value)


@properties(300)
@given(numbers, st.integers(0, 30), st.integers(0, 40))
def test_equal_numbers_are_equal_and_print_equally(number, zeros, shift):
    exact = Decimal(str(number))
    sign, digits, power = exact.as_tuple()
    assert isinstance(power, int)
    minus = "-" * sign
    whole = "".join(map(str, digits)).lstrip("0") or "0"
    spellings = [
        format(exact, "f"),
        f"{minus}{whole}e{power}",
        f"{minus}{whole}.0{'0' * zeros}E{power:+}",
        f"{minus}0.{'0' * shift}{whole}{'0' * zeros}e{power + len(whole) + shift}",
    ]
    forms: list[Any] = [loads(spelling) for spelling in spellings]
    assert len({(type(form), repr(form)) for form in forms}) == 1
    assert Decimal(str(forms[0])) == exact


def decoded_or_none(body: bytes) -> Decoded | None:
    try:
        return decode(body)
    except PayloadRejectedError:
        return None


fragments = st.sampled_from(
    rb'{ } [ ] " : , \ \u0000 \ud800 \udc00 "a" "a": 1e999999 -0 NaN true'.split()
) | st.sampled_from([b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf"])


@properties(500)
@given(st.binary() | st.lists(fragments | st.binary(max_size=3)).map(b"".join))
@example(b"1" * 5000)
@example(b'"\\')
@example(b'"' + b"[" * 501 + b"\\")
def test_any_bytes_decode_or_are_rejected(body):
    decoded_or_none(body)


@properties(300)
@given(
    st.lists(st.text() | st.sampled_from(["\0", "\ud800", "\udc00\ud83d"])),
    st.binary(max_size=4),
    st.booleans(),
)
def test_nothing_unstorable_leaves_decode_and_every_mend_is_reported(texts, noise, escaped):
    payload = {text: [text, {"k": text}] for text in texts}
    text = json.dumps(payload, ensure_ascii=escaped)
    body = text.encode(errors="surrogatepass").replace(b'"k"', b'"k%b"' % noise)
    decoded = decoded_or_none(body)
    if decoded is None:
        return
    for string in strings_in(decoded.value):
        assert not re.search(r"[\x00\ud800-\udfff]", string)
        string.encode()
    broken = sum(bool(re.search(r"[\x00\ud800-\udfff]", text)) for text in payload)
    assert len(set(decoded.mended)) == len(decoded.mended) >= 3 * broken
    for location in decoded.mended:
        reached(decoded.value, location)


def test_hostile_bodies_take_linear_time():
    shallow = b"[" + b"[]," * 501
    decoded_or_none(shallow + b'"' + b'\\"' * 300_000)
    decoded_or_none(shallow + b'"\\"' * 300_000)
    decoded_or_none(b"[" + b'"[",' * 500_000 + b'"a"]')
    decoded_or_none(b"1" * 2_000_000)
