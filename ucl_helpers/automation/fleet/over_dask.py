"""Workers on other machines: a Dask cluster that runs already.

Whoever may connect to a scheduler may run programs on its workers. So the way there is mutual TLS, or else it does not
leave this machine. *Not* checked: that the workers see the same home folder, and that locks hold on it
(``ucl doctor`` tests the latter).
"""

import ipaddress
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from distributed import Client, KilledWorker
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError
from distributed.security import Security

from ucl_helpers.automation.fleet.executors import Workers
from ucl_helpers.errors import Unreachable, UsageError

PATIENCE = 60.0
"""Seconds for which a scheduler that is gone, or has no workers, is waited for."""

_LOOK_AGAIN = 2.0
_LOST = (BrokenExecutor, CancelledError, KilledWorker, ClosedClientError, CommClosedError)


@dataclass(frozen=True)
class Keys:
    """PEM files for mutual TLS with the scheduler: what verifies it, our certificate, our key. All three, or none."""

    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def security(self, scheduler: str) -> Security:
        """How to connect to ``scheduler``.

        Raises:
            UsageError: the address is none, or the way there is not safe.
        """
        given = [one for one in (self.ca_file, self.certificate, self.key) if one]
        try:
            parts = urlsplit(scheduler)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or not port or parts.scheme not in {"tcp", "tls"}:
            raise UsageError(f"{scheduler!r} is not the address of a scheduler.", remedy="Write it: tls://HOST:PORT")
        if parts.scheme == "tls":
            if len(given) != len(("ca", "certificate", "key")):
                raise UsageError(
                    "tls:// needs a CA, a certificate and a key.", remedy="Give --tls-ca-file, --tls-cert, --tls-key."
                )
            for one in given:
                if not one.is_file():
                    raise UsageError(f"{one} is not there.", remedy="Name the PEM file.")
            return Security(
                tls_ca_file=str(self.ca_file),
                tls_client_cert=str(self.certificate),
                tls_client_key=str(self.key),
                require_encryption=True,
            )
        if given or not _is_here(host):
            why = "the files for TLS would not be used" if given else f"{host} is another machine"
            raise UsageError(
                f"tcp:// is not encrypted, and {why}.",
                remedy="Use tls:// with --tls-ca-file, --tls-cert and --tls-key.",
            )
        return Security(require_encryption=False)


@contextmanager
def dask(scheduler: str, keys: Keys, *, patience: float = PATIENCE) -> Iterator[Workers]:
    """The workers of a scheduler.

    Args:
        scheduler: ``tls://HOST:PORT``, or ``tcp://`` to this machine.
        keys: for mutual TLS.
        patience: seconds for which it is waited for, now and when it is lost.

    Raises:
        UsageError: the address is none, or the way there is not safe.
        Unreachable: nobody answers there, or not to us.
    """
    security = keys.security(scheduler)
    try:
        client = Client(scheduler, security=security, timeout=patience, set_as_default=False)
    except OSError as error:
        raise Unreachable(
            f"The scheduler {scheduler} does not answer ({type(error).__name__}).",
            remedy="Is it running, at this address, with certificates of the same CA?",
        ) from None
    try:
        yield Workers(client.get_executor(pure=False), _Capacity(client), _LOST)
    finally:
        client.close()


class _Capacity:
    """How many renewals a cluster takes now: one for each thread, and one more for each worker to go on with."""

    def __init__(self, client: Client) -> None:
        self._client, self._known, self._until = client, 0, 0.0

    def __call__(self) -> int:
        if self._client.status != "running":
            return 0
        if (now := time.monotonic()) >= self._until:
            try:
                threads = self._client.nthreads()
            except (OSError, ClosedClientError):
                return 0
            self._known, self._until = sum(threads.values()) + len(threads), now + _LOOK_AGAIN
        return self._known


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
