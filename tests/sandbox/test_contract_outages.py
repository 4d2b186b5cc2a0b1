"""What a real UCL answered while its Director or its database was down, and what looks the same, against the sandbox.

Each line of `data/contract/outages.json` is one subtest of its state. An outage begins at the call that it is told to
begin at, lasts until it is cleared, uses nothing up, and leaves everything as it was.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from contract_replay import (
    CONFIGURATION,
    JSON_TYPE,
    SIGN,
    Landscape,
    csr_pem,
    encoded,
    fields_of_subject,
    graphql,
    load,
    name_of,
    send,
)

from ucl_sandbox import Fault, FaultsError, Sandbox, read_plan

pytestmark = pytest.mark.kind("outages: recorded answers of the real stack")
CASES = load("outages.json")
DOWN = {"Director process down": "process", "database down": "database"}
STATES = list(dict.fromkeys(case["state"] for case in CASES))
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
VIEWER, REVOKE = graphql("query { result: viewer { id type } }"), graphql("mutation { result: revokeCertificate }")
DELETE = "mutation ($id: ID!) { result: deleteSystemAuthForApplication(authID: $id) { id } }"
CONFIGURE = graphql(CONFIGURATION)


@pytest.fixture
def ucl():
    seconds, start = count(), datetime.now(UTC) - timedelta(hours=1)
    with Sandbox(clock=lambda: start + timedelta(milliseconds=next(seconds))) as running:
        yield running


@pytest.fixture
def landscape(ucl):
    return Landscape(ucl, ucl.one_time_token)


@pytest.fixture
def client(landscape, tmp_path):
    return landscape.establish(tmp_path)


def as_user(landscape, body):
    ucl = landscape.ucl
    headers = {**JSON_TYPE, "Authorization": f"Bearer {ucl.director_token}", "Tenant": ucl.tenant}
    return send(ucl.director_url, landscape.context, body, headers)


def ask(case, landscape, client, known):
    """Send a recorded request, its placeholders filled in."""

    def filled(text):
        return re.sub("<[^<>]+>", lambda found: known.get(found[0], found[0]), text)

    body = case["body"] if isinstance(case["body"], str) else json.dumps(case["body"])
    match case["endpoint"]:
        case "token":
            return landscape.at_token(filled(body), filled(case["token"]))
        case "certificate":
            return client.call(filled(body))
        case "Director by certificate":
            return client.call_director(filled(body))
    return as_user(landscape, filled(body))


def agrees(case, answer, known):
    """Whether an answer is the recorded one: status, content type and every word, but for what is new each time."""
    wanted = case["response"] and json.dumps(case["response"], separators=(",", ":"))
    pattern = re.escape(wanted).replace(re.escape("<uuid>"), UUID).replace(re.escape("<app-id>"), known["<app-id>"])
    same = (case["status"], case["contentType"]) == (answer.status, answer.content_type)
    return same and re.fullmatch(pattern, answer.body) is not None


def bring_about(state, landscape, client):
    if state in DOWN:
        landscape.ucl.faults.set([Fault("outage", value=DOWN[state])])
    elif state == "certificate revoked":
        assert client.call(REVOKE).result is True
    elif state == "client's system auth deleted":
        assert as_user(landscape, graphql(DELETE, id=client.client_id)).status == 200


@pytest.mark.parametrize("state", STATES)
def test_the_recorded_answers_in_the_state(state, landscape, client, subtests):
    used = landscape.new_token()
    assert landscape.at_token(CONFIGURE, used).status == 200
    csr = encoded(b"any")
    known = {"<used-token>": used, "<unused-token>": landscape.new_token(), "<client-id>": client.client_id}
    known |= {"<app-id>": landscape.ucl.application_id, "<csr>": csr}
    bring_about(state, landscape, client)
    for case in (case for case in CASES if case["state"] == state):
        with subtests.test(f"{case['endpoint']}: {case['name']}"):
            answer = ask(case, landscape, client, known)
            assert agrees(case, answer, known), answer


def test_a_recording_that_says_otherwise_is_found(landscape, client):
    known = {"<app-id>": landscape.ucl.application_id}
    case = next(case for case in CASES if case["state"] == "all well")
    answer = ask(case, landscape, client, known)
    assert agrees(case, answer, known)
    assert not agrees({**case, "status": 502}, answer, known)
    assert not agrees({**case, "response": ""}, answer, known)


def test_every_recording_is_of_a_state_that_is_tried():
    assert len(CASES) == 28
    assert {*DOWN, "all well", "certificate revoked", "client's system auth deleted"} == set(STATES)


# -- nothing is used up, and everything is as before -------------------------------------------------------------------


@pytest.mark.parametrize("what", ["process", "database"])
def test_an_outage_uses_nothing_up_and_acts_on_nothing(ucl, landscape, client, what):
    token = landscape.new_token()
    auths = ucl._memory.system_auths(ucl.application_id)
    ucl.faults.set([Fault("outage", value=what)])
    refused = [landscape.at_token(CONFIGURE, token), client.call(CONFIGURE), client.call(REVOKE)]
    assert [(answer.status, answer.body) for answer in refused] == [(400, "")] * 3
    assert as_user(landscape, graphql(DELETE, id=client.client_id)).status == {"process": 502, "database": 200}[what]
    assert [tuple(row) for row in ucl._memory.system_auths(ucl.application_id)] == [tuple(row) for row in auths]
    ucl.faults.clear()
    assert landscape.at_token(CONFIGURE, token).status == 200
    assert client.call(CONFIGURE).status == 200
    assert client.call_director(VIEWER).result == {"id": ucl.application_id, "type": "APPLICATION"}


def test_a_user_is_still_told_who_it_is_while_the_database_is_down(ucl, landscape):
    """That needs no scope, and is in the bearer token itself; and a wrong bearer is still a wrong bearer."""
    ucl.faults.set([Fault("outage", value="database")])
    assert as_user(landscape, VIEWER).result["type"] == "USER"
    query = graphql("query { result: applications { totalCount } }")
    assert "insufficient scopes provided [actual=; required=application:read]" in as_user(landscape, query).body
    wrong = send(ucl.director_url, landscape.context, query, {**JSON_TYPE, "Authorization": "Bearer wrong"})
    assert wrong.status == 401


# -- when it begins and when it ends -----------------------------------------------------------------------------------


def renewal(client):
    """The three calls of a renewal, as statuses: configuration, sign, and the configuration that verifies."""
    statuses = [client.call(CONFIGURE).status]
    signed = client.call(graphql(SIGN, csr=encoded_csr(client)))
    return [*statuses, signed.status, client.call(CONFIGURE).status]


def encoded_csr(client):
    return encoded(csr_pem(name_of(fields_of_subject(client.client_id))))


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_outage_begins_at_any_call_and_lasts_until_it_is_cleared(ucl, client, after):
    ucl.faults.set([Fault("outage", at="certificate", after=after)])
    assert renewal(client) == [200] * after + [400] * (3 - after)
    assert [client.call(CONFIGURE).status for _ in range(5)] == [400] * 5
    ucl.faults.clear()
    assert renewal(client) == [200] * 3


def test_it_can_be_over_after_so_many_calls(ucl, client):
    ucl.faults.set([Fault("outage", after=1, times=1)])
    assert renewal(client) == [200, 400, 200]
    assert ucl.faults.struck == {"outage": 1}


def test_calls_count_for_a_later_fault_also_when_an_earlier_one_strikes(ucl, client):
    ucl.faults.set([Fault("http-503", times=1), Fault("outage", after=1)])
    assert renewal(client) == [503, 400, 400]


@pytest.mark.parametrize(
    ("given", "plan"),
    [
        ("outage", (Fault("outage"),)),
        ("database-down", (Fault("outage", value="database"),)),
        ("outage:0.5", (Fault("outage", probability=0.5),)),
    ],
)
def test_it_is_set_by_name(given, plan):
    assert read_plan(given).plan == plan


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"after": -1}, "after is -1"),
        ({"after": True}, "after is True"),
        ({"after": 1.5}, "after is 1.5"),
        ({"value": "disk"}, "knows process, database"),
    ],
)
def test_what_cannot_be_is_refused(wrong, said):
    with pytest.raises(FaultsError, match=said):
        Fault("outage", **wrong)
    with pytest.raises(FaultsError, match="on or off"):
        Fault("refused", after=1)
