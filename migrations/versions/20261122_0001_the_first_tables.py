"""The first tables: documents and their history, the normalized tables, the ledger.

Why: observations say what was seen when, versions what was in force when, the normalized tables
what is in force now. Each can be made again from the one before it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Everything: this is the first revision."""
    op.create_table(
        "avatars",
        sa.Column("avatar_id", sa.UUID(), nullable=False, comment="Anam's id of the avatar."),
        sa.Column("display_name", sa.Text(), nullable=True, comment="The avatar's name, e.g. Liv."),
        sa.Column(
            "variant_name", sa.Text(), nullable=True, comment="The variant of the look, e.g. home."
        ),
        sa.Column("image_url", sa.Text(), nullable=True, comment="Still picture."),
        sa.Column(
            "video_url", sa.Text(), nullable=True, comment="Preview clip, without its signature."
        ),
        sa.Column("active_version", sa.Text(), nullable=True, comment="Model version in use."),
        sa.Column(
            "created_by_organization_id",
            sa.Text(),
            nullable=True,
            comment="Who made it; NULL for stock. A uuid or another kind of id.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was made, says Anam.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was last edited, says Anam, as of the latest observation.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the first version.",
        ),
        sa.Column(
            "last_changed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the version in force.",
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Members that the map does not know, cleaned; else NULL.",
        ),
        sa.PrimaryKeyConstraint("avatar_id", name=op.f("pk_avatars")),
        comment="A face. Shared by personas.",
    )
    op.create_table(
        "documents",
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="persona, avatar, voice, tool or knowledge_group.",
        ),
        sa.Column(
            "content_hash",
            sa.LargeBinary(),
            nullable=False,
            comment="SHA-256 of the canonical document.",
        ),
        sa.Column("entity_id", sa.UUID(), nullable=False, comment="Whose document it is."),
        sa.Column(
            "document",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="Cleaned, without the observed fields; arrays in the order first observed.",
        ),
        sa.PrimaryKeyConstraint("kind", "content_hash", name=op.f("pk_documents")),
        comment="Each distinct document once.",
    )
    op.create_index(
        "ix_documents_share_links",
        "documents",
        [sa.literal_column("(document -> 'shareLinks')").label("share_links")],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"share_links": "jsonb_path_ops"},
        postgresql_where=sa.text("kind = 'persona'"),
    )
    op.create_table(
        "drift_paths",
        sa.Column("kind", sa.Text(), nullable=False, comment="The document's kind."),
        sa.Column(
            "path",
            sa.Text(),
            nullable=False,
            comment="Relative to the document; `[]` any element, `*` any id.",
        ),
        sa.Column(
            "problem", sa.Text(), nullable=False, comment="unknown: the map does not know it."
        ),
        sa.Column(
            "json_types",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="The JSON types that it came in.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it first came.",
        ),
        sa.Column(
            "last_seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it last came in new content.",
        ),
        sa.Column(
            "occurrences", sa.BigInteger(), nullable=False, comment="In how many new documents."
        ),
        sa.Column(
            "status", sa.Text(), nullable=False, comment="open, accepted, ignored or mapped."
        ),
        sa.PrimaryKeyConstraint("kind", "path", "problem", name=op.f("pk_drift_paths")),
        comment="Where the API and the map differ.",
    )
    op.create_table(
        "knowledge_groups",
        sa.Column(
            "knowledge_group_id",
            sa.UUID(),
            nullable=False,
            comment="Anam's id of the knowledge group.",
        ),
        sa.Column("name", sa.Text(), nullable=True, comment="Its name."),
        sa.Column("description", sa.Text(), nullable=True, comment="What it holds."),
        sa.Column(
            "document_count",
            sa.BigInteger(),
            nullable=True,
            comment="How many documents it holds, as of the latest observation.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was made, says Anam.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was last edited, says Anam, as of the latest observation.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the first version.",
        ),
        sa.Column(
            "last_changed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the version in force.",
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Members that the map does not know, cleaned; else NULL.",
        ),
        sa.PrimaryKeyConstraint("knowledge_group_id", name=op.f("pk_knowledge_groups")),
        comment="A set of documents that personas answer from. Shared by personas.",
    )
    op.create_table(
        "persona_sync_state",
        sa.Column("persona_id", sa.UUID(), nullable=False, comment="The persona, seen or not."),
        sa.Column(
            "last_attempt_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was last asked for.",
        ),
        sa.Column(
            "last_success_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When its content was last brought or confirmed.",
        ),
        sa.Column(
            "last_outcome", sa.Text(), nullable=False, comment="The outcome of the last attempt."
        ),
        sa.Column(
            "consecutive_failures",
            sa.Integer(),
            nullable=False,
            comment="Attempts in a row that ended forbidden, rejected or failed.",
        ),
        sa.Column("last_run_id", sa.UUID(), nullable=False, comment="The run of the last attempt."),
        sa.Column(
            "body_sha256",
            sa.LargeBinary(),
            nullable=True,
            comment="Of the last body with signed queries masked: the same again is unchanged.",
        ),
        sa.Column(
            "content_sha256",
            sa.LargeBinary(),
            nullable=True,
            comment="Of all document hashes last brought: the same again is unchanged.",
        ),
        sa.PrimaryKeyConstraint("persona_id", name=op.f("pk_persona_sync_state")),
        comment="All that an unchanged persona touches.",
        postgresql_with={"fillfactor": "60"},
    )
    op.create_table(
        "rejected_payloads",
        sa.Column("id", sa.UUID(), nullable=False, comment="Of this rejection."),
        sa.Column(
            "persona_id", sa.UUID(), nullable=False, comment="The persona that was asked for."
        ),
        sa.Column("run_id", sa.UUID(), nullable=False, comment="The run."),
        sa.Column(
            "observed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When the answer was complete.",
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="Why it is no persona."),
        sa.Column(
            "body",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Cleaned; NULL when it does not parse.",
        ),
        sa.Column("length", sa.BigInteger(), nullable=False, comment="Of the body, bytes."),
        sa.Column(
            "sha256",
            sa.LargeBinary(),
            nullable=True,
            comment="Of the body; NULL when it was not read to its end.",
        ),
        sa.Column("content_type", sa.Text(), nullable=True, comment="As the answer said."),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejected_payloads")),
        comment="Answers that are no persona.",
    )
    op.create_index(
        op.f("ix_rejected_payloads_persona_id_observed_at"),
        "rejected_payloads",
        ["persona_id", "observed_at"],
        unique=False,
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.UUID(), nullable=False, comment="The run."),
        sa.Column("command", sa.Text(), nullable=False, comment="The command, e.g. sync."),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="running, succeeded, partial, failed, skipped, deferred, interrupted, crashed.",
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="By the database's clock.",
        ),
        sa.Column(
            "finished_at", sa.DateTime(timezone=True), nullable=True, comment="NULL while it runs."
        ),
        sa.Column(
            "requested",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Personas asked for: the sum of the outcomes.",
        ),
        sa.Column(
            "created",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Seen for the first time.",
        ),
        sa.Column(
            "updated", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="Changed."
        ),
        sa.Column(
            "reshaped",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Differ only by members that the API added or left out.",
        ),
        sa.Column(
            "unchanged",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="As before.",
        ),
        sa.Column(
            "restored",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Back after a 404.",
        ),
        sa.Column(
            "missing",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="The API says 404.",
        ),
        sa.Column(
            "forbidden",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="The API says 403.",
        ),
        sa.Column(
            "rejected",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="A body came that is no persona.",
        ),
        sa.Column(
            "failed",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="No whole body could be got.",
        ),
        sa.Column(
            "not_attempted",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Not asked for, or not settled, when the run ended.",
        ),
        sa.Column(
            "value_issues",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Values that did not fit their column, new in this run.",
        ),
        sa.Column(
            "new_drift_paths",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Paths that the map does not know, new in this run.",
        ),
        sa.Column(
            "http_requests",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Requests made, retries included.",
        ),
        sa.Column("error", sa.Text(), nullable=True, comment="Why it stopped, in one line."),
        sa.Column("host", sa.Text(), nullable=False, comment="The machine that it ran on."),
        sa.Column("pid", sa.Integer(), nullable=False, comment="Its process there."),
        sa.Column("version", sa.Text(), nullable=False, comment="Of persona-etl."),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
        comment="The ledger: a row a run.",
    )
    op.create_index(
        "ix_runs_running",
        "runs",
        ["started_at"],
        unique=False,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(op.f("ix_runs_started_at"), "runs", ["started_at"], unique=False)
    op.create_table(
        "tools",
        sa.Column("tool_id", sa.UUID(), nullable=False, comment="Anam's id of the tool."),
        sa.Column("name", sa.Text(), nullable=True, comment="The name that the model calls it by."),
        sa.Column(
            "description", sa.Text(), nullable=True, comment="What the model is told it does."
        ),
        sa.Column(
            "type",
            sa.Text(),
            nullable=True,
            comment="CLIENT, SERVER_RAG, SERVER_WEBHOOK, SYSTEM, …",
        ),
        sa.Column(
            "config",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="By type; values of headers are blanked.",
        ),
        sa.Column(
            "usage_count",
            sa.BigInteger(),
            nullable=True,
            comment="How many personas use it, says Anam, as of the latest observation.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was made, says Anam.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was last edited, says Anam, as of the latest observation.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the first version.",
        ),
        sa.Column(
            "last_changed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the version in force.",
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Members that the map does not know, cleaned; else NULL.",
        ),
        sa.PrimaryKeyConstraint("tool_id", name=op.f("pk_tools")),
        comment="Something that a persona can call. Shared by personas.",
    )
    op.create_table(
        "value_issues",
        sa.Column("kind", sa.Text(), nullable=False, comment="The document's kind."),
        sa.Column("entity_id", sa.UUID(), nullable=False, comment="The document's entity."),
        sa.Column(
            "path", sa.Text(), nullable=False, comment="The API's path, relative to the document."
        ),
        sa.Column("problem", sa.Text(), nullable=False, comment="What is wrong, in words."),
        sa.Column("expected", sa.Text(), nullable=True, comment="What would fit."),
        sa.Column(
            "got", sa.Text(), nullable=True, comment="Type and shape of what came, never the value."
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was first met.",
        ),
        sa.Column(
            "last_seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was last met in new content.",
        ),
        sa.Column(
            "resolved_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was gone; NULL: open.",
        ),
        sa.Column("run_id", sa.UUID(), nullable=True, comment="The run that met it last."),
        sa.PrimaryKeyConstraint("kind", "entity_id", "path", name=op.f("pk_value_issues")),
        comment="Values that do not fit their column: NULL there, kept in the document.",
    )
    op.create_index(
        "ix_value_issues_open",
        "value_issues",
        ["kind", "entity_id"],
        unique=False,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "voices",
        sa.Column("voice_id", sa.UUID(), nullable=False, comment="Anam's id of the voice."),
        sa.Column("display_name", sa.Text(), nullable=True, comment="The voice's name."),
        sa.Column(
            "provider", sa.Text(), nullable=True, comment="ELEVENLABS, CARTESIA, …: an open set."
        ),
        sa.Column(
            "provider_voice_id", sa.Text(), nullable=True, comment="The provider's id of it."
        ),
        sa.Column("provider_model_id", sa.Text(), nullable=True, comment="The provider's model."),
        sa.Column("sample_url", sa.Text(), nullable=True, comment="A sample to listen to."),
        sa.Column("preview_sample_url", sa.Text(), nullable=True, comment="A shorter sample."),
        sa.Column("gender", sa.Text(), nullable=True, comment="MALE, FEMALE, NEUTRAL or NULL."),
        sa.Column(
            "country", sa.Text(), nullable=True, comment="ISO 3166-1 alpha-2 code of the accent."
        ),
        sa.Column("description", sa.Text(), nullable=True, comment="What it sounds like."),
        sa.Column(
            "is_zdr",
            sa.Boolean(),
            nullable=True,
            comment="Whether zero data retention is possible.",
        ),
        sa.Column(
            "created_by_organization_id",
            sa.Text(),
            nullable=True,
            comment="Who made it; NULL for stock. A uuid or another kind of id.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was made, says Anam.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was last edited, says Anam, as of the latest observation.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the first version.",
        ),
        sa.Column(
            "last_changed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the version in force.",
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Members that the map does not know, cleaned; else NULL.",
        ),
        sa.PrimaryKeyConstraint("voice_id", name=op.f("pk_voices")),
        comment="A way of speaking. Shared by personas.",
    )
    op.create_table(
        "avatar_available_versions",
        sa.Column("avatar_id", sa.UUID(), nullable=False, comment="The avatar."),
        sa.Column(
            "version", sa.Text(), nullable=False, comment="A model version that it can be run with."
        ),
        sa.Column(
            "position", sa.Integer(), nullable=True, comment="Place in the API's array, from 0."
        ),
        sa.ForeignKeyConstraint(
            ["avatar_id"],
            ["avatars.avatar_id"],
            name=op.f("fk_avatar_available_versions_avatar_id_avatars"),
        ),
        sa.PrimaryKeyConstraint("avatar_id", "version", name=op.f("pk_avatar_available_versions")),
        comment="The model versions that an avatar is available in.",
    )
    op.create_table(
        "document_versions",
        sa.Column("kind", sa.Text(), nullable=False, comment="The document's kind."),
        sa.Column("entity_id", sa.UUID(), nullable=False, comment="The document's entity."),
        sa.Column("version", sa.Integer(), nullable=False, comment="Rank in time, from 1."),
        sa.Column(
            "valid_from",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="First observation of this content.",
        ),
        sa.Column(
            "valid_to",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the next version; NULL: in force.",
        ),
        sa.Column(
            "last_observed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="Latest observation of this content.",
        ),
        sa.Column(
            "content_hash",
            sa.LargeBinary(),
            nullable=True,
            comment="The document in force; NULL: removed.",
        ),
        sa.Column(
            "source_updated_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="The smallest updatedAt seen with this content.",
        ),
        sa.Column(
            "change",
            sa.Text(),
            nullable=False,
            comment="created, updated, reshaped (the API's shape moved), removed or restored.",
        ),
        sa.Column(
            "changed_paths",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="Paths that differ from the version before; empty for the first.",
        ),
        sa.Column(
            "run_id", sa.UUID(), nullable=True, comment="The run whose observation opened it."
        ),
        sa.CheckConstraint(
            "(change = 'removed') = (content_hash IS NULL)",
            name=op.f("ck_document_versions_removed_has_no_content"),
        ),
        sa.CheckConstraint(
            "change IN ('created', 'updated', 'reshaped', 'removed', 'restored')",
            name=op.f("ck_document_versions_change"),
        ),
        sa.CheckConstraint(
            "valid_from < valid_to", name=op.f("ck_document_versions_valid_from_before_valid_to")
        ),
        sa.ForeignKeyConstraint(
            ["kind", "content_hash"],
            ["documents.kind", "documents.content_hash"],
            name=op.f("fk_document_versions_kind_content_hash_documents"),
        ),
        sa.ForeignKeyConstraint(
            ["kind", "entity_id", "valid_to"],
            [
                "document_versions.kind",
                "document_versions.entity_id",
                "document_versions.valid_from",
            ],
            name=op.f("fk_document_versions_kind_entity_id_valid_to_document_versions"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("kind", "entity_id", "version", name=op.f("pk_document_versions")),
        sa.UniqueConstraint(
            "kind",
            "entity_id",
            "valid_from",
            name=op.f("uq_document_versions_kind_entity_id_valid_from"),
        ),
        sa.UniqueConstraint(
            "kind",
            "entity_id",
            "valid_to",
            name=op.f("uq_document_versions_kind_entity_id_valid_to"),
        ),
        comment="What was in force when.",
    )
    op.create_index(
        op.f("ix_document_versions_kind_content_hash"),
        "document_versions",
        ["kind", "content_hash"],
        unique=False,
    )
    op.create_index(
        op.f("ix_document_versions_kind_valid_from"),
        "document_versions",
        ["kind", "valid_from"],
        unique=False,
    )
    op.create_index(
        "uq_document_versions_open",
        "document_versions",
        ["kind", "entity_id"],
        unique=True,
        postgresql_where=sa.text("valid_to IS NULL"),
    )
    op.create_table(
        "observations",
        sa.Column("kind", sa.Text(), nullable=False, comment="The document's kind."),
        sa.Column("entity_id", sa.UUID(), nullable=False, comment="The document's entity."),
        sa.Column(
            "observed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When the answer was complete, by the database's clock.",
        ),
        sa.Column(
            "persona_id", sa.UUID(), nullable=False, comment="The persona whose payload brought it."
        ),
        sa.Column(
            "content_hash",
            sa.LargeBinary(),
            nullable=True,
            comment="The document seen; NULL: a 404.",
        ),
        sa.Column(
            "source_updated_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="The updatedAt that came with it.",
        ),
        sa.Column("run_id", sa.UUID(), nullable=True, comment="The run that saw it."),
        sa.ForeignKeyConstraint(
            ["kind", "content_hash"],
            ["documents.kind", "documents.content_hash"],
            name=op.f("fk_observations_kind_content_hash_documents"),
        ),
        sa.PrimaryKeyConstraint(
            "kind", "entity_id", "observed_at", "persona_id", name=op.f("pk_observations")
        ),
        comment="What was seen when. Versions are a fold over these.",
    )
    op.create_index(
        op.f("ix_observations_kind_content_hash_source_updated_at"),
        "observations",
        ["kind", "content_hash", "source_updated_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_observations_persona_id_kind_entity_id_observed_at"),
        "observations",
        ["persona_id", "kind", "entity_id", "observed_at"],
        unique=False,
    )
    op.create_table(
        "personas",
        sa.Column("persona_id", sa.UUID(), nullable=False, comment="Anam's id of the persona."),
        sa.Column("name", sa.Text(), nullable=True, comment="The persona's name."),
        sa.Column("description", sa.Text(), nullable=True, comment="What it is for."),
        sa.Column(
            "persona_preset", sa.Text(), nullable=True, comment="Empty when built from scratch."
        ),
        sa.Column(
            "avatar_id", sa.UUID(), nullable=True, comment="The face; NULL when it has none."
        ),
        sa.Column("avatar_model", sa.Text(), nullable=True, comment="E.g. cara-3."),
        sa.Column(
            "voice_id", sa.UUID(), nullable=True, comment="The voice; NULL when it has none."
        ),
        sa.Column(
            "voice_speed", sa.Double(), nullable=True, comment="A multiplier; 1 is as recorded."
        ),
        sa.Column(
            "llm_id",
            sa.Text(),
            nullable=True,
            comment="The language model: usually a uuid, also CUSTOMER_CLIENT_V1 and older names.",
        ),
        sa.Column(
            "primary_share_link_token_sha256",
            sa.Text(),
            nullable=True,
            comment="SHA-256 (hex) of the primary share link's token.",
        ),
        sa.Column(
            "primary_share_link_enabled",
            sa.Boolean(),
            nullable=True,
            comment="Whether the primary share link opens.",
        ),
        sa.Column(
            "enable_audio_passthrough",
            sa.Boolean(),
            nullable=True,
            comment="Whether audio comes from the caller's own pipeline.",
        ),
        sa.Column(
            "skip_greeting",
            sa.Boolean(),
            nullable=True,
            comment="Whether it waits to be spoken to.",
        ),
        sa.Column(
            "zero_data_retention",
            sa.Boolean(),
            nullable=True,
            comment="Whether conversations are kept nowhere.",
        ),
        sa.Column(
            "widget_config",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="The embedded player's settings.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was made, says Anam.",
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was last edited, says Anam, as of the latest observation.",
        ),
        sa.Column(
            "removed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the API first said that it is gone; NULL: live.",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the first version.",
        ),
        sa.Column(
            "last_changed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="valid_from of the version in force.",
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Members that the map does not know, cleaned; else NULL.",
        ),
        sa.ForeignKeyConstraint(
            ["avatar_id"], ["avatars.avatar_id"], name=op.f("fk_personas_avatar_id_avatars")
        ),
        sa.ForeignKeyConstraint(
            ["voice_id"], ["voices.voice_id"], name=op.f("fk_personas_voice_id_voices")
        ),
        sa.PrimaryKeyConstraint("persona_id", name=op.f("pk_personas")),
        comment="The configured personas as last seen. A removed one keeps its row.",
    )
    op.create_index(op.f("ix_personas_avatar_id"), "personas", ["avatar_id"], unique=False)
    op.create_index(op.f("ix_personas_llm_id"), "personas", ["llm_id"], unique=False)
    op.create_index(op.f("ix_personas_voice_id"), "personas", ["voice_id"], unique=False)
    op.create_table(
        "run_items",
        sa.Column("run_id", sa.UUID(), nullable=False, comment="The run."),
        sa.Column("persona_id", sa.UUID(), nullable=False, comment="The persona."),
        sa.Column("outcome", sa.Text(), nullable=False, comment="What became of it in this run."),
        sa.Column(
            "http_status",
            sa.Integer(),
            nullable=True,
            comment="Of the last answer; NULL: none came.",
        ),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="Requests made for it."),
        sa.Column(
            "duration_ms", sa.Integer(), nullable=False, comment="Over all attempts, milliseconds."
        ),
        sa.Column("message", sa.Text(), nullable=True, comment="What went wrong, in one line."),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_run_items_run_id_runs")),
        sa.PrimaryKeyConstraint("run_id", "persona_id", name=op.f("pk_run_items")),
        comment="What a run did to whom. Unchanged personas have no row.",
    )
    op.create_index(
        op.f("ix_run_items_persona_id_run_id"), "run_items", ["persona_id", "run_id"], unique=False
    )
    op.create_table(
        "voice_display_tags",
        sa.Column("voice_id", sa.UUID(), nullable=False, comment="The voice."),
        sa.Column("tag", sa.Text(), nullable=False, comment="The tag."),
        sa.Column(
            "position", sa.Integer(), nullable=True, comment="Place in the API's array, from 0."
        ),
        sa.ForeignKeyConstraint(
            ["voice_id"], ["voices.voice_id"], name=op.f("fk_voice_display_tags_voice_id_voices")
        ),
        sa.PrimaryKeyConstraint("voice_id", "tag", name=op.f("pk_voice_display_tags")),
        comment="The tags shown with a voice.",
    )
    op.create_table(
        "brains",
        sa.Column("persona_id", sa.UUID(), nullable=False, comment="The persona."),
        sa.Column("personality", sa.Text(), nullable=True, comment="Short character description."),
        sa.Column(
            "system_prompt", sa.Text(), nullable=True, comment="What the model is told to be."
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Members that the map does not know, cleaned; else NULL.",
        ),
        sa.ForeignKeyConstraint(
            ["persona_id"], ["personas.persona_id"], name=op.f("fk_brains_persona_id_personas")
        ),
        sa.PrimaryKeyConstraint("persona_id", name=op.f("pk_brains")),
        comment="What a persona is told to be. A row for every persona.",
    )
    op.create_table(
        "persona_knowledge_groups",
        sa.Column("persona_id", sa.UUID(), nullable=False, comment="The persona."),
        sa.Column(
            "knowledge_group_id", sa.UUID(), nullable=False, comment="The knowledge group it has."
        ),
        sa.Column(
            "position", sa.Integer(), nullable=True, comment="Place in the API's array, from 0."
        ),
        sa.ForeignKeyConstraint(
            ["knowledge_group_id"],
            ["knowledge_groups.knowledge_group_id"],
            name=op.f("fk_persona_knowledge_groups_knowledge_group_id_knowledge_groups"),
        ),
        sa.ForeignKeyConstraint(
            ["persona_id"],
            ["personas.persona_id"],
            name=op.f("fk_persona_knowledge_groups_persona_id_personas"),
        ),
        sa.PrimaryKeyConstraint(
            "persona_id", "knowledge_group_id", name=op.f("pk_persona_knowledge_groups")
        ),
        comment="Which persona answers from which knowledge group.",
    )
    op.create_index(
        op.f("ix_persona_knowledge_groups_knowledge_group_id"),
        "persona_knowledge_groups",
        ["knowledge_group_id"],
        unique=False,
    )
    op.create_table(
        "persona_tools",
        sa.Column("persona_id", sa.UUID(), nullable=False, comment="The persona."),
        sa.Column("tool_id", sa.UUID(), nullable=False, comment="The tool it has."),
        sa.Column(
            "position", sa.Integer(), nullable=True, comment="Place in the API's array, from 0."
        ),
        sa.ForeignKeyConstraint(
            ["persona_id"],
            ["personas.persona_id"],
            name=op.f("fk_persona_tools_persona_id_personas"),
        ),
        sa.ForeignKeyConstraint(
            ["tool_id"], ["tools.tool_id"], name=op.f("fk_persona_tools_tool_id_tools")
        ),
        sa.PrimaryKeyConstraint("persona_id", "tool_id", name=op.f("pk_persona_tools")),
        comment="Which persona can call which tool.",
    )
    op.create_index(op.f("ix_persona_tools_tool_id"), "persona_tools", ["tool_id"], unique=False)
    op.create_table(
        "share_links",
        sa.Column(
            "share_link_id", sa.UUID(), nullable=False, comment="Anam's id of the share link."
        ),
        sa.Column("persona_id", sa.UUID(), nullable=True, comment="The persona that it opens."),
        sa.Column(
            "token_sha256",
            sa.Text(),
            nullable=True,
            comment="SHA-256 (hex) of the token: whoever has the token can open the persona.",
        ),
        sa.Column("type", sa.Text(), nullable=True, comment="LINK, PLAYER_EMBED, ORB_EMBED, …"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True, comment="NULL: never."),
        sa.Column("usage_limit", sa.BigInteger(), nullable=True, comment="NULL: none."),
        sa.Column(
            "usage_count",
            sa.BigInteger(),
            nullable=True,
            comment="How often it was used, as of the latest observation.",
        ),
        sa.Column("allow_all_origins", sa.Boolean(), nullable=True, comment="Opens from any site."),
        sa.Column("remove_watermark", sa.Boolean(), nullable=True, comment="Shows no watermark."),
        sa.Column("enabled", sa.Boolean(), nullable=True, comment="Whether it opens."),
        sa.Column(
            "is_primary",
            sa.Boolean(),
            nullable=True,
            comment="Whether it is the persona's main link.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was made, says Anam.",
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Members that the map does not know, cleaned; else NULL.",
        ),
        sa.ForeignKeyConstraint(
            ["persona_id"], ["personas.persona_id"], name=op.f("fk_share_links_persona_id_personas")
        ),
        sa.PrimaryKeyConstraint("share_link_id", name=op.f("pk_share_links")),
        comment="Links that open a persona to the public.",
    )
    op.create_index(op.f("ix_share_links_persona_id"), "share_links", ["persona_id"], unique=False)
    op.create_table(
        "voice_detection_options",
        sa.Column("persona_id", sa.UUID(), nullable=False, comment="The persona."),
        sa.Column(
            "end_of_speech_sensitivity",
            sa.Double(),
            nullable=True,
            comment="0 to 1: how soon a pause counts as the end of a turn.",
        ),
        sa.Column(
            "silence_before_skip_turn_seconds",
            sa.Double(),
            nullable=True,
            comment="0 to 900 seconds of silence, then the persona speaks again; 0: off.",
        ),
        sa.Column(
            "silence_before_session_end_seconds",
            sa.Double(),
            nullable=True,
            comment="0 to 7200 seconds of silence, then the session ends; 0: off.",
        ),
        sa.Column(
            "silence_before_auto_end_turn_seconds",
            sa.Double(),
            nullable=True,
            comment="0.5 to 10 seconds of silence, then the user's turn ends.",
        ),
        sa.Column(
            "speech_enhancement_level",
            sa.Double(),
            nullable=True,
            comment="0 to 1: how strongly background noise is suppressed.",
        ),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Members that the map does not know, cleaned; else NULL.",
        ),
        sa.ForeignKeyConstraint(
            ["persona_id"],
            ["personas.persona_id"],
            name=op.f("fk_voice_detection_options_persona_id_personas"),
        ),
        sa.PrimaryKeyConstraint("persona_id", name=op.f("pk_voice_detection_options")),
        comment="When a persona thinks that it is its turn. No row: the defaults.",
    )
    op.create_table(
        "voice_generation_options",
        sa.Column("persona_id", sa.UUID(), nullable=False, comment="The persona."),
        sa.Column("stability", sa.Double(), nullable=True, comment="ElevenLabs, 0 to 1."),
        sa.Column("similarity_boost", sa.Double(), nullable=True, comment="ElevenLabs, 0 to 1."),
        sa.Column("style", sa.Double(), nullable=True, comment="ElevenLabs v2 voices, 0 to 1."),
        sa.Column(
            "use_speaker_boost", sa.Boolean(), nullable=True, comment="ElevenLabs v2 voices."
        ),
        sa.Column("model", sa.Text(), nullable=True, comment="ElevenLabs v2 voices: the model."),
        sa.Column(
            "speed",
            sa.Double(),
            nullable=True,
            comment="ElevenLabs 0.7 to 1.2, Cartesia 0.6 to 1.5.",
        ),
        sa.Column("volume", sa.Double(), nullable=True, comment="Cartesia, 0.5 to 2."),
        sa.Column("emotion", sa.Text(), nullable=True, comment="Cartesia."),
        sa.Column(
            "extra",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="Members that the map does not know, cleaned; else NULL.",
        ),
        sa.ForeignKeyConstraint(
            ["persona_id"],
            ["personas.persona_id"],
            name=op.f("fk_voice_generation_options_persona_id_personas"),
        ),
        sa.PrimaryKeyConstraint("persona_id", name=op.f("pk_voice_generation_options")),
        comment="How the voice is rendered; fields depend on its provider. No row: the defaults.",
    )
    op.create_table(
        "share_link_allowed_origins",
        sa.Column("share_link_id", sa.UUID(), nullable=False, comment="The share link."),
        sa.Column("origin", sa.Text(), nullable=False, comment="A site that may embed it."),
        sa.Column(
            "position", sa.Integer(), nullable=True, comment="Place in the API's array, from 0."
        ),
        sa.ForeignKeyConstraint(
            ["share_link_id"],
            ["share_links.share_link_id"],
            name=op.f("fk_share_link_allowed_origins_share_link_id_share_links"),
        ),
        sa.PrimaryKeyConstraint(
            "share_link_id", "origin", name=op.f("pk_share_link_allowed_origins")
        ),
        comment="The sites that a share link may be embedded in.",
    )


def downgrade() -> None:
    """Drops everything, history included: there was nothing before."""
    op.drop_table("share_link_allowed_origins")
    op.drop_table("voice_generation_options")
    op.drop_table("voice_detection_options")
    op.drop_index(op.f("ix_share_links_persona_id"), table_name="share_links")
    op.drop_table("share_links")
    op.drop_index(op.f("ix_persona_tools_tool_id"), table_name="persona_tools")
    op.drop_table("persona_tools")
    op.drop_index(
        op.f("ix_persona_knowledge_groups_knowledge_group_id"),
        table_name="persona_knowledge_groups",
    )
    op.drop_table("persona_knowledge_groups")
    op.drop_table("brains")
    op.drop_table("voice_display_tags")
    op.drop_index(op.f("ix_run_items_persona_id_run_id"), table_name="run_items")
    op.drop_table("run_items")
    op.drop_index(op.f("ix_personas_voice_id"), table_name="personas")
    op.drop_index(op.f("ix_personas_llm_id"), table_name="personas")
    op.drop_index(op.f("ix_personas_avatar_id"), table_name="personas")
    op.drop_table("personas")
    op.drop_index(
        op.f("ix_observations_persona_id_kind_entity_id_observed_at"), table_name="observations"
    )
    op.drop_index(
        op.f("ix_observations_kind_content_hash_source_updated_at"), table_name="observations"
    )
    op.drop_table("observations")
    op.drop_index(
        "uq_document_versions_open",
        table_name="document_versions",
        postgresql_where=sa.text("valid_to IS NULL"),
    )
    op.drop_index(op.f("ix_document_versions_kind_valid_from"), table_name="document_versions")
    op.drop_index(op.f("ix_document_versions_kind_content_hash"), table_name="document_versions")
    op.drop_table("document_versions")
    op.drop_table("avatar_available_versions")
    op.drop_table("voices")
    op.drop_index(
        "ix_value_issues_open",
        table_name="value_issues",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.drop_table("value_issues")
    op.drop_table("tools")
    op.drop_index(op.f("ix_runs_started_at"), table_name="runs")
    op.drop_index(
        "ix_runs_running", table_name="runs", postgresql_where=sa.text("status = 'running'")
    )
    op.drop_table("runs")
    op.drop_index(
        op.f("ix_rejected_payloads_persona_id_observed_at"), table_name="rejected_payloads"
    )
    op.drop_table("rejected_payloads")
    op.drop_table("persona_sync_state")
    op.drop_table("knowledge_groups")
    op.drop_table("drift_paths")
    op.drop_index(
        "ix_documents_share_links",
        table_name="documents",
        postgresql_using="gin",
        postgresql_ops={"share_links": "jsonb_path_ops"},
        postgresql_where=sa.text("kind = 'persona'"),
    )
    op.drop_table("documents")
    op.drop_table("avatars")
