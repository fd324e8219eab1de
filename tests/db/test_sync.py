"""A sync copies what the API says, and a second one finds nothing to write."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from etl.payload.clean import BLANK
from etl.sandbox import generate
from etl.tables import metadata
from tests.unit.test_tables import of_the_contract

Json = dict[str, Any]
Rows = list[Json]

# Columns that history fills, and those that hold what the documented payload does not have.
HISTORY = {"first_seen_at", "last_changed_at", "removed_at", "extra"}

# Tables of shared things, and the one that holds the things themselves.
ENTITIES = {
    "avatars": "avatars",
    "avatar_available_versions": "avatars",
    "voices": "voices",
    "voice_display_tags": "voices",
    "tools": "tools",
    "knowledge_groups": "knowledge_groups",
}

DETECTION = {
    "endOfSpeechSensitivity": 0.5,
    "silenceBeforeSkipTurnSeconds": 0,
    "silenceBeforeSessionEndSeconds": 7200,
    "silenceBeforeAutoEndTurnSeconds": 0.5,
    "speechEnhancementLevel": 1,
}


def time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def without_secrets(config: Json) -> Json:
    """A tool's config: the webhook's query and the values of its headers are secrets."""
    if "url" not in config:
        return config
    return config | {
        "url": config["url"].partition("?")[0],
        "headers": dict.fromkeys(config["headers"], BLANK),
    }


def expected_of_persona(payload: Json) -> dict[str, Rows]:
    """What the tables must say of a persona, member by member, written out."""
    persona_id = UUID(payload["id"])
    primary = payload["primaryShareLink"] or {}
    detection = payload["voiceDetectionOptions"]
    generation = payload["voiceGenerationOptions"]
    links = payload["shareLinks"] or []
    return {
        "personas": [
            {
                "persona_id": persona_id,
                "name": payload["name"],
                "description": payload["description"],
                "persona_preset": payload["personaPreset"],
                "avatar_id": UUID(payload["avatar"]["id"]) if payload["avatar"] else None,
                "avatar_model": payload["avatarModel"],
                "voice_id": UUID(payload["voice"]["id"]) if payload["voice"] else None,
                "voice_speed": payload["voiceSpeed"],
                "llm_id": payload["llmId"],
                "primary_share_link_token_sha256": sha256(primary["token"]) if primary else None,
                "primary_share_link_enabled": primary.get("enabled"),
                "enable_audio_passthrough": payload["enableAudioPassthrough"],
                "skip_greeting": payload["skipGreeting"],
                "zero_data_retention": payload["zeroDataRetention"],
                "widget_config": payload["widgetConfig"],
                "created_at": time(payload["createdAt"]),
                "updated_at": time(payload["updatedAt"]),
            }
        ],
        "brains": [
            {
                "persona_id": persona_id,
                "personality": payload["brain"]["personality"],
                "system_prompt": payload["brain"]["systemPrompt"],
            }
        ],
        "persona_tools": [
            {"persona_id": persona_id, "tool_id": UUID(tool["id"]), "position": place}
            for place, tool in enumerate(payload["tools"])
        ],
        "persona_knowledge_groups": [
            {"persona_id": persona_id, "knowledge_group_id": UUID(group["id"]), "position": place}
            for place, group in enumerate(payload["knowledge"])
        ],
        "share_links": [
            {
                "share_link_id": UUID(link["id"]),
                "persona_id": persona_id,
                "token_sha256": sha256(link["token"]),
                "type": link["type"],
                "expires_at": time(link["expiresAt"]),
                "usage_limit": link["usageLimit"],
                "usage_count": link["usageCount"],
                "allow_all_origins": link["allowAllOrigins"],
                "remove_watermark": link["removeWatermark"],
                "enabled": link["enabled"],
                "is_primary": link["isPrimary"],
                "created_at": time(link["createdAt"]),
            }
            for link in links
        ],
        "share_link_allowed_origins": [
            {"share_link_id": UUID(link["id"]), "origin": origin, "position": place}
            for link in links
            for place, origin in enumerate(link["allowedOrigins"])
        ],
        "voice_detection_options": [
            {
                "persona_id": persona_id,
                "end_of_speech_sensitivity": detection["endOfSpeechSensitivity"],
                "silence_before_skip_turn_seconds": detection["silenceBeforeSkipTurnSeconds"],
                "silence_before_session_end_seconds": detection["silenceBeforeSessionEndSeconds"],
                "silence_before_auto_end_turn_seconds": detection[
                    "silenceBeforeAutoEndTurnSeconds"
                ],
                "speech_enhancement_level": detection["speechEnhancementLevel"],
            }
        ]
        if detection
        else [],
        "voice_generation_options": [
            {
                "persona_id": persona_id,
                "stability": generation.get("stability"),
                "similarity_boost": generation.get("similarityBoost"),
                "style": generation.get("style"),
                "use_speaker_boost": generation.get("useSpeakerBoost"),
                "model": generation.get("model"),
                "speed": generation.get("speed"),
                "volume": generation.get("volume"),
                "emotion": generation.get("emotion"),
            }
        ]
        if generation
        else [],
    }


def expected_of_shared(payload: Json) -> dict[str, Rows]:
    """What the tables must say of the shared things that a persona's payload embeds."""
    avatars = [payload["avatar"]] if payload["avatar"] else []
    voices = [payload["voice"]] if payload["voice"] else []
    return {
        "avatars": [
            {
                "avatar_id": UUID(avatar["id"]),
                "display_name": avatar["displayName"],
                "variant_name": avatar["variantName"],
                "image_url": avatar["imageUrl"],
                "video_url": avatar["videoUrl"] and avatar["videoUrl"].partition("?")[0],
                "active_version": avatar["activeVersion"],
                "created_by_organization_id": avatar["createdByOrganizationId"],
                "created_at": time(avatar["createdAt"]),
                "updated_at": time(avatar["updatedAt"]),
            }
            for avatar in avatars
        ],
        "avatar_available_versions": [
            {"avatar_id": UUID(avatar["id"]), "version": version, "position": place}
            for avatar in avatars
            for place, version in enumerate(avatar["availableVersions"])
        ],
        "voices": [
            {
                "voice_id": UUID(voice["id"]),
                "display_name": voice["displayName"],
                "provider": voice["provider"],
                "provider_voice_id": voice["providerVoiceId"],
                "provider_model_id": voice["providerModelId"],
                "sample_url": voice["sampleUrl"],
                "preview_sample_url": voice["previewSampleUrl"],
                "gender": voice["gender"],
                "country": voice["country"],
                "description": voice["description"],
                "is_zdr": voice["isZdr"],
                "created_by_organization_id": voice["createdByOrganizationId"],
                "created_at": time(voice["createdAt"]),
                "updated_at": time(voice["updatedAt"]),
            }
            for voice in voices
        ],
        "voice_display_tags": [
            {"voice_id": UUID(voice["id"]), "tag": tag, "position": place}
            for voice in voices
            for place, tag in enumerate(voice["displayTags"])
        ],
        "tools": [
            {
                "tool_id": UUID(tool["id"]),
                "name": tool["name"],
                "description": tool["description"],
                "type": tool["type"],
                "config": without_secrets(tool["config"]),
                "usage_count": tool["usageCount"],
                "created_at": time(tool["createdAt"]),
                "updated_at": time(tool["updatedAt"]),
            }
            for tool in payload["tools"]
        ],
        "knowledge_groups": [
            {
                "knowledge_group_id": UUID(group["id"]),
                "name": group["name"],
                "description": group["description"],
                "document_count": group["documentCount"],
                "created_at": time(group["createdAt"]),
                "updated_at": time(group["updatedAt"]),
            }
            for group in payload["knowledge"]
        ],
    }


def expected(payloads: list[Json]) -> dict[str, Rows]:
    """The normalized tables, each row once, in the order of their keys."""
    tables: dict[str, dict[tuple[Any, ...], Json]] = {}
    for payload in payloads:
        for name, rows in (expected_of_persona(payload) | expected_of_shared(payload)).items():
            keys = [c.name for c in metadata.tables[name].primary_key.columns]
            for row in rows:
                tables.setdefault(name, {})[tuple(row[key] for key in keys)] = row
    return {name: [rows[key] for key in sorted(rows)] for name, rows in tables.items()}


def copied(target, name: str) -> Rows:
    """A table as it is, without what history fills and fields that the contract doesn't name."""
    of_payloads = of_the_contract(name) - HISTORY
    keys = [c.name for c in metadata.tables[name].primary_key.columns]
    rows = [{k: v for k, v in row.items() if k in of_payloads} for row in target.rows(name)]
    # Sorted here as above: Postgres' collation is its own.
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


@pytest.mark.parametrize("seed", range(3))
def test_every_table_says_what_the_payloads_say(copying, seed):
    with copying(count=40, seed=seed) as target:
        summary = target.sync()
        assert summary.counts["created"] == summary.counts["requested"] == 40
        wanted = expected([target.world.payload(i) for i in target.world.persona_ids])
        assert len(wanted) == 14
        for name, rows in wanted.items():
            assert rows, f"the world has nothing for {name}"
            assert copied(target, name) == rows


def test_every_table_says_it_again_after_edits_of_everything(copying):
    with copying(count=12, seed=4) as target:
        target.sync()
        world = target.world
        for number, persona_id in enumerate(world.persona_ids):
            payload = world.payload(persona_id)
            links = (payload["shareLinks"] or [])[1:]
            world.edit(
                persona_id,
                {
                    "name": f"renamed {number}",
                    "tools": [tool["id"] for tool in payload["tools"]][::-1][:2],
                    "knowledge": world.shared_ids("knowledge")[: number % 3],
                    "shareLinks": [
                        link | {"allowedOrigins": ["https://new.example", *link["allowedOrigins"]]}
                        for link in links
                    ],
                    "voice": world.shared_ids("voices")[number % 3] if number % 4 else None,
                    "avatar": world.shared_ids("avatars")[number % 4] if number % 5 else None,
                    "voiceDetectionOptions": None if number % 2 else DETECTION,
                },
            )
        world.edit(
            world.shared_ids("avatars")[0],
            {"availableVersions": ["v9"], "activeVersion": "v9"},
            "avatars",
        )
        world.edit(world.shared_ids("voices")[1], {"displayTags": ["slow", "new"]}, "voices")
        target.sync()
        wanted = expected([world.payload(persona_id) for persona_id in world.persona_ids])
        for name, rows in wanted.items():
            key, kind = (
                next(iter(metadata.tables[name].primary_key.columns)).name,
                ENTITIES.get(name),
            )
            # What no persona refers to any more keeps its row.
            in_use = {row[key] for row in wanted[kind]} if kind else set()
            found = [row for row in copied(target, name) if not kind or row[key] in in_use]
            assert found == rows, name


def test_the_documented_sample_is_copied(copying, documented_payload):
    with copying(generate(1, seed=1)) as target:
        target.world.set_payload(documented_payload["id"], documented_payload)
        target.sync([documented_payload["id"]])
        for name, rows in expected([documented_payload]).items():
            assert copied(target, name) == rows
        assert target.persona(documented_payload["id"])["extra"] is None
        assert target.rows("value_issues") == target.rows("drift_paths") == []


@pytest.fixture
def documented_payload(request):
    return json.loads((request.config.rootpath / "tests/payloads/documented.json").read_text())


def test_history_begins_with_the_first_sync(target):
    for name, kind in (("personas", "persona"), ("avatars", "avatar"), ("voices", "voice")):
        for row in target.rows(name):
            (version,) = target.versions(row[f"{kind}_id"])
            assert version["change"] == "created"
            assert version["valid_to"] is None
            assert version["changed_paths"] == []
            assert row["first_seen_at"] == row["last_changed_at"] == version["valid_from"]
            assert version["run_id"] == target.reports[0].run_id
    run = target.reports[0]
    times = [row["observed_at"] for row in target.rows("observations")]
    assert run.started_at < min(times) <= max(times) < run.finished_at


def test_a_second_sync_writes_nothing_but_the_ledger(target):
    before, stamps = target.dump(), target.stamps()
    summary = target.sync()
    assert summary.counts["unchanged"] == 6
    after = target.dump()
    for name in before.keys() - {"runs", "persona_sync_state"}:
        assert after[name] == before[name], name
        assert target.stamps()[name] == stamps[name], name
    assert len(after["runs"]) == len(before["runs"]) + 1
    for old, new in zip(before["persona_sync_state"], after["persona_sync_state"], strict=True):
        moved = {"last_attempt_at", "last_success_at", "last_outcome", "last_run_id"}
        assert {k for k in new if old[k] != new[k]} == moved
        assert (old["last_outcome"], new["last_outcome"]) == ("created", "unchanged")
        assert new["last_success_at"] > old["last_success_at"]


def test_a_release_that_cleans_otherwise_reads_each_body_once_more(target, monkeypatch):
    # A brain as an older release left it, with what is taken out today.
    persona_id = target.world.persona_ids[0]
    monkeypatch.setattr("etl.jobs.reading.RULES", b"later")
    target.query(
        "UPDATE persona_sync_state SET content_sha256 = '' WHERE persona_id = %s", [persona_id]
    )
    before = target.rows("persona_sync_state")
    assert target.sync().counts["unchanged"] == 6
    after = target.rows("persona_sync_state")
    assert {row["body_sha256"] for row in before}.isdisjoint(row["body_sha256"] for row in after)
    assert target.state(persona_id)["content_sha256"] != b""


def test_moving_signatures_counters_and_key_order_change_only_observed_columns(copying):
    with copying(count=12, moving=True, shuffle_keys=True) as target:
        target.sync()
        before, stamps = target.dump(), target.stamps()
        summary = target.sync()
        assert summary.counts["unchanged"] == 12
        after, again = target.dump(), target.stamps()
        observed = {
            "share_links": "usage_count",
            "tools": "usage_count",
            "knowledge_groups": "document_count",
        }
        for name in before.keys() - {"runs", "persona_sync_state", *observed}:
            assert after[name] == before[name], name
            assert again[name] == stamps[name], name
        for name, counter in observed.items():
            assert len(before[name]) == len(after[name]) > 0
            for old, new in zip(before[name], after[name], strict=True):
                assert new[counter] > old[counter]
                assert new | {counter: 0} == old | {counter: 0}


def test_an_empty_version_of_everything_is_a_persona_too(copying):
    with copying(generate(1, seed=1)) as target:
        bare = "00000000-0000-4000-8000-000000000001"
        target.world.set_payload(bare, {"id": bare})
        assert target.sync([bare]).counts["created"] == 1
        row = target.persona(bare)
        history = {"persona_id", "first_seen_at", "last_changed_at"}
        assert {name for name, value in row.items() if value is not None} == history
        brain = target.row("brains", persona_id=UUID(bare))
        assert (brain["personality"], brain["system_prompt"]) == (None, None)
        assert target.rows("value_issues") == []


# What a batch holds is counted here, not there.
@pytest.mark.one_server
def test_more_personas_than_fit_a_batch_are_copied(copying):
    with copying(count=300) as target:
        assert target.sync(API__CONCURRENCY="32").counts["created"] == 300
        assert target.sync(API__CONCURRENCY="32").counts["unchanged"] == 300
        assert len(target.rows("personas")) == 300
