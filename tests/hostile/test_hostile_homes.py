"""Names and homes as hostile as they come: a name stays a name, a home works wherever it lies, whatever the umask.

What root may do anywhere, an ordinary user may not: those tests run ``ucl`` as one (user 65534).
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from command_line import BITS, UCL, Said, environment
from meddler import Meddler
from steps import install

from ucl_helpers import renew, status_of
from ucl_helpers.cli.main import main
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import StorageFailed, UCLError, UsageError

pytest_plugins = ["procedure_fixtures"]
STRANGER = 65534

# -- names -------------------------------------------------------------------------------------------------------------

NAMES = {
    "empty": "",
    "up": "..",
    "here": ".",
    "a way out": "../../victim",
    "absolute": "/etc",
    "hidden": ".ssh",
    "an option": "--even-if-valid",
    "a newline at the end": "prod\n",
    "control characters": "pr\x1b[2Jod",
    "NUL": "prod\x00",
    "blanks": "prod prod",
    "another separator": "prod\\prod",
    "a colon": "prod:prod",
    "too long": "p" * 65,
    "far too long": "p" * 100_000,
    "Cyrillic letters": "\u0440r\u043ed",
    "full width": "\uff50\uff52\uff4f\uff44",
    "one letter of two": "cafe\u0301",
    "the end of a line": "prod\u2028",
    "turned around": "\u202edorp",
    "not to be seen": "pro\u200bd",
    "lone surrogates": "prod\udcff",
    "percent": "%2e%2e",
    "dollar": "$HOME",
    "tilde": "~root",
}
COMMANDS = (
    *("renew {} --force", "renew {} --dry-run", "status {}", "path {} key", "revoke {} --all --yes", "rollback {}"),
    *("forget {} --even-if-valid --yes", "establish {} --sandbox", "establish {}"),
    *("export {} --force", "settings {}", "settings {} --set settings.toml"),
    "import {} --key key.pem --connector-url https://ucl.example/graphql",
)


def below(folder):
    return sorted(str(one) for one in folder.rglob("*"))


def said_by(capfd, *arguments):
    """The exit code and what is said; the command runs within this process."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capfd.readouterr()
    return ended.value.code, out + err


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_leads_elsewhere_is_refused_by_every_command(home, tmp_path, capfd, name, proof):
    home.new("prod")
    (tmp_path / "victim").mkdir()
    before = below(tmp_path)
    for command in COMMANDS:
        words = [name if word == "{}" else word for word in command.split()]
        code, said = said_by(capfd, "--home", str(home.path), *words)
        assert code == 2, (command, said)
        assert not set("\x1b\u202e\u200b\u2028\x00") & set(said)
    for make in (home.connection, home.new):
        with pytest.raises(UsageError):
            make(name)
    assert below(tmp_path) == before
    proof("hostile", "commands given a name that leads elsewhere", len(COMMANDS) + 2)


@pytest.mark.parametrize("name", ["prod", "Prod", "PROD", "con", "nul.txt", "a..b", "0"])
def test_a_name_that_only_looks_odd_is_a_folder_of_its_own(home, name):
    assert home.new(name).path.resolve() == home.path / "connections" / name
    assert [one.name for one in home.connections()] == [name]


# -- homes -------------------------------------------------------------------------------------------------------------

HOMES = {
    "blanks": " my  home ",
    "quotes": 'it\'s "mine" `id` $(id) ${HOME} %s {x} {{y}}',
    "a newline": "one\ntwo\n",
    "control characters": "\x1b[2J\x07",
    "not UTF-8": os.fsdecode(b"\xff\xfe\x80"),
    "turned around": "\u202e\u200b漢🙂",
    "an option": "-rf",
    "a pattern": "*[a-z]?#;&|<>\\",
    "deep": "/".join(["d" * 200] * 15),
}


@pytest.mark.parametrize("name", HOMES.values(), ids=HOMES)
def test_a_home_works_wherever_it_lies(ucl, between, clock, tmp_path, name, *, proof):
    home = Home(tmp_path / name)
    clock.set(hours=-1)
    connection = install(home, ucl, tmp_path, url=between.certificate_secured_connector_url)
    clock.set()
    assert renew(connection).outcome == "renewed"
    told = str(status_of(Home(tmp_path / name).connection("prod")))
    connection.current.check_whole()
    assert not set("\x1b\x07\u202e\u200b\udcff") & set(told)
    proof("hostile", "homes on odd paths", 1)


@pytest.mark.parametrize("name", ["n" * 300, "/".join(["d" * 200] * 25)], ids=["long", "longer than a path may be"])
def test_a_home_that_cannot_be_is_an_error_that_says_so(tmp_path, name):
    home = Home(tmp_path / name)
    for act in (lambda: home.new("prod"), lambda: home.connection("prod"), home.connections):
        with pytest.raises(UCLError, match="too long"):
            act()


def test_a_file_in_the_place_of_a_home_stays(tmp_path):
    (tmp_path / "home").write_text("precious")
    with pytest.raises(StorageFailed, match="A file is where a folder should be"):
        Home(tmp_path / "home").new("prod")
    assert (tmp_path / "home").read_text() == "precious"


# -- as an ordinary user -----------------------------------------------------------------------------------------------


# Where the interpreter lies behind a closed door (as in /root), this process and its children see it opened.
_AS_STRANGER = f"""
if [ "$1" ]; then
    mkdir -p "$3"; mount --rbind "$2" "$3"
    mount -t tmpfs -o mode=755 none "$1"
    mkdir -p "$2"; mount --rbind "$3" "$2"
fi
mask=${{0#0o}}; shift 3; umask "$mask"
exec setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups "$@"
"""


class Stranger:
    """An ordinary user with a folder, and ``ucl`` run by it."""

    def __init__(self, folder, ucl):
        self.folder, self.home, self.ucl = folder, folder / "home", ucl
        shutil.copy(ucl.ca_file, folder / "ca.pem")
        (folder / "ca.pem").chmod(0o644)

    def run(self, *arguments, umask=0o022, **more):
        kept, base = self.folder / "kept", Path(sys.base_prefix)
        closed = next((one for one in reversed(base.parents) if not one.stat().st_mode & 0o001), "")
        done = subprocess.run(
            ["unshare", "-m", "sh", "-ec", _AS_STRANGER, oct(umask), closed, base, kept, UCL, *arguments],
            cwd=self.folder,
            env=environment(self.home, HOME=str(self.folder), PYTHONDONTWRITEBYTECODE="1", **more),
            capture_output=True,
            text=True,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def establish(self, between, **more):
        where = ("--connector-url", between.connector_url, "--ca-file", "ca.pem")
        return self.run("establish", "prod", "--token", "env:T", *where, *BITS, T=self.ucl.one_time_token(), **more)

    def renew(self, **more):
        return self.run("renew", "prod", "--force", *BITS, **more)

    def modes(self):
        """Each mode that there is, of files and of folders."""
        found = [one.lstat() for one in [self.home, *self.home.rglob("*")] if not one.is_symlink()]
        return {f"{stat.filemode(one.st_mode)} {one.st_uid}" for one in found}


PRIVATE = {f"drwx------ {STRANGER}", f"-rw------- {STRANGER}"}


@pytest.fixture
def stranger(ucl):
    """The folder lies where another user can come to, which pytest's own does not."""
    folder = Path(tempfile.mkdtemp(prefix="ucl-stranger-"))
    os.chown(folder, STRANGER, STRANGER)
    try:
        someone = Stranger(folder, ucl)
        if someone.run("--version").code != 0:
            pytest.skip("another user cannot run this interpreter, and no namespace opens it")
        yield someone
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def watched(ucl, stranger):
    with Meddler(ucl, stranger.folder) as meddler:
        yield meddler


as_stranger = pytest.mark.needs_root("only root becomes another user")


@as_stranger
@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_all_is_private_and_usable_whatever_the_umask(stranger, watched, umask):
    for act in (lambda: stranger.establish(watched, umask=umask), lambda: stranger.renew(umask=umask)):
        said = act()
        assert said.code == 0, said
        assert stranger.modes() == PRIVATE
    (stranger.home / "connections").chmod(0o755)
    assert stranger.modes() != PRIVATE


@as_stranger
def test_a_user_who_may_not_write_is_told_before_anything_is_asked_for(stranger, watched):
    assert stranger.establish(watched).code == 0
    path = stranger.home / "connections" / "prod"  # root itself refuses to read the home folder of another user
    before = (path / "current").readlink()
    for folder, mode, owner in ((path, 0o500, STRANGER), (path, 0o755, 0), (path / "generations", 0o500, STRANGER)):
        asked = len(watched.seen("sign"))
        folder.chmod(mode)
        os.chown(folder, owner, owner)
        said = stranger.renew()
        os.chown(folder, STRANGER, STRANGER)
        folder.chmod(0o700)
        assert (said.code, "Permission denied" in said.err) == (10, True), said
        assert (path / "current").readlink() == before
        assert folder.name == "generations" or len(watched.seen("sign")) == asked
    said = stranger.renew()
    assert said.code == 0, said
    assert len(watched.seen("sign")) == 2  # what was signed for nothing could be kept, and was


@as_stranger
def test_a_home_that_all_may_write_in_is_refused_with_the_command_that_mends_it(stranger, watched):
    assert stranger.establish(watched).code == 0
    stranger.home.chmod(0o777)
    os.chown(stranger.home, 0, 0)
    asked = len(watched.calls)
    said = stranger.renew()
    assert (said.code, len(watched.calls)) == (10, asked), said
    subprocess.run(shlex.split(re.search(r"chmod (go-w|-R u=rwX,go=) [^;]+", said.err)[0]), check=True)
    assert stranger.renew().code == 0


@as_stranger
def test_root_does_not_write_in_the_home_of_another(stranger, watched):
    assert stranger.establish(watched).code == 0
    before = stranger.modes()
    with pytest.raises(StorageFailed, match=f"belongs to user {STRANGER}"):
        renew(Home(stranger.home).connection("prod"))
    assert stranger.modes() == before == PRIVATE
