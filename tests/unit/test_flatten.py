"""Documents become rows: each documented field in its column, the rest in `extra`, misfits said."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from etl.flatten import Flat, flatten
from etl.payload.clean import BLANK
from etl.payload.documents import take_apart
from etl.payload.plans import mapped_columns
from etl.tables import projections
from tests.unit.strategies import (
    DOCUMENTED,
    PERSONA_ID,
    read_payload,
)
from tests.unit.test_tables import of_the_contract

AN_ID = UUID("c0000000-0000-4000-8000-000000000001")


def rows_of(name: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of a payload file, without the columns that hold NULL or came after the contract."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for flat in flats_of(name).values():
        for table, found in flat.rows.items():
            named = of_the_contract(table)
            filled = [
                {k: v for k, v in row.items() if v is not None and k in named}
                for row in found
                if named
            ]
            rows.setdefault(table, []).extend(filled)
    return rows


def flats_of(name: str) -> dict[tuple[str, str], Flat]:
    """What each document of a payload file becomes, by kind and the end of its id."""
    payload = read_payload(name)
    return {
        (part.kind, str(part.entity_id)[-2:]): flatten(part.kind, part.entity_id, part.whole())
        for part in take_apart(payload, UUID(payload["id"])).parts()
    }


def issues_of(name: str) -> dict[str, str]:
    """The problems of a payload file by `kind: path`."""
    return {
        f"{kind}: {issue.path}": issue.problem
        for (kind, _), flat in flats_of(name).items()
        for issue in flat.issues
    }


def unknown(flat: Flat) -> set[tuple[str, str]]:
    """Path and JSON type of what the map does not know."""
    return {(f.path, f.json_type) for f in flat.findings if f.problem == "unknown"}


def day(month: int, date: int, year: int = 2026) -> datetime:
    return datetime(year, month, date, tzinfo=UTC)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


PERSONA = UUID("22222222-2222-4222-8222-222222222222")
AVATAR, VOICE, TOOL, OTHER_TOOL, GROUP, OTHER_GROUP, LINK, OTHER_LINK = (
    UUID(f"{letter}0000000-0000-4000-8000-00000000000{number}")
    for letter, number in ("a1", "b1", "c1", "c2", "d1", "d2", "e1", "e2")
)
EVERYTHING: dict[str, list[dict[str, Any]]] = {
    "personas": [
        {
            "persona_id": PERSONA,
            "name": "Concierge",
            "description": "Front desk of the Harbour Hotel",
            "persona_preset": "hospitality",
            "avatar_id": AVATAR,
            "avatar_model": "cara-3",
            "voice_id": VOICE,
            "voice_speed": 1.25,
            "llm_id": "a7cf662c-2ace-4de1-a21e-ef0fbf144bb7",
            "primary_share_link_token_sha256": sha256("share-token-one"),
            "primary_share_link_enabled": True,
            "enable_audio_passthrough": True,
            "skip_greeting": True,
            "zero_data_retention": True,
            "widget_config": {
                "theme": {"accent": "#0a7", "dark": True},
                "position": "bottom-right",
            },
            "created_at": day(1, 13),
            "updated_at": day(1, 14),
        }
    ],
    "brains": [
        {
            "persona_id": PERSONA,
            "personality": "Warm and brief.",
            "system_prompt": "You are the concierge of the Harbour Hotel.\n"
            "Never promise a late check-out.",
        }
    ],
    "avatars": [
        {
            "avatar_id": AVATAR,
            "display_name": "Liv",
            "variant_name": "home",
            "image_url": "https://lab.anam.example/persona_thumbnails/liv_home.png",
            "video_url": "https://cdn.anam.example/avatars/liv_home/idling_video.mp4",
            "active_version": "v2",
            "created_by_organization_id": "V1StGXR8_Z5jdHi6B-myT",
            "created_at": day(1, 1),
            "updated_at": day(1, 2),
        }
    ],
    "avatar_available_versions": [
        {"avatar_id": AVATAR, "version": "v1", "position": 0},
        {"avatar_id": AVATAR, "version": "v2", "position": 1},
        {"avatar_id": AVATAR, "version": "cara-4-3", "position": 2},
    ],
    "voices": [
        {
            "voice_id": VOICE,
            "display_name": "Lucy - Fresh & Casual",
            "provider": "ELEVENLABS",
            "provider_voice_id": "lcMyyd2HUfFzxdCaC4Ta",
            "provider_model_id": "eleven_flash_v2_5",
            "sample_url": "https://samples.anam.example/lucy.mp3",
            "preview_sample_url": "https://samples.anam.example/lucy-short.mp3",
            "gender": "FEMALE",
            "country": "GB",
            "description": "Energetic and youthful British voice.",
            "is_zdr": True,
            "created_by_organization_id": "0f0f0f0f-0000-4000-8000-000000000009",
            "created_at": day(1, 3),
            "updated_at": day(1, 4),
        }
    ],
    "voice_display_tags": [
        {"voice_id": VOICE, "tag": "fast", "position": 0},
        {"voice_id": VOICE, "tag": "warm", "position": 1},
    ],
    "tools": [
        {
            "tool_id": TOOL,
            "name": "book_table",
            "description": "Books a table in the restaurant.",
            "type": "SERVER_WEBHOOK",
            "config": {
                "url": "https://hooks.harbour.example/book",
                "method": "POST",
                "headers": {"Authorization": BLANK},
                "parameters": {"type": "object", "properties": {"guests": {"type": "integer"}}},
            },
            "usage_count": 3,
            "created_at": day(1, 5),
            "updated_at": day(1, 6),
        },
        {
            "tool_id": OTHER_TOOL,
            "name": "end_call",
            "description": "Ends the conversation.",
            "type": "SYSTEM",
            "config": {},
            "usage_count": 120,
            "created_at": day(1, 7),
        },
    ],
    "persona_tools": [
        {"persona_id": PERSONA, "tool_id": TOOL, "position": 0},
        {"persona_id": PERSONA, "tool_id": OTHER_TOOL, "position": 1},
    ],
    "knowledge_groups": [
        {
            "knowledge_group_id": GROUP,
            "name": "Menus",
            "description": "This season's menus",
            "document_count": 7,
            "created_at": day(1, 8),
            "updated_at": day(1, 9),
        },
        {
            "knowledge_group_id": OTHER_GROUP,
            "name": "House rules",
            "document_count": 1,
            "created_at": day(1, 10),
        },
    ],
    "persona_knowledge_groups": [
        {"persona_id": PERSONA, "knowledge_group_id": GROUP, "position": 0},
        {"persona_id": PERSONA, "knowledge_group_id": OTHER_GROUP, "position": 1},
    ],
    "share_links": [
        {
            "share_link_id": LINK,
            "persona_id": PERSONA,
            "token_sha256": sha256("share-token-one"),
            "type": "PLAYER_EMBED",
            "expires_at": day(1, 1, 2027),
            "usage_limit": 500,
            "usage_count": 17,
            "allow_all_origins": False,
            "remove_watermark": True,
            "enabled": True,
            "is_primary": True,
            "created_at": day(1, 11),
        },
        {
            "share_link_id": OTHER_LINK,
            "persona_id": PERSONA,
            "token_sha256": sha256("share-token-two"),
            "type": "LINK",
            "usage_count": 0,
            "allow_all_origins": True,
            "remove_watermark": False,
            "enabled": False,
            "is_primary": False,
            "created_at": day(1, 12),
        },
    ],
    "share_link_allowed_origins": [
        {"share_link_id": LINK, "origin": "https://harbour.example", "position": 0},
        {"share_link_id": LINK, "origin": "https://book.harbour.example", "position": 1},
    ],
    "voice_detection_options": [
        {
            "persona_id": PERSONA,
            "end_of_speech_sensitivity": 0.5,
            "silence_before_skip_turn_seconds": 30.0,
            "silence_before_session_end_seconds": 600.0,
            "silence_before_auto_end_turn_seconds": 2.5,
            "speech_enhancement_level": 0.75,
        }
    ],
    "voice_generation_options": [
        {
            "persona_id": PERSONA,
            "stability": 0.4,
            "similarity_boost": 0.8,
            "style": 0.1,
            "use_speaker_boost": True,
            "model": "eleven_multilingual_v2",
            "speed": 1.1,
            "volume": 1.5,
            "emotion": "calm",
        }
    ],
}


def test_the_everything_payload_has_every_documented_field():
    payload = read_payload("everything_in_use")
    objects: dict[str, list[Any]] = {
        "persona": [payload],
        "avatar": [payload["avatar"]],
        "voice": [payload["voice"]],
        "tool": payload["tools"],
        "knowledge_group": payload["knowledge"],
        "shareLink": payload["shareLinks"],
        **{name: [payload[name]] for name in DOCUMENTED if name in payload},
    }
    assert set(objects) == set(DOCUMENTED)
    for name, found in objects.items():
        for item in found:
            assert set(item) == set(DOCUMENTED[name].split())


@pytest.mark.parametrize("table", EVERYTHING)
def test_every_documented_field_lands_in_its_column(table):
    assert rows_of("everything_in_use")[table] == EVERYTHING[table]


def test_every_mapped_column_but_extra_is_filled_by_the_everything_payload():
    for table in projections():
        filled = set().union(*EVERYTHING.get(table.name, []))
        mapped = set(mapped_columns(table)) & of_the_contract(table.name)
        assert mapped - filled <= {"extra"}, table.name


DOCUMENTED_PAYLOADS = [
    "documented",
    "everything_in_use",
    "everything_null",
    "minimal",
    "client_side_llm_and_cartesia",
]


@pytest.mark.parametrize("name", DOCUMENTED_PAYLOADS)
def test_a_documented_payload_fits_and_leaves_nothing_over(name):
    for flat in flats_of(name).values():
        assert flat.issues == []
        assert flat.findings == set()
        for rows in flat.rows.values():
            assert not [row for row in rows if row.get("extra") is not None]


def test_a_bare_persona_has_its_row_and_its_brain_and_nothing_else():
    persona = UUID(read_payload("minimal")["id"])
    assert {table: rows for table, rows in rows_of("minimal").items() if rows} == {
        "personas": [{"persona_id": persona}],
        "brains": [{"persona_id": persona}],
    }


def test_nulls_and_empty_arrays_are_nothing_to_complain_about():
    rows = rows_of("everything_null")
    assert {table for table, found in rows.items() if found} == {"personas", "brains"}
    assert set(rows["personas"][0]) == {
        "persona_id", "name", "persona_preset", "enable_audio_passthrough", "skip_greeting",
        "zero_data_retention", "widget_config", "created_at", "updated_at",
    }  # fmt: skip


def test_what_the_map_does_not_know_is_kept_whole_in_extra():
    extras = {
        table: row["extra"]
        for table, rows in rows_of("unknown_members").items()
        for row in rows
        if "extra" in row
    }
    payload = read_payload("unknown_members")
    own = {
        key: payload[key]
        for key in ("mood", "a0000000-0000-4000-8000-0000000000ff", 'odd key.with "dots"')
    }
    assert extras == {
        "personas": {**own, "primaryShareLink": {"label": "main"}},
        "brains": {"temperature": 0.7},
        "avatars": {"hairColour": "red"},
        "voices": {"dialect": {"region": "Leeds"}},
        "tools": {"version": 2},
        "knowledge_groups": {"embedding": None},
        "share_links": {"domain": ["x.example"]},
        "voice_detection_options": {"muted": True},
        "voice_generation_options": {"pitch": -2},
    }


def test_what_the_map_does_not_know_is_listed_with_its_type():
    assert {
        f"{kind}: {path} {json_type}"
        for (kind, _), flat in flats_of("unknown_members").items()
        for path, json_type in unknown(flat)
    } == {
        "persona: mood string",
        "persona: * object",
        'persona: ["odd key.with \\"dots\\""] number',
        "persona: brain.temperature number",
        "persona: primaryShareLink.label string",
        "persona: shareLinks[].domain array",
        "persona: voiceDetectionOptions.muted boolean",
        "persona: voiceGenerationOptions.pitch number",
        "avatar: hairColour string",
        "voice: dialect object",
        "tool: version number",
        "knowledge_group: embedding null",
    }


@pytest.mark.parametrize(
    "key", [str(AN_ID), str(AN_ID).upper(), "42", "0123456789abcdef0123", "x" * 101, "\n" * 101]
)
def test_a_key_that_is_data_is_listed_as_any(key):
    flat = flatten("tool", AN_ID, {"id": str(AN_ID), key: 1, "config": {"free": 1}})
    assert unknown(flat) == {("*", "number")}
    assert flat.rows["tools"][0]["extra"] == {key: 1}


def test_a_key_that_is_an_asterisk_is_not_taken_for_any():
    assert unknown(flatten("tool", AN_ID, {"*": 1})) == {('["*"]', "number")}


def test_what_does_not_fit_is_null_and_one_issue():
    link = "shareLinks[e0000000-0000-4000-8000-000000000066]"
    assert issues_of("values_that_do_not_fit") == {
        "persona: name": "not a text",
        "persona: avatar.id": "not a uuid",
        "persona: avatarModel": "not a text",
        "persona: voiceSpeed": "not a number",
        "persona: brain": "not an object",
        "persona: tools[1].id": "not a uuid",
        "persona: tools[2]": "not an object",
        "persona: tools[3]": "not an object",
        "persona: knowledge": "not an array",
        f"persona: {link}.usageLimit": "not a 64-bit integer",
        f"persona: {link}.usageCount": "not a number",
        f"persona: {link}.allowedOrigins": "not an array",
        f"persona: {link}.expiresAt": "not a time",
        "persona: shareLinks[1].id": "not a uuid",
        "persona: shareLinks[2]": "not an object",
        "persona: primaryShareLink": "not an object",
        "persona: skipGreeting": "not a boolean",
        "persona: voiceDetectionOptions": "not an object",
        "persona: voiceGenerationOptions.stability": "out of range",
        "persona: voiceGenerationOptions.volume": "not a number",
        "persona: createdAt": "not a time",
        "persona: updatedAt": "not a time",
        "voice: isZdr": "not a boolean",
        "voice: displayTags[2]": "not a text",
        "voice: displayTags[3]": "not a text",
        "voice: displayTags[4]": "repeated",
        "voice: createdAt": "not a time",
        "tool: usageCount": "not a 64-bit integer",
        "tool: createdAt": "not a time",
    }  # fmt: skip


def test_what_fits_beside_it_is_kept():
    persona = UUID(read_payload("values_that_do_not_fit")["id"])
    voice = UUID("b0000000-0000-4000-8000-000000000066")
    tool = UUID("c0000000-0000-4000-8000-000000000066")
    link = UUID("e0000000-0000-4000-8000-000000000066")
    rows = rows_of("values_that_do_not_fit")
    assert {table: found for table, found in rows.items() if found} == {
        "personas": [
            {
                "persona_id": persona,
                "description": "42",
                "persona_preset": "true",
                "voice_id": voice,
                "llm_id": "7",
                "enable_audio_passthrough": True,
                "widget_config": "dark",
            }
        ],
        "brains": [{"persona_id": persona}],
        "voices": [{"voice_id": voice}],
        "voice_display_tags": [
            {"voice_id": voice, "tag": "fast", "position": 0},
            {"voice_id": voice, "tag": "7", "position": 1},
        ],
        "tools": [{"tool_id": tool}],
        "persona_tools": [{"persona_id": persona, "tool_id": tool, "position": 0}],
        "knowledge_groups": [
            {
                "knowledge_group_id": UUID("d0000000-0000-4000-8000-000000000066"),
                "document_count": 7,
            }
        ],
        "share_links": [{"share_link_id": link, "persona_id": persona}],
        "voice_generation_options": [
            {"persona_id": persona, "speed": 1.5, "use_speaker_boost": False}
        ],
    }


def test_of_repeated_elements_the_first_counts_and_each_repetition_is_an_issue():
    tool = "c0000000-0000-4000-8000-0000000000"
    link = "shareLinks[e0000000-0000-4000-8000-000000000077]"
    assert issues_of("repeated_elements") == {
        "avatar: availableVersions[2]": "repeated",
        f"persona: tools[{tool}77]": "repeated",
        f"persona: tools[{tool}78]": "repeated with other content",
        f"persona: tools[{tool}79]": "repeated with other content",
        "persona: tools[6].id": "not a uuid",
        f"persona: {link}": "repeated",
        f"persona: {link}.allowedOrigins[2]": "repeated",
    }
    rows = rows_of("repeated_elements")
    assert [(str(row["tool_id"])[-2:], row["position"]) for row in rows["persona_tools"]] == [
        ("77", 0),
        ("78", 2),
        ("79", 4),
    ]
    assert [row["usage_limit"] for row in rows["share_links"]] == [1]
    assert [row["origin"] for row in rows["share_link_allowed_origins"]] == ["a", "b"]
    assert [row["version"] for row in rows["avatar_available_versions"]] == ["v1", "v2"]


def test_the_position_of_a_repeated_tool_is_its_first_whichever_copy_is_the_document():
    one, other = {"id": str(AN_ID), "name": "one"}, {"id": str(AN_ID), "name": "other"}
    for tools in ([None, one, other], [None, other, one]):
        persona = take_apart({"id": str(PERSONA_ID), "tools": tools}, PERSONA_ID).persona  # type: ignore[dict-item]
        flat = flatten("persona", PERSONA_ID, persona.whole())
        assert flat.rows["persona_tools"] == [
            {"persona_id": PERSONA_ID, "tool_id": AN_ID, "position": 1}
        ]
        assert {issue.path: issue.problem for issue in flat.issues} == {
            "tools[0]": "not an object",
            f"tools[{AN_ID}]": "repeated with other content",
        }


def test_arrays_and_objects_in_each_others_place_are_issues():
    assert issues_of("arrays_where_objects_stood") == {
        "persona: avatar": "not an object",
        "persona: voice": "not an object",
        "persona: brain": "not an object",
        "persona: tools": "not an array",
        "persona: knowledge": "not an array",
        "persona: shareLinks": "not an array",
    }
    rows = rows_of("arrays_where_objects_stood")
    assert rows["personas"] == [
        {"persona_id": UUID("88888888-8888-4888-8888-888888888888"), "widget_config": [1, 2]}
    ]
    assert rows["persona_tools"] == rows["share_links"] == []


def test_a_text_too_long_for_an_index_is_an_issue():
    long = "x" * 10_000_000
    flat = flatten("persona", PERSONA_ID, {"llmId": long, "name": long})
    assert flat.rows["personas"][0]["llm_id"] is None
    assert flat.rows["personas"][0]["name"] == long
    flat = flatten("avatar", AN_ID, {"availableVersions": [long, "v1"]})
    assert [row["version"] for row in flat.rows["avatar_available_versions"]] == ["v1"]
    (issue,) = flat.issues
    assert (issue.path, issue.got) == (
        "availableVersions[0]",
        "string of 10000000 characters",
    )


def test_a_token_loses_only_the_mark_that_it_was_hashed():
    document: Any = {"primaryShareLink": {"token": "sha256:" + "0" * 64}}
    flat = flatten("persona", PERSONA_ID, document)
    assert flat.rows["personas"][0]["primary_share_link_token_sha256"] == "0" * 64


def test_observed_rows_hold_keys_owners_and_what_is_observed():
    payload = read_payload("everything_in_use")
    found: dict[str, Any] = {}
    for part in take_apart(payload, UUID(payload["id"])).parts():
        flat = flatten(part.kind, part.entity_id, part.whole(), "observed")
        assert not flat.findings
        for table, rows in flat.rows.items():
            found.setdefault(table, []).extend(rows)
    assert found == {
        "personas": [{"persona_id": PERSONA, "updated_at": day(1, 14)}],
        "share_links": [
            {"share_link_id": LINK, "persona_id": PERSONA, "usage_count": 17},
            {"share_link_id": OTHER_LINK, "persona_id": PERSONA, "usage_count": 0},
        ],
        "avatars": [{"avatar_id": AVATAR, "updated_at": day(1, 2)}],
        "voices": [{"voice_id": VOICE, "updated_at": day(1, 4)}],
        "tools": [
            {"tool_id": TOOL, "usage_count": 3, "updated_at": day(1, 6)},
            {"tool_id": OTHER_TOOL, "usage_count": 120, "updated_at": None},
        ],
        "knowledge_groups": [
            {"knowledge_group_id": GROUP, "document_count": 7, "updated_at": day(1, 9)},
            {"knowledge_group_id": OTHER_GROUP, "document_count": 1, "updated_at": None},
        ],
    }


@pytest.mark.parametrize(
    ("kind", "table", "observed"),
    [
        ("persona", "personas", {"updated_at"}),
        ("persona", "share_links", {"usage_count"}),
        ("avatar", "avatars", {"updated_at"}),
        ("voice", "voices", {"updated_at"}),
        ("tool", "tools", {"updated_at", "usage_count"}),
        ("knowledge_group", "knowledge_groups", {"updated_at", "document_count"}),
    ],
)
def test_stored_rows_hold_all_but_what_is_observed(kind, table, observed):
    document: Any = {"shareLinks": [{"id": str(AN_ID)}]}
    (everything,) = flatten(kind, AN_ID, document).rows[table]
    (stored,) = flatten(kind, AN_ID, document, "stored").rows[table]
    assert everything.keys() - stored.keys() == observed


@pytest.mark.parametrize("avatar", [{}, {"id": None}, {"id": ""}, {"$inline": {"id": str(AN_ID)}}])
def test_an_embedded_object_without_an_id_is_an_issue(avatar):
    flat = flatten("persona", PERSONA_ID, {"avatar": avatar, "voice": None})
    assert [issue.path for issue in flat.issues] == ["avatar.id"]


def test_what_is_no_reference_is_none_even_with_an_id():
    flat = flatten("persona", PERSONA_ID, {"tools": [{"id": str(AN_ID), "name": "inline"}]})
    assert flat.rows["persona_tools"] == []
    assert [issue.path for issue in flat.issues] == [f"tools[{AN_ID}]"]
