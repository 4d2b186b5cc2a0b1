"""What spares the tests of faults their waiting; a plugin, beside ``procedure_fixtures``."""

from functools import partial

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ucl_helpers.procedures import procedure
from ucl_helpers.wire import client


@pytest.fixture(scope="module")
def quick(keys):
    """Tries follow one another at once, and quick keys are ready."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(procedure, "make_key", lambda bits: next(keys))
        patch.setattr(client, "BACKOFF_SECONDS", (0.0,) * len(client.BACKOFF_SECONDS))
        unproved = partial(load_pem_private_key, unsafe_skip_rsa_key_validation=True)
        patch.setattr("ucl_helpers.keys.load_pem_private_key", unproved)
        yield
