"""Make many practice connections at once: ``python -m tools.make_fleet HOME --connections 10000``.

The connections are like those of ``ucl establish NAME --sandbox``, and are due for renewal. To save time, the sandbox's
CA signs their certificates without a call, and they share a few first keys, which the first renewal replaces. No
sandbox of the home folder may run at the same time.
"""

import argparse
import os
import sqlite3
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ucl_helpers import keys
from ucl_helpers.connection import files
from ucl_helpers.connection.store import Home
from ucl_helpers.crypto import encode, make_csr, parse_subject
from ucl_helpers.keys import make_key
from ucl_helpers.models import fingerprint
from ucl_helpers.policy import parse_duration
from ucl_sandbox import Sandbox
from ucl_sandbox.ca import ClientCa
from ucl_sandbox.csr import ExpectedSubject, accept
from ucl_sandbox.state import timestamp

KEYS, BITS, BATCH = 32, 2048, 50
Client = tuple[str, str]  # name of the connection, id at the sandbox


@dataclass(frozen=True)
class Recipe:
    """The data that all connections share. Times are aware."""

    home: Path
    state: Path
    url: str
    ca_file: Path
    not_before: datetime
    validity: timedelta


def make_fleet(
    home: Path, names: list[str], *, validity: timedelta, age: timedelta, processes: int = 1, keys: int = KEYS
) -> None:
    """Make practice connections with certificates that were signed ``age`` ago.

    Args:
        home: the home folder. None of these connections may exist in it.
        names: the names of the connections.
        validity: the lifetime of their certificates, and of those that the sandbox signs meanwhile.
        age: the age of their certificates. From half of the validity on, they are due.
        processes: the number of processes.
        keys: the number of first keys that each process makes for its connections, which take turns.
    """
    clients = [(name, str(uuid.uuid4())) for name in names]
    with Sandbox(home.absolute() / "sandbox", validity=validity) as ucl:
        url, since = ucl.certificate_secured_connector_url, datetime.now(UTC) - age
        recipe = Recipe(home.absolute(), ucl.state, url, ucl.ca_file, since, validity)
        batches = [clients[start : start + BATCH] for start in range(0, len(clients), BATCH)]
        # The folders are made here, because otherwise each process would sync the folder above them.
        for folder in (home, home / "connections"):
            files.make_directory(folder.absolute())
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_begin) as pool:
            marks = [mark for made in pool.map(_make, repeat(recipe), batches, repeat(keys)) for mark in made]
        with closing(sqlite3.connect(ucl.state / "state.sqlite")) as state, state:
            rows = [(client, ucl.application_id) for _, client in clients]
            state.executemany("INSERT INTO system_auths (id, application_id) VALUES (?, ?)", rows)
            until = timestamp(since + validity)
            issued = [(mark, client, until) for mark, (_, client) in zip(marks, clients, strict=True)]
            state.executemany("INSERT INTO certificates VALUES (?, ?, ?, NULL)", issued)
    os.sync()


def _begin() -> None:
    """Skip the validation of keys that were just made, and all syncs but the one at the end. For practice only."""
    keys.load_pem_private_key = partial(load_pem_private_key, unsafe_skip_rsa_key_validation=True)
    os.fsync = lambda _: None


@cache
def _pool(keys: int) -> list[rsa.RSAPrivateKey]:
    return [make_key(BITS) for _ in range(keys)]


@cache
def _authority(state: Path) -> tuple[ClientCa, tuple[x509.Certificate, ...]]:
    ca = ClientCa(state, "intermediate")
    return ca, tuple(authority.certificate for authority in ca.authorities)


def _make(recipe: Recipe, clients: list[Client], keys: int) -> list[str]:
    """Make some of the connections. Return their fingerprints."""
    ca, above = _authority(recipe.state)
    home, server_ca = Home(recipe.home), recipe.ca_file.read_bytes()
    settings = {"key_length": BITS, "sandbox": str(recipe.state / "ready.json")}
    facts = {"source": "make_fleet", "connectorUrl": recipe.url}
    marks = []
    for number, (name, client) in enumerate(clients):
        key, expected = _pool(keys)[number % keys], ExpectedSubject(client)
        accepted = accept(encode(make_csr(key, parse_subject(str(expected)))), expected)
        chain = (ca.sign(accepted, recipe.not_before, recipe.validity), *above)
        connection = home.connection(_folders(home, name))
        connection.write_settings(settings)
        connection.install(key, chain, above, server_ca, facts)
        marks.append(fingerprint(chain[0]))
    return marks


def _folders(home: Home, name: str) -> str:
    """Make the folders of a connection. ``Home.new`` would list the folder of all connections each time."""
    (home.path / "connections" / name / "generations").mkdir(parents=True, mode=0o700)
    (home.path / "connections" / name).chmod(0o700)
    return name


def main() -> None:
    """Make the connections, and print how long it took."""
    parser = argparse.ArgumentParser(prog="python -m tools.make_fleet", description=__doc__)
    parser.add_argument("home", type=Path, help="home folder, for practice only")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--validity", type=parse_duration, default="24h", help="of their certificates (24h)")
    parser.add_argument("--age", type=parse_duration, default="13h", help="how long ago they were signed (13h)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    names = [f"c{number:05d}" for number in range(given.connections)]
    began = time.monotonic()
    make_fleet(given.home, names, validity=given.validity, age=given.age, processes=given.processes)
    print(f"{len(names)} connections in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
