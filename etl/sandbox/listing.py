"""The pages of the list: which personas, with which `meta`; true, or drifting on order. Pure."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etl.sandbox.faults import Fault
    from etl.sandbox.rendering import Json


def page_of(
    personas: list[Json], *, page: int, per_page: int, fault: Fault
) -> tuple[list[Json], Json]:
    """The personas on a page, and the documented `meta` that goes with it."""
    if fault.per_page is not None:
        per_page = min(per_page, fault.per_page)
    if fault.shuffle:
        dice = Random(f"{fault.seed} {page}")  # noqa: S311  repeatable on purpose
        personas = dice.sample(personas, len(personas))
    last = -(-len(personas) // per_page)
    meta: Json = {
        "total": len(personas),
        "lastPage": last,
        "currentPage": page,
        "perPage": per_page,
        "prev": page - 1 if page > 1 else None,
        "next": page + 1 if page < last else None,
    }
    # As if so many had gone from (or come to) the pages before, between one page and the next.
    start = max(0, (page - 1) * (per_page + fault.shift))
    return personas[start : start + per_page], meta | fault.meta
