"""Keep a UCL client certificate alive: establish a connection, renew it, revoke it.

::

    import ucl_helpers as ucl

    connection = ucl.Home().connection("prod")
    ucl.renew(connection, only_if_due=True)
"""

from ucl_helpers.errors import UCLError
from ucl_helpers.establish import DirectorAccess, Establishment, establish
from ucl_helpers.importing import import_identity, read_identity
from ucl_helpers.lifecycle import forget, rollback
from ucl_helpers.models import Outcome
from ucl_helpers.operations import read_token
from ucl_helpers.references import resolve
from ucl_helpers.renewal import Renewal, renew
from ucl_helpers.revocation import require_consent, revoke, valid_identities
from ucl_helpers.status import Status, status_of
from ucl_helpers.store import Connection, Home

__version__ = "0.1.0"

__all__ = [
    "Connection",
    "DirectorAccess",
    "Establishment",
    "Home",
    "Outcome",
    "Renewal",
    "Status",
    "UCLError",
    "establish",
    "forget",
    "import_identity",
    "read_identity",
    "read_token",
    "renew",
    "require_consent",
    "resolve",
    "revoke",
    "rollback",
    "status_of",
    "valid_identities",
]
