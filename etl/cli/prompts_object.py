"""What the commands of `prompts` print with `--json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl.cli.moments import iso
from etl.jobs.prompts import personas_of
from etl.report.word_diff import word_diff

if TYPE_CHECKING:
    from etl.jobs.configurations import Configuration, Configurations
    from etl.jobs.prompts import Found, Holder, Prompt, Similar

_SIGNS = {"same": "=", "old": "-", "new": "+"}


def found_as_object(found: Found, limit: int) -> dict[str, Any]:
    """What `search --json` prints.

    - `searched`: how many distinct prompts; `count`: how many of them have it; `personas`: of how
      many personas those are.
    - `prompts`: the first of them: `prompt_id` (the SHA-256, as in the view), `passages` (how often
      it is there), `first` of those (`line` from 1, `before`, `passage`, `after`), and `personas`
      (`persona_id`, `name`; with --history `valid_from`, `valid_to`).
    """
    everybody = [holder for prompt in found.prompts for holder in prompt.holders]
    return {
        "searched": found.searched,
        "count": len(found.prompts),
        "personas": personas_of(everybody),
        "prompts": [
            {
                "prompt_id": prompt.prompt_id,
                "passages": prompt.passages,
                "first": [excerpt._asdict() for excerpt in prompt.first],
                "personas": _holders(prompt.holders),
            }
            for prompt in found.prompts[:limit]
        ],
    }


def similar_as_object(found: Similar) -> dict[str, Any]:
    """What `similar --json` prints.

    - `distinct`: how many prompts; `personas`: how many have one; `too_long`: how many prompts were
      not compared.
    - `count`: how many groups; `grouped_prompts` and `grouped_personas`: what is in them.
    - `groups`: the first: `prompts` and `personas` are counts; `reference`: `prompt_id`,
      `system_prompt` and `personas`; `variants`: the same, with `similarity` from 0 to 1 and
      `words`: pairs of `=`, `-` or `+` and a passage, from the reference to it.
    """
    return {
        "distinct": found.distinct,
        "personas": found.personas,
        "too_long": found.too_long,
        "count": found.groups,
        "grouped_prompts": found.grouped_prompts,
        "grouped_personas": found.grouped_personas,
        "groups": [
            {
                "prompts": group.prompts,
                "personas": group.personas,
                "reference": _prompt(group.reference),
                "variants": [
                    {
                        **_prompt(one.prompt),
                        "similarity": round(one.similarity, 4),
                        "words": [
                            [_SIGNS[kind], text]
                            for kind, text in word_diff(group.reference.text, one.prompt.text)
                        ],
                    }
                    for one in group.first
                ],
            }
            for group in found.first
        ],
    }


def configurations_as_object(found: Configurations) -> dict[str, Any]:
    """What `configurations --json` prints.

    - `distinct`: how many; `personas`: how many live ones; `shared`: how many of those
      configurations more than one persona has; `most_shared`: the first of them:
      `configuration_id`, `settings` (as in the view) and `personas`.
    - `one_apart_count`: how many sets of configurations agree in all but one setting; `one_apart`:
      the first: `setting`, `configurations` and `personas` (counts), and of the configurations the
      `first`: `value` of that setting, `configuration_id`, `personas`.
    """
    return {
        "distinct": found.distinct,
        "personas": found.personas,
        "shared": found.shared,
        "most_shared": [
            {**_configuration(one), "settings": one.settings} for one in found.most_shared
        ],
        "one_apart_count": found.one_apart,
        "one_apart": [
            {
                "setting": group.setting,
                "configurations": group.configurations,
                "personas": group.personas,
                "first": [
                    {"value": one.settings[group.setting], **_configuration(one)}
                    for one in group.first
                ],
            }
            for group in found.first_one_apart
        ],
    }


def _configuration(one: Configuration) -> dict[str, Any]:
    return {"configuration_id": one.configuration_id, "personas": _holders(one.holders)}


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "prompt_id": prompt.prompt_id,
        "system_prompt": prompt.text,
        "personas": _holders(prompt.holders),
    }


def _holders(holders: list[Holder]) -> list[dict[str, str | None]]:
    return [
        {"persona_id": str(holder.persona_id), "name": holder.name}
        | (
            {"valid_from": iso(holder.valid_from), "valid_to": iso(holder.valid_to)}
            if holder.valid_from
            else {}
        )
        for holder in holders
    ]
