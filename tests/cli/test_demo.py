"""The demo is a newcomer's first look: it works, tells, and leaves nothing behind."""

import re

from click.testing import CliRunner
from wcwidth import wcswidth

from etl.cli.main import cli


def test_the_demo_shows_both_syncs_and_what_changed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    shown = CliRunner().invoke(cli, ["demo", "--personas", "12"])
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "created             12" in shown.stdout
    assert "unchanged            9" in shown.stdout
    assert "  brain.systemPrompt  " in shown.stdout
    assert re.search(r"^name +removed_at$", shown.stdout, re.MULTILINE)
    assert "\n+ You answer in one sentence.\n" in shown.stdout
    assert re.search(r"^ +1  \d{4}-\d\d-\d\d [\d:.]{12}\+00:00  ", shown.stdout, re.MULTILINE)
    report = shown.stdout.partition("(persona-etl report):\n")[2]
    assert re.search(r"^  removed +1: ", report, re.MULTILINE)
    assert re.search(r"^  prompts +1 changed", report, re.MULTILINE)
    assert "persona-etl init" in report
    assert list(tmp_path.iterdir()) == []


def test_quiet_it_only_tells_by_its_exit_code() -> None:
    shown = CliRunner().invoke(cli, ["-q", "demo", "--personas", "4"])
    assert (shown.exit_code, shown.output) == (0, "")


def test_no_line_of_the_demo_is_wider_than_a_terminal() -> None:
    shown = CliRunner().invoke(cli, ["demo"])
    assert [line for line in shown.stdout.splitlines() if wcswidth(line) > 80] == []
