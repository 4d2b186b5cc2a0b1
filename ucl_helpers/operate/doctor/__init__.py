"""``ucl doctor``: find the faults of a connection, and for each the one command that repairs it.

It examines from near to far: the home folder, the files, the identity in use, traces of earlier runs, then the way to
UCL and UCL's answer. It changes nothing, takes no lock and signs nothing. If one fault explains another, it reports
only the first.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import KeyLocked, StorageFailed, UnknownConnection
from ucl_helpers.operate.doctor import folders, on_disk, reach, unfinished
from ucl_helpers.operate.doctor.findings import Diagnoses, Diagnosis, Finding, examined, failed, skipped
from ucl_helpers.operate.doctor.on_disk import OnDisk
from ucl_helpers.urls import hostname

__all__ = ["Diagnoses", "Diagnosis", "Finding", "diagnose", "diagnose_home", "diagnose_way"]

Checks = Mapping[str, Callable[[OnDisk], Finding]]
SETTINGS: Checks = {
    "settings": on_disk.settings,
    "references": on_disk.references,
    "lock": lambda disk: folders.lock(disk.connection, disk.now),
    "state files": unfinished.state_files,
    "identity in use": on_disk.identity,
}
IDENTITY: Checks = {
    "key and certificate": on_disk.key_and_certificate,
    "key at rest": on_disk.key_at_rest,
    "files": on_disk.consumer_files,
}
CERTIFICATE: Checks = {"chain": on_disk.chain, "validity": on_disk.validity, "revocation": on_disk.revocation}
UNFINISHED: Checks = {
    "under way": unfinished.under_way,
    "one-time token": unfinished.one_time_token,
    "set aside": unfinished.set_aside,
    "hooks": unfinished.hooks,
}
NEEDED = {"access", "identity in use", "key and certificate"}
"""If one of these fails, the checks after it are skipped."""


def diagnose(
    connection: Connection, *, offline: bool = False, clock: Clock = utc_now, seconds: float = reach.SECONDS
) -> Diagnosis:
    """Examine everything that can be wrong with a connection.

    Args:
        connection: by name; see :meth:`Home.connection`.
        offline: make no calls.
        clock: our clock, aware, UTC.
        seconds: for each step of the way to UCL.

    Raises:
        UnknownConnection: there is no such connection.
    """
    try:
        connection.location.lstat()
    except (FileNotFoundError, NotADirectoryError):
        connection.home.connection(connection.name)
        problem = f"There is no connection {connection.name!r}."
        raise UnknownConnection(problem, remedy="Make one with: ucl establish.") from None
    except OSError:
        pass  # which is a finding
    return Diagnosis(connection.name, _Examination(connection, clock).findings(offline=offline, seconds=seconds))


def diagnose_way(
    home: Home, url: str, *, ca_file: Path | None = None, clock: Clock = utc_now, seconds: float = reach.SECONDS
) -> Diagnosis:
    """Examine the home folder and the way to a URL of UCL, before a connection is established or imported.

    Args:
        home: where the connection will be.
        url: of the Connector (either endpoint) or of the Director. It is called once, without a token or certificate.
        ca_file: PEM of what verifies the server; None for the system's CAs.
        clock: our clock, aware, UTC.
        seconds: for each step of the way.
    """
    way = reach.Reach(url, clock, seconds, ca_file)
    return Diagnosis(hostname(url) or "the URL", [*_of_home(home, home.path / "connections"), *way.findings()])


def diagnose_home(
    home: Home, *, offline: bool = False, clock: Clock = utc_now, seconds: float = reach.SECONDS
) -> Diagnoses:
    """Examine the home folder and every connection in it. Arguments are those of :func:`diagnose`."""
    diagnosis = Diagnosis(str(home.path), _of_home(home, home.path / "connections"))
    connections = [] if diagnosis["home folder"].status == "failed" else home.connections()
    each = (diagnose(connection, offline=offline, clock=clock, seconds=seconds) for connection in connections)
    return Diagnoses([diagnosis, *each])


def _of_home(home: Home, *below: Path) -> list[Finding]:
    folder = examined("home folder", lambda: folders.home_folder(home))
    features = examined("file system", lambda: folders.file_system(home, *below))
    # On a file system without permissions no chmod closes the home folder, so it is named first.
    explains = features.status == "failed" and "file permissions" in features.found
    return [features, folder] if explains else [folder, features]


class _Examination:
    """One examination of a connection, from near to far."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self._findings: list[Finding] = []
        self._blocked = ""  # the name of what failed, while that keeps the next checks from being made

    def findings(self, *, offline: bool, seconds: float) -> list[Finding]:
        """Return all findings, from near to far."""
        self._examine_folders()
        unreadable, disk = self._blocked, OnDisk(self._connection, self._clock())
        self._examine(SETTINGS, disk)
        if disk.current is None:
            self._blocked = self._blocked or "identity in use"
        self._examine(IDENTITY, disk)
        far = self._examine_way(disk, offline=offline, seconds=seconds)
        self._examine(CERTIFICATE, disk)
        self._blocked = unreadable
        self._examine(UNFINISHED, disk)
        return [*self._findings, *map(self._attributed, far)]

    def _examine_folders(self) -> None:
        connection = self._connection
        self._findings += _of_home(connection.home, *connection.folders[1:])
        self._examine_one("connection folder", lambda: folders.connection_folder(connection))
        if not folders.may(connection.location, os.R_OK | os.X_OK):
            self._blocked = self._first_failed() or "connection folder"
        self._examine_one("access", lambda: folders.access(connection))
        self._examine_one("secrecy", lambda: folders.secrecy(connection))
        if not self._blocked and folders.privacy(*connection.folders) is not None:
            self._blocked = self._first_failed() or "secrecy"

    def _examine(self, checks: Checks, disk: OnDisk) -> None:
        for name, check in checks.items():
            self._examine_one(name, partial(check, disk))

    def _examine_one(self, name: str, check: Callable[[], Finding]) -> None:
        finding = skipped(f"see {self._blocked}").named(name) if self._blocked else examined(name, check)
        self._findings.append(finding)
        if name in NEEDED and finding.status == "failed":
            self._blocked = name

    def _first_failed(self, names: Iterable[str] = ()) -> str:
        every = (finding.name for finding in self._findings if finding.status == "failed")
        return next((name for name in every if not names or name in names), "")

    def _examine_way(self, disk: OnDisk, *, offline: bool, seconds: float) -> list[Finding]:
        """Examine the way to UCL and its answer; note UCL's clock, and whether it accepts the certificate."""
        why = f"see {self._blocked}" if self._blocked else "not called (--offline)" if offline else ""
        codes = {finding.name: finding.exit_code for finding in self._findings}
        if not why and codes["key at rest"] == KeyLocked.exit_code:
            why = "see key at rest"
        if not why and disk.practice and disk.sandbox_url() is None:
            why = f"its sandbox is not running; this starts it: {disk.commands.renew()}"
        if not why:
            way = reach.IdentityReach(disk, self._clock, seconds)
            findings = way.findings()
            disk.now, disk.accepted = way.server_now, way.noted["client certificate"].status == "ok"
            return findings
        unseen = {name: skipped(why).named(name) for name in reach.NAMES}
        if not self._blocked and (damage := disk.identity.damage_of("server-ca.pem")) is not None:
            remedy = disk.commands.again(ca="$SERVER_CA_FILE")
            unseen["server trust"] = failed(damage.message, remedy, StorageFailed).named("server trust")
        return list(unseen.values())

    def _attributed(self, finding: Finding) -> Finding:
        """Skip a refusal that a fault of the certificate explains; return any other finding as it is."""
        why = self._first_failed(CERTIFICATE)
        is_explained = why and finding.status == "failed" and finding.name == "client certificate"
        return skipped(f"refused: see {why}").named(finding.name) if is_explained else finding
