"""From near to far: everything is looked at in order, and what rests on something that failed is skipped."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ucl_helpers.clock import Clock, utc_now
from ucl_helpers.connection.generation import Generation
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import KeyLocked, StorageFailed, UCLError, UnknownConnection
from ucl_helpers.operate.doctor import file_system, folders, protection, reach, unfinished
from ucl_helpers.operate.doctor.findings import Diagnoses, Diagnosis, Finding, failed, skipped
from ucl_helpers.operate.doctor.locks import NAME, locks
from ucl_helpers.operate.doctor.on_disk import Kept, guarded
from ucl_helpers.operate.doctor.reach import Reach
from ucl_helpers.wire.tls import hostname


def diagnose(
    connection: Connection, *, offline: bool = False, clock: Clock = utc_now, seconds: float = reach.SECONDS
) -> Diagnosis:
    """Look at everything that can be wrong with a connection.

    Args:
        connection: by name; see :meth:`Home.connection`.
        offline: call nobody.
        clock: our clock, aware, UTC.
        seconds: for each step of the way to UCL.

    Raises:
        UnknownConnection: there is no such connection.
    """
    if not _may_be_there(connection):
        connection.home.connection(connection.name)
        raise UnknownConnection(f"There is no connection {connection.name!r}.", remedy="Make one with: ucl establish.")
    return Diagnosis(connection.name, _Examination(connection, clock).findings(offline=offline, seconds=seconds))


def diagnose_way(
    home: Home, url: str, *, ca_file: Path | None = None, clock: Clock = utc_now, seconds: float = reach.SECONDS
) -> Diagnosis:
    """Look at the home folder and at the way to a URL of UCL, before a connection is established or imported.

    Args:
        home: where the connection will be.
        url: of the Connector (either endpoint) or of the Director. It is called once, without a token or certificate.
        ca_file: PEM of what verifies the server; None for the system's CAs.
        clock: our clock, aware, UTC.
        seconds: for each step of the way.
    """
    way = reach.Way(url, ca_file, clock, seconds)
    way.look()
    return Diagnosis(hostname(url) or "the URL", [*_findings_of(home), *way.findings()])


def _findings_of(home: Home) -> list[Finding]:
    """What there is to say of the home folder."""
    itself = guarded("home folder", lambda: folders.home_folder(home))
    offered = guarded(file_system.NAME, lambda: file_system.file_system(home, home.path / "connections"))
    lacking = next((one for one in (itself, offered) if one.status == "failed"), None)
    holding = skipped(NAME, f"see {lacking.name}") if lacking else guarded(NAME, lambda: locks(home))
    return [offered, itself, holding] if _explains(offered) else [itself, offered, holding]


def diagnose_home(
    home: Home, *, offline: bool = False, clock: Clock = utc_now, seconds: float = reach.SECONDS
) -> Diagnoses:
    """Look at the home folder and at every connection in it. Arguments are those of :func:`diagnose`."""
    itself = _findings_of(home)
    found = [Diagnosis(str(home.path), itself)]
    try:
        connections = home.connections()
    except (UCLError, OSError):
        connections = []
    if any(one.name == "home folder" and one.status == "failed" for one in itself):
        return Diagnoses(found)
    return Diagnoses([*found, *(diagnose(one, offline=offline, clock=clock, seconds=seconds) for one in connections)])


def _explains(offered: Finding) -> bool:
    """Whether the file system is to be named first: if it keeps no permissions, no ``chmod`` closes the home folder."""
    return offered.status == "failed" and "file permissions" in offered.found


def _may_be_there(connection: Connection) -> bool:
    """False only if it certainly is not."""
    try:
        connection.location.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


class _Examination:
    """One look at everything, in order; what rests on something that failed is skipped."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self._found: list[Finding] = []
        self._blocked = ""

    def findings(self, *, offline: bool, seconds: float) -> list[Finding]:
        """From near to far."""
        connection = self._connection
        offered = guarded(file_system.NAME, lambda: file_system.file_system(connection.home, *connection.folders[1:]))
        itself = guarded("home folder", lambda: folders.home_folder(connection.home))
        self._found += [offered, itself] if _explains(offered) else [itself, offered]
        self._look("connection folder", lambda: folders.connection_folder(connection))
        if not folders.may_be_read(connection.location):
            self._blocked = next((one.name for one in self._found if one.status == "failed"), "connection folder")
        self._look("access", lambda: folders.access(connection), needed=True)
        self._look("secrecy", lambda: folders.secrecy(connection))
        if not self._blocked and folders.privacy("", *connection.folders) is not None:
            self._blocked = next((one.name for one in self._found if one.status == "failed"), "secrecy")
        unreadable, kept = self._blocked, Kept(connection, self._clock())
        self._look("settings", kept.settings_file)
        self._look("references", lambda: protection.references(kept))
        self._look("lock", lambda: folders.lock(connection, self._clock()))
        self._look("state files", kept.state_files)
        self._look("journal", kept.journal)
        self._look("identity in use", kept.identity, needed=True)
        if kept.current is None:
            self._blocked = self._blocked or "identity in use"
        current = kept.current or Generation(connection.location / "current")
        self._look("key and certificate", lambda: kept.key_and_certificate(current), needed=True)
        self._look("key at rest", lambda: protection.key_at_rest(kept, current))
        self._look("files", lambda: protection.consumer_files(kept, current))
        far, now = self._far(kept, current, offline=offline, seconds=seconds)
        self._look("chain", lambda: kept.chain(current, now))
        self._look("validity", lambda: kept.validity(current, now))
        accepted = any(one.name == "client certificate" and one.status == "ok" for one in far)
        self._look("revocation", lambda: kept.revocation(current, accepted=accepted))
        self._blocked = unreadable
        self._look("under way", lambda: unfinished.under_way(kept, now))
        self._look("one-time token", lambda: unfinished.one_time_token(kept))
        self._look("set aside", lambda: unfinished.aside(kept))
        self._look("leftovers", lambda: unfinished.leftovers(kept))
        self._look("hooks", lambda: unfinished.hooks(kept))
        self._look("other valid certificates", lambda: unfinished.others(kept, now))
        return [*self._found, *(self._attributed(one) for one in far)]

    def _look(self, name: str, look: Callable[[], Finding], *, needed: bool = False) -> None:
        finding = skipped(name, f"see {self._blocked}") if self._blocked else guarded(name, look)
        self._found.append(finding)
        if needed and finding.status == "failed":
            self._blocked = name

    def _far(self, kept: Kept, current: Generation, *, offline: bool, seconds: float) -> tuple[list[Finding], datetime]:
        """What lies beyond this machine, and UCL's clock if it told."""
        why = f"see {self._blocked}" if self._blocked else "not called (--offline)" if offline else ""
        if not why and any(one.name == "key at rest" and one.exit_code == KeyLocked.exit_code for one in self._found):
            why = "see key at rest"
        if not why and kept.practice and kept.sandbox_url() is None:
            why = f"its sandbox is not running; this starts it: {kept.commands.renew()}"
        if why:
            damaged = None if self._blocked else current.damage_of("server-ca.pem")
            trust = damaged and failed(
                "server trust", damaged.message, kept.commands.again(ca="$SERVER_CA_FILE"), StorageFailed
            )
            unseen = {name: skipped(name, why) for name in reach.NAMES} | ({trust.name: trust} if trust else {})
            return list(unseen.values()), self._clock()
        far = Reach(
            kept.sandbox_url() or str(current.facts["connectorUrl"]), current, kept.commands, self._clock, seconds
        )
        far.look()
        return far.findings(), far.server_now

    def _attributed(self, finding: Finding) -> Finding:
        """A refusal that something nearer by explains is not another fault."""
        why = next((one.name for one in self._found if one.status == "failed" and one.name in _EXPLAIN), None)
        if why and finding.status == "failed" and finding.name == "client certificate":
            return skipped(finding.name, f"refused: see {why}")
        return finding


_EXPLAIN = ("chain", "validity", "revocation")
