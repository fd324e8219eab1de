"""A verification tells where API, versions and tables differ, and nothing where they agree."""

from __future__ import annotations

import random
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import sqlalchemy as sa

from etl.errors import DatabaseError
from etl.jobs.verify import chosen, verify
from etl.sandbox import Fault, running_sandbox
from etl.settings import load_settings
from etl.store.lock import WriterLock
from etl.tables import document_versions, metadata, origin, projections
from tests.db.conftest import Target, session
from tests.db.test_dry_run import edit_something
from tests.db.test_replay import LINK, corrupt, leave_unfolded, rounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etl.jobs.verify import Verified

# What differs is decided here, not there: other files send the same statements.
pytestmark = pytest.mark.one_server

NOBODY = "00000000-0000-4000-8000-0000000000ff"
# What the sandbox has something for. A list that came later is tested where lists are.
TABLES = [document_versions, *(t for t in projections() if origin(t).shape != "list")]


def told(verified):
    """The lines of what differs from the observations."""
    return [difference.as_line() for difference in verified.comparison.found.first]


def ahead(verified):
    """What the API shows and was never copied: whose, what it would be, and where."""
    return sorted(
        (str(change.entity_id), change.outcome, [field.path for field in change.fields])
        for change in verified.comparison.ahead.first
    )


def settled(verified) -> dict[str, int]:
    """What became of how many personas."""
    return {name: n for name, n in verified.counts.items() if n and name != "requested"}


# What is equal


def test_right_after_a_sync_nothing_differs(target):
    verified = target.verify()
    assert (verified.exit_code, verified.status) == (0, "succeeded")
    assert settled(verified) == {"equal": 6}
    assert verified.http_requests == 6


# Chance asks nothing new of the server.
@pytest.mark.one_server
@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_right_after_a_sync_nothing_differs(copying, seed, monkeypatch):
    """Signatures and counters move at each fetch; shared things are seen stale, links shared."""
    monkeypatch.setattr("etl.jobs.fetching.BATCH_ITEMS", 3)
    monkeypatch.setattr("etl.jobs.fetching.PATIENCE_SECONDS", 0.01)
    chance = random.Random(seed)
    shown = [{"id": LINK, "type": "LINK", "token": "t", "allowedOrigins": ["https://a"]}]
    with copying(count=9, seed=seed + 1, moving=True) as target:
        ids = [*target.world.persona_ids, NOBODY]
        for _ in range(3):
            summary = target.sync(ids, allow_mass_removal=True)
            verified = target.verify(ids)
            assert (told(verified), ahead(verified), verified.comparison.lost.number) == ([], [], 0)
            failed = summary.counts["rejected"]
            assert settled(verified).get("rejected", 0) == failed
            assert verified.exit_code == (3 if failed else 0)
            for _ in range(chance.randint(1, 6)):
                edit_something(target.world, chance, ids[:-1])
            present = chance.choice(target.world.persona_ids)
            target.world.edit(present, {"shareLinks": chance.choice([shown, []])})


def test_a_stale_copy_of_a_shared_thing_is_no_difference(target):
    first, late, *_ = target.world.persona_ids
    avatar = target.world.shared_ids("avatars")[0]
    for persona_id in (first, late):
        target.world.edit(persona_id, {"avatar": avatar})
    target.world.set_payload(late, target.world.payload(late))
    target.world.edit(avatar, {"displayName": "Newest"}, "avatars")
    target.sync()
    assert settled(target.verify()) == {"equal": 6}


def test_a_persona_that_goes_on_to_bring_an_older_copy_is_equal(target):
    """Of the same `updatedAt`: the later one is in force, unless it is but a repetition."""
    first, late, *_ = target.world.persona_ids
    avatar = target.world.shared_ids("avatars")[0]
    for persona_id in (first, late):
        target.world.edit(persona_id, {"avatar": avatar})
    target.world.set_payload(late, target.world.payload(late))
    target.sync([late])
    target.world.edit(avatar, {"displayName": "Newest"}, "avatars", touch=False)
    target.sync([first])
    target.sync([late])
    assert target.row("avatars", avatar_id=UUID(avatar))["display_name"] == "Newest"
    assert settled(target.verify([first, late])) == {"equal": 2}


def test_what_is_gone_on_both_sides_is_equal(target, caplog):
    gone = target.world.persona_ids[0]
    target.world.delete(gone)
    target.sync([gone])
    assert settled(target.verify([gone, NOBODY])) == {"equal": 2}
    assert f"persona {NOBODY} was never seen" in caplog.text
    assert gone not in caplog.text


def test_counters_and_times_that_moved_are_told_and_no_difference(target, caplog):
    """So are those that somebody has set to anything: nobody can tell."""
    assert target.verify().comparison.moved.differences == {}
    tool = target.rows("persona_tools")[0]["tool_id"]
    (persona_id, *_) = target.world.persona_ids
    target.query("UPDATE tools SET usage_count = 4711 WHERE tool_id = %s", [tool])
    target.query("UPDATE personas SET updated_at = NULL WHERE persona_id = %s", [persona_id])
    target.world.edit(target.world.persona_ids[1], {"updatedAt": "2030-01-01T00:00:00Z"})
    caplog.set_level("DEBUG")
    verified = target.verify()
    assert verified.exit_code == 0
    assert f"moved: tools {tool}: usage_count is 4711, should be " in caplog.text
    assert verified.comparison.moved.differences == {"tools": 1, "personas": 2}
    (moved,) = (m for m in verified.comparison.moved.first if m.table == "tools")
    assert (moved.key, moved.column, moved.is_) == ({"tool_id": tool}, "usage_count", 4711)


# What the API has changed since


def test_it_says_field_by_field_what_the_api_has_changed(target):
    edited, *_ = target.world.persona_ids
    before = target.persona(edited)["name"]
    target.world.edit(edited, {"name": "Ada", "brain": {"systemPrompt": "Be brief."}})
    voice = target.world.payload(target.world.persona_ids[1])["voice"]["id"]
    target.world.edit(voice, {"displayName": "New"}, "voices")
    users = {p for p in target.world.persona_ids if target.world.payload(p)["voice"]["id"] == voice}
    verified = target.verify()
    assert verified.exit_code == 8
    assert str(verified.error) == (
        "2 changes at the API are not copied yet; `persona-etl sync` does that"
    )
    assert ahead(verified) == sorted(
        [
            (edited, "updated", ["brain.systemPrompt", "name"]),
            (voice, "updated", ["displayName"]),
        ]
    )
    own = next(c for c in verified.comparison.ahead.first if c.kind == "persona")
    assert [(f.old, f.new) for f in own.fields][1] == (before, "Ada")
    assert verified.counts["behind"] == len(users | {edited})
    target.sync()
    assert target.verify().exit_code == 0


def test_it_tells_removals_returns_and_new_ones(target):
    gone, back, new, *_ = ids = target.world.persona_ids
    target.query("SET session_replication_role TO replica")
    target.world.delete(back)
    target.sync([back])
    target.world.delete(gone)
    target.world.restore(back)
    target.world.edit(back, {"name": "Back"})
    for table in (*TABLES, metadata.tables["observations"]):
        name = "entity_id" if "entity_id" in table.columns else "persona_id"
        if name in table.columns:
            target.query(f"DELETE FROM {table.name} WHERE {name} = %s", [new])
    target.query("DELETE FROM persona_sync_state WHERE persona_id = %s", [new])
    verified = target.verify(ids)
    assert ahead(verified) == sorted(
        [(gone, "removed", []), (back, "restored", ["name"]), (new, "created", [])]
    )
    assert settled(verified) == {"equal": 3, "behind": 3}
    target.sync(ids)
    assert target.verify(ids).exit_code == 0


# Two ways to one pure fold are compared.
@pytest.mark.one_server
@pytest.mark.parametrize("seed", range(2))
def test_it_tells_what_a_dry_run_foresees(copying, seed):
    chance = random.Random(seed)
    with copying(count=9, seed=seed + 1) as target:
        ids = target.world.persona_ids
        for _ in range(3):
            target.sync(ids, allow_mass_removal=True)
            for _ in range(6):
                edit_something(target.world, chance, ids)
            _, foreseen = target.dry_run(ids, allow_mass_removal=True)
            assert ahead(target.verify(ids)) == sorted(
                (str(change.entity_id), change.outcome, [field.path for field in change.fields])
                for change in foreseen
                if change.message is None
            )


# What is corrupted


@pytest.fixture(scope="module")
def copied(new_database, template, tmp_path_factory):
    """A target with rows in every table, each of which follows from what a live persona shows."""
    with (
        new_database(template) as url,
        # Each that differs is looked for by halves: no more than it takes to fill all tables.
        running_sandbox(count=5, seed=3, moving=False) as sandbox,
        session(url, "anam") as admin,
    ):
        made = Target(url, sandbox, tmp_path_factory.mktemp("copied"), "anam", admin)
        shown = [{"id": LINK, "type": "LINK", "token": "t", "allowedOrigins": ["https://a"]}]
        for persona_id in made.world.persona_ids[:2]:
            made.world.edit(persona_id, {"shareLinks": shown})
        for turn in range(2):
            made.world.edit(made.world.persona_ids[0], {"name": f"Edited {turn}"})
            made.sync()
        # Constraints are not what is tested here: neither foreign keys nor their triggers.
        made.query("SET session_replication_role TO replica")
        assert [table.name for table in TABLES if not made.rows(table.name)] == []
        assert made.verify().exit_code == 0
        yield made


@pytest.fixture
def spoiled(copied):
    """The same, which a test may spoil if a replay can mend it."""
    yield copied
    copied.replay()


@contextmanager
def corrupted(target: Target, columns: Sequence[sa.Column[object]]) -> Iterator[None]:
    """Columns of different tables have another value in a row, for the length of the block."""
    names = [column.table.name for column in columns]
    for name, column in zip(names, columns, strict=True):
        target.query(f"CREATE TEMP TABLE was_{name} AS TABLE {name}")
        corrupt(target, column)
    yield
    for name in names:
        target.query(f"DELETE FROM {name}")
        target.query(f"INSERT INTO {name} TABLE was_{name}")
        target.query(f"DROP TABLE was_{name}")


# Which value is wrong makes no other statement.
@pytest.mark.one_server
def test_a_corrupted_value_in_any_column_is_found_and_named(spoiled):
    for columns in rounds(TABLES, keys=False):
        with corrupted(spoiled, columns):
            verified = spoiled.verify()
        assert verified.exit_code == 8
        assert "`persona-etl backfill replay` mends" in str(verified.error)
        found = verified.comparison.found.first
        assert {(d.table, d.column) for d in found} == {(c.table.name, c.name) for c in columns}
        assert verified.counts["differing"] > 0
    assert spoiled.verify().exit_code == 0


# Nor does which key it is.
@pytest.mark.one_server
def test_a_corrupted_key_is_found(spoiled):
    for columns in rounds(TABLES, keys=True):
        with corrupted(spoiled, columns):
            found = spoiled.verify().comparison.found
        assert found.differences.keys() == {column.table.name for column in columns}
        assert "missing" in {difference.problem for difference in found.first}


def test_rows_too_few_are_found(spoiled):
    for table in TABLES:
        # The first by its key, whatever ran before: of the versions that is one of an avatar.
        key = ", ".join(column.name for column in table.primary_key.columns)
        spoiled.query(
            f"DELETE FROM {table.name}"
            f" WHERE ctid = (SELECT ctid FROM {table.name} ORDER BY {key} LIMIT 1)"
        )
    found = spoiled.verify().comparison.found
    assert found.differences.keys() == {table.name for table in TABLES}
    assert {difference.problem for difference in found.first} == {"missing"}


@pytest.mark.every_server
def test_rows_too_many_are_found(spoiled):
    persona_id = spoiled.rows("personas")[0]["persona_id"]
    voice_id = spoiled.rows("voices")[0]["voice_id"]
    for statement, key in [
        ("INSERT INTO share_links (share_link_id, persona_id) VALUES (gen_random_uuid(), %s)", 0),
        ("INSERT INTO share_link_allowed_origins VALUES (gen_random_uuid(), 'stray', 0)", None),
        ("INSERT INTO persona_tools VALUES (%s, gen_random_uuid(), 9)", 0),
        ("INSERT INTO voice_display_tags VALUES (%s, 'surplus', 9)", 1),
    ]:
        spoiled.query(statement, [] if key is None else [(persona_id, voice_id)[key]])
    verified = spoiled.verify()
    # The origin's link is nobody's: that is found by looking at all, in a replay.
    assert sorted((d.table, d.problem) for d in verified.comparison.found.first) == [
        ("persona_tools", "surplus"),
        ("share_links", "surplus"),
        ("voice_display_tags", "surplus"),
    ]
    spoiled.query("DELETE FROM share_link_allowed_origins WHERE origin = 'stray'")


def test_what_is_wrong_is_put_down_to_those_who_use_it(spoiled):
    persona = spoiled.rows("personas")[0]
    spoiled.query(
        "UPDATE avatars SET display_name = 'x' WHERE avatar_id = %s", [persona["avatar_id"]]
    )
    users = len(spoiled.rows("personas", avatar_id=persona["avatar_id"]))
    verified = spoiled.verify()
    assert settled(verified) == {"equal": 5 - users, "differing": users}
    assert len(told(verified)) == 1
    other = next(p for p in spoiled.rows("personas") if p["avatar_id"] != persona["avatar_id"])
    assert spoiled.verify([str(other["persona_id"])]).exit_code == 0


def test_a_removal_that_was_not_is_found_and_one_that_was_too(target):
    gone, live, *_ = target.world.persona_ids
    target.world.delete(gone)
    target.sync([gone])
    target.query("UPDATE personas SET removed_at = NULL WHERE persona_id = %s", [gone])
    target.query("UPDATE personas SET removed_at = now() WHERE persona_id = %s", [live])
    verified = target.verify([gone, live])
    assert {(str(d.key["persona_id"]), d.column) for d in verified.comparison.found.first} == {
        (gone, "removed_at"),
        (live, "removed_at"),
    }
    assert settled(verified) == {"differing": 2}
    target.replay()


def test_a_link_in_the_wrong_hands_is_found(spoiled):
    first, second = spoiled.world.persona_ids[:2]
    (row,) = spoiled.rows("share_links", share_link_id=UUID(LINK))
    wrong = ({first, second} - {str(row["persona_id"])}).pop()
    assert told(spoiled.verify([wrong])) == []
    spoiled.query("UPDATE share_links SET persona_id = %s WHERE share_link_id = %s", [wrong, LINK])
    (found,) = spoiled.verify().comparison.found.first
    assert (found.table, found.column) == ("share_links", "persona_id")
    assert (str(found.is_), found.should_be) == (wrong, row["persona_id"])
    assert told(spoiled.verify([str(row["persona_id"])])) == [found.as_line()]


def test_a_corrupted_document_is_found(target):
    target.is_corrupted = True
    (persona_id, *_) = target.world.persona_ids
    target.query(
        'UPDATE documents SET document = document || \'{"name": "Eve"}\' WHERE entity_id = %s',
        [persona_id],
    )
    verified = target.verify()
    assert [(d.table, d.column) for d in verified.comparison.found.first] == [
        ("documents", "document")
    ]
    assert "restore it from a backup" in str(verified.error)
    assert settled(verified) == {"equal": 5, "differing": 1}
    target.query("UPDATE documents SET document = 'null' WHERE entity_id = %s", [persona_id])
    assert settled(target.verify()) == {"equal": 5, "differing": 1}


def test_what_was_copied_and_is_lost_on_all_levels_is_found(target):
    """Tables, versions and observations agree: only the API knows better."""
    (persona_id, *_) = target.world.persona_ids
    before = target.persona(persona_id)["name"]
    since = target.now()
    target.world.edit(persona_id, {"name": "Ada"})
    target.sync()
    target.query(
        "DELETE FROM observations WHERE entity_id = %s AND run_id = %s",
        [persona_id, target.reports[-1].run_id],
    )
    target.replay()
    assert target.persona(persona_id)["name"] == before
    verified = target.verify()
    (lost,) = verified.comparison.lost.first
    assert (str(lost.entity_id), lost.outcome) == (persona_id, "updated")
    assert [(f.path, f.old, f.new) for f in lost.fields] == [("name", before, "Ada")]
    assert str(verified.error) == (
        "1 change had been copied and is lost; restore observations and documents from a backup"
    )
    assert settled(verified) == {"equal": 5, "differing": 1}
    # As docs say: it can be copied anew.
    assert target.sync().counts["unchanged"] == 6
    target.query("UPDATE persona_sync_state SET body_sha256 = NULL, content_sha256 = NULL")
    target.sync()
    assert target.verify().exit_code == 0
    assert target.versions(persona_id)[-1]["valid_from"] > since


# Who is asked for, and what can't be compared


def test_a_sample_asks_for_so_many(target):
    verified = target.verify(sample=2)
    assert (settled(verified), verified.http_requests) == ({"equal": 2}, 2)
    assert settled(target.verify(sample=60)) == {"equal": 6}
    listed = target.verify([], discover=True, sample=3)
    assert (settled(listed), listed.http_requests) == ({"equal": 3}, 4)


def test_a_sample_prefers_nobody():
    ids = [UUID(int=number) for number in range(6)]
    seen = Counter(id_ for _ in range(3000) for id_ in chosen(ids, size=2))
    assert set(seen) == set(ids)
    # 1000 are expected of each; five times the deviation from it.
    assert all(870 < number < 1130 for number in seen.values())
    assert all(len(set(chosen(ids, size=5))) == 5 for _ in range(20))


def test_what_can_not_be_fetched_is_not_verified(target):
    forbidden, broken, failing, *_ = ids = target.world.persona_ids
    target.sandbox.order(Fault(status=403, target=forbidden, times=9))
    target.sandbox.order(Fault(status=400, target=failing, times=9))
    target.world.set_payload(broken, b"<html>")
    verified = target.verify()
    assert settled(verified) == {"equal": 3, "forbidden": 1, "rejected": 1, "failed": 1}
    assert (verified.exit_code, verified.status) == (3, "partial")
    assert str(verified.error).startswith(
        "3 of 6 personas could not be verified (1 forbidden, 1 rejected, 1 failed); first: persona "
    )
    target.world.edit(ids[5], {"name": "Ada"})
    assert target.verify().exit_code == 8


def test_where_nobody_can_be_compared_it_is_about_the_key_or_the_api(target):
    target.sandbox.order(Fault(status=403, times=99))
    assert target.verify().exit_code == 4
    target.sandbox.clear_faults()
    target.sandbox.order(Fault(status=400, times=99))
    assert target.verify().exit_code == 5
    target.sandbox.clear_faults()
    target.sandbox.order(Fault(status=401, times=99))
    refused = target.verify(API__CONCURRENCY="1")
    assert (refused.exit_code, refused.counts["not_attempted"]) == (4, 5)


def test_what_another_run_has_copied_since_is_no_difference(target):
    """Between the answers and the comparison somebody edits, and another run copies that."""
    edited, gone, *_ = ids = target.world.persona_ids
    voice = target.world.payload(ids[2])["voice"]["id"]
    others: list[threading.Thread] = []

    def meanwhile() -> None:
        target.world.edit(edited, {"name": "Ada"})
        target.world.edit(voice, {"displayName": "New"}, "voices")
        target.world.delete(gone)
        target.sync(ids)

    def begins(_connection: sa.Connection) -> None:
        if not others and target.sandbox.requests.total >= before + 6:
            others.append(threading.Thread(target=meanwhile))
            others[0].start()
            others[0].join()

    before = target.sandbox.requests.total
    reported: list[Verified] = []
    sa.event.listen(sa.Engine, "begin", begins)
    try:
        verify(
            load_settings(target.environment(), cwd=target.folder),
            target.uuids(ids),
            url=target.url,
            report=reported.append,
        )
    finally:
        sa.event.remove(sa.Engine, "begin", begins)
    assert len(others) == 1
    (verified,) = reported
    assert (told(verified), ahead(verified), verified.exit_code) == ([], [], 0)
    assert settled(verified) == {"overtaken": 6}
    assert target.changes(edited) == ["created", "updated"]


@pytest.mark.every_server
def test_it_needs_no_more_than_to_read(target, plain_role):
    url, execute = plain_role
    execute("GRANT USAGE ON SCHEMA anam TO {role}")
    execute("GRANT SELECT ON ALL TABLES IN SCHEMA anam TO {role}")
    target.url = url
    assert target.verify().exit_code == 0


@pytest.mark.every_server
def test_it_runs_beside_a_real_run(target):
    with WriterLock(target.url, "anam", command="sync", run_id=UUID(int=1)):
        assert target.verify().exit_code == 0


def test_it_wants_the_schema_at_head(target):
    target.is_corrupted = True
    target.query("UPDATE alembic_version SET version_num = 'from-the-future'")
    with pytest.raises(DatabaseError, match="does not know"):
        target.verify()


def test_after_a_load_that_was_cut_short_that_is_what_is_told_first(target):
    leave_unfolded(target, target.world.persona_ids[0])
    verified = target.verify()
    assert (verified.exit_code, settled(verified)) == (8, {"equal": 5, "differing": 1})
    first, *others = str(verified.error).split("; ")
    assert first.startswith(
        "a load from files has not folded 1 document yet: run `persona-etl backfill replay`"
    )
    assert others
    target.replay()
