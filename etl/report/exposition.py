"""Prometheus' text format, as far as we write it, and our own lines read back.

https://prometheus.io/docs/instrumenting/exposition_formats/. Which metrics there are, `metrics.py`
knows. All are gauges: a file says how things stood when it was written.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    # A family's name, and the values of its labels in their order.
    Key = tuple[str, tuple[str, ...]]

_LABEL = r'(\w+)="((?:[^"\\\n]|\\[\\"n])*)"'
_LINE = re.compile(rf"(?P<name>\w+)\{{(?P<labels>{_LABEL}(?:,{_LABEL})*)\}} (?P<value>\S+)")
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n"}
_ESCAPED = {escaped: plain for plain, escaped in _ESCAPES.items()}


@dataclass(frozen=True, slots=True)
class Family:
    """Samples of one name."""

    name: str
    told: str
    """What is in them, for whoever meets the name in a monitor."""
    labels: tuple[str, ...]


def render(families: Iterable[Family], samples: Mapping[Key, float]) -> str:
    """The samples of these families, each family with its HELP and TYPE; empty ones are left out.

    In the order of the families, then of the labels' values: the same text for the same samples.
    """
    lines: list[str] = []
    for family in families:
        values = sorted(values for name, values in samples if name == family.name)
        if values:
            told = family.told.replace("\\", r"\\").replace("\n", r"\n")
            lines += [f"# HELP {family.name} {told}", f"# TYPE {family.name} gauge"]
        lines += [_line(family, of, samples[family.name, of]) for of in values]
    return "".join(f"{line}\n" for line in lines)


def parse(families: Iterable[Family], text: str) -> dict[Key, float]:
    """What of a text `render` has written of these families; whatever else stands there is not."""
    labels = {family.name: family.labels for family in families}
    found: dict[Key, float] = {}
    for line in text.split("\n"):
        if (match := _LINE.fullmatch(line)) is None:
            continue
        pairs = re.findall(_LABEL, match["labels"])
        value = _number(match["value"])
        if value is not None and labels.get(match["name"]) == tuple(name for name, _ in pairs):
            found[match["name"], tuple(_unescaped(told) for _, told in pairs)] = value
    return found


def _line(family: Family, values: tuple[str, ...], value: float) -> str:
    pairs = zip(family.labels, values, strict=True)
    labels = ",".join(f'{name}="{_escaped(told)}"' for name, told in pairs)
    number = int(value) if value.is_integer() else value
    return f"{family.name}{{{labels}}} {number!r}"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _escaped(text: str) -> str:
    return re.sub(r'[\\"\n]', lambda found: _ESCAPES[found[0]], text)


def _unescaped(text: str) -> str:
    return re.sub(r'\\[\\"n]', lambda found: _ESCAPED[found[0]], text)
