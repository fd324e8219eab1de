"""What becomes known of a run when it has ended, however it has: to monitors, then to a person."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from etl.cli.ended import Ended
from etl.cli.metrics_file import metrics_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from etl.settings import Settings

Summary = TypeVar("Summary", bound=Ended)


@contextmanager
def reported(
    settings: Settings,
    command: str,
    summaries: Sequence[Summary],
    tell: Callable[[Summary], None],
    *,
    is_dry: bool = False,
) -> Iterator[None]:
    """Writes the metrics file as the `with` ends, unless the run is a dry one, and then tells.

    `summaries` holds the run's by then, if the run came to exist.
    """
    try:
        with metrics_file(settings, command, summaries, is_dry=is_dry):
            yield
    finally:
        for summary in summaries:
            tell(summary)
