"""The errors of this toolkit, each with an exit code.

An error says what happened, what it likely means and what to do next. Its facts are in ``data``, and its class has the
exit code of ``ucl`` and the notebooks. It can be pickled, holds no secret, and is safe to print even if a server wrote
part of it.

::

    UCLError                      1  unexpected
    ├── UsageError                2  a name, option, parameter or file cannot be used
    │   ├── UnknownConnection
    │   ├── InvalidSettings
    │   └── KeyLocked                a private key is encrypted, and no passphrase opens it
    ├── RetryLater                3  a temporary failure; nothing is lost, and the next run continues
    │   ├── Unreachable              no connection, or it was interrupted
    │   ├── RateLimited              429, with the server's Retry-After
    │   ├── Unavailable              408, 500, 502, 503, 504
    │   ├── EmptyAnswer              no data and no error: a known bug of the server
    │   ├── NotYetAccepted           the new certificate is refused in its first minutes
    │   ├── Outage                   UCL is down and refuses every certificate
    │   ├── PossibleOutage           UCL refuses something that should be valid; perhaps an outage
    │   ├── Waiting                  a renewal is due, has failed, and must wait before the next try
    │   └── DeadlineExceeded         a headless run took longer than its deadline
    ├── Refused                   4  the server refused the request
    │   ├── AuthenticationFailed     400 with an empty body, 401, 403
    │   ├── CertificateRejected      the server refuses our client certificate in the TLS handshake
    │   └── RequestRejected          GraphQL errors
    ├── ServerNotTrusted          5  the server's certificate does not verify: nothing was sent
    ├── ChecksFailed              6  the signed certificate is not the one that was requested
    ├── ConsentNeeded             7  UCL names another subject or host, and the user must agree
    │   ├── SubjectChanged           it wants another subject
    │   └── HostChanged              it names another host for the certificate endpoint
    ├── Busy                      8  another process is using this connection
    │   └── SettledElsewhere         another process has finished or set aside this work
    ├── SecretFound               9  a secret was passed in plain text
    ├── StorageFailed            10  a file could not be read or written, or is corrupt
    ├── NewTokenNeeded           11  the one-time token is used up or expired; key and CSR are kept
    ├── BadAnswer                12  an answer that does not follow the Connector's schema
    ├── HookFailed               13  the certificate is in use, but a hook failed
    ├── SecretRedacted           14  a notebook showed a secret; the outputs that held it were removed
    └── OutputLost               15  the command has done its work, but its output is lost
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    r"|[\ud800-\udfff\U000e0000-\U000e0fff]"
)


def printable(text: str) -> str:
    r"""Return the text with escapes, such as ``\x1b``, for characters that are not safe in a terminal or an encoder.

    These are control characters other than newline and tab, invisible characters, characters that change the direction
    of writing, and lone surrogates.
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


class UCLError(Exception):
    """The base class of all errors.

    Args:
        message: what happened, where.
        remedy: what to do next, as a sentence.
        data: facts for programs (URLs, fingerprints, seconds, names); never a secret.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, remedy: str = "", **data: Any) -> None:
        self.message = printable(message)
        self.remedy = printable(remedy)
        super().__init__(self.message)
        self.data: Mapping[str, Any] = data
        if note := explained_by(type(self).__name__):
            self.add_note(note)  # which ends a traceback, and is no part of the text

    def __str__(self) -> str:
        between = "\n" if "\n" in self.message else " "
        return f"{self.message}{between}{self.remedy}".strip()

    def as_json(self) -> dict[str, Any]:
        """Return the error for programs, in the keys of ``outcome.json``. Its ``data`` is not included."""
        name = type(self).__name__
        return {"error": name, "message": self.message, "remedy": self.remedy or None, "exitCode": self.exit_code}

    def replaced(self, message: str = "", *, remedy: str | None = None, **facts: Any) -> Self:
        """Return a copy with another message or remedy, and with more facts. An argument left out changes nothing."""
        remedy = self.remedy if remedy is None else remedy
        return type(self)(message or self.message, remedy=remedy, **{**self.data, **facts})

    def __reduce__(self) -> tuple[Any, ...]:
        if self.__suppress_context__:  # raised "from None": that may hold a bearer, half an answer, a file's bytes,
            self.__context__ = None  # and Dask pickles even what an error hides
        return _rebuild, (type(self), self.message, self.remedy, dict(self.data))


def explained_by(name: str) -> str:
    """Return the line that leads from an error's name to its entry in the catalogue; empty for a foreign error."""
    return f"Causes and remedies: ucl explain {name}" if error_class(name) else ""


def error_class(name: object) -> type[UCLError] | None:
    """Return the class in this module that has this name, or None."""
    kind = globals().get(str(name))
    return kind if isinstance(kind, type) and issubclass(kind, UCLError) else None


def _rebuild(kind: type[UCLError], message: str, remedy: str, data: dict[str, Any]) -> UCLError:
    return kind(message, remedy=remedy, **data)


class UsageError(UCLError):
    """A name, option, parameter or file cannot be used."""

    exit_code = 2


class UnknownConnection(UsageError):
    """There is no connection of this name in this home."""


class InvalidSettings(UsageError):
    """``settings.toml`` has an error. The message names line and key."""


class KeyLocked(UsageError):
    """A private key is encrypted, and the passphrase is wrong or missing. The key is not lost."""


class RetryLater(UCLError):
    """A temporary failure. Nothing is lost. ``data['retry_after']`` may have the seconds until the next try."""

    exit_code = 3


class Unreachable(RetryLater):
    """There is no connection to the server, or it was interrupted."""


class RateLimited(RetryLater):
    """The server asks for fewer calls (429)."""


class Unavailable(RetryLater):
    """The server, or the gateway in front of it, cannot answer now."""


class EmptyAnswer(RetryLater):
    """The answer has neither data nor an error. This is a known, temporary bug of the server."""


class NotYetAccepted(RetryLater):
    """The new certificate is refused in its first minutes. A gateway's clock may be behind its NotBefore."""


class Outage(RetryLater):
    """UCL is down. The Connector refuses every certificate, and the Director answers 5xx or does not answer."""


class PossibleOutage(RetryLater):
    """UCL refuses a certificate, token or bearer that should be good. It may be an outage, which is temporary."""


class Waiting(RetryLater):
    """A renewal is due, but it has failed. The next try is not before ``data['not_before']`` (ISO 8601, UTC).

    If waiting does not help, because the last error was not temporary or the certificate has expired, ``data['code']``
    is the exit code instead of 3. A scheduler must not count such a run as a success.
    """

    def __init__(self, message: str, *, remedy: str = "", **data: Any) -> None:
        super().__init__(message, remedy=remedy, **data)
        self.exit_code = data.get("code") or self.exit_code


class DeadlineExceeded(RetryLater):
    """A headless run reached its deadline and was ended. Its interrupted work is on disk."""


class Refused(UCLError):
    """The server refused the request."""

    exit_code = 4


class AuthenticationFailed(Refused):
    """The server answered 400 with an empty body, 401 or 403. ``data['causes']`` lists the causes, likeliest first."""


class CertificateRejected(Refused):
    """The server refused our client certificate in the TLS handshake, or required one."""


class RequestRejected(Refused):
    """The server answered with GraphQL errors. ``data['errors']`` lists their texts."""


class ServerNotTrusted(UCLError):
    """The server's certificate does not verify. Nothing was sent."""

    exit_code = 5


class ChecksFailed(UCLError):
    """A certificate is not the one that was requested. ``data['failed']`` names every failed check.

    Attributes:
        checks: all checks, those that passed too; empty in another process.
    """

    exit_code = 6
    checks: Sequence[Any] = ()


class ConsentNeeded(UCLError):
    """UCL's answer names another subject or another host. Nothing was signed, and the identity in use is unchanged."""

    exit_code = 7


class SubjectChanged(ConsentNeeded):
    """UCL wants another subject than the certificate in use has."""


class HostChanged(ConsentNeeded):
    """UCL names another host for the certificate endpoint, ``data['named']``. ``ucl`` did not call it."""


class Busy(UCLError):
    """Another process is using this connection, ``data['holder']``."""

    exit_code = 8


class SettledElsewhere(Busy):
    """Another process has finished the work that this one began, or set it aside."""


class SecretFound(UCLError):
    """A secret was given in plain text."""

    exit_code = 9


class StorageFailed(UCLError):
    """A file could not be read or written, or it is damaged."""

    exit_code = 10


class NewTokenNeeded(UCLError):
    """No certificate arrived before the one-time token was used up or expired. Key and CSR are kept."""

    exit_code = 11


class BadAnswer(UCLError):
    """The answer is not JSON, or does not follow the Connector's schema."""

    exit_code = 12


class HookFailed(UCLError):
    """The certificate is in use, but a hook failed. ``data['failed']`` names it and the reason. It will run again."""

    exit_code = 13


class SecretRedacted(UCLError):
    """A notebook showed a secret. Its outputs were removed. ``data['redacted']`` names the secret and the place."""

    exit_code = 14


class OutputLost(UCLError):
    """The command has done its work, but ``ucl`` could not write its output. You do not have to run it again."""

    exit_code = 15
