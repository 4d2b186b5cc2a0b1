"""After every test: no secret stands in what it said, in what it started, or where others may read.

What is secret is known by watching: every private key that is written or read, every one-time token and bearer of a
sandbox of this process; and by its looks: the PEM text of a private key, a one-time token of another process. Searched
are the captured output, log and error of each test, the arguments of every program it started and of all that run when
it ends, and the notebooks, journals and other files of the homes in its folder.
"""

import functools
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import ucl_sandbox as sandbox
from ucl_helpers.connection.exports import EXPORTS
from ucl_sandbox import state

CANARY = "canary-passphrase-4fd1c2"  # what tests use as a passphrase
_LOOKS = re.compile(r"PRIVATE KEY-----\s+[A-Za-z0-9+/]{16}|(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{86}==|" + CANARY)
_WORD = re.compile(r"[A-Za-z0-9+/_=-]{40,}")
_HOLD_SECRETS = {"key.pem", "identity.pem", "token", *(export.file for export in EXPORTS.values() if export.holds_key)}
_FOR_EYES = {".ipynb", ".jsonl", ".log"}
_PRIVATE = 0o077


def leaks_in(text, known=frozenset()):
    """What of a text is secret."""
    return [one[0] for one in _LOOKS.finditer(text)] + [one for one in _WORD.findall(text) if one in known]


def leaks_below(folder, known=frozenset()):
    """Files in homes below a folder that hold a secret and should not, or hold one and may be read by others."""
    for path in folder.rglob("*"):
        below = path.relative_to(folder).parts
        for_eyes = path.suffix in _FOR_EYES or ("connections" in below and path.name not in _HOLD_SECRETS)
        if path.is_symlink() or not path.is_file():
            continue
        if for_eyes and leaks_in(path.read_text(errors="replace"), known):
            yield f"{path} holds a secret"
        if path.name in _HOLD_SECRETS and "connections" in below and path.stat().st_mode & _PRIVATE:
            yield f"{path} may be read by others"


def command_lines():
    """The command lines of all processes, as anybody may read them; none where there is no ``/proc``."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def watched(function, secrets_of, known):
    """The function, and whatever secrets it returns are known from then on."""

    @functools.wraps(function)
    def observed(*args, **kwargs):
        result = function(*args, **kwargs)
        known.update(one for one in secrets_of(result) if _WORD.fullmatch(one))
        return result

    return observed


class Watch:
    """A plugin of pytest; see the top of this file."""

    def __init__(self):
        self.known, self._told, self._started = set(), 0, []
        sys.addaudithook(self._see)
        for module in [one for name, one in sys.modules.items() if name.startswith("ucl_helpers.")]:
            if hasattr(module, "dump_key"):
                module.dump_key = watched(module.dump_key, lambda pem: pem.decode().split("\n"), self.known)
            if hasattr(module, "fields_of"):
                module.fields_of = watched(module.fields_of, lambda found: [found["director_token"]], self.known)
        state.State.issue_token = watched(state.State.issue_token, lambda row: [row["token"]], self.known)
        sandbox.Sandbox.__enter__ = watched(sandbox.Sandbox.__enter__, lambda ucl: [ucl.director_token], self.known)

    def _see(self, event, args):
        if event == "subprocess.Popen":
            command = [args[1]] if isinstance(args[1], str | bytes | os.PathLike) else args[1]
            self._started.append(" ".join(map(os.fsdecode, command)))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        """Fail a test that has let a secret out."""
        report = (yield).get_result()
        if call.when == "setup" or item.get_closest_marker("plants_secrets"):
            return
        texts = [*(text for _, text in report.sections), report.longreprtext, *self._started]
        texts += command_lines() if call.when == "call" else ()
        found = [f"said or started: {leak[:16]}…" for text in texts for leak in leaks_in(text, self.known)]
        folder = item.funcargs.get("tmp_path") if call.when == "call" else None
        found += leaks_below(folder, self.known) if folder and folder.exists() else ()
        if call.when == "call":
            report.user_properties += [
                ("proof", ["secrets", "secrets searched for", len(self.known) - self._told]),
                ("proof", ["secrets", "texts and command lines searched", len(texts)]),
                ("proof", ["secrets", "found where they must not stand", len(found)]),
            ]
            self._told = len(self.known)
        self._started.clear()
        told = "\n".join(["secrets are out:", *found])
        if found and report.failed:
            report.sections.append(("secrets", told))
        elif found:
            report.outcome, report.longrepr = "failed", told
