"""How a sandbox is reached, in memory and as the ready file that tells other processes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, repr=False)
class Access:
    """How to reach a running sandbox. Its `repr` shows no secret.

    Attributes:
        pid: The sandbox's process.
        director_url: The Director, for a user with the bearer token.
        director_token: That bearer token.
        tenant: What the `Tenant` header has to say.
        application_id: An application that is registered already.
        connector_url: The token endpoint.
        certificate_secured_connector_url: The certificate endpoint.
        ca_file: The CA certificate that verifies the servers.
        state: The sandbox's state folder.
    """

    pid: int
    director_url: str
    director_token: str
    tenant: str
    application_id: str
    connector_url: str
    certificate_secured_connector_url: str
    ca_file: Path
    state: Path

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.connector_url}, process {self.pid}, state {self.state}>"

    def to_json(self) -> str:
        """The content of a ready file."""
        return json.dumps(
            {
                "pid": self.pid,
                "directorUrl": self.director_url,
                "directorToken": self.director_token,
                "tenant": self.tenant,
                "applicationId": self.application_id,
                "connectorUrl": self.connector_url,
                "certificateSecuredConnectorUrl": self.certificate_secured_connector_url,
                "caFile": str(self.ca_file),
            },
            indent=2,
        )


def fields_of(ready_file: str, state: Path) -> dict[str, Any]:
    """Reads a ready file's content into the fields of an `Access`.

    Raises:
        ValueError, KeyError: It is not the content of a ready file.
    """
    content = json.loads(ready_file)
    return {
        "pid": int(content["pid"]),
        "director_url": content["directorUrl"],
        "director_token": content["directorToken"],
        "tenant": content["tenant"],
        "application_id": content["applicationId"],
        "connector_url": content["connectorUrl"],
        "certificate_secured_connector_url": content["certificateSecuredConnectorUrl"],
        "ca_file": Path(content["caFile"]),
        "state": state,
    }
