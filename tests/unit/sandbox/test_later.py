"""`LATER`, the API some releases on, as it comes over the socket."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from etl.payload.clean import BLANK, clean
from etl.sandbox import LATER, running_sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from etl.sandbox import Sandbox

RENAMED = {".".join([*path.split(".")[:-1], name]): path for path, name in LATER.rename.items()}
NEW = {*LATER.add, *LATER.choose, *RENAMED}
GONE = {*LATER.remove, *LATER.rename}
CHANGED = {*LATER.retype, *LATER.recode}
SIGNED = {"avatar.videoUrl", *LATER.sign}
COUNTED = {"tools.usageCount", "knowledge.documentCount", "shareLinks.usageCount"}


def fetched(sandbox: Sandbox, client: httpx.Client) -> list[Any]:
    return [client.get(f"/v1/personas/{id_}").json() for id_ in sandbox.persona_ids]


def members(value: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every member's path, as a `Reshape` has it, its place with indices, and its value."""
    stack = [(path, path, value)]
    while stack:
        path, place, value = stack.pop()
        if isinstance(value, list):
            stack += [(path, f"{place}[{i}]", item) for i, item in enumerate(value)]
        elif isinstance(value, dict):
            for name, item in value.items():
                at = f"{path}.{name}".removeprefix("."), f"{place}.{name}", item
                yield at
                stack.append(at)


def different(before: Any, after: Any) -> tuple[set[str], set[str], set[str]]:
    """The paths of the members that went, came and changed, those below them left out."""
    old, new = ({at: (path, value) for path, at, value in members(v)} for v in (before, after))
    gone = {path for at, (path, _) in old.items() if at not in new}
    come = {path for at, (path, _) in new.items() if at not in old}
    changed = {
        path
        for at, (path, value) in old.items()
        if at in new and value != new[at][1] and not isinstance(value, dict | list)
    }
    outer = {path for path in come if not any(path.startswith(f"{other}.") for other in come)}
    return gone, outer, changed


def test_it_differs_from_the_first_shape_only_where_it_says_so_and_can_be_undone(sandbox, client):
    before = fetched(sandbox, client)
    assert client.post("/_sandbox/reshape", json={"shape": "later"}).status_code == 200
    after = fetched(sandbox, client)
    assert different(before, after) == (GONE, NEW, CHANGED)
    client.delete("/_sandbox/reshape")
    assert fetched(sandbox, client) == before


def test_what_it_renames_and_retypes_keeps_its_value(sandbox, client):
    before = fetched(sandbox, client)
    sandbox.world.reshape(LATER)
    for old, new in zip(before, fetched(sandbox, client), strict=True):
        assert new["greetingSkipped"] == old["skipGreeting"]
        assert old["voice"] is None or new["voice"]["countryCode"] == old["voice"]["country"]
        speed = old["voiceSpeed"]
        assert new["voiceSpeed"] == (None if speed is None else str(speed))


def test_only_signatures_and_counters_move_between_two_fetches(client_of):
    with running_sandbox(count=8) as sandbox, client_of(sandbox) as client:
        sandbox.world.reshape(LATER)
        first, second = fetched(sandbox, client), fetched(sandbox, client)
    assert different(first, second) == (set(), set(), SIGNED | COUNTED)
    assert different(clean(first), clean(second)) == (set(), set(), COUNTED)


def test_its_secret_is_blanked_and_its_other_new_members_are_not(sandbox, client):
    sandbox.world.reshape(LATER)
    served = fetched(sandbox, client)
    blanked = set()
    for path, _, value in members([clean(payload) for payload in served]):
        if value == BLANK and path in NEW:
            blanked.add(path)
    assert blanked == {"webhookSecret"}
    changed = different(served, [clean(payload) for payload in served])[2]
    assert changed & NEW == {"webhookSecret", "avatar.posterUrl"}


def test_members_differ_between_entities_and_shared_things_look_the_same_everywhere(
    sandbox, client
):
    sandbox.world.reshape(LATER)
    values, things = defaultdict(list), defaultdict(list)
    listed = client.get("/v1/personas?perPage=100").json()["data"]
    for payload in [*fetched(sandbox, client), *listed]:
        for path, _, value in members(payload):
            values[path].append(value)
        embedded = [payload["avatar"], payload["voice"]]
        for thing in embedded + payload.get("tools", []) + payload.get("knowledge", []):
            if thing:
                things[thing["id"]].append(thing)
    for path in LATER.choose:
        assert any(value != values[path][0] for value in values[path]), path
    assert any(len(shown) > 1 for shown in things.values())
    for shown in things.values():
        assert all(thing == shown[0] for thing in shown)


def test_the_list_stays_trimmed(sandbox, client):
    before = client.get("/v1/personas").json()["data"]
    sandbox.world.reshape(LATER)
    gone, come, changed = different(before, client.get("/v1/personas").json()["data"])
    assert gone == {"personaPreset", "voice.country"}
    assert come == {path for path in NEW if path.startswith(("avatar.", "voice."))}
    assert changed <= {"voiceSpeed", "voice.provider"}


@pytest.mark.parametrize(
    ("what", "is_it"),
    [
        ("a quote and a statement", lambda name: '"; DROP TABLE' in name),
        ("longer than an identifier can be", lambda name: len(name.encode()) == 90),
        ("a look-alike of name", lambda name: name == "n\u0430me"),
        ("a reserved word", lambda name: name in {"user", "order"}),
        ("a column that views have", lambda name: name in {"version", "valid_from"}),
        ("another's in snake case", lambda name: name == "mood_score" and "moodScore" in NEW),
    ],
)
def test_some_of_its_names_are_hostile(what, is_it):
    assert any(is_it(name) for name in NEW), what
