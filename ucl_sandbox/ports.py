"""Ports that are kept: chosen outside the range from which the kernel lends ports to clients.

A port within that range could be taken by any outgoing connection while the sandbox is down, and the URLs that
connections have written down would be wrong after a restart.
"""

import errno
import secrets
import socket
from pathlib import Path

_LOWEST_AT_ALL, _LOWEST, _HIGHEST = 1024, 20000, 65535
_LINUX_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_IANA_RANGE = (49152, 65535)  # RFC 6335 section 6
_ATTEMPTS = 200
_NO_SUCH_FAMILY = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}


def listen(wanted: int | None) -> list[socket.socket]:
    """Opens listening sockets on loopback, IPv4 and (where there is one) IPv6, all on one port.

    Args:
        wanted: The port of last time, which is tried first.

    Raises:
        OSError: No port is to be had.
    """
    for attempt in range(_ATTEMPTS):
        port = wanted if wanted and attempt == 0 else secrets.choice(_candidates())
        try:
            return _listen(port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no free port on loopback after {_ATTEMPTS} attempts")


def bound_like(closed: tuple[socket.AddressFamily, tuple[str, int]]) -> socket.socket:
    """A socket that has an address and does not listen there: who connects is refused, and its port is not free.

    Args:
        closed: Family and address of a socket of `listen` that is closed now.
    """
    family, address = closed
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def _candidates() -> range:
    """The wider of the two stretches beside the ephemeral range, or low ports if it leaves hardly any."""
    try:
        low, high = (int(text) for text in _LINUX_RANGE.read_text("ascii").split())
    except (OSError, ValueError):
        low, high = _IANA_RANGE
    widest = max(range(_LOWEST, low), range(high + 1, _HIGHEST + 1), key=len)
    return widest if len(widest) >= _ATTEMPTS else range(_LOWEST_AT_ALL, min(low, _LOWEST))


def _listen(port: int) -> list[socket.socket]:
    """One port on both addresses: another program on the other one would be taken for the sandbox."""
    sockets = [socket.create_server(("127.0.0.1", port), backlog=128)]
    try:
        sockets.append(socket.create_server(("::1", port), family=socket.AF_INET6, backlog=128))
    except OSError as error:
        if error.errno not in _NO_SUCH_FAMILY:
            sockets[0].close()
            raise
    for listening in sockets:
        listening.setblocking(False)
    return sockets
