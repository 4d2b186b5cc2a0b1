"""The Connector: one GraphQL API at two endpoints, reached with a one-time token or with a client certificate.

It checks authentication first. If authentication fails, it answers 400 with an empty body. The first request that
carries a token uses it up, even if that request fails for another reason.
"""

import base64
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes

from ucl_sandbox.csr import CsrRefusedError, ExpectedSubject, accept
from ucl_sandbox.faults.defects import DEFECTS, Asked, right
from ucl_sandbox.faults.injection import changed_url
from ucl_sandbox.faults.plans import CERTIFICATES, URLS
from ucl_sandbox.graphql import Api, ApiError, Fault, ResolveInfo
from ucl_sandbox.landscape import Client, ClientCertificate, Landscape, authenticate_certificate
from ucl_sandbox.transport import Request, Response, respond

TOKEN_HEADER, TOKEN_PARAMETER = "connector-token", "token"
_REFUSED = Response(400)


class Connector:
    """The Connector's answers at the token endpoint and at the certificate endpoint."""

    def __init__(self, landscape: Landscape) -> None:
        self._landscape = landscape
        self._api = Api(
            "schema.graphql",
            {
                "Query.configuration": self._configuration,
                "Mutation.signCertificateSigningRequest": self._sign,
                "Mutation.revokeCertificate": self._revoke,
            },
            _present,
        )

    def by_token(self, request: Request) -> Response:
        """Answer a request at the token endpoint. A token in the header takes precedence over one in the query."""
        token = request.headers.get(TOKEN_HEADER) or parse_qs(request.query).get(TOKEN_PARAMETER, [""])[0]
        auth = self._landscape.state.use_token(token) if token else None
        if auth is None:
            return _REFUSED
        return respond(self._api, request, Client(auth["id"], auth["application_id"]))

    def by_certificate(self, request: Request, certificate: ClientCertificate) -> Response:
        """Answer a request at the certificate endpoint."""
        client = authenticate_certificate(self._landscape.state, certificate)
        return respond(self._api, request, client) if client else _REFUSED

    def _configuration(self, _: object, info: ResolveInfo) -> dict[str, Any]:
        client: Client = info.context
        director, connector = self._urls(client)
        return {
            "token": {"token": self._landscape.state.issue_token(client.id)["token"]},
            "certificateSigningRequestInfo": {
                "subject": str(ExpectedSubject(client.id)),
                "keyAlgorithm": "rsa2048",
            },
            "managementPlaneInfo": {
                "directorURL": director,
                "certificateSecuredConnectorURL": connector,
            },
        }

    def _urls(self, client: Client) -> tuple[str | None, str | None]:
        """Return the URLs of the Director and of the certificate endpoint. A fault can change one of them."""
        urls = self._landscape.urls
        director, connector = urls.certificate_director, urls.certificate_connector
        if fault := self._landscape.faults.draw(client.endpoint, "configuration", URLS):
            return changed_url(fault, "director", director), changed_url(fault, "connector", connector)
        return director, connector

    def _sign(self, _: object, info: ResolveInfo, csr: str) -> dict[str, str]:
        client: Client = info.context
        landscape = self._landscape
        try:
            accepted = accept(csr, ExpectedSubject(client.id))
        except CsrRefusedError as error:
            raise ApiError(str(error)) from error
        fault = landscape.faults.draw(client.endpoint, "sign", CERTIFICATES)
        old = client.certificate.certificate if client.certificate else None
        asked = Asked(
            landscape.ca, accepted, landscape.clock(), landscape.validity, old, fault.value if fault else None
        )
        answer = DEFECTS[fault.kind](asked) if fault else right(asked)
        landscape.state.issued(
            answer.leaf.fingerprint(hashes.SHA256()).hex(), client.id, answer.leaf.not_valid_after_utc
        )
        return {
            "certificateChain": _base64(answer.chain),
            "caCertificate": _base64(answer.ca),
            "clientCertificate": _base64(answer.client),
        }

    def _revoke(self, _: object, info: ResolveInfo) -> bool:
        client: Client = info.context
        if client.certificate is None:
            reason = "Failed to authenticate with Certificate. Invalid subject."
            raise ApiError(f"Failed to authenticate with certificate: {reason}")
        not_after = client.certificate.certificate.not_valid_after_utc
        self._landscape.state.revoke(client.certificate.fingerprint, client.id, not_after)
        return True


def _present(fault: Fault) -> dict[str, Any]:
    entry: dict[str, Any] = {"message": fault.message}
    if fault.path is not None:
        entry["path"] = fault.path
    if fault.code is not None:
        entry["extensions"] = {"code": fault.code}
    return entry


def _base64(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
