"""Practice connections: they work whatever happened to them before, are marked as such, and never touch a real one."""

import shutil
import stat
import subprocess
from datetime import timedelta

import pytest
from command_line import UCL, environment
from quick_keys import QUICK_BITS

from ucl_helpers import practice, revoke, status_of
from ucl_helpers.clock import utc_now
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import ServerNotTrusted, UCLError, UnknownConnection, UsageError
from ucl_helpers.models import OneTimeToken
from ucl_helpers.operations import REVOKE
from ucl_helpers.procedures.acceptance import is_accepted
from ucl_helpers.procedures.establishment import establish
from ucl_helpers.procedures.renewal import Renewal
from ucl_helpers.wire.client import Client
from ucl_sandbox import Sandbox


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder whose sandbox runs in this process, and is left at the end."""
    monkeypatch.setattr(practice, "_JOINED", {})
    home = Home(tmp_path / "home")
    with Sandbox(home.path / "sandbox"):
        yield home


def opened(home, name=""):
    return practice.open_connection(name, home.path, practice="try")


def test_without_a_name_there_is_a_practice_connection_that_works_and_stays(home):
    first = opened(home)
    assert (first.name, first.is_sandbox, status_of(first).state) == ("try", True, "valid")
    assert "(sandbox, for practice)" in str(status_of(first))
    again = opened(home)
    assert again.require_current().fingerprint == first.require_current().fingerprint


def revoked_here(connection):
    revoke(connection)


def revoked_elsewhere(connection):
    current = connection.require_current()
    ca, credentials = current.server_ca, current.credentials
    with Client(connection.url, "certificate", ca_file=ca, credentials=credentials) as client:
        client.call(REVOKE)


def damaged(connection):
    (connection.path / "current" / "chain.pem").write_text("no certificate")


def without_key(connection):
    (connection.path / "current" / "key.pem").unlink()


def current_gone(connection):
    shutil.rmtree((connection.path / "current").resolve())


@pytest.mark.parametrize("spoil", [revoked_here, revoked_elsewhere, damaged, without_key, current_gone])
def test_one_that_no_longer_works_is_made_anew(spoil, home):
    before = opened(home)
    old = before.require_current().fingerprint
    spoil(before)
    assert not is_accepted(before, utc_now)
    connection = opened(home)
    assert connection.require_current().fingerprint != old
    assert is_accepted(connection, utc_now)
    assert connection.is_sandbox


def test_one_that_is_about_to_expire_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(practice, "_JOINED", {})
    home = Home(tmp_path)
    marks = []
    for seconds in (30, 120, 120):
        with Sandbox(home.path / "sandbox", validity=timedelta(seconds=seconds)):
            marks.append(opened(home).require_current().fingerprint)
            opened(home)
    assert marks[0] != marks[1] == marks[2]


@pytest.mark.parametrize("name", ["", "lab"])
def test_when_the_sandbox_was_removed_it_begins_anew_with_another(name, tmp_path, monkeypatch):
    monkeypatch.setattr(practice, "_JOINED", {})
    home = Home(tmp_path)

    def begun():
        way = practice.choose_enrolment(name, home.path, practice="try")
        establish(way.connection, way.access, ca_file=way.ca_file, key_length=QUICK_BITS)
        return way.connection

    with Sandbox(home.path / "sandbox"):
        old = begun().require_current()
    shutil.rmtree(home.path / "sandbox")
    with Sandbox(home.path / "sandbox") as ucl:
        with (
            pytest.raises(ServerNotTrusted),
            Client(ucl.connector_url, "token", ca_file=old.server_ca, credentials=None) as client,
        ):
            client.call(REVOKE)
        connection = opened(home) if not name else begun()
        assert connection.name == (name or "try")
        assert connection.require_current().name != old.name
        assert is_accepted(connection, utc_now)


def test_a_sandbox_that_ended_is_started_again(tmp_path, monkeypatch):
    monkeypatch.setattr(practice, "_JOINED", {})
    home = Home(tmp_path)
    with Sandbox(home.path / "sandbox"):
        first = practice.sandbox_of(home)
        opened(home)
    with Sandbox(home.path / "sandbox") as again:
        assert practice.sandbox_of(home).connector_url == again.connector_url
        assert practice.sandbox_of(home) is not first
        assert is_accepted(opened(home), utc_now)


def test_a_sandbox_that_cannot_be_started_is_a_typed_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UCLError, match="start the sandbox"):
        practice.sandbox_of(Home(tmp_path / "file"))


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def real(home, tmp_path):
    """A connection to another UCL."""
    with Sandbox(tmp_path / "other") as ucl:
        connection = home.new("prod")
        establish(
            connection,
            OneTimeToken(ucl.one_time_token(), ucl.connector_url),
            ca_file=ucl.ca_file,
            key_length=QUICK_BITS,
        )
        yield connection


def test_a_real_connection_is_opened_as_it_is(home, real):
    assert not opened(home, "prod").is_sandbox
    assert practice.choose_enrolment("prod", home.path, practice="try").access is None


def test_a_real_connection_is_not_practised_with(home, real):
    with pytest.raises(UsageError, match="prod is a real connection"):
        practice.practise(home, "prod", QUICK_BITS)
    begun = home.new("half")
    (begun.path / "pending").mkdir()
    with pytest.raises(UsageError, match="half is a real connection"):
        practice.practise(home, "half", QUICK_BITS)
    assert practice.practise(home, "lab", QUICK_BITS).outcome == "established"


def test_a_practice_connection_is_not_established_for_real(home, tmp_path, monkeypatch):
    monkeypatch.setenv("T", f"{'s3cr3t':-<86}==")
    given = {"token": "env:T", "connector_url": "https://localhost/"}
    practice.practise(home, "lab", QUICK_BITS)
    with pytest.raises(UsageError, match="lab is a connection for practice"):
        practice.choose_enrolment("lab", home.path, practice="try", **given)
    assert "s3cr3t" not in str(practice.choose_enrolment("new", home.path, practice="try", **given))


def test_a_way_in_without_a_name_is_a_usage_error(home, monkeypatch):
    monkeypatch.setenv("T", f"{'s3cr3t':-<86}==")
    with pytest.raises(UsageError, match="cannot name a connection"):
        practice.choose_enrolment("", home.path, practice="try", token="env:T", connector_url="https://localhost/")
    assert home.connections() == []


def test_a_name_that_is_not_there_is_told(home):
    with pytest.raises(UnknownConnection, match="no connection 'nobody'"):
        opened(home, "nobody")


def test_a_practice_connection_that_is_begun_again_forgets_the_one_before(home):
    first = opened(home)
    old = first.require_current().fingerprint
    way = practice.choose_enrolment("", home.path, practice="try")
    assert (way.connection.name, way.connection.current) == ("try", None)
    assert "not yet" in str(way)
    establish(way.connection, way.access, ca_file=way.ca_file, key_length=QUICK_BITS)
    assert way.connection.require_current().fingerprint != old


def test_an_interrupted_renewal_of_it_is_kept(home):
    begun = Renewal.begin(opened(home), key_length=QUICK_BITS)
    begun.configuration()
    key = begun.request().key_path
    again = Renewal.begin(opened(home), key_length=QUICK_BITS)
    again.configuration()
    assert (again.request().key_path, again.request().reused) == (key, True)


def test_what_ucl_says_to_a_revoked_certificate(home):
    connection = opened(home)
    assert practice.refusal_of(connection) == "UCL accepts it."
    revoke(connection)
    assert "refused to authenticate us (400)" in practice.refusal_of(connection)


# -- several at once ---------------------------------------------------------------------------------------------------


def test_several_have_each_their_own_rule_and_stay(home):
    wanted = {"fleet-1": "10d", "fleet-2": "20d"}
    made = practice.open_connections(home=home.path, practice=wanted)
    assert [(one.name, status_of(one).due.reason) for one in made] == [
        ("fleet-1", "renew_before = 10 d"),
        ("fleet-2", "renew_before = 20 d"),
    ]
    (made[0].path / "settings.toml").write_text((made[0].path / "settings.toml").read_text().replace("10d", "7d"))
    again = practice.open_connections(home=home.path, practice=wanted)
    assert status_of(again[0]).due.reason == "renew_before = 7 d"
    assert [one.current for one in again] == [one.current for one in made]
    assert all(one.is_sandbox for one in again)


def test_a_pattern_chooses_among_those_there_are(tmp_path):
    home = Home(tmp_path)
    for name in ("prod-1", "prod-2", "test-1"):
        home.new(name)
    for pattern, names in (("prod-*", ["prod-1", "prod-2"]), ("*-1", ["prod-1", "test-1"]), ("test-1", ["test-1"])):
        assert [one.name for one in practice.open_connections(pattern, tmp_path, practice={})] == names
    with pytest.raises(UnknownConnection, match=r"named like 'PROD-\*'"):
        practice.open_connections("PROD-*", tmp_path, practice={})


def test_settings_that_were_there_first_can_be_practised_with(home):
    path = home.new("mine").path / "settings.toml"
    path.write_text("keep = 9\n")
    with pytest.raises(UsageError, match="real connection") as told:
        practice.practise(home, "mine", QUICK_BITS)
    path.write_text(told.value.remedy.partition("settings.toml: ")[2] + "\n" + path.read_text())
    assert practice.practise(home, "mine", QUICK_BITS).outcome == "established"
    assert home.connection("mine").read_settings().keep == 9


@pytest.mark.parametrize("mask", [0o002, 0o022])
def test_a_home_that_the_first_sandbox_makes_is_ours_whatever_the_umask(mask, tmp_path):
    home = tmp_path / "new" / "home"
    command = [UCL, "establish", "practice", "--sandbox", "--key-length", str(QUICK_BITS)]
    subprocess.run(command, env=environment(home), umask=mask, check=True, capture_output=True)
    found = [one for one in (tmp_path / "new", *home.parent.rglob("*")) if not one.is_symlink()]
    wide = [str(one) for one in found if stat.S_IMODE(one.stat().st_mode) & 0o077 and not one.is_socket()]
    assert wide == []
