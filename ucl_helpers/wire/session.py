"""Provide a ``requests.Session`` that shows the identity in use, also after a renewal.

The rules of this file:

- Before each request, the session reads the link ``current`` once. If it names another generation, the session loads
  that one into a new TLS context. A TLS connection never changes its identity. Requests under way finish with the
  identity that they began with. The session closes their pool when the last of them has been sent. An answer that is
  still being read closes its connection when it has been read.
- If the new generation cannot be loaded, the session uses the previous one for as long as that is valid. It logs the
  error, but not the same error twice in a row, and tries the new generation again with each request.
- The server is verified as :mod:`ucl_helpers.wire.tls` describes. ``verify``, netrc and the environment do not change
  this. Proxies in the environment are used.
- A redirect is not followed, because its target would see the certificate.

*Not* done: the session retries nothing. Without ``timeout``, a request waits for ever, as in any ``requests.Session``.
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
_TRIES = 5  # a generation can be removed while it is read, and so can the one that replaced it


@dataclass(eq=False)
class _Loaded:
    """A generation in memory, and the number of requests that are being sent with it."""

    generation: "Generation"
    adapter: Adapter
    users: int = 0


class _Following(BaseAdapter):
    """An adapter that sends each request with the current generation. Several threads may use it."""

    def __init__(self, current: Callable[[], "Generation"], ca_file: Path | None) -> None:
        super().__init__()
        self._current, self._ca_file = current, ca_file
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._told = ""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request with the current generation. Returns when the head of the answer has arrived."""
        with self._in_use() as adapter:
            return adapter.send(request, *args, **kwargs)

    def close(self) -> None:
        """Close the connections that are idle, and each other one as soon as it is idle."""
        with self._lock:
            loaded, self._loaded = self._loaded, None
            self._close_if_left(loaded)

    def generation(self) -> "Generation":
        """Return the generation that the next request would show."""
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
        """Load the current generation, or keep the previous one while that is valid. The caller holds the lock."""
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
        """Return the TLS context of a generation, or of the generation that has replaced it meanwhile."""
        try:
            return tls_context(self._ca_file or generation.server_ca, generation.credentials), generation
        except StorageFailed:
            if tries <= 1 or (instead := self._current()) == generation:
                raise
        return self._context(instead, tries - 1)

    def _close_if_left(self, loaded: _Loaded | None) -> None:
        """Close a pool if no request is being sent through it and none will be."""
        if loaded is not None and loaded is not self._loaded and not loaded.users:
            loaded.adapter.close()


class Session(requests.Session):
    """A session for https only. Several threads may use it. :meth:`ucl_helpers.Connection.session` returns one.

    Network errors are those of ``requests``. Redirects are not followed. If you trust ``response.next``, send it.

    Args:
        current: returns the generation in use.
        ca_file: PEM file with the CAs that verify the servers. None for the CAs that verify UCL's servers, or else the
            system's CAs.

    Raises:
        UnknownConnection: the connection is not established. A request raises it too, if the connection was forgotten.
        StorageFailed, KeyLocked, InvalidSettings: the generation, its key or the CA file cannot be used. A request
            raises this only if the previous generation is not valid either.
    """

    def __init__(self, current: Callable[[], "Generation"], ca_file: str | Path | None = None) -> None:
        super().__init__()
        self.trust_env = False  # no netrc, no REQUESTS_CA_BUNDLE; proxies are asked for in send()
        self._following = _Following(current, Path(ca_file).expanduser() if ca_file else None)
        self._following.generation()  # raises now if the identity cannot be used
        self.adapters.clear()
        self.mount("https://", self._following)

    @property
    def generation(self) -> "Generation":
        """The generation that a request would show now. Raises the errors of a request."""
        return self._following.generation()

    def get_adapter(self, url: str) -> BaseAdapter:
        """Return the adapter that sends a request to this URL.

        Raises:
            UsageError: the URL is not https.
        """
        try:
            return super().get_adapter(url)
        except InvalidSchema:
            raise UsageError("This session speaks https and nothing else.", remedy="Use an https URL.") from None

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request, through a proxy if one is set. Redirects are not followed.

        Raises:
            UsageError: ``verify`` or ``cert`` was set.
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
