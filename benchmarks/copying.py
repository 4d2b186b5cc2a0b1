"""Many connections: copies of one, as far as a fleet can see, made in a moment.

Each has files of its own and a name of its own. Where they are to be renewed all have the same identity: a UCL does not
mind one client that comes often. Where they are only to be looked at each has a certificate of its own, which differs
in the last bytes of its signature (nobody verifies it there): what is parsed once is not known the next time.
"""

import shutil
import ssl
from pathlib import Path

from ucl_helpers import Connection, Home


def copies(connection: Connection, folder: Path, count: int, *, distinct: bool = False) -> Home:
    """A home folder with that many copies of a connection, made anew if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
    home = Home(folder)
    home.new("copied-00000")  # makes the folders above, as they have to be
    contents = {str(one.relative_to(connection.path)): _content(one) for one in sorted(connection.path.rglob("*"))}
    leaf = (connection.path / "current" / "certificate.pem").read_bytes()
    for number in range(count):
        own = _other(leaf, number) if distinct else leaf
        to = home.path / "connections" / f"copied-{number:05d}"
        to.mkdir(mode=0o700, exist_ok=True)
        for name, content in contents.items():
            _write(to / name, content.replace(leaf, own) if isinstance(content, bytes) else content)
    return home


def _content(path: Path) -> bytes | Path | None:
    return path.readlink() if path.is_symlink() else None if path.is_dir() else path.read_bytes()


def _write(path: Path, content: bytes | Path | None) -> None:
    if content is None:
        path.mkdir(mode=0o700, exist_ok=True)
    elif isinstance(content, Path):
        path.symlink_to(content)
    else:
        path.write_bytes(content)
        path.chmod(0o600)


def _other(pem: bytes, number: int) -> bytes:
    """The certificate with another end of its signature."""
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    return ssl.DER_cert_to_PEM_cert(der[:-8] + number.to_bytes(8)).encode()
