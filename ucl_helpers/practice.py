"""The one bridge between the toolkit and its sandbox: practice connections for notebooks and the command line.

The client side knows nothing of the sandbox; this module knows both, and only notebooks and ``cli`` use it. It takes
the ordinary way in: access to a Director, then :func:`ucl_helpers.establish.establish`.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from ucl_helpers.errors import UsageError
from ucl_helpers.establish import DirectorAccess, establish, is_accepted
from ucl_helpers.procedure import utc_now
from ucl_helpers.sandbox import SharedSandbox, join
from ucl_helpers.store import Connection, Home

_JOINED: dict[Path, SharedSandbox] = {}


def sandbox_of(home: Home) -> SharedSandbox:
    """The sandbox of a home folder, started if none runs, held until this process ends."""
    if home.path not in _JOINED:
        _JOINED[home.path] = join(home.path)
    return _JOINED[home.path]


def director_of(home: Home) -> DirectorAccess:
    """Access to the sandbox's Director."""
    ucl = sandbox_of(home)
    return DirectorAccess(ucl.director_url, ucl.tenant, ucl.application_id, ucl.director_token, ucl.ca_file)


def open_connection(name: str = "", home: str | Path | Home | None = None, *, practice: str = "practice") -> Connection:
    """A connection by name or, without one, a practice connection that works.

    Args:
        name: of an existing connection; empty for practice.
        home: where connections lie; None for ``UCL_HOME`` or the user's data folder.
        practice: name of the practice connection, made at the sandbox, or made anew when it no longer works.

    Raises:
        UnknownConnection: there is none of this name.
    """
    home = home if isinstance(home, Home) else Home(home)
    if name:
        connection = home.connection(name)
        if connection.is_sandbox:
            sandbox_of(home)
        return connection
    return _practice(home, practice)


def new_practice(home: Home, name: str) -> Connection:
    """A connection, still to be established, that follows the sandbox of ``home``."""
    ucl = sandbox_of(home)
    connection = home.new(name)
    connection.write_settings({"sandbox": str(ucl.state / "ready.json")})
    if not connection.is_sandbox:
        raise UsageError(f"{name} is a real connection, not one for practice.", remedy="Choose another name.")
    return connection


def _practice(home: Home, name: str) -> Connection:
    connection = new_practice(home, name)
    current = connection.current
    nearly_over = current is not None and current.validity.not_after < datetime.now(UTC) + timedelta(minutes=1)
    if current is None or nearly_over or not is_accepted(connection, utc_now):
        establish(connection, director_of(home), ca_file=sandbox_of(home).ca_file, key_length=2048)
    return connection
