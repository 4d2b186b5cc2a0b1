"""Which secrets of a run are known: what its parameters and settings refer to, and the keys that lie there by then."""

import pytest
from certificates import certificate, intermediate, key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from test_redaction import EC, OPAQUE, PEM, private

from ucl_helpers.automation.redaction import Redactor
from ucl_helpers.automation.watching import WatchedSecrets
from ucl_helpers.crypto import dump_bundle, dump_certificates, dump_key, load_key, make_key
from ucl_helpers.files import write
from ucl_helpers.store import Home

PROTECTION = BestAvailableEncryption(b"a passphrase of some length")
LINE = PEM.splitlines()[15]  # without a mark: found only if it is known


@pytest.fixture
def connection(tmp_path):
    return Home(tmp_path / "home").new("prod")


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, text.encode())


def found(parameters, text):
    """The kinds of secrets found in a text by what these parameters make known."""
    watched = WatchedSecrets(parameters)
    return [kind for *_, kind in watched().find(text)]


def test_what_parameters_refer_to_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("A_BEARER", f" {OPAQUE}\n")
    put(tmp_path / "secret", "first line\nsecond-line-0123456789\n")
    parameters = {"bearer": "env:A_BEARER", "more": [{"deep": f"file:{tmp_path}/secret"}], "name": "prod", "n": 5}
    assert found(parameters, f"Bearer {OPAQUE}!") == ["secret of env:A_BEARER"]
    assert found(parameters, "x second-line-0123456789 x") == [f"secret of file:{tmp_path}/secret"]
    assert found(parameters, "prod 5 first line") == []
    assert found({"bearer": "env:NOT_SET", "x": "file:/not/there", "y": "prompt", "home": 5}, OPAQUE) == []


def test_what_a_reference_leads_to_later_is_known_then(tmp_path):
    watched = WatchedSecrets({"token": f"file:{tmp_path}/token"})
    assert watched().find("a-secret-of-its-own") == []
    put(tmp_path / "token", "a-secret-of-its-own")
    assert [kind for *_, kind in watched().find("a-secret-of-its-own")] == [f"secret of file:{tmp_path}/token"]
    put(tmp_path / "token", "another-secret-0815")
    texts = "a-secret-of-its-own, and then once more another-secret-0815"
    assert len(watched().find(texts)) == 2
    before = watched().count
    assert watched().count == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_key_that_settings_open_is_known_in_plain_whenever_they_say_so(connection, monkeypatch, when):
    monkeypatch.setenv("OPENS", "a passphrase of some length")
    sealed = private(PrivateFormat.PKCS8, protection=PROTECTION).decode()
    put(connection.path / "generations" / "000001-x" / "key.pem", sealed)
    watched = WatchedSecrets({"connection": "prod", "home": str(connection.home.path)})
    if when == "after":
        assert watched().find(LINE) == []
    put(connection.path / "settings.toml", 'passphrase = "env:OPENS"\n')
    assert [kind for *_, kind in watched().find(LINE)] == ["private key"]


def test_the_marker_of_a_key_that_is_referred_to_is_no_secret(tmp_path):
    put(tmp_path / "key.pem", PEM)
    assert found({"key": f"file:{tmp_path}/key.pem"}, "assert '-----BEGIN PRIVATE KEY-----' not in text") == []


def test_a_passphrase_that_has_dashes_is_known(monkeypatch):
    monkeypatch.setenv("DASHES", "one-----two")
    assert found({"passphrase": "env:DASHES"}, "it is one-----two") == ["secret of env:DASHES"]


def test_a_token_is_known_by_itself_if_it_came_in_a_url(monkeypatch):
    monkeypatch.setenv("T", "https://ucl.example/graphql?token=0123456789-abcdef")
    assert found({"token": "env:T"}, "connector-token: 0123456789-abcdef") == ["one-time token"]


@pytest.mark.parametrize("name", ["pending/key.pem", "generations/000001-x/key.pem", "aside/x/key.pem"])
def test_a_key_of_the_connection_is_known_once_it_is_made(connection, name):
    watched = WatchedSecrets({"connection": "prod", "home": str(connection.home.path)})
    redactor = Redactor(watched)
    assert redactor.text(LINE, "x") == LINE
    put(connection.path / name, PEM)
    redactor.refresh()
    assert redactor.text(LINE, "x") == "[private key removed]"
    (connection.path / name).unlink()  # it stays known
    redactor.refresh()
    assert redactor.text(LINE, "x") == "[private key removed]"


def test_without_a_name_those_of_practice_connections_are_known_and_no_others(connection):
    home = connection.home
    watched = WatchedSecrets({"connection": "", "home": str(home.path)})
    put(connection.path / "pending" / "key.pem", PEM)
    assert watched().find(LINE) == []
    put(home.new("practice-02").path / "pending" / "key.pem", PEM)
    assert [kind for *_, kind in watched().find(LINE)] == ["private key"]


def test_the_kept_token_and_what_the_settings_refer_to_are_known(connection, monkeypatch):
    monkeypatch.setenv("A_PASSPHRASE", "a passphrase of some length")
    put(connection.path / "pending" / "token", "0123456789-abcdef")
    put(connection.path / "settings.toml", 'a = "env:A_PASSPHRASE"')
    parameters = {"connection": "prod", "home": str(connection.home.path)}
    assert found(parameters, "0123456789-abcdef") == ["one-time token"]
    assert found(parameters, "(a passphrase of some length)") == ["secret of env:A_PASSPHRASE"]


@pytest.mark.parametrize("home", ["x" * 5000, "a\0b", "~nobody/x", "/dev/null", 5, None])
@pytest.mark.parametrize("name", ["prod", "../x", "", "a\0b"])
def test_a_home_that_cannot_be_has_no_secrets(home, name):
    assert found({"home": home, "connection": name}, PEM) == []


def test_a_key_file_that_a_parameter_names_is_known(tmp_path):
    put(tmp_path / "ucl-app.key", PEM)
    put(tmp_path / "ec.key", private(PrivateFormat.PKCS8, of=EC).decode())
    assert found({"key_file": str(tmp_path / "ucl-app.key")}, LINE) == ["private key"]
    assert found({"key_file": str(tmp_path / "ec.key")}, (tmp_path / "ec.key").read_text()[40:100]) == ["private key"]
    assert found({"name": str(tmp_path / "ucl-app.key")}, LINE) == []


@pytest.mark.parametrize("protection", [None, b"a passphrase of some length"])
def test_a_certificate_beside_a_key_is_no_secret(tmp_path, protection):
    chain = dump_certificates(certificate(), intermediate()).decode()
    key_pem = dump_key(key("leaf"), protection).decode()
    put(tmp_path / "combined.pem", chain + key_pem)
    put(tmp_path / "chain.pem", chain)
    parameters = {"certificate_file": str(tmp_path / "combined.pem"), "chain_file": str(tmp_path / "chain.pem")}
    assert found(parameters, key_pem.splitlines()[15]) == ["private key"]
    assert found(parameters, chain) == []


SEALED = {
    "key.pem": lambda: dump_key(load_key(PEM.encode()), b"a passphrase of some length"),
    "key.der": lambda: load_key(PEM.encode()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, PROTECTION),
    "identity.p12": lambda: dump_bundle(key("leaf"), [certificate()], "x", b"a passphrase of some length"),
}


@pytest.mark.parametrize("name", SEALED)
@pytest.mark.parametrize(("passphrase", "kinds"), [("a passphrase of some length", ["private key"]), ("another", [])])
def test_a_key_that_lies_there_encrypted_is_known_in_plain(name, passphrase, kinds, tmp_path, monkeypatch):
    monkeypatch.setenv("A_PASSPHRASE", passphrase)
    (tmp_path / name).write_bytes(SEALED[name]())
    number = (key("leaf") if name == "identity.p12" else load_key(PEM.encode())).private_numbers().d
    assert found({"key_file": str(tmp_path / name), "passphrase": "env:A_PASSPHRASE"}, str(number)) == kinds


def test_the_encrypted_keys_of_a_connection_are_known_in_plain(connection, monkeypatch):
    monkeypatch.setenv("A_PASSPHRASE", "a passphrase of some length")
    put(connection.path / "settings.toml", 'key_passphrase = "env:A_PASSPHRASE"')
    put(connection.path / "generations" / "000001-x" / "key.pem", SEALED["key.pem"]().decode())
    assert found({"connection": "prod", "home": str(connection.home.path)}, LINE) == ["private key"]


def test_a_key_that_is_replaced_is_read_again(connection):
    path, other = connection.path / "pending" / "key.pem", dump_key(make_key(2048)).decode()
    watched = WatchedSecrets({"connection": "prod", "home": str(connection.home.path)})
    put(path, other)
    assert watched().find(LINE) == []
    put(path.with_name("new"), PEM)
    path.with_name("new").rename(path)
    for line in (LINE, other.splitlines()[15]):
        assert [kind for *_, kind in watched().find(line)] == ["private key"]
