"""A workbench breaks its own connection alone: it works at first, what breaks is told, and nothing of it is left."""

import gc
import logging
import stat
import subprocess
import sys

import pytest
from command_line import environment

from ucl_helpers import renew, views
from ucl_helpers.models import Check
from ucl_helpers.operations import CONFIGURATION, REVOKE
from ucl_helpers.practice.fault_lab import FOLDER, Workbench
from ucl_helpers.procedures.renewal import Renewal
from ucl_sandbox import FaultsError

LOST = {"kind": "reset-after-acting", "operation": "sign"}


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders lie."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def bench(temporary):
    bench = Workbench()
    yield bench
    bench.close()


def failed(bench):
    return [one.name for one in bench.checked().checks if one.status != "ok"]


def test_its_connection_works_and_renews(bench):
    assert bench.checked().ok
    assert failed(bench) == []
    assert bench.connection.is_sandbox
    assert renew(bench.connection).outcome == "renewed"
    assert bench.calls.acted("sign") == 2


def damaged(bench):
    (bench.connection.path / "current" / "key.pem").unlink()


def revoked(bench):
    with bench.connection.session() as session:
        session.post(bench.connection.url, json={"query": REVOKE})


def interrupted(bench):
    Renewal.begin(bench.connection).configuration()


def opened_to_others(bench):
    (bench.connection.path / "journal.jsonl").chmod(0o644)


BREAKS = {
    "identity in use": damaged,
    "UCL": revoked,
    "under way": interrupted,
    "open to others": opened_to_others,
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_check_finds_the_one_thing_that_is_wrong(name, bench):
    BREAKS[name](bench)
    found = failed(bench)
    assert name in found
    assert set(found) - {name} <= ({"UCL"} if name == "identity in use" else set())
    assert bench.checked().ok == (name == "under way")


def test_what_must_hold_besides_is_checked_as_well(bench):
    assert bench.checked(same_key=True).checks[-1] == Check("same key", "ok", "yes", "yes")
    assert [one.name for one in bench.checked(same_key=False).checks if one.status == "failed"] == ["same key"]


def test_what_is_under_way_can_still_be_gone_on_with(bench):
    interrupted(bench)
    assert renew(bench.connection).outcome == "renewed"
    assert failed(bench) == []


def test_who_was_revoked_comes_in_again_by_the_way_in_as_another_client(bench):
    before = bench.connection.require_current()
    revoked(bench)
    assert bench.way_in.begin().run().outcome == "established"
    after = bench.connection.require_current()
    assert before.certificate.subject != after.certificate.subject
    assert bench.way_in.begin().run().outcome == "already-established"
    assert bench.connection.require_current() == after


def test_calls_tell_what_was_acted_on_and_what_was_answered(bench, monkeypatch):
    monkeypatch.setattr("ucl_helpers.wire.client.BACKOFF_SECONDS", (0.0,))
    bench.spoil(**LOST, times=1)
    assert renew(bench.connection).outcome == "renewed"
    lost, answered = ("sign", "yes", "nothing (reset-after-acting)"), ("sign", "yes", "200 OK")
    asked = ("configuration", "yes", "200 OK")
    assert bench.calls.rows() == [asked, lost, answered, asked]
    bench.checked()  # its own call is none of them
    assert (len(bench.calls.rows()), bench.calls.acted("sign")) == (4, 2)
    bench.spoil("http-429", operation="sign")
    assert views.attempt(renew, bench.connection).exit_code == 3
    assert bench.calls.rows() == [asked, *[("sign", "no", "429 Too Many Requests")] * 2]
    assert bench.calls.acted("sign") == 0
    bench.mend()
    assert bench.calls.rows() == []


def test_a_fault_is_met_again_though_its_certificate_could_be_used_by_now(bench):
    for _ in range(2):
        bench.spoil("not-yet-valid", value=3600, times=1)
        assert views.attempt(renew, bench.connection).exit_code in {3, 6}
        assert bench.connection.pending
    waits = bench.connection.pending.state["id"]
    bench.mend()  # which leaves what is under way
    assert bench.connection.pending.state["id"] == waits
    bench.spoil("http-503", operation="sign", times=1)
    assert not bench.connection.pending


def test_a_refusal_is_not_acted_on(bench):
    revoked(bench)
    bench.mend()
    with bench.connection.session() as session:
        assert session.post(bench.connection.url, json={"query": CONFIGURATION}).content == b""
    assert bench.calls.rows() == [("configuration", "no", "400 Bad Request")]


def test_a_fault_that_there_is_not_is_told(bench):
    with pytest.raises(FaultsError, match="kind is 'mishap'"):
        bench.spoil("mishap")


def test_what_is_handed_out_is_private(bench):
    found = [bench.connection.home.path, *bench.connection.path.rglob("*")]
    assert {stat.S_IMODE(one.stat().st_mode) & 0o077 for one in found if not one.is_symlink()} == {0}


@pytest.mark.parametrize("end", [lambda bench: bench.close(), lambda bench: [bench.close(), bench.close()]])
def test_nothing_is_left_of_one_that_was_closed(end, temporary):
    bench = Workbench()
    (folder,) = temporary.iterdir()
    assert folder.name.startswith(FOLDER)
    end(bench)
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_of_one_that_nobody_refers_to(temporary):
    bench = Workbench()
    assert list(temporary.iterdir())
    del bench
    gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "1 / 0"])
def test_nothing_is_left_when_the_process_ends_and_nobodys_home_is_touched(ending, tmp_path):
    (place := tmp_path / "tmp").mkdir()
    script = f"import os\nfrom ucl_helpers.practice.fault_lab import Workbench\nbench = Workbench()\n{ending}"
    script = script.replace("bench = Workbench()", "bench = Workbench()\nprint(len(os.listdir(os.environ['TMPDIR'])))")
    variables = environment(tmp_path / "home", TMPDIR=str(place))
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
    assert list(place.iterdir()) == []
    assert not (tmp_path / "home").exists()


def test_a_workbench_that_could_not_be_made_leaves_nothing(temporary):
    with pytest.raises(views.errors.UCLError, match="1024"):
        Workbench(1024)
    assert list(temporary.iterdir()) == []


def test_a_handshake_that_was_refused_is_not_logged_and_all_else_is(temporary, caplog):
    caplog.set_level(logging.WARNING, "tornado.general")  # Dask, once imported, quietens all of tornado

    def refused():
        bench = Workbench()
        bench.spoil("not-yet-valid", value=3600)
        views.attempt(renew, bench.connection)
        return bench

    bench = refused()
    logging.getLogger("tornado.general").warning("All else")
    assert [one.message for one in caplog.records if one.name == "tornado.general"] == ["All else"]
    bench.close()
    logging.getLogger("tornado.general").warning("SSL Error on %s", "a server of somebody else's")
    assert "SSL Error on a server of somebody else's" in caplog.text


def test_an_outage_is_a_warning_and_is_over_when_it_is_mended(bench):
    bench.spoil("outage", after=2)
    met = views.attempt(renew, bench.connection)
    assert (met.facts["error"], met.exit_code) == ("Outage", 3)
    refused, asked = ("configuration", "no", "400 Bad Request"), ("viewer", "no", "502 Bad Gateway")
    assert bench.calls.rows() == [("configuration", "yes", "200 OK"), ("sign", "yes", "200 OK"), refused, asked]
    assert {one.name: one.status for one in bench.checked().checks if one.status != "ok"} == {
        "UCL": "warning",
        "under way": "warning",
    }
    assert bench.checked().ok
    bench.mend()
    assert renew(bench.connection).outcome == "renewed"
    assert bench.calls.rows() == [("configuration", "yes", "200 OK")]
    assert failed(bench) == []
