"""A run that is under way for as long as a test does something meanwhile."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etl.sandbox.world import World

Ended = TypeVar("Ended")


@contextmanager
def a_run_under_way(world: World, sync: Callable[[], Ended]) -> Iterator[list[Ended]]:
    """A `sync` whose requests are not answered until the `with` ends; then its end is there.

    Not by a delay: it lasts as long as what is done meanwhile.
    """
    asked, answered = threading.Event(), threading.Event()

    def hold(payload: Any) -> Any:
        asked.set()
        answered.wait(30)
        return payload

    ended: list[Ended] = []
    world.reshape(hold)
    thread = threading.Thread(target=lambda: ended.append(sync()))
    thread.start()
    try:
        assert asked.wait(30)
        yield ended
    finally:
        answered.set()
        thread.join(30)
        world.reshape(None)
