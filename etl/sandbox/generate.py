"""Makes a whole world of personas from a number and a seed; pure: same seed, same bytes."""

from __future__ import annotations

from random import Random
from typing import Any

from etl.sandbox import catalogue, prose
from etl.sandbox.catalogue import created_and_updated, nanoid, new_id
from etl.sandbox.prose import likely
from etl.sandbox.rendering import EPOCH, Json, timestamp
from etl.sandbox.world import World

SHARE_LINK_TYPES = ("LINK", "PLAYER_EMBED", "ORB_EMBED")
_LEGACY_LLM_IDS = ("CUSTOMER_CLIENT_V1", "ANAM_GPT_4O_MINI_V1")


def generate(count: int, seed: int) -> World:
    """`count` personas that share far fewer avatars, voices, tools and knowledge groups."""
    rng = Random(seed)  # noqa: S311  repeatable on purpose; nothing here is really secret
    # A fifth to an eighth as many shared things as personas, and no more than a team would keep.
    avatars = [catalogue.avatar(rng) for _ in range(_between(4, count // 5, 120))]
    voices = [catalogue.voice(rng, i) for i in range(_between(5, count // 6, 90))]
    tools = [catalogue.tool(rng, i) for i in range(_between(4, count // 5, 150))]
    groups = [catalogue.knowledge_group(rng) for _ in range(_between(3, count // 8, 60))]
    llm_ids = [new_id(rng) for _ in range(4)]
    world = World(avatars=avatars, voices=voices, tools=tools, knowledge=groups)
    for index in range(count):
        chosen_voice = None if _each(19, index) else _popular(rng, voices)
        world.add(
            {
                "id": new_id(rng),
                "name": prose.persona_name(rng),
                "description": None if likely(rng, 0.15) else prose.description(rng),
                "personaPreset": rng.choice(("", "", "", "leo_desk", "eva")),
                "avatar": None if _each(17, index) else _popular(rng, avatars)["id"],
                "avatarModel": rng.choice(("cara-3", "cara-3", "cara-4-latest", None)),
                "voice": chosen_voice and chosen_voice["id"],
                "voiceSpeed": rng.choice((1, 1, 0.9, 1.15, None)),
                "llmId": _LEGACY_LLM_IDS[index // 9 % 2]
                if _each(9, index)
                else _popular(rng, [*llm_ids, None]),
                "brain": {
                    "personality": prose.personality(rng) if likely(rng, 0.6) else None,
                    "systemPrompt": prose.system_prompt(rng) if not _each(23, index) else None,
                },
                "tools": _some(rng, tools, most=5),
                "knowledge": _some(rng, groups, most=3),
                **_sharing(rng, index),
                "enableAudioPassthrough": likely(rng, 0.1),
                "skipGreeting": likely(rng, 0.3),
                "zeroDataRetention": likely(rng, 0.2),
                "voiceDetectionOptions": _voice_detection(rng) if _each(2, index) else None,
                "voiceGenerationOptions": _voice_generation(rng, chosen_voice),
                "widgetConfig": _widget(rng) if _each(3, index) else {},
                **dict(zip(("createdAt", "updatedAt"), created_and_updated(rng), strict=True)),
            }
        )
    return world


def _each(nth: int, index: int) -> bool:
    """Whether this is a third, sixth, … one: by number, so that small worlds have each kind."""
    return index % nth == nth - 1


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))


def _popular(rng: Random, things: list[Any]) -> Any:  # noqa: ANN401  it returns what it is given
    """One of the things, the nth half as probable as the n/2th (Zipf): few are used by many."""
    return rng.choices(things, weights=[1 / rank for rank in range(1, len(things) + 1)])[0]


def _some(rng: Random, things: list[Json], *, most: int) -> list[str]:
    """The ids of none to `most` different things, popular ones more often."""
    wanted = rng.choice(range(most + 1))
    return list(dict.fromkeys(_popular(rng, things)["id"] for _ in range(wanted)))


def _sharing(rng: Random, index: int) -> Json:
    """Share links: none known (null), none made, or a few, of which the first may be primary."""
    if _each(3, index):
        return {"shareLinks": None if _each(2, index) else [], "primaryShareLink": None}
    links = [_share_link(rng, index + i) for i in range(rng.randint(1, 4))]
    first = links[0]
    first["isPrimary"] = likely(rng, 0.8)
    primary = {"token": first["token"], "enabled": first["enabled"]}
    return {"shareLinks": links, "primaryShareLink": primary if first["isPrimary"] else None}


def _share_link(rng: Random, index: int) -> Json:
    created, updated = created_and_updated(rng)
    origins = ("https://example.com", "https://www.example.org", "http://localhost:3000")
    everywhere = likely(rng, 0.4)
    return {
        "id": new_id(rng),
        "token": nanoid(rng, 32),
        "type": SHARE_LINK_TYPES[index % len(SHARE_LINK_TYPES)],
        "expiresAt": rng.choice((None, updated, timestamp(EPOCH))),
        "usageLimit": rng.choice((None, None, 1, 100, 5000)),
        "usageCount": rng.randint(0, 900),
        "allowedOrigins": [] if everywhere else rng.sample(origins, rng.randint(1, 3)),
        "allowAllOrigins": everywhere,
        "removeWatermark": likely(rng, 0.3),
        "enabled": likely(rng, 0.85),
        "isPrimary": False,
        "createdAt": created,
    }


def _voice_detection(rng: Random) -> Json:
    return {
        "endOfSpeechSensitivity": round(rng.random(), 2),
        "silenceBeforeSkipTurnSeconds": rng.choice((0, 5, 12.5, 900)),
        "silenceBeforeSessionEndSeconds": rng.choice((0, 60, 600, 7200)),
        "silenceBeforeAutoEndTurnSeconds": rng.choice((0.5, 1.25, 5, 10)),
        "speechEnhancementLevel": rng.choice((0, 0.25, 0.8, 1)),
    }


def _voice_generation(rng: Random, voice: Json | None) -> Json | None:
    """The options of the voice's provider; null without a voice and for a third of the others."""
    if voice is None or likely(rng, 0.33):
        return None
    if voice["provider"] == "CARTESIA":
        return {
            "volume": rng.choice((0.5, 1, 1.4, 2)),
            "speed": rng.choice((0.6, 1, 1.5)),
            "emotion": rng.choice(("neutral", "positivity:high", "curiosity")),
        }
    if voice["provider"] != "ELEVENLABS":
        return {"speed": rng.choice((0.8, 1, 1.1))}
    options: Json = {
        "stability": round(rng.random(), 2),
        "similarityBoost": round(rng.random(), 2),
        "speed": rng.choice((0.7, 1, 1.2)),
    }
    # The three that only v2 voices have.
    if likely(rng, 0.6):
        model = voice["providerModelId"] or "eleven_multilingual_v2"
        options |= {
            "style": round(rng.random(), 2),
            "useSpeakerBoost": likely(rng, 0.5),
            "model": model,
        }
    return options


def _widget(rng: Random) -> Json:
    return {
        "theme": rng.choice(("light", "dark", "auto")),
        "position": {"corner": rng.choice(("bottom-right", "top-left")), "offset": [16, 24.5]},
        "labels": {"start": rng.choice(prose.GREETINGS), "stop": None},
        "autoStart": likely(rng, 0.2),
    }
