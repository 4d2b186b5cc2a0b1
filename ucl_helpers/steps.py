"""The tutorial's four steps as four functions. No disk, no lock, no state.

::

    wanted = configuration(call)                              # step 1
    key, csr = request(wanted.subject, bits=4096)             # step 2
    signed = sign(call, csr)                                  # step 3
    identity = decode(signed, Expected(key.public_key(), …))  # step 4

:mod:`ucl_helpers.procedures` makes the same steps durable: it stores key and CSR before step 3, and it verifies the new
identity before it replaces the one in use.
"""

from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from ucl_helpers.checks import Expected, check_identity, require
from ucl_helpers.crypto import decode_certificates, encode, make_csr, parse_subject
from ucl_helpers.keys import DEFAULT_BITS, make_key
from ucl_helpers.models import Configuration, Identity, SignedCertificates
from ucl_helpers.operations import CONFIGURATION, CONFIGURATION_WITH_TOKEN, SIGN, configuration_from, signed_from

Call = Callable[[str, Mapping[str, str]], Any]
"""Sends one GraphQL operation with its variables to the Connector, and returns the JSON of ``data.result``."""


def configuration(call: Call, *, with_token: bool = False) -> Configuration:
    """Step 1: ask UCL which subject to request, and where.

    Args:
        call: to the certificate endpoint, or to the token endpoint when the connection is new.
        with_token: also ask for a one-time token. At the token endpoint, step 3 needs it.

    Raises:
        BadAnswer: a field is missing or has the wrong type.
    """
    return configuration_from(call(CONFIGURATION_WITH_TOKEN if with_token else CONFIGURATION, {}))


def request(
    subject: str, bits: int = DEFAULT_BITS, *, make: Callable[[int], rsa.RSAPrivateKey] = make_key
) -> tuple[rsa.RSAPrivateKey, bytes]:
    """Step 2: make an RSA key and a CSR (PEM, SHA-256) with the subject from step 1.

    Args:
        subject: in comma form, as UCL writes it.
        bits: RSA key length; 4096 is recommended.
        make: makes the key. A procedure has begun it in the background.

    Raises:
        UsageError: the key length is not from 2048 to 8192.
        BadAnswer: the subject cannot be read.
    """
    key = make(bits)
    return key, make_csr(key, parse_subject(subject))


def sign(call: Call, csr: bytes) -> SignedCertificates:
    """Step 3: send the CSR (PEM) as base64 on one line and receive the signed certificates.

    Raises:
        BadAnswer: a field is missing or has the wrong type.
    """
    return signed_from(call(SIGN, {"csr": encode(csr)}))


def decode(signed: SignedCertificates, expected: Expected) -> Identity:
    """Step 4: decode the certificates and check that they are what was requested.

    This does *not* show that UCL accepts the new certificate. Only a call with it does.

    Args:
        signed: from step 3.
        expected: what was requested: the public key and the subject.

    Raises:
        BadAnswer: a text is not base64 of PEM certificates.
        ChecksFailed: names every check that failed.
    """
    chain = decode_certificates(signed.certificate_chain, name="certificateChain")
    client = decode_certificates(signed.client_certificate, name="clientCertificate")
    ca = decode_certificates(signed.ca_certificate, name="caCertificate")
    checks = check_identity(chain, expected, client=client, ca=ca)
    require(checks, what="The signed certificate")
    return Identity(chain, ca, checks)
