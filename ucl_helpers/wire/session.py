"""A ``requests.Session`` that shows the identity in use, and moves to the next one by itself.

Its law:

- Before each request the link ``current`` is read once. If it names another generation, that one is loaded into a TLS
  context of its own; a connection never changes its identity. Requests under way finish as they began; the pool they
  came from is closed when the last of them has been sent, and what is still being read closes when it is read.
- A generation that cannot be loaded stops nobody while the one before is valid: the session goes on with that, says so
  in its log, and looks again with each request.
- Trust is that of :mod:`ucl_helpers.wire.tls`, whatever ``verify``, netrc or the environment say; proxies are followed.
- A redirect is not followed, since whoever answers there would be shown the certificate.

*Not* done: nothing is retried, and without ``timeout`` a request waits for ever, as with any ``requests.Session``.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import requests
from requests.adapters import BaseAdapter
from requests.exceptions import InvalidSchema
from requests.utils import resolve_proxies

from ucl_helpers.clock import utc_now
from ucl_helpers.errors import InvalidSettings, KeyLocked, StorageFailed, UsageError
from ucl_helpers.urls import is_loopback
from ucl_helpers.wire.adapter import Adapter
from ucl_helpers.wire.sockets import Context
from ucl_helpers.wire.tls import system_context, tls_context

if TYPE_CHECKING:
    from ucl_helpers.connection.generation import Generation

_LOG = logging.getLogger(__name__)
_TRIES = 5  # of generations that go, one after the other, while they are read


@dataclass(eq=False)
class _Loaded:
    """A generation in memory, and how many requests are being sent with it."""

    generation: "Generation"
    adapter: Adapter
    users: int = 0


class _Following(BaseAdapter):
    """Sends each request with the generation that is current then; safe to use from several threads."""

    def __init__(self, current: Callable[[], "Generation"], ca_file: Path | None) -> None:
        super().__init__()
        self._current, self._ca_file = current, ca_file
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._told = ""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """As ``requests`` calls it; returns when the head of the answer is there."""
        with self._in_use() as adapter:
            return adapter.send(request, *args, **kwargs)

    def close(self) -> None:
        """Close what is idle now, and the rest when it is."""
        with self._lock:
            loaded, self._loaded = self._loaded, None
            self._close_if_left(loaded)

    def generation(self) -> "Generation":
        """What the next request would show."""
        with self._lock:
            return self._load().generation

    @contextmanager
    def _in_use(self) -> Iterator[Adapter]:
        with self._lock:
            loaded = self._load()
            loaded.users += 1
        try:
            yield loaded.adapter
        finally:
            with self._lock:
                loaded.users -= 1
                self._close_if_left(loaded)

    def _load(self) -> _Loaded:
        """What ``current`` names, loaded; else what was before, while it is valid. The caller holds the lock."""
        before = self._loaded
        try:
            generation = self._current()
            if before is not None and before.generation == generation:
                return before
            context, generation = self._context(generation, _TRIES)
        except (StorageFailed, KeyLocked, InvalidSettings) as error:
            if before is None or before.generation.validity.not_after <= utc_now():
                raise
            if self._told != str(error):
                self._told = str(error)
                _LOG.warning("The session goes on with generation %s. %s", before.generation.name, error)
            return before
        self._loaded = _Loaded(generation, Adapter(context, system_context))
        self._close_if_left(before)
        return self._loaded

    def _context(self, generation: "Generation", tries: int) -> tuple[Context, "Generation"]:
        """Of a generation, or of the one that has taken its place meanwhile."""
        try:
            return tls_context(self._ca_file or generation.server_ca, generation.credentials), generation
        except StorageFailed:
            if tries <= 1 or (instead := self._current()) == generation:
                raise
        return self._context(instead, tries - 1)

    def _close_if_left(self, loaded: _Loaded | None) -> None:
        """Close a pool that no request is being sent by, and none will be."""
        if loaded is not None and loaded is not self._loaded and not loaded.users:
            loaded.adapter.close()


class Session(requests.Session):
    """For https alone, from as many threads as you like; made by :meth:`ucl_helpers.Connection.session`.

    Errors on the wire are those of ``requests``. Redirects are not followed: whoever trusts ``response.next`` sends it.

    Args:
        current: gives the generation in use.
        ca_file: PEM of what verifies the servers; None for what verifies UCL's, or else the system's CAs.

    Raises:
        UnknownConnection: the connection is not established (also when a request finds it forgotten).
        StorageFailed, KeyLocked, InvalidSettings: the generation, its key or the CA file cannot be used (by a request:
            nor is the one before valid).
    """

    def __init__(self, current: Callable[[], "Generation"], ca_file: str | Path | None = None) -> None:
        super().__init__()
        self.trust_env = False  # no netrc, no REQUESTS_CA_BUNDLE; proxies are asked for in send()
        self._following = _Following(current, Path(ca_file).expanduser() if ca_file else None)
        self._following.generation()  # what is wrong now is said now
        self.adapters.clear()
        self.mount("https://", self._following)

    @property
    def generation(self) -> "Generation":
        """The generation that a request sent now would show; raises what a request would."""
        return self._following.generation()

    def get_adapter(self, url: str) -> BaseAdapter:
        """What sends a request to this URL.

        Raises:
            UsageError: it is not https.
        """
        try:
            return super().get_adapter(url)
        except InvalidSchema:
            raise UsageError("This session speaks https and nothing else.", remedy="Use an https URL.") from None

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request; no redirect is followed, proxies are.

        Raises:
            UsageError: it brings ``verify`` or ``cert``.
        """
        if kwargs.get("verify", self.verify) is not True or kwargs.get("cert", self.cert) is not None:
            raise UsageError(
                "This session verifies the server and shows its connection's identity: no verify, no cert.",
                remedy="For another CA: connection.session(ca_file=…)",
            )
        given, environment = kwargs.get("proxies") or self.proxies, not is_loopback(request.url or "")
        proxies = resolve_proxies(request, dict(given), trust_env=environment)
        return super().send(request, **{**kwargs, "proxies": proxies, "allow_redirects": False})

    def __getstate__(self) -> NoReturn:
        raise TypeError("A session goes to no other process: call connection.session() there.")
