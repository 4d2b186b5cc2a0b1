"""The Director, which registers applications and issues one-time tokens.

A user sends the bearer token and names the tenant. An application presents its client certificate. The Director has
only the operations that a connection needs. The bearer token is opaque, so the Director reads nothing from it. It does
not model scopes, runtimes, filters, or labels other than those of a new application.
"""

import base64
import json
import secrets
import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ucl_sandbox.graphql import Api, ApiError, Fault, ResolveInfo
from ucl_sandbox.landscape import ClientCertificate, Landscape, Urls, authenticate_certificate
from ucl_sandbox.state import NotUniqueError, normalised
from ucl_sandbox.transport import JSON, Request, Response, respond

_NEVER = "0001-01-01T00:00:00Z"
_CURSOR_PREFIX = "sandbox:"


def as_application(landscape: Landscape, row: sqlite3.Row) -> dict[str, Any]:
    """Return an `Application`. Fields that it leaves out are null in the answer."""
    return {
        "id": row["id"],
        "name": row["name"],
        "providerName": row["provider"],
        "description": row["description"],
        "labels": json.loads(row["labels"]),
        "status": {"condition": row["condition"], "timestamp": _seconds(row["changed_at"])},
        "auths": [as_auth(landscape, auth) for auth in landscape.state.system_auths(row["id"])],
        "createdAt": _seconds(row["created_at"]),
    }


def as_page(landscape: Landscape, rows: Sequence[sqlite3.Row], total: int, offset: int, start: str) -> dict[str, Any]:
    """Return an `ApplicationPage`. An empty cursor means that there is no page in that direction."""
    reached = offset + len(rows)
    more = reached < total
    end = base64.urlsafe_b64encode(f"{_CURSOR_PREFIX}{reached}".encode()).decode() if more else ""
    return {
        "data": [as_application(landscape, row) for row in rows],
        "totalCount": total,
        "pageInfo": {"startCursor": start, "endCursor": end, "hasNextPage": more},
    }


def offset_of(cursor: str) -> int:
    """Return the offset in a cursor. Raise ValueError if this Director did not issue the cursor."""
    if not cursor:
        return 0
    text = base64.urlsafe_b64decode(cursor).decode()
    if not text.startswith(_CURSOR_PREFIX):
        raise ValueError(cursor)
    return int(text.removeprefix(_CURSOR_PREFIX))


def as_auth(landscape: Landscape, row: sqlite3.Row) -> dict[str, Any]:
    """Return an `AppSystemAuth`. It lists no certificates, and has no credential other than a one-time token."""
    token = as_token(landscape.urls, row, suggested=False) if row["token"] else None
    return {
        "__typename": "AppSystemAuth",
        "id": row["id"],
        "auth": {"oneTimeToken": token, "certCommonName": ""},
        "type": "APPLICATION",
        "tenantId": landscape.state.internal_tenant,
        "referenceObjectId": row["application_id"],
    }


def as_token(urls: Urls, row: sqlite3.Row, *, suggested: bool) -> dict[str, Any]:
    """Return a `OneTimeTokenForApplication`. `suggested` replaces the token by its encoded form."""
    used = row["used_at"] is not None
    raw = json.dumps(
        {
            "token": row["token"],
            "connectorURL": urls.connector,
            "used": used,
            "expiresAt": _shortest(row["expires_at"]),
            "createdAt": _shortest(row["created_at"]),
            "usedAt": _shortest(row["used_at"]) if used else _NEVER,
            "type": "Application",
            "scenario_groups": [],
        },
        separators=(",", ":"),
    )
    encoded = base64.b64encode(raw.encode()).decode()
    return {
        "__typename": "OneTimeTokenForApplication",
        "token": encoded if suggested else row["token"],
        "connectorURL": urls.connector,
        "legacyConnectorURL": f"{urls.legacy_connector}?token={row['token']}",
        "used": used,
        "expiresAt": _seconds(row["expires_at"]),
        "createdAt": _seconds(row["created_at"]),
        "usedAt": _seconds(row["used_at"]) if used else _NEVER,
        "raw": raw,
        "rawEncoded": encoded,
        "type": "Application",
        "scenarioGroups": [],
    }


def _seconds(stamp: str) -> str:
    """Return a timestamp without its fraction."""
    return stamp.partition(".")[0] + "Z"


def _shortest(stamp: str) -> str:
    """Return a timestamp as Go writes it, without trailing zeros in its fraction."""
    return stamp.removesuffix("Z").rstrip("0").removesuffix(".") + "Z"


_NAME_LIMIT = 100
_PAGE_LIMIT = 200


@dataclass(frozen=True)
class _Caller:
    """The caller of the Director.

    Attributes:
        type: "USER" or "APPLICATION".
        id: None if the client certificate was refused.
        tenant: Whether the request names the tenant.
        suggest_token: Whether the caller asked for the encoded form of a one-time token.
        scopes: False if the database is down, so that the Director cannot look up the user's permissions.
    """

    type: str
    id: str | None
    tenant: bool
    suggest_token: bool
    scopes: bool = True


class Director:
    """The Director's answers at its own endpoint and at the certificate listener."""

    def __init__(self, landscape: Landscape) -> None:
        self._landscape, self._state = landscape, landscape.state
        self._api = Api(
            "director.graphql",
            {
                "Query.viewer": self._viewer,
                "Query.application": self._application,
                "Query.applications": self._applications,
                "Mutation.registerApplication": self._register,
                "Mutation.unregisterApplication": self._unregister,
                "Mutation.requestOneTimeTokenForApplication": self._request_token,
                "Mutation.deleteSystemAuthForApplication": self._delete_auth,
                "Application.labels": _labels,
            },
            _present,
        )

    def by_bearer(self, request: Request, *, database: bool = True) -> Response:
        """Answer a user, who must send the bearer token. `database` says whether the Director's database is up."""
        bearer = request.headers.get("Authorization", "")
        if not bearer:
            return _refusal(400, "Unauthorized [reason=invalid bearer token]", "Unauthorized", 26)
        if not secrets.compare_digest(bearer.removeprefix("Bearer ").encode(), self._state.bearer.encode()):
            reason = "token contains an invalid number of segments"
            return _refusal(401, f"Unauthorized [reason={reason}]", "Unauthorized", 26)
        tenant = request.headers.get("Tenant", "")
        if database and tenant not in {"", self._state.tenant}:
            return _unknown_tenant(tenant)
        caller = _Caller("USER", self._state.user, bool(tenant), _suggested(request), database)
        return respond(self._api, request, caller)

    def by_certificate(self, request: Request, certificate: ClientCertificate, *, database: bool = True) -> Response:
        """Answer an application, which need not name the tenant. `database` is as for a user."""
        tenant = request.headers.get("Tenant", "")
        if database and tenant not in {"", self._state.tenant}:
            return _unknown_tenant(tenant)
        client = authenticate_certificate(self._state, certificate) if database else None
        if client is not None:
            self._state.connected(client.application_id)
        id_ = client.application_id if client else None
        return respond(self._api, request, _Caller("APPLICATION", id_, True, _suggested(request)))

    # -- resolvers -----------------------------------------------------------------------------------------------------

    def _viewer(self, _: object, info: ResolveInfo) -> dict[str, str]:
        caller = _caller_of(info)
        return {"id": str(caller.id), "type": caller.type}

    def _application(self, _: object, info: ResolveInfo, **arguments: Any) -> dict[str, Any] | None:
        _in_tenant(info)
        row = self._state.application(_uuid(arguments["id"]))
        return as_application(self._landscape, row) if row else None

    def _applications(
        self, _: object, info: ResolveInfo, first: int | None = None, after: str | None = None
    ) -> dict[str, Any]:
        _in_tenant(info)
        if first is None:
            _fail("Invalid data [reason=missing required parameter 'first']", "InvalidData", 22)
        if not 1 <= first <= _PAGE_LIMIT:
            _fail(f"Invalid data [reason=page size must be between 1 and {_PAGE_LIMIT}]", "InvalidData", 22)
        try:
            offset = offset_of(after or "")
        except ValueError:
            _internal_error()
        rows, total = self._state.applications(first, offset)
        return as_page(self._landscape, rows, total, offset, after or "")

    def _register(self, _: object, info: ResolveInfo, **arguments: Any) -> dict[str, Any]:
        _in_tenant(info)
        fields = arguments["in"]
        name: str = fields["name"]
        if not name:
            _fail("Invalid data ApplicationRegisterInput [name=cannot be blank]", "InvalidData", 22)
        if len(name) > _NAME_LIMIT:
            reason = f"name=the length must be between 1 and {_NAME_LIMIT}"
            _fail(f"Invalid data ApplicationRegisterInput [{reason}]", "InvalidData", 22)
        labels = {**(fields.get("labels") or {}), "managed": "false", "name": normalised(name)}
        try:
            row = self._state.register(name, fields.get("providerName"), fields.get("description"), json.dumps(labels))
        except NotUniqueError:
            _fail("Object name is not unique [object=application]", "NotUniqueName", 31)
        return as_application(self._landscape, row)

    def _unregister(self, _: object, info: ResolveInfo, **arguments: Any) -> dict[str, Any]:
        _in_tenant(info)
        row = self._state.application(_uuid(arguments["id"])) or _not_found("application")
        application = as_application(self._landscape, row)
        self._state.unregister(row["id"])
        return application

    def _request_token(self, _: object, info: ResolveInfo, **arguments: Any) -> dict[str, Any]:
        caller = _in_tenant(info)
        id_ = _uuid(arguments["id"])
        if self._state.application(id_) is None:
            _not_found("application")
        auth_id = arguments.get("systemAuthID")
        if auth_id is None:
            auth = self._state.new_system_auth(id_)
        else:
            existing = self._state.system_auth(_uuid(auth_id))
            if existing is None or existing["application_id"] != id_:
                _not_found("systemAuth")
            auth = self._state.issue_token(auth_id)
        return as_token(self._landscape.urls, auth, suggested=caller.suggest_token)

    def _delete_auth(self, _: object, info: ResolveInfo, **arguments: Any) -> dict[str, Any]:
        _in_tenant(info)
        row = self._state.delete_system_auth(_uuid(arguments["authID"])) or _not_found("systemAuth")
        return as_auth(self._landscape, row)


def _labels(application: dict[str, Any], _: ResolveInfo, key: str | None = None) -> dict[str, Any]:
    labels: dict[str, Any] = application["labels"]
    return labels if key is None else {name: value for name, value in labels.items() if name == key}


def _suggested(request: Request) -> bool:
    return request.headers.get("suggest_token") == "true"


def _caller_of(info: ResolveInfo) -> _Caller:
    """Return the caller. If its certificate was refused, fail with an internal error, as the real Director does."""
    caller: _Caller = info.context
    if caller.id is None:
        _internal_error()
    return caller


def _in_tenant(info: ResolveInfo) -> _Caller:
    caller = _caller_of(info)
    if not caller.scopes:
        required = "application:write" if info.parent_type.name == "Mutation" else "application:read"
        _fail(f"insufficient scopes provided [actual=; required={required}]", "InsufficientScopes", 23)
    if not caller.tenant:
        _fail("Tenant is required", "TenantRequired", 24)
    return caller


def _uuid(text: str) -> str:
    """Return an id in its normal form. If it is not a UUID, fail with the same internal error as the real Director."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        _internal_error()


# -- errors, each with a message, a name and a number ------------------------------------------------------------------


def _fail(message: str, error: str, code: int) -> NoReturn:
    raise ApiError(message, error=error, error_code=code)


def _not_found(what: str) -> NoReturn:
    _fail(f"Object not found [object={what}]", "NotFound", 20)


def _internal_error() -> NoReturn:
    _fail(f"Internal Server Error [errorID={uuid.uuid4()}]", "InternalError", 10)


def _present(fault: Fault) -> dict[str, Any]:
    """Present a fault of the request as an internal error, with the reason in the message."""
    place = "input:1" if fault.located else "input"
    message = f"Internal Server Error [errorID={uuid.uuid4()}, reason: {place}: {fault.message}]"
    return {"message": message, "extensions": {"error": "InternalError", "error_code": 10}}


def _refusal(status: int, message: str, error: str, code: int) -> Response:
    entry = {"message": message, "extensions": {"error": error, "error_code": code}}
    return Response(status, json.dumps({"errors": [entry], "data": None}).encode(), JSON)


def _unknown_tenant(tenant: str) -> Response:
    return _refusal(400, f"Tenant not found [externalTenant={tenant}]", "TenantNotFound", 25)
