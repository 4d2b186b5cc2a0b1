"""What is wrong on this disk is named, it alone, and the command that is named mends it."""

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from certificates import intermediate, key
from command_line import UCL, environment
from examined import NOBODY, bad, mended, named, ordinary_user, right_url, typed, well
from quick_keys import QUICK_BITS
from secrets_watch import CANARY
from steps import install, tree

from ucl_helpers import Home, renew
from ucl_helpers.crypto import dump_certificates
from ucl_helpers.errors import UnknownConnection, UsageError
from ucl_helpers.keys import dump_key, load_key
from ucl_helpers.operate.doctor import diagnose, diagnose_home
from ucl_helpers.procedures.generations import export
from ucl_sandbox import Sandbox


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture
def place():
    """A folder that others can get to: those that pytest gives are behind one that is closed to them."""
    with TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def prod(ucl, place):
    return install(Home(place / "home"), ucl, place)


def test_where_nothing_is_wrong_nothing_is_found_changed_or_locked(prod, ucl, proof):
    with prod.lock.held():
        before, calls = tree(prod.home.path), len(ucl.requests)
        (held,) = bad(diagnose(prod))
    assert held == "lock"
    assert all(one.remedy == "" for one in well(prod))
    assert tree(prod.home.path) == before
    assert [(one.listener, one.status) for one in ucl.requests[calls:]] == [("certificate", 200)] * 2
    proof("doctor", "connections without a fault, where none was named", 1)


def test_a_connection_that_is_not_there_is_an_error(prod):
    with pytest.raises(UnknownConnection):
        diagnose(type(prod)(prod.home, "nowhere"))
    with pytest.raises(UsageError):
        type(prod)(prod.home, "../prod")


# -- folders and permissions -------------------------------------------------------------------------------------------

FOLDERS = {
    "home writable by others": ("home folder", lambda home, prod: home.path.chmod(0o777), "can be changed by others"),
    "connections writable": (
        "home folder",
        lambda home, prod: (home.path / "connections").chmod(0o770),
        "can be changed by others",
    ),
    "connection writable": ("connection folder", lambda home, prod: prod.path.chmod(0o720), "can be changed by others"),
    "generations writable": ("secrecy", lambda home, prod: (prod.path / "generations").chmod(0o770), "generations"),
    "an identity for all": ("secrecy", lambda home, prod: (prod.path / "current/identity.pem").chmod(0o604), "secret"),
    "a key for the group": ("secrecy", lambda home, prod: (prod.path / "current/key.pem").chmod(0o640), "key.pem"),
    "a planted symlink": ("connection folder", lambda home, prod: moved_away(prod), "generations is a symlink"),
    "umask 000": ("secrecy", lambda home, prod: loosened(prod.path), "secret"),
}
CODES = {"an identity for all": 9, "a key for the group": 9, "umask 000": 9}


def moved_away(prod):
    (prod.path / "generations").rename(prod.home.path / "elsewhere")
    (prod.path / "generations").symlink_to(prod.home.path / "elsewhere")


def loosened(folder):
    for one in folder.rglob("*"):
        if not one.is_symlink():
            one.chmod(0o777 if one.is_dir() else 0o666)


@pytest.mark.parametrize("fault", FOLDERS)
def test_what_others_may_do_is_named_and_ends(prod, fault, proof):
    name, plant, text = FOLDERS[fault]
    plant(prod.home, prod)
    mended(named(prod, name, text, code=CODES.get(fault, 10)), prod)
    proof("doctor", "faults planted and named", 1)
    proof("doctor", "faults mended by the command that was named", 1)


CLOSED = {
    "the connection's folder": ("connection folder", lambda prod: prod.path.chmod(0o500), "cannot write"),
    "no way in": ("connection folder", lambda prod: prod.path.chmod(0o000), "cannot write"),
    "a key": ("access", lambda prod: (prod.path / "current/key.pem").chmod(0o000), "key.pem"),
    "a folder to look into": ("connection folder", lambda prod: prod.path.chmod(0o300), "cannot write"),
    "the journal": ("access", lambda prod: (prod.path / "journal.jsonl").chmod(0o400), "journal.jsonl"),
    "a generation": ("access", lambda prod: (prod.path / "current/").chmod(0o000), "000001-"),
    "the home folder": ("home folder", lambda prod: prod.home.path.chmod(0o500), "cannot write"),
}


@pytest.mark.parametrize("fault", CLOSED)
def test_what_we_may_not_do_is_named_to_an_ordinary_user(prod, place, fault, proof):
    name, plant, text = CLOSED[fault]
    prod.record("looked at")
    with ordinary_user(place):
        plant(prod)
        finding = named(prod, name, text, code=10, offline=True)
        done = typed(finding.remedy, prod)
        assert done.returncode == 0, done
        well(prod, offline=True)
    proof("doctor", "faults planted and named", 1)
    proof("doctor", "faults mended by the command that was named", 1)


def test_a_home_that_cannot_be_looked_into_is_named(prod, place, proof):
    with ordinary_user(place):
        prod.home.path.chmod(0o000)
        diagnosis, everything = diagnose(prod, offline=True), diagnose_home(prod.home, offline=True)
        prod.home.path.chmod(0o700)
    assert diagnosis.worst.name == "home folder"
    assert (diagnosis.exit_code, everything.exit_code, len(everything.diagnoses)) == (10, 10, 1)
    proof("doctor", "faults planted and named", 1)


@pytest.mark.needs_root("only root gives files away")
def test_what_belongs_to_another_is_named(prod, place, proof):
    key = prod.path / "current" / "key.pem"
    os.chown(key, 65534, -1)
    named(prod, "access", "nobody", status="warning")  # root can use it all the same
    with ordinary_user(place):
        os.seteuid(0)
        os.chown(key, 1, -1)
        os.seteuid(65534)
        finding = named(prod, "access", "belongs to daemon", code=10, offline=True)
    assert finding.remedy == f"sudo chown -R nobody {prod.path}"
    os.chown(key, 65534, -1)
    proof("doctor", "faults planted and named", 2)


SMALL = 'mount -t tmpfs -o size={},mode=700 none "$1" && cp -a "$2/." "$1" && {} "$3" --home "$1" doctor --json'
DISKS = {"has room for": ("128k", ""), "read-only": ("9M", 'mount -o remount,ro none "$1" &&')}


@pytest.mark.parametrize("text", DISKS)
def test_a_full_or_read_only_disk_is_named(prod, tmp_path, text, proof):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives nobody a file system of one's own")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "-rm", "sh", "-c", SMALL.format(*DISKS[text]), "sh", disk, prod.home.path, UCL]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, text in done.stdout) == (10, True), done
    assert "chmod" not in done.stdout  # which helps on neither of them
    proof("doctor", "faults planted and named", 1)


# -- files -------------------------------------------------------------------------------------------------------------


def lose(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def spoil(*names):
    return lambda folder: [(folder / name).write_bytes((folder / name).read_bytes()[:-100] + b"\n") for name in names]


def foreign_key(folder):
    for name in ("key.pem", "identity.pem"):
        chain = (folder / name).read_bytes().partition(b"-----END PRIVATE KEY-----\n")[2]
        (folder / name).write_bytes(dump_key(key("leaf")) + chain)


FILES = {
    "key lost": ("identity in use", lose("key.pem"), "lacks key.pem"),
    "certificate lost": ("identity in use", lose("certificate.pem"), "lacks certificate.pem"),
    "identity lost": ("identity in use", lose("identity.pem"), "lacks identity.pem"),
    "certificate and chain lost": (
        "identity in use",
        lose("certificate.pem", "chain.pem"),
        "certificate.pem, chain.pem",
    ),
    "facts lost": ("identity in use", lose("connection.json"), "lacks connection.json"),
    "facts spoiled": ("identity in use", spoil("connection.json"), "connection.json"),
    "no URL": ("identity in use", lambda folder: (folder / "connection.json").write_text("{}"), "connectorUrl"),
    "key spoiled": ("key and certificate", spoil("key.pem"), "key.pem"),
    "identity spoiled": ("key and certificate", spoil("identity.pem"), "identity.pem"),
    "chain spoiled": ("key and certificate", spoil("chain.pem"), "the chain beside it"),
    "certificate spoiled": ("key and certificate", spoil("certificate.pem"), "certificate.pem"),
}


TYPED = {"certificate lost", "identity lost", "facts spoiled", "key spoiled", "chain spoiled"}  # the others by --whole


@pytest.mark.parametrize("fault", FILES)
def test_a_damaged_file_is_named_and_the_same_identity_is_brought_back(prod, ucl, fault, proof, whole):
    name, plant, text = FILES[fault]
    mark = prod.current.fingerprint
    plant(prod.current.path)
    finding = named(prod, name, text, code=10)
    proof("doctor", "faults planted and named", 1)
    if whole or fault in TYPED:
        mended(finding, prod, **right_url(ucl))
        assert prod.current.fingerprint == mark
        proof("doctor", "faults mended by the command that was named", 1)


def test_where_the_key_is_lost_the_earlier_generation_comes_back(prod, proof):
    first = prod.current.fingerprint
    renew(prod, key_length=QUICK_BITS)
    lose("key.pem", "identity.pem")(prod.current.path)
    finding = named(prod, "identity in use", "lacks identity.pem, key.pem", code=10)
    assert finding.remedy == typed_out("rollback", prod)
    mended(finding, prod)
    assert prod.current.fingerprint == first
    proof("doctor", "faults planted and named", 1)
    proof("doctor", "faults mended by the command that was named", 1)


@pytest.mark.parametrize("plant", [lose("key.pem", "identity.pem"), foreign_key], ids=["lost", "foreign"])
def test_where_nothing_is_left_it_is_established_anew(prod, ucl, plant, proof):
    plant(prod.current.path)
    diagnosis = diagnose(prod)
    (name,) = bad(diagnosis)
    assert name in {"identity in use", "key and certificate"}
    assert "ucl establish prod --token prompt" in diagnosis[name].remedy
    by_reference = diagnosis[name].remedy.replace("prompt", "env:T")
    done = typed(by_reference, prod, CONNECTOR_URL=ucl.connector_url, T=ucl.one_time_token())
    assert done.returncode == 0, done
    well(prod)
    proof("doctor", "faults planted and named", 1)
    proof("doctor", "faults mended by the command that was named", 1)


def typed_out(command, prod):
    return f"ucl {command} prod --home {prod.home.path}"


LINKS = {
    "gone": (lambda link: link.unlink(), "is missing"),
    "dangling": (lambda link: (link.unlink(), link.symlink_to("generations/000009-000000000000")), "not a generation"),
    "planted": (lambda link: (link.unlink(), link.symlink_to("..")), "not a generation"),
}


@pytest.mark.parametrize("fault", LINKS)
def test_current_leads_nowhere(prod, fault, proof):
    plant, text = LINKS[fault]
    plant(prod.path / "current")
    mended(named(prod, "identity in use", text, code=10), prod)
    proof("doctor", "faults planted and named", 1)
    proof("doctor", "faults mended by the command that was named", 1)


def test_current_is_a_folder(prod, proof):
    (prod.path / "current").unlink()
    shutil.copytree(prod.generations()[0].path, prod.path / "current")
    first = named(prod, "identity in use", "not a symlink", code=10)
    mended(first, prod, still=["identity in use"])
    mended(named(prod, "identity in use", "is missing", code=10), prod)
    proof("doctor", "faults planted and named", 2)


@pytest.mark.parametrize("text", ["keep = 0", "kepe = 3", "keep = ", b"\xff"])
def test_settings_that_cannot_be_used_are_named(prod, text, proof):
    path = prod.path / "settings.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    finding = named(prod, "settings", "settings.toml", code=2)
    mended(finding, prod, EDITOR="cp /dev/null")
    proof("doctor", "faults planted and named", 1)
    proof("doctor", "faults mended by the command that was named", 1)


# -- the chain ---------------------------------------------------------------------------------------------------------


def test_a_chain_that_is_none_is_named(prod, ucl, proof):
    leaf, middle, root = prod.current.chain
    own, ca = load_key((prod.current.path / "key.pem").read_bytes()), ucl.ca_file.read_bytes()
    facts = {"connectorUrl": prod.url}
    for chain, status, text, code in (
        ((leaf, root), "failed", "issuer and subject differ", 6),
        ((leaf, middle, intermediate()), "failed", "issuer and subject differ", 6),
        ((leaf, middle), "warning", "chain is complete", 0),
        ((leaf,), "warning", "chain is complete", 0),
    ):
        shutil.rmtree(prod.current.path)
        prod.install(own, tuple(chain), chain[1:], ca, facts)
        diagnosis = diagnose(prod, offline=True)
        assert bad(diagnosis) == {"chain": status}
        assert (diagnosis.exit_code, text in diagnosis["chain"].found) == (code, True), diagnosis["chain"]
        proof("doctor", "faults planted and named", 1)
    missing = prod.home.path / "missing.pem"
    missing.write_bytes(dump_certificates(middle, root))
    finding = named(prod, "chain", "chain is complete", status="warning")
    done = typed(finding.remedy.replace("MISSING.pem", str(missing)), prod)
    assert done.returncode == 0, done
    well(prod)


# -- what settings refer to --------------------------------------------------------------------------------------------

REFERRING = {
    "key_passphrase": 'key_passphrase = "file:{}"',
    "exports.encrypted_key": '[exports]\nencrypted_key = "file:{}"',
    "exports.pkcs12": '[exports]\npkcs12 = "file:{}"',
    "notices.urls": '[notices]\nurls = ["env:NOWHERE", "file:{}"]',
}


def refer(prod, text, secret, content=CANARY):
    secret.write_text(content)
    secret.chmod(0o600)
    (prod.path / "settings.toml").write_text(text.format(secret))
    export(prod)


@pytest.mark.parametrize("setting", REFERRING)
def test_a_file_with_a_secret_that_others_may_read_is_named(setting, prod, place):
    secret = place / "the secret"
    refer(prod, REFERRING[setting], secret)
    assert well(prod)["references"].found == f"closed to others: {secret}"
    secret.chmod(0o640)
    mended(named(prod, "references", f"other users can read {secret}", status="warning"), prod)
    assert secret.stat().st_mode & 0o777 == 0o600


@pytest.mark.needs_root("only root gives files away")
@pytest.mark.parametrize(("mode", "status"), [(0o640, "ok"), (0o644, "warning")])
def test_a_file_of_somebody_else_may_be_for_our_group(mode, status, prod, place):
    refer(prod, REFERRING["key_passphrase"], place / "secret")
    (place / "secret").chmod(mode)
    os.chown(place / "secret", NOBODY, NOBODY)
    finding = diagnose(prod, offline=True)["references"]
    assert (finding.status, "chmod" in finding.remedy) == (status, False)


def test_what_is_no_file_is_no_matter_of_modes(prod, monkeypatch):
    monkeypatch.setenv("P12", CANARY)
    (prod.path / "settings.toml").write_text('exports.pkcs12 = "env:P12"\nnotices.urls = ["file:~nobody-here/x"]\n')
    export(prod)
    assert well(prod)["references"].found == "the settings refer to no file"
