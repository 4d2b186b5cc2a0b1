"""What a doctor says: what was looked at, what was found, and the one command that mends it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.crypto import is_sealed
from ucl_helpers.errors import UCLError
from ucl_helpers.tables import Row, Shown, printable, text_table

Status = Literal["ok", "warning", "failed", "skipped"]
SEVERITY: Mapping[Status, int] = {"failed": 0, "warning": 1, "ok": 2, "skipped": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        status: a warning needs nobody now; what was skipped could not be looked at, and ``found`` says why.
        found: what was found.
        remedy: the command that mends it, or what else is to be done; empty where nothing is.
        exit_code: of the error that it stands for, see :mod:`ucl_helpers.errors`; 0 unless it failed.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    exit_code: int = 0


def ok(name: str, found: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", found)


def warning(name: str, found: str, remedy: str) -> Finding:
    """It works, and somebody should know."""
    return Finding(name, "warning", found, remedy)


def failed(name: str, found: str, remedy: str, kind: type[UCLError]) -> Finding:
    """It keeps the connection from working, or its key from being safe."""
    return Finding(name, "failed", found, remedy, kind.exit_code)


def skipped(name: str, why: str) -> Finding:
    """It could not be looked at, or there is nothing to look at."""
    return Finding(name, "skipped", why)


@dataclass(frozen=True)
class Diagnosis(Shown):
    """All that was looked at, from near to far; ``name`` is the connection's, or that of the home folder."""

    name: str
    findings: Sequence[Finding]

    title: ClassVar[str] = "Diagnosis"
    header: ClassVar[Row] = ("looked at", "status", "found", "what to do")

    @property
    def ok(self) -> bool:
        """True when nothing failed; warnings are allowed."""
        return not self.exit_code

    @property
    def worst(self) -> Finding:
        """The first finding that failed, else the first warning, else the first."""
        return min(self.findings, key=lambda one: SEVERITY[one.status])

    @property
    def exit_code(self) -> int:
        """That of the first finding that failed, or 0."""
        return self.worst.exit_code

    def caption(self) -> str:
        """The name, and what is worst."""
        return f"{self.name}: {self.summary()}"

    def summary(self) -> str:
        """What is worst, in a word or two."""
        worst = self.worst
        return "all is well" if SEVERITY[worst.status] == SEVERITY["ok"] else f"{worst.status}: {worst.name}"

    def rows(self) -> list[Row]:
        """One row a finding."""
        return [(one.name, one.status, one.found, one.remedy) for one in self.findings]

    def __str__(self) -> str:
        return _text(self)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        told = [{"name": one.name, "status": one.status, "found": one.found, "remedy": one.remedy} for one in self]
        return {"name": self.name, "ok": self.ok, "exitCode": self.exit_code, "findings": told}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, name: str) -> Finding:
        return next(one for one in self.findings if one.name == name)


@dataclass(frozen=True)
class Diagnoses(Shown):
    """The home folder and every connection in it, one line each: the worst that was found."""

    diagnoses: Sequence[Diagnosis]

    title: ClassVar[str] = "Diagnoses"
    header: ClassVar[Row] = ("connection", "status", "found", "what to do")

    @property
    def exit_code(self) -> int:
        """That of the first one that failed, or 0."""
        return next((one.exit_code for one in self.diagnoses if not one.ok), 0)

    def caption(self) -> str:
        """How many have what."""
        bad = sum(not one.ok for one in self.diagnoses)
        return f"{len(self.diagnoses)} looked at, {bad} failed"

    def rows(self) -> list[Row]:
        """The worst of each."""
        return [
            (one.name, one.worst.status, f"{one.worst.name}: {one.worst.found}", one.worst.remedy)
            if SEVERITY[one.worst.status] < SEVERITY["ok"]
            else (one.name, "ok", one.summary(), "")
            for one in self.diagnoses
        ]

    def __str__(self) -> str:
        return _text(self)

    def as_json(self) -> list[dict[str, Any]]:
        """For programs: each diagnosis, the home folder's first."""
        return [one.as_json() for one in self.diagnoses]


def _text(shown: Shown) -> str:
    """As text a remedy stands below what was found: a line of its own, to be copied."""
    rows = [(name, status, f"{found}\n→ {remedy}" if remedy else found) for name, status, found, remedy in shown.rows()]
    return f"{printable(shown.caption())}\n{text_table([shown.header[:3], *rows])}"


class Commands:
    """What mends a connection, as commands to type. A word in capitals behind a ``$`` is for the user to fill in.

    ``waiting``: a renewal has just failed, and only ``--force`` tries it again now.
    """

    def __init__(
        self, connection: Connection, *, practice: bool, url: str | None, server_ca: Path | None, waiting: bool = False
    ) -> None:
        self.connection, self._practice = connection, practice
        self.name, self.path = connection.name, connection.location
        self._home, self._url, self._server_ca, self._waiting = connection.home, url, server_ca, waiting
        self.passphrase: str | None = None  # a reference: what encrypted keys of ours are opened with

    def ucl(self, *words: str | Path) -> str:
        """A command of ours, with ``--home`` where it is not the one that would be taken without."""
        home: list[str | Path] = [] if Home().path == self._home.path else ["--home", self._home.path]
        return " ".join(_word(one) for one in ("ucl", *words, *home))

    def renew(self, *options: str) -> str:
        """Renew it, or go on with a renewal."""
        insisting = ("--force",) if self._waiting and "--force" not in options else ()
        return self.ucl("renew", self.name, *insisting, *options)

    def wait(self) -> str:
        """What to run when an outage of UCL may be over."""
        return f"Wait. When UCL is back: {self.renew()}"

    def finish(self) -> str:
        """Go on with an establishment that was cut off."""
        return self.ucl("establish", self.name, *(["--sandbox"] if self._practice else []))

    def establish(self, token_url: str | None = None) -> str:
        """Establish it anew, which takes a one-time token."""
        if self._practice:
            return self.finish()
        where = ["--token", "prompt", "--connector-url", token_url or "$CONNECTOR_URL"]
        return self.ucl("establish", self.name, *where, *self._ca())

    def again(self, key: Path | None = None, certificate: Path | None = None, **changed: str) -> str:
        """Import what is in use once more: from other files, with another ``url``, or with another server's ``ca``."""
        if self._practice:
            return self.finish()
        current = self.path / "current"
        key, certificate = key or current / "key.pem", certificate or current / "chain.pem"
        identity: list[str | Path] = ["--key", key, "--certificate", certificate]
        with suppress(OSError):
            if is_sealed(key.read_bytes()):
                identity += ["--passphrase", self.passphrase or "prompt"]
        url = changed.get("url") or self._url or "$CERTIFICATE_SECURED_CONNECTOR_URL"
        ca: list[str | Path] = ["--ca-file", changed["ca"]] if "ca" in changed else self._ca()
        return self.ucl("import", self.name, *identity, "--connector-url", url, *ca)

    def _ca(self) -> list[str | Path]:
        return ["--ca-file", self._server_ca] if self._server_ca else []


def shell(*words: str | Path) -> str:
    """Words as a command that a shell takes."""
    return " ".join(_word(one) for one in words)


def _word(word: str | Path) -> str:
    return f'"{word}"' if str(word).startswith("$") else shlex.quote(str(word))
