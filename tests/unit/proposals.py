"""Proposals to write: of every type and home, and with names and words that mean harm."""

from __future__ import annotations

from datetime import UTC, datetime

from etl.map import TYPES, Line
from etl.payload.paths import member
from etl.proposal.model import Drift, Proposal, Rename

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SEEN = datetime(2026, 11, 20, 10, tzinfo=UTC)
JSON_TYPES = {
    "boolean": ("boolean",),
    "bigint": ("number",),
    "double precision": ("number",),
    "jsonb": ("object",),
}


def proposal(
    path="mood",
    column="mood",
    type_="text",
    *,
    table="personas",
    kind="persona",
    json_types=None,
    comment="How it feels, as the API says.",
    shapes=("text",),
    renamed=None,
    problem="unknown",
):
    """A proposal of one field; of a list when its path ends in `[]`."""
    if json_types is None:
        json_types = JSON_TYPES.get(type_, ("string",))
    line = Line(kind, path, table, column, type_, json_types, comment)
    drift = Drift(kind, path, problem, json_types, SEEN, NOW, 12, "open", shapes)
    return Proposal(drift, line, 12, renamed)


def listed(path="languages[]", table="persona_languages", type_="text", **options):
    """A proposal of a list."""
    return proposal(path, "value", type_, table=table, **options)


HOSTILE = [
    '"""; import os; os.system(\'x\') #',
    "'; DROP TABLE personas; --",
    "$take_over$ $local$ $$",
    "\\ \\n \\u0041 \\' \\\"",
    # No tab: Alembic's scripts make spaces of it.
    "a\nb\r\n\fc\x01d\x7f\x85\u2028e",
    "%s %(x)s %% :name ::text :'x' {x} {{}} {metadata}",
    "\u043c\u043e\u043e\u0434 \U0001f600 \u202ereversed \u00e9 \ufffd",
    "Returns:",
    "<a placeholder>",
    "/tmp/x",
    "0.0.0.0",
    "# noqa # type: ignore # fmt: off",
    "long " * 60,
    "\U0001f600" * 70,
    "'" * 200,
    "x" * 200,
    " ",
]

EVERY_TYPE = [
    proposal(f"new{at}", f"new_{at}", type_, comment=f"Nothing is known of it but {type_}.")
    for at, type_ in enumerate(TYPES)
]
EVERY_HOME = [
    proposal("brain.mood", table="brains"),
    proposal("resonance", "resonance", table="voices", kind="voice"),
    proposal("shareLinks[].caption", "caption", table="share_links"),
    proposal("skipGreeting", "skip_greeting_text", problem="type_changed"),
    proposal("free", "free", "jsonb", json_types=("array", "object")),
    proposal("any", "any_value", "jsonb", json_types=()),
    proposal(
        "feeling", "feeling", renamed=Rename("vibe", "personas", "description", seen=12, equal=10)
    ),
    listed(),
    listed("brain.catchwords[]", "brain_catchwords", "bigint", json_types=("number",)),
    listed("shareLinks[].captions[]", "share_link_captions", "uuid"),
    listed("styles[]", "voice_styles", kind="voice"),
    listed("primaryShareLink.tags[]", "filter", "timestamptz"),
    listed("x[]", "persona_" + "x" * 42, "double precision", json_types=("number",)),
]
EVERY_HOSTILE = [
    case
    for at, text in enumerate(HOSTILE)
    for case in (
        proposal(member("", text), f"hostile_{at}", comment=text[:70], shapes=(text,)),
        proposal(
            f"h{at}", f"said_{at}", comment=text[:70],
            renamed=Rename(text, "personas", "name", seen=1, equal=1),
        ),
        listed(f"{member('', text)}[]", f"hostiles_{at}", comment=text[:70]),
    )
]  # fmt: skip
