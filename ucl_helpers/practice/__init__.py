"""Open practice connections at the sandbox, for notebooks and the command line.

This is the only module that uses both the client and the sandbox. Only notebooks, the explorer and ``cli`` use it. It
establishes a practice connection as you would establish a real one: with access to a Director, by
:func:`ucl_helpers.procedures.establishment.establish`. The sandbox is imported when it is needed.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ucl_helpers.clock import utc_now
from ucl_helpers.connection import files
from ucl_helpers.connection.files import remove_tree, storage, write
from ucl_helpers.connection.references import resolve
from ucl_helpers.connection.settings import dump_settings
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import (
    Busy,
    Refused,
    ServerNotTrusted,
    StorageFailed,
    UCLError,
    UnknownConnection,
    UsageError,
    printable,
)
from ucl_helpers.extras import require
from ucl_helpers.formats.texts import text_of
from ucl_helpers.headless.parameters import is_attended
from ucl_helpers.models import Outcome
from ucl_helpers.operations import CONFIGURATION
from ucl_helpers.procedures.acceptance import is_accepted
from ucl_helpers.procedures.establishment import DirectorAccess, Enrolment, access_from, establish
from ucl_helpers.procedures.importing import import_identity, read_identity, usable_ca
from ucl_helpers.procedures.renewal import renew
from ucl_helpers.wire.client import Client

if TYPE_CHECKING:
    from ucl_sandbox import Access, SharedSandbox

_JOINING = Lock()
_JOINED: dict[Path, "SharedSandbox"] = {}
_OWN: set[tuple[Path, str]] = set()
_HELD: list[files.Lock] = []  # until this process ends
_LEAST_VALIDITY = timedelta(minutes=1)


def sandbox_of(home: Home) -> "SharedSandbox":
    """Return the sandbox of a home folder, and start it if it does not run. It runs at least as long as this process.

    Raises:
        StorageFailed: another user could change its folder.
        UCLError: it cannot be started.
        UsageError: the extra ``sandbox`` is not installed.
    """
    require("sandbox")
    from ucl_sandbox import SandboxError, join

    with _JOINING:
        before = _JOINED.get(home.path)
        try:
            home.folder("sandbox")
            with storage("start the sandbox of", home.path):
                _JOINED[home.path] = join(home.path)
        except SandboxError as error:
            raise UCLError(str(error), remedy="Fix what the log names, then run it again.") from None
        if before is not None:
            before.leave()
        return _JOINED[home.path]


def change_faults(home: Home, plan: str | None = None) -> dict[str, Any]:
    """Set or show the faults of a home folder's sandbox. They affect every program that uses it.

    Args:
        home: the home folder.
        plan: the faults to set, by name or as JSON (docs/reference/sandbox.md). An empty text ends all faults. None
            changes nothing.

    Returns:
        ``faults``, the plan; ``struck``, how often each kind has struck since the plan was set; ``seed``.

    Raises:
        UsageError: the plan is not valid.
        UCLError: the sandbox does not answer.
    """
    from ucl_sandbox import FaultsError, RemoteFaults, SandboxError

    faults = RemoteFaults(sandbox_of(home))
    try:
        if plan is None:
            return faults.shown()
        return faults.set(plan) if plan else faults.clear()
    except FaultsError as error:
        raise UsageError(f"{error}.", remedy="docs/reference/sandbox.md has them all.") from None
    except SandboxError as error:
        raise UCLError(str(error), remedy="Run it again.") from None


def director_of(home: Home) -> DirectorAccess:
    """Return access to the Director of a home folder's sandbox."""
    return director_at(sandbox_of(home))


def director_at(ucl: "Access") -> DirectorAccess:
    """Return access to the Director of a running sandbox."""
    return DirectorAccess(ucl.director_url, ucl.tenant, ucl.application_id, ucl.director_token, ucl.ca_file)


def open_connection(
    name: str = "", home: str | Path | None = None, *, practice: str, asked: bool = False, **given: str
) -> Connection:
    """Open a connection by name, or a practice connection that works if no name is given.

    Args:
        name: of a connection; empty for practice.
        home: the home folder; None or empty for ``UCL_HOME`` or the user's data folder.
        practice: name of the practice connection. It is established at the sandbox if it does not exist or does not
            work.
        asked: whether the user asked for practice, which a headless run requires. With ``name``, that connection must
            be a practice connection, and is established if it does not exist.
        given: ``key_file``, ``certificate_file``, ``chain_file``, ``ca_file``, ``passphrase`` (a reference) and
            ``connector_url``. If the connection ``name`` does not exist, it is imported from these. Empty texts count
            as not given. If the connection exists, they are ignored.

    Raises:
        UnknownConnection: the connection does not exist, and there is no ``key_file`` to import it from.
        UsageError: the user did not ask for practice in a headless run, or asked for it with a real connection.
    """
    folder = Home(home)
    if not name:
        must_be_asked_for(asked=asked)
    if asked or not name:
        return _established(folder, name or _own(folder, practice))
    if given.get("key_file") and Connection(folder, name).current is None:
        _import(folder, name, given)
    connection = folder.connection(name)
    if connection.is_sandbox:
        sandbox_of(folder)
    return connection


def must_be_asked_for(name: str = "", *, asked: bool) -> None:
    """Check that the user wants to practise.

    Args:
        name: of a connection that does not exist and cannot be established with the parameters; empty for none.
        asked: whether a parameter asks for practice. ``UCL_PRACTICE=1`` in the environment asks for it too. It is for
            programs that run notebooks without parameters, such as Sphinx.

    Raises:
        UsageError: this is a headless run, and the user did not ask for practice.
    """
    if not asked and os.environ.get("UCL_PRACTICE") != "1" and not is_attended():
        if name:
            raise UsageError(
                f"There is no connection {name} yet, and nothing to establish it with.",
                remedy="Give a one-time token: -p token env:NAME (and -p connector_url URL, where the token does not "
                "name it); or access to the Director: -p director_url URL -p tenant ID -p application_id ID "
                "-p bearer env:NAME. To practise: -p practice True (ucl run: --practice).",
            )
        raise UsageError(
            "This run names no connection, and a headless run practises in the sandbox only if you ask for it.",
            remedy="Name your connection: -p connection NAME. To practise: -p practice True (ucl run: --practice).",
        )


def open_connections(
    pattern: str = "", home: str | Path | None = None, *, practice: Mapping[str, str], asked: bool = False
) -> list[Connection]:
    """Open the connections that match a pattern, or practice connections that work if there is no pattern.

    Args:
        pattern: a name that may contain ``*`` and ``?``; empty for practice.
        home: the home folder; None or empty for ``UCL_HOME`` or the user's data folder.
        practice: names of practice connections, each with the ``renew_before`` for its settings.
        asked: whether the user asked for practice, which a headless run requires.

    Raises:
        UnknownConnection: no connection matches.
        UsageError: the user did not ask for practice in a headless run, or asked for it with a pattern.
    """
    folder = Home(home)
    if pattern and asked:
        raise UsageError("Practice has connections of its own.", remedy="Leave out connections, or practice.")
    if pattern:
        connections = [connection for connection in folder.connections() if fnmatchcase(connection.name, pattern)]
        if not connections:
            raise UnknownConnection(
                f"No connection in {folder.path} is named like {pattern!r}.", remedy="List them with: ucl status"
            )
        return connections
    must_be_asked_for(asked=asked)
    made = {_established(folder, _own(folder, name)): before for name, before in practice.items()}
    for connection, before in made.items():
        if connection.read_settings().renew_before is None:
            path = connection.path / "settings.toml"
            write(path, (dump_settings({"renew_before": before}) + text_of(path.read_bytes())).encode())
    return list(made)


def choose_enrolment(
    name: str = "", home: str | Path | None = None, *, practice: str, asked: bool = False, **given: str
) -> Enrolment:
    """Return how to establish a connection: with the given token or Director, or else at the sandbox.

    Args:
        name: of the connection; empty for a new practice connection.
        home: the home folder; None or empty for ``UCL_HOME`` or the user's data folder.
        practice: name of that practice connection.
        asked: whether the user asked for practice, which a headless run requires.
        given: see :func:`ucl_helpers.procedures.establishment.access_from`; and ``ca_file``.

    Raises:
        UsageError: the parameters are incomplete, or given without ``name``. Or the user did not ask for practice in a
            headless run, or asked for it with access to a real UCL or with a real connection.
    """
    folder = Home(home)
    ca_file = usable_ca(Path(given["ca_file"])) if given.get("ca_file") else None  # before a token is used up
    access = access_from(given, ca_file, Connection(folder, name) if name else None)
    there = Connection(folder, name) if name or access else None
    if access and asked:
        raise UsageError("Practice needs no access to UCL.", remedy="Leave out practice, or the access to a real UCL.")
    if there and access:
        if there.is_sandbox:
            raise UsageError(f"{name} is a connection for practice.", remedy="Choose another name.")
        return Enrolment(folder.new(name), access, ca_file)
    if there and there.path.is_dir() and not there.is_sandbox and not asked:
        return Enrolment(there, None, ca_file)
    if not (there and there.is_sandbox):
        must_be_asked_for(name, asked=asked)
    connection = _practice(folder, name) if name else _replaced(_practice(folder, _own(folder, practice)))
    return Enrolment(connection, director_of(folder), sandbox_of(folder).ca_file)


def practise(home: Home, name: str, key_length: int | None = None) -> Outcome:
    """Establish a practice connection at the sandbox of its home folder.

    Raises:
        UsageError: a real connection has this name, or the sandbox still accepts the connection.
    """
    connection = _practice(home, name)
    return establish(connection, director_of(home), ca_file=sandbox_of(home).ca_file, key_length=key_length)


def refusal_of(connection: Connection) -> str:
    """Call UCL with the identity in use, and return the text of the refusal, or that UCL accepts the identity."""
    current = connection.require_current()
    ca, credentials = current.server_ca, current.credentials
    if current.fingerprint in connection.revoked():  # then an outage is not the likeliest cause
        credentials = replace(credentials, accepted=False)
    with Client(connection.url, "certificate", ca_file=ca, credentials=credentials) as client:
        try:
            client.call(CONFIGURATION)
        except Refused as error:
            return str(error)
    return "UCL accepts it."


def _established(home: Home, name: str) -> Connection:
    """Return a practice connection that the sandbox accepts for at least a minute."""
    connection = _practice(home, name)
    if not is_accepted(connection, utc_now):
        establish(connection, director_of(home), ca_file=sandbox_of(home).ca_file, key_length=2048)
    elif connection.require_current().validity.not_after < utc_now() + _LEAST_VALIDITY:
        renew(connection, key_length=2048)
    return connection


def _practice(home: Home, name: str) -> Connection:
    """Return a practice connection of a home folder. It may not be established yet.

    If the connection is damaged, or its sandbox was removed, a new one replaces it.

    Raises:
        UsageError: a real connection has this name.
    """
    Connection(home, name)  # checks the name before the sandbox starts
    ucl = sandbox_of(home)
    connection = home.new(name)
    ready = ucl.state / "ready.json"
    if printable(str(ready)) != str(ready):  # a path that is not UTF-8, which settings cannot hold
        ready = Path(os.path.relpath(ready, connection.path))
    mark = {"sandbox": str(ready)}
    begun = connection.current is not None or (connection.path / "pending").exists()
    if not begun:
        connection.write_settings(mark)
    if not connection.is_sandbox:
        remedy = "Choose another name."
        if not begun:  # it has settings already
            first = dump_settings(mark).strip()
            remedy = f"To practise with its settings, let this be the first line of settings.toml: {first}"
        raise UsageError(f"{name} is a real connection, not one for practice.", remedy=remedy)
    with suppress(ServerNotTrusted, StorageFailed):
        is_accepted(connection, utc_now)
        return connection
    return _replaced(connection)


def _replaced(connection: Connection) -> Connection:
    """Remove a practice connection, and return a new one that is not established yet."""
    with connection.lock.held():
        remove_tree(connection.path)
    return _practice(connection.home, connection.name)


def _own(home: Home, name: str) -> str:
    """Return the name, with a number if another process uses it, so that two notebooks can practise at once."""
    folder = sandbox_of(home).state
    for number in count(1):
        own = name if number == 1 else f"{name}-{number}"
        if (home.path, own) in _OWN:
            return own
        with suppress(Busy):
            (lock := files.Lock(folder / f"{own}.user")).keep()
            _HELD.append(lock)
            _OWN.add((home.path, own))
            return own
    raise AssertionError("there is always another number")


def _import(home: Home, name: str, given: dict[str, str]) -> None:
    files = {key: Path(value).expanduser() for key, value in given.items() if key.endswith("_file") and value}
    secret = resolve(given["passphrase"], what="passphrase") if given.get("passphrase") else None
    identity = read_identity(
        files["key_file"], files.get("certificate_file"), files.get("chain_file"), passphrase=secret
    )
    import_identity(home, name, identity, given.get("connector_url", ""), ca_file=files.get("ca_file"))
