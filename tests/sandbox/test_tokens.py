"""One-time tokens: where they may stand, and what uses them up."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from contract_replay import CONFIGURATION, DEFAULT_TYPE, JSON_TYPE, Answer, Landscape, graphql, send

from ucl_sandbox import Sandbox
from ucl_sandbox.state import State

REFUSED = Answer(400, DEFAULT_TYPE, "")


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def landscape(clock: Clock) -> Iterator[Landscape]:
    with Sandbox(clock=clock) as ucl:
        yield Landscape(ucl, ucl.one_time_token)


def ask(landscape: Landscape, headers: dict[str, str], query: dict[str, str] | None = None) -> Answer:
    url = landscape.ucl.connector_url
    return send(url, landscape.context, graphql(CONFIGURATION), {**JSON_TYPE, **headers}, query=query)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"connector-token": "GOOD"}, {}),
        ({"Connector-Token": "GOOD"}, {}),
        ({"CONNECTOR-TOKEN": "GOOD"}, {}),
        ({}, {"token": "GOOD"}),
        ({"connector-token": ""}, {"token": "GOOD"}),
        ({"connector-token": "GOOD"}, {"token": "bad"}),
        ({"connector-token": "GOOD", "Client-Id-From-Token": "spoof"}, {}),
    ],
)
def test_where_a_token_may_stand(landscape: Landscape, headers: dict[str, str], query: dict[str, str]) -> None:
    token = landscape.new_token()
    filled = [{name: value.replace("GOOD", token) for name, value in part.items()} for part in (headers, query)]
    assert ask(landscape, *filled).status == 200
    assert ask(landscape, *filled) == REFUSED


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, {}),
        ({"connector-token": "bad"}, {"token": "GOOD"}),
        ({}, {"TOKEN": "GOOD"}),
        ({}, {"connector-token": "GOOD"}),
        ({"token": "GOOD"}, {}),
        ({"Authorization": "Bearer GOOD"}, {}),
        ({"connector-token": "Bearer GOOD"}, {}),
        ({"connector-token": '"GOOD"'}, {}),
        ({"Client-Id-From-Token": "spoof"}, {}),
        ({"Client-Id-From-Certificate": "spoof", "Client-Certificate-Hash": "spoof"}, {}),
    ],
)
def test_where_it_may_not(landscape: Landscape, headers: dict[str, str], query: dict[str, str]) -> None:
    token = landscape.new_token()
    filled = [{name: value.replace("GOOD", token) for name, value in part.items()} for part in (headers, query)]
    assert ask(landscape, *filled) == REFUSED
    assert ask(landscape, {"connector-token": token}).status == 200, "the token was not used up"


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"body": "{"}, 400),
        ({"body": graphql("{")}, 422),
        ({"body": graphql("{ nope }")}, 422),
        ({"body": graphql(CONFIGURATION), "headers": {"Content-Type": "text/plain"}}, 400),
        ({"body": "", "method": "PUT"}, 400),
        ({"body": "", "method": "OPTIONS"}, 200),
        ({"body": graphql("{ __typename }")}, 200),
    ],
)
def test_the_first_request_uses_it_up_whatever_comes_of_it(landscape: Landscape, how: dict, status: int) -> None:
    token = landscape.new_token()
    answer = landscape.at_token(token=token, **how)
    assert answer.status == status
    assert answer != REFUSED
    assert landscape.at_token(graphql(CONFIGURATION), token) == REFUSED


def test_another_path_does_not(landscape: Landscape) -> None:
    token = landscape.new_token()
    url = landscape.ucl.connector_url.replace("/connector/", "/other/")
    assert send(url, landscape.context, "", {"connector-token": token}).status == 404
    assert ask(landscape, {"connector-token": token}).status == 200


@pytest.mark.parametrize(("age", "status"), [(timedelta(minutes=4, seconds=59), 200), (timedelta(minutes=5), 400)])
def test_it_is_valid_for_five_minutes(landscape: Landscape, clock: Clock, age: timedelta, status: int) -> None:
    token = landscape.new_token()
    clock.now += age
    assert ask(landscape, {"connector-token": token}).status == status


def test_two_tokens_live_side_by_side(landscape: Landscape) -> None:
    first, second = landscape.new_token(), landscape.new_token()
    assert first != second
    assert [ask(landscape, {"connector-token": token}).status for token in (second, first)] == [200, 200]


def test_configuration_gives_the_next_one(landscape: Landscape) -> None:
    client_id, token = landscape.configure()
    assert client_id in landscape.at_token(graphql(CONFIGURATION), token).body


@pytest.mark.parametrize("endpoint", ["connector", "director"])
def test_a_call_by_certificate_ends_it(landscape: Landscape, tmp_path: Path, endpoint: str, clock: Clock) -> None:
    clock.now = datetime.now(UTC)
    client = landscape.establish(tmp_path)
    token = client.call(graphql(CONFIGURATION)).result["token"]["token"]
    call = client.call if endpoint == "connector" else client.call_director
    assert call(graphql("{ __typename }")).status == 200
    assert ask(landscape, {"connector-token": token}) == REFUSED


def test_an_unregistered_application_has_none(landscape: Landscape) -> None:
    state = landscape.ucl._memory
    row = state.register("short-lived", None, None, "{}")
    token = state.new_system_auth(row["id"])["token"]
    state.unregister(row["id"])
    assert ask(landscape, {"connector-token": token}) == REFUSED


def test_many_threads_that_guess_and_make_tokens_at_once(landscape: Landscape) -> None:
    """The server's thread and the threads of this process share one memory: none is told anything wrong by another."""
    guessers, makers, rounds = 6, 4, 15
    barrier = threading.Barrier(guessers + makers)

    def guess(number: int) -> list[int | None]:
        barrier.wait()
        return [ask(landscape, {"connector-token": f"{number}-{again}"}).status for again in range(rounds)]

    def make(_: int) -> list[str]:
        barrier.wait()
        return [landscape.new_token() for _ in range(50 * rounds)]

    with ThreadPoolExecutor(guessers + makers) as pool:
        guessed, made = pool.map(guess, range(guessers)), pool.map(make, range(makers))
        assert {status for statuses in guessed for status in statuses} == {400}
        tokens = [token for tokens in made for token in tokens]
    assert len(set(tokens)) == makers * 50 * rounds
    assert {ask(landscape, {"connector-token": token}).status for token in tokens[:: 50 * rounds]} == {200}


def test_many_threads_on_one_memory(tmp_path: Path) -> None:
    """Without taking turns, Python 3.13 ends this by `InterfaceError: bad parameter or other API misuse`."""
    threads, rounds = 10, 200
    barrier = threading.Barrier(threads)
    with State(tmp_path, lambda: datetime.now(UTC), timedelta(minutes=5)) as state:
        application = str(state.register("app", None, None, "{}")["id"])

        def work(number: int) -> int:
            barrier.wait()
            if number % 2:
                return sum(state.use_token(f"{number}-{again}") is not None for again in range(rounds))
            return len({state.new_system_auth(application)["token"] for _ in range(rounds)})

        with ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(work, range(threads))) == [rounds, 0] * (threads // 2)


def test_one_token_that_many_threads_use_at_once_is_used_once(landscape: Landscape) -> None:
    token, threads = landscape.new_token(), 8
    barrier = threading.Barrier(threads)

    def use(_: int) -> int | None:
        barrier.wait()
        return ask(landscape, {"connector-token": token}).status

    with ThreadPoolExecutor(threads) as pool:
        assert sorted(pool.map(use, range(threads)), key=str) == [200] + [400] * (threads - 1)


def test_threads_agree_on_what_is_made_once(tmp_path: Path) -> None:
    with State(tmp_path, lambda: datetime.now(UTC), timedelta(minutes=5)) as state:
        barrier = threading.Barrier(8)

        def tenant(_: int) -> str:
            barrier.wait()
            return state.tenant

        with ThreadPoolExecutor(8) as pool:
            assert len({*pool.map(tenant, range(8)), state.tenant}) == 1
