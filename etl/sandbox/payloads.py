"""Reads people's own payloads, to be served in the place of made-up ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from etl.sandbox.rendering import Json


def read_payloads(text: str) -> list[Json]:
    """The personas in a text: one object, an array of them, a page of the list, or one a line.

    ValueError says what is wrong where.
    """
    try:
        found = json.loads(text, parse_constant=_no_json)
    except ValueError as whole:
        try:
            found = [json.loads(line, parse_constant=_no_json) for line in _lines(text)]
        except ValueError:
            raise ValueError(f"this is no JSON: {whole}") from whole
    if isinstance(found, dict) and isinstance(found.get("data"), list):
        found = found["data"]
    personas = found if isinstance(found, list) else [found]
    for position, persona in enumerate(personas):
        _check(persona, f"[{position}] " if isinstance(found, list) else "it ")
    return personas


def _lines(text: str) -> list[str]:
    # Not splitlines(): JSON may hold other line ends than \n.
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) == 1 or not lines:
        raise ValueError("not one a line")
    return lines


def _check(persona: Any, where: str) -> None:  # noqa: ANN401  any JSON
    if not isinstance(persona, dict):
        raise ValueError(f"{where}is no JSON object, as a persona is")  # noqa: TRY004  told as such
    if not isinstance(persona.get("id"), str) or not persona["id"] or "/" in persona["id"]:
        raise ValueError(f'{where}has no usable "id"; write a UUID as a string')


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
