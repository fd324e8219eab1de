"""How texts from the wire are spelt in Python and in SQL, and calls laid out as ruff would.

What is written here has to pass the formatter and the linter as it is, and to mean the same text
whatever that text holds. So all but plain ASCII is escaped: nothing in it can end a literal, look
like a parameter or a format, or be another letter than it seems.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 100
_INDENT: Final = 4

# Besides what is not printable ASCII: what ends or escapes a literal, and braces, which look like
# those of an f-string.
_ESCAPED_IN_PYTHON: Final = re.compile(r"[^ !#-\[\]-z|~]")
# Besides: what ends a dollar quote, a parameter's colon, a driver's percent sign.
_ESCAPED_IN_SQL: Final = re.compile(r"[^ !#&'-9;-\[\]-z|~]")
_UNSHOWN: Final = re.compile(r"[^!#-;=-\[\]_a-z|~]")
_SHOWN: Final = 60

# What bandit's rules take for a file in a shared folder and for an address to listen at.
_MISREAD: Final = {
    "S104": re.compile(r"0\.0\.0\.0|::"),
    "S108": re.compile(r"(/tmp|/var/tmp|/dev/shm).*", re.DOTALL),
}


@dataclass(frozen=True, slots=True)
class Text:
    """A text, in a call or after a key, as a Python literal that may take several lines."""

    value: str
    before: str = ""
    """`comment=`, or a key of a dict with its colon and space."""

    def flat(self) -> str:
        """On one line."""
        return f'{self.before}"{"".join(self.units())}"'

    def units(self) -> list[str]:
        """The characters, escaped: a literal may be split between any two."""
        return [_ESCAPED_IN_PYTHON.sub(_python_escape, char) for char in self.value]

    def note(self) -> str:
        """What keeps the linter from taking it for something else."""
        found = [rule for rule, misread in _MISREAD.items() if misread.fullmatch(self.value)]
        return f"  # noqa: {found[0]}  the API's own word" if found else ""

    def laid_out(self, indent: int, after: str = ",") -> list[str]:
        """Its lines, of which the last one ends in `after`."""
        pad = " " * indent
        whole = pad + self.flat() + after
        if len(whole) <= WIDTH:
            return [whole + self.note()]
        room = WIDTH - indent - _INDENT - len('""')
        inner = " " * (indent + _INDENT)
        parts = [f'{inner}"{part}"' for part in split(self.units(), room)]
        parts[0] += self.note()
        return [f"{pad}{self.before}(", *parts, f"{pad}){after}"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call, or anything else between brackets; its arguments are Python already or texts."""

    head: str
    arguments: tuple[str | Text | Call, ...]
    close: str = ")"

    def flat(self) -> str:
        """On one line."""
        inside = ", ".join(
            each if isinstance(each, str) else each.flat() for each in self.arguments
        )
        return f"{self.head}{inside}{self.close}"

    def note(self) -> str:
        """Whether a comment inside keeps it from being one line."""
        return "".join(each.note() for each in self.arguments if not isinstance(each, str))

    def laid_out(self, indent: int, after: str = "") -> list[str]:
        """Its lines: one; or the arguments on a line of their own; or a line for each."""
        pad, inner = " " * indent, " " * (indent + _INDENT)
        whole = self.flat()
        inside = whole.removeprefix(self.head).removesuffix(self.close)
        if not self.note():
            if len(pad + whole + after) <= WIDTH:
                return [pad + whole + after]
            if len(inner + inside) <= WIDTH:
                return [pad + self.head, inner + inside, pad + self.close + after]
        lines = [pad + self.head]
        for each in self.arguments:
            if isinstance(each, str):
                lines.append(f"{inner}{each},")
            else:
                lines += each.laid_out(indent + _INDENT, ",")
        return [*lines, pad + self.close + after]


def words(texts: tuple[str, ...]) -> str:
    """A tuple of short texts, in Python."""
    inside = ", ".join(Text(each).flat() for each in texts)
    return f"({inside},)" if len(texts) == 1 else f"({inside})"


def sql_text(value: str, indent: int) -> str:
    """A text as SQL spells it, over as many lines as it needs, the later ones indented."""
    units = ["''" if char == "'" else _ESCAPED_IN_SQL.sub(_sql_escape, char) for char in value]
    parts = split(units, WIDTH - indent - len("''") - len(" CONSTANT text := E;") - 20)
    prefix = "E" if any(unit.startswith("\\") for unit in units) else ""
    # Postgres takes literals on lines of their own for one, escaped as the first one is.
    return prefix + ("\n" + " " * indent).join(f"'{part}'" for part in parts)


def sql_texts(values: tuple[str, ...]) -> str:
    """An array of short texts, in SQL."""
    return f"CAST(ARRAY[{', '.join(sql_text(each, 0) for each in values)}] AS text[])"


def sql_name(name: str) -> str:
    """A column or table, which may be one of SQL's own words."""
    return f'"{name}"'


def shown(text: str) -> str:
    """A text for people to recognize, in a docstring: one word, what is odd in it left out."""
    seen = _UNSHOWN.sub("?", text.replace(" ", "_"))
    return seen if len(seen) <= _SHOWN else f"{seen[:_SHOWN]}..."


def split(units: list[str], room: int) -> list[str]:
    """Pieces as long as the room allows, never in the middle of a unit; one at least."""
    parts = [""]
    for unit in units:
        if len(parts[-1]) + len(unit) > room:
            parts.append("")
        parts[-1] += unit
    return parts


def _python_escape(found: re.Match[str]) -> str:
    escaped = found[0].encode("unicode_escape").decode()
    return escaped if escaped.startswith("\\") else f"\\x{ord(found[0]):02x}"


def _sql_escape(found: re.Match[str]) -> str:
    digits = f"{ord(found[0]):04x}"
    return f"\\u{digits}" if len(digits) == len("0000") else f"\\U{digits:0>8}"
