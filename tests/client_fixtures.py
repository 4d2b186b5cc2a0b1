"""pytest fixtures: a connection, and a service of the user's own that asks for its certificate."""

import pytest
from client_service import service
from steps import install
from tls_servers import Authority

from ucl_helpers.connection.store import Home


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "the service's CA")


@pytest.fixture(scope="module")
def identity(authority):
    return authority.issue("service")


@pytest.fixture
def connection(ucl, clock, tmp_path):
    clock.set(minutes=-10)
    made = install(Home(tmp_path / "home"), ucl, tmp_path)
    clock.set()
    return made


@pytest.fixture
def mine(connection, identity):
    """A service for whom the sandbox has certified."""
    with service(identity, connection.current.path / "client-ca.pem") as running:
        yield running
