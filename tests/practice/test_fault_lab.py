"""A fault lab breaks only its own connection, names the fault, and removes all its files at the end."""

import gc
import logging
import stat
import subprocess
import sys

import pytest
from command_line import environment

from ucl_helpers import renew, views
from ucl_helpers.errors import UCLError
from ucl_helpers.models import Check
from ucl_helpers.operations import CONFIGURATION, REVOKE
from ucl_helpers.practice.fault_lab import FOLDER, FaultLab
from ucl_helpers.procedures.renewal import Renewal
from ucl_sandbox import FaultsError

LOST = {"kind": "reset-after-acting", "operation": "sign"}


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders lie."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def lab(temporary):
    lab = FaultLab()
    yield lab
    lab.close()


def failed(lab):
    return [one.name for one in lab.check().checks if one.status != "ok"]


def test_its_connection_works_and_renews(lab):
    assert lab.check().ok
    assert failed(lab) == []
    assert lab.connection.is_sandbox
    assert renew(lab.connection).outcome == "renewed"
    assert lab.calls.acted("sign") == 2


def damaged(lab):
    (lab.connection.path / "current" / "key.pem").unlink()


def revoked(lab):
    with lab.connection.session() as session:
        session.post(lab.connection.url, json={"query": REVOKE})


def interrupted(lab):
    Renewal.begin(lab.connection).configuration()


def opened_to_others(lab):
    (lab.connection.path / "journal.jsonl").chmod(0o644)


BREAKS = {
    "identity in use": damaged,
    "UCL": revoked,
    "under way": interrupted,
    "open to others": opened_to_others,
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_check_finds_the_one_thing_that_is_wrong(name, lab):
    BREAKS[name](lab)
    found = failed(lab)
    assert name in found
    assert set(found) - {name} <= ({"UCL"} if name == "identity in use" else set())
    assert lab.check().ok == (name == "under way")


def test_what_must_hold_besides_is_checked_as_well(lab):
    assert lab.check(same_key=True).checks[-1] == Check("same key", "ok", "yes", "yes")
    assert [one.name for one in lab.check(same_key=False).checks if one.status == "failed"] == ["same key"]


def test_what_is_under_way_can_still_be_gone_on_with(lab):
    interrupted(lab)
    assert renew(lab.connection).outcome == "renewed"
    assert failed(lab) == []


def test_who_was_revoked_establishes_again_as_another_client(lab):
    before = lab.connection.require_current()
    revoked(lab)
    assert lab.establish().outcome == "established"
    after = lab.connection.require_current()
    assert before.certificate.subject != after.certificate.subject
    assert lab.establish().outcome == "already-established"
    assert lab.connection.require_current() == after


def test_calls_tell_what_was_acted_on_and_what_was_answered(lab, monkeypatch):
    monkeypatch.setattr("ucl_helpers.wire.client.BACKOFF_SECONDS", (0.0,))
    lab.inject(**LOST, times=1)
    assert renew(lab.connection).outcome == "renewed"
    lost, answered = ("sign", "yes", "nothing (reset-after-acting)"), ("sign", "yes", "200 OK")
    asked = ("configuration", "yes", "200 OK")
    assert lab.calls.rows() == [asked, lost, answered, asked]
    lab.check()  # its own call is none of them
    assert (len(lab.calls.rows()), lab.calls.acted("sign")) == (4, 2)
    lab.inject("http-429", operation="sign")
    assert views.attempt(renew, lab.connection).exit_code == 3
    assert lab.calls.rows() == [asked, *[("sign", "no", "429 Too Many Requests")] * 2]
    assert lab.calls.acted("sign") == 0
    lab.clear()
    assert lab.calls.rows() == []


def test_a_fault_is_met_again_though_its_certificate_could_be_used_by_now(lab):
    for _ in range(2):
        lab.inject("not-yet-valid", value=3600, times=1)
        assert views.attempt(renew, lab.connection).exit_code in {3, 6}
        assert lab.connection.pending.read_state()
    waits = lab.connection.pending.read_state().id
    lab.clear()  # which leaves what is under way
    assert lab.connection.pending.read_state().id == waits
    lab.inject("http-503", operation="sign", times=1)
    assert not lab.connection.pending.read_state()


def test_a_refusal_is_not_acted_on(lab):
    revoked(lab)
    lab.clear()
    with lab.connection.session() as session:
        assert session.post(lab.connection.url, json={"query": CONFIGURATION}).content == b""
    assert lab.calls.rows() == [("configuration", "no", "400 Bad Request")]


def test_a_fault_that_there_is_not_is_told(lab):
    with pytest.raises(FaultsError, match="kind is 'mishap'"):
        lab.inject("mishap")


def test_what_is_handed_out_is_private(lab):
    found = [lab.connection.home.path, *lab.connection.path.rglob("*")]
    assert {stat.S_IMODE(one.stat().st_mode) & 0o077 for one in found if not one.is_symlink()} == {0}


@pytest.mark.parametrize("end", [lambda lab: lab.close(), lambda lab: [lab.close(), lab.close()]])
def test_nothing_is_left_of_one_that_was_closed(end, temporary):
    lab = FaultLab()
    (folder,) = temporary.iterdir()
    assert folder.name.startswith(FOLDER)
    end(lab)
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_of_one_that_nobody_refers_to(temporary):
    lab = FaultLab()
    assert list(temporary.iterdir())
    del lab
    gc.collect()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "1 / 0"])
def test_nothing_is_left_when_the_process_ends_and_nobodys_home_is_touched(ending, tmp_path):
    (place := tmp_path / "tmp").mkdir()
    script = f"import os\nfrom ucl_helpers.practice.fault_lab import FaultLab\nlab = FaultLab()\n{ending}"
    script = script.replace("lab = FaultLab()", "lab = FaultLab()\nprint(len(os.listdir(os.environ['TMPDIR'])))")
    variables = environment(tmp_path / "home", TMPDIR=str(place))
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
    assert list(place.iterdir()) == []
    assert not (tmp_path / "home").exists()


def test_a_fault_lab_that_could_not_be_made_leaves_nothing(temporary):
    with pytest.raises(UCLError, match="1024"):
        FaultLab(1024)
    assert list(temporary.iterdir()) == []


def test_a_handshake_that_was_refused_is_not_logged_and_all_else_is(temporary, caplog):
    caplog.set_level(logging.WARNING, "tornado.general")  # Dask, once imported, quietens all of tornado

    def refused():
        lab = FaultLab()
        lab.inject("not-yet-valid", value=3600)
        views.attempt(renew, lab.connection)
        return lab

    lab = refused()
    logging.getLogger("tornado.general").warning("All else")
    assert [one.message for one in caplog.records if one.name == "tornado.general"] == ["All else"]
    lab.close()
    logging.getLogger("tornado.general").warning("SSL Error on %s", "a server of somebody else's")
    assert "SSL Error on a server of somebody else's" in caplog.text


def test_an_outage_is_a_warning_and_is_over_when_it_is_mended(lab):
    lab.inject("outage", after=2)
    met = views.attempt(renew, lab.connection)
    assert (met.facts["error"], met.exit_code) == ("Outage", 3)
    refused, asked = ("configuration", "no", "400 Bad Request"), ("viewer", "no", "502 Bad Gateway")
    assert lab.calls.rows() == [("configuration", "yes", "200 OK"), ("sign", "yes", "200 OK"), refused, asked]
    assert {one.name: one.status for one in lab.check().checks if one.status != "ok"} == {
        "UCL": "warning",
        "under way": "warning",
    }
    assert lab.check().ok
    lab.clear()
    assert renew(lab.connection).outcome == "renewed"
    assert lab.calls.rows() == [("configuration", "yes", "200 OK")]
    assert failed(lab) == []
