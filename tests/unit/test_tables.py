"""The map against the contract, which is copied here by hand."""

from __future__ import annotations

import pytest
from sqlalchemy import Double, Text
from sqlalchemy.dialects.postgresql import JSONB

from etl.tables import (
    EXTRA,
    KINDS,
    OUTCOMES,
    SHARED,
    TIME,
    UUID_,
    Source,
    entity_table,
    metadata,
    observed_paths,
    origin,
    projections,
    set_paths,
    source,
)
from tests.unit import strategies

SEEN = "first_seen_at last_changed_at"
OPTIONS_OF_DETECTION = (
    "end_of_speech_sensitivity silence_before_skip_turn_seconds"
    " silence_before_session_end_seconds silence_before_auto_end_turn_seconds"
    " speech_enhancement_level"
)

# By table: the key, and the columns besides. Observed ones end in °.
CONTRACT = {
    "personas": (
        "persona_id",
        "name description persona_preset avatar_id avatar_model voice_id voice_speed llm_id"
        " primary_share_link_token_sha256 primary_share_link_enabled enable_audio_passthrough"
        " skip_greeting zero_data_retention widget_config created_at updated_at° removed_at extra "
        + SEEN,
    ),
    "brains": ("persona_id", "personality system_prompt extra"),
    "avatars": (
        "avatar_id",
        "display_name variant_name image_url video_url active_version created_by_organization_id"
        " created_at updated_at° extra " + SEEN,
    ),
    "avatar_available_versions": ("avatar_id version", "position"),
    "voices": (
        "voice_id",
        "display_name provider provider_voice_id provider_model_id sample_url preview_sample_url"
        " gender country description is_zdr created_by_organization_id created_at updated_at°"
        " extra " + SEEN,
    ),
    "voice_display_tags": ("voice_id tag", "position"),
    "tools": (
        "tool_id",
        "name description type config usage_count° created_at updated_at° extra " + SEEN,
    ),
    "persona_tools": ("persona_id tool_id", "position"),
    "knowledge_groups": (
        "knowledge_group_id",
        "name description document_count° created_at updated_at° extra " + SEEN,
    ),
    "persona_knowledge_groups": ("persona_id knowledge_group_id", "position"),
    "share_links": (
        "share_link_id",
        (
            "persona_id token_sha256 type expires_at usage_limit usage_count° allow_all_origins "
            "remove_watermark enabled is_primary created_at extra"
        ),
    ),
    "share_link_allowed_origins": ("share_link_id origin", "position"),
    "voice_detection_options": ("persona_id", OPTIONS_OF_DETECTION + " extra"),
    "voice_generation_options": (
        "persona_id",
        "stability similarity_boost style use_speaker_boost model speed volume emotion extra",
    ),
    "documents": ("kind content_hash", "entity_id document"),
    "observations": (
        "kind entity_id observed_at persona_id",
        "content_hash source_updated_at run_id",
    ),
    "document_versions": (
        "kind entity_id version",
        (
            "valid_from valid_to last_observed_at content_hash source_updated_at change "
            "changed_paths run_id"
        ),
    ),
    "runs": ("run_id", None),
    "run_items": ("run_id persona_id", "outcome http_status attempts duration_ms message"),
    "persona_sync_state": ("persona_id", None),
    "value_issues": (
        "kind entity_id path",
        "problem expected got first_seen_at last_seen_at resolved_at run_id",
    ),
    "rejected_payloads": (
        "id",
        "persona_id run_id observed_at reason body length sha256 content_type",
    ),
    "drift_paths": (
        "kind path problem",
        "json_types first_seen_at last_seen_at occurrences status shapes new_members",
    ),
    "local_columns": (
        "table_name column_name",
        "kind path type json_types comment revision added_at",
    ),
}
REFERENCES = {
    ("personas.avatar_id", "avatars.avatar_id"),
    ("personas.voice_id", "voices.voice_id"),
    ("brains.persona_id", "personas.persona_id"),
    ("avatar_available_versions.avatar_id", "avatars.avatar_id"),
    ("voice_display_tags.voice_id", "voices.voice_id"),
    ("persona_tools.persona_id", "personas.persona_id"),
    ("persona_tools.tool_id", "tools.tool_id"),
    ("persona_knowledge_groups.persona_id", "personas.persona_id"),
    ("persona_knowledge_groups.knowledge_group_id", "knowledge_groups.knowledge_group_id"),
    ("share_links.persona_id", "personas.persona_id"),
    ("share_link_allowed_origins.share_link_id", "share_links.share_link_id"),
    ("voice_detection_options.persona_id", "personas.persona_id"),
    ("voice_generation_options.persona_id", "personas.persona_id"),
}
NORMALIZED = list(CONTRACT)[: list(CONTRACT).index("documents")]


def of_the_contract(table):
    """The columns that the contract gives a table: none to one that came with a new list."""
    key, besides = CONTRACT.get(table, ("", ""))
    return set(f"{key} {besides}".replace("°", "").split())


@pytest.mark.parametrize("name", CONTRACT)
def test_each_table_of_the_contract_is_there_with_its_columns(name):
    key, besides = CONTRACT[name]
    table = metadata.tables[name]
    assert {c.name for c in table.primary_key.columns} == set(key.split())
    if besides is not None:
        columns = {c.name for c in table.columns}
        assert columns >= of_the_contract(name)
        assert name in NORMALIZED or columns == of_the_contract(name)


def test_what_the_contract_does_not_name_is_a_field_that_came_later():
    """A line as `drift propose` writes it: never observed, no token, in no key, refers to none."""
    for table in projections():
        of_entity = origin(table).shape in {"entity", "part", "elements"}
        for column in table.columns:
            if of_entity and column.name not in of_the_contract(table.name):
                found = source(column)
                assert found is not None, f"{table.name}.{column.name}"
                assert found == Source(found.path, json_types=found.json_types)
                assert column.nullable
                assert not column.foreign_keys


@pytest.mark.parametrize("name", NORMALIZED)
def test_the_observed_columns_are_those_of_the_contract(name):
    observed = {c.name for c in metadata.tables[name].columns if (s := source(c)) and s.observed}
    besides = CONTRACT[name][1] or ""
    assert observed == {word.removesuffix("°") for word in besides.split() if word.endswith("°")}


def test_nothing_is_normalized_that_the_contract_does_not_name_but_later_lists():
    found = {table.name: origin(table).shape for table in projections()}
    assert set(found) >= set(NORMALIZED)
    assert {found[name] for name in set(found) - set(NORMALIZED)} <= {"list"}
    assert {found[name] for name in NORMALIZED} & {"list"} == set()


def test_the_contract_names_the_references():
    found = {
        (f"{table.name}.{key.parent.name}", key.target_fullname)
        for table in projections()
        for key in table.foreign_keys
        if table.name in NORMALIZED
    }
    assert found == REFERENCES


def test_a_later_list_has_its_owner_the_place_and_the_element():
    for table in projections():
        if origin(table).shape == "list":
            owner, position, value = table.columns
            assert [c.name for c in table.primary_key.columns] == [owner.name, "position"]
            assert (position.name, value.name) == ("position", "value")
            (key,) = table.foreign_keys
            assert key.parent is owner
            assert [key.column] == list(key.column.table.primary_key.columns)


def test_runs_count_each_outcome_and_the_ledgers_stay_free_of_entities():
    assert {"command", "status", "started_at", "finished_at", "error", "host", "version"} | {
        *OUTCOMES,
        "requested",
    } <= set(metadata.tables["runs"].columns.keys())
    assert {
        "last_attempt_at",
        "last_success_at",
        "last_outcome",
        "consecutive_failures",
        "last_run_id",
    } <= set(metadata.tables["persona_sync_state"].columns.keys())
    targets = {
        (table.name, key.target_fullname.partition(".")[0])
        for table in metadata.tables.values()
        if table not in projections()
        for key in table.foreign_keys
    }
    assert targets <= {
        ("run_items", "runs"),
        ("observations", "documents"),
        ("document_versions", "documents"),
        ("document_versions", "document_versions"),
    }


def test_every_table_and_column_has_a_comment():
    for table in metadata.tables.values():
        assert table.comment, table.name
        assert not [c.name for c in table.columns if not c.comment], table.name


def test_every_payload_column_is_nullable_except_in_keys():
    for table in projections():
        for column in table.columns:
            assert column.nullable != column.primary_key, f"{table.name}.{column.name}"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_entity_table_and_comes_after_what_it_refers_to(kind):
    table = entity_table(kind)
    assert [c.name for c in table.primary_key.columns] == [f"{kind}_id"]
    assert {"extra", *SEEN.split()} <= set(table.columns.keys())
    names = [table.name for table in projections()]
    for name in names:
        for key in metadata.tables[name].foreign_keys:
            assert names.index(key.column.table.name) < names.index(name)


def test_ids_are_uuids_and_times_have_a_zone():
    for table in projections():
        for column in table.columns:
            if column.name not in of_the_contract(table.name):
                # What came later has the type that its values had.
                continue
            if column.name.endswith("_at"):
                assert column.type is TIME
            if column.name in {"llm_id", "provider_voice_id", "provider_model_id"} or (
                column.name == "created_by_organization_id"
            ):
                assert isinstance(column.type, Text)
            elif column.name.endswith("_id"):
                assert column.type is UUID_
            if column.name in OPTIONS_OF_DETECTION.split():
                assert isinstance(column.type, Double)
            if column.name in {"config", "widget_config", "extra"}:
                assert isinstance(column.type, JSONB)
            assert (column.name == "extra") == (
                (s := source(column)) is not None and s.path == EXTRA
            )


def test_what_is_observed_shared_or_a_set_is_what_the_contract_says():
    assert SHARED == strategies.SHARED
    assert {kind: {".".join(steps) for steps in observed_paths(kind)} for kind in KINDS} == {
        "persona": {"updatedAt", "shareLinks.[].usageCount"},
        **{kind: strategies.OBSERVED[name] for name, kind in SHARED.items()},
    }
    assert {kind: set(set_paths(kind)) for kind in KINDS} == {
        "persona": {"tools", "knowledge", "shareLinks", "shareLinks[].allowedOrigins"},
        "avatar": {"availableVersions"},
        "voice": {"displayTags"},
        "tool": set(),
        "knowledge_group": set(),
    }
