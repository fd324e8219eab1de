"""`forget`: everything about a persona leaves every table, and the others stay as they were."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from psycopg import sql

from etl.errors import UsageError
from etl.jobs.dry_run import dry_run
from etl.jobs.forget import forget, look
from etl.jobs.status import status
from etl.jobs.sync import sync
from etl.sandbox import Fault, World
from etl.settings import load_settings
from etl.store.erasures import persona_digest
from tests.canaries import Canaries, leaks_in_database
from tests.cli.test_sync_command import wait_until
from tests.db.conftest import LEDGER

if TYPE_CHECKING:
    from etl.jobs.forget import Forgotten
    from etl.jobs.summary import Summary
    from tests.db.conftest import Target

GONE = "00000000-0000-4000-8000-00000000f001"
STAYS = "00000000-0000-4000-8000-00000000f002"
OTHER = "00000000-0000-4000-8000-00000000f003"
AVATAR = "00000000-0000-4000-8000-0000000000a1"
OWN_AVATAR = "00000000-0000-4000-8000-0000000000a2"
VOICE = "00000000-0000-4000-8000-0000000000b1"
TOOL = "00000000-0000-4000-8000-0000000000c1"
OWN_VOICE = "00000000-0000-4000-8000-0000000000b2"
OWN_TOOL = "00000000-0000-4000-8000-0000000000c2"
GROUP = "00000000-0000-4000-8000-0000000000d1"
LINK = "00000000-0000-4000-8000-0000000000e1"
OWN_LINK = "00000000-0000-4000-8000-0000000000e2"

COUNTER = 987_654_321


def settings_of(target: Target, **settings: str):
    return load_settings(target.environment(**settings), cwd=target.folder)


def forget_in(target: Target, persona_id: str = GONE) -> Forgotten:
    reported: list[Forgotten] = []
    forget(settings_of(target), UUID(persona_id), url=target.url, report=reported.append)
    (forgotten,) = reported
    return forgotten


def found_in(target: Target, persona_id: str = GONE):
    return look(settings_of(target), UUID(persona_id), url=target.url)


def copy(target: Target, *ids: str, **options: Any):
    """A sync that may leave some out."""
    reported: list[Summary] = []
    sync(
        settings_of(target, API__CONCURRENCY="1"),
        [UUID(id_) for id_ in ids],
        url=target.url,
        report=reported.append,
        **options,
    )
    target.check_books(reported[0])
    return reported[0]


def payload(persona_id: str, say=lambda word: word, *, day: int = 1, **members: Any):
    """A persona that shares what can be shared; `say` makes its texts its own."""
    at = f"2026-04-{day:02}T10:00:00.000Z"
    return {
        "id": persona_id,
        "name": say("name"),
        "mood": say("a field that all have, and the map has not"),
        "brain": {"systemPrompt": say("prompt"), "personality": say("kind")},
        "avatar": {
            "id": AVATAR,
            "displayName": say("Liv"),
            "availableVersions": ["v1"],
            "updatedAt": at,
        },
        "voice": {
            "id": VOICE,
            "displayName": say("Lucy"),
            "displayTags": [say("fast")],
            "provider": "CARTESIA",
            "createdAt": "no time",
            "updatedAt": at,
        },
        "tools": [
            {"id": TOOL, "name": say("map"), "config": {"a": say("b")}, "usageCount": 3},
        ],
        "knowledge": [{"id": GROUP, "name": say("Prices"), "documentCount": 7}],
        "shareLinks": [],
        **members,
    }


def everything(target: Target) -> str:
    """Each row of each table and view, as text."""
    found = target.query(
        "SELECT n.nspname, c.relname FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname ~ '^anam' AND c.relkind IN ('r', 'v', 'm')"
    )
    texts = []
    for row in found:
        named = sql.Identifier(row["nspname"], row["relname"])
        cursor = target.admin.execute(
            sql.SQL("SELECT row::text AS row FROM {} AS row").format(named)
        )
        texts += [each["row"] for each in cursor]
    return "\n".join(texts)


@pytest.fixture
def canary():
    return Canaries()


def of_canaries(canary: Canaries, *, day: int):
    """Something of its own at each place, known to the map or not, and things of its own."""

    def say(word: str) -> str:
        return f"{word} {canary()}"

    shown = payload(GONE, say, day=day)
    for place in (shown["brain"], shown["avatar"], shown["voice"], shown["tools"][0]):
        place[canary("new{}")] = {canary("deep{}"): [say("x")]}
    for place, counter in (
        (shown["tools"][0], "usageCount"),
        (shown["knowledge"][0], "documentCount"),
    ):
        place[counter] = COUNTER
    shown["voice"] |= {
        "provider": canary("NEW_{}"),
        # Text that can't be stored, under a name of its own.
        canary("torn{}"): "\ud800" + say("torn"),
        "gender": [say("not a text")],
    }
    shown["knowledge"][0]["description"] = say("about")
    shown["tools"].append({"id": OWN_TOOL, "name": say("own"), "config": {"k": say("v")}})
    shown["shareLinks"] = [
        {"id": LINK, "token": "the token", "usageCount": COUNTER, "allowedOrigins": [say("o")]},
        {"id": OWN_LINK, "token": "own token", canary("label{}"): say("l"), "allowedOrigins": []},
    ]
    return shown | {
        "description": say("about"),
        "widgetConfig": {canary("w{}"): say("w")},
        "voiceGenerationOptions": {"emotion": say("glad"), canary("z{}"): 1},
        "zeroDataRetention": say("not a boolean"),
        canary("unknown{}"): [{canary("un{}"): say("u")}],
    }


def others(day: int, **members: Any):
    link = {
        "id": LINK,
        "token": "the token",
        "usageCount": 5,
        "allowedOrigins": ["https://a.example"],
    }
    return payload(STAYS, day=day, shareLinks=[link], **members)


@pytest.fixture
def told(copying, canary):
    """Two personas whose days are told by the one that is to be forgotten, as loud as can be."""
    with copying(World(), moving=False) as target:
        serve = target.world.set_payload
        serve(STAYS, others(1))
        serve(OTHER, payload(OTHER))
        copy(target, STAYS, OTHER)
        for day in (2, 3):
            # Its copies are the newest, so that all that is shared says what it says.
            serve(GONE, of_canaries(canary, day=day))
            copy(target, STAYS, GONE, strict=True)
        # The same is odd about another: of each table something stays.
        odd: dict[str, Any] = {
            "voice": {"id": OWN_VOICE, "provider": "ACME"},
            "zeroDataRetention": "perhaps",
        }
        serve(OTHER, payload(OTHER, **odd, voiceGenerationOptions={"emotion": "calm"}))
        copy(target, OTHER)
        target.sandbox.order(Fault(status=200, wrong="html", target=OTHER))
        copy(target, OTHER)
        unreadable = {"message": "Mrs Lindqvist is locked"}
        target.sandbox.order(
            Fault(status=400, body=json.dumps(unreadable).encode(), target=GONE),
            # One is answered with the other's body, and the other way round.
            Fault(body=json.dumps(of_canaries(canary, day=4)).encode(), target=STAYS),
        )
        copy(target, GONE, STAYS)
        target.sandbox.order(Fault(body=json.dumps(others(4)).encode(), target=GONE))
        copy(target, GONE)
        assert leaks_in_database(target.url)
        assert target.rows("value_issues", kind="voice")
        target.query("ANALYZE")
        yield target


def test_a_dump_holds_none_of_its_values_nor_its_id(told):
    before = found_in(told)
    told_by_runs = [row["error"] for row in told.rows("runs") if row["error"]]
    assert any("Lindqvist" in error and GONE in error for error in told_by_runs)
    forgotten = forget_in(told)
    assert forgotten.status == "succeeded"
    assert leaks_in_database(told.url) == []
    dump = everything(told)
    assert GONE not in dump
    assert "Lindqvist" not in dump
    assert str(COUNTER) not in dump
    assert hashlib.sha256(b"own token").hexdigest() not in dump
    assert hashlib.sha256(UUID(GONE).bytes).hexdigest() not in dump
    # What is shared and what only it had.
    assert hashlib.sha256(b"the token").hexdigest() in dump
    assert [s.is_sole for s in before.belongings.shared if s.entity_id == UUID(OWN_TOOL)] == [True]
    assert told.rows("tools", tool_id=UUID(OWN_TOOL)) == []
    # What was foretold is what went, and the receipt says so.
    assert before.belongings.rows == forgotten.rows
    (receipt,) = told.rows("erasures")
    assert receipt["persona_sha256"] == persona_digest(UUID(GONE))
    assert (receipt["rows_deleted"], receipt["run_id"]) == (forgotten.rows, forgotten.run_id)
    assert receipt["lifted_at"] is None
    # What others tell of stays told.
    assert {row["path"] for row in told.rows("value_issues", kind="voice")} == {"createdAt"}
    assert {row["path"] for row in told.rows("drift_paths", problem="unknown")} == {"mood"}
    (new_value,) = told.rows("drift_paths", problem="new_value")
    assert new_value["new_members"] == ["ACME"]
    errors = [row["error"] for row in told.rows("runs") if row["error"]]
    assert any("(forgotten)" in error for error in errors)


def test_a_dry_run_writes_nothing(told):
    before = told.dump(), told.stamps()
    found = found_in(told)
    assert found.belongings.rows["observations"] > 10
    assert (told.dump(), told.stamps()) == before


def test_the_others_observed_columns_come_back_with_their_next_answers(told):
    forget_in(told)
    assert told.row("tools", tool_id=UUID(TOOL))["usage_count"] is None
    assert told.row("share_links", share_link_id=UUID(LINK))["usage_count"] is None
    assert copy(told, STAYS).counts["unchanged"] == 1
    assert told.row("tools", tool_id=UUID(TOOL))["usage_count"] == 3
    assert told.row("knowledge_groups", knowledge_group_id=UUID(GROUP))["document_count"] == 7
    assert told.row("share_links", share_link_id=UUID(LINK))["usage_count"] == 5


def timeless(target: Target) -> dict[str, list[dict[str, Any]]]:
    """All tables but the ledger; in the place of runs and times the syncs that they are of."""
    runs = [row for row in target.rows("runs") if row["command"] == "sync"]
    runs.sort(key=lambda row: row["started_at"])
    number = {row["run_id"]: place for place, row in enumerate(runs)}

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            within = [n for n, r in enumerate(runs) if r["started_at"] <= value <= r["finished_at"]]
            return within or value
        return number.get(value, value) if isinstance(value, UUID) else value

    left_out = {*LEDGER, "erasures", "drift_paths"}
    return {
        name: [{key: plain(value) for key, value in row.items()} for row in rows]
        for name, rows in target.dump().items()
        if name not in left_out
    }


def test_history_is_as_if_it_had_never_been_there(copying, new_database, template, canary):
    with new_database(template) as url, copying(World(), moving=False) as target:
        serve = target.world.set_payload

        def both() -> None:
            ids = [GONE, OTHER, STAYS] if target.world.knows(OTHER) else [GONE, STAYS]
            copy(target, *ids)
            with target.at(url):
                copy(target, *ids[1:])

        serve(GONE, payload(GONE, day=3) | {"shareLinks": [{"id": LINK, "usageCount": 1}]})
        serve(STAYS, others(1))
        both()
        # Newer than the others' until a third day, then older.
        serve(GONE, of_canaries(canary, day=5))
        serve(STAYS, others(2))
        serve(OTHER, payload(OTHER, day=2))
        both()
        serve(STAYS, others(4, name="renamed"))
        both()
        serve(OTHER, payload(OTHER, str.upper, day=6))
        serve(GONE, payload(GONE, day=1))
        both()
        target.world.set_payload(STAYS, others(7) | {"tools": []})
        both()
        forget_in(target)
        both()
        here = timeless(target)
        with target.at(url):
            assert {**timeless(target), "value_issues": here["value_issues"]} == here
            target.check_replay()


def test_a_voice_that_others_had_before_says_again_what_they_said(copying):
    with copying(World(), moving=False) as target:
        target.world.set_payload(STAYS, payload(STAYS, day=1))
        copy(target, STAYS)
        target.world.set_payload(GONE, payload(GONE, str.upper, day=2))
        copy(target, GONE)
        assert target.row("voices")["display_name"] == "LUCY"
        forget_in(target)
        voice = target.row("voices")
        assert (voice["display_name"], voice["updated_at"].day) == ("Lucy", 1)
        assert target.changes(VOICE) == ["created"]
        assert [row["tag"] for row in target.rows("voice_display_tags")] == ["fast"]
        assert len(target.rows("documents", kind="voice")) == 1


def test_a_link_that_another_shows_too_goes_to_it(copying):
    link = {
        "id": LINK,
        "token": "the token",
        "usageCount": 5,
        "allowedOrigins": ["https://a.example"],
    }
    with copying(World(), moving=False) as target:
        for persona_id in (STAYS, GONE):
            target.world.set_payload(persona_id, {"id": persona_id, "shareLinks": [link]})
            copy(target, persona_id)
        before = target.row("share_links")
        assert before["persona_id"] == UUID(GONE)
        forget_in(target)
        mine = {"persona_id": UUID(STAYS), "usage_count": None}
        assert target.row("share_links") == before | mine
        assert [row["origin"] for row in target.rows("share_link_allowed_origins")] == [
            "https://a.example"
        ]
        copy(target, STAYS)
        assert target.row("share_links") == before | {"persona_id": UUID(STAYS)}


def test_what_nobody_else_brought_goes_entirely(target):
    ids = target.world.persona_ids
    for persona_id in ids:
        assert forget_in(target, persona_id).status == "succeeded"
    kept = {name for name, rows in target.dump().items() if rows}
    assert kept == {"runs", "erasures"}
    assert len(target.rows("erasures")) == len(ids)


def test_an_unknown_persona_is_a_mistake_and_leaves_no_receipt(target):
    with pytest.raises(UsageError, match=f"nothing is known of persona {GONE}; nothing was done"):
        found_in(target)
    assert forget_in(target).rows == {}
    assert target.rows("erasures") == []


def test_one_that_was_only_ever_asked_for_can_be_forgotten(target):
    copy(target, GONE)
    assert found_in(target).belongings.rows == {"persona_sync_state": 1, "run_items": 1}
    forget_in(target)
    assert GONE not in everything(target)


def test_it_is_left_out_until_it_is_brought_back(target, caplog):
    gone, *stay = target.world.persona_ids
    forget_in(target, gone)
    first = found_in(target, gone)
    assert (first.is_anything, first.erased_at) == (False, target.row("erasures")["erased_at"])
    assert copy(target, gone, *stay).counts["requested"] == len(stay)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    day = f"{first.erased_at:%Y-%m-%d}"
    assert warning == (
        f"forgotten and left out: persona {gone} (on {day}); take it out of the ids, or bring it"
        " back with `persona-etl sync --unforget`"
    )
    caplog.clear()
    # The list shows it, and nobody has named it.
    assert copy(target, discover=True).counts["requested"] == len(stay)
    assert [r for r in caplog.records if r.levelname == "WARNING"] == []
    assert gone not in everything(target)
    # Nobody else is wanted: all is well.
    summary = copy(target, gone)
    assert (summary.status, summary.counts["requested"], summary.exit_code) == ("succeeded", 0, 0)
    assert target.verify([gone]).counts["requested"] == 0
    told = status(settings_of(target, PERSONAS__IDS=gone), url=target.url, max_age=None)
    assert told.personas.never_seen.count == 0
    assert rehearse(target, gone, unforget=True).counts["created"] == 1
    assert rehearse(target, gone).counts["requested"] == 0
    assert target.row("erasures")["lifted_at"] is None
    assert copy(target, gone, unforget=True).counts["created"] == 1
    assert target.row("erasures")["lifted_at"] is not None
    assert copy(target, gone).counts["unchanged"] == 1
    # And once more.
    forget_in(target, gone)
    assert len(target.rows("erasures")) == 2
    assert copy(target, gone).counts["requested"] == 0


def rehearse(target: Target, *ids: str, **options: Any):
    reported: list[Summary] = []
    dry_run(
        settings_of(target),
        [UUID(id_) for id_ in ids],
        url=target.url,
        tell=lambda _: None,
        report=reported.append,
        **options,
    )
    return reported[0]


def test_of_many_that_are_left_out_the_first_are_named(target, caplog):
    ids = target.world.persona_ids
    for persona_id in ids:
        forget_in(target, persona_id)
    copy(target, *ids)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith("forgotten and left out: personas ")
    assert f" and {len(ids) - 3} more; take them out of the ids" in warning
    assert [persona_id in warning for persona_id in ids] == [True] * 3 + [False] * (len(ids) - 3)


def test_a_voice_that_very_many_brought_is_looked_up_by_index(target):
    voice = target.rows("voices")[0]["voice_id"]
    # Many that nobody asks about, too.
    target.query(
        "INSERT INTO observations (kind, entity_id, observed_at, persona_id, content_hash)"
        " SELECT 'voice', CASE WHEN n %% 20 = 0 THEN %s ELSE md5(n::text)::uuid END,"
        "        timestamptz '2026-01-01Z' + n * interval '1 s', md5(n::text)::uuid, content_hash"
        "   FROM generate_series(1, 20000) AS n,"
        "        LATERAL (SELECT content_hash FROM documents WHERE kind = 'voice' LIMIT 1) AS d",
        [voice],
    )
    target.is_corrupted = True
    target.query("ANALYZE")
    using = target.query("SELECT persona_id FROM personas WHERE voice_id = %s", [voice])
    before = scans(target)
    found = found_in(target, str(using[0]["persona_id"]))
    assert [s.is_sole for s in found.belongings.shared if s.entity_id == voice] == [False]
    wait_until(lambda: scans(target)["idx_scan"] > before["idx_scan"])
    assert scans(target)["seq_scan"] == before["seq_scan"]


def scans(target: Target) -> dict[str, int]:
    (row,) = target.query(
        "SELECT idx_scan, seq_scan FROM pg_stat_user_tables WHERE relname = 'observations'"
    )
    return row


# As in test_sync_killed.
@pytest.mark.one_server
def test_whatever_statement_fails_nothing_is_gone(target):
    gone = target.world.persona_ids[0]
    before = everything_but_runs(target)
    target.query(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'no'; END$$"
    )
    # The receipt is written last.
    for table in ("share_links", "personas", "run_items", "observations", "documents", "erasures"):
        target.query(
            f"CREATE TRIGGER refuse BEFORE INSERT OR DELETE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
        )
        with pytest.raises(sa.exc.DBAPIError):
            forget_in(target, gone)
        target.query(f"DROP TRIGGER refuse ON {table}")
        assert everything_but_runs(target) == before
    target.query("DROP FUNCTION refuse()")
    assert forget_in(target, gone).status == "succeeded"


def everything_but_runs(target: Target) -> dict[str, Any]:
    return {name: rows for name, rows in target.dump().items() if name != "runs"}
