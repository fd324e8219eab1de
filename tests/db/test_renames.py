"""A field that vanished as another came, out of what was really served."""

from __future__ import annotations

import pytest

from etl.map import SHIPPED, Line, extended
from etl.proposal.model import Rename
from etl.sandbox.reshape import Reshape
from etl.store.engine import make_engine
from etl.store.renames import renamed

# What was renamed is decided here, not there: other files send the same statements.
pytestmark = pytest.mark.one_server

MOODY = extended((Line("persona", '["odd key"]', "personas", "odd_key", "text", (), "It."),))


@pytest.fixture
def find(target):
    """What asks for a rename in what was copied."""

    def ask(path, kind="persona", the_map=SHIPPED):
        engine = make_engine(target.url, target.schema)
        with engine.connect() as connection:
            return renamed(connection, kind, path, the_map)

    return ask


@pytest.fixture
def served(target):
    """What serves another shape from now on, and copies it."""

    def serve(shape):
        target.world.reshape(shape)
        target.sync()

    return serve


def test_a_renamed_field_is_recognized_by_its_values(target, find, served):
    served(Reshape(rename={"voiceSpeed": "speechRate", "brain.systemPrompt": "instructions"}))
    assert find("speechRate") == Rename("voiceSpeed", "personas", "voice_speed", 6, 6)
    found = find("brain.instructions")
    assert found == Rename("brain.systemPrompt", "brains", "system_prompt", 6, 6)
    assert find("mood") is None


def test_a_field_that_moved_into_another_object_is_recognized(target, find, served):
    def moved(payload):
        payload["personality"] = payload["brain"].pop("personality")
        return payload

    for number, id_ in enumerate(target.world.persona_ids):
        target.world.edit(id_, {"brain": {"personality": f"of sort {number}"}})
    target.sync()
    served(moved)
    assert find("personality") == Rename("brain.personality", "brains", "personality", 6, 6)


def test_one_of_shared_things_and_one_of_tags_is_recognized(target, find, served):
    served(Reshape(rename={"voice.displayTags": "labels", "avatar.variantName": "look"}))
    voices = len(target.rows("voices"))
    found = find("labels[]", kind="voice")
    assert (found.path, found.table, found.column) == ("displayTags", "voice_display_tags", "tag")
    assert found.seen == found.equal <= voices
    assert find("look", kind="avatar").path == "variantName"
    assert find("look", kind="voice") is None


@pytest.mark.every_server
def test_one_of_share_links_is_recognized_element_by_element(target, find, served):
    id_ = target.world.persona_ids[0]
    links = [
        {
            "id": f"00000000-0000-4000-8000-00000000000{n}",
            "type": "LINK",
            "usageLimit": n,
            "name": f"v{n}",
        }
        for n in range(3)
    ]
    target.world.edit(id_, {"shareLinks": links})
    target.sync()
    served(Reshape(rename={"shareLinks.usageLimit": "maxUses"}))
    found = find("shareLinks[].maxUses")
    assert (found.path, found.table, found.column) == (
        *("shareLinks[].usageLimit", "share_links", "usage_limit"),
    )
    assert found.seen == found.equal >= 3


def test_odd_names_are_but_names(target, find, served):
    odd = "'; DROP TABLE personas; --%s:x\"]"
    served(Reshape(rename={"voiceSpeed": odd}))
    path = '["\'; DROP TABLE personas; --%s:x\\"]"]'
    assert find(path).path == "voiceSpeed"
    target.world.reshape(Reshape(rename={"voiceSpeed": "odd key"}))
    target.sync()
    served(None)
    assert find("voiceSpeed", the_map=MOODY).path == '["odd key"]'


def test_other_values_are_no_rename(target, find, served):
    for number, id_ in enumerate(target.world.persona_ids):
        target.world.edit(id_, {"voiceSpeed": 1 + number / 10})
    target.sync()
    served(Reshape(remove=["voiceSpeed"], add={"speechRate": 1}))
    assert find("speechRate") is None


def test_nulls_alone_are_no_rename(target, find, served):
    for id_ in target.world.persona_ids:
        target.world.edit(id_, {"llmId": None})
    target.sync()
    served(Reshape(remove=["llmId"], add={"modelId": None}))
    assert find("modelId") is None


def test_a_few_that_were_edited_at_once_are_no_reason_against_it(target, find, served):
    ids = [target.world.add({"name": f"p{n}", "voiceSpeed": 1 + n / 20}) for n in range(14)]
    target.sync()
    target.world.edit(ids[0], {"voiceSpeed": 9})
    target.world.reshape(Reshape(rename={"voiceSpeed": "speechRate"}))
    target.sync()
    assert find("speechRate") == Rename("voiceSpeed", "personas", "voice_speed", 20, 19)
    target.query(
        "UPDATE documents SET document = document || '{\"speechRate\": 8}'"
        " WHERE document ? 'speechRate' AND entity_id = ANY (%s)",
        [target.uuids(ids[:3])],
    )
    target.is_corrupted = True
    assert find("speechRate") is None


def test_of_two_that_vanished_the_one_with_the_likelier_values_is_told(target, find, served):
    for number, id_ in enumerate(target.world.persona_ids):
        target.world.edit(id_, {"skipGreeting": True, "zeroDataRetention": bool(number % 2)})
    target.sync()

    def shape(payload):
        payload["quiet"] = payload.pop("skipGreeting")
        payload["noRetention"] = payload.pop("zeroDataRetention")
        payload["oneMore"] = True
        return payload

    served(shape)
    assert find("noRetention").path == "zeroDataRetention"
    assert find("quiet").path == "skipGreeting"


def test_the_more_values_are_equal_the_likelier_whatever_the_names(target, find, served):
    for _ in range(5):
        target.world.add({"name": "another"})
    for number, id_ in enumerate(target.world.persona_ids):
        target.world.edit(id_, {"skipGreeting": True, "zeroDataRetention": number > 0})
    target.sync()

    def shape(payload):
        payload["zeroDataRetention2"] = payload.pop("skipGreeting")
        del payload["zeroDataRetention"]
        return payload

    served(shape)
    assert find("zeroDataRetention2").path == "skipGreeting"


def test_one_that_is_still_sent_is_no_rename(target, find, served):
    def shape(payload):
        payload["speechRate"] = payload["voiceSpeed"]
        payload["voiceSpeed"] = 7
        return payload

    served(shape)
    assert find("speechRate") is None


def test_one_that_came_alone_is_no_rename(target, find, served):
    served(Reshape(add={"mood": "happy"}))
    assert find("mood") is None


def test_a_few_flags_that_agree_by_chance_are_no_rename(copying, find):
    with copying(count=3) as few:
        for id_ in few.world.persona_ids:
            few.world.edit(id_, {"skipGreeting": False})
        few.sync()
        flags = dict.fromkeys(("recordSessions", "bargeIn", "isPinned"), False)
        few.world.reshape(Reshape(rename={"skipGreeting": "greetingSkipped"}, add=flags))
        few.sync()
        assert find("greetingSkipped").path == "skipGreeting"
        assert [find(flag) for flag in flags] == [None, None, None]
