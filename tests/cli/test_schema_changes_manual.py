"""What docs/schema-changes.md shows is what happens: its examples are run, in order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from etl.sandbox import Reshape, Sandbox, running_sandbox
from tests.cli.console import check_document

if TYPE_CHECKING:
    from collections.abc import Callable

MANUAL = Path(__file__).parents[2] / "docs" / "schema-changes.md"


def the_api_moves(sandbox: Sandbox, _url: str) -> None:
    sandbox.world.reshape(
        Reshape(
            rename={"skipGreeting": "greetingSkipped"},
            recode={"voice.provider": {"CARTESIA": "HUME"}},
            choose={
                "moodScore": [0.25, 0.75, 1, None],
                "languages": [["en"], ["en", "de"], ["ja"]],
                "lastTrainedAt": ["2026-03-29T01:30:00.500Z", "2026-04-30T23:59:59.999Z"],
            },
        )
    )


HAPPENS: dict[str, Callable[[Sandbox, str], None]] = {"the API moves": the_api_moves}


def test_what_the_manual_shows_is_what_happens(tmp_path: Path, empty_database_url: str) -> None:
    with running_sandbox(count=12, key="sandbox-key", moving=True) as sandbox:
        check_document(
            MANUAL.read_text(encoding="utf-8"), tmp_path, sandbox, empty_database_url, HAPPENS
        )
