"""The system calls of a real, unmodified program, one by one, and what befalls it at one of them: by `strace`.

`strace` counts ``when=N`` per thread and per system call. So a run is recorded first, every call that matters with its
thread and number; then the program is run again for each, and struck there. Each run's own log tells which call was
really hit: calls are known again by a label without random names. SIGKILL comes before the call takes effect, another
signal after it, an error instead of it (a test shows it).
"""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

STRACE = shutil.which("strace")
KEEP_DUMPABLE = ("-e", "inject=prctl:retval=0")
"""`ucl` makes itself undumpable (prctl(2), ``PR_SET_DUMPABLE``). The `strace` of an ordinary user can then no longer
read its memory, and prints addresses in place of paths and data. With this option the kernel never sees the call, and
the program is traced unmodified. An option after it may inject into other calls too."""


def can_trace() -> bool:
    """Whether `strace` is installed, and this user may trace a program."""
    command = ["strace", *KEEP_DUMPABLE, "-o", os.devnull, "true"]
    return bool(STRACE) and subprocess.run(command, capture_output=True, check=False).returncode == 0


UNFIT = "" if can_trace() else "strace is missing or not allowed (Debian and Ubuntu: apt install strace)"
FILE_CALLS = (
    *("openat", "write", "pwrite64", "ftruncate", "mkdir", "rename", "symlink", "unlink", "unlinkat", "rmdir"),
    *("fsync", "flock", "chmod", "fchmod", "close"),
    # None of these is made now; would they be, they would be struck as well.
    *("open", "creat", "mkdirat", "renameat", "renameat2", "symlinkat", "link", "linkat", "truncate", "writev"),
    *("pwritev", "fdatasync", "fchmodat", "fallocate", "sendfile", "copy_file_range", "chown", "fchown", "lchown"),
)
NET_CALLS = (
    *("socket", "connect", "read", "poll", "setsockopt", "getsockopt", "getsockname", "getpeername", "shutdown"),
    *("sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "bind", "ppoll", "select", "pselect6"),
)
_UNFINISHED, _RESUMED = " <unfinished ...>", re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_LINE = re.compile(r"(\d+) +(\w+)\((.*?)(?:\) += (.+))?$")
_DESCRIPTOR = re.compile(r"(\d+)<((?:[^<>]|<[^>]*>)*)>")
_WRITES = re.compile(r"O_(CREAT|TRUNC|WRONLY|RDWR)")
_NAMES = ((r"\.[0-9a-f]{8}\.tmp\b", ".tmp"), (r"\b(\d{6})-[0-9a-f]{12}", r"\1"), (r"aside/[^./]+", "aside/…"))


@dataclass(frozen=True)
class Call:
    """A system call: the ``number``-th of its ``name`` in its ``thread``. Its role tells it from others in any run."""

    thread: str
    name: str
    number: int
    role: str
    on: str
    """``socket``, ``file``, or ``reading`` for a file that is only opened to be read."""

    @property
    def label(self) -> tuple[str, str, str]:
        return self.thread, self.name, self.role

    @property
    def kind(self) -> tuple[str, str]:
        """The call and the folder it is made in, not the very file: of these there are few."""
        where = self.role.split(" → ")[-1] if self.on != "socket" else self.role.split()[0]
        return self.name, re.sub(r"[^/]+$|\d+", "*", where)


@dataclass(frozen=True)
class Run:
    """How a run ended and what it said; ``hit`` is the call that was struck, None if it came to none."""

    code: int
    said: str
    hit: Call | None


def calls_in(log: str, home: str) -> Iterator[tuple[Call, str]]:
    """What a log tells of calls on sockets and below ``home``, each with what became of it."""
    threads: dict[str, str] = {}
    numbers, times, sent = Counter(), Counter(), Counter()
    sockets, written = {}, set()
    for line in _joined(log):
        if not (found := _LINE.match(line)):
            continue
        pid, name, arguments, result = found.groups("?")
        thread = threads.setdefault(pid, f"thread {len(threads)}" if threads else "main")
        numbers[thread, name] += 1
        descriptor, place = match.groups() if (match := _DESCRIPTOR.match(arguments.lstrip("[{fd="))) else ("", "")
        failed = result.startswith(("?", "-"))
        if name == "socket":
            family = "inet" if "AF_INET" in arguments else "other"
            role, on = f"{family} {1 + sum(one.startswith(family) for one in sockets.values())}", "socket"
            if made := _DESCRIPTOR.match(result):
                sockets[made[2]] = role
        elif place in sockets:  # how often it reads depends on when the answer comes: what was sent tells how far it is
            role, on = f"{sockets[place]}, after {sent[place]} sent", "socket"
            sent[place] += name == "write" and not failed
        elif home in arguments and name not in NET_CALLS:
            opens = name == "openat"
            on = "file" if not opens or _WRITES.search(arguments) else "reading"
            if opens and on == "file" and (made := _DESCRIPTOR.match(result)):
                written.add(made[1])
            if name == "close" and descriptor not in written:
                continue
            written -= {descriptor} if name == "close" else set()
            named = [] if "write" in name else re.findall(r'"([^"]*)"', arguments)
            role = _known_as(" → ".join(named) if not place or named[1:] else "/".join([place, *named]), home)
            if not failed:
                times[thread, name, role] += 1
            role += f", time {times[thread, name, role] + failed}"  # one that is repeated since it failed is the same
        else:
            continue
        yield Call(thread, name, numbers[thread, name], role, on), result


def _joined(log: str) -> Iterator[str]:
    """The lines, those joined again that another thread's have cut in two.

    After SIGKILL strace may show a call twice. It can no longer read what another thread does, and prints the call that
    it read last, with that thread's number, and without an end. Such a line is left out: it repeats another's word for
    word, random names included, and never returns.
    """
    lines, begun = [], {}
    for line in log.splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith(_UNFINISHED):
            begun[pid] = len(lines)
            lines.append(line.removesuffix(_UNFINISHED))
        elif (rest := _RESUMED.match(line)) and pid in begun:
            lines[begun.pop(pid)] += rest[2]
        else:
            lines.append(line)
    never_ended = set(begun.values())
    killed_in = {}  # what a thread called when it was killed
    for number, line in enumerate(lines):
        pid, call = line.split(" ", 1) if " " in line else ("", line)
        if number in never_ended and any(call in other for thread, other in killed_in.items() if thread != pid):
            continue
        if number in never_ended or line.endswith("= ?"):
            killed_in[pid] = call
        yield line


def _known_as(path: str, home: str) -> str:
    path = path.replace(home, "").replace(" (deleted)", "")
    for random, known in _NAMES:
        path = re.sub(random, known, path)
    return path


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would lead the program elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UCL_")}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **more}


def _run(options: list[str], command: list[str], secrets: dict[str, str], home: Path) -> tuple[int, str, str]:
    log = home.with_name(f"{home.name}.log")
    done = subprocess.run(
        [str(STRACE), "-f", "-y", "-s", "0", "-o", str(log), *KEEP_DUMPABLE, *options, *command],
        env=environment(**secrets),
        cwd=home.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, log.read_text()


def record(command: list[str], secrets: dict[str, str], home: Path) -> list[Call]:
    """Every file-changing, network or file-opening call of a whole run, from the first that touches ``home``."""
    options = ["--seccomp-bpf", "-e", f"trace=execve,prctl,{','.join({*FILE_CALLS, *NET_CALLS})}"]
    code, said, log = _run(options, command, secrets, home)
    assert code == 0, said
    calls = [one for one, _ in calls_in(log, str(home))]
    first = next(number for number, one in enumerate(calls) if one.on != "socket")
    return calls[first:]


def strike(call: Call, how: str, command: list[str], secrets: dict[str, str], home: Path) -> Run:
    """Run a program and let ``how`` befall it at ``call``: the name of a signal, or of an error."""
    by_signal = hasattr(signal, how)
    known_by = "write" if call.on == "socket" else "openat" if call.name == "close" else call.name
    traced = {"execve", "prctl", "socket", known_by, call.name}
    inject = f"inject={call.name}:{'signal' if by_signal else 'error'}={how}:when={call.number}"
    options = ["-e", f"trace={','.join(sorted(traced))}", "-e", inject]
    # With a seccomp filter strace is faster, but its signals get lost.
    code, said, log = _run(options if by_signal else ["--seccomp-bpf", *options], command, secrets, home)
    same = [
        one
        for one, result in calls_in(log, str(home))
        if (one.name, one.number) == (call.name, call.number) and (by_signal or "(INJECTED)" in result)
    ]
    told = [line for line in log.splitlines() if call.name in line or "clone" in line]
    assert len(same) < 2, f"two threads were struck: {same}\n{told}"
    return Run(code, said, same[0] if same else None)
