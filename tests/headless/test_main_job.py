"""The main job, judged by `openssl` and `curl`: a certificate made by hand is renewed, by notebook and by command."""

import subprocess
from pathlib import Path

import pytest
from command_line import BIN, Shell, curl, environment, made_by_hand, tool
from contract_replay import CONFIGURATION, graphql
from quick_keys import QUICK_BITS

from ucl_helpers.headless.notebooks import packaged
from ucl_sandbox import RunningSandbox, Sandbox


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


def subject_and_key(folder: Path, certificate: Path) -> list[str]:
    return [
        tool(folder, "openssl", "x509", "-in", certificate, "-noout", what, *form)
        for what, form in (("-subject", ("-nameopt", "RFC2253")), ("-pubkey", ()))
    ]


def accepted(folder: Path, ucl: RunningSandbox, chain: Path, key: Path) -> str:
    """What the Connector says to `curl` with this identity: the subject to ask for."""
    trust = ("--cacert", folder / "server-ca.pem", "--cert", chain, "--key", key)
    told = curl(folder, ucl.certificate_secured_connector_url, graphql(CONFIGURATION), *trust)
    return told["certificateSigningRequestInfo"]["subject"]


def judge(folder: Path, ucl: RunningSandbox, connection: Path) -> None:
    """The identity in use is new, verifies, belongs together, and is accepted; so is the old one."""
    current = (connection / "current").resolve()
    leaf, chain, key = current / "certificate.pem", current / "chain.pem", current / "key.pem"
    verify = ("openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", current / "client-ca.pem")
    assert tool(folder, *verify, leaf) == f"{leaf}: OK\n"
    old, new = subject_and_key(folder, folder / "ucl-app.crt"), subject_and_key(folder, leaf)
    assert (old[0] == new[0], old[1] == new[1]) == (True, False)
    assert tool(folder, "openssl", "pkey", "-in", key, "-pubout") == new[1]
    assert accepted(folder, ucl, chain, key) == accepted(folder, ucl, folder / "ucl-app.crt", folder / "ucl-app.key")


def papermill(folder: Path, **parameters: str) -> subprocess.CompletedProcess[str]:
    """Plain papermill, run in ``folder``."""
    given = [part for name, value in parameters.items() for part in ("-p", name, value)]
    command = [BIN / "papermill", packaged("notebooks") / "02_maintain_connection.ipynb", "out.ipynb", *given]
    env = environment(PATH=f"{BIN}:{environment()['PATH']}")
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def elsewhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def named(folder: Path, ucl: RunningSandbox, home: Path) -> dict[str, str]:
    files = {"key_file": "ucl-app.key", "certificate_file": "ucl-app.crt", "ca_file": "server-ca.pem"}
    paths = {name: str(folder / file) for name, file in files.items()}
    where = {"home": str(home), "connector_url": ucl.certificate_secured_connector_url}
    return {**paths, **where, "connection": "prod", "key_length": str(QUICK_BITS)}


def test_plain_papermill_imports_what_was_made_by_hand_and_renews_it(ucl, tmp_path, elsewhere):
    made_by_hand(tmp_path / "hand", ucl)
    done = papermill(elsewhere, **named(tmp_path / "hand", ucl, tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    judge(tmp_path / "hand", ucl, tmp_path / "home" / "connections" / "prod")
    assert [path.name for path in elsewhere.iterdir()] == ["out.ipynb"]


def test_with_the_key_of_another_certificate_nothing_is_imported(ucl, tmp_path, elsewhere):
    made_by_hand(tmp_path / "hand", ucl)
    tool(tmp_path / "hand", "openssl", "genrsa", "-out", "ucl-app.key", str(QUICK_BITS))
    done = papermill(elsewhere, **named(tmp_path / "hand", ucl, tmp_path / "home"))
    assert done.returncode == 1
    assert "UsageError: No certificate in" in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.fixture(scope="module")
def far():
    """A second UCL with a state of its own, of which the client knows a URL and files."""
    with Sandbox() as running:
        yield running


def imported(folder: Path, url: str, shell: Shell):
    made = ("--key", folder / "ucl-app.key", "--certificate", folder / "ucl-app.crt")
    return shell.ucl("import", "prod", *made, "--connector-url", url, "--ca-file", folder / "server-ca.pem", "--json")


def test_by_command_at_a_ucl_known_only_by_its_url_and_files(far, tmp_path):
    made_by_hand(tmp_path / "hand", far)
    shell = Shell(tmp_path / "home")
    said = imported(tmp_path / "hand", far.certificate_secured_connector_url, shell)
    assert (said.code, said.json["outcome"]) == (0, "imported")
    said = shell.ucl("renew", "prod", "--force", "--key-length", str(QUICK_BITS), "--json")
    assert (said.code, said.json["outcome"]) == (0, "renewed")
    connection = tmp_path / "home" / "connections" / "prod"
    judge(tmp_path / "hand", far, connection)
    assert shell.ucl("status", "prod", "--json").json["sandbox"] is False
    assert [path for path in connection.rglob("*") if path.is_file() and b"sandbox" in path.read_bytes().lower()] == []
    assert not (tmp_path / "home" / "sandbox").exists()


def test_the_certificate_of_one_ucl_is_no_use_at_another(ucl, far, tmp_path):
    made_by_hand(tmp_path / "hand", far)
    (tmp_path / "hand" / "server-ca.pem").write_bytes(ucl.ca_file.read_bytes())
    shell = Shell(tmp_path / "home")
    said = imported(tmp_path / "hand", ucl.certificate_secured_connector_url, shell)
    assert (said.code, said.json["error"]) == (4, "CertificateRejected")
    assert shell.ucl("status", "--json").json == []


def test_a_practice_connection_is_marked_so_that_it_shows(tmp_path):
    shell = Shell(tmp_path)
    said = shell.ucl("establish", "practice", "--sandbox", "--key-length", str(QUICK_BITS), "--json")
    assert (said.code, said.json["sandbox"]) == (0, "practice")
    assert shell.ucl("status", "practice", "--json").json["sandbox"] is True
    assert "practice (sandbox)" in shell.ucl("status").out
    assert "practice: valid (sandbox, for practice)" in shell.ucl("status", "practice").out
