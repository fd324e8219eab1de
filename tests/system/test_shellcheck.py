"""What shellcheck says of each file of the checkout that a shell runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.system.installed import CHECKOUT

# Style that would make them harder to read: braces around each variable, and a word about each
# command in a substitution whose failure shows in what it prints.
STYLE = "SC2250,SC2312"


def shell_files() -> list[Path]:
    """All files of the checkout that a shell runs, by their first line."""
    found = []
    for folder, folders, names in os.walk(CHECKOUT):
        at_top = Path(folder) == CHECKOUT
        folders[:] = [
            name
            for name in folders
            if not (Path(folder, name) / "pyvenv.cfg").exists()
            and (name == ".ci" or not (at_top and name.startswith(".")))
        ]
        for file in (Path(folder, name) for name in names):
            with file.open("rb") as opened:
                if re.match(rb"#!.*\b(sh|bash|dash)\b", opened.readline(100)):
                    found.append(file)
    return found


def test_shellcheck_has_nothing_to_say():
    files = shell_files()
    known = ("cron/persona-etl-cron", ".ci/run", "tests/system/install", "tests/system/rooted")
    assert {CHECKOUT / name for name in known} <= set(files)
    command = ["shellcheck", "--enable=all", f"--exclude={STYLE}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
