"""The store while it is killed at every step, and while others read: what is current is always whole."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from stored import chain, grow_old, identity_pem, install, names

from ucl_helpers.connection.store import Home
from ucl_helpers.models import fingerprint

KILLED = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from stored import chain, install, key_of
from ucl_helpers.connection.store import Home

base, copies = map(Path, sys.argv[1:])
key_of(1), chain(1)
CHANGES = {"os.rename", "os.symlink", "os.mkdir", "os.rmdir", "os.remove", "open"}
fatal, step = 0, itertools.count(1)

def hook(event, args):
    reads = event == "open" and not (isinstance(args[0], str | os.PathLike) and args[2] & os.O_CREAT)
    if fatal and event in CHANGES and not reads and next(step) == fatal:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
for number in itertools.count(1):
    copy = copies / f"{number:03d}"
    shutil.copytree(base, copy, symlinks=True)
    process = os.fork()
    if process == 0:
        fatal = number
        install(Home(copy).connection("mine"), 1)
        os._exit(0)
    if os.waitpid(process, 0)[1] == 0:
        break
"""

READ = """
import hashlib, json, sys
from pathlib import Path

folder, whole, split = Path(sys.argv[1]), set(), set()


def look():
    whole.add(hashlib.sha256((folder / "current" / "identity.pem").read_bytes()).hexdigest())
    there = (folder / "current").resolve()
    split.add(hashlib.sha256((there / "key.pem").read_bytes() + (there / "chain.pem").read_bytes()).hexdigest())

look()
print("reading", flush=True)
while not (folder / "stop").exists():
    look()
look()
print(json.dumps([sorted(whole), sorted(split)]))
"""


def run(script, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment, **options)


def test_a_kill_at_any_step_leaves_the_old_generation_or_the_new_one(tmp_path):
    connection = Home(tmp_path / "base").new("mine")
    connection.write_settings({"keep": 2})
    for number in (2, 3, 0):
        install(connection, number)
    grow_old(connection)
    before = connection.current.name
    (connection.path / "generations" / ".gitkeep").touch()
    (tmp_path / "copies").mkdir()
    with run(KILLED, tmp_path / "base", tmp_path / "copies") as process:
        pass
    assert process.returncode == 0
    copies = [Home(one).connection("mine") for one in sorted((tmp_path / "copies").iterdir())]
    news = [one.current.name for one in copies if one.current.name != before]
    assert 0 < len(news) < len(copies)
    assert [one.current.name for one in copies] == [before] * (len(copies) - len(news)) + news
    for copy in copies:
        assert all(one.is_readable for one in copy.generations())
        install(copy, 4)
        assert copy.current.fingerprint == fingerprint(chain(4)[0])
        left = names(copy.path) + names(copy.path / "generations")
        assert [name for name in left if name.startswith(".")] == [".gitkeep"]


def test_a_reader_never_meets_a_mixture(tmp_path):
    connection = Home(tmp_path).new("mine")
    install(connection, 0)
    with run(READ, connection.path, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"reading\n"
        for number in range(1, 10):
            new = install(connection, number)
            connection.switch(connection.generations()[0])
            connection.switch(new)
        (connection.path / "stop").touch()
        told = process.stdout.read()
    whole, split = map(set, json.loads(told))
    known = {hashlib.sha256(identity_pem(number)).hexdigest() for number in range(10)}
    assert len(whole) > 1
    assert whole <= known
    assert split <= known


def test_written_in_place_it_would_be_one(tmp_path):
    """What the reader above would meet: a key without its chain."""
    connection = Home(tmp_path).new("mine")
    new = install(connection, 0)
    shutil.copyfile(new.path / "key.pem", new.path / "identity.pem")
    assert not new.is_readable
