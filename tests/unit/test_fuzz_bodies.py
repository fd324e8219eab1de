"""Whatever bytes come, each step of their way is rejected with a reason or loses nothing."""

from __future__ import annotations

import copy
import json
import math
import re
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from sqlalchemy import Boolean, DateTime, Double, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as UUID_TYPE

from etl.errors import PayloadRejectedError
from etl.flatten import flatten
from etl.payload.canonical import content_hash
from etl.payload.clean import clean, mask_urls
from etl.payload.decode import decode, dumps, loads
from etl.payload.differences import differences
from etl.payload.documents import put_together, take_apart
from etl.payload.paths import path_of, usable_uuid
from etl.tables import metadata
from tests.unit.hostile_bodies import VALUES, hostile_bodies
from tests.unit.strategies import PERSONA_ID, exactly, properties, read_payload, reordered, resigned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from etl.payload.decode import Json, Location
    from etl.payload.documents import Apart

SENTINEL = "a value like no other"

_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
# A numeric of Postgres has 131 072 digits before the point; those of jsonb are kept far below.
_MAX_DIGITS = _MAX_EXPONENT = 1000


def cleaned(body: bytes) -> list[Json]:
    """The cleaned payload; nothing when it is rejected."""
    try:
        return [clean(decode(body).value)]
    except PayloadRejectedError:
        return []


def apart_of(body: bytes) -> Apart | None:
    """The documents of a body; None when it has none."""
    try:
        return take_apart(clean(decode(body).value), PERSONA_ID)
    except PayloadRejectedError as exc:
        event("rejected")
        assert str(exc)  # noqa: PT017
        return None


def assert_storable_json(value: Any) -> None:
    """Fit for jsonb, which takes neither NUL nor half a character nor numbers beyond numeric."""
    if isinstance(value, dict):
        for key, item in value.items():
            assert isinstance(key, str)
            assert not _UNSTORABLE.search(key)
            assert_storable_json(item)
    elif isinstance(value, list):
        for item in value:
            assert_storable_json(item)
    elif isinstance(value, str):
        assert not _UNSTORABLE.search(value)
    elif value is not None and not isinstance(value, bool):
        number = Decimal(repr(value) if isinstance(value, float) else value)
        assert number.is_finite()
        assert abs(number.adjusted()) <= _MAX_EXPONENT
        assert len(number.as_tuple().digits) <= _MAX_DIGITS


def assert_fits(value: Any, type_: Any) -> None:
    """What the driver is given for a column is of the column's type, and in its range."""
    if isinstance(type_, JSONB):
        assert_storable_json(value)
    elif isinstance(type_, UUID_TYPE):
        assert isinstance(value, UUID)
    elif isinstance(type_, DateTime):
        assert isinstance(value, datetime)
        assert value.utcoffset() is not None
    elif isinstance(type_, Boolean):
        assert isinstance(value, bool)
    elif isinstance(type_, Integer):
        assert type(value) is int
        assert -(2**63) <= value < 2**63
    elif isinstance(type_, Double):
        assert type(value) is float
        assert math.isfinite(value)
    else:
        assert isinstance(type_, Text)
        assert isinstance(value, str)
        assert not _UNSTORABLE.search(value)


@properties(200)
@given(hostile_bodies() | st.binary(max_size=200))
def test_any_body_is_rejected_or_put_together_again_from_its_documents(body):
    try:
        decoded = decode(body).value
    except PayloadRejectedError:
        event("no JSON")
        return
    before = copy.deepcopy(decoded)
    cleaned = clean(decoded)
    assert exactly(decoded) == exactly(before)
    assert exactly(clean(cleaned)) == exactly(cleaned)
    assert_storable_json(cleaned)
    assert exactly(loads(dumps(cleaned))) == exactly(cleaned)
    try:
        apart = take_apart(cleaned, PERSONA_ID)
    except PayloadRejectedError:
        event("no persona")
        return
    assert exactly(put_together(apart.persona, apart.shared)) == exactly(cleaned)
    for part in apart.parts():
        stored = loads(dumps(part.document))
        assert isinstance(stored, dict)
        assert content_hash(part.kind, stored) == part.content_hash
        assert differences(part.kind, part.document, stored) == []
        assert_storable_json([list(location) for location in part.observed])


@properties(150)
@given(hostile_bodies(rough=False))
def test_nothing_reaches_the_driver_that_its_column_does_not_take(body):
    apart = apart_of(body)
    if apart is not None:
        assert_driver_takes(apart)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_each_odd_value_in_every_place_is_taken_or_an_issue(value):
    odd = decode(b'{"odd":%s}' % value).value
    assert isinstance(odd, dict)
    payload = everywhere(read_payload("everything_in_use"), odd["odd"])
    assert_driver_takes(take_apart(clean(payload), UUID(payload["id"])))


def everywhere(value: Any, odd: Any) -> Any:
    """A copy with this instead of whatever is neither an id, an object nor an array."""
    if isinstance(value, dict):
        return {k: item if k == "id" else everywhere(item, odd) for k, item in value.items()}
    return [everywhere(item, odd) for item in value] if isinstance(value, list) else odd


def assert_driver_takes(apart: Apart) -> None:
    for part in apart.parts():
        for columns in ("all", "stored", "observed"):
            flat = flatten(part.kind, part.entity_id, part.whole(), columns)
            for name, rows in flat.rows.items():
                types = metadata.tables[name].columns
                for row in rows:
                    for column, value in row.items():
                        if value is not None:
                            assert_fits(value, types[column].type)
            for issue in flat.issues:
                assert_storable_json([issue.path, issue.got])
                assert len(issue.path.encode()) <= 2000
            for found in flat.findings:
                assert_storable_json(list(found))
                assert len(found.path.encode()) <= 2000


def leaves(value: Any, at: Location = ()) -> Iterator[Location]:
    """Where anything stands that is neither an object nor an array nor nothing."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*at, index))
    elif value is not None:
        yield at


def with_sentinel(document: Any, location: Location) -> Any:
    copied = copy.deepcopy(document)
    container = copied
    for step in location[:-1]:
        container = container[step]
    container[location[-1]] = SENTINEL
    return copied


@properties(200)
@given(hostile_bodies(rough=False), st.integers(0, 2**16))
def test_each_value_of_a_document_is_in_a_row_or_has_an_issue(body, place):
    apart = apart_of(body)
    assume(apart)
    assert apart is not None
    part = apart.parts()[place % len(apart.parts())]
    document = part.whole()
    places = [at for at in leaves(document) if not (at[-1] == "id" and is_ours(document, at))]
    assume(places)
    location = places[place % len(places)]
    spoiled = with_sentinel(document, location)
    flat = flatten(part.kind, part.entity_id, spoiled)
    if SENTINEL in json.dumps(flat.rows, default=str):
        event("in a row")
        return
    event("an issue")
    path = path_of(spoiled, location)
    # An object that has no usable id is as a whole in no row, which the issue of its id tells.
    assert any(path.startswith(re.sub(r"\.id$", "", issue.path)) for issue in flat.issues), path


def is_ours(document: Any, location: Location) -> bool:
    """Whether this id is its entity's own, which is not in the document's rows but beside it."""
    container = document
    for step in location[:-1]:
        container = container[step]
    return usable_uuid(container["id"]) is not None


@properties(100)
@given(hostile_bodies(rough=False), st.randoms(use_true_random=False))
def test_neither_order_nor_signatures_nor_the_look_of_numbers_count(body, random: Random):
    apart = apart_of(body)
    if apart is None:
        return
    payload = decode(body).value
    assert isinstance(payload, dict)
    again = apart_of(dumps(resigned(reordered(payload, random))))
    assert again is not None
    assert {(p.kind, p.entity_id, p.content_hash) for p in again.parts()} == {
        (p.kind, p.entity_id, p.content_hash) for p in apart.parts()
    }


@properties(200)
@given(
    hostile_bodies(),
    st.sampled_from([b"another", b"%41", b"o n e", b"", b'x"', b"a&b=1#t"]),
    st.booleans(),
)
def test_bodies_that_are_masked_alike_are_cleaned_alike(body, signature, signed):
    name = b"X-Amz-Signature" if signed else b"page"
    body = body.replace(b"{", b'{"u": "https://x.example/a?%s=one",' % name, 1)
    other = body.replace(b"=one", b"=" + signature)
    if mask_urls(body) == mask_urls(other):
        event("masked alike" if other != body else "the same")
        assert exactly(cleaned(body)) == exactly(cleaned(other))


@properties(200)
@given(st.binary() | hostile_bodies())
def test_any_bytes_are_masked_once_and_for_all(body):
    masked = mask_urls(body)
    assert mask_urls(masked) == masked
    assert len(masked) <= len(body)


@pytest.mark.parametrize("length", [0, 1, 37, 500])
def test_the_start_of_a_body_is_no_body(length):
    body = json.dumps({"id": str(PERSONA_ID), "name": "x" * 1000}).encode()
    with pytest.raises(PayloadRejectedError):
        decode(body[:length])
