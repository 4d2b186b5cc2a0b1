"""docs/reference/monitoring.md names what there is: every state, metric and alert, and no other."""

import re
from datetime import UTC, datetime
from pathlib import Path

import yaml

from ucl_helpers.connection.status import STATES
from ucl_helpers.operate.monitoring import render

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reference" / "monitoring.md").read_text("utf-8")


def first_cells(head):
    """What stands in code in the first column of a table."""
    table = re.search(rf"^\| {head} \|[^\n]*\n((?:\|[^\n]*\n)*)", TEXT, re.MULTILINE)[1]
    return {name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_state_has_its_verdict():
    assert first_cells("state") == set(STATES)


def test_every_metric_is_explained():
    written = re.findall(r"^# TYPE (\S+)", render([], datetime.now(UTC)).decode(), re.MULTILINE)
    assert first_cells("metric") == set(written)


def test_every_alert_is_explained_with_its_severity():
    groups = yaml.safe_load((ROOT / "deploy/prometheus/ucl.rules.yml").read_text("utf-8"))["groups"]
    alerts = {rule["alert"]: rule["labels"]["severity"] for group in groups for rule in group["rules"]}
    assert dict(re.findall(r"^\| `(UCL\w+)` \| (\w+) \|", TEXT, re.MULTILINE)) == alerts
