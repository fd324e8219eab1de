"""Payloads for the property tests: documented ones, hostile ones, and what may not matter in them.

What is observed, what is a set and what is shared is written down by hand here, so that the tests
do not read the map that they test.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from etl.payload.clean import clean
from etl.payload.decode import decode

if TYPE_CHECKING:
    from random import Random

_TIMES = int(os.environ.get("PERSONA_ETL_TEST_EXAMPLES", "1"))

PAYLOADS = Path(__file__).parents[1] / "payloads"
PERSONA_ID = UUID("00000000-0000-4000-8000-00000000000a")

SHARED = {"avatar": "avatar", "voice": "voice", "tools": "tool", "knowledge": "knowledge_group"}
OBSERVED = {
    "avatar": {"updatedAt"},
    "voice": {"updatedAt"},
    "tools": {"updatedAt", "usageCount"},
    "knowledge": {"updatedAt", "documentCount"},
    "shareLinks": {"usageCount"},
}
SETS = {"avatar": "availableVersions", "voice": "displayTags", "shareLinks": "allowedOrigins"}
DOCUMENTED = {
    "persona": "id name description personaPreset avatar avatarModel voice voiceSpeed llmId brain"
    " tools knowledge shareLinks primaryShareLink enableAudioPassthrough skipGreeting"
    " zeroDataRetention voiceDetectionOptions voiceGenerationOptions widgetConfig createdAt"
    " updatedAt",
    "avatar": "id displayName variantName imageUrl videoUrl createdAt updatedAt"
    " createdByOrganizationId availableVersions activeVersion",
    "voice": "id displayName provider providerVoiceId providerModelId sampleUrl previewSampleUrl"
    " gender country description displayTags isZdr createdByOrganizationId createdAt updatedAt",
    "tool": "id name description type config createdAt updatedAt usageCount",
    "knowledge_group": "id name description documentCount createdAt updatedAt",
    "shareLink": "id token type expiresAt usageLimit usageCount allowedOrigins allowAllOrigins"
    " removeWatermark enabled isPrimary createdAt",
    "primaryShareLink": "token enabled",
    "brain": "personality systemPrompt",
    "voiceDetectionOptions": "endOfSpeechSensitivity silenceBeforeSkipTurnSeconds"
    " silenceBeforeSessionEndSeconds silenceBeforeAutoEndTurnSeconds speechEnhancementLevel",
    "voiceGenerationOptions": "stability similarityBoost style useSpeakerBoost model speed volume"
    " emotion",
}
"""The documented members of each object, copied from the reference by hand."""


def properties(examples: int) -> settings:
    """How a property is tested: the same examples each time, unless many times as many are asked.

    PERSONA_ETL_TEST_EXAMPLES=50 tries fifty times as many, others on each run.
    """
    return settings(
        deadline=None,
        max_examples=examples * _TIMES,
        derandomize=_TIMES == 1,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def payload_files() -> list[Path]:
    return sorted(PAYLOADS.glob("*.json"))


def read_payload(name: str) -> Any:
    """A payload file, decoded and cleaned."""
    return clean(decode((PAYLOADS / f"{name}.json").read_bytes()).value)


def decoded(value: Any) -> Any:
    """The value in the form that decoding leaves: numbers by value, text as Postgres takes it."""
    return decode(json.dumps(value).encode()).value


def exactly(value: Any) -> Any:
    """Something that is equal for values equal as JSON: unlike in Python, True is not 1."""
    if isinstance(value, dict):
        return "object", {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list):
        return "array", [exactly(item) for item in value]
    return isinstance(value, bool), value


_ids = [UUID(f"{digit * 8}-aaaa-4aaa-8aaa-aaaaaaaaaaaa") for digit in "bc"]
_usable = st.sampled_from([str(i) for i in _ids] + [str(i).upper() for i in _ids[:1]])
_unusable: st.SearchStrategy[Any] = st.sampled_from(
    ["liv", "", None, 7, True, f"{{{_ids[0]}}}", _ids[0].hex, [], {}]
)
ids = _usable | _usable | _unusable

numbers = st.sampled_from(
    [0, 1, -1, 1.0, 1.5, 0.1, -0.0, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**29, 1e300]
)
_typical_texts = (
    ["", "1", "1.5", "true", "null", "fast", "v1", "NaN", "1e999", "x" * 2001, "é" * 1001],
    ["2026-04-20T10:00:00.000Z", "2026-02-30T10:00:00Z", "2026-04-20", "\u0000", "\U0001f600"],
    ["https://cdn.example/a.mp4?X-Amz-Signature=one", "see https://x.example/?token=one !"],
    [str(_ids[0])],
)
texts = st.sampled_from([text for line in _typical_texts for text in line]) | st.text(max_size=6)
scalars = st.none() | st.booleans() | numbers | texts
_odd_keys = st.sampled_from(
    ["id", "config", "apiKey", "new", "", "a.b", "[]", "$inline", 'q"', str(_ids[0]), "k" * 300]
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_odd_keys, inner, max_size=3),
    max_leaves=5,
)
_times = st.sampled_from(
    [None, "2026-04-20T10:00:00.000Z", "2026-04-20T10:00:00.001Z", "yesterday", 7]
)
_tokens: st.SearchStrategy[Any] = st.sampled_from(["one", "another", "", None, 7, {}])
_tags: st.SearchStrategy[Any] = (
    st.lists(st.sampled_from(["v1", "v2", "v3", "1", 1, None, {}]), max_size=4) | scalars
)


def _objects(documented: str, **special: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with some of the documented members, mostly with an id, sometimes with odd ones."""
    known = {name: special.get(name, scalars | json_values) for name in documented.split()}
    required = {"id": special["id"]} if "id" in special else {}
    return st.builds(
        lambda members, odd: {**odd, **members},
        st.fixed_dictionaries(required, optional={k: v for k, v in known.items() if k != "id"}),
        st.just({}) | st.dictionaries(_odd_keys, scalars, max_size=2),
    )


_embedded = {
    "avatar": _objects(
        DOCUMENTED["avatar"], id=ids, updatedAt=_times, availableVersions=_tags, videoUrl=texts
    ),
    "voice": _objects(DOCUMENTED["voice"], id=ids, updatedAt=_times, displayTags=_tags),
    "tools": _objects(DOCUMENTED["tool"], id=ids, updatedAt=_times),
    "knowledge": _objects(DOCUMENTED["knowledge_group"], id=ids, updatedAt=_times),
    "shareLinks": _objects(DOCUMENTED["shareLink"], id=ids, allowedOrigins=_tags, token=_tokens),
}
_bare = st.builds(lambda i: {"id": i}, ids)
_escaped = st.builds(lambda value: {"$inline": value}, _bare | json_values)


def _one(name: str) -> st.SearchStrategy[Any]:
    return _embedded[name] | _bare | _escaped | json_values


def _member(name: str) -> st.SearchStrategy[Any]:
    """What may stand where a persona embeds something."""
    one = _one(name)
    twice = st.builds(lambda a, b, c: [a, b, a, c], one, one, one)
    return one | st.lists(one, max_size=4) | twice


_members: dict[str, st.SearchStrategy[Any]] = {
    **{name: scalars for name in DOCUMENTED["persona"].split() if name != "id"},
    **{name: _member(name) for name in _embedded},
    **{
        name: _objects(DOCUMENTED[name]) | json_values
        for name in ("brain", "voiceDetectionOptions", "voiceGenerationOptions")
    },
    "primaryShareLink": _objects(DOCUMENTED["primaryShareLink"], token=_tokens) | json_values,
    "widgetConfig": json_values,
    "new": json_values,
    "[]": json_values,
}

raw_personas: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"id": st.sampled_from([str(PERSONA_ID), str(PERSONA_ID).upper()])}, optional=_members
)
"""JSON-ish personas as they come, signatures and all."""

personas = raw_personas.map(lambda raw: clean(decoded(raw)))
"""Decoded and cleaned."""

documents: dict[str, st.SearchStrategy[Any]] = {
    "persona": raw_personas.map(decoded),
    **{kind: _embedded[name].map(decoded) for name, kind in SHARED.items()},
}
"""By kind: whatever might be asked to become rows."""


def each_embedded(payload: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects in a member that embeds one or several."""
    value = payload.get(name)
    items = value if isinstance(value, list) else [value] if name in SHARED else []
    return [item for item in items if isinstance(item, dict)]


def reordered(payload: dict[str, Any], random: Random) -> dict[str, Any]:
    """A copy with shuffled members everywhere, and shuffled sets where a persona has them."""
    copied: dict[str, Any] = shuffled_members(payload, random)
    for member in ("tools", "knowledge", "shareLinks"):
        if isinstance(copied.get(member), list):
            random.shuffle(copied[member])
    for member, inner in SETS.items():
        if member in SHARED and isinstance(copied.get(member), list):
            # Where one stands, several came: of those, equal ones have to stay equal.
            continue
        for item in each_embedded(copied, member):
            if isinstance(item.get(inner), list):
                random.shuffle(item[inner])
    return copied


def shuffled_members(value: Any, random: Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled_members(value[key], random) for key in keys}
    if isinstance(value, list):
        return [shuffled_members(item, random) for item in value]
    return value


def resigned(value: Any) -> Any:
    """A copy whose signed URLs have other signatures, and whose whole numbers are floats."""
    if isinstance(value, dict):
        return {key: resigned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resigned(item) for item in value]
    if isinstance(value, str):
        return value.replace("=one", "=another")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return value


def with_moved_observed(payload: dict[str, Any]) -> dict[str, Any]:
    """A copy whose observed fields have other values; equal ones stay equal."""
    copied = copy.deepcopy(payload)
    for name, fields in OBSERVED.items():
        for item in each_embedded(copied, name):
            for field in fields & item.keys():
                item[field] = [item[field]]
    if "updatedAt" in copied:
        copied["updatedAt"] = [copied["updatedAt"]]
    return copied
