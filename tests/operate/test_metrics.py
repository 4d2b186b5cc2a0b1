"""Metrics for Prometheus: every gauge with its value, whole and readable by others; and twins."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from command_line import Shell
from prometheus_client.parser import text_string_to_metric_families
from stored import install

from ucl_helpers.connection.attempts import Attempts
from ucl_helpers.connection.status import STATES, Status
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import StorageFailed, UsageError
from ucl_helpers.models import Due, Validity
from ucl_helpers.operate import metrics
from ucl_helpers.operate.metrics import render, write_textfile

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WHOLE = Status(
    "prod",
    "due",
    START + 61 * DAY,
    generation="000042-3fa9c1",
    validity=Validity(START, START + 90 * DAY),
    due=Due(due=True, at=START + 60 * DAY, reason=""),
    attempts=Attempts(START + 61 * DAY, START + 60 * DAY, START, failures=2, refused_since=START + 60 * DAY),
)


def samples(text):
    """Each sample by name and labels; it has a help text and is a gauge."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        for one in family.samples:
            found[one.name, *one.labels.values()] = one.value
    return found


def test_every_gauge_has_its_value():
    found = samples(render([WHOLE], START + 61 * DAY))
    day = 86_400
    assert {name: value for (name, *_), value in found.items() if name != "ucl_state"} == {
        "ucl_certificate_not_before_timestamp_seconds": START.timestamp(),
        "ucl_certificate_not_after_timestamp_seconds": START.timestamp() + 90 * day,
        "ucl_renewal_due_timestamp_seconds": START.timestamp() + 60 * day,
        "ucl_last_looked_timestamp_seconds": START.timestamp() + 61 * day,
        "ucl_last_attempt_timestamp_seconds": START.timestamp() + 60 * day,
        "ucl_last_success_timestamp_seconds": START.timestamp(),
        "ucl_renewal_failures": 2,
        "ucl_refused_since_timestamp_seconds": START.timestamp() + 60 * day,
        "ucl_refusal_ends_timestamp_seconds": START.timestamp() + 61 * day,
        "ucl_generation_number": 42,
        "ucl_hooks_pending": 0,
        "ucl_metrics_written_timestamp_seconds": START.timestamp() + 61 * day,
    }
    assert all(("prod" in key) == (key[0] != "ucl_metrics_written_timestamp_seconds") for key in found)


@pytest.mark.parametrize("state", STATES)
def test_of_all_states_one_is_1(state):
    found = samples(render([replace(WHOLE, state=state)], START))
    assert {key[2]: value for key, value in found.items() if key[0] == "ucl_state"} == {
        **dict.fromkeys(STATES, 0),
        state: 1,
    }


def test_what_is_not_known_has_no_sample_but_for_the_dead_mans_switch():
    found = samples(render([Status("new", "not established", START)], START))
    assert {name: value for (name, *_), value in found.items() if name != "ucl_state"} == {
        "ucl_last_looked_timestamp_seconds": 0,
        "ucl_renewal_failures": 0,
        "ucl_hooks_pending": 0,
        "ucl_metrics_written_timestamp_seconds": START.timestamp(),
    }
    assert ("ucl_generation_number", "odd") not in samples(render([replace(WHOLE, name="odd", generation="x")], START))


def test_hooks_that_wait_are_counted(monkeypatch):
    monkeypatch.setattr(metrics, "hooks_pending", lambda _: 3)
    assert samples(render([WHOLE], START))["ucl_hooks_pending", "prod"] == 3


def test_a_name_of_any_kind_is_escaped():
    name = 'a"b\\c\nd'
    assert samples(render([replace(WHOLE, name=name)], START))["ucl_generation_number", name] == 42


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_file_can_be_read_by_others_and_is_replaced_whole(tmp_path):
    path, before = tmp_path / "ucl.prom", os.umask(0o077)
    try:
        write_textfile(path, b"old\n")
        held = path.open("rb")
        write_textfile(path, b"new\n")
    finally:
        os.umask(before)
    with held:
        assert (held.read(), path.read_bytes()) == (b"old\n", b"new\n")
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in tmp_path.iterdir()] == ["ucl.prom"]


def test_a_name_that_node_exporter_passes_over_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"does not end in \.prom"):
        write_textfile(tmp_path / "ucl.txt", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StorageFailed, match="No such file"):
        write_textfile(tmp_path / "missing" / "ucl.prom", b"")


def test_the_command_writes_what_it_prints(tmp_path):
    home = Home(tmp_path / "home")
    install(home.new("prod"), 0)
    home.new("practice").write_settings({"sandbox": "nowhere"})
    shell, path = Shell(home.path), tmp_path / "ucl.prom"
    printed, written = shell.ucl("metrics"), shell.ucl("metrics", "--textfile", path)
    assert (printed.code, printed.err, written.code, written.out) == (0, "", 0, "")
    found = samples(path.read_bytes())
    assert {key[1] for key in found if len(key) > 1} == {"prod"}
    assert found["ucl_state", "prod", "expired"] == 1
    assert samples(printed.out.encode()).keys() == found.keys()
    assert ("ucl_state", "practice", "not established") in samples(shell.ucl("metrics", "--practice").out.encode())
    assert shell.ucl("metrics", "--textfile", tmp_path / "ucl.txt").code == 2
