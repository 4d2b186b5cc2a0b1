"""Identities for the store, a way to install them, and what has to be true of a connection at any time."""

import ctypes
import os
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from certificates import NOW, certificate, intermediate, key, root

from ucl_helpers.crypto import dump_certificates
from ucl_helpers.keys import dump_key

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
    """Close a folder to this process, for as long as the block takes. Everything else stays readable.

    Permissions do not hold for root. So root gives up the two capabilities that override them, or, in a checkout of
    another user, becomes that user, who can read the checkout even where its parents are private (0700).
    """
    mode, owner = path.stat().st_mode, Path(__file__).stat().st_uid
    path.chmod(0)
    try:
        if os.geteuid() != 0:
            yield
        elif owner != 0:
            os.seteuid(owner)
            try:
                yield
            finally:
                os.seteuid(0)
        else:
            with effective_capabilities_without(_DAC_OVERRIDE, _DAC_READ_SEARCH):
                yield
    finally:
        path.chmod(mode)


_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2  # capabilities(7)


@contextmanager
def effective_capabilities_without(*capabilities):
    """Give up capabilities of this thread in the block: capset(2), version 3."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()

    def call(function):
        if function(header, data) != 0:
            raise OSError(ctypes.get_errno(), "capabilities cannot be changed")

    call(libc.capget)
    before = data[0]  # effective capabilities 0 to 31
    data[0] = before & ~sum(1 << number for number in capabilities)
    call(libc.capset)
    try:
        yield
    finally:
        data[0] = before
        call(libc.capset)


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
