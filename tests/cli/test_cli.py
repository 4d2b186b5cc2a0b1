"""``ucl`` as a process: what each command does, says and ends with."""

import json
import os
import pty
import re
import shlex
import socket
import subprocess
from pathlib import Path

import pytest
from command_line import BIN, BITS, Said, Shell, environment, made_by_hand, tool
from quick_keys import QUICK_BITS
from secrets_watch import CANARY

from ucl_helpers.connection.store import Home
from ucl_helpers.models import OneTimeToken
from ucl_helpers.procedures.establishment import Establishment
from ucl_sandbox import Fault, Sandbox


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def shell(tmp_path_factory, ucl):
    """A shell with one connection, ``prod``, that no test changes."""
    shell = Shell(tmp_path_factory.mktemp("home"))
    shell.establish("prod", ucl)
    return shell


@pytest.fixture
def fresh(tmp_path):
    return Shell(tmp_path / "home")


def connections(shell: Shell) -> list[str]:
    return [one["name"] for one in shell.ucl("status", "--json").json]


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"https://localhost:{listening.getsockname()[1]}/connector/graphql"


# -- establish ---------------------------------------------------------------------------------------------------------


def raw_encoded(ucl):
    told = {"token": ucl.one_time_token(), "connectorURL": ucl.connector_url, "used": False}
    return tool(Path(), "openssl", "base64", "-A", given=json.dumps(told)), ()


def with_url(ucl):
    return ucl.one_time_token(), ("--connector-url", ucl.connector_url)


def in_url(ucl):
    return f"{ucl.connector_url}?token={ucl.one_time_token()}", ("--connector-url", ucl.connector_url)


@pytest.mark.parametrize("form", [with_url, raw_encoded, in_url])
@pytest.mark.parametrize("reference", ["env:T", "file:{}"])
def test_a_token_in_each_form_by_each_reference(form, reference, ucl, fresh, tmp_path):
    token, options = form(ucl)
    (tmp_path / "token.txt").write_text(token + "\n")
    reference = reference.format(tmp_path / "token.txt")
    said = fresh.ucl("establish", "new", "--token", reference, *options, "--ca-file", ucl.ca_file, *BITS, T=token)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("new: established\n")
    assert "\nrenewal due" in said.out
    again = fresh.ucl("establish", "new", "--token", reference, *options, "--ca-file", ucl.ca_file, T=token)
    assert (again.code, "UCL accepts its certificate" in again.err) == (2, True)


def director(ucl, **changed):
    given = {"director-url": ucl.director_url, "tenant": ucl.tenant, "application-id": ucl.application_id}
    return [part for name, value in {**given, **changed}.items() for part in (f"--{name}", value)]


def test_access_to_the_director_brings_its_own_token(ucl, fresh):
    options = (*director(ucl), "--bearer", "env:BEARER", "--ca-file", ucl.ca_file, *BITS, "--json")
    said = fresh.ucl("establish", "new", *options, BEARER=ucl.director_token)
    assert (said.code, said.json["outcome"]) == (0, "established")
    refused = fresh.ucl("establish", "other", *options, BEARER="wrong")
    assert (refused.code, connections(fresh)) == (4, ["new"])


BARE = "mY-0ne-T1me-t0ken"  # as an argument; another form would be found there as a secret
SECRET = BARE + "x" * 69 + "=="
UNUSABLE = {
    "no endpoint": (("--token", "env:T"), "Give the token-secured Connector URL as well"),
    "http": (("--token", "env:T", "--connector-url", "http://localhost/"), "must be an https URL"),
    "a bare token": (("--token", BARE, "--connector-url", "https://localhost/"), "must be a reference"),
    "a bare bearer": (
        ("--director-url", "https://d", "--tenant", "t", "--application-id", "a", "--bearer", BARE),
        "must be a reference",
    ),
    "variable not set": (("--token", "env:NOT_SET"), "variable NOT_SET is empty or not set"),
    "no file": (("--token", "file:/nowhere/token"), "cannot be read"),
    "both ways": (("--token", "env:T", "--director-url", "https://d"), "Both a token and access"),
    "half a Director": (("--director-url", "https://d"), "Missing for the Director: tenant, application_id, bearer"),
    "sandbox and token": (
        ("--token", "env:T", "--connector-url", "https://localhost/", "--sandbox"),
        "needs no other option",
    ),
    "key too short": (("--token", "env:T", "--connector-url", "https://localhost/", "--key-length", "1024"), "1024"),
    "an empty token": (("--token", "", "--connector-url", "https://localhost/"), "--token is empty"),
    "nothing": ((), "no option says how to establish it"),
}


@pytest.mark.parametrize(("options", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_way_in_is_a_usage_error_and_leaves_nothing(options, reason, fresh):
    said = fresh.ucl("establish", "new", *options, T=SECRET)
    assert (said.code, said.out) == (2, "")
    assert reason in said.err
    assert BARE not in said.err
    assert connections(fresh) == []


def test_a_failed_call_leaves_nothing_unless_a_key_was_made(ucl, fresh):
    token = ("--token", "env:T", "--ca-file", ucl.ca_file, "--json")
    down = fresh.ucl("establish", "new", *token, "--connector-url", closed_port(), T=SECRET)
    assert (down.code, down.json["error"], connections(fresh)) == (3, "Unreachable", [])
    refused = fresh.ucl("establish", "new", *token, "--connector-url", ucl.connector_url, T=SECRET)
    assert (refused.code, refused.json["error"], connections(fresh)) == (4, "AuthenticationFailed", [])
    assert SECRET not in down.out + refused.out


UNUSABLE_CA = {
    "not there": lambda _: None,
    "no PEM": lambda _: b"no PEM",
    "of nobody": lambda _: None,
}


@pytest.mark.parametrize("how", UNUSABLE_CA)
def test_a_ca_file_that_cannot_be_used_is_told_before_the_token_is_used_up(how, ucl, fresh, tmp_path, hand):
    path = Path("~no-such-user/ca.pem") if how == "of nobody" else tmp_path / "ca.pem"
    if content := UNUSABLE_CA[how](ucl.ca_file.read_bytes()):
        path.write_bytes(content)
    options = ("--ca-file", path, "--connector-url", closed_port())
    said = fresh.ucl("establish", "new", "--token", "env:T", *options, T=SECRET)
    assert (said.code, str(path) in said.err, connections(fresh)) == (2, True, [])
    said = fresh.ucl("import", "new", "--key", hand / "ucl-app.key", "--certificate", hand / "ucl-app.crt", *options)
    assert (said.code, str(path) in said.err, connections(fresh)) == (2, True, [])


def test_a_ca_file_in_the_home_folder_is_found(ucl, fresh, tmp_path):
    (tmp_path / "ca.pem").write_bytes(ucl.ca_file.read_bytes())
    options = (*director(ucl), "--bearer", "env:BEARER", "--ca-file", "~/ca.pem", *BITS)
    assert fresh.ucl("establish", "new", *options, BEARER=ucl.director_token, HOME=str(tmp_path)).code == 0


def test_a_failed_call_leaves_generations_where_the_link_to_them_is_lost(ucl, fresh):
    assert fresh.ucl("establish", "old", *BITS, "--sandbox").code == 0
    connection = Home(fresh.home).connection("old")
    (connection.path / "current").unlink()
    (connection.path / "settings.toml").unlink()
    (connection.path / "journal.jsonl").unlink()
    keys = sorted(connection.path.rglob("key.pem"))
    token = ("--token", "env:T", "--ca-file", ucl.ca_file, "--connector-url", closed_port())
    assert fresh.ucl("establish", "old", *token, T=SECRET).code == 3
    assert (len(keys), sorted(connection.path.rglob("key.pem"))) == (1, keys)
    said = fresh.ucl("status", "old", "--json").json
    assert (said["state"], "ucl rollback old" in said["problem"]) == ("damaged", True)
    assert fresh.ucl("renew", "old").code == 10


def test_the_token_is_gone_and_another_finishes_with_the_same_key(ucl, fresh):
    """Between the two calls somebody else uses up the token that came with the configuration."""
    connection = Home(fresh.home).new("new")
    begun = Establishment.begin(
        connection, OneTimeToken(ucl.one_time_token(), ucl.connector_url), ca_file=ucl.ca_file, key_length=QUICK_BITS
    )
    begun.configuration()
    key = begun.request().key_path
    kept = Path(key).read_bytes()
    burnt = OneTimeToken((connection.path / "pending" / "token").read_text(), ucl.connector_url)
    Establishment.begin(
        Home(fresh.home).new("other"), burnt, ca_file=ucl.ca_file, key_length=QUICK_BITS
    ).configuration()
    said = fresh.ucl("establish", "new", *BITS, "--json")
    assert (said.code, said.json["error"]) == (3, "PossibleOutage")
    assert Path(key).read_bytes() == kept
    assert fresh.ucl("status", "new", "--json").json["state"] == "not established"


def typed(command, answer, shell):
    """What a command says that is typed as it was printed, with an answer to its question for the token."""
    terminal, keyboard = pty.openpty()
    words = shlex.split(command)
    assert words[0] == "ucl"
    variables = environment(shell.home, PATH=f"{BIN}:{os.environ['PATH']}")
    with subprocess.Popen(
        words,
        cwd=shell.folder,
        env=variables,
        stdin=keyboard,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        asked = b""
        while not asked.endswith(b"token: ") and (more := os.read(process.stderr.fileno(), 1)):
            asked += more
        os.write(terminal, f"{answer}\n".encode())
        out, err = process.communicate()
    os.close(terminal)
    os.close(keyboard)
    return Said(process.returncode, out.decode(), err.decode())


def command_in(text):
    """The command that ends a line of a remedy."""
    return re.search(r"ucl establish .*", text)[0]


LOST_TOKENS = {"used up by the request for a signature": "sign", "used up by the first request": "configuration"}


@pytest.mark.kind("a used-up token: the remedy is a whole command")
@pytest.mark.parametrize("home", ["by UCL_HOME", "by --home"])
@pytest.mark.parametrize("lost", LOST_TOKENS)
def test_what_is_said_of_a_used_up_token_works_when_it_is_typed(ucl, fresh, tmp_path, lost, home):
    where = ("--connector-url", ucl.connector_url, "--ca-file", ucl.ca_file, *BITS)
    elsewhere = ("--home", tmp_path / "a home") if home == "by --home" else ()
    ucl.faults.set([Fault("reset-after-acting", operation=LOST_TOKENS[lost], times=1)])
    said = fresh.ucl("establish", "new", "--token", "env:T", *where, *elsewhere, T=ucl.one_time_token())
    ucl.faults.clear()
    assert (said.code, "used up" in said.err or "is gone" in said.err) == (
        3 if lost.endswith("first request") else 11,
        True,
    )
    command = command_in(said.err)
    done = typed(command, ucl.one_time_token(), fresh)
    assert (done.code, "new: established" in done.out) == (0, True), done
    assert ("--connector-url" in command) is lost.endswith("first request")
    shown = fresh.ucl("status", "new", *elsewhere)
    assert shown.out.startswith("new: valid")


@pytest.mark.parametrize("lost", LOST_TOKENS)
def test_with_the_same_token_it_does_not(ucl, fresh, lost):
    """The twin."""
    token, where = ucl.one_time_token(), ("--connector-url", ucl.connector_url, "--ca-file", ucl.ca_file, *BITS)
    ucl.faults.set([Fault("reset-after-acting", operation=LOST_TOKENS[lost], times=1)])
    said = fresh.ucl("establish", "new", "--token", "env:T", *where, T=token)
    ucl.faults.clear()
    done = typed(command_in(said.err), token, fresh)
    assert done.code == 4
    typed_again = typed(command_in(done.err), ucl.one_time_token(), fresh)
    assert typed_again.code == 0, typed_again


def test_a_practice_connection_does_not_become_a_real_one(ucl, fresh):
    assert fresh.ucl("establish", "lab", "--sandbox", *BITS).code == 0
    said = fresh.ucl("establish", "lab", "--token", "env:T", "--connector-url", ucl.connector_url, T=SECRET)
    assert (said.code, "is a connection for practice" in said.err) == (2, True)


# -- import ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hand(tmp_path_factory, ucl):
    """Files made by openssl and curl; a second key that belongs to nothing; PKCS #12 and an encrypted key."""
    folder = tmp_path_factory.mktemp("hand")
    made_by_hand(folder, ucl)
    tool(folder, "openssl", "genrsa", "-out", "other.key", str(QUICK_BITS))
    pack = ("openssl", "pkcs12", "-export", "-inkey", "ucl-app.key", "-in", "ucl-app.crt", "-out", "ucl-app.p12")
    tool(folder, *pack, "-passout", "stdin", given=CANARY)
    encrypt = ("openssl", "pkcs8", "-topk8", "-in", "ucl-app.key", "-out", "locked.key")
    tool(folder, *encrypt, "-passout", "stdin", given=CANARY)
    return folder


FILES = {
    "PEM": (("--key", "ucl-app.key", "--certificate", "ucl-app.crt"), 0, "imported"),
    "PKCS #12": (("--key", "ucl-app.p12", "--passphrase", "env:P"), 0, "imported"),
    "encrypted": (("--key", "locked.key", "--certificate", "ucl-app.crt", "--passphrase", "env:P"), 0, "imported"),
    "another key": (("--key", "other.key", "--certificate", "ucl-app.crt"), 2, "No certificate in"),
    "no passphrase": (("--key", "ucl-app.p12"), 2, "passphrase"),
    "wrong passphrase": (("--key", "ucl-app.p12", "--passphrase", "env:WRONG"), 2, "passphrase"),
    "no file": (("--key", "none.key", "--certificate", "ucl-app.crt"), 2, "cannot be read"),
}


@pytest.mark.parametrize("case", FILES.values(), ids=FILES)
def test_files_made_elsewhere_are_imported_if_they_fit(case, hand, ucl, fresh):
    options, code, text = case
    trust = ("--connector-url", ucl.certificate_secured_connector_url, "--ca-file", "server-ca.pem")
    fresh.folder = hand
    said = fresh.ucl("import", "prod", *options, *trust, P=CANARY, WRONG="open sesame")
    assert (said.code, text in said.out + said.err) == (code, True), said
    assert connections(fresh) == (["prod"] if code == 0 else [])
    assert "sesame" not in said.out + said.err


def test_a_server_that_is_not_trusted_gets_nothing(hand, ucl, fresh):
    options = ("--key", hand / "ucl-app.key", "--certificate", hand / "ucl-app.crt", "--ca-file", hand / "ucl-app.crt")
    before = len(ucl.requests)
    said = fresh.ucl("import", "prod", *options, "--connector-url", ucl.certificate_secured_connector_url, "--json")
    assert (said.code, said.json["error"]) == (5, "ServerNotTrusted")
    assert (connections(fresh), len(ucl.requests)) == ([], before)


# -- where connections lie ---------------------------------------------------------------------------------------------


def test_home_stands_before_or_behind_the_command_and_wins_over_the_environment(shell, tmp_path):
    elsewhere = Shell(tmp_path / "elsewhere")
    assert connections(elsewhere) == []
    assert elsewhere.ucl("--home", shell.home, "status", "prod").code == 0
    assert elsewhere.ucl("status", "prod", "--home", shell.home).code == 0
    assert elsewhere.ucl("--home", tmp_path, "status", "prod", "--home", shell.home).code == 0
    assert elsewhere.ucl("--home", shell.home, "status", "prod", "--home", tmp_path).code == 2


def test_without_connections_the_status_says_how_to_begin(fresh):
    said = fresh.ucl("status")
    assert (said.code, said.out.strip()) == (
        0,
        f"No connections in {fresh.home} yet. Begin with: ucl establish practice --sandbox",
    )
    assert fresh.ucl("status", "--json").json == []
    assert not fresh.home.exists()


def test_an_unknown_name_is_told_with_the_names_there_are(shell):
    said = shell.ucl("status", "pord")
    assert (said.code, said.out) == (2, "")
    assert "no connection 'pord'" in said.err
    assert "there: prod" in said.err


def test_a_home_that_cannot_be_is_a_storage_error(tmp_path, ucl):
    (tmp_path / "file").write_text("in the way")
    shell = Shell(tmp_path / "file" / "home")
    where = ("--token", "env:T", "--connector-url", ucl.connector_url, "--json")
    said = shell.ucl("establish", "new", *where, T=SECRET)
    assert (said.code, said.json["error"]) == (10, "StorageFailed")


@pytest.mark.parametrize("arguments", [("--home", "", "status"), ("status", "--home", "")])
def test_an_empty_home_is_not_the_current_folder(fresh, arguments):
    said = fresh.ucl(*arguments)
    assert (said.code, "--home is empty" in said.err) == (2, True)
