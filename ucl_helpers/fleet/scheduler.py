"""Where a Dask scheduler is, and whether the way there is safe. Without Dask, which takes seconds to import.

Whoever may connect to a scheduler may run programs on its workers. So the way there is mutual TLS, or else it does not
leave this machine.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ucl_helpers.errors import UsageError


@dataclass(frozen=True)
class Scheduler:
    """The address of a scheduler, and PEM files for mutual TLS with it.

    Attributes:
        address: ``tls://HOST:PORT``, or ``tcp://`` to this machine.
        ca_file: what verifies it.
        certificate: ours.
        key: of our certificate.
    """

    address: str
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def encrypted(self) -> bool:
        """Whether the way there is TLS."""
        return self.address.startswith("tls://")

    def must_be_safe(self) -> None:
        """The way there is mutual TLS, or does not leave this machine.

        Raises:
            UsageError: it is not, or the address is none, or a file is missing.
        """
        try:
            parts = urlsplit(self.address)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or not port or parts.scheme not in {"tcp", "tls"}:
            raise UsageError(f"{self.address!r} is no address of a scheduler.", remedy="Write it: tls://HOST:PORT")
        files = (self.ca_file, self.certificate, self.key)
        if not self.encrypted and (any(files) or not _is_here(host)):
            why = "the files for TLS would not be used" if any(files) else f"{host} is another machine"
            raise UsageError(
                f"tcp:// is not encrypted, and {why}.",
                remedy="Use tls:// with --tls-ca-file, --tls-cert and --tls-key.",
            )
        for one in files if self.encrypted else ():
            if one is None:
                raise UsageError(
                    "tls:// needs a CA, a certificate and a key.", remedy="Give --tls-ca-file, --tls-cert, --tls-key."
                )
            if not one.is_file():
                raise UsageError(f"There is no file {one}.", remedy="Name the PEM file.")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
