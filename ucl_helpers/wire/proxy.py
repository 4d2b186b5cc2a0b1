"""Find the proxy of a call by ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.

A setting that cannot work is refused before the call. The error repeats scheme, host and port of its value, and never
what may be a user name or a password.
"""

import os
import re
from dataclasses import dataclass, field

from ucl_helpers.errors import UsageError
from ucl_helpers.urls import is_loopback


@dataclass(frozen=True)
class Proxy:
    """A proxy that gets CONNECT requests.

    Attributes:
        host: a name, or an address without brackets.
        port: TCP.
        scheme: ``http``, or ``https`` when TLS is spoken to the proxy itself.
        variable: the environment variable that names it, or "the system's proxy setting".
        has_password: whether the URL has a user name.
        url: the URL with user name and password, as urllib3 reads it.
    """

    host: str
    port: int
    scheme: str
    variable: str
    has_password: bool
    url: str = field(repr=False)

    @property
    def named(self) -> str:
        """The proxy and the variable that names it, for messages."""
        return f"the proxy {self} (from {self.variable})"

    @property
    def facts(self) -> dict[str, str]:
        """The data of an error behind this proxy."""
        return {"through_proxy": str(self), "proxy_variable": self.variable}

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def proxy_variable() -> str | None:
    """Return the name of the variable that sets a proxy for https, or None."""
    return next(
        (name for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY") if os.environ.get(name)), None
    )


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy on the way to ``url``, or None. A call to this machine itself uses no proxy.

    ``HOST:PORT`` without a scheme is an ``http://`` proxy, as for curl.

    Raises:
        UsageError: the variable names no proxy that can be used. The text names the variable and what to write.
    """
    if is_loopback(url):
        return None
    from requests.utils import get_environ_proxies, select_proxy
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    proxies = get_environ_proxies(url)
    value = select_proxy(url, proxies)
    if not value:
        return None
    variable = _variable("https" if proxies.get("https") == value else "all")
    text = value if "://" in value else f"http://{value}"
    try:
        parts = parse_url(text)
        bare = not (parts.query or parts.fragment) and parts.path in {None, "/"} and text.isprintable()
        usable = parts.scheme in {"http", "https"} and bool(parts.host) and parts.port != 0 and bare
        (parts.host or "").encode("idna")  # as a resolver would be asked: it refuses empty labels, and long ones
    except (LocationParseError, UnicodeError):
        usable = False
    if not usable:
        named = f": it names {address}" if (address := _address(value)) else ""
        other = "; socks is not supported" if value.lower().startswith("socks") else ""
        raise UsageError(
            f"{variable} is not the URL of an HTTP proxy{named}{other}.",
            remedy="Write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with special characters of the password "
            "percent-encoded. Or name UCL's host in NO_PROXY.",
            variable=variable,
        )
    scheme, host = str(parts.scheme), str(parts.host).strip("[]")
    port = parts.port or (443 if scheme == "https" else 80)
    return Proxy(host, port, scheme, variable, has_password=bool(parts.auth), url=parts.url)


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,9}):/{1,2}")
_HOST_PORT = re.compile(r"(?:[\w.-]{1,253}|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(?=$|[/?#])")


def _address(value: str) -> str:
    """Return scheme, host and port of a proxy's URL that cannot be used; empty if the host may be part of a secret.

    User name and password end with the last ``@``. If they hold ``/``, ``?`` or ``#`` that is not percent-encoded, an
    ``@`` after it may also be part of a path. Then a port has to follow.
    """
    scheme = _SCHEME.match(value)
    before, at, after = value[scheme.end() if scheme else 0 :].rpartition("@")
    address = _HOST_PORT.match(after)
    if address is None or (at and re.search("[/?#]", before) and not address[1]):
        return ""
    return f"{scheme[1].lower() if scheme else 'http'}://{address[0]}"


def _variable(scheme: str) -> str:
    """Return the name of the variable in effect. Lower case wins, as in :func:`urllib.request.getproxies`."""
    name = f"{scheme}_proxy"
    spellings = [spelling for spelling in os.environ if spelling.lower() == name and os.environ[spelling]]
    return name if name in spellings else next(iter(spellings), "the system's proxy setting")
