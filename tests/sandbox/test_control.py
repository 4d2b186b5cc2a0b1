"""The sandbox's limit of calls: a bucket that is filled at its rate; what is too much is answered 429 and counted."""

import json

import pytest
from contract_replay import CONFIGURATION, JSON_TYPE, graphql, send, trusting

from ucl_sandbox import Sandbox
from ucl_sandbox.control import LIMIT_PATH, Limit


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def let_through(limit, calls):
    return sum(limit.refusal() is None for _ in range(calls))


def test_one_second_s_worth_is_let_through_at_once(clock):
    limit = Limit(5, clock)
    assert let_through(limit, 20) == 5
    assert (limit.calls, limit.refused) == (20, 15)


def test_then_as_many_as_the_rate_fills_in(clock):
    limit = Limit(4, clock)
    let_through(limit, 4)
    for _ in range(50):
        clock.now += 0.25
        assert let_through(limit, 3) == 1


def test_what_was_not_used_is_not_saved_up(clock):
    limit = Limit(5, clock)
    clock.now = 1000
    assert let_through(limit, 20) == 5


@pytest.mark.parametrize(("rate", "after"), [(5, "1"), (0.1, "10"), (0.001, "1000")])
def test_a_refusal_says_after_how_many_seconds_to_come_again(clock, rate, after):
    limit = Limit(rate, clock)
    let_through(limit, 5)
    refusal = limit.refusal()
    assert (refusal.status, refusal.headers["Retry-After"]) == (429, after)
    clock.now += int(after)
    assert limit.refusal() is None


def test_without_a_limit_calls_are_only_counted(clock):
    limit = Limit(clock=clock)
    assert let_through(limit, 1000) == 1000
    assert limit.as_json() == {"rate": None, "calls": 1000, "refused": 0}


@pytest.fixture
def ucl():
    """One call is let through, and then none for a quarter of an hour."""
    with Sandbox(rate_limit=0.001) as running:
        yield running


def call(ucl):
    headers = {**JSON_TYPE, "connector-token": ucl.one_time_token()}
    return send(ucl.connector_url, trusting(ucl.ca_file), graphql(CONFIGURATION), headers)


def shown(ucl, bearer, method="GET"):
    url = ucl.director_url.replace("/director/graphql", LIMIT_PATH)
    return send(url, trusting(ucl.ca_file), headers={"Authorization": f"Bearer {bearer}"}, method=method)


def test_the_connector_is_limited_and_tells_how_often_it_refused(ucl):
    assert [call(ucl).status for _ in range(3)] == [200, 429, 429]
    told = shown(ucl, ucl.director_token)
    assert (told.status, json.loads(told.body)) == (200, {"rate": 0.001, "calls": 3, "refused": 2})
    assert (ucl.limit.calls, ucl.limit.refused) == (3, 2)


def test_a_refused_call_uses_no_token_up(ucl):
    call(ucl)
    headers = {**JSON_TYPE, "connector-token": ucl.one_time_token()}
    answers = []
    for _ in range(2):
        answers.append(send(ucl.connector_url, trusting(ucl.ca_file), graphql(CONFIGURATION), headers).status)
        ucl.limit.rate = None
    assert answers == [429, 200]


def test_the_director_is_not(ucl):
    assert [shown(ucl, ucl.director_token).status for _ in range(3)] == [200] * 3
    assert ucl.limit.calls == 0


@pytest.mark.parametrize(("bearer", "method", "status"), [("wrong", "GET", 401), (None, "POST", 405)])
def test_it_is_shown_to_who_knows_the_bearer_and_only_shown(ucl, bearer, method, status):
    assert shown(ucl, bearer or ucl.director_token, method).status == status
