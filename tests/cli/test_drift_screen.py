"""What `drift` shows to people: all that is known of a difference, and nothing that steers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from wcwidth import width

from etl.cli.drift_screen import as_lines, as_proposed
from etl.jobs.drift import Difference, Listing, Revised
from etl.map import Line
from etl.proposal.model import Drift, Proposal, Refusal, Rename

HERE = Path("/home/you/personas")


def drift(path: str = "moodScore", **given: Any) -> Drift:
    """A difference, of which only what matters is given."""
    told: dict[str, Any] = {
        "kind": "persona",
        "problem": "unknown",
        "json_types": ("number",),
        "first_seen_at": datetime(2026, 11, 20, 23, tzinfo=UTC),
        "last_seen_at": datetime(2026, 11, 23, 1, tzinfo=UTC),
        "occurrences": 1234,
        "status": "open",
        **given,
    }
    return Drift(path=path, **told)


def proposal(
    of: Drift,
    *,
    line: Line | None = None,
    renamed: Rename | None = None,
    values: int = 12,
    beside: str | None = None,
) -> Proposal:
    made = line or Line("persona", of.path, "personas", "mood_score", "bigint", ("number",), "It.")
    return Proposal(of, made, values, renamed, beside)


def shown(*differences: Difference, hidden: int = 0, knows_proposals: bool = True) -> list[str]:
    return list(as_lines(Listing("anam", list(differences), hidden, knows_proposals)))


def test_a_difference_is_its_path_its_time_what_it_is_and_what_would_be_proposed() -> None:
    new = drift(shapes=("whole number",))
    assert shown(Difference(new, proposal(new))) == [
        "persona                                        first seen  last seen       times",
        "  moodScore                                    2026-11-20  2026-11-23      1,234",
        "    new field: number (whole number)",
        "    → personas.mood_score bigint",
        "",
        "1 difference.",
        "Next: `persona-etl drift propose` writes a revision to read; nothing is altered.",
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"json_types": ("null", "string")}, "new field: null or string"),
        ({"json_types": ("boolean",), "shapes": ("boolean",)}, "new field: boolean"),
        (
            {"json_types": ("null", "object"), "shapes": ("empty object", "object")},
            "new field: null or object (empty object, object)",
        ),
        ({"problem": "missing"}, "no longer sent since 2026-11-23"),
        (
            {"problem": "type_changed", "json_types": ("string",), "shapes": ("uuid", "text")},
            "other type: string (uuid, text)",
        ),
        (
            {"problem": "new_value", "new_members": ("ACME", "b\x1b[31m")},
            r"new value: ACME, b\u001b[31m",
        ),
        ({"problem": "new_value", "new_members": ("x" * 99,)}, f"new value: {'x' * 39}…"),
        ({"status": "accepted"}, "new field: number; accepted"),
        ({"status": "mapped"}, "new field: number; mapped"),
    ],
)
def test_each_problem_has_its_words(given: dict[str, Any], told: str) -> None:
    assert shown(Difference(drift(**given)))[2] == f"    {told}"


def test_each_answer_has_its_words() -> None:
    of = drift("languages", json_types=("array",))
    listed = Line(
        "persona", "languages[]", "persona_languages", "value", "text", ("string",), "Them."
    )
    rename = Rename("voiceSpeed", "personas", "voice_speed", 12, 11)
    told = {
        Difference(of, proposal(of, line=listed)): "→ table persona_languages (value text)",
        Difference(of, proposal(of, renamed=rename)): "→ personas.mood_score bigint; looks like"
        " voiceSpeed, renamed: the same in 11 of 12",
        Difference(of, proposal(of, beside="voice_speed")): "→ beside voice_speed:"
        " personas.mood_score bigint",
        Difference(of, Refusal(of, "only null so far; it waits")): "only null so far; it waits",
    }
    for difference, words in told.items():
        lines = shown(difference)
        answer = lines[3 : lines.index("")]
        assert " ".join(line.strip() for line in answer) == words


def test_what_cannot_be_proposed_leads_to_a_decision_and_what_was_decided_to_none() -> None:
    missing = drift(problem="missing")
    assert shown(Difference(missing, Refusal(missing, "it stays")))[-1] == (
        "Next: `persona-etl drift accept PATH` what is fine, or `drift ignore PATH`."
    )
    assert shown(Difference(drift(problem="missing", status="accepted")))[-1] == "1 difference."


def test_what_is_proposed_already_leads_to_migrating_unless_there_is_more_to_propose() -> None:
    waits = Difference(drift(), Refusal(drift(), "it waits", is_waiting=True))
    missing = drift(problem="missing")
    assert shown(waits, Difference(missing, Refusal(missing, "it stays")))[-1] == (
        "Next: `persona-etl migrate`, then `persona-etl backfill replay`."
    )
    assert "drift propose" in shown(waits, Difference(drift("b"), proposal(drift("b"))))[-1]


def test_it_fits_80_columns_whatever_is_in_a_path_and_the_columns_stand_below_each_other() -> None:
    paths = [
        "moodScore",
        'config["声の速さ"]',
        '["\u0438\u0306e\u0301"]',
        "a" * 43,
        f'["{"声" * 30}"]',
        '["\x1b[2J\u202e"]',
    ]
    told = [Difference(d, proposal(d)) for d in (drift(path) for path in paths)]
    lines = shown(*told, Difference(drift(), Refusal(drift(), "why " * 60)))
    assert [line for line in lines if width(line) > 80 or not line.isprintable()] == []
    assert {width(line.partition("2026")[0]) for line in lines if "2026" in line} == {47}


def test_a_path_that_is_longer_is_whole_on_a_line_of_its_own() -> None:
    lines = shown(Difference(drift("a" * 300)))
    assert lines[1] == f"  {'a' * 300}"
    assert lines[2] == f"{'':47}2026-11-20  2026-11-23      1,234"


def test_kinds_stand_apart() -> None:
    lines = shown(Difference(drift()), Difference(drift(kind="voice")))
    assert [line.split()[0] for line in lines if "first seen" in line] == ["persona", "voice"]
    assert "2 differences." in lines


def test_where_nothing_differs_one_line_says_so() -> None:
    assert shown() == ["The API and the map agree."]
    assert shown(hidden=2) == [
        "The API and the map agree, but for 2 ignored or mapped: --all shows them."
    ]
    assert shown(Difference(drift()), hidden=2)[4] == (
        "1 difference, and 2 ignored or mapped: --all shows them."
    )


def test_a_reader_of_views_is_told_what_is_left_out() -> None:
    told = shown(Difference(drift()), knows_proposals=False)[-1]
    assert told == "What would be proposed is told to roles that may read the tables."


def test_what_was_written_is_named_as_one_would_type_it_here() -> None:
    new, null = drift(), drift("note")
    revised = Revised(
        [proposal(new)],
        [Refusal(null, "only null so far; it waits")],
        "local_0001",
        [HERE / "revisions" / "x.py", Path("/elsewhere/tables.py")],
    )
    assert list(as_proposed(revised, HERE)) == [
        "persona:moodScore → personas.mood_score bigint; from 12 values",
        "Not proposed:",
        "persona:note: only null so far; it waits",
        "Revision local_0001:",
        "  revisions/x.py",
        "  /elsewhere/tables.py",
        "Read it; nothing is altered yet. Then:",
        "  persona-etl migrate",
        "  persona-etl backfill replay",
    ]


def test_a_long_path_is_never_broken() -> None:
    new, null = drift(f'["{"a b  " * 30}"]'), drift(f'["{"c d  " * 30}"]')
    told = Revised([proposal(new)], [Refusal(null, "it waits")])
    lines = list(as_proposed(told, HERE))
    assert lines[:2] == [f"persona:{new.path}", "  → personas.mood_score bigint; from 12 values"]
    assert lines[3:5] == [f"persona:{null.path}", "  it waits"]


def test_a_dry_run_shows_the_files_and_nothing_in_them_steers_the_terminal() -> None:
    new = drift()
    shown_of_it = {HERE / "x.py": "# a\n# \x1b[31mred\n"}
    revised = Revised([proposal(new, values=1)], [], "0003", [HERE], shown_of_it)
    assert list(as_proposed(revised, HERE)) == [
        "persona:moodScore → personas.mood_score bigint; from 1 value",
        "",
        "# x.py",
        "# a",
        r"# \u001b[31mred",
        "",
        "Nothing was written. Without --dry-run these files are.",
    ]


def test_where_there_is_nothing_to_propose_it_says_so() -> None:
    assert list(as_proposed(Revised([], []), HERE)) == [
        "Nothing to propose: `persona-etl drift --all` shows what is known."
    ]
