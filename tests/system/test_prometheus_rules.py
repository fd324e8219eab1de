"""What promtool, which tests/system/install has brought, says of our metrics and alerts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from etl.report.metrics import LastRun, textfile
from tests.unit.test_metrics import COMMANDS, STANDING

PROMTOOL = "/var/cache/persona-etl-tests/promtool"
HERE = Path(__file__).parent
RULES = HERE.parents[1] / "deploy" / "prometheus" / "persona-etl.rules.yml"
ALERTS = HERE / "alerts.yml"


def promtool(*arguments: str, given: str = "") -> tuple[int, str]:
    """Its exit code, and all that it said."""
    done = subprocess.run(
        [PROMTOOL, *arguments], input=given, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("schema", ["anam", 'a\\b"c {}=, ä'])
def test_all_that_a_file_can_hold_is_well_formed_and_well_named(schema):
    text = ""
    for command in COMMANDS:
        run = LastRun(command, "succeeded", 0, 1_700_003_500.0, 1_700_003_600.25)
        text = textfile(schema, "1.2.3", run, STANDING, text)
    assert promtool("check", "metrics", given=text) == (0, "")
    # That it would have complained:
    assert promtool("check", "metrics", given=text.replace("# HELP", "# "))[0] != 0


def test_the_alerts_are_well_formed():
    code, told = promtool("check", "rules", "--lint-fatal", str(RULES))
    assert code == 0, told


def test_each_alert_fires_when_it_should_and_only_then():
    code, told = promtool("test", "rules", str(ALERTS))
    assert code == 0, told


def test_no_alert_is_without_a_test():
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    fired = {
        tried["alertname"]
        for test in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["tests"]
        for tried in test.get("alert_rule_test", ())
        if tried["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in group["rules"]}
