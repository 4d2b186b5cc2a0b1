"""How a CSR's base64 and PEM are read: the answers were compared with Go's own standard library."""

import pytest
from contract_csrs import plain
from contract_replay import encoded

from ucl_sandbox.csr import CsrRefusedError, ExpectedSubject, accept, decode_base64, first_pem_block

ID = "0b0e0b9e-7f0c-4a52-9ef5-2f1d0a3c0d11"
TEXT = plain(ID).decode()
SIGNING = "Error while signing Certificate Signing Request: "
NO_PEM = SIGNING + "Error while decoding pem block."


def refusal(csr: bytes) -> str | None:
    """Why a CSR is refused; None if it is accepted."""
    try:
        accept(encoded(csr), ExpectedSubject(ID))
    except CsrRefusedError as error:
        return str(error)
    return None


# -- base64 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "decoded"),
    [
        (b"", b""),
        (b"QUI=", b"AB"),
        (b"QU\nI=\n", b"AB"),
        (b"QU\r\nI=", b"AB"),
        (b"QQ=\r=", b"A"),
        (b"QR==", b"A"),  # bits that do not count may be set
        (b"QUI", None),
        (b"QUI==", None),
        (b"QUI= ", None),
        (b"QU I=", None),
        (b"QU\tI=", None),
        (b"QUI=QUI=", None),
        (b"=", None),
        (b"====", None),
        (b"A===", None),
        (b"-_-_", None),
        (b"\xc3\xa9AA", None),
        (b"QUI=\0", None),
    ],
)
def test_base64_is_gos(data: bytes, decoded: bytes | None) -> None:
    assert decode_base64(data) == decoded


# -- PEM ---------------------------------------------------------------------------------------------------------------

BEGIN, END = "-----BEGIN CERTIFICATE REQUEST-----\n", "\n-----END CERTIFICATE REQUEST-----\n"
BODY = TEXT.removeprefix(BEGIN).removesuffix(END)


@pytest.mark.parametrize(
    "text",
    [
        TEXT.rstrip(),
        f"\n\n{TEXT}",
        f"Certificate Request:\n{TEXT}",
        f"{TEXT}and more",
        TEXT.replace("\n", "\r\n"),
        TEXT.rstrip() + "  \t\r\n",
        TEXT.replace("CERTIFICATE REQUEST", "ANY THING"),
        TEXT.replace("CERTIFICATE REQUEST", ""),
        BEGIN.rstrip() + " \t\n" + BODY + END,
        f"{BEGIN}Proc-Type: 4\nDEK-Info: x\n\n{BODY}{END}",
        BEGIN + BODY.replace("\n", "") + END,
        BEGIN + BODY.replace("\n", "\n  ") + END,
        BEGIN + BODY.replace("\n", "\n\n") + END,
        BEGIN + TEXT,
        f"{BEGIN}!!!!{END}{TEXT}",
        TEXT.replace("END CERT", "END OTHER") + TEXT,
        TEXT + plain("another").decode(),
    ],
)
def test_pem_that_is_read(text: str) -> None:
    assert refusal(text.encode()) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        BODY,
        BEGIN + BODY,
        BODY + END,
        f" {TEXT}",
        f"text before it{TEXT}",
        f"\ufeff{TEXT}",
        TEXT.rstrip() + "x\n",
        TEXT.replace("\n", "\r"),
        TEXT.replace("BEGIN", "begin"),
        TEXT.replace("REQUEST-----\nM", "REQUEST----\nM"),
        TEXT.replace("END CERTIFICATE REQUEST", "END CERTIFICATE"),
        TEXT.replace("END CERTIFICATE REQUEST", "END NEW CERTIFICATE REQUEST"),
        BEGIN + BODY[:30] + "!" + BODY[31:] + END,
        BEGIN + BODY + END.lstrip(),
        BEGIN + "A: b\n" + END.lstrip(),
    ],
)
def test_pem_that_is_not(text: str) -> None:
    assert refusal(text.encode()) == NO_PEM


def test_an_empty_block_is_a_block() -> None:
    assert first_pem_block((BEGIN + END.lstrip()).encode()) == b""
    assert (refusal((BEGIN + END.lstrip()).encode()) or "").startswith(SIGNING + "Error while parsing CSR:")
