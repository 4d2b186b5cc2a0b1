"""An ``ssl.SSLContext`` that shows the identity in use, for libraries other than ``requests``.

Before each new TLS connection the context reads the link ``current`` once. If it names another generation, the context
loads that one. A TLS connection never changes its identity, so a connection that the library keeps open shows the
previous certificate until it is closed. The context has no part in that.
"""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ucl_helpers.clock import utc_now
from ucl_helpers.errors import InvalidSettings, KeyLocked, StorageFailed
from ucl_helpers.wire.tls import configure, tls_context

if TYPE_CHECKING:
    from ucl_helpers.connection.generation import Generation

_LOG = logging.getLogger(__name__)


class FollowingContext(ssl.SSLContext):
    """A context that follows renewals; made by :meth:`ucl_helpers.Connection.ssl_context`.

    Args:
        current: returns the generation in use.
        ca_file: PEM of the CA that verifies the servers. None for the CA of UCL's servers, or else the system's CAs.

    Raises:
        UnknownConnection: the connection is not established. A new TLS connection raises it as well.
        StorageFailed, KeyLocked, InvalidSettings: the generation, its key or the CA file cannot be used. A new TLS
            connection raises them only if the previous generation has expired. Until then it shows that one.
    """

    def __new__(cls, *_: object) -> Self:
        """Make a context for a client."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, current: Callable[[], "Generation"], ca_file: str | Path | None = None) -> None:
        self._current, self._ca_file = current, Path(ca_file).expanduser() if ca_file else None
        self._lock = threading.Lock()
        self._generation: Generation | None = None
        self._follow()

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Begin a TLS connection as the identity in use; see :meth:`ssl.SSLContext.wrap_socket`."""
        shakes_hands = kwargs.pop("do_handshake_on_connect", True)
        with self._lock:  # not during the handshake, which may take long
            self._follow()
            kwargs["do_handshake_on_connect"] = False
            connection = super().wrap_socket(sock, *args, **kwargs)
        if shakes_hands and connection.session_reused is not None:  # else it is not connected yet
            try:
                connection.do_handshake()
            except (OSError, ValueError):
                connection.close()
                raise
        return connection

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a TLS connection for ``asyncio``; see :meth:`ssl.SSLContext.wrap_bio`."""
        with self._lock:
            self._follow()
            return super().wrap_bio(*args, **kwargs)

    def _follow(self) -> None:
        """Load the generation in use, if it is another one. The caller holds the lock."""
        before = self._generation
        try:
            generation = self._current()
            if generation == before:
                return
            trust = self._ca_file or generation.server_ca
            tls_context(trust, generation.credentials)  # a failure in the middle would leave this context without a key
            configure(self, trust, generation.credentials)
            self._generation = generation
        except (StorageFailed, KeyLocked, InvalidSettings) as error:
            if before is None or before.validity.not_after <= utc_now():
                raise
            _LOG.warning("The context goes on with generation %s. %s", before.name, str(error))
