"""The map: every table and column, the JSON path it comes from, its type and its comment.

Flattening, what counts as *observed*, which arrays are sets, and the migrations are all read off
this module. A new field of the API is one line here and one Alembic revision. No queries here.

It is as long as the API and our history are: besides the columns there are only the words to write
them with, above, and what readers of the map ask it, at the end.

A path is the API's own camelCase, relative to the object that a row is made from. Where that
object stands is the table's `origin`: `""` is the document itself, `brain` a part of it,
`shareLinks[]` one row an element, `tools[]` with `references` one row a reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.types import TypeEngine

Kind = Literal["persona", "avatar", "voice", "tool", "knowledge_group"]
Shape = Literal["entity", "part", "elements", "references", "values", "list"]
"""What a table's rows are: one a document; one a part of it; one an element, a reference or a
distinct scalar of an array that is a set; one a place in an array whose order counts.
"""

# What a column is filled from when it is not a member of the row's own object.
OWNER: Final = "(the document's id)"
PARENT: Final = "(the enclosing element's id)"
SELF: Final = "(the element itself)"
POSITION: Final = "(the position in the array, from 0)"
EXTRA: Final = "(what the map does not know)"

TIME = DateTime(timezone=True)
UUID_ = UUID(as_uuid=True)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What the rows of a projected table are made from."""

    kind: Kind
    path: str
    shape: Shape
    always: bool = False
    """A part has its row even when the document has no such object."""


_origins: dict[str, Origin] = {}
"""By table. Not in the table's `info`, which Alembic would write into revisions."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a column is filled from."""

    path: str
    observed: bool = False
    """Set by the latest observation; neither hashed nor stored in the document."""
    token: bool = False
    """A token that cleaning turned into `sha256:<hex>`: the column holds the hex alone."""
    json_types: tuple[str, ...] = ()
    """The JSON types that it comes in besides null; empty: any."""
    members: tuple[str, ...] = ()
    """The values that the API documents, where they are few: another one is news."""


def column(
    name: str,
    type_: TypeEngine[Any],
    path: str,
    *constraints: ForeignKey,
    comment: str,
    observed: bool = False,
    token: bool = False,
    index: bool | None = None,
    json_types: tuple[str, ...] | None = None,
    members: tuple[str, ...] = (),
) -> Column[Any]:
    """A column that is filled from a payload. Only keys are NOT NULL."""
    if json_types is None:
        json_types = usual_json_types(type_)
    return Column(
        name,
        type_,
        *constraints,
        comment=comment,
        index=index,
        info={"source": Source(path, observed, token, json_types, members)},
    )


def usual_json_types(type_: TypeEngine[Any]) -> tuple[str, ...]:
    """What the values of a column usually come as."""
    match type_:
        case Boolean():
            return ("boolean",)
        case Integer() | Double():
            return ("number",)
        case JSONB():
            return ("object",)
        case _:
            return ("string",)


def extra() -> Column[Any]:
    """Where unknown members of a row's object are kept."""
    return column(
        "extra", JSONB(), EXTRA, comment="Members that the map does not know, cleaned; else NULL."
    )


def seen() -> list[Column[Any]]:
    """When history first saw an entity and last saw it change: set from its versions."""
    return [
        Column("first_seen_at", TIME, comment="valid_from of the first version."),
        Column("last_changed_at", TIME, comment="valid_from of the version in force."),
    ]


def projection(
    name: str,
    kind: Kind,
    path: str,
    shape: Shape,
    *columns: Column[Any],
    key: tuple[str, ...],
    comment: str,
    always: bool = False,
) -> Table:
    """A normalized table: a pure function of the documents in force."""
    _origins[name] = Origin(kind, path, shape, always=always)
    return Table(name, metadata, *columns, PrimaryKeyConstraint(*key), comment=comment)


def persona_key() -> Column[Any]:
    """The key of a table with at most one row a persona."""
    return column(
        "persona_id", UUID_, OWNER, ForeignKey("personas.persona_id"), comment="The persona."
    )


def position() -> Column[Any]:
    """The place in the payload's array. The order is as first observed."""
    return column("position", Integer(), POSITION, comment="Place in the API's array, from 0.")


avatars = projection(
    "avatars",
    "avatar",
    "",
    "entity",
    column("avatar_id", UUID_, OWNER, comment="Anam's id of the avatar."),
    column("display_name", Text(), "displayName", comment="The avatar's name, e.g. Liv."),
    column("variant_name", Text(), "variantName", comment="The variant of the look, e.g. home."),
    column("image_url", Text(), "imageUrl", comment="Still picture."),
    column("video_url", Text(), "videoUrl", comment="Preview clip, without its signature."),
    column("active_version", Text(), "activeVersion", comment="Model version in use."),
    column(
        "created_by_organization_id",
        Text(),
        "createdByOrganizationId",
        comment="Who made it; NULL for stock. A uuid or another kind of id.",
    ),
    column("created_at", TIME, "createdAt", comment="When it was made, says Anam."),
    column(
        "updated_at",
        TIME,
        "updatedAt",
        observed=True,
        comment="When it was last edited, says Anam, as of the latest observation.",
    ),
    # New columns above this line.
    *seen(),
    extra(),
    key=("avatar_id",),
    comment="A face. Shared by personas.",
)

avatar_available_versions = projection(
    "avatar_available_versions",
    "avatar",
    "availableVersions[]",
    "values",
    column("avatar_id", UUID_, OWNER, ForeignKey("avatars.avatar_id"), comment="The avatar."),
    column("version", Text(), SELF, comment="A model version that it can be run with."),
    position(),
    key=("avatar_id", "version"),
    comment="The model versions that an avatar is available in.",
)

voices = projection(
    "voices",
    "voice",
    "",
    "entity",
    column("voice_id", UUID_, OWNER, comment="Anam's id of the voice."),
    column("display_name", Text(), "displayName", comment="The voice's name."),
    column(
        "provider",
        Text(),
        "provider",
        comment="ELEVENLABS, CARTESIA, …: an open set.",
        members=("ELEVENLABS", "CARTESIA"),
    ),
    column("provider_voice_id", Text(), "providerVoiceId", comment="The provider's id of it."),
    column("provider_model_id", Text(), "providerModelId", comment="The provider's model."),
    column("sample_url", Text(), "sampleUrl", comment="A sample to listen to."),
    column("preview_sample_url", Text(), "previewSampleUrl", comment="A shorter sample."),
    column(
        "gender",
        Text(),
        "gender",
        comment="MALE, FEMALE, NEUTRAL or NULL.",
        members=("MALE", "FEMALE", "NEUTRAL"),
    ),
    column("country", Text(), "country", comment="ISO 3166-1 alpha-2 code of the accent."),
    column("description", Text(), "description", comment="What it sounds like."),
    column("is_zdr", Boolean(), "isZdr", comment="Whether zero data retention is possible."),
    column(
        "created_by_organization_id",
        Text(),
        "createdByOrganizationId",
        comment="Who made it; NULL for stock. A uuid or another kind of id.",
    ),
    column("created_at", TIME, "createdAt", comment="When it was made, says Anam."),
    column(
        "updated_at",
        TIME,
        "updatedAt",
        observed=True,
        comment="When it was last edited, says Anam, as of the latest observation.",
    ),
    # New columns above this line.
    *seen(),
    extra(),
    key=("voice_id",),
    comment="A way of speaking. Shared by personas.",
)

voice_display_tags = projection(
    "voice_display_tags",
    "voice",
    "displayTags[]",
    "values",
    column("voice_id", UUID_, OWNER, ForeignKey("voices.voice_id"), comment="The voice."),
    column("tag", Text(), SELF, comment="The tag."),
    position(),
    key=("voice_id", "tag"),
    comment="The tags shown with a voice.",
)

tools = projection(
    "tools",
    "tool",
    "",
    "entity",
    column("tool_id", UUID_, OWNER, comment="Anam's id of the tool."),
    column("name", Text(), "name", comment="The name that the model calls it by."),
    column("description", Text(), "description", comment="What the model is told it does."),
    column(
        "type",
        Text(),
        "type",
        comment="CLIENT, SERVER_RAG, SERVER_WEBHOOK, SYSTEM, …",
        members=("CLIENT", "SERVER_RAG", "SERVER_WEBHOOK", "SYSTEM"),
    ),
    column("config", JSONB(), "config", comment="By type; values of headers are blanked."),
    column(
        "usage_count",
        BigInteger(),
        "usageCount",
        observed=True,
        comment="How many personas use it, says Anam, as of the latest observation.",
    ),
    column("created_at", TIME, "createdAt", comment="When it was made, says Anam."),
    column(
        "updated_at",
        TIME,
        "updatedAt",
        observed=True,
        comment="When it was last edited, says Anam, as of the latest observation.",
    ),
    # New columns above this line.
    *seen(),
    extra(),
    key=("tool_id",),
    comment="Something that a persona can call. Shared by personas.",
)

knowledge_groups = projection(
    "knowledge_groups",
    "knowledge_group",
    "",
    "entity",
    column("knowledge_group_id", UUID_, OWNER, comment="Anam's id of the knowledge group."),
    column("name", Text(), "name", comment="Its name."),
    column("description", Text(), "description", comment="What it holds."),
    column(
        "document_count",
        BigInteger(),
        "documentCount",
        observed=True,
        comment="How many documents it holds, as of the latest observation.",
    ),
    column("created_at", TIME, "createdAt", comment="When it was made, says Anam."),
    column(
        "updated_at",
        TIME,
        "updatedAt",
        observed=True,
        comment="When it was last edited, says Anam, as of the latest observation.",
    ),
    # New columns above this line.
    *seen(),
    extra(),
    key=("knowledge_group_id",),
    comment="A set of documents that personas answer from. Shared by personas.",
)

personas = projection(
    "personas",
    "persona",
    "",
    "entity",
    column("persona_id", UUID_, OWNER, comment="Anam's id of the persona."),
    column("name", Text(), "name", comment="The persona's name."),
    column("description", Text(), "description", comment="What it is for."),
    column("persona_preset", Text(), "personaPreset", comment="Empty when built from scratch."),
    column(
        "avatar_id",
        UUID_,
        "avatar.id",
        ForeignKey("avatars.avatar_id"),
        index=True,
        comment="The face; NULL when it has none.",
    ),
    column("avatar_model", Text(), "avatarModel", comment="E.g. cara-3."),
    column(
        "voice_id",
        UUID_,
        "voice.id",
        ForeignKey("voices.voice_id"),
        index=True,
        comment="The voice; NULL when it has none.",
    ),
    column("voice_speed", Double(), "voiceSpeed", comment="A multiplier; 1 is as recorded."),
    column(
        "llm_id",
        Text(),
        "llmId",
        index=True,
        comment="The language model: usually a uuid, also CUSTOMER_CLIENT_V1 and older names.",
    ),
    column(
        "primary_share_link_token_sha256",
        Text(),
        "primaryShareLink.token",
        token=True,
        comment="SHA-256 (hex) of the primary share link's token.",
    ),
    column(
        "primary_share_link_enabled",
        Boolean(),
        "primaryShareLink.enabled",
        comment="Whether the primary share link opens.",
    ),
    column(
        "enable_audio_passthrough",
        Boolean(),
        "enableAudioPassthrough",
        comment="Whether audio comes from the caller's own pipeline.",
    ),
    column("skip_greeting", Boolean(), "skipGreeting", comment="Whether it waits to be spoken to."),
    column(
        "zero_data_retention",
        Boolean(),
        "zeroDataRetention",
        comment="Whether conversations are kept nowhere.",
    ),
    column("widget_config", JSONB(), "widgetConfig", comment="The embedded player's settings."),
    column("created_at", TIME, "createdAt", comment="When it was made, says Anam."),
    column(
        "updated_at",
        TIME,
        "updatedAt",
        observed=True,
        comment="When it was last edited, says Anam, as of the latest observation.",
    ),
    Column("removed_at", TIME, comment="When the API first said that it is gone; NULL: live."),
    # New columns above this line.
    *seen(),
    extra(),
    key=("persona_id",),
    comment="The configured personas as last seen. A removed one keeps its row.",
)

brains = projection(
    "brains",
    "persona",
    "brain",
    "part",
    persona_key(),
    column("personality", Text(), "personality", comment="Short character description."),
    column("system_prompt", Text(), "systemPrompt", comment="What the model is told to be."),
    # New columns above this line.
    extra(),
    key=("persona_id",),
    comment="What a persona is told to be. A row for every persona.",
    always=True,
)

persona_tools = projection(
    "persona_tools",
    "persona",
    "tools[]",
    "references",
    persona_key(),
    column(
        "tool_id", UUID_, "id", ForeignKey("tools.tool_id"), index=True, comment="The tool it has."
    ),
    position(),
    key=("persona_id", "tool_id"),
    comment="Which persona can call which tool.",
)

persona_knowledge_groups = projection(
    "persona_knowledge_groups",
    "persona",
    "knowledge[]",
    "references",
    persona_key(),
    column(
        "knowledge_group_id",
        UUID_,
        "id",
        ForeignKey("knowledge_groups.knowledge_group_id"),
        index=True,
        comment="The knowledge group it has.",
    ),
    position(),
    key=("persona_id", "knowledge_group_id"),
    comment="Which persona answers from which knowledge group.",
)

share_links = projection(
    "share_links",
    "persona",
    "shareLinks[]",
    "elements",
    column("share_link_id", UUID_, "id", comment="Anam's id of the share link."),
    column(
        "persona_id",
        UUID_,
        OWNER,
        ForeignKey("personas.persona_id"),
        index=True,
        comment="The persona that it opens.",
    ),
    column(
        "token_sha256",
        Text(),
        "token",
        token=True,
        comment="SHA-256 (hex) of the token: whoever has the token can open the persona.",
    ),
    column(
        "type",
        Text(),
        "type",
        comment="LINK, PLAYER_EMBED, ORB_EMBED, …",
        members=("LINK", "PLAYER_EMBED", "ORB_EMBED"),
    ),
    column("expires_at", TIME, "expiresAt", comment="NULL: never."),
    column("usage_limit", BigInteger(), "usageLimit", comment="NULL: none."),
    column(
        "usage_count",
        BigInteger(),
        "usageCount",
        observed=True,
        comment="How often it was used, as of the latest observation.",
    ),
    column("allow_all_origins", Boolean(), "allowAllOrigins", comment="Opens from any site."),
    column("remove_watermark", Boolean(), "removeWatermark", comment="Shows no watermark."),
    column("enabled", Boolean(), "enabled", comment="Whether it opens."),
    column("is_primary", Boolean(), "isPrimary", comment="Whether it is the persona's main link."),
    column("created_at", TIME, "createdAt", comment="When it was made, says Anam."),
    # New columns above this line.
    extra(),
    key=("share_link_id",),
    comment="Links that open a persona to the public.",
)

share_link_allowed_origins = projection(
    "share_link_allowed_origins",
    "persona",
    "shareLinks[].allowedOrigins[]",
    "values",
    column(
        "share_link_id",
        UUID_,
        PARENT,
        ForeignKey("share_links.share_link_id"),
        comment="The share link.",
    ),
    column("origin", Text(), SELF, comment="A site that may embed it."),
    position(),
    key=("share_link_id", "origin"),
    comment="The sites that a share link may be embedded in.",
)

voice_detection_options = projection(
    "voice_detection_options",
    "persona",
    "voiceDetectionOptions",
    "part",
    persona_key(),
    column(
        "end_of_speech_sensitivity",
        Double(),
        "endOfSpeechSensitivity",
        comment="0 to 1: how soon a pause counts as the end of a turn.",
    ),
    column(
        "silence_before_skip_turn_seconds",
        Double(),
        "silenceBeforeSkipTurnSeconds",
        comment="0 to 900 seconds of silence, then the persona speaks again; 0: off.",
    ),
    column(
        "silence_before_session_end_seconds",
        Double(),
        "silenceBeforeSessionEndSeconds",
        comment="0 to 7200 seconds of silence, then the session ends; 0: off.",
    ),
    column(
        "silence_before_auto_end_turn_seconds",
        Double(),
        "silenceBeforeAutoEndTurnSeconds",
        comment="0.5 to 10 seconds of silence, then the user's turn ends.",
    ),
    column(
        "speech_enhancement_level",
        Double(),
        "speechEnhancementLevel",
        comment="0 to 1: how strongly background noise is suppressed.",
    ),
    # New columns above this line.
    extra(),
    key=("persona_id",),
    comment="When a persona thinks that it is its turn. No row: the defaults.",
)

voice_generation_options = projection(
    "voice_generation_options",
    "persona",
    "voiceGenerationOptions",
    "part",
    persona_key(),
    column("stability", Double(), "stability", comment="ElevenLabs, 0 to 1."),
    column("similarity_boost", Double(), "similarityBoost", comment="ElevenLabs, 0 to 1."),
    column("style", Double(), "style", comment="ElevenLabs v2 voices, 0 to 1."),
    column("use_speaker_boost", Boolean(), "useSpeakerBoost", comment="ElevenLabs v2 voices."),
    column("model", Text(), "model", comment="ElevenLabs v2 voices: the model."),
    column("speed", Double(), "speed", comment="ElevenLabs 0.7 to 1.2, Cartesia 0.6 to 1.5."),
    column("volume", Double(), "volume", comment="Cartesia, 0.5 to 2."),
    column("emotion", Text(), "emotion", comment="Cartesia."),
    # New columns above this line.
    extra(),
    key=("persona_id",),
    comment="How the voice is rendered; fields depend on its provider. No row: the defaults.",
)


# New tables above this line.

# ── What history is made from ────────────────────────────────────────────────────────────────────

documents = Table(
    "documents",
    metadata,
    Column("kind", Text, comment="persona, avatar, voice, tool or knowledge_group."),
    Column("content_hash", LargeBinary, comment="SHA-256 of the canonical document."),
    Column("entity_id", UUID_, nullable=False, comment="Whose document it is."),
    Column(
        "document",
        JSONB,
        nullable=False,
        comment="Cleaned, without the observed fields; arrays in the order first observed.",
    ),
    PrimaryKeyConstraint("kind", "content_hash"),
    # A share link that two personas claim is settled by looking its claimants up.
    Index(
        "ix_documents_share_links",
        literal_column("(document -> 'shareLinks')").label("share_links"),
        postgresql_using="gin",
        postgresql_ops={"share_links": "jsonb_path_ops"},
        postgresql_where=text("kind = 'persona'"),
    ),
    comment="Each distinct document once.",
)

observations = Table(
    "observations",
    metadata,
    Column("kind", Text, comment="The document's kind."),
    Column("entity_id", UUID_, comment="The document's entity."),
    Column("observed_at", TIME, comment="When the answer was complete, by the database's clock."),
    Column("persona_id", UUID_, comment="The persona whose payload brought it."),
    Column("content_hash", LargeBinary, comment="The document seen; NULL: a 404."),
    Column("source_updated_at", TIME, comment="The updatedAt that came with it."),
    Column("run_id", UUID_, comment="The run that saw it."),
    PrimaryKeyConstraint("kind", "entity_id", "observed_at", "persona_id"),
    ForeignKeyConstraint(["kind", "content_hash"], ["documents.kind", "documents.content_hash"]),
    Index(None, "persona_id", "kind", "entity_id", "observed_at"),
    # Also answers: what is the newest updatedAt that came with this content?
    Index(None, "kind", "content_hash", "source_updated_at"),
    comment="What was seen when. Versions are a fold over these.",
)

document_versions = Table(
    "document_versions",
    metadata,
    Column("kind", Text, comment="The document's kind."),
    Column("entity_id", UUID_, comment="The document's entity."),
    Column("version", Integer, comment="Rank in time, from 1."),
    Column("valid_from", TIME, nullable=False, comment="First observation of this content."),
    Column("valid_to", TIME, comment="valid_from of the next version; NULL: in force."),
    Column("last_observed_at", TIME, nullable=False, comment="Latest observation of this content."),
    Column("content_hash", LargeBinary, comment="The document in force; NULL: removed, or pruned."),
    Column("source_updated_at", TIME, comment="The smallest updatedAt seen with this content."),
    Column(
        "change",
        Text,
        nullable=False,
        comment="created, updated, reshaped (the API's shape moved), removed, restored; pruned.",
    ),
    Column(
        "changed_paths",
        ARRAY(Text),
        nullable=False,
        comment="Paths that differ from the version before; empty for the first.",
    ),
    Column("run_id", UUID_, comment="The run whose observation opened it."),
    PrimaryKeyConstraint("kind", "entity_id", "version"),
    UniqueConstraint("kind", "entity_id", "valid_from"),
    UniqueConstraint("kind", "entity_id", "valid_to"),
    ForeignKeyConstraint(["kind", "content_hash"], ["documents.kind", "documents.content_hash"]),
    # With the two unique keys: no overlap and no gap.
    ForeignKeyConstraint(
        ["kind", "entity_id", "valid_to"],
        ["document_versions.kind", "document_versions.entity_id", "document_versions.valid_from"],
        deferrable=True,
        initially="DEFERRED",
    ),
    CheckConstraint("valid_from < valid_to", name="valid_from_before_valid_to"),
    CheckConstraint(
        "change IN ('created', 'updated', 'reshaped', 'removed', 'restored', 'pruned')",
        name="change",
    ),
    CheckConstraint(
        "(change IN ('removed', 'pruned')) = (content_hash IS NULL)", name="removed_has_no_content"
    ),
    Index(
        "uq_document_versions_open",
        "kind",
        "entity_id",
        unique=True,
        postgresql_where=text("valid_to IS NULL"),
    ),
    Index(None, "kind", "content_hash"),
    Index(None, "kind", "valid_from"),
    comment="What was in force when.",
)

# ── The ledger ───────────────────────────────────────────────────────────────────────────────────

persona_sync_state = Table(
    "persona_sync_state",
    metadata,
    Column("persona_id", UUID_, comment="The persona, seen or not."),
    Column("last_attempt_at", TIME, nullable=False, comment="When it was last asked for."),
    Column("last_success_at", TIME, comment="When its content was last brought or confirmed."),
    Column("last_outcome", Text, nullable=False, comment="The outcome of the last attempt."),
    Column(
        "consecutive_failures",
        Integer,
        nullable=False,
        comment="Attempts in a row that ended forbidden, rejected or failed.",
    ),
    Column("last_run_id", UUID_, nullable=False, comment="The run of the last attempt."),
    Column(
        "body_sha256",
        LargeBinary,
        comment="Of the last body with signed queries masked: the same again is unchanged.",
    ),
    Column(
        "content_sha256",
        LargeBinary,
        comment="Of all document hashes last brought: the same again is unchanged.",
    ),
    PrimaryKeyConstraint("persona_id"),
    # Every run rewrites each row: room on the page keeps that from growing the indexes.
    postgresql_with={"fillfactor": "60"},
    comment="All that an unchanged persona touches.",
)

OUTCOMES: Final = (
    "created",
    "updated",
    "reshaped",
    "unchanged",
    "restored",
    "missing",
    "forbidden",
    "rejected",
    "failed",
    "not_attempted",
)
SUCCESSES: Final = ("created", "updated", "reshaped", "unchanged", "restored")
FAILURES: Final = ("forbidden", "rejected", "failed")


def count(name: str, comment: str) -> Column[int]:
    """A counter of a run."""
    return Column(name, Integer, nullable=False, server_default=text("0"), comment=comment)


runs = Table(
    "runs",
    metadata,
    Column("run_id", UUID_, comment="The run."),
    Column("command", Text, nullable=False, comment="The command, e.g. sync."),
    Column(
        "status",
        Text,
        nullable=False,
        comment="running, succeeded, partial, failed, skipped, deferred, interrupted, crashed.",
    ),
    Column("started_at", TIME, nullable=False, comment="By the database's clock."),
    Column("finished_at", TIME, comment="NULL while it runs."),
    count("requested", "Personas asked for: the sum of the outcomes."),
    count("created", "Seen for the first time."),
    count("updated", "Changed."),
    count("reshaped", "Differ only by members that the API added or left out."),
    count("unchanged", "As before."),
    count("restored", "Back after a 404."),
    count("missing", "The API says 404."),
    count("forbidden", "The API says 403."),
    count("rejected", "A body came that is no persona."),
    count("failed", "No whole body could be got."),
    count("not_attempted", "Not asked for, or not settled, when the run ended."),
    count("value_issues", "Values that did not fit their column, new in this run."),
    count("new_drift_paths", "Differences of API and map, new in this run."),
    count("http_requests", "Requests made, retries included."),
    Column("error", Text, comment="Why it stopped, in one line."),
    Column("host", Text, nullable=False, comment="The machine that it ran on."),
    Column("pid", Integer, nullable=False, comment="Its process there."),
    Column("version", Text, nullable=False, comment="Of persona-etl."),
    Column("resumes", UUID_, comment="The run whose rest this one asks for; NULL: none."),
    PrimaryKeyConstraint("run_id"),
    Index(None, "started_at"),
    # The next run looks for orphans, of which there are hardly ever any.
    Index("ix_runs_running", "started_at", postgresql_where=text("status = 'running'")),
    comment="The ledger: a row a run.",
)

run_items = Table(
    "run_items",
    metadata,
    Column("run_id", UUID_, ForeignKey("runs.run_id"), comment="The run."),
    Column("persona_id", UUID_, comment="The persona."),
    Column("outcome", Text, nullable=False, comment="What became of it in this run."),
    Column("http_status", Integer, comment="Of the last answer; NULL: none came."),
    Column("attempts", Integer, nullable=False, comment="Requests made for it."),
    Column("duration_ms", Integer, nullable=False, comment="Over all attempts, milliseconds."),
    Column("message", Text, comment="What went wrong, in one line."),
    PrimaryKeyConstraint("run_id", "persona_id"),
    Index(None, "persona_id", "run_id"),
    comment="What a run did to whom. Unchanged personas have no row.",
)

value_issues = Table(
    "value_issues",
    metadata,
    Column("kind", Text, comment="The document's kind."),
    Column("entity_id", UUID_, comment="The document's entity."),
    Column("path", Text, comment="The API's path, relative to the document."),
    Column("problem", Text, nullable=False, comment="What is wrong, in words."),
    Column("expected", Text, comment="What would fit."),
    Column("got", Text, comment="Type and shape of what came, never the value."),
    Column("first_seen_at", TIME, nullable=False, comment="When it was first met."),
    Column("last_seen_at", TIME, nullable=False, comment="When it was last met in new content."),
    Column("resolved_at", TIME, comment="When it was gone; NULL: open."),
    Column("run_id", UUID_, comment="The run that met it last."),
    PrimaryKeyConstraint("kind", "entity_id", "path"),
    Index(
        "ix_value_issues_open",
        "kind",
        "entity_id",
        postgresql_where=text("resolved_at IS NULL"),
    ),
    comment="Values that do not fit their column: NULL there, kept in the document.",
)

rejected_payloads = Table(
    "rejected_payloads",
    metadata,
    Column("id", UUID_, comment="Of this rejection."),
    Column(
        "persona_id",
        UUID_,
        comment="The persona that was asked for; NULL: a line of a file that names none.",
    ),
    Column("run_id", UUID_, nullable=False, comment="The run."),
    Column("observed_at", TIME, nullable=False, comment="When the answer was complete."),
    Column("reason", Text, nullable=False, comment="Why it is no persona."),
    Column("body", JSONB, comment="Cleaned; NULL when it does not parse."),
    Column("length", BigInteger, nullable=False, comment="Of the body, bytes."),
    Column("sha256", LargeBinary, comment="Of the body; NULL when it was not read to its end."),
    Column("content_type", Text, comment="As the answer said."),
    PrimaryKeyConstraint("id"),
    Index(None, "persona_id", "observed_at"),
    comment="Answers that are no persona.",
)

drift_paths = Table(
    "drift_paths",
    metadata,
    Column("kind", Text, comment="The document's kind."),
    Column("path", Text, comment="Relative to the document; `[]` any element, `*` any id."),
    Column(
        "problem",
        Text,
        comment="unknown to the map; missing: sent no more; type_changed; new_value of a few.",
    ),
    Column("json_types", ARRAY(Text), nullable=False, comment="The JSON types that it came in."),
    Column("first_seen_at", TIME, nullable=False, comment="When it first came."),
    Column("last_seen_at", TIME, nullable=False, comment="When it last came in new content."),
    Column("occurrences", BigInteger, nullable=False, comment="In how many new documents."),
    Column("status", Text, nullable=False, comment="open, accepted, ignored or mapped."),
    Column(
        "shapes",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="What the values look like: uuid, time, text, whole number, …; never a value.",
    ),
    Column(
        "new_members",
        ARRAY(Text),
        nullable=False,
        server_default=text("'{}'"),
        comment="Of new_value: the first new members, cleaned.",
    ),
    PrimaryKeyConstraint("kind", "path", "problem"),
    comment="Where the API and the map differ.",
)

local_columns = Table(
    "local_columns",
    metadata,
    Column("table_name", Text, comment="The table; also one that the line makes."),
    Column("column_name", Text, comment="The column that it is filled into."),
    Column("kind", Text, nullable=False, comment="The document's kind."),
    Column("path", Text, nullable=False, comment="The API's path; ends in [] for a list."),
    Column("type", Text, nullable=False, comment="The type that the column has, in SQL."),
    Column("json_types", ARRAY(Text), nullable=False, comment="The JSON types that it came in."),
    Column("comment", Text, nullable=False, comment="The column's comment."),
    Column("revision", Text, nullable=False, comment="The local revision that made it."),
    Column(
        "added_at",
        TIME,
        nullable=False,
        server_default=text("now()"),
        comment="When that revision was run.",
    ),
    PrimaryKeyConstraint("table_name", "column_name"),
    comment="The map's lines that were added here rather than by a release.",
)

unfolded = Table(
    "unfolded",
    metadata,
    Column("kind", Text, comment="The document's kind."),
    Column("entity_id", UUID_, comment="The document's entity."),
    Column(
        "content_hash",
        LargeBinary,
        server_default=text("''"),
        comment="The content that `observed` came with; or empty.",
    ),
    Column("observed_at", TIME, comment="When `observed` came; NULL: none did."),
    Column("source_updated_at", TIME, comment="The updatedAt that came with it."),
    Column(
        "observed",
        JSONB,
        comment="Of its latest copy: the observed columns, and what did not fit.",
    ),
    PrimaryKeyConstraint("kind", "entity_id", "content_hash"),
    comment="Whose versions do not tell yet what was observed: the next run folds it.",
)

pruned_history = Table(
    "pruned_history",
    metadata,
    Column("kind", Text, comment="The document's kind."),
    Column("entity_id", UUID_, comment="The document's entity."),
    Column("version", Integer, nullable=False, comment="The last version that is not kept."),
    Column("valid_from", TIME, nullable=False, comment="When the first version began."),
    Column("valid_to", TIME, nullable=False, comment="When the first kept version begins."),
    Column("last_observed_at", TIME, nullable=False, comment="Of the last that is not kept."),
    Column("next_content_hash", LargeBinary, nullable=False, comment="Of the first kept version."),
    Column("next_change", Text, nullable=False, comment="What the first kept version is."),
    Column("next_changed_paths", ARRAY(Text), nullable=False, comment="And where it differs."),
    Column("run_id", UUID_, comment="The run that pruned it last."),
    PrimaryKeyConstraint("kind", "entity_id"),
    comment="Histories whose beginning is not kept: what the fold goes on from.",
)

erasures = Table(
    "erasures",
    metadata,
    Column("persona_sha256", LargeBinary, comment="Of the persona's id: the id itself is gone."),
    Column("erased_at", TIME, server_default=text("now()"), comment="When it was forgotten."),
    Column("rows_deleted", JSONB, nullable=False, comment="How many rows went, by table."),
    Column("run_id", UUID_, comment="The run that forgot it."),
    Column("lifted_at", TIME, comment="When it was let in again; NULL: it is kept out."),
    PrimaryKeyConstraint("persona_sha256", "erased_at"),
    comment="Receipts of forget: who was erased, when, and how much that was.",
)


# ── Reading the map ──────────────────────────────────────────────────────────────────────────────


def origins() -> Mapping[str, Origin]:
    """What the rows of the projected tables are made from, by table."""
    return _origins


def origin(table: Table) -> Origin:
    """What a projected table's rows are made from."""
    return _origins[table.name]


def source(column_: Column[Any]) -> Source | None:
    """What a column is filled from; None for those that history sets."""
    found: Source | None = column_.info.get("source")
    return found


def is_observed(column_: Column[Any]) -> bool:
    """Whether a column is set by the latest observation, hence not by versions."""
    found = source(column_)
    return found is not None and found.observed


@cache
def owner_of(table: Table) -> Column[Any] | None:
    """The column with the id of the document that a row stems from."""
    return next((c for c in table.columns if (s := source(c)) and s.path == OWNER), None)


@cache
def projections(kind: Kind | None = None) -> tuple[Table, ...]:
    """The normalized tables, referenced ones before those that refer to them."""
    return tuple(
        table
        for table in metadata.sorted_tables
        if table.name in _origins and kind in (None, origin(table).kind)
    )


def observed_paths(kind: Kind) -> list[tuple[str, ...]]:
    """Where the observed fields stand in a document; `[]` stands for each element of an array."""
    return [
        tuple(f"{origin(table).path}.{found.path}".replace("[]", ".[]").strip(".").split("."))
        for table in projections(kind)
        for column_ in table.columns
        if (found := source(column_)) and found.observed
    ]


def set_paths(kind: Kind) -> list[str]:
    """The arrays whose order means nothing, e.g. `displayTags`, `shareLinks[].allowedOrigins`."""
    return [
        origin(table).path.removesuffix("[]")
        for table in projections(kind)
        if origin(table).path.endswith("[]") and origin(table).shape != "list"
    ]


@cache
def entity_table(kind: Kind) -> Table:
    """The table with one row an entity of this kind."""
    return next(t for t in projections(kind) if origin(t).shape == "entity")


def name_column(kind: Kind) -> Column[Any]:
    """What an entity of this kind is called by."""
    columns = entity_table(kind).columns
    return columns["display_name" if "display_name" in columns else "name"]


KINDS: Final[tuple[Kind, ...]] = ("avatar", "voice", "tool", "knowledge_group", "persona")
SHARED: Final[dict[str, Kind]] = {
    "avatar": "avatar",
    "voice": "voice",
    "tools": "tool",
    "knowledge": "knowledge_group",
}
"""The persona's members that embed shared documents, and the kind of each."""
