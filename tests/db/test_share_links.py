"""A share link that two personas show belongs to the one whose open version is the younger."""

from __future__ import annotations

from uuid import UUID

import pytest

from etl.sandbox import Fault, World

# Whose link it is is decided here, not there: others that sync send the same statements.
pytestmark = pytest.mark.one_server

FIRST = "00000000-0000-4000-8000-000000000001"
SECOND = "00000000-0000-4000-8000-000000000002"
THIRD = "00000000-0000-4000-8000-000000000003"
LINK = "00000000-0000-4000-8000-000000000aab"
MIXED = "00000000-0000-4000-8000-000000000aAB"
OTHER = "00000000-0000-4000-8000-00000000000b"


def link(link_id: str = LINK, *, origins: tuple[str, ...] = (), **members: object):
    return {
        "id": link_id,
        "token": f"token of {link_id}",
        "type": "LINK",
        "usageCount": 1,
        "allowedOrigins": list(origins),
        **members,
    }


@pytest.fixture
def sharing(copying):
    """Three personas, of which none has a link, copied once."""
    world = World()
    for persona_id in (FIRST, SECOND, THIRD):
        world.add({"id": persona_id, "shareLinks": []})
    with copying(world) as made:
        # One connection: the personas are seen in the order in which they are asked for.
        made.sync(API__CONCURRENCY="1")
        yield made


def copy(target, *ids: str, **settings: str):
    return target.sync(ids, API__CONCURRENCY="1", **settings)


def show(target, persona_id: str, *links: object) -> None:
    target.world.edit(persona_id, {"shareLinks": list(links)})


def owner(target, link_id: str = LINK) -> str | None:
    found = target.rows("share_links", share_link_id=UUID(link_id))
    return str(found[0]["persona_id"]) if found else None


def origins(target, link_id: str = LINK) -> dict[str, int]:
    rows = target.rows("share_link_allowed_origins", share_link_id=UUID(link_id))
    return {row["origin"]: row["position"] for row in rows}


def test_a_link_comes_and_goes_with_its_persona(sharing):
    show(sharing, FIRST, link(origins=("https://a", "https://b")), link(OTHER))
    copy(sharing, FIRST)
    assert (owner(sharing), owner(sharing, OTHER)) == (FIRST, FIRST)
    assert origins(sharing) == {"https://a": 0, "https://b": 1}
    show(sharing, FIRST, link(origins=("https://b", "https://c")))
    copy(sharing, FIRST)
    assert (owner(sharing), owner(sharing, OTHER)) == (FIRST, None)
    assert origins(sharing) == {"https://b": 0, "https://c": 1}
    show(sharing, FIRST)
    copy(sharing, FIRST)
    assert sharing.rows("share_links") == sharing.rows("share_link_allowed_origins") == []


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_of_two_in_one_batch_the_later_one_owns_it(sharing, order):
    copy(sharing, order[0])
    copy(sharing, order[1])  # Whoever has waited longer is asked for first.
    for persona_id in order:
        show(sharing, persona_id, link(origins=(f"https://{persona_id}", "https://both")))
    copy(sharing, *order)
    assert owner(sharing) == order[-1]
    assert origins(sharing) == {f"https://{order[-1]}": 0, "https://both": 1}


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_of_two_new_personas_in_one_batch_the_later_one_owns_it(copying, order):
    world = World()
    for persona_id in order:
        world.add({"id": persona_id, "shareLinks": [link(origins=(f"https://{persona_id}",))]})
    with copying(world) as target:
        copy(target, *order)
        assert owner(target) == order[-1]
        assert origins(target) == {f"https://{order[-1]}": 0}


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_of_two_in_two_batches_the_later_one_owns_it(sharing, order):
    for persona_id in order:
        show(sharing, persona_id, link(origins=(f"https://{persona_id}", "https://both")))
        copy(sharing, persona_id)
    assert owner(sharing) == order[-1]
    assert origins(sharing) == {f"https://{order[-1]}": 0, "https://both": 1}


def test_a_new_persona_that_shows_it_takes_it_with_its_origins(sharing):
    show(sharing, FIRST, link(origins=("https://old", "https://both")))
    copy(sharing, FIRST)
    new = "00000000-0000-4000-8000-000000000009"
    sharing.world.add({"id": new, "shareLinks": [link(origins=("https://both",))]})
    copy(sharing, new)
    assert owner(sharing) == new
    assert origins(sharing) == {"https://both": 0}


def test_it_stays_with_its_owner_when_nobody_changes(sharing):
    for persona_id in (FIRST, SECOND):
        show(sharing, persona_id, link())
        copy(sharing, persona_id)
    stamps = sharing.stamps()
    copy(sharing, SECOND, FIRST)
    assert sharing.stamps()["share_links"] == stamps["share_links"]
    assert owner(sharing) == SECOND


def test_any_change_of_a_persona_that_shows_it_takes_it(sharing):
    for persona_id in (FIRST, SECOND):
        show(sharing, persona_id, link(origins=(f"https://{persona_id}",)))
        copy(sharing, persona_id)
    sharing.world.edit(FIRST, {"name": "Younger now"})
    copy(sharing, FIRST)
    assert owner(sharing) == FIRST
    assert origins(sharing) == {f"https://{FIRST}": 0}


def test_it_moves_back_when_its_owner_drops_it(sharing):
    for persona_id in (FIRST, SECOND):
        show(sharing, persona_id, link(origins=(f"https://{persona_id}",), type=persona_id))
        copy(sharing, persona_id)
    show(sharing, SECOND)
    copy(sharing, SECOND)
    assert owner(sharing) == FIRST
    assert sharing.row("share_links")["type"] == FIRST
    assert origins(sharing) == {f"https://{FIRST}": 0}


def test_it_moves_back_to_the_youngest_of_those_left(sharing):
    for persona_id in (THIRD, FIRST, SECOND):
        show(sharing, persona_id, link())
        copy(sharing, persona_id)
    show(sharing, SECOND)
    copy(sharing, SECOND)
    assert owner(sharing) == FIRST


def test_it_moves_back_within_the_batch_in_which_the_other_changes_too(sharing):
    for persona_id in (FIRST, SECOND):
        show(sharing, persona_id, link())
        copy(sharing, persona_id)
    show(sharing, SECOND, link(OTHER))
    show(sharing, FIRST, link(origins=("https://new",)))
    copy(sharing, FIRST, SECOND)
    assert (owner(sharing), owner(sharing, OTHER)) == (FIRST, SECOND)
    assert origins(sharing) == {"https://new": 0}


def test_two_links_change_hands_in_one_batch(sharing):
    show(sharing, FIRST, link(origins=("https://1",)))
    show(sharing, SECOND, link(OTHER, origins=("https://2",)))
    copy(sharing, FIRST, SECOND)
    show(sharing, FIRST, link(OTHER, origins=("https://3",)))
    show(sharing, SECOND, link(origins=("https://4",)))
    copy(sharing, FIRST, SECOND)
    assert (owner(sharing), owner(sharing, OTHER)) == (SECOND, FIRST)
    assert (origins(sharing), origins(sharing, OTHER)) == ({"https://4": 0}, {"https://3": 0})


def test_it_moves_back_when_its_owner_is_removed(sharing):
    for persona_id in (FIRST, SECOND):
        show(sharing, persona_id, link(origins=(f"https://{persona_id}", "https://both")))
        copy(sharing, persona_id)
    sharing.world.delete(SECOND)
    copy(sharing, FIRST, SECOND)
    assert owner(sharing) == FIRST
    assert origins(sharing) == {f"https://{FIRST}": 0, "https://both": 1}
    # Back again, its version is the youngest.
    sharing.world.restore(SECOND)
    copy(sharing, FIRST, SECOND)
    assert owner(sharing) == SECOND
    assert origins(sharing) == {f"https://{SECOND}": 0, "https://both": 1}


def test_the_link_of_a_removed_persona_that_nobody_else_shows_stays(sharing):
    show(sharing, FIRST, link(origins=("https://a",)))
    copy(sharing, FIRST)
    sharing.world.delete(FIRST)
    copy(sharing, FIRST)
    assert (owner(sharing), origins(sharing)) == (FIRST, {"https://a": 0})


def test_a_removed_owner_whose_link_another_takes_up_loses_it(sharing):
    show(sharing, FIRST, link(origins=("https://a",)))
    copy(sharing, FIRST)
    sharing.world.delete(FIRST)
    copy(sharing, FIRST)
    show(sharing, SECOND, link())
    copy(sharing, SECOND)
    assert (owner(sharing), origins(sharing)) == (SECOND, {})


def test_it_goes_back_to_a_removed_persona_when_nobody_else_shows_it(sharing):
    show(sharing, FIRST, link(origins=("https://a",)))
    copy(sharing, FIRST)
    sharing.world.delete(FIRST)
    copy(sharing, FIRST)
    show(sharing, SECOND, link())
    copy(sharing, SECOND)
    show(sharing, SECOND)
    copy(sharing, SECOND)
    assert (owner(sharing), origins(sharing)) == (FIRST, {"https://a": 0})


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_of_two_removed_ones_the_last_to_go_keeps_it(sharing, order):
    for persona_id in (FIRST, SECOND):
        show(sharing, persona_id, link(origins=(f"https://{persona_id}",)))
    copy(sharing, FIRST, SECOND)
    for persona_id in order:
        sharing.world.delete(persona_id)
        copy(sharing, persona_id)
    assert (owner(sharing), origins(sharing)) == (order[1], {f"https://{order[1]}": 0})


def test_counters_are_taken_from_the_owner_alone(sharing):
    for persona_id, count in ((FIRST, 5), (SECOND, 7)):
        show(sharing, persona_id, link(usageCount=count))
        copy(sharing, persona_id)
    show(sharing, FIRST, link(usageCount=100))
    copy(sharing, FIRST, SECOND)
    assert sharing.row("share_links")["usage_count"] == 7
    show(sharing, SECOND, link(usageCount=8))
    copy(sharing, FIRST, SECOND)
    assert sharing.row("share_links")["usage_count"] == 8


@pytest.mark.parametrize("spelled", [LINK.upper(), MIXED])
def test_a_link_whose_id_is_in_capitals_does_not_stop_the_run(sharing, spelled):
    show(sharing, FIRST, link(spelled, origins=("https://1",)))
    show(sharing, SECOND, link(spelled, origins=("https://2",)))
    summary = copy(sharing, FIRST, SECOND)
    assert summary.counts["updated"] == 2
    assert owner(sharing) == SECOND
    assert origins(sharing) == {"https://2": 0}


def test_a_link_repeated_in_one_persona_counts_once(sharing):
    show(sharing, FIRST, link(origins=("https://1",)), link(origins=("https://2",)))
    summary = copy(sharing, FIRST)
    assert (summary.counts["updated"], summary.value_issues) == (1, 1)
    assert origins(sharing) == {"https://1": 0}
    assert sharing.row("value_issues")["path"] == f"shareLinks[{LINK}]"


def test_a_claimant_that_cannot_be_fetched_keeps_its_claim(sharing):
    for persona_id in (FIRST, SECOND):
        show(sharing, persona_id, link())
        copy(sharing, persona_id)
    show(sharing, SECOND)
    sharing.sandbox.order(Fault(status=400, target=FIRST))
    copy(sharing, FIRST, SECOND)
    assert owner(sharing) == FIRST


def test_very_many_links_change_hands_and_back(sharing):
    # So many that looking each up in each document that shows it would take minutes.
    many = [link(f"00000000-0000-4000-8000-{number:012x}") for number in range(2, 5000)]
    show(sharing, FIRST, *many)
    copy(sharing, FIRST)
    show(sharing, SECOND, *many)
    copy(sharing, SECOND)
    owners = {str(row["persona_id"]) for row in sharing.rows("share_links")}
    assert owners == {SECOND}
    show(sharing, SECOND)
    copy(sharing, SECOND)
    rows = sharing.rows("share_links")
    assert ({str(row["persona_id"]) for row in rows}, len(rows)) == ({FIRST}, len(many))
    show(sharing, FIRST)
    copy(sharing, FIRST)
    assert sharing.rows("share_links") == []
