"""GraphQL over HTTP as gqlgen serves it, with the same status for each kind of failure.

It accepts POST with a JSON body and GET with a query string. OPTIONS and HEAD have their own answers. It answers
"transport not supported" to all other requests. It decodes the body like Go's `encoding/json`: names match in any case,
unknown names and text after the first value are ignored, and a value of the wrong type is an error. It does not model
persisted queries, uploads and web sockets.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from ucl_sandbox.graphql import Api, Fault, FaultyRequestError, Number, Params

JSON = "application/json"
DEFAULT_TYPE = "application/json;charset=UTF-8"
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(
    rf'[ \t]*({_WORD}/{_WORD})[ \t]*(?:;[ \t]*{_WORD}=(?:{_WORD}|"(?:[^"\\]|\\.)*")[ \t]*)*(?:;[ \t]*)?'
)
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_JSON_BLANKS = " \t\r\n"
_BODY_FIELDS: Mapping[str, type] = {
    "query": str,
    "operationname": str,
    "variables": dict,
    "extensions": dict,
    "headers": dict,
}


class _WrongTypeError(ValueError):
    """A JSON value whose type is wrong for its field."""


@dataclass(frozen=True)
class Request:
    """An HTTP request. The names in `headers` match in any case."""

    method: str
    headers: Mapping[str, str]
    query: str
    body: bytes


@dataclass(frozen=True)
class Response:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    content_type: str = DEFAULT_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)


def respond(api: Api, request: Request, caller: object) -> Response:
    """Answer a request that has been authenticated."""
    if request.method == "OPTIONS":
        return Response(200, headers={"Allow": "OPTIONS, GET, POST"})
    if request.method == "HEAD":
        return Response(405)
    upgrade = "Upgrade" in request.headers
    if request.method == "GET" and not upgrade:
        return _get(api, request, caller)
    media_type = _MEDIA_TYPE.fullmatch(request.headers.get("Content-Type", ""))
    if request.method == "POST" and not upgrade and media_type and media_type[1].lower() == JSON:
        return _post(api, request, caller)
    return _failure(400, {"message": "transport not supported"}, content_type=DEFAULT_TYPE)


def _post(api: Api, request: Request, caller: object) -> Response:
    text = request.body.decode("utf-8", "replace")
    try:
        decoded = _decode(text)
        if decoded is not None:
            params = _params(decoded)
    except ValueError as error:
        fault = Fault(f"json request body could not be decoded: {error} body:{text}")
        return _failure(400, api.present(fault))
    if decoded is None:
        return _failure(422, api.present(Fault("internal system error")))
    return _run(api, params, caller, queries_only=False)


def _get(api: Api, request: Request, caller: object) -> Response:
    if ";" in request.query or _BAD_ESCAPE.search(request.query):
        reason = "invalid semicolon separator in query" if ";" in request.query else "invalid URL escape"
        return _failure(400, {"message": reason}, content_type=DEFAULT_TYPE)
    parameters = dict(reversed(parse_qsl(request.query, keep_blank_values=True)))
    decoded: dict[str, Any] = {}
    for name in ("variables", "extensions"):
        if text := parameters.get(name):
            try:
                decoded[name] = _typed(name, _decode(text), dict)
            except ValueError:
                return _failure(400, {"message": f"{name} could not be decoded"})
    params = Params(parameters.get("query", ""), parameters.get("operationName", ""), decoded.get("variables"))
    return _run(api, params, caller, queries_only=True)


def _run(api: Api, params: Params, caller: object, *, queries_only: bool) -> Response:
    try:
        operation = api.prepare(params)
    except FaultyRequestError as error:
        return _failure(422, *(api.present(fault) for fault in error.faults))
    if queries_only and not operation.is_query:
        return _failure(406, {"message": "GET requests only allow query operations"})
    return Response(200, _encode(api.execute(operation, caller)), JSON)


def _failure(status: int, *errors: Mapping[str, Any], content_type: str = JSON) -> Response:
    return Response(status, _encode({"errors": errors, "data": None}), content_type)


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _decode(text: str) -> Any:
    """Decode the first JSON value of a text. Keep each number as it is written."""
    text = text.lstrip(_JSON_BLANKS)
    decoder = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_no_constant)
    try:
        value, _ = decoder.raw_decode(text)
    except RecursionError as error:
        raise ValueError("exceeded max depth") from error
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"invalid character '{name[0]}' looking for beginning of value")


def _params(decoded: Any) -> Params:
    """Read the known fields of a JSON object, in any case of their names. The last field of a name counts."""
    if not isinstance(decoded, dict):
        raise _WrongTypeError("json: cannot unmarshal into Go value of type graphql.RawParams")
    fields: dict[str, Any] = {}
    for name, value in decoded.items():
        kind = _BODY_FIELDS.get(name.lower())
        if kind is not None and _typed(name, value, kind) is not None:
            fields[name.lower()] = value
    return Params(fields.get("query", ""), fields.get("operationname", ""), fields.get("variables"))


def _typed(name: str, value: Any, kind: type) -> Any:
    """Return a value that is null or of the right type. Raise `_WrongTypeError` for another value."""
    if value is None or type(value) is kind:
        return value
    raise _WrongTypeError(f"json: cannot unmarshal into Go struct field RawParams.{name}")
