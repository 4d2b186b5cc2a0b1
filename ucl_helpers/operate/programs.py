"""Run a program for an operator: without a shell, with nothing inherited, and not longer than allowed.

The program gets standard input from ``/dev/null``, the folder ``/``, a umask of 077, a session of its own (so that it
has no terminal to ask at), only the environment that the caller passes, and no other open file. When its time is over,
or this process gets a signal to end, the program and its process group get SIGTERM and then SIGKILL. Programs that are
still running when it ends by itself go on. They need an output of their own.
"""

import errno
import os
import selectors
import shlex
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import IO, cast

from ucl_helpers.formats.texts import encoding_of
from ucl_helpers.tables import span

KEPT_BYTES = 64 * 1024
GRACE_SECONDS = 5.0
NOT_IN_PATH = "in no folder of PATH"
"""Ends the reason why a program was not found. The caller names the folders."""
_POLL_SECONDS = 0.02
_PIPE_READS = 16  # as much as a pipe holds
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_NOT_FOUND = {126, 127}  # exit codes of a shell and of env when they cannot run a program
_SHELLS = {"sh", "ash", "bash", "dash", "ksh", "mksh", "zsh", "busybox"}


@dataclass(frozen=True)
class Completed:
    """How a program ended.

    Attributes:
        problem: what went wrong, for example ``exit code 3``; empty after a success.
        code: the exit code, negative for a signal; None if the program did not start or its time was over.
        output: the last 64 KiB of its standard output and error.
        seconds: how long it ran.
    """

    problem: str
    code: int | None
    output: bytes = b""
    seconds: float = 0.0


def run(command: Sequence[str], environment: Mapping[str, str], limit: timedelta) -> Completed:
    """Run a program, found by the ``PATH`` of ``environment``. A failure is in the result and is not raised.

    Raises:
        SystemExit: this process got a signal to end (SIGTERM, SIGHUP). The program has ended by then.
    """
    with _signals_noted() as signals:
        completed = _run(command, environment, limit, signals)
    if signals:
        raise SystemExit(128 + signals[0])
    return completed


def _run(command: Sequence[str], environment: Mapping[str, str], limit: timedelta, signals: list[int]) -> Completed:
    start, search, output = monotonic(), environment.get("PATH", os.defpath), b""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd="/",
            env=environment,
            umask=0o077,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Completed(f"{command[0]} did not start: {explain(command, search, error)}", None)
    with process, selectors.DefaultSelector() as selector:
        selector.register(cast("IO[bytes]", process.stdout), selectors.EVENT_READ)
        try:
            while process.poll() is None and not signals and monotonic() - start < limit.total_seconds():
                output = _read(selector, output, _POLL_SECONDS)  # always, so that a full pipe does not stop the program
        finally:
            in_time = process.returncode is not None
            if not in_time:
                _end(process)
        # A program that was left running may hold the pipe open, so only what is there now is read.
        for _ in range(_PIPE_READS):
            output = _read(selector, output, 0)
    seconds = monotonic() - start
    if not in_time:
        return Completed(f"not done after {span(limit)}, so it was ended", None, output, seconds)
    reason = explain(command, search, process.returncode)
    problem = ": ".join(filter(None, (_ending(process.returncode), reason)))
    return Completed(problem, process.returncode, output, seconds)


def _read(selector: selectors.BaseSelector, output: bytes, seconds: float) -> bytes:
    """Wait for more output, and return the end of all. Once the program has closed it, only wait."""
    for pipe, _ in selector.select(seconds):
        chunk = os.read(pipe.fd, KEPT_BYTES)
        output = (output + chunk)[-KEPT_BYTES:]
        if not chunk:
            selector.unregister(pipe.fileobj)
    return output


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the program and all that it has started in its group."""
    for order in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):  # all have ended
            os.killpg(process.pid, order)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}" if code else ""
    with suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Note SIGTERM and SIGHUP where they would end this process at once and leave the program running."""
    noted = list[int]()
    is_main = threading.current_thread() is threading.main_thread()
    signals = [number for number in _SIGNALS if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in signals:
        signal.signal(number, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


# -- why a program could not be run ------------------------------------------------------------------------------------


def explain(command: Sequence[str], search: str, failure: OSError | ValueError | int) -> str:
    """Explain why a program did not start, or why a script ended with an exit code; empty if nothing explains it.

    The system says only "No such file or directory" for a script with a Windows line end or a missing interpreter.

    Args:
        command: the program and its arguments.
        search: the folders in which the program is searched, as in ``PATH``.
        failure: the system's error, or the exit code.
    """
    if isinstance(failure, ValueError):  # a character that this system's encoding does not have
        return "it cannot be written on this system"
    program, default = _find(command[0], search), "" if isinstance(failure, int) else str(failure.strerror)
    if program is None:
        return default and f"No such file or directory: it is {NOT_IN_PATH}"
    if isinstance(failure, int) and failure <= 0:
        return ""
    reasons = _obstacles(command[0], program, failure)
    if isinstance(failure, int):
        reasons = chain(reasons, _faults_of_scripts(command, program, search, failure))
    with suppress(OSError):
        return next(reasons, default)
    return default


def _obstacles(name: str, program: Path, failure: OSError | int) -> Iterator[str]:
    """Yield the reasons why the file of a program cannot be run, the likeliest first."""
    if not program.exists():
        hint = "" if name.startswith("/") else ". Hooks run in the folder /: give the whole path"
        dangling = "it is a symlink to a file that is not there"
        yield dangling if program.is_symlink() else f"No such file or directory{hint}"
    elif program.is_dir():
        yield "it is a folder"
    elif not program.stat().st_mode & 0o111:
        yield f"it is not executable; make it so: chmod u+x {shlex.quote(str(program))}"
    text = _beginning(program)
    words = _interpreter(text)
    if words and text.partition(b"\n")[0].endswith(b"\r"):
        yield _to_convert(program, "its first line ends with CR LF, as on Windows, and so does the last word in it")
    if words and not Path(words[0]).exists():
        yield f"the interpreter {words[0]} that its first line names is not there"
    if words and not (Path(words[0]).is_file() and os.access(words[0], os.X_OK)):
        yield f"the interpreter {words[0]} that its first line names is not a program that this user can run"
    if isinstance(failure, OSError) and failure.errno == errno.ENOEXEC:
        yield _why_no_program(program, text)


def _faults_of_scripts(command: Sequence[str], program: Path, search: str, code: int) -> Iterator[str]:
    """Yield what is wrong with a script that ran and failed. It is the program itself, or an argument of a shell."""
    words = _interpreter(_beginning(program))
    by_env = bool(words) and Path(words[0]).name == "env"
    interpreter = next((word for word in words[by_env:] if not word.startswith("-")), "")
    if by_env and interpreter and code in _NOT_FOUND and shutil.which(interpreter, path=search) is None:
        yield f"the interpreter {interpreter} that its first line names is {NOT_IN_PATH}"
    arguments = [(Path(word), command[0]) for word in command[1:3] if word.startswith("/")]
    for path, reader in [(program, interpreter), *arguments]:
        text, is_shell = _beginning(path), Path(reader).name.rstrip("0123456789.") in _SHELLS
        if is_shell and text.startswith(b"#!") and b"\r\n" in text:
            problem = "it has lines that end with CR LF, as on Windows, and a shell reads the CR as well"
            yield _to_convert(path, problem)
        if code in _NOT_FOUND and encoding_of(text)[1]:
            yield _to_save_as_utf8(path, text)


def _why_no_program(program: Path, text: bytes) -> str:
    if not text:
        return "the file is empty"
    if encoding_of(text) != ("utf-8", 0):
        return _to_save_as_utf8(program, text)
    if text.startswith((b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe")):
        return "it was built for another system"
    return "its first line names no interpreter; let it be for example #!/bin/sh"


def _find(program: str, search: str) -> Path | None:
    """Find the file of a program. Hooks run in ``/``, so a relative path starts there."""
    if "/" in program:
        return Path("/", program)
    paths = [Path(folder or "/", program) for folder in search.split(os.pathsep)]
    return next(filter(_is_file, paths), None)


def _is_file(path: Path) -> bool:
    """Return whether a path is a file; False in a folder that this user may not enter, which the system skips too."""
    with suppress(OSError):
        return path.is_file()
    return False


def _beginning(path: Path) -> bytes:
    with suppress(OSError, ValueError):
        if stat.S_ISREG(path.stat().st_mode):
            with path.open("rb") as file:
                return file.read(KEPT_BYTES)
    return b""


def _interpreter(text: bytes) -> list[str]:
    """Return the words of a script's first line after ``#!``."""
    return os.fsdecode(text.partition(b"\n")[0][2:]).split() if text.startswith(b"#!") else []


def _to_convert(path: Path, problem: str) -> str:
    return f"{problem}; convert it: sed -i 's/\\r$//' {shlex.quote(str(path))}"


def _to_save_as_utf8(path: Path, text: bytes) -> str:
    encoding, mark = encoding_of(text)
    if encoding == "utf-8":
        fix = f"sed -i '1s/^\\xef\\xbb\\xbf//' {shlex.quote(str(path))}"
        return f"it begins with a byte order mark (BOM), so its first line is not found; remove it: {fix}"
    return f"it is {encoding.upper()}{' with a byte order mark (BOM)' if mark else ''}; save it as UTF-8 without one"
