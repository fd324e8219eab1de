"""What a replay has looked at, what it found otherwise than it should be, and how that is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.dialects.postgresql import JSONB

from etl.errors import DiscrepancyError
from etl.payload.canonical import same
from etl.report.discrepancy import Discrepancy
from etl.report.text import counted
from etl.tables import documents

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Table

    from etl.flatten import Row
    from etl.store.rows import Key

# Of so many differences each is told; of the rest the number.
FIRST = 20


@dataclass(slots=True)
class Findings:
    """What was found so far. Of what differs it keeps the first, and numbers."""

    checked: Counter[str] = field(default_factory=Counter)
    """How many documents, observations, versions and rows were looked at."""
    differences: Counter[str] = field(default_factory=Counter)
    """By table: rows that are missing or surplus, and columns that differ."""
    left: Counter[str] = field(default_factory=Counter)
    """Those of them that a replay can't mend."""
    first: list[Discrepancy] = field(default_factory=list)
    missing: int = 0
    """How many rows of the tables were not there."""
    surplus: dict[str, list[Key]] = field(default_factory=dict)
    """By table the rows that others may refer to: deleted when those have been put right."""

    @property
    def mended(self) -> Counter[str]:
        """What a replay made right, by table."""
        return self.differences - self.left

    def add(self, found: Discrepancy, *, is_mendable: bool = True) -> None:
        """Enters what is not as it should be."""
        self.differences[found.table] += 1
        if not is_mendable:
            self.left[found.table] += 1
        if len(self.first) < FIRST:
            self.first.append(found)

    def include(self, later: Findings) -> None:
        """Enters all that a later part of the work has found."""
        self.checked += later.checked
        self.differences += later.differences
        self.left += later.left
        self.missing += later.missing
        self.first += later.first[: FIRST - len(self.first)]
        for table, keys in later.surplus.items():
            self.surplus.setdefault(table, []).extend(keys)

    def compare(self, table: Table, is_: Row | None, should_be: Row | None) -> bool:
        """Enters in what a row differs from what it should be. Whether it does.

        None: there is no row, or there should be none. Of the columns those of `should_be` count.
        """
        key = {c.name: (should_be or is_ or {})[c.name] for c in table.primary_key.columns}
        if is_ is None or should_be is None:
            self.missing += is_ is None
            self.add(Discrepancy(table.name, key, "missing" if is_ is None else "surplus"))
            return True
        differing = list(_differing(table, is_, should_be))
        for name in differing:
            told = Discrepancy(table.name, key, "differs", name, is_[name], should_be[name])
            self.add(told)
        return bool(differing)


def not_folded(unfolded: int) -> str:
    """What to say before all else where so many documents wait: versions can't tell of them yet."""
    what = "1 document" if unfolded == 1 else f"{unfolded} documents"
    return (
        f"a load from files has not folded {what} yet: run `persona-etl backfill replay`"
        " when no other run holds the lock"
    )


def differs(found: Findings) -> DiscrepancyError:
    """What a check that found differences ends with."""
    total, left = found.differences.total(), found.left.total()
    if total == left:
        return left_over(found)
    which = f"all but {left}" if left else "it" if total == 1 else "them"
    return DiscrepancyError(
        f"{counted(total, 'difference')}; `persona-etl backfill replay` mends {which},"
        " when no other run holds the lock"
    )


def left_over(found: Findings) -> DiscrepancyError:
    """What a replay that could not mend everything ends with."""
    if found.left[documents.name]:
        what = "a document is not what it was when it was observed; restore it from a backup"
    else:
        what = "others refer to what should not be there; run again without --table"
    return DiscrepancyError(f"{counted(found.left.total(), 'difference')} can't be mended: {what}")


def _differing(table: Table, is_: Row, should_be: Row) -> Iterable[str]:
    for name, value in should_be.items():
        there = is_[name]
        if isinstance(table.columns[name].type, JSONB):
            if not same(value, there):
                yield name
        elif value != there:
            yield name
