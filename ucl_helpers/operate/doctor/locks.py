"""Whether locks hold on the home folder and renames are seen: tried with another process, in a folder made for it.

Everything rests on both: a file system on which ``flock`` does nothing lets two renewals of one connection run at once.
*Not* tried: another machine. Of a mount that keeps its locks to itself only the options tell, and only on Linux.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ucl_helpers.connection import files
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import StorageFailed
from ucl_helpers.operate.doctor.findings import Finding, failed, ok, skipped, warning
from ucl_helpers.operate.doctor.folders import may

NAME = "locks"
_SECONDS = 20
_MOVE = "Choose a home folder on another file system: --home or UCL_HOME."
_LOCAL = {"nolock", "local_lock=all", "local_lock=flock"}
_LOOK = """
import fcntl, sys
lock, read = sys.argv[1:]
with open(lock) as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("free", end=" ")
    except BlockingIOError:
        print("held", end=" ")
with open(read) as file:
    print(file.read())
"""


def locks(home: Home) -> Finding:
    """Another process is kept out by a lock that we hold, gets it when it is free, and sees what we have renamed."""
    if not home.path.is_dir() or not may(home.path, os.W_OK | os.X_OK):
        return skipped(NAME, f"{home.path} does not exist, or is not writable")
    folder = files.temporary(home.path / "doctor")
    folder.mkdir(mode=0o700)
    try:
        return _tried(home, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tried(home: Home, folder: Path) -> Finding:
    lock, read, new = (folder / name for name in ("lock", "read", "new"))
    for path, text in ((lock, ""), (read, "old"), (new, "new")):
        path.write_text(text)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        while_held = _another_sees(lock, read)
    new.rename(read)
    afterwards = _another_sees(lock, read)
    wrong = {
        "another process gets a lock that ucl holds": while_held.startswith("free"),
        "another process does not get a free lock": afterwards.startswith("held"),
        "another process does not see a renamed file": afterwards.endswith("old"),
        f"another process could not check: {while_held or afterwards}": not {while_held, afterwards} <= _KNOWN,
    }
    if found := [what for what, so in wrong.items() if so]:
        return failed(NAME, f"on {home.path}, {found[0]}", _MOVE, StorageFailed)
    if kept := _local_locks(home.path):
        return warning(NAME, f"{home.path} is mounted with {kept}: other machines do not see its locks", _MOVE)
    return ok(NAME, "other processes respect them and see renames")


_KNOWN = {f"{lock} {text}" for lock in ("held", "free") for text in ("old", "new")}


def _another_sees(lock: Path, read: Path) -> str:
    command = [sys.executable, "-P", "-c", _LOOK, str(lock), str(read)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS} s"
    return done.stdout.strip() or (done.stderr.strip().splitlines() or ["no output"])[-1]


def _local_locks(path: Path, table: Path = Path("/proc/self/mountinfo")) -> str:
    """The option of a network mount by which its locks stay on this machine, or nothing; proc(5)."""
    try:
        lines = [line.partition(" - ")[::2] for line in table.read_text().splitlines()]
    except OSError:
        return ""
    mounts = [(*left.split(" ")[4:6], *right.split(" ")) for left, right in lines if right]
    holding = [one for one in mounts if path.is_relative_to(one[0].replace("\\040", " "))]
    if not holding:
        return ""
    _, options, kind, _, more = max(holding, key=lambda one: len(one[0]))[:5]
    found = _LOCAL & {*options.split(","), *more.split(",")}
    return min(found, default="") if kind.startswith("nfs") else ""
