"""The shapes that the API can be moved to by name; docs/sandbox.md lists what they bring.

`LATER` is the API some releases on, as an integration meets it that was written for the documented
one: more of everything, some of it under names that no table can take as they are.
"""

from __future__ import annotations

from typing import Final

from etl.sandbox.reshape import Reshape

# What the fields of a type can be: not for all objects there is a value.
_IDS: Final = [
    "0f6b1c52-7a1e-4a55-9c0d-2f1f3f0c8b11",
    "7d4e9a30-52c8-4a0e-8a5d-90b6c1f7e2d4",
    "c3a8f1e6-1b7d-4f42-b9e3-6a2d5c8e7f90",
    None,
]
_TIMES: Final = [
    "2026-02-03T09:15:00.000Z",
    "2026-03-29T01:30:00.500Z",
    "2026-04-30T23:59:59.999Z",
    None,
]
_SHARES: Final = [0.25, 0.5, 1, None]  # One is written without a fraction, as JavaScript does.
_FLAGS: Final = [True, False]
_NINETY: Final = (
    "secondsOfSilenceAfterWhichThePersonaAsksTheVisitorWhetherThereIsAnythingElseThatItCanDoFor"
)
_CLIPS: Final = "https://anam-prod.r2.cloudflarestorage.com/avatars/v3"

LATER: Final = Reshape(
    rename={"skipGreeting": "greetingSkipped", "voice.country": "countryCode"},
    remove=["personaPreset"],
    retype={"voiceSpeed": "string"},
    # The vendor calls them otherwise: texts that were a small closed set have new members.
    recode={
        "voice.provider": {"AZURE": "MICROSOFT"},
        "tools.type": {"SERVER_RAG": "SERVER_KNOWLEDGE"},
        "shareLinks.type": {"ORB_EMBED": "ORB_WIDGET"},
    },
    add={
        "successorId": None,
        "experiments": [],
    },
    choose={
        # A scalar of each type, wherever members stand; a list of scalars.
        "tone": ["warm", "brisk", "Sachlich, nie kühl", "", None],
        "maxSessionMinutes": [5, 30, 120, None],
        "temperature": [0.2, 0.75, 1, None],
        "recordSessions": _FLAGS,
        "workspaceId": _IDS,
        "lastPublishedAt": _TIMES,
        "channels": [["web", "kiosk"], ["phone"], ["web", "phone", "web"], []],
        "brain.goal": ["book a visit", "answer questions", "зробити замовлення", None],
        "brain.memoryTurns": [4, 20, 9_007_199_254_740_991, None],
        "brain.creativity": _SHARES,
        "brain.usesMemory": _FLAGS,
        "brain.promptTemplateId": _IDS,
        "brain.promptReviewedAt": _TIMES,
        "brain.keywords": [["opening hours", "prices"], ["料金"], [], None],
        "voice.accent": ["received pronunciation", "Texan", "Kansai", None],
        "voice.sampleRateHz": [16_000, 24_000, 44_100, None],
        "voice.pitch": [-0.5, 0, 0.35, None],
        "voice.isCloned": _FLAGS,
        "voice.collectionId": _IDS,
        "voice.trainedAt": _TIMES,
        "voice.languages": [["en"], ["en", "de", "ja"], ["ar", "en"], []],
        "shareLinks.label": ["Autumn fair", "O'Brien & Sons", "", None],
        "shareLinks.maxConcurrentSessions": [1, 25, 1000, None],
        "shareLinks.trafficShare": _SHARES,
        "shareLinks.requiresConsent": _FLAGS,
        "shareLinks.campaignId": _IDS,
        "shareLinks.activatesAt": _TIMES,
        "shareLinks.labels": [["fair", "2026"], ["press"], []],
        "voiceDetectionOptions.engine": ["semantic", "acoustic", None],
        "voiceDetectionOptions.minWordsToInterrupt": [0, 1, 3, None],
        "voiceDetectionOptions.noiseFloor": _SHARES,
        "voiceDetectionOptions.bargeIn": _FLAGS,
        "voiceDetectionOptions.profileId": _IDS,
        "voiceDetectionOptions.calibratedAt": _TIMES,
        "voiceGenerationOptions.emphasis": ["none", "moderate", "strong", None],
        "voiceGenerationOptions.seed": [7, 4_294_967_295, None],
        "voiceGenerationOptions.breathiness": _SHARES,
        "voiceGenerationOptions.normalizeText": _FLAGS,
        "voiceGenerationOptions.dictionaryId": _IDS,
        "voiceGenerationOptions.tunedAt": _TIMES,
        "tools.timeoutSeconds": [2.5, 10, None],
        "knowledge.isIndexed": _FLAGS,
        # What is no scalar.
        "branding": [
            {"colors": {"primary": "#0a7d55", "secondary": None}, "radius": 4},
            {"colors": {"primary": "#222222"}, "logo": "https://example.com/logo.svg"},
            {},
            None,
        ],
        "escalations": [
            [{"after": 2, "to": "sales"}, {"after": 5.5, "to": None}],
            [{"after": 1, "to": "support", "hours": ["mon", "tue"]}],
            [],
        ],
        "avatar.posterUrl": [f"{_CLIPS}/poster_{size}.webp" for size in ("720", "1080")],
        "webhookSecret": ["whsec_Zk3vX9q2LmT7", "whsec_Q8rB1nY5cWd0", None],
        # Names that no column can have as they are, that two would share, or that views have.
        'mood"; DROP TABLE personas; --': ["calm", "cheerful", None],
        _NINETY: [30, 90, None],
        "user": ["ada@example.com", "grace@example.com", None],
        "order": [1, 2, 3],
        "moodScore": [0.1, 0.9, None],
        "mood_score": [1, 9, None],
        "n\u0430me": ["Ada", "Grace", None],  # its second letter is Cyrillic
        "version": [1, 2, None],
        "valid_from": _TIMES,
    },
    sign=["avatar.posterUrl"],
)

SHAPES: Final = {"later": LATER}
"""By the names that `--shape` and the admin call take."""
