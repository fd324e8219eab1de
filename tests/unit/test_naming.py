"""Names for what is added to the map, whatever the API calls it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl import tables
from etl.map import SHIPPED, Line, extended, is_shipped, table_around
from etl.payload.paths import member
from etl.proposal.inference import Inferred
from etl.proposal.naming import MAX_NAME_LENGTH, UnnameableError, name_line
from etl.report.catalogue import all_views, reading_views
from tests.unit.strategies import properties

TEXT = Inferred("text", is_list=False, json_types=("string",), values=1)
LIST = Inferred("text", is_list=True, json_types=("string",), values=1)
INJECTION = "mood\"; DROP TABLE avatars; --'"


def named(path, inferred=TEXT, kind="persona", the_map=SHIPPED, **options):
    return name_line(kind, path, inferred, "It.", the_map, **options)


def line(table, column, path="elsewhere"):
    return Line("persona", path, table, column, "text", (), "It.")


@pytest.mark.parametrize(
    ("kind", "path", "table", "column"),
    [
        ("persona", "moodGrade", "personas", "mood_grade"),
        ("persona", "primaryShareLink.note", "personas", "primary_share_link_note"),
        ("persona", "brain.mood", "brains", "mood"),
        ("persona", "shareLinks[].caption", "share_links", "caption"),
        ("persona", "voiceGenerationOptions.pitch", "voice_generation_options", "pitch"),
        ("voice", "TTSModelID2", "voices", "tts_model_id2"),
        ("voice", "userIDs", "voices", "user_ids"),
        ("voice", "URLs2Go", "voices", "urls2_go"),
        ("avatar", "mood_grade", "avatars", "mood_grade"),
        ("avatar", "HTML", "avatars", "html"),
        ("tool", '["odd key"].innerOne', "tools", "odd_key_inner_one"),
        ("knowledge_group", "$meta-data", "knowledge_groups", "meta_data"),
        ("tool", '["Élan vitäl"]', "tools", "elan_vital"),
    ],
)
def test_a_column_is_called_as_its_field(kind, path, table, column):
    assert named(path, kind=kind) == Line(kind, path, table, column, "text", ("string",), "It.")


@pytest.mark.parametrize(
    ("kind", "path", "table"),
    [
        ("persona", "languages", "persona_languages"),
        ("persona", "brain.catchwords", "persona_brain_catchwords"),
        ("persona", "primaryShareLink.tags", "persona_primary_share_link_tags"),
        ("persona", "shareLinks[].captions", "share_link_captions"),
        ("persona", "voiceDetectionOptions.x", "persona_voice_detection_options_x"),
        ("avatar", "poses", "avatar_poses"),
        ("knowledge_group", "sources", "knowledge_group_sources"),
        # Names of other tables, and of what `tables.py` is written with.
        ("avatar", '["available versions"]', "avatar_available_versions_2"),
        ("persona", "key", "persona_key_2"),
    ],
)
def test_a_list_is_a_table_called_after_its_owner(kind, path, table):
    for spelled in (path, f"{path}[]"):
        found = named(spelled, LIST, kind)
        assert found == Line(kind, f"{path}[]", table, "value", "text", ("string",), "It.")
    assert table in extended((found,)).tables


@pytest.mark.parametrize(
    ("kind", "path", "column"),
    [
        # Columns that are there, also under the other's names that a view shows beside.
        ("persona", "Name", "persona_name"),
        ("persona", "brain.name", "persona_name"),
        ("persona", "systemPrompt", "persona_system_prompt"),
        ("persona", "persona_id", "persona_id_2"),
        ("persona", "shareLinks[].Caption", "caption"),
        # What views and queries call their own.
        ("persona", "validTo", "persona_valid_to"),
        ("persona", "brain.change", "persona_change"),
        ("voice", "change", "voice_change"),
        ("persona", "toolCount", "persona_tool_count"),
        ("persona", "observedUntil", "persona_observed_until"),
        ("persona", "moment", "persona_moment"),
        ("persona", "shareLinks[].version", "version"),
        # Words of SQL, columns of the system, digits in front.
        ("persona", "group", "persona_group"),
        ("persona", "SELECT", "persona_select"),
        ("tool", "lateral", "tool_lateral"),
        ("tool", "position", "tool_position"),
        ("persona", "shareLinks[].user", "share_link_user"),
        ("avatar", "ctid", "avatar_ctid"),
        ("avatar", "xMin", "x_min"),
        ("persona", '["3dModel"]', "persona_3d_model"),
        # Hostile ones.
        ("persona", member("", INJECTION), "mood_drop_table_avatars"),
        ("persona", member("", "x%s{y}:z\\\n$$"), "x_s_y_z"),
        ("persona", "__local", "local"),
        ("persona", "x__local", "x_local"),
    ],
)
def test_a_name_that_is_taken_or_means_something_gets_its_owner_in_front(kind, path, column):
    assert named(path, kind=kind).column == column


def test_collisions_are_numbered():
    lines: list[Line] = []
    for key in ("moodGrade", "mood_grade", "mood-grade", "MOODGrade"):
        lines.append(named(key, taken=lines))
    assert [found.column for found in lines] == [
        *("mood_grade", "persona_mood_grade", "mood_grade_2", "mood_grade_3")
    ]
    assert named("brain.moodGrade", taken=lines).column == "mood_grade_4"
    assert named("moodGrade", kind="voice", taken=lines).column == "mood_grade"
    known = extended(tuple(lines))
    assert named("mood.grade", the_map=known).column == "mood_grade_4"
    assert named("mood", LIST, taken=[named("mood", LIST)]).table == "persona_mood_2"


def test_a_long_name_is_cut_and_stays_unlike_others():
    one, other = (named("very" + "Long" * 20 + end).column for end in "ab")
    assert one[:41] == other[:41]
    assert one != other
    assert len(one) <= MAX_NAME_LENGTH
    assert named("very" + "Long" * 20 + "a").column == one
    assert len(named("x" * 100, LIST).table) <= MAX_NAME_LENGTH


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("x.*", "its keys are data"),
        ("*", "its keys are data"),
        (member("", "x" * 200), "its keys are data"),
        (member("", "настроение"), "not of the letters a to z"),
        (member("", "mооd"), "not of the letters a to z"),  # noqa: RUF001  look-alikes, on purpose
        (member("", "ｍood"), "not of the letters a to z"),  # noqa: RUF001  the same
        (member("", "mo\u200bod"), "not of the letters a to z"),
        (member("", "ﬁre"), "not of the letters a to z"),
        (member("", "😀"), "not of the letters a to z"),
        (member("", ""), "no word"),
        (member("", '"; --'), "no word"),
        ("$", "no word"),
        ("items[].x", "an array that has no table"),
        ("x.y…", "its keys are data"),
    ],
)
@pytest.mark.parametrize("inferred", [TEXT, LIST])
def test_what_leaves_nothing_sensible_is_refused(path, reason, inferred):
    with pytest.raises(UnnameableError, match=reason) as refused:
        named(path, inferred)
    told = str(refused.value)
    assert "\n" not in told
    assert ("--name NAME" in told) == any(words in reason for words in ("no word", "a to z"))


@pytest.mark.parametrize("path", ["mood", "order", member("", "настроение"), "brain.mood"])
def test_a_name_given_by_hand_is_taken_as_it_is(path):
    assert named(path, name="the_mood").column == "the_mood"
    assert named(path, LIST, name="the_moods").table == "the_moods"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "Mood",
            "mood score",
            "1st",
            "_x",
            "x" * 51,
            'x"; --',
            "mööd",
            "x\n",
            "order",
            "time",
        ),
        *("ctid", "voice_name", "valid_from", "name", "personality", "x__local", "moment"),
    ],
)
def test_a_column_s_name_given_by_hand_is_refused_rather_than_altered(name):
    with pytest.raises(UnnameableError, match="--name NAME"):
        named("mood", name=name)


@pytest.mark.parametrize(
    "name",
    [
        *("runs", "avatars", "pg_class", "pk_personas", "ix_x", "alembic_version_local", "Moods"),
        *("select", "class", "lambda", "list", "column", "metadata", "x__local", "x" * 51),
    ],
)
def test_a_table_s_name_given_by_hand_is_refused_rather_than_altered(name):
    with pytest.raises(UnnameableError, match="--name NAME"):
        named("moods", LIST, name=name)


def test_keys_that_are_data_get_no_column_by_any_name():
    with pytest.raises(UnnameableError, match="its keys are data"):
        named("x.*", name="x")


@pytest.mark.parametrize(
    ("type_", "column"),
    [
        ("text", "skip_greeting_text"),
        ("jsonb", "skip_greeting_json"),
        ("bigint", "skip_greeting_number"),
        ("timestamptz", "skip_greeting_time"),
    ],
)
def test_a_second_column_is_called_after_the_first_and_its_type(type_, column):
    inferred = Inferred(type_, is_list=False, json_types=("string",), values=1)
    found = named("skipGreeting", inferred, beside="skip_greeting")
    assert (found.table, found.column, found.path) == ("personas", column, "skipGreeting")
    again = named("skipGreeting", inferred, beside="skip_greeting", taken=[found])
    assert again.column == f"persona_{column}"


@properties(300)
@given(
    keys=st.lists(
        st.text(max_size=60) | st.sampled_from(["order", "name", "x" * 90, INJECTION]),
        min_size=1,
        max_size=3,
    ),
    around=st.sampled_from(["", "brain", "shareLinks[]", "primaryShareLink"]),
    inferred=st.sampled_from([TEXT, LIST]),
)
def test_any_field_gets_a_name_that_fits_or_a_reason(keys, around, inferred):
    path = around
    for key in keys:
        path = member(path, key)
    try:
        found = named(path, inferred)
    except UnnameableError:
        return
    name = found.table if inferred.is_list else found.column
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name)
    assert named(path, inferred, name=name) == found
    # The map takes it: there is a place for it, and nobody there.
    assert not is_shipped(found)
    assert table_around(found) in SHIPPED.tables


@pytest.mark.parametrize("table", ["personas", "brains", "avatars", "voices"])
def test_no_column_of_a_view_is_called_like_another(table):
    """Neither what a view calls its own nor what it calls a field of another table."""
    kind = tables.origins()[table].kind
    path = "brain.mood" if table == "brains" else "mood"
    history = f"{kind}_history"
    shown = {name for view in all_views() if view.name == history for name in view.columns}
    if kind == "persona":
        shown |= {name for view in all_views() if view.name == "personas" for name in view.columns}
        (as_of,) = reading_views()
        shown |= set(re.findall(r'[(,] ?"?([a-z_]+)"? ', as_of.returns))
        assert {"observed_until", "voice_generation_model"} <= shown
    for name in shown:
        with pytest.raises(UnnameableError, match="--name NAME"):
            named(path, kind=kind, name=name)


def test_a_list_leaves_what_views_call_it_to_itself():
    found = named("languages", LIST)
    assert named("Languages", the_map=extended((found,))).column == "persona_languages"
