"""TLS as every call has it: verified, TLS 1.2 or newer, by one ``SSLContext`` that nothing else reaches.

The context trusts the system's CAs or the given file; the identity is loaded into it once. ``requests``' own defaults
(certifi, ``REQUESTS_CA_BUNDLE``) do not reach it, also not through a proxy. *Not* checked: revocation of the server's
certificate.
"""

import math
import os
import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ucl_helpers.errors import StorageFailed, UsageError
from ucl_helpers.formats.key_files import ca_certificates
from ucl_helpers.keys import Credentials, is_sealed, open_key
from ucl_helpers.wire.diagnosis import AnswerTooLarge
from ucl_private_files import read_regular


class CallLimits:
    """What a call may still take: the moment it ends, and how many bytes it may receive.

    One object per client. The sockets of all layers consult it: TCP, TLS to a proxy, TLS to the server. Without a call
    under way nothing is bounded. *Not* bounded: name resolution, which the system's resolver ends.

    Attributes:
        until: by ``time.monotonic()``, in seconds.
        room: bytes, decrypted where the socket is a TLS one. The bytes that a proxy says in plain text count as well.
    """

    def __init__(self, seconds: float = math.inf, room: float = math.inf) -> None:
        self.until, self.room = time.monotonic() + seconds, room

    def limit(self, connection: socket.socket) -> None:
        """Let the connection's next operation end at ``until``; raises TimeoutError when that has passed."""
        remaining = self.until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("timed out before the answer was complete")
        if remaining < math.inf:
            connection.settimeout(min(remaining, connection.gettimeout() or remaining))

    def count(self, received: int) -> None:
        """Subtract what was received; raises AnswerTooLarge when no room is left."""
        self.room -= received
        if self.room < 0:
            raise AnswerTooLarge("the answer is larger than a call accepts")


class Context(ssl.SSLContext):
    """A context whose connections keep to ``bounds``."""

    bounds: CallLimits


class PlainSocket(socket.socket):
    """A TCP socket that keeps to ``bounds``: what a proxy answers to CONNECT comes in here, before any TLS."""

    bounds: CallLimits

    def connect(self, address: Any, /) -> None:
        """Connect; the timeout ends with ``bounds``."""
        self.bounds.limit(self)
        super().connect(address)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Every way to read what a proxy says ends here."""
        self.bounds.limit(self)
        received = super().recv_into(*args, **kwargs)
        self.bounds.count(received)
        return received

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        """All parts together end in time: CPython applies the timeout to the whole."""
        self.bounds.limit(self)
        super().sendall(*args, **kwargs)


class _TLSSocket(ssl.SSLSocket):
    """As :class:`PlainSocket`. CPython ends each handshake, read and send after the timeout, however it drips."""

    context: Context

    def do_handshake(self, block: bool = False) -> None:
        self.context.bounds.limit(self)
        super().do_handshake(block)

    def read(self, *args: Any, **kwargs: Any) -> Any:  # both recv and recv_into end here
        self.context.bounds.limit(self)
        received: Any = super().read(*args, **kwargs)
        self.context.bounds.count(received if isinstance(received, int) else len(received))
        return received

    def send(self, *args: Any, **kwargs: Any) -> int:  # sendall calls it for each part
        self.context.bounds.limit(self)
        return super().send(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().sendall(*args, **kwargs)
        except (ssl.SSLEOFError, ConnectionError):  # which of them, depends on the version of OpenSSL and on timing
            self.recv(1)  # a server that refuses us hangs up before we are done; its alert, with the reason, is there
            raise

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        try:
            return super().recv(*args, **kwargs)
        except ConnectionError:  # reset before the handshake: CPython would leave it open
            self.close()
            raise


def open_socket(host: str, port: int, timeout: float | None, bounds: CallLimits) -> PlainSocket:
    """Connect to the first of a host's addresses that accepts, within ``bounds``.

    Args:
        host: a name or an address.
        port: TCP.
        timeout: seconds for each address, and then for each operation; None for no limit but ``bounds``.
        bounds: of the call.

    Raises:
        OSError: no address accepts, or there is none (``socket.gaierror``); TimeoutError: none did in time.
    """
    failure: OSError = OSError("the name has no address")
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("invalid host name") from None
    for family, kind, protocol, _, address in addresses:
        try:
            connection = PlainSocket(family, kind, protocol)
        except OSError as error:  # for example an IPv6 address, on a machine without IPv6
            failure = error
            continue
        connection.bounds = bounds
        try:
            connection.settimeout(timeout)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


def tls_context(ca_file: Path | None, credentials: Credentials | None) -> Context:
    """TLS 1.2 or newer, verifying host and chain by ``ca_file`` or else the system's CAs.

    The host must be in the certificate's subjectAltName; a common name does not count (RFC 9525).

    Raises:
        StorageFailed: a file is missing or cannot be read as what it should be.
        KeyLocked: the key is encrypted, and the passphrase does not open it.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class, context.bounds = _TLSSocket, CallLimits()
    context.hostname_checks_common_name = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Many companies' CAs leave out what VERIFY_X509_STRICT asks for, such as an Authority Key Identifier. Such a server
    # is accepted by every Python alike: an upgrade of Python must not end a connection.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        if ca_file is None:
            context.load_default_certs()
        else:
            # OpenSSL would wait for a FIFO, never come to the end of some devices, and read only well-formed PEM.
            trusted = ca_certificates(read_regular(ca_file), where=str(ca_file))
            context.load_verify_locations(cadata=b"".join(trusted))
    except UsageError as error:
        raise unusable_ca(ca_file, error) from None
    except (OSError, ssl.SSLError) as error:
        reason = UsageError(f"{ca_file}: {error}.", remedy="Give a file with the CA's certificate as PEM.")
        raise unusable_ca(ca_file, reason) from None
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
                remedy="To see what repairs it, run: ucl doctor",
            ) from None
    return context


def system_trust_problem() -> tuple[str, str] | None:
    """Return the variable that makes OpenSSL look for the system's CAs where there are none, and a sentence about it.

    OpenSSL reports no error when ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name something missing or empty.

    Returns:
        The name of the variable and a sentence that names it; None when neither is set, or both can be used.
    """
    for variable, has_ca in (("SSL_CERT_FILE", _file_has_ca), ("SSL_CERT_DIR", _folder_has_ca)):
        if (value := os.environ.get(variable)) is not None and not has_ca(value):
            return variable, f"{variable} names {value or 'nothing'}, where OpenSSL finds no CA."
    return None


def _file_has_ca(value: str) -> bool:
    try:
        content = read_regular(Path(value)).decode("latin-1")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content)
    except (OSError, ValueError):  # ValueError: the file is empty
        return False
    return True


def _folder_has_ca(value: str) -> bool:
    """OpenSSL finds a CA by the hash of its name, such as ``5ed36f99.0``. Colons separate several folders."""
    return any(
        path.is_dir() and any(path.glob("[0-9a-f]" * 8 + ".[0-9]*")) for path in map(Path, value.split(os.pathsep))
    )


def unusable_ca(ca_file: Path | None, error: UsageError) -> StorageFailed:
    """Return the error for a CA file that cannot be used; for one that this toolkit wrote, the doctor has the remedy.

    Args:
        ca_file: beside ``connection.json`` (a generation) or ``state.json`` (``pending/``) it is the toolkit's own.
        error: what is wrong with it.
    """
    beside = [ca_file.parent / name for name in ("connection.json", "state.json")] if ca_file else []
    remedy = "To see what repairs it, run: ucl doctor" if any(map(os.path.lexists, beside)) else error.remedy
    return StorageFailed(f"The CA file cannot be used. {error.message}", remedy=remedy, path=str(ca_file or ""))


def _must_open(credentials: Credentials) -> None:
    """OpenSSL does not say whether it was the passphrase."""
    with suppress(OSError):
        if is_sealed(pem := credentials.key_file.read_bytes()):
            open_key(pem, credentials.passphrase, where=str(credentials.key_file))
