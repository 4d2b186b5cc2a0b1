"""A connection whose key lies on disk encrypted: renewed, revoked, imported and looked at, at the real sandbox."""

import pytest
from contract_replay import rsa_key
from quick_keys import QUICK_BITS
from secrets_watch import CANARY
from steps import go

from ucl_helpers.connection.status import status_of
from ucl_helpers.errors import InvalidSettings, KeyLocked
from ucl_helpers.keys import dump_key, is_sealed
from ucl_helpers.operate.doctor import diagnose
from ucl_helpers.procedures.establishment import Establishment, establish
from ucl_helpers.procedures.generations import export
from ucl_helpers.procedures.importing import import_identity, read_identity
from ucl_helpers.procedures.renewal import Renewal, renew
from ucl_helpers.procedures.revocation import forget, revoke, valid_identities
from ucl_helpers.procedures.rollback import rollback

pytest_plugins = ["procedure_fixtures"]

ENCRYPTED = f'key_length = {QUICK_BITS}\nkey_passphrase = "env:KEY"\n'


@pytest.fixture
def sealed(secure, monkeypatch):
    """Its settings want keys encrypted; what lies there is in plain still."""
    monkeypatch.setenv("KEY", CANARY)
    (secure.path / "settings.toml").write_text(ENCRYPTED)
    return secure


def in_plain(connection):
    there = [path for path in connection.path.rglob("*") if path.is_file()]
    return [str(one) for one in there if b"BEGIN PRIVATE KEY" in one.read_bytes()]


def test_the_next_renewal_leaves_nothing_in_plain_at_any_step(sealed):
    assert len(in_plain(sealed)) == 2
    renewal = Renewal.begin(sealed)
    assert in_plain(sealed) == []
    for step in ("configuration", "request", "sign", "decode", "verify", "activate"):
        getattr(renewal, step)()
        assert in_plain(sealed) == []
    assert len(sealed.generations()) == 2
    assert renew(sealed).outcome == "renewed"


def test_it_goes_on_where_it_was_cut_off_and_what_was_pending_is_encrypted_then(secure, monkeypatch, between):
    go(Renewal.begin(secure, key_length=QUICK_BITS), upto="sign")
    monkeypatch.setenv("KEY", CANARY)
    (secure.path / "settings.toml").write_text(ENCRYPTED)
    key, calls = secure.pending.key().private_numbers(), len(between.calls)
    renewal = Renewal.begin(secure)
    assert is_sealed(secure.pending.key_path.read_bytes())
    go(renewal)
    assert secure.current.key().private_numbers() == key
    assert len(between.calls) == calls + 1  # verified, and nothing else


def test_an_interrupted_establishment_is_finished_though_what_was_in_use_is_rebuilt_meanwhile(sealed, another, ucl):
    revoke(sealed)
    establishment = Establishment.begin(sealed, another(), ca_file=ucl.ca_file)
    go(establishment, upto="sign")
    export(sealed, force=True)
    assert establish(sealed, None).outcome == "established"
    assert in_plain(sealed) == []


@pytest.mark.parametrize("setting", ["key_passphrase", "exports.pkcs12", "exports.encrypted_key"])
def test_a_reference_that_leads_nowhere_is_told_before_anything_is_asked_for(sealed, setting, between):
    *table, key = setting.split(".")
    above = f"[{table[0]}]\n" if table else ""
    (sealed.path / "settings.toml").write_text(f'key_length = {QUICK_BITS}\n{above}{key} = "env:LOST"\n')
    calls = len(between.calls)
    with pytest.raises(InvalidSettings, match=f"^{setting} of .*: the environment variable LOST is empty or not set"):
        renew(sealed)
    assert (len(between.calls), bool(sealed.pending)) == (calls, False)


def test_a_reference_that_is_lost_before_activation_costs_no_certificate(sealed, monkeypatch, between):
    (sealed.path / "settings.toml").write_text(ENCRYPTED + '[exports]\npkcs12 = "env:P12"\n')
    monkeypatch.setenv("P12", CANARY)
    renewal = Renewal.begin(sealed)
    go(renewal, upto="verify")
    monkeypatch.delenv("P12")
    before, calls = sealed.current, len(between.calls)
    with pytest.raises(InvalidSettings, match=r"exports\.pkcs12"):
        renewal.activate()
    assert (sealed.current, sealed.pending.answer() is not None) == (before, True)
    monkeypatch.setenv("P12", CANARY)
    assert renew(sealed).outcome == "renewed"
    assert len(between.calls) == calls + 1
    assert (sealed.current.path / "identity.p12").exists()


def test_a_wrong_passphrase_stops_every_procedure_and_loses_nothing(sealed, monkeypatch, another):
    renew(sealed)
    monkeypatch.setenv("KEY", "wrong")
    before = {one: one.read_bytes() for one in sealed.path.rglob("*.pem")}
    for act in (
        lambda: renew(sealed),
        lambda: rollback(sealed),
        lambda: revoke(sealed),
        lambda: establish(sealed, another()),
        lambda: export(sealed),
    ):
        with pytest.raises(KeyLocked, match="is encrypted, with another passphrase") as caught:
            act()
        assert caught.value.remedy.endswith(f": ucl export {sealed.name} --from prompt")
    assert {one: one.read_bytes() for one in sealed.path.rglob("*.pem")} == before
    assert status_of(sealed).state == "valid"
    assert len(valid_identities(sealed)) == 2
    monkeypatch.setenv("KEY", CANARY)
    assert rollback(sealed).outcome == "rolled-back"


def test_with_its_passphrase_lost_for_good_a_connection_can_be_forgotten(sealed, monkeypatch):
    renew(sealed)
    monkeypatch.setenv("KEY", "wrong")
    assert forget(sealed, even_if_valid=True).outcome == "forgotten"


def test_what_is_encrypted_is_revoked_whatever_generation_it_lies_in(sealed):
    renew(sealed)
    assert revoke(sealed, everything=True).outcome == "revoked"
    assert len(sealed.revoked()) == 2


def test_an_import_is_encrypted_from_its_first_moment(sealed, home, ucl, tmp_path):
    chain = (sealed.current.path / "chain.pem").read_bytes()
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "a.key").write_bytes(dump_key(rsa_key(), b"another passphrase"))
    connection = home.new("imported")
    (connection.path / "settings.toml").write_text(ENCRYPTED)
    identity = read_identity(tmp_path / "a.key", tmp_path / "chain.pem", passphrase="another passphrase")
    url = ucl.certificate_secured_connector_url
    import_identity(home, "imported", identity, url, ca_file=ucl.ca_file)
    assert in_plain(connection) == []
    assert connection.current.is_sealed
    connection.current.check_whole()


def test_the_doctor_tells_locked_from_damaged_and_needs_no_passphrase_for_the_rest(sealed, monkeypatch):
    def found(**statuses):
        diagnosis = diagnose(sealed)
        bad = {one.name: one.status for one in diagnosis if one.status in {"failed", "warning"}}
        assert bad == statuses, str(diagnosis)
        return diagnosis

    diagnosis = found(**{"key at rest": "failed"})
    assert "the key is not encrypted in" in diagnosis["key at rest"].found
    assert (diagnosis["key at rest"].remedy.split()[:3], diagnosis.exit_code) == (["ucl", "export", sealed.name], 9)
    export(sealed)
    assert "opens it" in found()["key at rest"].found
    monkeypatch.setenv("KEY", "wrong")
    diagnosis = found(**{"key at rest": "failed"})
    assert "with another passphrase" in diagnosis["key at rest"].found
    assert diagnosis["client certificate"].status == "skipped"
    assert diagnosis["validity"].status == "ok"
    monkeypatch.delenv("KEY")
    assert "KEY is empty or not set" in found(**{"key at rest": "failed", "files": "failed"})["key at rest"].found
    monkeypatch.setenv("KEY", CANARY)
    (sealed.current.path / "key.pem").write_bytes((sealed.current.path / "key.pem").read_bytes()[:300])
    assert diagnose(sealed).worst.name == "key and certificate"


def test_the_doctor_names_exports_that_are_not_as_wanted(sealed, monkeypatch):
    monkeypatch.setenv("P12", CANARY)
    export(sealed)
    (sealed.path / "settings.toml").write_text(ENCRYPTED + '[exports]\npkcs12 = "env:P12"\n')
    finding = diagnose(sealed, offline=True)["files"]
    assert (finding.status, "identity.p12" in finding.found) == ("warning", True)
    export(sealed)
    finding = diagnose(sealed, offline=True)["files"]
    assert (finding.status, finding.found) == ("ok", "for us, 0600; exports: identity.p12")
