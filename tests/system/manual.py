"""What docs/operations.md has typed, so that the tests type the same."""

from __future__ import annotations

import re

from tests.message_page import FILE


def typed(section: str) -> list[str]:
    """The `sh` blocks below a heading, until the next one. The heading with its `#`."""
    _, _, rest = FILE.read_text(encoding="utf-8").partition(f"\n{section}\n")
    until_the_next = re.split(r"^##", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```$", until_the_next, re.DOTALL | re.MULTILINE)
