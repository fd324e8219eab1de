"""The personas as they stood at any moment: at boundaries, while removed, and how sure that is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from etl.map import SHIPPED
from etl.report.as_of import personas_as_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.db.conftest import Row, Target

TICK = timedelta(microseconds=1)
NOT_KEPT = ("last_success_at", "last_attempt_at", "last_outcome", "age")
# As of the latest observation today; of the past, the smallest that came with the content.
OBSERVED = ("updated_at",)


def as_of(target: Target, moment: datetime | str | None, **where: object) -> list[Row]:
    conditions = " AND ".join(f"{name} = %s" for name in where) or "true"
    query = f"""
        SELECT * FROM anam_reporting.personas_as_of(%s) WHERE {conditions} ORDER BY persona_id
    """
    return target.query(query, [moment, *where.values()])


def one(target: Target, moment: datetime | str, persona_id: str) -> Row:
    (found,) = as_of(target, moment, persona_id=UUID(persona_id))
    return found


def names(target: Target, moment: datetime | str | None) -> set[str]:
    return {row["name"] for row in as_of(target, moment)}


def history(target: Target, kind: str) -> list[Row]:
    return target.query(f"SELECT * FROM anam_reporting.{kind}_history ORDER BY valid_from")


def without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def test_the_columns_are_those_of_the_view_of_today(target):
    columns = """
        SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute
        WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum
    """
    target.query("CREATE VIEW past AS SELECT * FROM anam_reporting.personas_as_of(now())")
    today = [tuple(row.values()) for row in target.query(columns, ["anam_reporting.personas"])]
    past = [tuple(row.values()) for row in target.query(columns, ["past"])]
    assert past == [*today, ("observed_until", "timestamp with time zone")]


def test_as_of_now_is_what_the_view_of_today_says_of_live_personas(target):
    ids = target.world.persona_ids
    target.world.edit(ids[0], {"name": "Edited"})
    target.world.delete(ids[1])
    target.sync(ids)
    today = target.query(
        "SELECT * FROM anam_reporting.personas WHERE removed_at IS NULL ORDER BY persona_id"
    )
    for moment in (target.now(), "infinity"):
        past = as_of(target, moment)
        assert len(past) == 5
        for was, now in zip(past, today, strict=True):
            assert without(was, "observed_until", *NOT_KEPT, *OBSERVED) == without(
                now, *NOT_KEPT, *OBSERVED
            )
            assert [was[name] for name in (*NOT_KEPT, "removed_at")] == [None] * 5
            version = target.versions(was["persona_id"])[-1]
            assert was["updated_at"] == version["source_updated_at"]


def test_a_version_holds_from_its_first_moment_until_the_next(target):
    ids = target.world.persona_ids
    (first,) = target.versions(ids[0])
    old = target.persona(ids[0])["name"]
    target.world.edit(ids[0], {"name": "Edited"})
    target.sync(ids)
    _, second = target.versions(ids[0])
    assert as_of(target, first["valid_from"] - TICK, persona_id=UUID(ids[0])) == []
    for moment, name, version in (
        (first["valid_from"], old, first),
        (second["valid_from"] - TICK, old, first),
        (second["valid_from"], "Edited", second),
        (second["valid_from"] + TICK, "Edited", second),
    ):
        row = one(target, moment, ids[0])
        assert (row["name"], row["last_changed_at"]) == (name, version["valid_from"])
        assert row["first_seen_at"] == first["valid_from"]


def test_before_the_first_sighting_and_while_removed_there_is_no_persona(target):
    gone, *_ = ids = target.world.persona_ids
    target.world.delete(gone)
    target.sync(ids)
    target.world.restore(gone)
    target.sync(ids)
    created, removed, restored = target.versions(gone)
    wanted = {"persona_id": UUID(gone)}
    assert as_of(target, created["valid_from"] - TICK, **wanted) == []
    assert as_of(target, removed["valid_from"] - TICK, **wanted) != []
    assert as_of(target, removed["valid_from"], **wanted) == []
    assert as_of(target, restored["valid_from"] - TICK, **wanted) == []
    back = one(target, restored["valid_from"], gone)
    assert back["removed_at"] is None
    assert back["first_seen_at"] == created["valid_from"]
    # Who was there all the time was there then, too.
    assert len(as_of(target, removed["valid_from"])) == 5


@pytest.mark.parametrize("moment", [None, "-infinity", "0001-01-01"])
def test_before_all_times_there_is_nobody(target, moment):
    assert as_of(target, moment) == []


def test_a_persona_has_the_avatar_and_the_voice_of_that_moment(target):
    persona_id = next(
        str(row["persona_id"])
        for row in target.rows("personas")
        if row["avatar_id"] and row["voice_id"]
    )
    ids = target.world.persona_ids
    row = target.persona(persona_id)
    before = one(target, target.now(), persona_id)
    assert all(before[name] for name in ("avatar_name", "voice_name", "voice_provider"))
    target.world.edit(str(row["avatar_id"]), {"displayName": "Another face"}, "avatars")
    target.sync(ids)
    target.world.edit(str(row["voice_id"]), {"displayName": "Other", "provider": "NEW"}, "voices")
    target.sync(ids)
    face = target.versions(row["avatar_id"])[-1]["valid_from"]
    voice = target.versions(row["voice_id"])[-1]["valid_from"]
    assert len(target.versions(persona_id)) == 1
    shown = ("avatar_name", "voice_name", "voice_provider")
    kept = [before[name] for name in shown]
    for moment, expected in (
        (face - TICK, kept),
        (face, ["Another face", *kept[1:]]),
        (voice - TICK, ["Another face", *kept[1:]]),
        (voice, ["Another face", "Other", "NEW"]),
        ("infinity", ["Another face", "Other", "NEW"]),
    ):
        found = one(target, moment, persona_id)
        assert [found[name] for name in shown] == expected
    # Without either there is nothing to be named, nor to be sure of.
    target.world.edit(persona_id, {"avatar": None, "voice": None})
    target.sync(ids)
    found = one(target, "infinity", persona_id)
    assert [found[name] for name in shown] == [None] * 3
    assert found["observed_until"] == found["last_observed_at"]


def test_it_says_until_when_all_of_a_row_was_seen_to_be_so(target):
    ids = target.world.persona_ids
    persona_id = next(str(r["persona_id"]) for r in target.rows("personas") if r["avatar_id"])
    avatar_id = target.persona(persona_id)["avatar_id"]
    target.sync(ids)
    confirmed = target.state(persona_id)["last_success_at"]
    open_row = one(target, "infinity", persona_id)
    assert open_row["last_observed_at"] == open_row["observed_until"] == confirmed

    target.world.edit(str(avatar_id), {"displayName": "Another face"}, "avatars")
    target.sync(ids)
    old, new = target.versions(avatar_id)
    # The persona is as before and was seen since; the face was last seen before it changed.
    found = one(target, old["valid_to"] - TICK, persona_id)
    assert found["last_observed_at"] > new["valid_from"] - timedelta(seconds=1)
    assert found["observed_until"] == old["last_observed_at"] < new["valid_from"]
    assert one(target, "infinity", persona_id)["observed_until"] >= new["valid_from"]


def test_at_every_moment_it_says_what_the_histories_say(target):
    """Told again in Python, at each boundary and a moment before and after."""
    ids = target.world.persona_ids
    for number, persona_id in enumerate(ids):
        target.world.edit(persona_id, {"name": f"Edited {number}"})
        if number % 2:
            target.world.delete(persona_id)
        for kind in ("avatars", "voices"):
            for entity_id in target.world.shared_ids(kind)[:number]:
                target.world.edit(entity_id, {"displayName": f"Edited {number}"}, kind)
        target.sync(ids)
    target.world.restore(ids[1])
    target.sync(ids)
    told = {kind: history(target, kind) for kind in ("persona", "avatar", "voice")}
    boundaries = {row["valid_from"] for rows in told.values() for row in rows}
    assert len(boundaries) > 20
    for moment in sorted(b + d for b in boundaries for d in (-TICK, timedelta(0), TICK)):
        expected = list(expected_at(moment, told))
        found = as_of(target, moment)
        assert [{name: row[name] for name in expected[0]} for row in found] == expected or (
            not found and not expected
        )


def expected_at(moment: datetime, told: dict[str, list[Row]]) -> Iterable[Row]:
    current = {
        kind: {
            row[f"{kind}_id"]: row
            for row in rows
            if row["valid_from"] <= moment < (row["valid_to"] or datetime.max.replace(tzinfo=UTC))
        }
        for kind, rows in told.items()
    }
    for persona_id, row in sorted(current["persona"].items()):
        if row["change"] == "removed":
            continue
        avatar = current["avatar"].get(row["avatar_id"])
        voice = current["voice"].get(row["voice_id"])
        yield {
            "persona_id": persona_id,
            "name": row["name"],
            "system_prompt": row["system_prompt"],
            "avatar_name": avatar and avatar["display_name"],
            "voice_name": voice and voice["display_name"],
            "last_observed_at": row["last_observed_at"],
            "observed_until": min(r["last_observed_at"] for r in (row, avatar, voice) if r),
        }


def test_the_function_is_told_about_in_the_database(target):
    query = """
        SELECT obj_description(oid, 'pg_proc') AS told, prosecdef, proisstrict, proconfig,
               provolatile::text FROM pg_proc
        WHERE pronamespace = 'anam_reporting'::regnamespace AND proname = 'personas_as_of'
    """
    (found,) = target.query(query)
    assert found["told"].startswith(personas_as_of(SHIPPED).comment)
    # Otherwise it would not be put into the query that calls it.
    plain = {"prosecdef": False, "proisstrict": False, "proconfig": None, "provolatile": "s"}
    assert found.items() >= plain.items()
