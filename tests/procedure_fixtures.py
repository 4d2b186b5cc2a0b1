"""Fixtures for the tests of procedures; a plugin: ``pytest_plugins = ["procedure_fixtures"]``."""

from functools import partial

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from meddler import Meddler
from quick_keys import QUICK_BITS, RestingKeys
from steps import Clock, install

from ucl_helpers.connection.store import Home
from ucl_helpers.keys import make_key
from ucl_helpers.models import OneTimeToken
from ucl_helpers.procedures import procedure
from ucl_helpers.procedures.establishment import DirectorAccess
from ucl_helpers.wire import client
from ucl_sandbox import Sandbox


@pytest.fixture(scope="session")
def keys():
    """One key after another; no two tests in a row get the same."""
    return RestingKeys()


@pytest.fixture(scope="module")
def clock():
    """The sandbox's clock; TLS goes by the system's."""
    return Clock()


@pytest.fixture(scope="module")
def ucl(clock):
    with Sandbox(clock=clock) as running:
        yield running


@pytest.fixture
def between(ucl, clock, keys, tmp_path, monkeypatch):
    """The sandbox behind a man in the middle; no call is repeated by the client itself, quick keys are ready."""
    clock.set()
    monkeypatch.setattr(procedure, "make_key", lambda bits: next(keys) if bits == QUICK_BITS else make_key(bits))
    monkeypatch.setattr(client, "BACKOFF_SECONDS", ())
    unproved = partial(load_pem_private_key, unsafe_skip_rsa_key_validation=True)  # primes are slow to prove
    monkeypatch.setattr("ucl_helpers.keys.load_pem_private_key", unproved)
    with Meddler(ucl, tmp_path) as meddler:
        yield meddler


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def secure(home, ucl, clock, between, tmp_path):
    """A connection that is reached through the man in the middle, its identity an hour old."""
    clock.set(hours=-1)
    connection = install(home, ucl, tmp_path, url=between.certificate_secured_connector_url)
    clock.set()
    return connection


@pytest.fixture
def due(home, ucl, clock, between, tmp_path):
    """A connection that is due: its certificate is 80 of 90 days old."""
    clock.set(days=-80)
    connection = install(home, ucl, tmp_path, url=between.certificate_secured_connector_url)
    clock.set()
    return connection


@pytest.fixture
def new(home):
    """A connection that is not established yet."""
    connection = home.new("new")
    connection.write_settings({"key_length": QUICK_BITS})
    return connection


@pytest.fixture
def another(ucl, between):
    """Gives one fresh token after the other."""
    return lambda: OneTimeToken(ucl.one_time_token(), between.connector_url)


@pytest.fixture
def token(ucl, between):
    return OneTimeToken(ucl.one_time_token(), between.connector_url)


@pytest.fixture
def director(ucl, between):
    return DirectorAccess(between.director_url, ucl.tenant, ucl.application_id, ucl.director_token, ucl.ca_file)
