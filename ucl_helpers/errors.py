"""What can go wrong, as types.

Every error says what happened, what it likely means and what to do next; carries its facts in ``data``; knows the
exit code with which ``ucl`` and the notebooks end; survives pickling; never holds a secret; and prints safely, whatever
a server wrote into it.

::

    UCLError                      1  unexpected
    ├── UsageError                2  a name, option, parameter or file is not usable as given
    │   ├── UnknownConnection
    │   ├── InvalidSettings
    │   └── KeyLocked                a private key is encrypted, and the passphrase at hand does not open it
    ├── RetryLater                3  nothing is lost and nothing changed; the next run goes on from here
    │   ├── Unreachable              no connection, or it broke off
    │   ├── RateLimited              429, with the server's Retry-After
    │   ├── Unavailable              408, 500, 502, 503, 504
    │   ├── EmptyAnswer              no data and no error: a known bug of the server
    │   ├── NotYetAccepted           the new certificate is refused in its first minutes
    │   ├── Outage                   UCL is down and refuses every certificate
    │   ├── PossibleOutage           UCL refuses what should be good; perhaps an outage
    │   ├── Waiting                  a renewal is due, has failed, and is not to be tried again yet
    │   └── DeadlineExceeded         a headless run took longer than it may
    ├── Refused                   4  the server understood, and said no
    │   ├── AuthenticationFailed     400 with an empty body, 401, 403
    │   ├── CertificateRejected      the server's TLS does not take our client certificate
    │   └── RequestRejected          GraphQL errors
    ├── ServerNotTrusted          5  the server's certificate does not verify: nothing was sent
    ├── ChecksFailed              6  the signed certificate is not what was asked for
    ├── ConsentNeeded             7  UCL names another subject or host, and the user has to agree
    │   ├── SubjectChanged           it wants another subject
    │   └── HostChanged              it names another host for the certificate endpoint
    ├── Busy                      8  another process is using this connection
    │   └── SettledElsewhere         … and has finished what this one began
    ├── SecretFound               9  a secret was passed in plain text
    ├── StorageFailed            10  a file could not be read or written, or is corrupt
    ├── NewTokenNeeded           11  the one-time token is used up or expired; key and CSR are kept
    ├── BadAnswer                12  an answer that does not follow the Connector's schema
    ├── HookFailed               13  the certificate is in place; a command that has to know of it failed
    ├── SecretRedacted           14  a notebook showed a secret; the outputs that held it were removed
    └── OutputLost               15  the command has done its work; its output is lost
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    r"|[\ud800-\udfff\U000e0000-\U000e0fff]"
)


def printable(text: str) -> str:
    r"""The text with what a terminal or an encoder would trip over as escapes, such as ``\x1b`` and ``\ud800``.

    Control characters other than newline and tab, marks that turn the direction of writing or cannot be seen, lone
    surrogates.
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


class UCLError(Exception):
    """The root of the tree.

    Args:
        message: what happened, where.
        remedy: what to do next, as a sentence.
        data: facts for programs (URLs, fingerprints, seconds, names); never a secret.
    """

    exit_code: ClassVar[int] = 1

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
    """A name, option, parameter or file cannot be used as given."""

    exit_code = 2


class UnknownConnection(UsageError):
    """There is no connection of this name in this home."""


class InvalidSettings(UsageError):
    """``settings.toml`` does not say what it may; the text names line and key."""


class KeyLocked(UsageError):
    """A private key lies encrypted, and the passphrase at hand does not open it, or there is none. It is not lost."""


class RetryLater(UCLError):
    """It did not work now. Nothing is lost, nothing changed; ``data['retry_after']`` may hold seconds."""

    exit_code = 3


class Unreachable(RetryLater):
    """No connection to the server, or it broke off."""


class RateLimited(RetryLater):
    """The server asks to slow down (429)."""


class Unavailable(RetryLater):
    """The server, or the gateway in front of it, cannot answer now."""


class EmptyAnswer(RetryLater):
    """Neither data nor an error came back: a known bug of the server that passes."""


class NotYetAccepted(RetryLater):
    """The new certificate is refused in its first minutes; a gateway's clock may be behind its NotBefore."""


class Outage(RetryLater):
    """UCL is down. The Connector refuses every certificate, and the Director answers 5xx or does not answer."""


class PossibleOutage(RetryLater):
    """UCL refuses a certificate, token or bearer that should be good. It may be an outage, which is temporary."""


class Waiting(RetryLater):
    """A renewal is due and not tried: it failed, and ``data['not_before']`` (ISO 8601, UTC) has not come."""


class DeadlineExceeded(RetryLater):
    """A headless run took longer than it may, and was ended; what it had begun is on disk."""


class Refused(UCLError):
    """The server understood the request and said no."""

    exit_code = 4


class AuthenticationFailed(Refused):
    """400 with an empty body, 401 or 403; ``data['causes']`` lists what it may mean, the likeliest first."""


class CertificateRejected(Refused):
    """The server's TLS stack did not take our client certificate, or wanted one."""


class RequestRejected(Refused):
    """The server answered with GraphQL errors; ``data['errors']`` lists their texts."""


class ServerNotTrusted(UCLError):
    """The server's certificate does not verify. Nothing was sent."""

    exit_code = 5


class ChecksFailed(UCLError):
    """A certificate is not what was asked for; ``data['failed']`` names every failed check."""

    exit_code = 6


class ConsentNeeded(UCLError):
    """UCL's answer names another subject or another host. Nothing was signed; the identity in use stays."""

    exit_code = 7


class SubjectChanged(ConsentNeeded):
    """UCL wants another subject than the certificate in use has."""


class HostChanged(ConsentNeeded):
    """UCL names another host for the certificate endpoint; ``data['named']`` says which. ``ucl`` did not call it."""


class Busy(UCLError):
    """Another process holds this connection; ``data['holder']`` says which."""

    exit_code = 8


class SettledElsewhere(Busy):
    """Another process finished, or set aside, what this one had begun."""


class SecretFound(UCLError):
    """A secret stands where none may be."""

    exit_code = 9


class StorageFailed(UCLError):
    """A file could not be read or written, or what lies there is not whole."""

    exit_code = 10


class NewTokenNeeded(UCLError):
    """No certificate arrived before the one-time token was used up or expired. Key and CSR are kept."""

    exit_code = 11


class BadAnswer(UCLError):
    """The answer is not JSON, or does not follow the Connector's schema."""

    exit_code = 12


class HookFailed(UCLError):
    """The certificate is in place, but a hook failed; ``data['failed']`` says which, and why. It will run again."""

    exit_code = 13


class SecretRedacted(UCLError):
    """A notebook showed a secret. The outputs that held it were removed; ``data['redacted']`` says what and where."""

    exit_code = 14


class OutputLost(UCLError):
    """The command has done its work, but ``ucl`` could not write its output. You do not have to run it again."""

    exit_code = 15
