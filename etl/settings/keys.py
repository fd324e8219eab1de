"""The names of the settings, read off the models: in the file, in the environment, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import SecretStr

from etl.settings.model import Section, Settings

ENVIRONMENT_PREFIX = "PERSONA_ETL_"


class Key(NamedTuple):
    """One key. `default` and `example` are Python values; `expects` ends the sentence "write …"."""

    section: str
    name: str
    default: Any
    example: Any
    description: str
    expects: str
    is_path: bool
    is_list: bool
    is_flag: bool
    is_secret: bool

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"{ENVIRONMENT_PREFIX}{self.section}__{self.name}".upper()


def section_models() -> dict[str, type[Section]]:
    """Map each section's name to its model, in the order of the file."""
    return {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }


def known_keys() -> dict[tuple[str, str], Key]:
    """Map (section, key) to what is known of it, in the order of the file."""
    keys = [
        Key(
            section=section,
            name=field.alias or name,
            default=field.default,
            example=field.examples[0] if field.examples else None,
            description=field.description or "",
            expects=str(field.json_schema_extra["expects"]),
            is_path=_mentions(field.annotation, Path),
            is_list=get_origin(field.annotation) is tuple,
            is_flag=field.annotation is bool,
            is_secret=_mentions(field.annotation, SecretStr),
        )
        for section, model in section_models().items()
        for name, field in model.model_fields.items()
        # The API key has no "expects": it is derived, and no key of the file.
        if isinstance(field.json_schema_extra, dict)
    ]
    return {(key.section, key.name): key for key in keys}


def _mentions(annotation: object, kind: type) -> bool:
    return annotation is kind or any(_mentions(part, kind) for part in get_args(annotation))
