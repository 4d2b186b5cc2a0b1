"""The further files of a generation, as other programs read them: keytool, openssl, Kubernetes' own schema."""

import base64
import shutil
import subprocess

import pytest
import yaml
from certificates import certificate, intermediate, key, root
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
from kubernetes_validate import ValidationError, validate
from secrets_watch import CANARY

from ucl_helpers.connection.exports import GenerationSpec, differing, generation_files
from ucl_helpers.crypto import dump_certificates
from ucl_helpers.keys import dump_key, load_key
from ucl_helpers.models import fingerprint

SECRET, OTHER = CANARY.encode(), b"another passphrase"
EVERYTHING = GenerationSpec("prod", SECRET, exports={"combined": True, "encrypted_key": OTHER, "pkcs12": SECRET})
IN_PLAIN = GenerationSpec(
    "prod", exports={"combined": True, "kubernetes_secret": "default/true"}
)  # a name that YAML takes for something else
CHAIN = certificate(), intermediate(), root()


def made(wanted):
    return dict(generation_files(key("leaf"), CHAIN, CHAIN[1:], None, wanted))


@pytest.fixture(scope="module")
def files():
    return made(EVERYTHING)


@pytest.fixture(scope="module")
def p12(files, tmp_path_factory):
    path = tmp_path_factory.mktemp("p12") / "identity.p12"
    path.write_bytes(files["identity.p12"])
    return path


def test_every_key_is_the_same_and_opens_with_its_own_passphrase(files):
    for name, secret in {
        "key.pem": SECRET,
        "identity.pem": SECRET,
        "combined.pem": SECRET,
        "encrypted-key.pem": OTHER,
    }.items():
        assert load_key(files[name], secret).private_numbers() == key("leaf").private_numbers()
        assert b"BEGIN PRIVATE KEY" not in files[name]
    assert files["combined.pem"] == dump_certificates(*CHAIN) + files["key.pem"]


def test_pkcs12_holds_key_and_chain_under_the_name_of_the_connection(files):
    bundle = load_pkcs12(files["identity.p12"], SECRET)
    assert bundle.cert.friendly_name == b"prod"
    assert [bundle.cert.certificate, *(one.certificate for one in bundle.additional_certs)] == list(CHAIN)


def read(program, path, passphrase, tmp_path):
    """What a program of others says of a PKCS #12; it gets the passphrase from a file."""
    (tmp_path / "passphrase").write_text(passphrase)
    commands = {
        "keytool": (
            "-list",
            "-v",
            "-storetype",
            "PKCS12",
            "-keystore",
            path,
            "-storepass:file",
            tmp_path / "passphrase",
        ),
        "openssl": ("pkcs12", "-info", "-noout", "-in", path, "-passin", f"file:{tmp_path / 'passphrase'}"),
    }
    return subprocess.run([program, *map(str, commands[program])], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", ["keytool", "openssl"])
def test_others_read_the_pkcs12_and_not_without_its_passphrase(program, p12, tmp_path):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    right, wrong = (read(program, p12, passphrase, tmp_path) for passphrase in (CANARY, "another passphrase"))
    assert (right.returncode, wrong.returncode) == (0, 1), right.stderr
    if program == "keytool":
        mark = fingerprint(CHAIN[0]).upper()
        assert ":".join(mark[at : at + 2] for at in range(0, 64, 2)) in right.stdout
        assert "Alias name: prod" in right.stdout
        assert "Certificate chain length: 3" in right.stdout
    else:
        assert right.stderr.count("AES-256-CBC") == 2


@pytest.mark.parametrize("secret", [None, SECRET], ids=["in plain", "encrypted"])
def test_openssl_reads_key_and_combined(secret, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    (tmp_path / "passphrase").write_text(CANARY)
    for name, data in made(GenerationSpec("prod", secret, exports={"combined": True, "encrypted_key": SECRET})).items():
        (tmp_path / name).write_bytes(data)
        if "key" in name or name in {"combined.pem", "identity.pem"}:
            command = ["openssl", "pkey", "-noout", "-check", "-passin", "file:passphrase", "-in", name]
            assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_kubernetes_takes_the_secret():
    secret = yaml.safe_load(made(IN_PLAIN)["secret.yaml"])
    validate(secret, "1.30", strict=True)
    assert (secret["metadata"], secret["type"]) == ({"name": "true", "namespace": "default"}, "kubernetes.io/tls")
    read = {name: base64.b64decode(value) for name, value in secret["data"].items()}
    assert read == {"tls.crt": dump_certificates(*CHAIN), "tls.key": dump_key(key("leaf"))}
    with pytest.raises(ValidationError):
        validate({**secret, "data": {"tls.key": 5}}, "1.30", strict=True)


@pytest.mark.parametrize(
    "wanted", [GenerationSpec("prod"), IN_PLAIN, EVERYTHING], ids=["nothing", "in plain", "everything"]
)
def test_what_was_made_as_wanted_does_not_differ(wanted):
    assert differing(made(wanted), wanted) == []


@pytest.mark.parametrize(
    ("there", "wanted", "names"),
    [
        (GenerationSpec(), GenerationSpec(key=SECRET), ["key.pem"]),
        (GenerationSpec(key=SECRET), GenerationSpec(), ["key.pem"]),
        (GenerationSpec(key=SECRET), GenerationSpec(key=OTHER), ["key.pem"]),
        (GenerationSpec(), IN_PLAIN, ["combined.pem", "secret.yaml"]),
        (IN_PLAIN, GenerationSpec(), ["combined.pem", "secret.yaml"]),
        (IN_PLAIN, GenerationSpec(exports={"combined": True, "kubernetes_secret": "default/other"}), ["secret.yaml"]),
        (
            GenerationSpec(exports={"encrypted_key": SECRET}),
            GenerationSpec(exports={"encrypted_key": OTHER}),
            ["encrypted-key.pem"],
        ),
        (GenerationSpec(exports={"pkcs12": SECRET}), GenerationSpec(exports={"pkcs12": OTHER}), ["identity.p12"]),
        (
            GenerationSpec(),
            GenerationSpec(exports={"encrypted_key": OTHER, "pkcs12": OTHER}),
            ["encrypted-key.pem", "identity.p12"],
        ),
        (
            GenerationSpec(exports={"encrypted_key": OTHER, "pkcs12": OTHER}),
            GenerationSpec(),
            ["encrypted-key.pem", "identity.p12"],
        ),
    ],
)
def test_what_is_not_as_wanted_is_named(there, wanted, names):
    assert differing(made(there), wanted) == names


def test_damage_differs(files):
    for name in ("combined.pem", "encrypted-key.pem", "identity.p12", "key.pem"):
        assert name in differing({**files, name: files[name][:300]}, EVERYTHING)


def test_no_passphrase_is_shown():
    assert not any(one.decode() in repr(EVERYTHING) for one in (SECRET, OTHER))
