"""The shared things of the made-up world: avatars, voices, tools and knowledge groups.

Each function makes one object in the API's documented shape. Kinds that must all occur
(providers, tool types) go round by index instead of by chance, so a small world has each.
"""

from __future__ import annotations

import string
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from etl.sandbox import prose
from etl.sandbox.prose import likely
from etl.sandbox.rendering import EPOCH, Json, timestamp

if TYPE_CHECKING:
    from random import Random

PROVIDERS = ("ELEVENLABS", "CARTESIA", "ELEVENLABS", "AZURE", "RIME")
TOOL_TYPES = ("CLIENT", "SERVER_WEBHOOK", "SERVER_RAG", "SYSTEM")
_SPAN = timedelta(days=480)
_NANOID = string.ascii_letters + string.digits + "_-"
_MODELS = {
    "ELEVENLABS": ("eleven_flash_v2_5", "eleven_multilingual_v2", None),
    "CARTESIA": ("sonic-2", "sonic-turbo"),
    "AZURE": (None,),
    "RIME": ("arcana", None),
}
_SYSTEM_ACTIONS = ("end_call", "skip_turn", "change_language")
_CLIENT_TOOLS = ("show_map", "open_checkout", "play.video", "highlight-row")


def new_id(rng: Random) -> str:
    """A version 4 UUID that depends on the seed alone."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def nanoid(rng: Random, length: int = 21) -> str:
    """An id like those of organisations and share links: letters, digits, `_` and `-`."""
    return "".join(rng.choices(_NANOID, k=length))


def created_and_updated(rng: Random) -> tuple[str, str]:
    """Two times before `EPOCH`, the second not before the first; often both are the same."""
    created = EPOCH - timedelta(milliseconds=rng.randint(1, _SPAN // timedelta(milliseconds=1)))
    if likely(rng, 0.3):
        return timestamp(created), timestamp(created)
    return timestamp(created), timestamp(created + (EPOCH - created) * rng.random())


def avatar(rng: Random) -> Json:
    """A face; its `videoUrl` is without the signature, which the world adds at each fetch."""
    face = rng.choice(("Liv", "Gabriel", "Astrid", "Evelyn", "Kevin", "Sófia", "結衣", "Pablo"))
    scene = rng.choice(("home", "desk", "office", "table", "window", "outdoor"))
    slug = quote(f"{face.lower()}_{scene}")
    created, updated = created_and_updated(rng)
    versions = ["v1", "v2", "cara-4-3", "cara-4-latest"][: rng.randint(1, 4)]
    video = f"https://anam-prod.r2.cloudflarestorage.com/avatars/v2/{slug}/idling_video.mp4"
    return {
        "id": new_id(rng),
        "displayName": face,
        "variantName": scene,
        "imageUrl": f"https://lab.anam.ai/persona_thumbnails/{slug}.png",
        "videoUrl": video if likely(rng, 0.9) else None,
        "createdAt": created,
        "updatedAt": updated,
        "createdByOrganizationId": _organization_id(rng),
        "availableVersions": versions,
        "activeVersion": rng.choice([*versions, None]),
    }


def voice(rng: Random, index: int) -> Json:
    """A voice of one of several providers, stock or made by an organisation."""
    provider = PROVIDERS[index % len(PROVIDERS)]
    voice_id = new_id(rng)
    sample = f"https://samples.public.blob.vercel-storage.com/voice-samples/{voice_id}"
    created, updated = created_and_updated(rng)
    name, mood = rng.choice(prose.NAMES), rng.choice(prose.TRAITS)
    return {
        "id": voice_id,
        "displayName": f"{name} - {mood.capitalize()}",
        "provider": provider,
        "providerVoiceId": nanoid(rng, 20),
        "providerModelId": rng.choice(_MODELS[provider]),
        "sampleUrl": f"{sample}/full.mp3" if likely(rng, 0.9) else None,
        "previewSampleUrl": f"{sample}/preview.mp3" if likely(rng, 0.7) else None,
        "gender": rng.choice(("MALE", "FEMALE", "NEUTRAL", None)),
        "country": rng.choice(("GB", "US", "DE", "JP", "EG", "IL", "IN", None)),
        "description": prose.personality(rng) if likely(rng, 0.8) else None,
        "displayTags": rng.sample(("fast", "new", "multilingual", "premium"), rng.randint(0, 3)),
        "isZdr": likely(rng, 0.4),
        "createdByOrganizationId": _organization_id(rng),
        "createdAt": created,
        "updatedAt": updated,
    }


def tool(rng: Random, index: int) -> Json:
    """A tool; the four types go round. A name is unique by its number."""
    kind = TOOL_TYPES[index % len(TOOL_TYPES)]
    topic = rng.choice(prose.TOPICS)
    created, updated = created_and_updated(rng)
    return {
        "id": new_id(rng),
        "name": f"{rng.choice(_CLIENT_TOOLS)}_{index}",
        "description": f"Call this when the visitor asks about {topic}.",
        "type": kind,
        "config": _tool_config(rng, kind),
        "createdAt": created,
        "updatedAt": updated if likely(rng, 0.85) else None,
        "usageCount": rng.randint(1, 40),
    }


def knowledge_group(rng: Random) -> Json:
    """A group of documents that personas can look things up in."""
    created, updated = created_and_updated(rng)
    company = rng.choice(prose.COMPANIES)
    return {
        "id": new_id(rng),
        "name": f"{company}: {rng.choice(prose.TOPICS)}",
        "description": prose.description(rng) if likely(rng, 0.7) else None,
        "documentCount": rng.randint(0, 250),
        "createdAt": created,
        "updatedAt": updated if likely(rng, 0.8) else None,
    }


def _organization_id(rng: Random) -> str | None:
    return rng.choice((None, None, new_id(rng), nanoid(rng)))


def _tool_config(rng: Random, kind: str) -> Json:
    if kind == "SERVER_WEBHOOK":
        return {
            "url": f"https://hooks.example.com/{nanoid(rng, 8)}?token={nanoid(rng, 32)}",
            "method": rng.choice(("POST", "GET", "PUT")),
            "headers": {
                "Authorization": f"Bearer {nanoid(rng, 40)}",
                "X-Api-Key": nanoid(rng, 32),
                "Content-Type": "application/json",
            },
            "parameters": _parameters(rng),
            "awaitResponse": likely(rng, 0.5),
        }
    if kind == "SERVER_RAG":
        return {"documentFolderIds": [new_id(rng)], "parameters": _parameters(rng)}
    if kind == "SYSTEM":
        return {"action": rng.choice(_SYSTEM_ACTIONS), "parameters": {"type": "object"}}
    return {"parameters": _parameters(rng), "awaitResponse": likely(rng, 0.5)}


def _parameters(rng: Random) -> Json:
    """A JSON schema. `booking_token` is a parameter's name, which cleaning must leave alone."""
    return {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": f"About {rng.choice(prose.TOPICS)}"},
            "booking_token": {"type": "string", "minLength": rng.randint(4, 12)},
            "language": {"type": "string", "enum": ["en", "de", "日本語"]},
            "limit": {"type": "integer", "minimum": 1, "maximum": rng.randint(5, 50)},
        },
        "required": rng.sample(("query", "booking_token", "language"), 2),
    }
