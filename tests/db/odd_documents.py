"""Documents whose keys could be taken for paths, and pairs of them that differ here and there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from etl.tables import KINDS
from tests.unit.strategies import decoded, documents, scalars

if TYPE_CHECKING:
    from random import Random

    from etl.tables import Kind
    from tests.db.conftest import Target

A = "aaaaaaaa-0000-4000-8000-000000000000"
B = "BBBBBBBB-0000-4000-8000-00000000000B"

# What a path is written with, and what a key may hold instead.
FRAGMENTS = [
    *["", ".", "[", "]", '"', "\\", '["', '"]', '\\"', "[0]", "[-1]", "[99999999999]", "0", "a"],
    *["a.b", "id", "brain", f"[{A}]", f"[{B}]", A, "$", "$inline", "*", "x-y", "_", "é", "\u0131"],
    *["\n", "\r\n", "\t", " ", "'", "%", "%s", ":a", "?", "@", "$re$", "("],
    *["\U0001f600", "\\u0000"],
    *["\u2028", "\ufffd", "\\1", "//", "a" * 300],
]
fragments = st.sampled_from(FRAGMENTS)
odd_texts = st.lists(fragments, max_size=8).map("".join) | st.text(max_size=6)
ids = st.sampled_from([A, B, A.upper(), B.lower(), "not one"])


def odd_objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(odd_texts, inner, max_size=4)


def elements(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Arrays of elements with ids, mostly each with its own."""
    return st.dictionaries(ids, odd_objects(inner), max_size=4).map(
        lambda by_id: [{**members, "id": id_} for id_, members in by_id.items()]
    )


odd_values = st.recursive(
    scalars,
    lambda inner: odd_objects(inner) | elements(inner) | st.lists(inner, max_size=3),
    max_leaves=12,
)
odd_documents = odd_objects(odd_values).map(decoded)
randoms = st.randoms(use_true_random=False)


def edited(value: Any, spare: Any, random: Random) -> Any:
    """The value with some of it changed, left out or new."""
    if random.random() < 0.05:
        return spare
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key == "id" or random.random() < 0.9}
        new = {random.choice(FRAGMENTS): spare} if random.random() < 0.3 else {}
        return new | {key: edited(item, spare, random) for key, item in kept.items()}
    if isinstance(value, list):
        return [edited(item, spare, random) for item in value if random.random() < 0.9]
    return value


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Kind, dict[str, Any], dict[str, Any]]:
    """A kind and two documents of it, the second mostly an edit of the first."""
    kind = draw(st.sampled_from(KINDS))
    old, other = ({**draw(odd_documents), **draw(documents[kind])} for _ in range(2))
    new = edited(old, other, draw(randoms))
    return kind, old, new if isinstance(new, dict) else other


def nothing_fits(target: Target) -> None:
    """A value issue of each thing, and an answer that is no persona."""
    target.query("""
        INSERT INTO value_issues
        SELECT kind, entity_id, 'odd.path', 'too odd', 'text', 'number', '-infinity', 'infinity'
          FROM document_versions WHERE valid_to IS NULL
    """)
    target.query("""
        INSERT INTO rejected_payloads
        SELECT run_id, NULL, run_id, 'infinity', 'it is odd', '[]', 2 FROM runs
    """)
