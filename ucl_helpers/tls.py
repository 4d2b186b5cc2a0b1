"""TLS as every call has it: verified, TLS 1.2 or newer, by one ``SSLContext`` that nothing else reaches.

The context trusts the system's CAs or the given file; the identity is loaded into it once. ``requests``' own defaults
(certifi, ``REQUESTS_CA_BUNDLE``) do not reach it, also not through a proxy. *Not* checked: revocation of the server's
certificate.
"""

import math
import re
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cryptography import x509

from ucl_helpers.crypto import Passphrase, is_sealed, no_passphrase, open_key
from ucl_helpers.errors import StorageFailed, UsageError


@dataclass(frozen=True)
class Credentials:
    """What is shown to the server in the handshake: PEM files, the chain leaf first, and the leaf itself.

    ``passphrase`` is asked for when the key is encrypted, and kept out of every representation.
    """

    certificate_file: Path
    key_file: Path
    certificate: x509.Certificate
    passphrase: Passphrase = field(default=no_passphrase, repr=False, compare=False)


def check_url(url: object, *, what: str = "The URL") -> str:
    """An https URL with a host, as it was given.

    Raises:
        UsageError: it is anything else.
    """
    try:
        parts = urlsplit(str(url))
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        usable = usable and "token=" not in unquote(str(url)).lower()
    except ValueError:
        usable = False
    if not usable or not isinstance(url, str) or not url.isprintable() or " " in url:
        shown = re.sub(r"(?is).*@|[?#&;].*|token=.*", "…", unquote(str(url)))  # where a password or a token may stand
        raise UsageError(f"{what} must be an https URL without a token, not {shown!r}.", remedy="Copy it from UCL.")
    return url


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine itself: ``localhost``, 127.0.0.0/8 or ::1."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def proxies_for(url: str) -> dict[str, str]:
    """Proxies by scheme, as ``HTTPS_PROXY`` and ``NO_PROXY`` say; none to this machine, which to a proxy is another."""
    from requests.utils import get_environ_proxies

    return {} if is_loopback(url) else get_environ_proxies(url)


class Context(ssl.SSLContext):
    """Its connections receive nothing after ``until`` (by ``time.monotonic()``), however slowly it drips in."""

    until = math.inf


class _Socket(ssl.SSLSocket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        left = getattr(self.context, "until", math.inf) - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out while the answer dripped in")
        if left < math.inf:
            self.settimeout(min(left, self.gettimeout() or left))
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().sendall(*args, **kwargs)
        except ssl.SSLEOFError:
            self.recv(1)  # whoever refuses us has hung up before we were done; the alert that says why is still there
            raise

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        try:
            return super().recv(*args, **kwargs)
        except ConnectionError:  # reset before the handshake: CPython would leave it open
            self.close()
            raise


def tls_context(ca_file: Path | None, credentials: Credentials | None) -> Context:
    """TLS 1.2 or newer, verifying host and chain by ``ca_file`` or else the system's CAs.

    Raises:
        StorageFailed: a file is missing or cannot be read as what it should be.
        KeyLocked: the key is encrypted, and the passphrase does not open it.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _Socket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise StorageFailed(f"The CA file {ca_file} cannot be used: {error}.", remedy="It must be PEM.") from None
    if credentials is not None:
        try:
            # Without a password callback OpenSSL would ask on the terminal.
            context.load_cert_chain(
                credentials.certificate_file, credentials.key_file, password=lambda: credentials.passphrase() or b""
            )
        except (OSError, ssl.SSLError) as error:
            _must_open(credentials)
            raise StorageFailed(
                f"Key and certificate in {credentials.key_file.parent} cannot be used: {error}.",
                remedy="Find out what mends it with: ucl doctor",
            ) from None
    return context


def _must_open(credentials: Credentials) -> None:
    """OpenSSL does not say whether it was the passphrase."""
    with suppress(OSError):
        if is_sealed(pem := credentials.key_file.read_bytes()):
            open_key(pem, credentials.passphrase, where=str(credentials.key_file))
