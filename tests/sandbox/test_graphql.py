"""GraphQL and its transport: status, code and path of what goes wrong, as gqlgen gives them."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from contract_replay import SIGN, Landscape
from tornado.httputil import HTTPHeaders

from ucl_sandbox import Sandbox
from ucl_sandbox.connector import Connector
from ucl_sandbox.landscape import Client
from ucl_sandbox.transport import DEFAULT_TYPE, JSON, Request, Response, respond

FIELD = "configuration{token{token}}"
PARSE, VALIDATION = "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"
BAD_CSR = 'signCertificateSigningRequest(csr:"bad!"){caCertificate}'


class Endpoint:
    """The Connector's GraphQL without TLS and tokens."""

    def __init__(self, connector: Connector, client: Client) -> None:
        self.connector, self.client = connector, client

    def send(self, method: str, query: str = "", body: bytes = b"", headers: dict[str, str] | None = None) -> Response:
        given = {"Content-Type": JSON} if headers is None else headers
        return respond(self.connector._api, Request(method, HTTPHeaders(given), query, body), self.client)

    def ask(self, query: str, **more: object) -> Response:
        return self.send("POST", body=json.dumps({"query": query, **more}).encode())


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with Sandbox(tmp_path_factory.mktemp("state")) as ucl:
        auth = ucl._memory.new_system_auth(ucl.application_id)
        yield Endpoint(ucl._listeners._connector, Client(auth["id"], ucl.application_id))


def errors_of(answer: Response) -> list[tuple[str | None, list[str] | None]]:
    errors = json.loads(answer.body).get("errors", [])
    return [((error.get("extensions") or {}).get("code"), error.get("path")) for error in errors]


@pytest.mark.parametrize(
    "query",
    [
        "{%s}", "query A{%s}", "query(){%s}", "# c\n{%s}", ",,{%s},,", "\ufeff{%s}", "{a:%s b:%s}", "{%s %s}",
        "fragment F on Query{%s} {...F}", "{... on Query{%s}}", "{%s @include(if:true)}",
        "query A{%s} fragment F on Token{token} query B{configuration{token{...F}}}",
    ],
)  # fmt: skip
def test_what_is_executed(endpoint: Endpoint, query: str) -> None:
    text = query.replace("%s @", "configuration @").replace("(if:true)", "(if:true){token{token}}").replace("%s", FIELD)
    answer = endpoint.ask(text, operationName="A" if "query B" in text else None)
    assert (answer.status, answer.content_type, errors_of(answer)) == (200, JSON, [])


@pytest.mark.parametrize(
    "query",
    [
        "{", "}", "{}", "query {}", "{configuration{}}", "hello", "query", "query A", "{1}", "{a(b:)}", '{a(b:"x)}',
        '{a(b:"\n")}', '{a(b:"\\q")}', "{a(b:01)}", "{a..b}", "{?}", "{...}", "{a@}", "query($){a}", "query($a){a}",
        "type A{b:Int}", "schema{query:Q}", "extend type Query{a:Int}", '"text" {a}', "directive @a on FIELD",
        "fragment on on Query{a}", "{configuration{token{token}}", "{configuration{token{token}}}}",
    ],
)  # fmt: skip
def test_what_is_no_graphql(endpoint: Endpoint, query: str) -> None:
    answer = endpoint.ask(query)
    assert (answer.status, answer.content_type, errors_of(answer)) == (422, JSON, [(PARSE, None)])


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 1), ("#c", 1), ("fragment F on Query{%s}", 1), ("{nope}", 1), ("{nope other}", 2), ("{configuration}", 1),
        ("{configuration{token{nope} nope}}", 2), ("{configuration(a:1){token{token}}}", 1), ("{...F}", 1),
        ("{%s} fragment F on Query{%s}", 1), ("query A{%s} query A{%s}", 1), ("{%s} query B{%s}", 1),
        ("{%s} {%s}", 3), ("query A{%s} query B{%s}", 1), ("query($a:Int){%s}", 1),
        ("{configuration @skip{token{token}}}", 1),
        ("{configuration @nope{token{token}}}", 1), ("{configuration(a:$b){token{token}}}", 2), ("subscription{x}", 1),
        ("{revokeCertificate}", 1), ("mutation{revokeCertificate{a}}", 2), ("mutation{revokeCertificate(a:1)}", 1),
        ("mutation{signCertificateSigningRequest(csr:null){caCertificate}}", 1),
        ("mutation{signCertificateSigningRequest(csr:true){caCertificate}}", 1),
        ("mutation{signCertificateSigningRequest{caCertificate}}", 1),
        ('mutation{signCertificateSigningRequest(crs:"x"){caCertificate}}', 2),
    ],
)  # fmt: skip
def test_what_is_not_valid(endpoint: Endpoint, query: str, count: int) -> None:
    answer = endpoint.ask(query.replace("%s", FIELD))
    assert (answer.status, errors_of(answer)) == (422, [(VALIDATION, None)] * count)


@pytest.mark.parametrize(
    ("name", "status"),
    [("A", 200), ("B", 200), ("C", 422), ("a", 422), ("", 422), (None, 422), (5, 400), (True, 400), ([], 400)],
)
def test_the_operation_is_found_by_name(endpoint: Endpoint, name: object, status: int) -> None:
    assert endpoint.ask("query A{__typename} query B{__typename}", operationName=name).status == status


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"csr": None}, ["variable", "csr"]),
        ({}, ["variable", "csr"]),
        (None, ["variable", "csr"]),
        ({"CSR": "x"}, ["variable", "csr"]),
        ({"csr": True}, ["variable", "csr"]),
        ({"csr": ["x"]}, ["variable", "csr"]),
        ({"csr": {"a": "x"}}, ["variable", "csr"]),
    ],
)
def test_a_variable_of_another_type(endpoint: Endpoint, variables: object, path: list[str]) -> None:
    answer = endpoint.ask(SIGN, variables=variables)
    assert (answer.status, errors_of(answer)) == (422, [(VALIDATION, path)])


@pytest.mark.parametrize("value", ["x", "", 5, 5.5, 1e30])
def test_a_number_is_a_fine_string(endpoint: Endpoint, value: object) -> None:
    answer = endpoint.ask(SIGN, variables={"csr": value, "other": []})
    assert (answer.status, errors_of(answer)) == (200, [(None, ["result"])])


def test_a_text_that_is_known_is_answered_anew(endpoint: Endpoint) -> None:
    query = "query($all:Boolean!){configuration{token{token} managementPlaneInfo @include(if:$all){directorURL}}}"
    answers = [json.loads(endpoint.ask(query, variables={"all": one}).body) for one in (True, False, True)]
    found = [one["data"]["configuration"] for one in answers]
    assert ["managementPlaneInfo" in one for one in found] == [True, False, True]
    assert len({one["token"]["token"] for one in found}) == 3


def test_a_text_that_cannot_be_executed_is_refused_each_time(endpoint: Endpoint) -> None:
    assert [endpoint.ask("{nothing}").status for _ in range(2)] == [422, 422]
    assert [endpoint.ask("query($a:Int!){configuration{token{token}}}", variables=one).status for one in ({}, {})] == [
        422,
        422,
    ]


def test_every_field_of_a_mutation_is_executed(endpoint: Endpoint) -> None:
    answer = endpoint.ask(f"mutation{{a:{BAD_CSR} b:{BAD_CSR}}}")
    assert (answer.status, errors_of(answer)) == (200, [(None, ["a"]), (None, ["b"])])
    assert json.loads(answer.body)["data"] is None


GOOD = b'{"query":"{__typename}"}'


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (GOOD, 200),
        (b" \n" + GOOD + b" and more", 200),
        (b'{"QUERY":"{__typename}"}', 200),
        (b'{"query":"{nope}","Query":"{__typename}"}', 200),
        (b'{"query":"{__typename}","other":[1,{}],"variables":null}', 200),
        (b'{"query":"{__typename} #\xff"}', 200),
        (b"\xef\xbb\xbf" + GOOD, 400),
        (GOOD[:-1], 400),
        (GOOD[:-1] + b",}", 400),
        (b'{"query":5}', 400),
        (b'{"query":"{__typename}","variables":"{}"}', 400),
        (b'{"query":"{__typename}","variables":{"a":NaN}}', 400),
        (b'{"query":"{__typename}","variables":{"a":01}}', 400),
        (b'{"query":"{__typename}","extensions":5}', 400),
        (b'{"query":"\t{__typename}"}', 400),
        (b"[]", 400),
        (b'"x"', 400),
        (b"5", 400),
        (b"true", 400),
        (b"", 400),
        (b"nul", 400),
        (b"null", 422),
        (b"{}", 422),
        (b'{"query":null}', 422),
    ],
)
def test_the_body_is_read_as_go_does(endpoint: Endpoint, body: bytes, status: int) -> None:
    answer = endpoint.send("POST", body=body)
    assert (answer.status, answer.content_type) == (status, JSON)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json;",
        "application/json; charset=utf-8",
        'application/json;a="b c"',
    ],
)
def test_content_types_that_are_json(endpoint: Endpoint, content_type: str) -> None:
    assert endpoint.send("POST", body=GOOD, headers={"Content-Type": content_type}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset"},
        {"Content-Type": "application/json, text/plain"},
        {"Content-Type": "application/graphql+json"},
    ],
)
def test_content_types_that_are_not(endpoint: Endpoint, headers: dict[str, str]) -> None:
    answer = endpoint.send("POST", body=GOOD, headers=headers)
    assert (answer.status, answer.content_type) == (400, DEFAULT_TYPE)
    assert b"transport not supported" in answer.body


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_supported(endpoint: Endpoint, method: str) -> None:
    assert b"transport not supported" in endpoint.send(method, body=GOOD).body


def test_options_and_head(endpoint: Endpoint) -> None:
    options = endpoint.send("OPTIONS")
    assert (options.status, options.headers["Allow"], options.body) == (200, "OPTIONS, GET, POST", b"")
    assert endpoint.send("HEAD").status == 405


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("query=" + quote("{__typename}"), 200),
        ("query=" + quote("{__typename}") + "&variables=null&extensions=%7B%7D", 200),
        ("query=" + quote("{__typename}") + "&query=nope", 200),
        ("query=" + quote("query A{__typename} mutation B{revokeCertificate}") + "&operationName=A", 200),
        ("query=" + quote("query A{__typename} mutation B{revokeCertificate}") + "&operationName=B", 406),
        ("query=" + quote("mutation{revokeCertificate}"), 406),
        ("query=" + quote("mutation{nope}"), 422),
        ("query=" + quote("{__typename}") + "&operationName=Z", 422),
        ("QUERY=" + quote("{__typename}"), 422),
        ("query=", 422),
        ("", 422),
        ("query=" + quote("{__typename}") + "&variables=[]", 400),
        ("query=" + quote("{__typename}") + "&extensions=5", 400),
        ("query=" + quote("{__typename}") + ";a=b", 400),
        ("query=%zz", 400),
    ],
)
def test_get(endpoint: Endpoint, query: str, status: int) -> None:
    assert endpoint.send("GET", query, headers={}).status == status


def test_revoking_takes_a_certificate(tmp_path: Path) -> None:
    with Sandbox() as ucl:
        landscape = Landscape(ucl, ucl.one_time_token)
        answer = landscape.at_token('{"query":"mutation{revokeCertificate}"}', landscape.new_token())
        assert json.loads(answer.body)["errors"][0]["path"] == ["revokeCertificate"]
        assert landscape.establish(tmp_path).call('{"query":"mutation{result:revokeCertificate}"}').result is True
