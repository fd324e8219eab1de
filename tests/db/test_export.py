"""An export holds every observation, so that they can be made again from it alone.

`rebuilt` reads lines by the format's own rules, without the code of `backfill files`.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given

from etl.errors import UsageError
from etl.jobs.export import Exported, Wanted, export
from etl.payload.canonical import content_hash
from etl.payload.decode import decode, dumps
from etl.payload.documents import take_apart
from etl.payload.times import parse_time
from etl.settings import load_settings
from etl.store.chains import BYTES_AT_ONCE
from etl.store.exported import DocumentShelf
from tests.db.conftest import Target, session
from tests.db.story import OLD, Story, stories
from tests.db.test_backfill_files import comparable, day, edited, gone, seen
from tests.db.test_time_told_by_an_oracle import BACK, REPEATED, STALE
from tests.unit.strategies import payload_files, properties

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from etl.store.observations import ContentKey
    from tests.db.conftest import Row

VIEWS = ("personas", "changes", *(f"{k}_history" for k in ("persona", "prompt", "avatar", "voice")))
# Whose they are differs, and an age moves with the clock.
LEDGERS = {"run_id", "last_attempt_at", "last_outcome", "age"}
OBSERVATIONS = """
SELECT kind, entity_id, observed_at, persona_id, content_hash, source_updated_at
  FROM observations ORDER BY 1, 2, 3, 4
"""
DELETE_UNUSED = (
    "DELETE FROM documents WHERE content_hash NOT IN (SELECT content_hash FROM observations)"
)
USED_DOCUMENTS = """
SELECT kind, content_hash, entity_id, document FROM documents AS d
 WHERE EXISTS (SELECT FROM observations AS o
                WHERE (o.kind, o.content_hash) = (d.kind, d.content_hash))
 ORDER BY 1, 2
"""


@pytest.fixture
def empty(copying):
    """A target to which stories bring their own personas."""
    with copying(count=0) as made:
        yield made


def exported(target: Target, *personas: str, **wanted: Any) -> tuple[list[bytes], Exported]:
    lines: list[bytes] = []
    ids = [UUID(id_) for id_ in personas]
    counts = export(
        load_settings(target.environment(), cwd=target.folder),
        url=target.url,
        wanted=Wanted(ids, **wanted),
        write=lines.append,
    )
    return lines, counts


def told(target: Target, *personas: str, **wanted: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported(target, *personas, **wanted)[0]]


def rebuilt(lines: Sequence[bytes]) -> tuple[list[Row], list[Row]]:
    """The observations and documents that lines stand for."""
    observations: dict[Any, Row] = {}
    documents: dict[Any, Row] = {}

    def observe(key: tuple[Any, ...], content: bytes | None, updated: datetime | None) -> None:
        names = ("kind", "entity_id", "observed_at", "persona_id")
        row = dict(zip(names, key, strict=True))
        row |= {"content_hash": content, "source_updated_at": updated}
        assert observations.setdefault(key, row) == row

    def keep(kind: Any, content: bytes, id_: UUID, document: Any) -> None:
        row = {"kind": kind, "content_hash": content, "entity_id": id_, "document": plain(document)}
        assert documents.setdefault((kind, content), row) == row

    for raw in lines:
        assert raw.endswith(b"}\n")
        assert raw.count(b"\n") == 1
        line: Any = decode(raw).value
        at, persona = parse_time(line["observed_at"]), UUID(line["persona_id"])
        named = line.get("observations")
        for loose in line.get("documents", ()):
            content = content_hash(loose["kind"], loose["document"])
            id_, updated = UUID(loose["entity_id"]), loose["updated_at"]
            updated = updated and parse_time(updated)
            observe((loose["kind"], id_, at, persona), content, updated)
            keep(loose["kind"], content, id_, loose["document"])
        if line["payload"] is None:
            if named is None:
                observe(("persona", persona, at, persona), None, None)
            continue
        parts = take_apart(line["payload"], persona).parts()
        names = {f"{part.kind} {part.entity_id}" for part in parts}
        # All of them are said by saying nothing.
        assert named is None or (names > set(named) and sorted(named) == named)
        for part in parts:
            if named is None or f"{part.kind} {part.entity_id}" in named:
                key = (part.kind, part.entity_id, at, persona)
                observe(key, part.content_hash, part.source_updated_at)
                keep(part.kind, part.content_hash, part.entity_id, part.document)
    return in_order(observations), in_order(documents)


def in_order(rows: dict[Any, Row]) -> list[Row]:
    return [rows[key] for key in sorted(rows)]


def plain(value: Any) -> Any:
    return json.loads(dumps(value))


def assert_it_is_all_there(target: Target) -> list[bytes]:
    lines, counts = exported(target)
    pruned = sum(line.startswith(b'{"pruned"') for line in lines)
    observations, documents = rebuilt(lines[pruned:])
    assert observations == target.query(OBSERVATIONS)
    assert documents == target.query(USED_DOCUMENTS)
    assert pruned == len(target.rows("pruned_history"))
    assert counts.observations == len(observations)
    assert counts.lines == len(lines) - pruned
    assert counts.personas == len({row["persona_id"] for row in observations})
    assert exported(target)[0] == lines
    return lines


def everything(target: Target) -> dict[str, list[Row]]:
    """What history says, in tables and views, but for who wrote it when."""
    found = comparable(target)
    for view in VIEWS:
        rows = target.query(f"SELECT * FROM anam_reporting.{view}")
        shown = [{k: v for k, v in row.items() if k not in LEDGERS} for row in rows]
        found[view] = sorted(shown, key=str)
    return found


@contextmanager
def elsewhere(target: Target, url: str) -> Iterator[Target]:
    """Another database that belongs to the same API."""
    with session(url, target.schema) as admin:
        other = Target(url, target.sandbox, target.folder, target.schema, admin)
        yield other
        other.check_replay()


def assert_a_load_comes_to_the_same(target: Target, url: str) -> None:
    lines = assert_it_is_all_there(target)
    expected = everything(target)
    with elsewhere(target, url) as other:
        assert other.load(*lines).rejected == []
        found = everything(other)
        for name, rows in expected.items():
            assert found[name] == rows, name
        assert exported(other)[0] == lines


# Random stories are made of statements that other tests run on each server.
@pytest.mark.one_server
# A clock that was set forward has observed what lies in the future: a load refuses that.
@properties(1)
@given(
    told=stories.map(
        lambda told: [([c for c in made if c[0] != "set_clock_back"], run) for made, run in told]
    )
)
@example(told=[*STALE, *REPEATED[1:], *BACK[1:]])
def test_a_load_of_an_export_comes_to_the_same(copying, new_database, template, told):
    with (
        new_database(template) as url,
        new_database(template) as other_url,
        copying(count=0, url=url) as target,
    ):
        story = Story(target)
        for changes, run in told:
            for name, *about in changes:
                getattr(story, name)(*about)
            story.run(**run)
        assert_a_load_comes_to_the_same(target, other_url)


def test_payloads_of_every_kind_come_back_as_they_were(empty, new_database, template):
    """Twice each: repeated elements stay inline, values do not fit, members are unknown."""
    payloads = [json.loads(file.read_bytes()) for file in payload_files()]
    # One of two that differ in what is not kept stays inline.
    tool = {"id": str(uuid4()), "name": "Search"}
    payloads.append({"tools": [{**tool, "usageCount": 1}, {**tool, "usageCount": 2}]})
    ids = [str(UUID(int=number)) for number, _ in enumerate(payloads, start=1)]
    for edit in ({}, {"name": "Edited"}):
        for id_, payload in zip(ids, payloads, strict=True):
            empty.world.set_payload(id_, {**payload, "id": id_, **edit})
        empty.sync(ids, API__CONCURRENCY="1")
    assert empty.query("SELECT 1 FROM tools WHERE usage_count IS NOT NULL")
    with new_database(template) as url:
        assert_a_load_comes_to_the_same(empty, url)


def test_a_line_names_what_was_observed_and_holds_all_that_was_there(empty):
    voice = {"id": str(uuid4()), "displayName": "Ava", "updatedAt": day(1).isoformat()}
    persona: dict[str, Any] = {"id": str(uuid4()), "name": "One", "voice": voice}
    own = [f"persona {persona['id']}"]
    empty.load(
        seen(1, persona),
        seen(2, edited(persona, name="Two"), observations=own),
        gone(3, persona["id"]),
        seen(4, edited(persona, name="Two"), observations=own),
        seen(5, edited(persona, name="Two"), observations=[]),
    )
    first, second, third, fourth, last = told(empty)
    dated = {**voice, "updatedAt": "2026-01-02T00:00:00Z"}
    assert first == {
        "observed_at": "2026-01-02T00:00:00Z",
        "persona_id": persona["id"],
        "payload": {**persona, "voice": dated},
    }
    assert (second["observations"], second["payload"]["voice"]) == (own, dated)
    assert third == {
        "observed_at": "2026-01-04T00:00:00Z",
        "persona_id": persona["id"],
        "payload": None,
    }
    assert (fourth["observations"], last["observations"]) == (own, [])
    assert last["payload"] == {**persona, "name": "Two", "voice": dated}


def test_counters_stand_where_they_were_last_seen(empty):
    tool = {"id": str(uuid4()), "name": "Search", "usageCount": 7}
    link = {"id": str(uuid4()), "token": "x", "usageCount": 3}
    persona = {"id": str(uuid4()), "name": "One", "tools": [tool], "shareLinks": [link]}
    empty.load(
        seen(1, persona),
        seen(2, edited(persona, name="Two")),
        seen(3, edited(persona, name="Two", tools=[])),
    )
    counts = [
        [x.get("usageCount") for name in ("tools", "shareLinks") for x in line["payload"][name]]
        for line in told(empty)
    ]
    assert counts == [[None, None], [7, None], [3]]


def test_filters_leave_lines_out_and_payloads_whole(empty):
    voice = {"id": str(uuid4()), "displayName": "Ava"}
    one, two = str(UUID(int=1)), str(UUID(int=2))
    for id_ in (one, two):
        persona = {"id": id_, "name": "A", "voice": voice}
        empty.load(
            seen(1, persona),
            seen(2, edited(persona, name="B"), observations=[f"persona {id_}"]),
            seen(3, edited(persona, name="C")),
        )
    whole, _ = exported(empty)
    assert exported(empty, one)[0] == whole[:3]
    assert exported(empty, two, one)[0] == whole
    assert exported(empty, since=day(2))[0] == [*whole[1:3], *whole[4:]]
    assert exported(empty, until=day(3))[0] == [*whole[:2], *whole[3:5]]
    (between,) = told(empty, one, since=day(2), until=day(3))
    assert between["payload"]["voice"] == voice
    assert exported(empty, since=day(4)) == ([], Exported())
    nobody = str(UUID(int=9))
    with pytest.raises(UsageError, match=nobody):
        exported(empty, one, nobody)


def test_what_is_left_when_more_is_not_kept_is_all_there(empty, new_database, template):
    """As a pruned history is: own documents without those that they refer to, and the reverse."""
    voice = {"id": str(uuid4()), "displayName": "Ava", "updatedAt": OLD}
    tool = {"id": str(uuid4()), "name": "Search"}
    persona = {"id": str(uuid4()), "name": "One", "voice": voice}
    empty.load(
        seen(1, persona),
        seen(2, edited(persona, tools=[tool])),
        seen(
            3, edited(persona, name="Three", voice=voice), observations=[f"persona {persona['id']}"]
        ),
        seen(4, edited(persona, name="Four")),
    )
    empty.query("DELETE FROM observations WHERE kind = 'persona' AND observed_at < %s", [day(3)])
    empty.query("DELETE FROM observations WHERE kind = 'voice' AND observed_at < %s", [day(4)])
    empty.replay()
    empty.query(DELETE_UNUSED)
    first, second, _ = told(empty)
    assert (first["payload"], first["observations"]) == (None, [])
    (loose,) = first["documents"]
    assert loose == {
        "kind": "tool",
        "entity_id": tool["id"],
        "document": tool,
        "updated_at": None,
    }
    assert second["payload"]["voice"] == {"id": voice["id"]}
    with new_database(template) as url:
        assert_a_load_comes_to_the_same(empty, url)


def test_whose_beginning_is_not_kept_is_told_before_all_else(target):
    one, two = sorted(target.world.persona_ids)[:2]
    target.query(
        "INSERT INTO pruned_history"
        " SELECT kind, entity_id, 3, %s, %s, %s, content_hash, 'updated', '{name}'"
        " FROM document_versions WHERE kind = 'persona' AND entity_id = ANY(%s)",
        [day(1), day(3), day(2), [UUID(one), UUID(two)]],
    )
    target.is_corrupted = True
    lines = told(target)
    assert [line["pruned"]["entity_id"] for line in lines[:2]] == [one, two]
    assert lines[0]["pruned"] == {
        "kind": "persona",
        "entity_id": one,
        "version": 3,
        "valid_from": "2026-01-02T00:00:00Z",
        "valid_to": "2026-01-04T00:00:00Z",
        "last_observed_at": "2026-01-03T00:00:00Z",
        "next_content_hash": target.versions(one)[0]["content_hash"].hex(),
        "next_change": "updated",
        "next_changed_paths": ["name"],
    }
    assert not any("pruned" in line for line in lines[2:])
    only = told(target, two)
    assert [line["pruned"]["entity_id"] for line in only if "pruned" in line] == [two]


def test_a_load_that_has_not_ended_is_told(target, caplog):
    before, _ = exported(target)
    assert caplog.messages == []
    target.query("INSERT INTO unfolded (kind, entity_id) VALUES ('voice', gen_random_uuid())")
    assert exported(target)[0] == before
    (message,) = caplog.messages
    assert "a load has not come to its end" in message


def test_documents_are_held_only_as_far_as_there_is_room(target, engine):
    document = '{"x": "' + "x" * (BYTES_AT_ONCE // 2) + '"}'
    keys: list[ContentKey] = [("voice", bytes([n] * 32)) for n in range(8)]
    for _, content in keys:
        target.query(
            "INSERT INTO documents VALUES ('voice', %s, gen_random_uuid(), %s)", [content, document]
        )
    with engine.connect() as connection:
        shelf = DocumentShelf(connection)
        shelf.fetch(keys)
        assert [key in shelf for key in keys] == [True] + 7 * [False]
        for key in keys:
            assert len(str(shelf.get(key)["x"])) == BYTES_AT_ONCE // 2
        assert sum(key in shelf for key in keys) == 3
    target.query(DELETE_UNUSED)
