"""A load from files that dies at any statement: whoever runs next ends where it would have."""

from __future__ import annotations

from itertools import count, cycle
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from etl.files.lines import Line
from etl.jobs.backfill_files import backfill_files
from etl.settings import load_settings
from tests.db.conftest import encoded
from tests.db.file_story import PERSONAS, told
from tests.db.test_backfill_any_order import assert_as_told, contents
from tests.torture.figures import tortured
from tests.torture.sizes import SEED, steps
from tests.torture.striking import ANSWER_LOST, DOOM, KILLED, struck

if TYPE_CHECKING:
    from tests.db.conftest import Target
    from tests.db.file_story import Told


def some_lines(dice: Random) -> list[Told]:
    """A story with a bit of everything."""
    return told(
        (dice.randint(0, 6), number, _shape(dice) if dice.random() < 0.8 else None)
        for number in [*range(PERSONAS)] * 4
    )


def _shape(dice: Random) -> dict[str, Any]:
    def thing() -> Any:
        stamps = [None, "2026-04-20T10:00:00.000Z", "2026-04-21T10:00:00.000Z"]
        return dice.randint(0, 1), dice.choice("ABC"), dice.choice(stamps), dice.randint(1, 3)

    return {
        "name": dice.choice("AB"),
        "prompt": dice.choice("AB"),
        "speed": dice.choice([1, "fast"]),
        "stamp": None,
        "avatar": thing(),
        "voice": thing(),
        "tools": [thing()],
        "knowledge": [thing()],
        "links": [(dice.randint(0, 1), dice.randint(1, 3), ["https://a"])],
    }


@pytest.mark.parametrize(("how", "few"), [(KILLED, 40), (ANSWER_LOST, 4)])
def test_a_load_that_dies_anywhere_is_ended_by_the_next(copying, new_database, how, few):
    dice = Random(SEED)
    story = some_lines(dice)
    lines = [line.envelope() for line in story]
    with copying(count=0) as target:
        target.query(DOOM)
        target.admin.close()
        template = sa.make_url(target.url).database
        with new_database(template) as url, target.at(url):
            target.load(*lines)
            assert_as_told(target, story)
            undisturbed = contents(target)
        for nth, then in zip(count(1, steps(few)), cycle(["load", "replay", "sync"])):
            with new_database(template) as url, target.at(url):
                if not struck(url, nth, how, lambda: load(target, lines)):
                    break
                heal(target, then)
                target.load(*lines)
                assert contents(target) == undisturbed, (how, nth, then)
                assert target.check().findings.first == []
                tortured(f"backfill files: {how}, then {then}")
        assert nth > (4 if how == ANSWER_LOST else 40)


def load(target: Target, values: list[Any]) -> None:
    """Loads, whatever becomes of it."""
    backfill_files(
        load_settings(target.environment(), cwd=target.folder),
        [Line("test", n, encoded(value), None) for n, value in enumerate(values, start=1)],
        url=target.url,
        report=lambda _: None,
    )


def heal(target: Target, then: str) -> None:
    """What another run leaves: whatever the dead one had stored is folded."""
    if then == "replay":
        assert target.replay().exit_code == 0
    if then == "sync":
        # Nobody is asked for whom the API knows.
        target.sync([])
    if then != "load":
        assert target.rows("unfolded") == []
        assert target.check().findings.first == []
