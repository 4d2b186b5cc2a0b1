"""Importing an identity that was made elsewhere: in every form it comes in, and only if UCL accepts it."""

import base64
import itertools
import subprocess
from datetime import timedelta

import pytest
from contract_replay import Landscape, rsa_key
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from meddler import answers, lost_on_the_way, refused
from quick_keys import QUICK_BITS
from secrets_watch import CANARY
from steps import Clock, events, judged, tree

from ucl_helpers import import_identity, read_identity, renew
from ucl_helpers.connection.pending import Pending
from ucl_helpers.errors import (
    AuthenticationFailed,
    Busy,
    CertificateRejected,
    ServerNotTrusted,
    UCLError,
    Unavailable,
    Unreachable,
    UsageError,
)
from ucl_helpers.keys import make_key

pytest_plugins = ["procedure_fixtures"]


@pytest.fixture
def chain(ucl, between, tmp_path):
    """What UCL has signed for ``rsa_key()``: leaf, intermediate, root."""
    return x509.load_pem_x509_certificates(Landscape(ucl, ucl.one_time_token).establish(tmp_path).chain)


def pem(*certificates):
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def key_bytes(format_=PrivateFormat.PKCS8, encoding=Encoding.PEM, secret=None, key=None):
    protection = BestAvailableEncryption(secret.encode()) if secret else NoEncryption()
    return (key or rsa_key()).private_bytes(encoding, format_, protection)


def files(folder, key, certificate=None, chain=None):
    """Files as the tutorial names them; their paths."""
    paths = []
    for name, content in (("ucl-app.key", key), ("ucl-app.crt", certificate), ("ucl-app.chain", chain)):
        if content is not None:
            (folder / name).write_bytes(content)
            paths.append(folder / name)
    return paths


@pytest.fixture
def taken(home, ucl, between):
    def take(identity, name="prod", **how):
        return import_identity(
            home, name, identity, between.certificate_secured_connector_url, **{"ca_file": ucl.ca_file, **how}
        )

    return take


# -- forms -------------------------------------------------------------------------------------------------------------


def test_the_tutorials_files_become_a_connection_that_renews(home, chain, taken, tmp_path):
    outcome = taken(read_identity(*files(tmp_path, key_bytes(), pem(*chain))))
    connection = home.connection("prod")
    connection.write_settings({"key_length": QUICK_BITS})
    assert (outcome.outcome, outcome.facts["fingerprint"]) == ("imported", connection.current.fingerprint)
    assert list(connection.current.chain) == chain
    assert events(connection) == ["imported"]
    assert renew(connection).outcome == "renewed"


KEYS = {
    "PKCS #8": {},
    "PKCS #1": {"format_": PrivateFormat.TraditionalOpenSSL},
    "PKCS #8, encrypted": {"secret": CANARY},
    "PKCS #1, encrypted": {"format_": PrivateFormat.TraditionalOpenSSL, "secret": CANARY},
    "DER": {"encoding": Encoding.DER},
    "DER, encrypted": {"encoding": Encoding.DER, "secret": CANARY},
}


@pytest.mark.parametrize("form", KEYS.values(), ids=KEYS)
def test_every_form_of_key_is_read(chain, tmp_path, form):
    paths = files(tmp_path, key_bytes(**form), pem(*chain))
    identity = read_identity(*paths, passphrase=form.get("secret"))
    assert (identity.key.private_numbers(), list(identity.chain)) == (rsa_key().private_numbers(), chain)


@pytest.mark.parametrize("form", KEYS.values(), ids=KEYS)
def test_with_another_passphrase_it_is_not(chain, tmp_path, form):
    paths = files(tmp_path, key_bytes(**form), pem(*chain))
    for passphrase in {"wrong", *([None] if "secret" in form else [])}:
        with pytest.raises(UsageError, match=r"ucl-app\.key") as told:
            read_identity(*paths, passphrase=passphrase)
        assert "wrong" not in str(told.value)


@pytest.mark.parametrize("secret", [None, CANARY])
def test_pkcs_12_holds_it_all(chain, taken, tmp_path, secret):
    protection = BestAvailableEncryption(secret.encode()) if secret else NoEncryption()
    bundle = serialize_key_and_certificates(b"app", rsa_key(), chain[0], chain[1:], protection)
    identity = read_identity(*files(tmp_path, bundle), passphrase=secret)
    assert list(identity.chain) == chain
    assert taken(identity).outcome == "imported"
    with pytest.raises(UsageError, match=r"ucl-app\.key is PKCS #12"):
        read_identity(tmp_path / "ucl-app.key", passphrase="wrong")


def test_der_certificates_are_read(chain, tmp_path):
    der = [one.public_bytes(Encoding.DER) for one in chain[:2]]
    assert list(read_identity(*files(tmp_path, key_bytes(), *der)).chain) == chain[:2]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_chain_may_come_in_any_order(chain, tmp_path, order):
    shuffled = [chain[place] for place in order]
    assert list(read_identity(*files(tmp_path, key_bytes(), pem(*shuffled))).chain) == chain
    leaf_apart = files(tmp_path, key_bytes(), pem(shuffled[0]), pem(*shuffled[1:], chain[0]))
    assert list(read_identity(*leaf_apart).chain) == chain


def test_strangers_in_the_chain_are_left_out(chain, ucl, tmp_path):
    stranger = x509.load_pem_x509_certificate(ucl.ca_file.read_bytes())
    assert list(read_identity(*files(tmp_path, key_bytes(), pem(stranger, *chain))).chain) == chain


def test_the_leaf_alone_is_enough(chain, taken, tmp_path):
    assert taken(read_identity(*files(tmp_path, key_bytes(), pem(chain[0])))).outcome == "imported"


WRONG = {
    "another key": ({"key": make_key(QUICK_BITS)}, None, "belongs to the key"),
    "an EC key": ({"key": ec.generate_private_key(ec.SECP256R1())}, None, "is not an RSA key"),
    "no certificate": ({}, b"nothing here", "is text without a key or a certificate"),
    "only CAs": ({}, slice(1, 3), "belongs to the key"),
    "half a certificate": ({}, b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "or truncated"),
}


@pytest.mark.parametrize(("key", "certificate", "says"), WRONG.values(), ids=WRONG)
def test_what_does_not_belong_together_is_not_taken(chain, tmp_path, key, certificate, says):
    given = certificate if isinstance(certificate, bytes) else pem(*chain[certificate or slice(3)])
    with pytest.raises(UCLError, match=says):
        read_identity(*files(tmp_path, key_bytes(**key), given))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"ucl-app\.key cannot be read: No such file"):
        read_identity(tmp_path / "ucl-app.key")


# -- only if UCL accepts it --------------------------------------------------------------------------------------------


REFUSALS = {
    "refused": (refused, {}, AuthenticationFailed),
    "no answer": (lost_on_the_way, {}, Unreachable),
    "busy": (answers(503), {}, Unavailable),
    "server not trusted": (None, {"ca_file": None}, ServerNotTrusted),
}


@pytest.mark.parametrize(("meddling", "how", "error"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_not_accepted_leaves_nothing(home, chain, taken, between, *, tmp_path, meddling, how, error):
    identity = read_identity(*files(tmp_path, key_bytes(), pem(*chain)))
    taken(identity, name="other")
    before, names = tree(home.path), {path.name for path in home.path.rglob("*")}
    between.on("configuration", *filter(None, [meddling]))
    with pytest.raises(error):
        taken(identity, **how)
    assert (tree(home.path), {path.name for path in home.path.rglob("*")}) == (before, names)
    assert taken(identity).outcome == "imported"


@pytest.mark.parametrize(("days", "error"), [(-91, CertificateRejected), (1, (CertificateRejected, Unreachable))])
def test_what_is_out_of_time_leaves_nothing(home, ucl, clock, taken, *, tmp_path, days, error):
    clock.set(days=days)
    signed = Landscape(ucl, ucl.one_time_token).establish(tmp_path)
    clock.set()
    with pytest.raises(error):
        taken(read_identity(*files(tmp_path, key_bytes(), signed.chain)))
    assert tree(home.path) == {}


@pytest.mark.parametrize("ahead", [timedelta(minutes=-4), timedelta(hours=-5), timedelta(hours=5)])
def test_our_clock_may_be_wrong(chain, taken, tmp_path, ahead):
    identity = read_identity(*files(tmp_path, key_bytes(), pem(*chain)))
    assert taken(identity, clock=Clock(seconds=ahead.total_seconds())).outcome == "imported"


def test_the_certificate_endpoint_must_be_https(home, chain, tmp_path):
    identity = read_identity(*files(tmp_path, key_bytes(), pem(*chain)))
    with pytest.raises(UsageError, match="--connector-url must be an https URL"):
        import_identity(home, "prod", identity, "http://localhost/connector/graphql")


def test_a_name_whose_identity_ucl_accepts_is_taken(secure, chain, taken, tmp_path):
    before = tree(secure.path)
    with pytest.raises(UsageError, match="UCL accepts its certificate"):
        taken(read_identity(*files(tmp_path, key_bytes(), pem(*chain))))
    assert tree(secure.path) == before


def test_a_name_whose_identity_was_revoked_is_not(secure, chain, taken, tmp_path):
    judged(secure)
    old = secure.current
    outcome = taken(read_identity(*files(tmp_path, key_bytes(), pem(*chain))))
    assert (outcome.facts["previous_fingerprint"], len(secure.generations())) == (old.fingerprint, 2)


def test_no_other_process_uses_the_connection_while_ucl_is_called(home, chain, taken, *, between, tmp_path):
    refusals = []

    def meanwhile(forward, call):
        try:
            with home.connection("prod").lock.held():
                pass
        except Busy as error:
            refusals.append(error)
        return forward()

    between.on("configuration", meanwhile)
    taken(read_identity(*files(tmp_path, key_bytes(), pem(*chain))))
    assert len(refusals) == 1
    with home.connection("prod").lock.held():
        pass


def test_an_import_changes_nothing_while_another_process_uses_the_connection(secure, chain, taken, tmp_path):
    before = tree(secure.path)
    with secure.lock.held(), pytest.raises(Busy):
        taken(read_identity(*files(tmp_path, key_bytes(), pem(*chain))))
    assert tree(secure.path) == before


def test_the_next_import_removes_what_a_killed_import_left(home, chain, taken, tmp_path):
    left = Pending(home.new("prod").path / "generations" / ".new.0123abcd.tmp")
    left.path.mkdir()
    left.key_path.write_bytes(key_bytes())
    taken(read_identity(*files(tmp_path, key_bytes(), pem(*chain))))
    assert [path.name for path in left.path.parent.iterdir()] == [home.connection("prod").current.name]


def test_the_key_is_in_no_representation(chain, tmp_path):
    identity = read_identity(*files(tmp_path, key_bytes(), pem(*chain)))
    secret = rsa_key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, serialization.NoEncryption())
    assert base64.b64encode(secret)[40:80].decode() not in repr(identity) + str(identity)
    assert "key" not in repr(identity).split("chain=")[0]


def test_what_openssl_does_not_use_is_a_usage_error_and_not_one_of_storage(home, tmp_path):
    (tmp_path / "k").write_bytes(key_bytes())
    (tmp_path / "ca.ext").write_text("basicConstraints=critical,CA:TRUE")
    for command in (
        "genrsa -out ca.key 1024",
        "req -x509 -key k -subj /CN=Root -out root",
        "req -new -key ca.key -subj /CN=CA -out ca.csr",
        "x509 -req -in ca.csr -CA root -CAkey k -extfile ca.ext -out ca",
        "req -new -key k -subj /CN=x -out csr",
        "x509 -req -in csr -CA ca -CAkey ca.key -out leaf",
    ):
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "chain").write_bytes((tmp_path / "leaf").read_bytes() + (tmp_path / "ca").read_bytes())
    identity = read_identity(tmp_path / "k", tmp_path / "chain")
    with pytest.raises(UsageError, match=r"cannot be used for TLS: .*too small"):
        import_identity(home, "prod", identity, "https://localhost:1/connector/graphql")
    assert tree(home.path) == {}
