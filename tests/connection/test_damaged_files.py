"""Whatever file of a connection is damaged: a renewal goes through, or the doctor names it with a command."""

import os

import pytest
from quick_keys import QUICK_BITS
from steps import go, install

from ucl_helpers import Establishment, Renewal, renew
from ucl_helpers.errors import StorageFailed, UCLError
from ucl_helpers.models import OneTimeToken
from ucl_helpers.operate.doctor import diagnose

pytest_plugins = ["procedure_fixtures"]

GENERATION = ("identity.pem", "key.pem", "certificate.pem", "chain.pem", "client-ca.pem", "server-ca.pem")
FILES = [
    *(f"current/{name}" for name in (*GENERATION, "connection.json")),
    *(f"pending/{name}" for name in ("key.pem", "csr.pem", "answer.json", "chain.pem", "state.json", "server-ca.pem")),
    *("settings.toml", "attempts.json", "hooks.json", "journal.jsonl"),
]
DAMAGE = {
    "empty": b"",
    "zeros": bytes(300),  # as some file systems leave a file after a power cut
    "half": b"-----BEGIN CERTIFICATE-----\nMIIB",
    "a folder": lambda path: path.mkdir(mode=0o700),
    "a FIFO": os.mkfifo,  # to open it for reading would wait for a writer
}


@pytest.fixture(autouse=True)
def without_a_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def prod(home, ucl, between, tmp_path):
    return install(home, ucl, tmp_path)


def damaged(path, content):
    path = path.resolve()
    if path.exists():
        path.unlink()
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
        path.chmod(0o600)


@pytest.mark.kind("the right culprit: a damaged file of a connection")
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_renewal_goes_through_or_the_doctor_names_the_file(prod, name, damage):
    connection = prod
    if name.startswith("pending/"):
        go(Renewal.begin(connection), "sign")
    damaged(connection.path / name, DAMAGE[damage])
    offline = diagnose(connection, offline=True)
    outcome, error = None, None
    try:
        outcome = renew(connection).outcome
    except UCLError as caught:
        error = caught
    if error is None:
        assert outcome == "renewed"
        return
    assert error.exit_code == (2 if name == "settings.toml" else 10), error  # that file alone is the user's
    assert "Give a certificate" not in error.remedy, error
    assert offline.exit_code, f"{error}\n{offline}"
    assert offline.worst.remedy, offline
    assert "Fix that" not in offline.worst.remedy, offline


@pytest.mark.kind("the right culprit: a damaged file of a connection")
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("step", ["configuration", "request", "sign"])
def test_a_run_that_goes_on_names_a_damaged_ca_as_the_toolkits_own(prod, step, damage):
    go(Renewal.begin(prod), step)
    damaged(prod.path / "current" / "server-ca.pem", DAMAGE[damage])
    with pytest.raises(StorageFailed, match=r"server-ca\.pem") as raised:
        renew(prod)
    assert raised.value.exit_code == 10
    if not callable(DAMAGE[damage]):
        assert raised.value.remedy == "To see what repairs it, run: ucl doctor"
    assert diagnose(prod, offline=True)["server trust"].status == "failed"


@pytest.mark.parametrize("step", ["configuration", "request", "sign"])
def test_a_run_goes_on_when_its_ca_is_whole(prod, step):
    """The twin."""
    go(Renewal.begin(prod), step)
    assert renew(prod).outcome == "renewed"


def test_an_establishment_that_goes_on_does_the_same(home, ucl, tmp_path):
    new = home.new("new")
    token = OneTimeToken(ucl.one_time_token(), ucl.connector_url)
    go(Establishment.begin(new, token, ca_file=ucl.ca_file, key_length=QUICK_BITS), "sign")
    (new.path / "pending" / "server-ca.pem").write_bytes(b"")
    with pytest.raises(StorageFailed, match=r"server-ca\.pem is empty") as raised:
        Establishment.begin(new, None, key_length=QUICK_BITS).run()
    assert raised.value.remedy == "To see what repairs it, run: ucl doctor"


def test_without_damage_it_goes_through_and_nothing_is_named(prod):
    assert diagnose(prod, offline=True).exit_code == 0
    assert renew(prod).outcome == "renewed"
