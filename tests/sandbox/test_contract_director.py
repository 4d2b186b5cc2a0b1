"""The recorded answers of the real Director, and one whole life of a connection, against the sandbox.

In scope are the operations that a connection needs. Out of scope, and listed in `OUT_OF_SCOPE`: what turns on scopes
or dates inside a JWT (the sandbox's bearer is opaque), runtimes, and outages of the Director or of its database.
"""

import base64
import json
import re
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from contract_csrs import plain
from contract_replay import JSON_TYPE, Answer, Established, Landscape, encoded, graphql, load, send

from ucl_sandbox import Sandbox

CASES = load("director-cases.json")
OUT_OF_SCOPE = {
    "application: register, without scope application:write",
    "one-time token: without scope application:write",
    "one-time token: expired JWT",
    "flow: 11 runtime: configuration with its one-time token",
    "flow: 11a runtime: viewer by certificate",
    "flow: 11b runtime: own runtime by certificate",
    *(f"outage: {case['name']}" for case in CASES if case["group"] == "outage"),
}
IN_SCOPE = [case for case in CASES if f"{case['group']}: {case['name']}" not in OUT_OF_SCOPE]
GROUPS = ("application", "one-time token", "viewer", "protocol", "chain", "flow", "extra", "expiry")

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TOKEN = "[A-Za-z0-9_-]{86}=="
BASE64 = "[A-Za-z0-9+/]+={0,2}"
PLACEHOLDER = re.compile(r"<([^<>]+)>|\{user\}")
# What a placeholder stands for; those that are not in here are values to be found once and met again.
SHAPES = {
    "uuid": UUID,
    "time:YYYY-MM-DDThh:mm:ssZ": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "time:YYYY-MM-DDThh:mm:ss.n…Z": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "cursor": ".+",
    "token-or-base64": TOKEN,
    "token-host": r"localhost:\d+",
    "cert-host": r"localhost:\d+",
    "EOF": "<EOF>",
}
RENEWED = ("7a", "8 ", "8a", "8b")


class Replay:
    """A sandbox, and what the placeholders have been found to stand for."""

    def __init__(self, landscape: Landscape, folder: Path) -> None:
        self.landscape, self.ucl, self.folder = landscape, landscape.ucl, folder
        self.known: dict[str, str] = {"suffix": secrets.token_hex(4), "user": ""}
        self.client: Established | None = None
        self.renewed: Established | None = None

    def as_user(self, body: str, headers: dict[str, str] | None = None, **how: Any) -> Answer:
        given = {
            **JSON_TYPE,
            "Authorization": f"Bearer {self.ucl.director_token}",
            "Tenant": self.ucl.tenant,
            **(headers or {}),
        }
        return send(self.ucl.director_url, self.landscape.context, body, given, **how)

    def register(self, name: str) -> str:
        query = "mutation ($name: String!) { result: registerApplication(in: {name: $name}) { id } }"
        return self.as_user(graphql(query, name=name)).result["id"]

    def request_token(self, application_id: str) -> str:
        query = "mutation ($id: ID!) { result: requestOneTimeTokenForApplication(id: $id) { token } }"
        return self.as_user(graphql(query, id=application_id)).result["token"]

    # -- sending -------------------------------------------------------------------------------------------------------

    def filled(self, text: str) -> str:
        return PLACEHOLDER.sub(lambda found: self.known.get(found[1], found[0]) if found[1] else found[0], text)

    def send(self, case: dict[str, Any]) -> Answer:
        body = case["body"] if isinstance(case["body"], str) else json.dumps(case["body"] or {})
        body = self.filled(body) if case["body"] is not None else ""
        headers = {name: self.filled(value) for name, value in case["headers"].items()}
        query = dict(parse_qsl(urlsplit(case["path"]).query))
        if case["at"] == "token endpoint → Connector":
            return send(self.ucl.connector_url, self.landscape.context, body, headers)
        if case["at"].startswith("certificate endpoint") or "consumerType" in case["name"]:
            client = self.renewed if case["name"].startswith(RENEWED) else self.client
            assert client is not None
            call = client.call if case["at"].endswith("Connector") else client.call_director
            return call(body, headers)
        return self.send_as_user(case, body, headers, query)

    def send_as_user(self, case: dict[str, Any], body: str, headers: dict[str, str], query: dict[str, str]) -> Answer:
        """The recorded JWT names the tenant, or a header does at the gateway; here it is always a header."""
        if headers.get("Authorization") == "Bearer <jwt>":
            headers["Authorization"] = f"Bearer {self.ucl.director_token}"
        if headers.get("Tenant") != "unknown-tenant" and "no tenant" not in case["name"].lower():
            headers["Tenant"] = self.ucl.tenant
        return send(self.ucl.director_url, self.landscape.context, body, headers, method=case["method"], query=query)

    # -- comparing -----------------------------------------------------------------------------------------------------

    def differences(self, case: dict[str, Any], answer: Answer) -> list[str]:
        if (case["status"], case["contentType"]) != (answer.status, answer.content_type):
            return [f"{(case['status'], case['contentType'])} became {(answer.status, answer.content_type)}"]
        wanted = case["response"]
        found = json.loads(answer.body) if answer.body else ""
        if wanted and (answer.status == 422 or "could not be decoded" in str(wanted)):
            wanted, found = _wordless(wanted), _wordless(found)
        return list(self.mismatches(wanted, found, "answer"))

    def mismatches(self, wanted: Any, found: Any, where: str) -> Iterator[str]:
        if isinstance(wanted, dict) and isinstance(found, dict):
            if list(wanted) != list(found):
                yield f"{where}: {list(wanted)} became {list(found)}"
            else:
                for name in wanted:
                    yield from self.mismatches(wanted[name], found[name], f"{where}.{name}")
        elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
            for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
                yield from self.mismatches(one, other, f"{where}[{index}]")
        elif isinstance(wanted, str) and isinstance(found, str):
            if not self.fits(wanted, found):
                yield f"{where}: {wanted!r} became {found!r} ({self.known})"
        elif wanted != found:
            yield f"{where}: {wanted!r} became {found!r}"

    def fits(self, wanted: str, found: str) -> bool:
        """Whether a text is as recorded; placeholders met for the first time are remembered."""
        pattern, names, at = "", [], 0
        for match in PLACEHOLDER.finditer(wanted):
            name = match[1] or "user"
            pattern += re.escape(wanted[at : match.start()])
            if self.known.get(name):
                pattern += re.escape(self.known[name])
            elif name in SHAPES:
                pattern += SHAPES[name]
            elif name in names:
                pattern += f"(?P=g{names.index(name)})"
            else:
                pattern += f'(?P<g{len(names)}>[^"]+?)'
                names.append(name)
            at = match.end()
        matched = re.fullmatch(pattern + re.escape(wanted[at:]), found)
        if matched:
            self.known.update({name: matched[f"g{index}"] for index, name in enumerate(names)})
        return matched is not None


def _wordless(answer: dict[str, Any]) -> dict[str, Any]:
    kept = [{key: error.get(key) for key in ("path", "extensions")} for error in answer["errors"]]
    return {"errors": kept, "data": answer["data"]}


# -- what happened between the recorded exchanges ----------------------------------------------------------------------

UNREGISTER = "mutation ($id: ID!) { result: unregisterApplication(id: $id) { id } }"
AUTHS = "query ($id: ID!) { result: application(id: $id) { auths { id } } }"


def only_eleven_applications(replay: Replay) -> None:
    replay.register(f"1app-{replay.known['suffix']}")
    replay.known["app-id"] = replay.register(f"app-{replay.known['suffix']}")
    for number in range(9):
        replay.register(f"further-{number}")


def no_application(replay: Replay) -> None:
    for id_ in (replay.known.pop("app-id"), replay.ucl.application_id):
        assert replay.as_user(graphql(UNREGISTER, id=id_)).status == 200


def another_application(replay: Replay) -> None:
    replay.known["app-id-2"] = replay.register(f"app-full-{replay.known['suffix']}")


def an_unregistered_application(replay: Replay) -> None:
    another_application(replay)
    replay.as_user(graphql(UNREGISTER, id=replay.known["app-id-2"]))


def a_system_auth(replay: Replay) -> None:
    auths = replay.as_user(graphql(AUTHS, id=replay.known["app-id"])).result["auths"]
    replay.known["system-auth-id"] = auths[0]["id"]


def a_csr(replay: Replay) -> None:
    replay.known["csr"] = replay.known["csr-2"] = encoded(plain(replay.known["system-auth-id"]))


def a_third_application(replay: Replay) -> None:
    replay.known["other-app-id"] = replay.register("other")


def an_open_token(replay: Replay) -> None:
    replay.known["token-9"] = replay.request_token(replay.known["app-id"])


def an_unused_token(replay: Replay) -> None:
    replay.known["token-2"] = replay.landscape.new_token()


BEFORE: dict[str, Callable[[Replay], None]] = {
    "list": no_application,
    "list, first: 1": only_eleven_applications,
    "unregister": another_application,
    "for an unregistered application": an_unregistered_application,
    "with systemAuthID: the token of that system auth is replaced": a_system_auth,
    "4 sign with the token from configuration": a_csr,
    "6c another application of the tenant by certificate": a_third_application,
    "7 renew": a_csr,
    "10 unregister the application while a token is open": an_open_token,
    "a syntax error at the token endpoint": an_unused_token,
}
ENCODED = {
    "what decodes from rawEncoded (standard base64, with padding)": "rawEncoded-1",
    "what decodes from the suggested token": "rawEncoded-of-the-suggested-token",
}


def answer_of(replay: Replay, case: dict[str, Any]) -> list[str]:
    """Sends a case's request and compares the answer."""
    name = case["name"]
    if name in ENCODED:
        decoded = json.loads(base64.b64decode(replay.known[ENCODED[name]], validate=True))
        return list(replay.mismatches(case["response"], decoded, "decoded"))
    BEFORE.get(name, lambda _: None)(replay)
    answer = replay.send(case)
    if name.startswith(("4 ", "7 ")) and answer.status == 200:
        path = replay.folder / f"{name[0]}.pem"
        client = Established(replay.landscape, replay.known["system-auth-id"], answer, path)
        replay.client, replay.renewed = (client, None) if replay.client is None else (replay.client, client)
    return replay.differences(case, answer)


@pytest.mark.parametrize("group", GROUPS)
def test_the_cases_of(group: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    """The cases of one group, in their order, each as a subtest."""
    times = [datetime.now(UTC) - timedelta(minutes=30)]  # certificates have to be valid by now
    with Sandbox(ca_layout="root", clock=lambda: times[0]) as ucl:
        replay = Replay(Landscape(ucl, ucl.one_time_token), tmp_path)
        if group not in {"application", "flow"}:
            replay.known["app-id"] = ucl.application_id
        if group == "viewer":
            replay.client = replay.landscape.establish(tmp_path)
        if group == "expiry":
            replay.known["token"] = ucl.one_time_token()
            times[0] += timedelta(minutes=5, seconds=1)
        for case in IN_SCOPE:
            if case["group"] == group:
                times[0] += timedelta(seconds=1)  # in one second, one key gets the very same certificate twice
                with subtests.test(case["name"]):
                    assert answer_of(replay, case) == []


def test_every_case_is_accounted_for(record_property: Callable[[str, object], None]) -> None:
    assert len(CASES) == 86
    assert len(OUT_OF_SCOPE) == 15
    assert len(IN_SCOPE) == 71
    assert {case["group"] for case in IN_SCOPE} == set(GROUPS)
    summary = f"Director: {len(IN_SCOPE)} of {len(CASES)} recorded cases replayed, {len(OUT_OF_SCOPE)} out of scope"
    record_property("agreement", summary)
