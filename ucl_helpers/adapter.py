"""How ``requests`` is given a TLS context of ours. Whoever only looks at what is on disk never imports it."""

from typing import Any

from requests.adapters import HTTPAdapter

from ucl_helpers.tls import Context


class Adapter(HTTPAdapter):
    """Owns the SSL context; whatever ``requests`` would load into it stays out."""

    def __init__(self, context: Context) -> None:
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """The pool for direct connections."""
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """The pool for connections through a proxy."""
        return super().proxy_manager_for(*args, **kwargs, ssl_context=self._context)

    def close(self) -> None:
        """Close the connections now, not when nothing refers to them any more, as an error that is kept does."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                manager.pools[key].close()
        super().close()

    def cert_verify(self, conn: Any, *_: Any, **__: Any) -> None:
        """Ask for verification and load nothing."""
        conn.cert_reqs = "CERT_REQUIRED"
