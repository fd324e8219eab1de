"""The made-up world: repeatable, documented in shape, and with everything in use somewhere."""

from __future__ import annotations

import json
import re
import unicodedata
import uuid
from collections import Counter
from typing import Any

import pytest

from etl.sandbox import World, generate

# Copied by hand from the API's reference, so that the generator can't define its own truth.
DOCUMENTED = {
    "persona": """id name description personaPreset avatar avatarModel voice voiceSpeed llmId brain
        tools knowledge shareLinks primaryShareLink enableAudioPassthrough skipGreeting
        zeroDataRetention voiceDetectionOptions voiceGenerationOptions widgetConfig createdAt
        updatedAt""",
    "brain": "personality systemPrompt",
    "primaryShareLink": "token enabled",
    "avatar": """id displayName variantName imageUrl videoUrl createdAt updatedAt
        createdByOrganizationId availableVersions activeVersion""",
    "voice": """id displayName provider providerVoiceId providerModelId sampleUrl previewSampleUrl
        gender country description displayTags isZdr createdByOrganizationId createdAt updatedAt""",
    "tools": "id name description type config createdAt updatedAt usageCount",
    "knowledge": "id name description documentCount createdAt updatedAt",
    "shareLinks": """id token type expiresAt usageLimit usageCount allowedOrigins allowAllOrigins
        removeWatermark enabled isPrimary createdAt""",
    "voiceDetectionOptions": """endOfSpeechSensitivity silenceBeforeSkipTurnSeconds
        silenceBeforeSessionEndSeconds silenceBeforeAutoEndTurnSeconds speechEnhancementLevel""",
}
GENERATION_OPTIONS = {
    "ELEVENLABS": {"stability", "similarityBoost", "speed", "style", "useSpeakerBoost", "model"},
    "CARTESIA": {"volume", "speed", "emotion"},
}
NULLABLE = {
    "persona": """description avatar avatarModel voice voiceSpeed llmId shareLinks primaryShareLink
        voiceDetectionOptions voiceGenerationOptions""",
    "brain": "personality systemPrompt",
    "avatar": "videoUrl createdByOrganizationId activeVersion",
    "voice": """providerModelId sampleUrl previewSampleUrl gender country description
        createdByOrganizationId""",
    "tools": "updatedAt",
    "knowledge": "description updatedAt",
    "shareLinks": "expiresAt usageLimit",
}
TIMESTAMP = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def payloads_of(world: World) -> list[dict[str, Any]]:
    world.moving = False
    return [world.payload(id_) for id_ in world.persona_ids]


def objects(payloads: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    if kind == "persona":
        return payloads
    found = []
    for payload in payloads:
        value = payload[kind]
        found += value if isinstance(value, list) else [value] if value else []
    return found


@pytest.fixture(scope="module")
def payloads():
    return payloads_of(generate(300, seed=1))


def test_the_same_seed_makes_the_same_bytes():
    first, second = generate(40, seed=7), generate(40, seed=7)
    assert [first.body(id_) for id_ in first.persona_ids] == [
        second.body(id_) for id_ in second.persona_ids
    ]


def test_another_seed_makes_other_personas():
    assert not set(generate(40, seed=7).persona_ids) & set(generate(40, seed=8).persona_ids)


def test_the_bytes_of_a_seed_stay_what_they_were_between_processes():
    # A set or a hash that depended on the process would move this id.
    assert generate(1, seed=1).persona_ids == ["948b82b1-d910-4dd7-a215-f679e38a59aa"]


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_each_object_has_exactly_the_documented_fields(payloads, kind):
    assert {tuple(thing) for thing in objects(payloads, kind)} == {tuple(DOCUMENTED[kind].split())}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_world_of_the_commands_default_size_fills_every_documented_field_somewhere(seed):
    payloads = payloads_of(generate(50, seed))
    for kind, fields in DOCUMENTED.items():
        for field in fields.split():
            values = [thing[field] for thing in objects(payloads, kind)]
            assert any(value not in (None, "", [], {}) for value in values), (kind, field)


@pytest.mark.parametrize("kind", NULLABLE)
def test_every_field_that_may_be_null_is_null_somewhere_and_no_other(payloads, kind):
    null = {
        field
        for thing in objects(payloads, kind)
        for field, value in thing.items()
        if value is None
    }
    assert null == set(NULLABLE[kind].split())


def test_generation_options_are_those_of_the_voices_provider(payloads):
    seen: dict[str, set[str]] = {}
    for payload in payloads:
        if options := payload["voiceGenerationOptions"]:
            seen.setdefault(payload["voice"]["provider"], set()).update(options)
    assert seen["ELEVENLABS"] == GENERATION_OPTIONS["ELEVENLABS"]
    assert seen["CARTESIA"] == GENERATION_OPTIONS["CARTESIA"]
    assert len(seen) > 2


def test_every_type_of_tool_and_share_link_occurs(payloads):
    assert {tool["type"] for tool in objects(payloads, "tools")} == {
        "CLIENT",
        "SERVER_RAG",
        "SERVER_WEBHOOK",
        "SYSTEM",
    }
    assert {link["type"] for link in objects(payloads, "shareLinks")} == {
        "LINK",
        "PLAYER_EMBED",
        "ORB_EMBED",
    }


def test_webhooks_carry_credentials_and_every_tool_has_parameters(payloads):
    for tool in objects(payloads, "tools"):
        assert tool["config"]["parameters"]["type"] == "object"
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", tool["name"])
        if tool["type"] == "SERVER_WEBHOOK":
            assert tool["config"]["headers"]["Authorization"].startswith("Bearer ")
            assert tool["config"]["method"] in {"GET", "POST", "PUT"}
            assert "?token=" in tool["config"]["url"]


def test_the_primary_share_link_is_one_of_the_share_links(payloads):
    for payload in payloads:
        primary = [link for link in payload["shareLinks"] or [] if link["isPrimary"]]
        if payload["primaryShareLink"] is None:
            assert not primary
        else:
            assert [link["token"] for link in primary] == [payload["primaryShareLink"]["token"]]


def test_avatars_are_shared_and_a_few_are_used_by_many(payloads):
    users = Counter(payload["avatar"]["id"] for payload in payloads if payload["avatar"])
    assert len(users) <= len(payloads) / 4
    assert users.most_common(1)[0][1] > 4 * sorted(users.values())[len(users) // 2]


def test_legacy_llm_names_organisation_uuids_and_nanoids_occur(payloads):
    assert "CUSTOMER_CLIENT_V1" in {payload["llmId"] for payload in payloads}
    owners = {avatar["createdByOrganizationId"] for avatar in objects(payloads, "avatar")} - {None}
    assert {len(owner) for owner in owners} == {21, 36}


def test_ids_and_times_have_the_documented_form(payloads):
    for kind in ("persona", "avatar", "voice", "tools", "knowledge", "shareLinks"):
        for thing in objects(payloads, kind):
            assert str(uuid.UUID(thing["id"])) == thing["id"]
            assert TIMESTAMP.fullmatch(thing["createdAt"])
            updated = thing.get("updatedAt")
            assert updated is None or thing["createdAt"] <= updated < "2026-05-01"
            assert updated is None or TIMESTAMP.fullmatch(updated)


def test_names_and_prompts_mix_scripts_directions_emoji_and_combining_marks(payloads):
    for texts in (
        [payload["name"] for payload in payloads],
        [payload["brain"]["systemPrompt"] or "" for payload in payloads],
    ):
        letters = set("".join(texts))
        scripts = {unicodedata.name(char, "?").split()[0] for char in letters}
        assert {"LATIN", "GREEK", "CYRILLIC", "HEBREW", "ARABIC", "DEVANAGARI", "HANGUL"} <= scripts
        assert {unicodedata.category(char) for char in letters} >= {"Mn", "So", "Sk", "Cf"}
        assert max(letters) > "\uffff"


def test_prompts_are_mostly_half_a_kilobyte_to_three_with_some_much_longer(payloads):
    sizes = sorted(len((payload["brain"]["systemPrompt"] or "").encode()) for payload in payloads)
    usual = [size for size in sizes if 500 <= size <= 4000]
    assert len(usual) > 0.7 * len(sizes)
    assert 5_000 < sizes[-1] < 11_000
    assert any("\n" not in (p["brain"]["systemPrompt"] or "\n") for p in payloads)


def test_a_small_world_has_whole_personas():
    (payload,) = payloads_of(generate(1, seed=1))
    assert payload["avatar"]
    assert payload["voice"]
    assert payload["brain"]["systemPrompt"]


def test_a_payload_is_strict_json(payloads):
    assert json.loads(json.dumps(payloads, allow_nan=False)) == payloads
