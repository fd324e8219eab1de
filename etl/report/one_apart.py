"""Finds what is set up alike in all but one setting, in which it maybe should agree too; pure."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class OneApart(NamedTuple):
    """Configurations, by their numbers, that differ in this setting and in no other."""

    setting: str
    numbers: list[int]


def one_apart(configurations: Iterable[Mapping[str, str]]) -> list[OneApart]:
    """All such, of distinct configurations; each is the value of a setting by its name.

    In the order of the settings' names, then of the first number. They are told apart by 64 bits
    that are put together of a hash of each setting, so that one can be taken out again; of the
    settings nothing else is kept.
    """
    hashes: dict[str, array[int]] = {}
    wholes = array("q")
    for number, configuration in enumerate(configurations):
        whole = 0
        for setting, value in configuration.items():
            found = hash((setting, value))
            whole ^= found
            # A setting that not all have is 0 for the others.
            row = hashes.setdefault(setting, array("q"))
            row.extend([0] * (number - len(row)))
            row.append(found)
        wholes.append(whole)
    return [
        OneApart(setting, numbers)
        for setting in sorted(hashes)
        for numbers in _alike_without(hashes[setting], wholes)
        if len(numbers) > 1
    ]


def _alike_without(row: array[int], wholes: array[int]) -> Iterable[list[int]]:
    row.extend([0] * (len(wholes) - len(row)))
    alike: dict[int, list[int]] = {}
    for number, (whole, one) in enumerate(zip(wholes, row, strict=True)):
        alike.setdefault(whole ^ one, []).append(number)
    return alike.values()
