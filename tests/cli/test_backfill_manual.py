"""What docs/backfill.md shows is what happens: its examples are run, in order."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

from etl.sandbox import Sandbox, running_sandbox
from tests.cli.console import check_document

if TYPE_CHECKING:
    from collections.abc import Callable

MANUAL = Path(__file__).parents[2] / "docs" / "backfill.md"

HAPPENS: dict[str, Callable[[Sandbox, str], None]] = {}


def prepare(folder: Path, sandbox: Sandbox) -> None:
    """Three days of exports, one compressed, one cut short."""
    exports = folder / "exports"
    exports.mkdir()
    for number in (1, 2, 3):
        day = f"2026-03-0{number}"
        lines = []
        for position, persona_id in enumerate(sandbox.world.persona_ids):
            payload = sandbox.world.payload(persona_id)
            if position < number:
                payload = payload | {"name": f"{payload['name']} {4 - number}"}
            at = f"{day}T06:00:{position:02}Z"
            lines.append(json.dumps({"observed_at": at, "payload": payload}))
        text = "\n".join(lines).encode()
        if number == 2:
            (exports / f"{day}.ndjson.gz").write_bytes(gzip.compress(text))
        else:
            (exports / f"{day}.ndjson").write_bytes(text[:-200] if number == 3 else text)


def test_what_the_manual_shows_is_what_happens(tmp_path: Path, empty_database_url: str) -> None:
    with running_sandbox(count=12, key="sandbox-key", moving=True) as sandbox:
        prepare(tmp_path, sandbox)
        check_document(
            MANUAL.read_text(encoding="utf-8"), tmp_path, sandbox, empty_database_url, HAPPENS
        )
