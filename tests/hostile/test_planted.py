"""Who plants something in the home folder gains nothing: nothing outside of it is written, cut, removed or opened.

A symlink leads from each place of a connection to a victim outside. What can be replaced by a rename is replaced; where
we would have to go through it, it is refused, and named. A folder in which others may write, or that is another's, is
refused as ssh does it: the error holds the command that mends it, and after it the next renewal succeeds.
"""

import os
import re
import shlex
import subprocess
from contextlib import contextmanager, suppress

import pytest
from steps import go

from ucl_helpers import Renewal, establish, forget, import_identity, renew, revoke, rollback, status_of
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import InvalidSettings, StorageFailed, UCLError
from ucl_helpers.keys import load_key
from ucl_helpers.procedures.importing import ImportedIdentity

pytest_plugins = ["procedure_fixtures"]
STRANGER = 65534


def look(folder):
    """All that is in a folder, and how: contents, modes, owners, times."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        told = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path)] = (content, told.st_mode, told.st_uid, told.st_ino, told.st_mtime_ns, told.st_ctime_ns)
    return found


@pytest.fixture
def victim(tmp_path):
    """Files and folders of somebody else's, of names that we would write, sweep or remove."""
    folder = tmp_path / "victim"
    for name in ("lock", "key.pem", "state.json", ".key.pem.0123abcd.tmp", "identity/key.pem", "000001-aaaaaaaaaaaa/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious\n")
        (folder / name).chmod(0o644)
    return folder


@contextmanager
def planted(place, target):
    """A symlink in the place of what was there, which comes back."""
    kept, there = place.with_name("kept-meanwhile"), os.path.lexists(place)
    if there:
        place.rename(kept)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    place.symlink_to(target)
    try:
        yield
    finally:
        if place.is_symlink():
            place.unlink()
        with suppress(FileNotFoundError):
            kept.rename(place)


FOLDERS = (".", "connections", "connections/prod", "connections/prod/generations", "connections/prod/pending")
IN_CONNECTION = ("generations", "pending", "aside", "current")
FILES = ("lock", "journal.jsonl", "settings.toml")
IN_PENDING = ("state.json", "key.pem", "csr.pem", "answer.json", "chain.pem", "token", "room", "server-ca.pem")
PLACES = (
    *("connections", "connections/prod"),
    *(f"connections/prod/{one}" for one in (*IN_CONNECTION, *FILES)),
    *(f"connections/prod/pending/{one}" for one in IN_PENDING),
)


@pytest.fixture
def writers(secure, director, ucl, between):
    """All that a user can do and that writes, and that leaves a connection which can be renewed."""
    key = load_key((secure.current.path / "key.pem").read_bytes())
    identity, url = ImportedIdentity(key, secure.current.chain), between.certificate_secured_connector_url
    return {
        "renew": lambda: renew(secure),
        "rehearse": lambda: go(Renewal.begin(secure), "request"),
        "roll back": lambda: rollback(secure),
        "establish": lambda: establish(secure, director, ca_file=ucl.ca_file),
        "import": lambda: import_identity(secure.home, "prod", identity, url, ca_file=ucl.ca_file),
        "make": lambda: secure.home.new("prod").write_settings({"keep": 3}),
    }


def target_of(place, victim):
    return victim / ("key.pem" if "." in place or place.endswith(("lock", "token", "room")) else "")


def tried(*acts):
    """What came of each: only errors that a user is told."""
    said = []
    for act in acts:
        try:
            said.append(act())
        except UCLError as error:
            said.append(error)
    return said


@pytest.mark.parametrize("place", PLACES)
def test_a_planted_symlink_leads_nobody_outside(secure, victim, writers, place, proof, *, whole):
    acts = list(writers.values()) if whole or "pending/" not in place else [writers["renew"], writers["rehearse"]]
    go(Renewal.begin(secure), "request")
    before = look(victim)
    with planted(secure.home.path / place, target_of(place, victim)):
        tried(*acts, lambda: status_of(secure))
    assert look(victim) == before
    secure.current.check_whole()
    assert renew(secure).outcome == "renewed"
    proof("hostile", "things a user can do, done over a planted symlink", len(acts))


@pytest.mark.parametrize("place", PLACES[:9])
def test_neither_does_it_when_all_is_revoked_or_removed(secure, victim, place, proof):
    before = look(victim)
    with planted(secure.home.path / place, target_of(place, victim)):
        tried(lambda: revoke(secure, everything=True), lambda: forget(secure, even_if_valid=True))
    assert look(victim) == before
    proof("hostile", "things a user can do, done over a planted symlink", 2)


@pytest.mark.parametrize("place", FOLDERS[1:])
def test_a_folder_that_is_a_symlink_is_named(secure, victim, writers, place):
    with planted(secure.home.path / place, victim):
        told = tried(writers["renew"])[0]
    assert isinstance(told, StorageFailed)
    assert f"{place} is a symlink" in told.message


def test_what_is_not_protected_would_be_overwritten(victim, tmp_path):
    before = look(victim)
    (tmp_path / "link").symlink_to(victim / "key.pem")
    (tmp_path / "link").write_text("what a plain program does")
    assert look(victim) != before


@pytest.mark.parametrize("name", [one for one in IN_PENDING if one != "chain.pem"])  # an answer is never without it
def test_a_link_that_is_just_removed_stops_no_later_renewal(secure, victim, name):
    """What it stood for is gone: then a new key and CSR are made."""
    go(Renewal.begin(secure), "sign")
    (secure.path / "pending" / name).unlink(missing_ok=True)
    (secure.path / "pending" / name).symlink_to(victim / "key.pem")
    tried(lambda: renew(secure))
    (secure.path / "pending" / name).unlink(missing_ok=True)
    outcomes = tried(*[lambda: renew(secure)] * 2)
    assert "renewed" in [getattr(one, "outcome", "") for one in outcomes]
    secure.current.check_whole()
    assert not secure.path.joinpath("pending").exists()


def test_settings_that_lead_elsewhere_are_not_repeated(secure, victim):
    with planted(secure.path / "settings.toml", victim / "key.pem"), pytest.raises(InvalidSettings) as caught:
        renew(secure)
    assert "precious" not in str(caught.value) + repr(caught.value.data)


def test_the_home_itself_may_be_a_link_of_the_users(secure, tmp_path):
    (tmp_path / "link").symlink_to(secure.home.path)
    assert renew(Home(tmp_path / "link").connection("prod")).outcome == "renewed"


# -- folders that are not ours alone -----------------------------------------------------------------------------------

MODES = (0o770, 0o702, 0o1777, 0o720)


def mend(error):
    """Run the command that the error names."""
    found = re.search(r"(chmod go-w|chmod -R u=rwX,go=|chown -R \d+) .*?(?=; or|$)", error.remedy)
    subprocess.run(shlex.split(found[0]), check=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_that_others_may_write_in_is_refused_until_it_is_mended(secure, between, folder, whole, proof):
    for mode in MODES if whole else [MODES[FOLDERS.index(folder) % len(MODES)]]:
        refused_and_mended(secure, between, folder, mode)
        proof("hostile", "folders of others, refused and mended", 1)


def refused_and_mended(secure, between, folder, mode):
    go(Renewal.begin(secure), "request")
    path, asked = secure.home.path / folder, len(between.calls)
    path.chmod(mode)
    with pytest.raises(StorageFailed, match=f"can be changed by others .mode {mode:04o}") as caught:
        renew(secure)
    assert caught.value.data["path"] == str(path)
    assert len(between.calls) == asked
    mend(caught.value)
    assert renew(secure).outcome == "renewed"


@pytest.mark.needs_root("only root gives files to another user")
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_another_user_is_refused_until_it_is_mended(secure, between, folder, proof):
    go(Renewal.begin(secure), "request")
    asked = len(between.calls)
    os.chown(secure.home.path / folder, STRANGER, STRANGER)
    with pytest.raises(StorageFailed, match=f"belongs to user {STRANGER}, and this is user 0") as caught:
        renew(secure)
    assert len(between.calls) == asked
    mend(caught.value)
    assert renew(secure).outcome == "renewed"
    proof("hostile", "folders of others, refused and mended", 1)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_that_others_may_only_look_into_is_none_of_these(secure, folder):
    go(Renewal.begin(secure), "request")
    (secure.home.path / folder).chmod(0o755)
    assert renew(secure).outcome == "renewed"


def test_a_new_connection_is_not_made_where_others_may_write(secure):
    secure.home.path.chmod(0o777)
    with pytest.raises(StorageFailed, match="can be changed by others"):
        secure.home.new("another")
    assert [one.name for one in secure.home.connections()] == ["prod"]


def test_a_key_that_others_may_read_is_replaced_by_one_that_they_may_not(secure):
    before = secure.current
    for one in before.path.iterdir():
        one.chmod(0o644)
    renew(secure)
    assert {one.stat().st_mode & 0o777 for one in secure.current.path.iterdir()} == {0o600}
    for one in before.path.iterdir():
        one.chmod(0o600)
