"""Make the TLS context of a call: TLS 1.2 or newer, with verification of the server.

The context trusts the system's CAs or the given file. The identity is loaded into it once. The defaults of ``requests``
(certifi, ``REQUESTS_CA_BUNDLE``) have no effect, not even through a proxy. *Not* checked: revocation of the server's
certificate.
"""

import os
import ssl
from contextlib import suppress
from pathlib import Path

from ucl_helpers.errors import StorageFailed, UsageError
from ucl_helpers.formats.key_files import ca_certificates
from ucl_helpers.keys import Credentials, is_sealed, open_key
from ucl_helpers.wire.sockets import Context
from ucl_private_files import read_regular


def tls_context(ca_file: Path | None, credentials: Credentials | None) -> Context:
    """Return a context for TLS 1.2 or newer that verifies host and chain by ``ca_file``, or else by the system's CAs.

    The host must be in the certificate's subjectAltName. A common name does not count (RFC 9525).

    Raises:
        StorageFailed: a file is missing, or does not hold the certificate or key that it should.
        KeyLocked: the key is encrypted, and the passphrase does not open it.
    """
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    configure(context, ca_file, credentials)
    return context


def configure(context: ssl.SSLContext, ca_file: Path | None, credentials: Credentials | None) -> None:
    """Give a context the trust and the identity that :func:`tls_context` describes; raises as it does."""
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
        except OSError as error:
            _must_open(credentials)
            folder, remedy = credentials.key_file.parent, "To see what repairs it, run: ucl doctor"
            if isinstance(error, ssl.SSLError):
                raise StorageFailed(
                    f"Key and certificate in {folder} cannot be used: {error}.", remedy=remedy
                ) from None
            raise StorageFailed(
                f"Could not read key and certificate in {folder}: {error.strerror}.", remedy=remedy
            ) from None


def system_context() -> Context:
    """Return a context that trusts the system's CAs and shows no identity, for a proxy that is reached over TLS."""
    return tls_context(None, None)


def system_trust_problem() -> tuple[str, str] | None:
    """Return the variable that hides the system's CAs from OpenSSL, and a sentence about it.

    OpenSSL reports no error when ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name something missing or empty.

    Returns:
        The name of the variable and a sentence that names it. None if neither is set, or if OpenSSL finds CAs in both.
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
    """Return whether OpenSSL finds a CA by its hash (``5ed36f99.0``) in one of the folders, which colons separate."""
    return any(
        path.is_dir() and any(path.glob("[0-9a-f]" * 8 + ".[0-9]*")) for path in map(Path, value.split(os.pathsep))
    )


def unusable_ca(ca_file: Path | None, error: UsageError) -> StorageFailed:
    """Return the error for a CA file that cannot be used. If this toolkit wrote the file, the remedy is the doctor.

    Args:
        ca_file: the file. If ``connection.json`` (a generation) or ``state.json`` (``pending/``) is beside it, this
            toolkit wrote it.
        error: the problem of the file.
    """
    beside = [ca_file.parent / name for name in ("connection.json", "state.json")] if ca_file else []
    remedy = "To see what repairs it, run: ucl doctor" if any(map(os.path.lexists, beside)) else error.remedy
    return StorageFailed(f"The CA file cannot be used. {error.message}", remedy=remedy, path=str(ca_file or ""))


def _must_open(credentials: Credentials) -> None:
    """Raise KeyLocked if the passphrase does not open the key. OpenSSL's own error does not show this."""
    with suppress(OSError):
        if is_sealed(pem := read_regular(credentials.key_file)):
            open_key(pem, credentials.passphrase, where=str(credentials.key_file))
