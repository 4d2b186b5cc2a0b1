"""A sandbox in a thread of this process, and the data that clients need to reach it."""

import asyncio
import contextlib
import errno
import json
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ucl_private_files import UnsafePath, make_directory, read_regular, require_protected_folder, write_file
from ucl_sandbox.ca import CaLayout, ClientCa
from ucl_sandbox.control import Limit
from ucl_sandbox.faults.plans import Faults
from ucl_sandbox.landscape import Landscape, Urls
from ucl_sandbox.listeners import CONNECTOR_PATH, DIRECTOR_PATH, LEGACY_PATH, Listeners, Received
from ucl_sandbox.state import SandboxError, State, StateLock, refusing_unsafe_paths


@dataclass(frozen=True, repr=False)
class Access:
    """The data to reach a running sandbox. Its `repr` shows no secret.

    Attributes:
        pid: The id of the sandbox's process.
        director_url: The Director's URL for a user with the bearer token.
        director_token: That bearer token.
        tenant: The value of the `Tenant` header.
        application_id: A registered application.
        connector_url: The token endpoint.
        certificate_secured_connector_url: The certificate endpoint.
        ca_file: The CA certificate that verifies the servers.
        state: The sandbox's state folder.
    """

    pid: int
    director_url: str
    director_token: str
    tenant: str
    application_id: str
    connector_url: str
    certificate_secured_connector_url: str
    ca_file: Path
    state: Path

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.connector_url}, process {self.pid}, state {self.state}>"

    def to_json(self) -> str:
        """Return the content of a ready file."""
        return json.dumps(
            {key: str(getattr(self, name)) for name, key in _READY_KEYS.items()} | {"pid": self.pid}, indent=2
        )


_READY_KEYS = {
    "pid": "pid",
    "director_url": "directorUrl",
    "director_token": "directorToken",
    "tenant": "tenant",
    "application_id": "applicationId",
    "connector_url": "connectorUrl",
    "certificate_secured_connector_url": "certificateSecuredConnectorUrl",
    "ca_file": "caFile",
}


def fields_of(ready_file: str, state: Path) -> dict[str, Any]:
    """Return the fields of an `Access` from the content of a ready file.

    Raises:
        ValueError, KeyError: The content is not that of a ready file.
    """
    content = json.loads(ready_file)
    values = {name: content[key] for name, key in _READY_KEYS.items()}
    return {**values, "pid": int(values["pid"]), "ca_file": Path(values["ca_file"]), "state": state}


_LOWEST_AT_ALL, _LOWEST, _HIGHEST = 1024, 20000, 65535
_LINUX_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_IANA_RANGE = (49152, 65535)  # RFC 6335 section 6
_ATTEMPTS = 200
_NO_SUCH_FAMILY = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}


def listen(wanted: int | None) -> list[socket.socket]:
    """Open listening sockets on one port of loopback, for IPv4 and, if the system has it, IPv6.

    Args:
        wanted: The port of the previous run, which is tried first.

    Raises:
        OSError: No port is free.
    """
    for attempt in range(_ATTEMPTS):
        port = wanted if wanted and attempt == 0 else secrets.choice(_candidates())
        try:
            return _listen(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no free port on loopback after {_ATTEMPTS} attempts")


def _candidates() -> range:
    """Return the wider range of ports beside the ephemeral range, or lower ports if that range is too small."""
    try:
        low, high = (int(text) for text in _LINUX_RANGE.read_text("ascii").split())
    except (OSError, ValueError):
        low, high = _IANA_RANGE
    widest = max(range(_LOWEST, low), range(high + 1, _HIGHEST + 1), key=len)
    return widest if len(widest) >= _ATTEMPTS else range(_LOWEST_AT_ALL, min(low, _LOWEST))


def _listen(port: int) -> list[socket.socket]:
    """Open one port on both addresses, so that clients cannot reach another program instead of the sandbox."""
    sockets = [socket.create_server(("127.0.0.1", port), backlog=128)]
    try:
        sockets.append(socket.create_server(("::1", port), family=socket.AF_INET6, backlog=128))
    except OSError as error:
        if error.errno not in _NO_SUCH_FAMILY:
            sockets[0].close()
            raise
    for listening in sockets:
        listening.setblocking(False)
    return sockets


DEFAULT_VALIDITY = timedelta(days=90)
DEFAULT_TOKEN_LIFETIME = timedelta(minutes=5)
READY_FILE = "ready.json"
_ENDPOINTS = ("director", "token", "certificate")


@dataclass(frozen=True, repr=False)
class RunningSandbox(Access):
    """A sandbox that runs in this process.

    Attributes:
        faults: The plan of faults. It may change at any time.
        limit: The limit of calls to the Connector, with its counts.
    """

    faults: Faults = field(kw_only=True)
    limit: Limit = field(kw_only=True)
    _memory: State = field(kw_only=True)
    _listeners: Listeners = field(kw_only=True)

    @property
    def requests(self) -> Sequence[Received]:
        """The last requests that have been answered, oldest first."""
        return list(self._listeners.received)

    def one_time_token(self) -> str:
        """Create a one-time token for a new client of the registered application, without a call to the Director."""
        return str(self._memory.new_system_auth(self.application_id)["token"])


class Sandbox:
    """A small UCL on loopback, for practice and for tests: `with Sandbox() as ucl:`.

    It uses real TLS and issues real certificates from its own CAs, so a client works with it as with the real UCL.

    Args:
        state: The state folder. None for a temporary folder that is removed at the end.
        validity: The lifetime of the certificates that it signs.
        ca_layout: "intermediate" or "root". It cannot change after the state folder is created.
        token_lifetime: The lifetime of one-time tokens.
        clock: Returns the current time (aware). None for the system's clock, which TLS always uses.
        faults: The faults to inject. None by default.
        rate_limit: Calls per second to the Connector, of all clients together. None for no limit.

    Raises:
        SandboxError: When the `with` block begins, another process owns the state folder, the folder was created with
            the other CA layout, or another user could change it.
    """

    def __init__(
        self,
        state: Path | None = None,
        *,
        validity: timedelta = DEFAULT_VALIDITY,
        ca_layout: CaLayout = "intermediate",
        token_lifetime: timedelta = DEFAULT_TOKEN_LIFETIME,
        clock: Callable[[], datetime] | None = None,
        faults: Faults | None = None,
        rate_limit: float | None = None,
    ) -> None:
        self._folder, self._validity, self._ca_layout = state, validity, ca_layout
        self._token_lifetime = token_lifetime
        self._clock = clock or (lambda: datetime.now(UTC))
        self._faults = faults if faults is not None else Faults()
        self._limit = Limit(rate_limit)
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> RunningSandbox:
        with refusing_unsafe_paths(), contextlib.ExitStack() as stack:
            running = self._start(stack)
            self._cleanup = stack.pop_all()
        return running

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _start(self, stack: contextlib.ExitStack) -> RunningSandbox:
        folder = self._folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ucl-sandbox-")))
        folder = folder.absolute()
        lock = StateLock(folder)
        stack.callback(lock.release)
        (folder / READY_FILE).unlink(missing_ok=True)
        memory = stack.enter_context(State(folder, self._clock, self._token_lifetime))
        self._check_layout(memory)
        ca = ClientCa(folder, self._ca_layout)
        sockets = _open_sockets(stack, memory)
        ports = [opened[0].getsockname()[1] for opened in sockets]
        urls = _urls(*ports)
        landscape = Landscape(memory, ca, self._clock, self._validity, urls, self._faults, self._limit)
        listeners = Listeners(landscape, folder)
        stack.enter_context(_serving(listeners, sockets))
        running = RunningSandbox(
            pid=os.getpid(),
            director_url=urls.director,
            director_token=memory.bearer,
            tenant=memory.tenant,
            application_id=_default_application(memory),
            connector_url=urls.connector,
            certificate_secured_connector_url=urls.certificate_connector,
            ca_file=listeners.ca_file,
            state=folder,
            faults=self._faults,
            limit=self._limit,
            _memory=memory,
            _listeners=listeners,
        )
        stack.enter_context(ready_file(folder / READY_FILE, running))
        return running

    def _check_layout(self, memory: State) -> None:
        kept = memory.remember("ca_layout", lambda: self._ca_layout)
        if kept != self._ca_layout:
            raise SandboxError(
                f"this state folder was made with the CA layout {kept!r}, and that stays; "
                f"take another state folder for {self._ca_layout!r}"
            )


@contextlib.contextmanager
def ready_file(path: Path, access: Access) -> Iterator[None]:
    """Write a ready file (0600) atomically, and remove it at the end if its content has not changed.

    Raises:
        UnsafePath: Another user could replace it.
    """
    content = access.to_json().encode()
    require_protected_folder(path.parent)
    make_directory(path.parent)
    write_file(path, content)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, UnsafePath):
            if read_regular(path, follow=False) == content:
                path.unlink()


def _open_sockets(stack: contextlib.ExitStack, memory: State) -> list[list[socket.socket]]:
    """Listen on the ports of the previous run, or on others if those are taken."""
    wanted = json.loads(memory.remember("ports", lambda: json.dumps([None] * len(_ENDPOINTS))))
    opened = []
    for port in wanted:
        opened.append(listen(port))
        for listening in opened[-1]:
            stack.callback(listening.close)
    memory.replace("ports", json.dumps([sockets[0].getsockname()[1] for sockets in opened]))
    return opened


def _urls(director: int, token: int, certificate: int) -> Urls:
    return Urls(
        director=f"https://localhost:{director}{DIRECTOR_PATH}",
        connector=f"https://localhost:{token}{CONNECTOR_PATH}",
        certificate_director=f"https://localhost:{certificate}{DIRECTOR_PATH}",
        certificate_connector=f"https://localhost:{certificate}{CONNECTOR_PATH}",
        legacy_connector=f"https://localhost:{token}{LEGACY_PATH}",
    )


def _default_application(memory: State) -> str:
    """Return the application of the ready file. Register a new one if a client has deleted it."""
    id_ = memory.remember("application", str)
    if memory.application(id_) is None:
        name = f"practice-{secrets.token_hex(4)}"
        labels = json.dumps({"managed": "false", "name": f"mp-{name}"})
        id_ = str(memory.register(name, None, None, labels)["id"])
        memory.replace("application", id_)
    return id_


@contextlib.contextmanager
def _serving(listeners: Listeners, sockets: list[list[socket.socket]]) -> Iterator[None]:
    """Serve in a thread that has its own event loop."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        ending = asyncio.Event()
        listeners.start(*sockets)
        started.set_result((asyncio.get_running_loop(), ending))
        await ending.wait()
        await listeners.stop()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="ucl-sandbox", daemon=True)
    thread.start()
    loop, ending = started.result()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join()
