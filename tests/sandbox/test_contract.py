"""Every recorded answer of the real Connector, and the sandbox's answer to the same request."""

import json
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_csrs import CSRS, wrapped
from contract_replay import (
    CONFIGURATION,
    JSON_TYPE,
    Answer,
    Landscape,
    differences,
    graphql,
    load,
    send,
    trusting,
)

from ucl_sandbox import Sandbox

CASES = {case["name"]: case for case in load("cases.json")}
INLINE_CSR = re.compile(r'(csr: ")[^"]*(")')
FORM_TYPE = {"Content-Type": "application/x-www-form-urlencoded"}
SIGN_INLINE = CASES["sign-rsa4096-inline"]["requestBody"]
# Cases that curl sent are recorded without their request: this is what their `sent` describes.
CURL_BODIES: dict[str, tuple[str, dict[str, str]]] = {
    "curl-config": (graphql(CONFIGURATION), JSON_TYPE),
    "curl-default-content-type": (graphql(CONFIGURATION), FORM_TYPE),
    "curl-multiline-json": ('{"query": "query {\n  result: configuration { token { token } }\n}"}', JSON_TYPE),
    "curl-sign-wrapped-joined": (SIGN_INLINE, JSON_TYPE),
}


@pytest.fixture(scope="module")
def root_layout() -> Iterator[Landscape]:
    with Sandbox(ca_layout="root") as ucl:
        yield Landscape(ucl, ucl.one_time_token)


@pytest.fixture(scope="module")
def intermediate_layout() -> Iterator[Landscape]:
    with Sandbox() as ucl:
        yield Landscape(ucl, ucl.one_time_token)


def request_of(case: dict[str, Any], client_id: str) -> tuple[str, dict[str, str]]:
    """The body and the headers to send, with a CSR of the client's own in the place of the recorded one."""
    name = case["name"]
    body, headers = CURL_BODIES.get(name, (case["requestBody"], case["requestHeaders"]))
    make = wrapped("") if name == "curl-sign-wrapped-joined" else CSRS.get(name)
    if make is not None:
        decoded = json.loads(body)
        csr = make(client_id)
        if "variables" in decoded:
            decoded["variables"]["csr"] = csr
        else:
            decoded["query"] = INLINE_CSR.sub(lambda found: found[1] + csr + found[2], decoded["query"])
        body = json.dumps(decoded)
    if name == "gql-big-body":
        body = graphql("#" + "a" * 2_097_152 + "\n" + CONFIGURATION)
    return body, {key: value for key, value in headers.items() if key != "connector-token"}


def replay_at_token(landscape: Landscape, case: dict[str, Any], client_id: str, token: str | None) -> Answer:
    body, headers = request_of(case, client_id)
    query = {key: value.replace("{one-time token}", token or "") for key, value in case.get("requestQuery", {}).items()}
    if token is not None and "token" not in query:
        headers["connector-token"] = token
    return send(landscape.ucl.connector_url, landscape.context, body, headers, method=case["method"], query=query)


def has_token(case: dict[str, Any]) -> bool:
    return case["name"].startswith("curl") or "{one-time token}" in str(
        (case["requestHeaders"], case.get("requestQuery"))
    )


AT_TOKEN = [name for name, case in CASES.items() if case["endpoint"] == "token"]
AFTER_ANOTHER = {
    "config-token-used": "config-token-full",
    "burn-2-good-sign-same-token": "burn-1-failed-sign",
}
BY_THEMSELVES = {
    "config-unknown-token-token",
    "sign-intermediate-layout",
    "cert-config-token-then-used-on-token-listener",
    *AFTER_ANOTHER,
}


@pytest.mark.parametrize("name", [name for name in AT_TOKEN if name not in BY_THEMSELVES])
def test_at_the_token_endpoint(name: str, root_layout: Landscape) -> None:
    client_id, token = root_layout.configure()
    case = CASES[name]
    answer = replay_at_token(root_layout, case, client_id, token if has_token(case) else None)
    assert differences(case, answer) == []


@pytest.mark.parametrize("name", AFTER_ANOTHER)
def test_a_token_is_used_up_by_the_case_before(name: str, root_layout: Landscape) -> None:
    client_id, token = root_layout.configure()
    before = CASES[AFTER_ANOTHER[name]]
    assert differences(before, replay_at_token(root_layout, before, client_id, token)) == []
    assert differences(CASES[name], replay_at_token(root_layout, CASES[name], client_id, token)) == []


def test_config_unknown_token_token(root_layout: Landscape) -> None:
    case = CASES["config-unknown-token-token"]
    assert differences(case, replay_at_token(root_layout, case, "", secrets.token_urlsafe(64))) == []


def test_sign_intermediate_layout(intermediate_layout: Landscape) -> None:
    """Recorded behind the gateway, where a header says who asks; here a token does."""
    case = CASES["sign-intermediate-layout"]
    client_id, token = intermediate_layout.configure()
    assert differences(case, replay_at_token(intermediate_layout, case, client_id, token)) == []


def test_cert_config_token_then_used_on_token_listener(root_layout: Landscape, tmp_path: Path) -> None:
    client = root_layout.establish(tmp_path)
    token = client.call(graphql(CONFIGURATION)).result["token"]["token"]
    case = CASES["cert-config-token-then-used-on-token-listener"]
    assert differences(case, replay_at_token(root_layout, case, client.client_id, token)) == []


def replay_by_certificate(client: Any, name: str) -> list[str]:
    body, headers = request_of(CASES[name], client.client_id)
    return differences(CASES[name], client.call(body, headers))


@pytest.mark.parametrize(
    "name",
    [
        "cert-config-tutorial",
        "cert-config-full",
        "cert-sign-renew",
        "cert-sign-wrong-cn",
        "cert-revoke-query-full",
        "full-cert-config-tutorial",
    ],
)
def test_at_the_certificate_endpoint(name: str, root_layout: Landscape, tmp_path: Path) -> None:
    assert replay_by_certificate(root_layout.establish(tmp_path), name) == []


@pytest.mark.parametrize("name", ["cert-old-after-renewal-config", "cert-new-after-renewal-config"])
def test_old_and_new_certificate_side_by_side(name: str, root_layout: Landscape, tmp_path: Path) -> None:
    old = root_layout.establish(tmp_path)
    new = old.renew()
    assert replay_by_certificate(old if "old" in name else new, name) == []


@pytest.mark.parametrize("name", ["cert-revoked-config", "cert-revoked-sign", "cert-revoked-revoke-again"])
def test_with_a_revoked_certificate(name: str, root_layout: Landscape, tmp_path: Path) -> None:
    client = root_layout.establish(tmp_path)
    assert replay_by_certificate(client, "cert-revoke-query-full") == []
    assert replay_by_certificate(client, name) == []


def test_cert_no_client_certificate(root_layout: Landscape, tmp_path: Path) -> None:
    client = root_layout.establish(tmp_path)
    client.context = root_layout.context
    assert replay_by_certificate(client, "cert-no-client-certificate") == []


def test_cert_foreign_ca(root_layout: Landscape, intermediate_layout: Landscape, tmp_path: Path) -> None:
    client = root_layout.establish(tmp_path)
    foreign = intermediate_layout.establish(tmp_path)
    client.context = trusting(root_layout.ucl.ca_file, foreign.identity)
    assert replay_by_certificate(client, "cert-foreign-ca") == []


def covered() -> Iterator[str]:
    """The cases that the tests of this module replay: their parameters, or the one in their name."""
    for test in [value for name, value in globals().items() if name.startswith("test_")]:
        for mark in getattr(test, "pytestmark", []):
            yield from mark.args[1]
        yield test.__name__.removeprefix("test_").replace("_", "-")


def test_every_case_is_replayed(record_property: Callable[[str, object], None]) -> None:
    replayed = set(covered()) & set(CASES)
    record_property("agreement", f"Connector: {len(replayed)} of {len(CASES)} recorded cases replayed")
    assert len(CASES) == 101
    assert replayed == set(CASES)
