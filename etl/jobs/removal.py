"""Removals: the 404s of a run, judged together at its end, and applied unless they are too many."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from etl.errors import PersonaError, SafetyStopError
from etl.jobs.observe import remove
from etl.store.engine import is_data_error
from etl.store.states import live_personas

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.jobs.batches import Loader
    from etl.jobs.opened_run import OpenedRun
    from etl.jobs.summary import Tally

logger = logging.getLogger(__name__)

# Removals are few, or a safety stop: one transaction must not grow with the run all the same.
REMOVALS_AT_ONCE = 500


def remove_missing(
    loader: Loader, ids: Sequence[UUID], *, max_percent: float | None
) -> PersonaError | None:
    """Removes the live personas that the API says are gone. Returns whom it could not remove.

    Raises:
        SafetyStopError: they are too many; none is removed.
    """
    missing, connection = loader.tally.missing, loader.connection
    with connection.begin():
        gone = gone_personas(
            connection, loader.tally, ids, new=loader.tally.brought_to_life, max_percent=max_percent
        )
    refused: list[UUID] = []
    for start in range(0, len(gone), REMOVALS_AT_ONCE):
        part = [(gone_id, missing[gone_id]) for gone_id in gone[start:][:REMOVALS_AT_ONCE]]
        refused += _remove(loader.run, part)
    if not refused:
        return None
    return PersonaError(
        f"Postgres does not take the removal of {len(refused)} of {len(gone)} missing personas;"
        f" first: persona {refused[0]}; they stay live, the next run tries again"
    )


def _remove(run: OpenedRun, part: Sequence[tuple[UUID, datetime]]) -> list[UUID]:
    """Removes these in a transaction, split until the culprit is alone. Returns those refused."""
    run.halt.check()
    try:
        run.in_transaction(partial(remove, run.connection, part, run.run_id))
    except DBAPIError as exc:
        if not is_data_error(exc):
            raise
    else:
        return []
    middle = len(part) // 2
    if not middle:
        logger.warning("persona %s is gone, but Postgres does not take its removal", part[0][0])
        return [part[0][0]]
    return [*_remove(run, part[:middle]), *_remove(run, part[middle:])]


def gone_personas(
    connection: Connection,
    tally: Tally,
    ids: Sequence[UUID],
    *,
    new: int,
    max_percent: float | None,
) -> list[UUID]:
    """The live ones among the missing, in order. Names those never seen on the log.

    `max_percent` is of the live personas among `ids`, but for the `new` ones that this very run has
    written: they would hide that all others are gone. None: any number may go.

    Raises:
        SafetyStopError: they are too many.
    """
    missing = tally.missing
    if not missing:
        return []
    seen = live_personas(connection, ids)
    for persona_id in sorted(set(missing) - seen.keys()):
        logger.warning(
            "persona %s was never seen and the API does not know it: is the id right?", persona_id
        )
    live = {persona_id for persona_id, is_live in seen.items() if is_live}
    gone = sorted(live.intersection(missing))
    known = len(live) - new
    found = tally.found_alive
    if max_percent is not None and is_mass_removal(len(gone), found, known, max_percent):
        raise SafetyStopError(
            f"{len(gone)} of {known} live personas are missing"
            f"{'' if found else ' and none was found'}; none was removed."
            " Check that the key is of the right organisation; if they are really gone,"
            " run again with --allow-mass-removal"
        )
    return gone


def is_mass_removal(gone: int, found: int, live: int, percent: float) -> bool:
    """Whether so many are gone that it is more likely a mistake: of the key, or of the API.

    More than both five and the limit, or all of two or more: all that gave an answer to go by.
    Those that failed don't vouch for a key that finds none of the `live` ones.
    """
    return (gone > 5 and gone * 100 > live * percent) or (gone >= 2 and not found)  # noqa: PLR2004  the rule says so
