"""``ucl doctor``: find the faults of a connection, and for each the one command that repairs it.

It examines from near to far: the home folder, the files, the identity in use, traces of earlier runs, then the way to
UCL and UCL's answer. It changes nothing, takes no lock and requests no signature. If one fault explains another, it
reports only the first.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import KeyLocked, StorageFailed
from ucl_helpers.operate.doctor import folders, identity, reach, unfinished
from ucl_helpers.operate.doctor.findings import Diagnoses, Diagnosis, Finding, examined, failed, skipped
from ucl_helpers.operate.doctor.on_disk import OnDisk
from ucl_helpers.urls import hostname

__all__ = ["Diagnoses", "Diagnosis", "Finding", "diagnose", "diagnose_home", "diagnose_way"]

Probes = Mapping[str, Callable[[OnDisk], Finding]]
FOLDER: Probes = {"connection folder": folders.connection_folder}
PERMISSIONS: Probes = {"access": folders.access, "secrecy": folders.secrecy}
IDENTITY: Probes = {
    "settings": identity.settings,
    "references": identity.references,
    "lock": folders.lock,
    "state files": unfinished.state_files,
    "identity in use": identity.in_use,
    "key and certificate": identity.key_and_certificate,
    "key at rest": identity.key_at_rest,
    "files": identity.consumer_files,
}
CERTIFICATE: Probes = {"chain": identity.chain, "validity": identity.validity, "revocation": identity.revocation}
UNFINISHED: Probes = {
    "under way": unfinished.under_way,
    "one-time token": unfinished.one_time_token,
    "set aside": unfinished.set_aside,
    "hooks": unfinished.hooks,
}
NEED_SETTINGS = {"references", "key at rest", "files"}
NEEDED = {"access", "identity in use", "key and certificate"}
"""If the probe for one of these does not succeed, the probes after it are skipped."""


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
    except OSError:
        pass  # which is a finding
    examination = _Examination(OnDisk(connection, clock()))
    return Diagnosis(connection.name, examination.findings(clock, offline=offline, seconds=seconds))


def diagnose_way(
    home: Home, url: str, *, ca_file: Path | None = None, clock: Clock = utc_now, seconds: float = reach.SECONDS
) -> Diagnosis:
    """Examine the home folder and the way to a URL of UCL, before a connection is established or imported.

    Args:
        home: where the connection will be.
        url: of the Connector (either endpoint) or of the Director. It is called once, without a token or certificate.
        ca_file: PEM file with the CAs that verify the server; None for the system's CAs.
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
    folder = examined("home folder", partial(folders.home_folder, home))
    features = examined("file system", partial(folders.file_system, home, *below))
    # On a file system without permissions no chmod closes the home folder, so it is named first.
    explains = features.status == "failed" and "file permissions" in features.found
    return [features, folder] if explains else [folder, features]


class _Examination:
    """One examination of a connection, from near to far."""

    def __init__(self, disk: OnDisk) -> None:
        self._disk, self._connection = disk, disk.connection
        self._findings = _of_home(self._connection.home, *self._connection.folders[1:])
        self._blocker = ""  # the finding that explains why the next probes cannot be made

    def findings(self, clock: Clock, *, offline: bool, seconds: float) -> list[Finding]:
        """Make all probes. The way to UCL is examined before the certificate, whose dates UCL's clock decides."""
        self._probe(FOLDER)
        if not folders.may(self._connection.location, os.R_OK | os.X_OK):
            self._blocker = self._first_failure()
        self._probe(PERMISSIONS)
        if folders.privacy(*self._connection.folders) is not None:
            self._blocker = self._blocker or self._first_failure()
        unreadable = self._blocker
        self._probe(IDENTITY)
        if why := self._why_unseen(offline=offline):
            way = self._unseen(why)
        else:
            call = reach.IdentityReach(self._disk, clock, seconds)
            way = {finding.name: finding for finding in call.findings()}
            self._disk.now, self._disk.accepted = call.server_now, way["client certificate"].status == "ok"
        self._probe(CERTIFICATE)
        explained_by = self._first_failure(CERTIFICATE)
        if explained_by and way["client certificate"].status == "failed":
            way["client certificate"] = skipped(f"refused: see {explained_by}").named("client certificate")
        self._blocker = unreadable
        self._probe(UNFINISHED)
        return [*self._findings, *way.values()]

    def _probe(self, probes: Probes) -> None:
        edit = self._disk.command("settings", "--edit")
        for name, probe in probes.items():
            needs_settings = name in NEED_SETTINGS and self._disk.settings_error
            blocker = self._blocker or ("settings" if needs_settings else "")
            if blocker:
                self._findings.append(skipped(f"see {blocker}").named(name))
                continue
            finding = examined(name, partial(probe, self._disk), to_edit_settings=edit)
            self._findings.append(finding)
            if name in NEEDED and finding.status in {"failed", "skipped"}:
                self._blocker = name

    def _first_failure(self, probes: Probes | None = None) -> str:
        failures = (finding.name for finding in self._findings if finding.status == "failed")
        return next((name for name in failures if probes is None or name in probes), "")

    def _why_unseen(self, *, offline: bool) -> str:
        """Return the reason for making no call, or an empty text."""
        if self._blocker:
            return f"see {self._blocker}"
        if offline:
            return "not called (--offline)"
        if any(
            finding.name == "key at rest" and finding.exit_code == KeyLocked.exit_code for finding in self._findings
        ):
            return "see key at rest"
        if self._disk.practice and self._disk.sandbox_url is None:
            return f"its sandbox is not running; this starts it: {self._disk.renew_command()}"
        return ""

    def _unseen(self, why: str) -> dict[str, Finding]:
        """Return the findings on the way to UCL if no call is made. A damaged CA file is found without one."""
        unseen = {name: skipped(why).named(name) for name in reach.NAMES}
        if not self._blocker and (damage := self._disk.identity.damage_of("server-ca.pem")) is not None:
            remedy = self._disk.import_command(server_ca="$SERVER_CA_FILE")
            unseen["server trust"] = failed(damage.message, remedy, StorageFailed).named("server trust")
        return unseen
