"""One line becomes an envelope, or a reason why not; the payload in it stays as it is."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.errors import PayloadRejectedError
from etl.files.envelope import (
    Envelope,
    LooseDocument,
    _quickly,
    _thoroughly,
    needs_a_date,
    parse_envelope,
    parse_pruned,
)
from etl.files.writing import pruned_line
from etl.fold import Pruned
from etl.payload.decode import decode
from tests.unit.strategies import properties, raw_personas

if TYPE_CHECKING:
    from etl.payload.decode import JsonObject

AT = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
TIME = "2026-03-01T12:30:00.123456Z"
ID = UUID("00000000-0000-4000-8000-00000000000a")
VOICE = UUID("bbbbbbbb-aaaa-4aaa-8aaa-aaaaaaaaaaaa")
SECRET = "canary-secret"


def written(**members: Any) -> bytes:
    return json.dumps(members).encode()


def test_a_bare_payload_is_itself_and_dated_from_outside():
    raw = written(id=str(ID), observed_at=TIME, documents=7, observations="x")
    assert parse_envelope(raw, AT) == Envelope(None, AT, raw, None, [])


def test_an_envelope_says_whose_what_and_when():
    document: JsonObject = {"id": str(VOICE), "displayName": "Liv"}
    raw = written(
        note={"payload": 1},
        observed_at=TIME,
        persona_id=str(ID),
        payload={"id": str(ID), "payload": None},
        observations=[f"persona {ID}", f"voice {VOICE}", f"voice {VOICE}"],
        documents=[
            {"kind": "voice", "entity_id": str(VOICE), "document": document, "updated_at": TIME},
            {"kind": "voice", "entity_id": str(VOICE), "document": {}, "updated_at": None},
        ],
    )
    assert parse_envelope(raw, AT + timedelta(days=1)) == Envelope(
        ID,
        AT,
        b'{"id": "' + str(ID).encode() + b'", "payload": null}',
        frozenset({("persona", ID), ("voice", VOICE)}),
        [LooseDocument("voice", VOICE, document, AT), LooseDocument("voice", VOICE, {}, None)],
    )


def test_a_payload_of_null_is_a_404_of_somebody():
    found = parse_envelope(written(payload=None, observed_at=TIME, persona_id=str(ID)), None)
    assert found == Envelope(ID, AT, None, None, [])


@pytest.mark.parametrize(
    "time", ["2026-03-01T12:30:00.123456", "2026-03-01T14:30:00.1234569+02:00", TIME]
)
def test_a_time_has_an_offset_or_is_utc(time):
    found = parse_envelope(written(payload={}, observed_at=time), None)
    assert found.observed_at == AT
    assert found.observed_at.utcoffset() == timedelta(0)


def test_an_envelope_without_a_time_is_dated_from_outside():
    assert parse_envelope(written(payload={}), AT).observed_at == AT
    at = AT.astimezone(timezone(timedelta(hours=2)))
    assert parse_envelope(b"{}", at).observed_at == AT


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not JSON: the body is empty"),
        (b'{"payload": ', "not JSON at offset 12"),
        (b'{"payload": {"a": "canary-secret}}', "not JSON at offset 18"),
        (b'{"payload": {}} canary-secret', "not JSON at offset 16"),
        (b'["canary-secret"]', "not a JSON object"),
        (b'"canary-secret"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"payload": {}}', "no observed_at: say --observed-at, or use an envelope"),
        (b"{}", "no observed_at: say --observed-at, or use an envelope"),
        (written(payload={}, observed_at=None), "observed_at is not a string"),
        (written(payload={}, observed_at=1772366400), "observed_at is not a string"),
        (
            written(payload={}, observed_at=SECRET),
            "observed_at is no time; times look like 2026-11-03T14:00:00.123456Z",
        ),
        (
            written(payload={}, observed_at="2026-03-01"),
            "observed_at is no time; times look like 2026-11-03T14:00:00.123456Z",
        ),
        (written(payload=None, observed_at=TIME), "a payload of null needs a persona_id"),
        (written(payload={}, observed_at=TIME, persona_id=None), "persona_id is not a string"),
        (written(payload={}, observed_at=TIME, persona_id=SECRET), "persona_id is not a uuid"),
        (
            written(payload={}, observed_at=TIME, observations=None),
            "observations is not a list of strings",
        ),
        (
            written(payload={}, observed_at=TIME, observations=[f"canary {ID}"]),
            "observations: no kind but avatar, voice, tool, knowledge_group, persona is known",
        ),
        (
            written(payload={}, observed_at=TIME, observations=["voice"]),
            "observations: the id of an entity is not a uuid",
        ),
        (written(payload={}, observed_at=TIME, documents={}), "documents is not a list"),
        (
            written(payload={}, observed_at=TIME, documents=[{"document": SECRET}]),
            "documents: one is no object with an object as its document",
        ),
        (
            written(payload={}, observed_at=TIME, documents=[{"document": {}, "kind": []}]),
            "documents: no kind but avatar, voice, tool, knowledge_group, persona is known",
        ),
        (
            written(
                payload={},
                observed_at=TIME,
                documents=[
                    {"document": {}, "kind": "tool", "entity_id": str(ID), "updated_at": SECRET}
                ],
            ),
            "documents: updated_at is no time",
        ),
        (
            b'{"payload": {}, "observed_at": "x", "observed_at": "y"}',
            "a repeated key in the object that ends at offset 54",
        ),
        (
            b'{"payload": {}, "payload": {"canary-secret": 1}}',
            "a repeated key in the object that ends at offset 47",
        ),
        (
            b'{"payload": {}, "p\\u0061yload": {}}',
            "a repeated key in the object that ends at offset 34",
        ),
        (
            b'{"payload": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
            "more than 500 levels at offset 511",
        ),
    ],
)
def test_what_is_wrong_is_told_on_one_line_and_nothing_is_quoted(raw, told):
    with pytest.raises(PayloadRejectedError) as raised:
        parse_envelope(raw, None)
    assert str(raised.value) == told
    assert "canary" not in told


ODD = [
    b'{"a": "\xff\xfe"}',
    b'{"a": "\xed\xa0\x80"}',
    b'{"a": "\\ud800"}',
    b'{"\\udfff": 1}',
    b'{"a": "\x00"}',
    b'{"a": 1e99999, "b": ' + b"1" * 5000 + b"}",
    b'{"a": {"payload": "}\\""}, "documents": []}',
    b'{"a" : [1, {"b": "\xff]"} ] }',
]


@pytest.mark.parametrize("payload", ODD)
@pytest.mark.parametrize("around", [b'{"payload":%s}', b'{"x":"\xff","payload" : %s ,"y":[1]}'])
def test_a_payload_that_has_to_be_mended_comes_to_decoding_as_it_is(payload, around):
    found = parse_envelope(around % payload, AT)
    assert found.payload is not None
    assert found.payload == payload
    assert decode(found.payload) == decode(payload)


@pytest.mark.parametrize("payload", [b'"text"', b"[1]", b"7", b"true"])
def test_a_payload_that_is_no_object_is_for_others_to_reject(payload):
    for around in (b'{"payload":%s}', b'{"x":"\xff","payload": %s}'):
        assert parse_envelope(around % payload, AT).payload == payload


def members(found: Any) -> list[Any]:
    values = [getattr(found, name) for name in found.__struct_fields__]
    return [bytes(v) if type(v).__name__ == "Raw" else v for v in values]


names = st.sampled_from(["observed_at", "persona_id", "payload", "observations", "documents", "x"])
values: st.SearchStrategy[Any] = (
    st.sampled_from([TIME, str(ID), "payload", '"payload"', "\\", "", {}, [], None, 1, ["a"]])
    | raw_personas
)


@properties(60)
@given(st.lists(st.tuples(names, values), max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_the_quick_way_comes_to_what_the_thorough_way_comes_to(pairs, indent, ascii_):
    texts = [
        f"{json.dumps(name)}:{json.dumps(value, indent=indent, ensure_ascii=ascii_)}"
        for name, value in pairs
    ]
    raw = f"{{{','.join(texts)}}}".encode()
    quick = _quickly(raw)
    try:
        thorough = _thoroughly(raw)
    except PayloadRejectedError:
        # A name twice is not looked for where there is no payload, nor which no one reads.
        repeated = {name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1}
        bare = "payload" not in dict(pairs)
        assert quick is None or bare or repeated == {"x"}
        return
    if quick is not None and "payload" in dict(pairs):
        assert members(quick) == members(thorough)


@properties(60)
@given(st.binary(max_size=30), st.sampled_from([b"%s", b'{"payload":%s}', b'{"payload":"%s"}']))
def test_any_bytes_are_an_envelope_or_rejected(content, around):
    with suppress(PayloadRejectedError):
        assert parse_envelope(around % content, AT).observed_at == AT


PRUNED = {
    "kind": "voice",
    "entity_id": str(VOICE),
    "version": 3,
    "valid_from": "2026-01-01T00:00:00Z",
    "valid_to": TIME,
    "last_observed_at": "2026-02-01T00:00:00Z",
    "next_content_hash": "ab" * 32,
    "next_change": "reshaped",
    "next_changed_paths": ["name", "brain.mood"],
}


def test_a_beginning_that_is_not_kept_comes_back_as_it_was_written():
    first, last = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2))
    row: dict[str, Any] = {
        **PRUNED,
        "entity_id": VOICE,
        "valid_from": first,
        "valid_to": AT,
        "last_observed_at": last,
        "next_content_hash": b"\xab" * 32,
    }
    line = pruned_line(row)
    assert json.loads(line) == {"pruned": PRUNED}
    paths = ["name", "brain.mood"]
    past = Pruned(3, first, AT, last, b"\xab" * 32, "reshaped", paths, None)
    assert parse_pruned(line) == ("voice", VOICE, past)
    assert parse_pruned(json.dumps({"pruned": PRUNED}, indent=2).encode()) == (
        "voice",
        VOICE,
        past,
    )
    assert not needs_a_date(line)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kind": "ghost"}, "no kind but"),
        ({"entity_id": "x"}, "not a uuid"),
        ({"version": 0}, "version"),
        ({"version": 2**31}, "version"),
        ({"version": "3"}, "version"),
        ({"valid_from": "yesterday"}, "one of its times is none"),
        ({"valid_from": "2026-02-02T00:00:00Z"}, "not in their order"),
        ({"last_observed_at": TIME}, "not in their order"),
        ({"next_content_hash": "ab"}, "next_content_hash"),
        ({"next_content_hash": "AB" * 32}, "next_content_hash"),
        ({"next_change": "created"}, "next_change"),
        ({"next_changed_paths": [1]}, "next_changed_paths"),
        ({"next_changed_paths": None}, "next_changed_paths"),
    ],
)
def test_a_beginning_with_something_wrong_is_rejected(changed, told):
    raw = written(pruned=PRUNED | changed)
    with pytest.raises(PayloadRejectedError, match=f"^pruned: .*{told}") as rejected:
        parse_pruned(raw)
    assert "\n" not in str(rejected.value)


def test_what_only_looks_like_a_beginning_is_another_line():
    assert parse_pruned(written(pruned=PRUNED, id=str(ID))) is None
    assert parse_pruned(written(id=str(ID), pruned=PRUNED)) is None
    assert parse_pruned(b"[]") is parse_pruned(b'"pruned"') is None
    with pytest.raises(PayloadRejectedError):
        parse_pruned(b'{"pruned": {')


def test_what_lacks_only_a_date_is_told_from_what_is_broken():
    assert needs_a_date(b'{"id": 1}')
    assert needs_a_date(b'{"payload": {}}')
    assert not needs_a_date(written(payload={}, observed_at=TIME))
    assert not needs_a_date(b'{"id"')
    assert not needs_a_date(b'{"payload": null}')
