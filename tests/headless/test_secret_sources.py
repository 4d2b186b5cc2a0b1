"""Which secrets of a run are known: what it refers to, the keys of every connection it can reach, and variables."""

import os

import pytest
from certificates import certificate, intermediate, key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from quick_keys import QUICK_BITS
from test_secret_search import EC, OPAQUE, PEM, private

from ucl_helpers.connection.files import write
from ucl_helpers.connection.store import Home
from ucl_helpers.crypto import dump_certificates
from ucl_helpers.headless.redaction import Redactor, sources
from ucl_helpers.headless.redaction.search import find_secret
from ucl_helpers.headless.redaction.sources import WatchedSecrets
from ucl_helpers.keys import dump_bundle, dump_key, load_key, make_key

PROTECTION = BestAvailableEncryption(b"a passphrase of some length")
LINE = PEM.splitlines()[15]  # without a mark: found only if it is known


@pytest.fixture(autouse=True)
def _no_other_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "no-data"))
    monkeypatch.delenv("UCL_HOME", raising=False)


@pytest.fixture
def connection(tmp_path):
    return Home(tmp_path / "home").new("prod")


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, text.encode())


def found(parameters, text):
    """The kind of secret found in a text by what these parameters make known."""
    return find_secret(text, WatchedSecrets(parameters)())


def test_what_parameters_refer_to_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("A_CREDENTIAL", f" {OPAQUE}\n")
    put(tmp_path / "secret", "first line\nsecond-line-0123456789\n")
    parameters = {"bearer": "env:A_CREDENTIAL", "more": [{"deep": f"file:{tmp_path}/secret"}], "name": "prod", "n": 5}
    assert found(parameters, f"Bearer {OPAQUE}!") == "secret of env:A_CREDENTIAL"
    assert found(parameters, "x second-line-0123456789 x") == f"secret of file:{tmp_path}/secret"
    assert found(parameters, "prod 5 first line") is None
    assert found({"bearer": "env:NOT_SET", "x": "file:/not/there", "y": "prompt", "home": 5}, OPAQUE) is None


def test_what_a_reference_leads_to_later_is_known_then(tmp_path):
    watched = WatchedSecrets({"token": f"file:{tmp_path}/token"})
    assert find_secret("a-secret-of-its-own", watched()) is None
    put(tmp_path / "token", "a-secret-of-its-own")
    assert find_secret("a-secret-of-its-own", watched()) == f"secret of file:{tmp_path}/token"
    put(tmp_path / "token", "another-secret-0815")
    for text in ("a-secret-of-its-own", "another-secret-0815"):
        assert find_secret(text, watched()) == f"secret of file:{tmp_path}/token"
    before = len(watched().added)
    assert len(watched().added) == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_key_that_settings_open_is_known_in_plain_whenever_they_say_so(connection, monkeypatch, when):
    monkeypatch.setenv("OPENS", "a passphrase of some length")
    sealed = private(PrivateFormat.PKCS8, protection=PROTECTION).decode()
    put(connection.path / "generations" / "000001-x" / "key.pem", sealed)
    watched = WatchedSecrets({"connection": "prod", "home": str(connection.home.path)})
    if when == "after":
        assert find_secret(LINE, watched()) is None
    put(connection.path / "settings.toml", 'passphrase = "env:OPENS"\n')
    assert find_secret(LINE, watched()) == "private key"


def test_the_marker_of_a_key_that_is_referred_to_is_no_secret(tmp_path):
    put(tmp_path / "key.pem", PEM)
    assert found({"key": f"file:{tmp_path}/key.pem"}, "assert '-----BEGIN PRIVATE KEY-----' not in text") is None


def test_a_passphrase_that_has_dashes_is_known(monkeypatch):
    monkeypatch.setenv("DASHES", "one-----two")
    assert found({"passphrase": "env:DASHES"}, "it is one-----two") == "secret of env:DASHES"


def test_a_token_is_known_by_itself_if_it_came_in_a_url(monkeypatch):
    token = "0123456789-abcdef" + "x" * 69 + "=="
    monkeypatch.setenv("T", f"https://ucl.example/graphql?token={token}")
    assert found({"token": "env:T"}, f"connector-token: {token}") == "one-time token"


@pytest.mark.parametrize("name", ["pending/key.pem", "generations/000001-x/key.pem", "aside/x/key.pem"])
def test_a_key_of_the_connection_is_known_once_it_is_made(connection, name):
    watched = WatchedSecrets({"connection": "prod", "home": str(connection.home.path)})
    redactor = Redactor(watched)
    assert redactor.text(LINE, "x") == LINE
    put(connection.path / name, PEM)
    redactor.notebook({"metadata": {}, "cells": []})
    assert redactor.text(LINE, "x") == "[private key removed]"
    (connection.path / name).unlink()  # it stays known
    redactor.notebook({"metadata": {}, "cells": []})
    assert redactor.text(LINE, "x") == "[private key removed]"


@pytest.mark.parametrize("parameters", [{}, {"connection": ""}, {"connections": "re*"}, {"connection": "other"}])
def test_the_keys_of_every_connection_are_known_whatever_the_parameters(connection, parameters):
    watched = WatchedSecrets({**parameters, "home": str(connection.home.path)})
    assert find_secret(LINE, watched()) is None
    put(connection.path / "generations" / "000001-x" / "key.pem", PEM)
    assert find_secret(LINE, watched()) == "private key"


@pytest.mark.parametrize("how", ["parameter", "UCL_HOME", "default"])
def test_the_home_folders_that_a_run_can_reach_are_read_at_once(tmp_path, monkeypatch, how):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("UCL_HOME", str(tmp_path / "by-variable"))
    homes = {"parameter": "given", "UCL_HOME": "by-variable", "default": "data/ucl-helpers"}
    put(tmp_path / homes[how] / "connections" / "prod" / "pending" / "key.pem", PEM)
    assert found({"home": str(tmp_path / "given")}, LINE) == "private key"
    assert found({"home": str(tmp_path / "another")}, LINE) == (None if how == "parameter" else "private key")


def test_a_home_folder_given_beside_the_parameters_is_read(tmp_path):
    put(tmp_path / "connections" / "prod" / "pending" / "key.pem", PEM)
    assert find_secret(LINE, WatchedSecrets({}, tmp_path)()) == "private key"
    assert find_secret(LINE, WatchedSecrets({})()) is None


def test_of_many_keys_the_newest_are_known_and_those_of_the_named_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MOST_CONNECTIONS", 2)
    monkeypatch.setattr(sources, "MOST_KEYS", 2)
    pems = {name: dump_key(make_key(QUICK_BITS)).decode() for name in ("oldest", "old", "new", "newest")}
    for age, name in enumerate(pems):
        put(path := tmp_path / "connections" / name / "pending" / "key.pem", pems[name])
        for changed in (path, path.parents[1]):
            os.utime(changed, (age, age))

    def known(**parameters):
        watched = WatchedSecrets({"home": str(tmp_path), **parameters})()
        return [name for name, pem in pems.items() if find_secret(pem.splitlines()[15], watched)]

    assert known() == ["new", "newest"]
    monkeypatch.setattr(sources, "MOST_KEYS", 3)
    assert known(connection="oldest") == ["oldest", "new", "newest"]


def test_the_secrets_of_the_sandbox_are_known(tmp_path):
    put(tmp_path / "sandbox" / "client-root.pem", dump_certificates(certificate()).decode() + PEM)
    put(tmp_path / "sandbox" / "ready.json", '{"directorToken": "bearer-of-the-director-0815"}')
    assert found({"home": str(tmp_path)}, LINE) == "private key"
    assert found({"home": str(tmp_path)}, "Bearer bearer-of-the-director-0815") == "bearer token"
    assert found({"home": str(tmp_path)}, dump_certificates(certificate()).decode()) is None


SECRET_VARIABLES = {
    "API_TOKEN": "abcdef-0123456789",
    "CLIENT_SECRET": "n0tThatEasy",
    "DB_PASSWORD": "correct horse battery staple",
    "my_passwd": "pa55-w0rd",
    "BEARER": "ABCdefGHI",
    "SIGNING_KEY": "deadbeefdeadbeef0",
    "APIKEY": "0123456789abcdef",
    "LICENSEKEY": "0123456789abcdef",
    "DB_PASS": "n0tThatEasy",
    "GITHUB_PAT": "github_pat_11ABCDEFG0hijkl",
    "AWS_SECRET_ACCESS_KEY": "/bPxRfiCYEXAMPLEKEYwJalrXUtnFEMI/K7MDENG",
    "EMAIL_HOST_PASSWORD": "n0tThatEasy",
    "GPG_PASSPHRASE": "correct horse battery staple",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "abcdef-0123456789",
    "FILE_ENCRYPTION_KEY": "deadbeefdeadbeef0",
    "URL_SIGNING_SECRET": "n0tThatEasy",
    "PRIVATE_KEY": PEM,
}
OTHER_VARIABLES = {
    "KEYBOARD": "us-intl-0123456789",
    "KEYCLOAK_REALM": "abcdef-0123456789",
    "COMPASS": "abcdef-0123456789",
    "PATTERN": "abcdef-0123456789",
    "KEY": "1",
    "SSH_KEY_PATH": "abcdef-0123456789",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "GPG_KEY": "A035C8C19219BA821ECEA86B64E628F8D684696D",
    "PUBLIC_KEY": "abcdef-0123456789",
    "SIGNING_KEY": "/etc/ssl/private/key-0123.pem",
    "TLS_KEY": "./key-0123.pem",
    "DB_PASSWORD_FILE": "abcdef-0123456789",
    "SSH_PUBLIC_KEY": "abcdef-0123456789",
    "TOKEN_ENDPOINT": "https://idp.example/oauth2/token",
    "TOKENIZERS_PARALLELISM": "false",
    "SECRET_BACKEND": "hashicorp-vault",
    "A_TOKEN": "env:OTHER_TOKEN_0123",
    "HTTP_PROXY": "http://proxy.example:8080",
    "DISPLAY": "abcdef-0123456789",
}


@pytest.mark.parametrize("name", SECRET_VARIABLES)
def test_a_variable_whose_name_says_that_it_holds_a_secret_is_known(name, monkeypatch):
    monkeypatch.setenv(name, SECRET_VARIABLES[name])
    shown = LINE if name == "PRIVATE_KEY" else f"x={SECRET_VARIABLES[name]}"
    assert found({}, shown) == ("private key" if name == "PRIVATE_KEY" else f"secret of env:{name}")
    monkeypatch.delenv(name)
    assert found({}, shown) is None


@pytest.mark.parametrize("name", OTHER_VARIABLES)
def test_a_variable_that_holds_no_secret_is_not(name, monkeypatch):
    monkeypatch.setenv(name, OTHER_VARIABLES[name])
    assert found({}, f"{name}={OTHER_VARIABLES[name]}") is None


def test_a_variable_that_names_a_file_is_no_secret(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A_KEY", "keys-2026.pem")
    assert found({}, "keys-2026.pem") == "secret of env:A_KEY"
    put(tmp_path / "keys-2026.pem", "x")
    assert found({}, "keys-2026.pem") is None


@pytest.mark.parametrize("shown", ["s3cr3t/0815", "s3cr3t%2F0815", "dXNlcjpzM2NyM3QvMDgxNQ=="])
def test_the_password_for_a_proxy_is_known(shown, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://user:s3cr3t%2F0815@proxy.example:8080")
    assert found({}, f"Proxy-Authorization: {shown}") == "secret of env:https_proxy"
    assert found({}, "proxy.example:8080 user") is None


@pytest.mark.parametrize(("user", "kind"), [("t0ken-0815", "secret of env:https_proxy"), ("t0ken-0815:x", None)])
def test_a_token_in_place_of_the_user_of_a_proxy_is_known(user, kind, monkeypatch):
    monkeypatch.setenv("https_proxy", f"http://{user}@proxy.example:8080")
    assert found({}, "it is t0ken-0815") == kind


@pytest.mark.timeout(60)
def test_what_would_block_is_not_read(connection, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    put(connection.path / "settings.toml", f'a = "file:{tmp_path}/fifo"')
    (connection.path / "pending").mkdir(exist_ok=True)
    os.mkfifo(connection.path / "pending" / "key.pem")
    parameters = {"home": str(connection.home.path), "key_file": str(tmp_path / "fifo"), "token": "file:/dev/zero"}
    assert found(parameters, LINE) is None


def test_the_kept_token_and_what_the_settings_refer_to_are_known(connection, monkeypatch):
    monkeypatch.setenv("A_PASSPHRASE", "a passphrase of some length")
    put(connection.path / "pending" / "token", "0123456789-abcdef")
    put(connection.path / "settings.toml", 'a = "env:A_PASSPHRASE"')
    parameters = {"connection": "prod", "home": str(connection.home.path)}
    assert found(parameters, "0123456789-abcdef") == "one-time token"
    assert found(parameters, "(a passphrase of some length)") == "secret of env:A_PASSPHRASE"


@pytest.mark.parametrize("home", ["x" * 5000, "a\0b", "~nobody/x", "/dev/null", 5, None])
@pytest.mark.parametrize("name", ["prod", "../x", "", "a\0b"])
def test_a_home_that_cannot_be_has_no_secrets(home, name):
    assert found({"home": home, "connection": name}, LINE) is None


def test_a_key_file_that_a_parameter_names_is_known(tmp_path):
    put(tmp_path / "ucl-app.key", PEM)
    put(tmp_path / "ec.key", private(PrivateFormat.PKCS8, of=EC).decode())
    assert found({"key_file": str(tmp_path / "ucl-app.key")}, LINE) == "private key"
    assert found({"key_file": str(tmp_path / "ec.key")}, (tmp_path / "ec.key").read_text()[40:100]) == "private key"
    assert found({"name": str(tmp_path / "ucl-app.key")}, LINE) is None


@pytest.mark.parametrize("protection", [None, b"a passphrase of some length"])
def test_a_certificate_beside_a_key_is_no_secret(tmp_path, protection):
    chain = dump_certificates(certificate(), intermediate()).decode()
    key_pem = dump_key(key("leaf"), protection).decode()
    put(tmp_path / "combined.pem", chain + key_pem)
    put(tmp_path / "chain.pem", chain)
    parameters = {"certificate_file": str(tmp_path / "combined.pem"), "chain_file": str(tmp_path / "chain.pem")}
    assert found(parameters, key_pem.splitlines()[15]) == "private key"
    assert found(parameters, chain) is None


SEALED = {
    "key.pem": lambda: dump_key(load_key(PEM.encode()), b"a passphrase of some length"),
    "key.der": lambda: load_key(PEM.encode()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, PROTECTION),
    "identity.p12": lambda: dump_bundle(key("leaf"), [certificate()], "x", b"a passphrase of some length"),
}


@pytest.mark.parametrize("name", SEALED)
@pytest.mark.parametrize(("passphrase", "kind"), [("a passphrase of some length", "private key"), ("another", None)])
def test_a_key_that_lies_there_encrypted_is_known_in_plain(name, passphrase, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("A_PASSPHRASE", passphrase)
    (tmp_path / name).write_bytes(SEALED[name]())
    number = (key("leaf") if name == "identity.p12" else load_key(PEM.encode())).private_numbers().d
    assert found({"key_file": str(tmp_path / name), "passphrase": "env:A_PASSPHRASE"}, str(number)) == kind


def test_the_encrypted_keys_of_a_connection_are_known_in_plain(connection, monkeypatch):
    monkeypatch.setenv("A_PASSPHRASE", "a passphrase of some length")
    put(connection.path / "settings.toml", 'key_passphrase = "env:A_PASSPHRASE"')
    put(connection.path / "generations" / "000001-x" / "key.pem", SEALED["key.pem"]().decode())
    assert found({"connection": "prod", "home": str(connection.home.path)}, LINE) == "private key"


def test_a_key_that_is_replaced_is_read_again(connection):
    path, other = connection.path / "pending" / "key.pem", dump_key(make_key(QUICK_BITS)).decode()
    watched = WatchedSecrets({"connection": "prod", "home": str(connection.home.path)})
    put(path, other)
    assert find_secret(LINE, watched()) is None
    put(path.with_name("new"), PEM)
    path.with_name("new").rename(path)
    for line in (LINE, other.splitlines()[15]):
        assert find_secret(line, watched()) == "private key"


@pytest.mark.parametrize("folder", ["", "connections", "connections/prod", "connections/prod/pending"])
@pytest.mark.parametrize(("mode", "kind"), [(0o700, "private key"), (0o777, None)])
def test_a_home_that_others_can_change_is_not_read(connection, folder, mode, kind):
    """Otherwise another user could choose, by a link or by settings, what a run reads."""
    put(connection.path / "pending" / "key.pem", PEM)
    (connection.home.path / folder).chmod(mode)
    assert found({"home": str(connection.home.path)}, LINE) == kind


@pytest.mark.parametrize("link", ["connections", "connections/prod", "connections/prod/pending"])
def test_a_link_in_a_home_is_not_followed(connection, link, tmp_path):
    put(connection.path / "pending" / "key.pem", PEM)
    place = connection.home.path / link
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert found({"home": str(connection.home.path)}, LINE) is None
