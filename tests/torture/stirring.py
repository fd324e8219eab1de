"""A world that changes between runs, by chance that is the same again for a seed."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from etl.sandbox import Reshape
from tests.torture.scenario import link

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.sandbox import World

# More at once would be a mass removal.
GONE_AT_MOST = 3
FIELDS = {"avatar": "avatars", "voice": "voices", "tools": "tools", "knowledge": "knowledge"}


class Stirred:
    """Edits a world. What is undone by `settle` would keep it from being copied whole."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.dice = Random(seed)
        self.gone: list[str] = []
        self.is_junk: set[str] = set()
        self.links: dict[int, str] = {}
        self.edits = 0

    def stir(self) -> None:
        """A few things happen."""
        every: list[Callable[[], object]] = [
            self.edit, self.edit, self.edit, self.edit_shared, self.edit_shared, self.hold,
            self.move_link, self.delete, self.restore, self.add, self.junk, self.reshape,
        ]  # fmt: skip
        for happens in self.dice.choices(every, k=self.dice.randint(1, 6)):
            happens()

    def settle(self) -> None:
        """From now on each persona that there is can be copied."""
        for id_ in self.is_junk:
            self.world.set_payload(id_, None)
        self.is_junk.clear()

    def anyone(self) -> str:
        return self.dice.choice(self.world.persona_ids)

    def edit(self) -> None:
        self.edits += 1
        word = f"{self.edits} of {self.dice.randint(1, 3)}"
        changes: list[dict[str, Any]] = [
            {"name": word},
            {"brain": {"systemPrompt": word}},
            {"voiceSpeed": self.dice.choice(["fast", 0.5, 1.5, None])},
            {"widgetConfig": {"title": word}},
            {"new": {"field": self.dice.randint(1, 3)}},
        ]
        self.world.edit(self.anyone(), self.dice.choice(changes))

    def edit_shared(self) -> None:
        self.edits += 1
        field, kind = self.dice.choice(sorted(FIELDS.items()))
        name = "displayName" if field in ("avatar", "voice") else "name"
        id_ = self.dice.choice(self.world.shared_ids(kind))
        self.world.edit(id_, {name: f"edit {self.edits}"}, kind)

    def hold(self) -> None:
        field, kind = self.dice.choice(sorted(FIELDS.items()))
        some = self.dice.sample(self.world.shared_ids(kind), k=2)
        held = some if field in ("tools", "knowledge") else self.dice.choice([*some, None])
        self.world.edit(self.anyone(), {field: held})

    def move_link(self) -> None:
        """From one persona to another; shown by both, it would go to whoever answers last."""
        number = self.dice.randint(1, 4)
        to = self.anyone()
        self._give(number, self.links.pop(number, None), takes=False)
        self.links[number] = to
        self._give(number, to, takes=True)

    def _give(self, number: int, id_: str | None, *, takes: bool) -> None:
        if id_ is None:
            return
        shown = self.world.stored("personas", id_).get("shareLinks") or []
        others = [one for one in shown if one["id"] != link(number)["id"]]
        self.world.edit(id_, {"shareLinks": [*others, *([link(number)] if takes else [])]})

    def delete(self) -> None:
        if len(self.gone) < GONE_AT_MOST:
            self.gone.append(self.anyone())
            self.world.delete(self.gone[-1])

    def restore(self) -> None:
        if self.gone:
            self.world.restore(self.gone.pop(self.dice.randrange(len(self.gone))))

    def add(self) -> None:
        if len(self.world.persona_ids) < 60:
            self.world.add({"name": f"Added {self.edits}", "brain": {"personality": "new"}})

    def junk(self) -> None:
        """Serves something that is no persona, until it is somebody else's turn."""
        self.settle()
        self.is_junk.add(self.anyone())
        for id_ in self.is_junk:
            self.world.set_payload(id_, b"not JSON")

    def reshape(self) -> None:
        """A field comes up in all of them, or goes."""
        moods = [None, Reshape(add={"mood": "calm"}), Reshape(add={"mood": "wild"})]
        self.world.reshape(self.dice.choice(moods))
