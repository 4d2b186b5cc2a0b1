"""Identities for the store, a way to install them, and what has to be true of a connection at any time."""

import os
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

import pytest
from certificates import NOW, certificate, intermediate, key, root

from ucl_helpers.crypto import dump_certificates, dump_key

URL = "https://ucl.example/connector/graphql"
FILES = {
    *("identity.pem", "key.pem", "certificate.pem", "chain.pem", "client-ca.pem", "server-ca.pem", "connection.json"),
}


@cache
def chain(number):
    """The chain of one of many identities; they share two keys."""
    of = f"leaf {number % 2}"
    return certificate(of=of, not_before=NOW + timedelta(seconds=number)), intermediate(), root()


def key_of(number):
    return key(f"leaf {number % 2}")


def identity_pem(number):
    return dump_key(key_of(number)) + dump_certificates(*chain(number))


def install(connection, number, **facts):
    found = chain(number)
    return connection.install(key_of(number), found, found[1:], b"the server's CA", {"connectorUrl": URL, **facts})


def grow_old(connection, days=2):
    """Let all generations have been there for some days."""
    for one in connection.generations():
        then = one.path.stat().st_mtime - days * 86_400
        os.utime(one.path, (then, then))


def names(folder):
    return sorted(one.name for one in folder.iterdir())


@contextmanager
def locked_out(path):
    """This process may not look into a folder: root steps down to another user meanwhile."""
    mode, root_user = path.stat().st_mode, os.geteuid() == 0
    path.chmod(0)
    if root_user:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root_user:
            os.seteuid(0)
        path.chmod(mode)


class KilledError(BaseException):
    """What a killed process would have done next, it does not do; nor does it tidy up."""


@contextmanager
def killed_after(changes):
    """Let this many changes of the file system happen, and then none."""
    left = [changes]

    def until_then(change, counts=lambda *_: True):
        def attempt(*args, **kwargs):
            if counts(*args):
                left[0] -= 1
                if left[0] < 0:
                    raise KilledError
            return change(*args, **kwargs)

        return attempt

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "mkdir", "symlink", "unlink", "rmdir"):
            patch.setattr(os, name, until_then(getattr(os, name)))
        patch.setattr(os, "open", until_then(os.open, lambda _, flags, *__: flags & os.O_CREAT))
        yield
