"""Check URLs before they are called, and compare their hosts. Pure."""

import re
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from ucl_helpers.errors import UsageError


def check_url(url: object, *, what: str = "The URL") -> str:
    """Return the URL unchanged if it is https, has a host, and has no password or token.

    Raises:
        UsageError: the URL is not like this.
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


def hostname(url: object) -> str | None:
    """Return the host that a call to ``url`` would reach, in a form that can be compared; None for an unusable URL.

    A name is in lower case, without a final dot, as A-labels (RFC 5891). An address is in its canonical form. urllib3
    parses the URL, because urllib3 also makes the call.
    """
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    try:
        host = (parse_url(check_url(url)).host or "").strip("[]").removesuffix(".").lower()
    except (UsageError, LocationParseError):
        return None
    try:
        return str(ip_address(host))
    except ValueError:
        return host or None


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is this machine itself: ``localhost``, 127.0.0.0/8 or ::1."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def another_host(named: object, used: str, *agreed: str | None) -> str | None:
    """Return the host that UCL names for the certificate endpoint, if a call to it needs the user's consent.

    Only the hosts are compared, because another path or port belongs to the same operator. A URL that is not https is
    never called and needs no consent.

    Args:
        named: the URL that UCL names.
        used: the URL in use.
        agreed: hosts that the user has agreed to before.
    """
    host = hostname(named)
    return None if host in (hostname(used), *agreed) else host


def host_of(location: str) -> str:
    """Return only scheme, host and port of a redirect; empty if it names no host."""
    try:
        parts = urlsplit(location)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.scheme and parts.hostname else ""
