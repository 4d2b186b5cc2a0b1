"""Keep a UCL client certificate alive: establish a connection, renew it, revoke it.

::

    import ucl_helpers as ucl

    connection = ucl.Home().connection("prod")
    ucl.renew(connection, only_if_due=True)
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from ucl_helpers.connection.references import resolve
    from ucl_helpers.connection.status import Status, status_of
    from ucl_helpers.connection.store import Connection, Home
    from ucl_helpers.errors import UCLError
    from ucl_helpers.models import Outcome
    from ucl_helpers.operations import read_token
    from ucl_helpers.procedures.establishment import DirectorAccess, Establishment, establish
    from ucl_helpers.procedures.importing import import_identity, read_identity
    from ucl_helpers.procedures.renewal import Renewal, renew
    from ucl_helpers.procedures.revocation import forget, require_consent, revoke, valid_identities
    from ucl_helpers.procedures.rollback import rollback

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

_MODULES = {
    "errors": ["UCLError"],
    "procedures.establishment": ["DirectorAccess", "Establishment", "establish"],
    "procedures.importing": ["import_identity", "read_identity"],
    "procedures.rollback": ["rollback"],
    "models": ["Outcome"],
    "operations": ["read_token"],
    "connection.references": ["resolve"],
    "procedures.renewal": ["Renewal", "renew"],
    "procedures.revocation": ["forget", "require_consent", "revoke", "valid_identities"],
    "connection.status": ["Status", "status_of"],
    "connection.store": ["Connection", "Home"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


if not typing.TYPE_CHECKING:  # for a type checker, a name that is not imported above is an error

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used (PEP 562), so that one module does not load all the others."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
