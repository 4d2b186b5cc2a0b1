"""From UCL's answer to an identity that may become current: it is checked, and then UCL has to accept it.

The new identity has to answer a ``configuration`` call over a new, full handshake. Each try has a client of its own,
so a new TLS context: no pooled connection and no resumed session, both of which would still speak as the old identity.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from cryptography import x509

from ucl_helpers.checks import Expected, check_identity, require
from ucl_helpers.connection.pending import Pending
from ucl_helpers.crypto import decode_certificates
from ucl_helpers.errors import AuthenticationFailed, BadAnswer, CertificateRejected, NotYetAccepted, UCLError
from ucl_helpers.models import Identity, SignedCertificates, Validity, Verification
from ucl_helpers.operations import CONFIGURATION, configuration_from
from ucl_helpers.wire.client import Client

FIRST_MINUTES = timedelta(minutes=10)


def decoded(signed: SignedCertificates, expected: Callable[[x509.Certificate], Expected]) -> Identity:
    """Decode the three texts and check everything; ``expected`` says what a leaf is held against.

    Raises:
        BadAnswer: a text is not base64 of PEM certificates.
        ChecksFailed: names all that failed.
    """
    chain = decode_certificates(signed.certificate_chain, name="certificateChain")
    client = decode_certificates(signed.client_certificate, name="clientCertificate")
    ca = decode_certificates(signed.ca_certificate, name="caCertificate")
    checks = check_identity(chain, expected(chain[0]), client=client, ca=ca)
    require(checks, what="The signed certificate")
    return Identity(chain, ca, checks)


def verify(pending: Pending, identity: Identity, urls: Sequence[str | None], now: datetime) -> Verification:
    """Call as the new identity at each URL in turn until one answers.

    Args:
        pending: where its key lies.
        identity: decoded and checked.
        urls: the URL that UCL names, then the one that is known to work; either may be None.
        now: the server's clock, UTC.

    Raises:
        NotYetAccepted: refused within ten minutes after signing; a gateway's clock may be behind.
        UCLError: what the last URL said.
    """
    credentials = pending.credentials()
    failures: dict[str, UCLError] = {}
    for url in dict.fromkeys(one for one in urls if one):
        try:
            with Client(url, "certificate", ca_file=pending.server_ca, credentials=credentials) as client:
                answer = client.call(CONFIGURATION)
            configuration_from(answer.result)
        except UCLError as error:
            failures[url] = error
            continue
        note = "; ".join(f"UCL names {one}, which failed ({type(why).__name__})" for one, why in failures.items())
        return Verification(url, answer.date or now, answer.request_id, answer.clock_difference, note)
    if not failures:
        raise BadAnswer("UCL names no certificate endpoint.", remedy="Key and CSR are kept; report it to UCL.")
    raise _judged(list(failures.values())[-1], identity, now)


def _judged(error: UCLError, identity: Identity, now: datetime) -> UCLError:
    young = now - Validity.of(identity.certificate).not_before < FIRST_MINUTES
    if young and isinstance(error, AuthenticationFailed | CertificateRejected):
        return NotYetAccepted(
            f"The new certificate is signed but not accepted yet. {error.message}",
            remedy="The answer is kept and the old identity stays; run it again in some minutes.",
            **error.data,
        )
    return error
