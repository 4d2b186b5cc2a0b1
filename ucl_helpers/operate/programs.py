"""Why a program or script could not be run, where the system says only "No such file or directory"."""

import errno
import os
import shlex
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ucl_helpers.formats.texts import encoding_of
from ucl_helpers.operate.hook_results import NOT_IN_PATH

_LOOKED_AT = 64 * 1024
_NOT_FOUND = {126, 127}  # what a shell and env end with when they cannot run a program


def why_not_started(command: Sequence[str], search: str, error: OSError | ValueError) -> str:
    """Explain an error of starting a program, with what helps.

    Args:
        command: the program and its arguments.
        search: the folders it was searched in, as in ``PATH``.
        error: what the system said.
    """
    if isinstance(error, ValueError):  # a character that this system's encoding does not have
        return "it cannot be written on this system"
    path = _file_of(command[0], search)
    if error.errno == errno.ENOENT:
        return _not_there(command[0], path) or str(error.strerror)
    if error.errno == errno.EACCES:
        return _not_allowed(path) or str(error.strerror)
    if error.errno == errno.ENOEXEC:
        return _no_program(path) or str(error.strerror)
    return error.strerror or str(error)


def why_it_failed(command: Sequence[str], search: str, code: int) -> str:
    """Explain an exit code by a script's line ends, its byte order mark or its missing interpreter; empty otherwise."""
    program = _file_of(command[0], search)
    beginning = _beginning(program)
    parts = _interpreter(beginning)
    if beginning.partition(b"\n")[0].endswith(b"\r") and parts:
        return _windows(program, "its first line ends with CR LF, as on Windows, and so does the name or option in it")
    if code in _NOT_FOUND and len(parts) > 1 and Path(parts[0]).name == "env":
        wanted = next((part for part in parts[1:] if not part.startswith("-")), "")
        if wanted and shutil.which(wanted, path=search) is None:
            return f"the interpreter {wanted} that its first line names is {NOT_IN_PATH}"
    for path, shell in _scripts(command, program, parts):
        text = _beginning(path)
        if _is_shell(shell) and text.startswith(b"#!") and b"\r\n" in text:
            return _windows(path, "it has lines that end with CR LF, as on Windows, and a shell reads the CR as well")
        if code in _NOT_FOUND and encoding_of(text)[1]:
            return _marked(path, text)
    return ""


def _scripts(command: Sequence[str], program: Path | None, parts: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The files that may be a script, each with the name of the program that reads it."""
    if program is not None:
        words = [part for part in parts if Path(part).name != "env" and not part.startswith("-")]
        yield program, words[0] if words else ""
    for one in command[1:3]:
        if one.startswith("/"):
            yield Path(one), command[0]


def _is_shell(program: str) -> bool:
    return Path(program).name.rstrip("0123456789.") in {"sh", "ash", "bash", "dash", "ksh", "mksh", "zsh", "busybox"}


def _file_of(program: str, search: str) -> Path | None:
    """The file that a program's name stands for; hooks run in ``/``, so a relative path starts there."""
    if "/" in program:
        return Path("/", program)
    folders = [Path(folder or "/", program) for folder in search.split(os.pathsep)]
    return next((path for path in folders if path.is_file()), None)


def _beginning(path: Path | None) -> bytes:
    with suppress(OSError, ValueError):
        if path is not None and stat.S_ISREG(path.stat().st_mode):
            with path.open("rb") as file:
                return file.read(_LOOKED_AT)
    return b""


def _interpreter(beginning: bytes) -> list[str]:
    """The words of a script's first line after ``#!``."""
    first = beginning.partition(b"\n")[0]
    return os.fsdecode(first[2:]).split() if first.startswith(b"#!") else []


def _windows(path: Path | None, what: str) -> str:
    return f"{what}; convert it: sed -i 's/\\r$//' {shlex.quote(str(path))}"


def _marked(path: Path | None, beginning: bytes) -> str:
    """What is wrong with a script that begins with a byte order mark, or is no text in UTF-8."""
    encoding, mark = encoding_of(beginning)
    if encoding == "utf-8":
        fix = f"sed -i '1s/^\\xef\\xbb\\xbf//' {shlex.quote(str(path))}"
        return f"it begins with a byte order mark (BOM), so its first line is not found; remove it: {fix}"
    how = " with a byte order mark (BOM)" if mark else ""
    return f"it is {encoding.upper()}{how}; save it as UTF-8 without one"


def _not_there(program: str, path: Path | None) -> str:
    if path is None:
        return f"No such file or directory: it is {NOT_IN_PATH}"
    if not os.path.lexists(path):
        relative = "" if program.startswith("/") else ". Hooks run in the folder /: give the whole path"
        return f"No such file or directory{relative}"
    return _lacks_interpreter(path, _beginning(path))


def _lacks_interpreter(path: Path, beginning: bytes) -> str:
    """Why a program that is there is told to be missing: it is the program which runs it that is."""
    if not path.exists():
        return "it is a symlink to a file that is not there"
    if beginning.partition(b"\n")[0].endswith(b"\r"):
        return _windows(path, "its first line ends with CR LF, as on Windows, and so does the interpreter's name in it")
    if parts := _interpreter(beginning):
        return f"the interpreter {parts[0]} that its first line names is not there"
    if beginning.startswith(b"\x7fELF"):
        return "the program is there, and the loader that it needs is not: it was built for another system"
    return ""


def _not_allowed(path: Path | None) -> str:
    if path is None:
        return ""
    if path.is_dir():
        return "it is a folder"
    with suppress(OSError):
        if not path.stat().st_mode & 0o111:
            return f"it is not executable; make it so: chmod u+x {shlex.quote(str(path))}"
        parts = _interpreter(_beginning(path))
        if parts and not os.access(parts[0], os.X_OK):
            return f"the interpreter {parts[0]} that its first line names is not executable"
        if os.statvfs(path).f_flag & os.ST_NOEXEC:
            return "its file system is mounted with noexec"
    return ""


def _no_program(path: Path | None) -> str:
    beginning = _beginning(path)
    if not beginning:
        return "the file is empty"
    encoding, mark = encoding_of(beginning)
    if mark or encoding != "utf-8":
        return _marked(path, beginning)
    if beginning.startswith((b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe")):
        return "it was built for another system"
    return "its first line names no interpreter; let it be for example #!/bin/sh"
