"""The alert rules: sound and unit-tested by Prometheus' own tool, and about metrics that we write."""

import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from ucl_helpers.connection.status import STATES
from ucl_helpers.operate.monitoring import CRITICAL_SHARE, MANY_FAILURES, WARNING_SHARE, render

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = yaml.safe_load((FOLDER / "ucl.rules.yml").read_text("utf-8"))
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian and Ubuntu: apt install prometheus)"
)


def promtool(*arguments, folder=FOLDER):
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def with_expressions(folder, change):
    """What the unit tests say of rules with other expressions."""
    rules = [{**rule, "expr": change(rule["expr"])} for rule in ALERTS.values()]
    (folder / "ucl.rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "ucl", "rules": rules}]}))
    shutil.copy(FOLDER / "ucl.rules.test.yml", folder)
    done = promtool("test", "rules", "ucl.rules.test.yml", folder=folder)
    return done.returncode, set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr))


@needs_promtool
def test_the_rules_are_sound():
    done = promtool("check", "rules", "ucl.rules.yml")
    assert (done.returncode, f"{len(ALERTS)} rules found" in done.stdout) == (0, True), done


@needs_promtool
def test_a_rule_that_is_none_is_found(tmp_path):
    (tmp_path / "ucl.rules.yml").write_text((FOLDER / "ucl.rules.yml").read_text().replace("== 1'", "==='"))
    assert promtool("check", "rules", "ucl.rules.yml", folder=tmp_path).returncode != 0


@needs_promtool
def test_each_rule_fires_when_it_should():
    done = promtool("test", "rules", "ucl.rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_rules_that_never_fire_or_always_are_found(tmp_path):
    """The twins; written as it is, none is found wrong."""
    assert with_expressions(tmp_path, lambda right: right) == (0, set())
    for change in (lambda _: "vector(0) > 1", lambda right: f"{right} or vector(1)"):
        assert with_expressions(tmp_path, change) == (1, set(ALERTS))


def metrics_in(expression):
    return set(re.findall(r"\bucl_\w+", expression))


def test_the_rules_are_about_metrics_that_are_written():
    written = set(re.findall(r"^# TYPE (\S+)", render([], datetime.now(UTC)).decode(), re.MULTILINE))
    asked = set().union(*(metrics_in(rule["expr"]) for rule in ALERTS.values()))
    assert asked <= written
    assert metrics_in("ucl_certificate_end <= time()") - written == {"ucl_certificate_end"}


def test_the_limits_are_those_of_the_check():
    late, too_late = (ALERTS[name]["expr"] for name in ("UCLRenewalOverdue", "UCLCertificateExpiring"))
    assert late.endswith(f">= {WARNING_SHARE} < {CRITICAL_SHARE}")
    assert too_late.endswith(f">= {CRITICAL_SHARE} < 1")
    assert ALERTS["UCLRenewalFailing"]["expr"].startswith(f"ucl_renewal_failures >= {MANY_FAILURES} ")


def test_every_state_is_well_or_has_its_alert():
    alerted = re.search(r'state=~"([^"]+)"', ALERTS["UCLConnectionBroken"]["expr"])[1].split("|")
    assert {*alerted, "valid", "due", "expired"} == set(STATES)


def test_every_command_that_an_alert_names_is_one():
    from ucl_helpers.cli.main import group

    told = " ".join(rule["annotations"]["description"] for rule in ALERTS.values())
    assert set(re.findall(r"\bucl ([a-z]+)", told)) <= set(group.commands)
