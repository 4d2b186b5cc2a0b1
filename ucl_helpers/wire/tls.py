"""TLS as every call has it: verified, TLS 1.2 or newer, by one ``SSLContext`` that nothing else reaches.

The context trusts the system's CAs or the given file; the identity is loaded into it once. ``requests``' own defaults
(certifi, ``REQUESTS_CA_BUNDLE``) do not reach it, also not through a proxy. *Not* checked: revocation of the server's
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
    """TLS 1.2 or newer, verifying host and chain by ``ca_file`` or else the system's CAs.

    The host must be in the certificate's subjectAltName; a common name does not count (RFC 9525).

    Raises:
        StorageFailed: a file is missing or cannot be read as what it should be.
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
    """Trust the system's CAs and show no identity: for a proxy that is reached over TLS."""
    return tls_context(None, None)


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
        if is_sealed(pem := read_regular(credentials.key_file)):
            open_key(pem, credentials.passphrase, where=str(credentials.key_file))
