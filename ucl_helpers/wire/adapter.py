"""Make ``requests`` use our TLS context and limits. Commands that only read the disk never import this module."""

import re
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from ucl_helpers.wire.sockets import CallLimits, Context, NoTunnel, open_socket

_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (\d{3})\b")  # as http.client says it


def _no_tunnel(error: Exception) -> NoTunnel:
    status = _TUNNEL_STATUS.search(str(error))
    odd = isinstance(error, HTTPException) and not isinstance(error, ConnectionError)
    # A line that begins as HTTP does was cut off; any other is of another protocol.
    begins = "HTTP/".startswith(str(getattr(error, "line", "")).lstrip("'\"")[:5])
    return NoTunnel(int(status[1]) if status else None, type(error).__name__ if odd else None, speaks_http=begins)


class PlainConnection(HTTPConnection):
    """A TCP connection within ``bounds``. It sends CONNECT if a tunnel is set."""

    bounds: CallLimits

    def _new_conn(self) -> Any:
        return open_socket(self._dns_host, self.port, self.timeout, self.bounds)

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
        except (OSError, HTTPException) as error:
            raise _no_tunnel(error) from error


class _Connection(HTTPSConnection):
    """A TLS connection within the bounds of its context. A failure before a proxy opens the tunnel raises NoTunnel."""

    ssl_context: Context
    _is_tunnel_open = False

    def _new_conn(self) -> Any:
        return open_socket(self._dns_host, self.port, self.timeout, self.ssl_context.bounds)

    def _tunnel(self) -> None:
        super()._tunnel()
        self._is_tunnel_open = True

    def connect(self) -> None:
        self._is_tunnel_open = False
        try:
            super().connect()
        except (OSError, HTTPException, HTTPError) as error:
            if self.proxy is None or self._is_tunnel_open:
                raise
            raise _no_tunnel(error) from error


class _Pool(HTTPSConnectionPool):
    ConnectionCls: Any = _Connection


class Adapter(HTTPAdapter):
    """An adapter that owns the SSL context. It keeps ``requests`` from loading CAs or certificates into the context.

    Args:
        context: for the server.
        proxy_context: makes the context for a proxy that is reached over TLS. That context must show no identity.
    """

    def __init__(self, context: Context, proxy_context: Callable[[], Context]) -> None:
        self._context, self._proxy_context = context, proxy_context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools for direct connections."""
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return the manager of the pools for connections through a proxy."""
        if proxy not in self.proxy_manager and proxy.lower().startswith("https:"):
            kwargs["proxy_ssl_context"] = self._proxy_context()
            kwargs["proxy_ssl_context"].bounds = self._context.bounds
        manager = super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)
        if not proxy.lower().startswith("socks"):  # which only a session is given, and which has pools of its own
            manager.pool_classes_by_scheme = {"https": _Pool}
        return manager

    def close(self) -> None:
        """Close the connections now. An error that the caller keeps may still refer to them."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                manager.pools[key].close()
        super().close()

    def cert_verify(self, conn: Any, *_: Any, **__: Any) -> None:
        """Require verification, and load nothing into the context."""
        conn.cert_reqs = "CERT_REQUIRED"
