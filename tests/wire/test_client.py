"""What becomes of an answer: results, refusals, retries, secrets. The servers are real TLS and play a script."""

import logging
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from tls_servers import QUERY, Cut, Stage, answer, result, serving

from ucl_helpers.errors import (
    AuthenticationFailed,
    BadAnswer,
    EmptyAnswer,
    RateLimited,
    Refused,
    RequestRejected,
    RetryLater,
    UCLError,
    Unavailable,
    UsageError,
)
from ucl_helpers.wire.client import BACKOFF_SECONDS, Client

TOKEN = "c3VyZWx5LW5vdC10by1iZS1zaG93bg=="
ERRORS = {"errors": [{"message": "CSR: wrong OU"}], "data": None}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def play(stage):
    return stage.play


def test_a_result_is_unwrapped_and_the_request_is_what_the_connector_expects(play):
    got, server, pauses = play(result({"id": 1}), variables={"a": "ü"}, headers={"tenant": "t"})
    assert (got.result, pauses) == ({"id": 1}, [])
    sent = server.requests[0]
    assert sent.body == {"query": QUERY, "variables": {"a": "ü"}}
    wanted = {"content-type": "application/json", "accept-encoding": "identity", "tenant": "t"}
    assert wanted.items() <= sent.headers.items()
    assert sent.headers["x-request-id"] == got.request_id


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b"", AuthenticationFailed),
        (400, b" \n", AuthenticationFailed),
        (400, ERRORS, RequestRejected),
        (400, b"<html>", BadAnswer),
        (401, b"", AuthenticationFailed),
        (401, ERRORS, AuthenticationFailed),
        (403, b"", AuthenticationFailed),
        (404, b"", BadAnswer),
        (408, b"", Unavailable),
        (413, b"", Refused),
        (422, ERRORS, RequestRejected),
        (422, b"", BadAnswer),
        (429, b"", RateLimited),
        (500, b"", Unavailable),
        (502, b"<html>", Unavailable),
        (503, b"", Unavailable),
        (504, b"", Unavailable),
        (200, ERRORS, RequestRejected),
        (200, {"data": None}, EmptyAnswer),
        (200, {"data": {"result": None}}, EmptyAnswer),
        (200, {}, EmptyAnswer),
        (200, b"", EmptyAnswer),
        (200, [], BadAnswer),
        (200, {"data": {"other": 1}}, BadAnswer),
        (204, b"", BadAnswer),
    ],
)
def test_each_status_is_an_error_of_its_kind(play, status, body, kind):
    error, server, _ = play(answer(status, body), retry=False)
    assert type(error) is kind
    sent = server.requests[0].headers["x-request-id"]
    assert error.data["request_id"] == sent
    assert sent in str(error)
    assert error.data["url"] == server.url
    assert error.remedy


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_named_and_not_followed(play, stage, status):
    with serving(result(), identity=stage.identity) as other:
        error, server, _ = play(answer(status, Location=other.url), result())
        assert (len(server.requests), other.accepted) == (1, 0)
    assert type(error) is BadAnswer
    assert other.url.removesuffix("/graphql") + ", which is not followed" in str(error)


@pytest.mark.parametrize("endpoint", ["token", "certificate", "director"])
def test_a_refusal_lists_its_causes(play, endpoint):
    error, _, _ = play(answer(400), endpoint=endpoint)
    assert len(error.data["causes"]) > 1
    assert all(cause in error.message for cause in error.data["causes"])


# -- retries -----------------------------------------------------------------------------------------------------------

PASSING = {
    "reset": Cut(reset=True),
    "hung up": Cut(),
    "cut off in the headers": Cut(b"HTTP/1.1 200 -\r\nContent-Le"),
    "cut off in the body": Cut(result()[:-3]),
    "cut off in a chunk": Cut(b"HTTP/1.1 200 -\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{"),
    "no HTTP": Cut(b"\x00\xff\r\n"),
    "429": answer(429),
    "502": answer(502),
    "503": answer(503),
    "504": answer(504),
    "no body": answer(200),
    "empty answer": answer(200, {"data": None}),
    "empty result": answer(200, {"data": {"result": None}}),
}
FINAL = {
    "400": answer(400),
    "401": answer(401),
    "403": answer(403),
    "404": answer(404),
    "408": answer(408),
    "413": answer(413),
    "422": answer(422, ERRORS),
    "500": answer(500),
    "errors": answer(200, ERRORS),
    "not JSON": answer(200, b"<html>"),
}


@pytest.mark.parametrize("step", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again(play, step):
    got, server, pauses = play(step, step, result())
    assert (got.result, len(server.requests), pauses) == ("fine", 3, list(BACKOFF_SECONDS[:2]))
    assert len({request.headers["x-request-id"] for request in server.requests}) == 3


@pytest.mark.parametrize("step", PASSING.values(), ids=PASSING)
def test_nothing_is_tried_again_where_that_would_cost_a_token(play, step):
    error, server, pauses = play(step, result(), retry=False)
    assert isinstance(error, RetryLater)
    assert (len(server.requests), pauses) == (1, [])


@pytest.mark.parametrize("step", FINAL.values(), ids=FINAL)
def test_what_would_not_pass_is_asked_once(play, step):
    error, server, pauses = play(step, result())
    assert isinstance(error, UCLError)
    assert (len(server.requests), pauses) == (1, [])


def test_the_number_of_tries_is_bounded(play):
    error, server, pauses = play(answer(503))
    assert type(error) is Unavailable
    assert (len(server.requests), pauses) == (len(BACKOFF_SECONDS) + 1, list(BACKOFF_SECONDS))


IN_A_WHILE = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (format_datetime(IN_A_WHILE + timedelta(seconds=30), usegmt=True), 30.0),
        (format_datetime(IN_A_WHILE - timedelta(days=1), usegmt=True), 0.0),
        ("Sat, 31 Jan 2026 12:00:09", 9.0),
        ("9" * 400, 86400.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400.0),
        ("-5", None),
        ("1.5", None),
        ("\xb2", None),
        ("soon", None),
        ("Fri, 31 Dec 9999 23:59:59 -0100", None),
        ("Sat, 31 Jan 99999999999999999999 12:00:00 GMT", None),
        ("Sat, 31 Jan 2026 12:00:00 +99999999999999999999", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_seconds_or_a_date_by_the_servers_clock(play, status, told, seconds):
    headers = {"Retry-After": told, "Date": format_datetime(IN_A_WHILE, usegmt=True)}
    error, _, _ = play(answer(status, headers=headers), retry=False)
    assert error.data["retry_after"] == seconds


def test_retry_after_is_waited_for_within_the_deadline(play):
    got, server, pauses = play(answer(429, headers={"Retry-After": "7"}), result(), deadline=8)
    assert (got.result, len(server.requests), pauses) == ("fine", 2, [7.0])


def test_beyond_the_deadline_it_is_not(play):
    error, server, pauses = play(answer(429, headers={"Retry-After": "7"}), result(), deadline=7)
    assert (type(error), len(server.requests), pauses) == (RateLimited, 1, [])


# -- clocks and secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "note"),
    [
        (timedelta(hours=2), "behind the server's"),
        (timedelta(hours=-2), "ahead of the server's"),
        (timedelta(minutes=4), None),
    ],
)
def test_a_clock_that_differs_is_named_in_the_error(play, ahead, note):
    date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
    error, _, _ = play(answer(400, Date=date))
    assert ("Our clock is" in error.message) == (note is not None)
    assert (note or "") in error.message
    assert error.data["clock_difference"] == pytest.approx(ahead.total_seconds(), abs=60)


@pytest.fixture
def far_east(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_east")
@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000", ""])
def test_the_servers_clock_comes_with_the_answer(play, zone):
    got, _, _ = play(result(Date=f"Sat, 31 Jan 2026 12:00:00 {zone}"))
    assert got.date == IN_A_WHILE
    assert got.clock_difference == pytest.approx((IN_A_WHILE - datetime.now(UTC)).total_seconds(), abs=60)


def test_without_a_date_no_difference_is_known(play):
    got, _, _ = play(result())
    assert (got.date, got.clock_difference) == (None, 0.0)


@pytest.mark.parametrize("headers", [{"connector-token": TOKEN}, {"Authorization": f"Bearer {TOKEN}"}])
@pytest.mark.parametrize(
    "step",
    [
        result({"token": {"token": TOKEN}}),
        answer(200, {"errors": [{"message": f"bad header {TOKEN}"}, {"message": TOKEN}]}),
        answer(422, {"errors": [{"extensions": {"headers": [TOKEN]}}]}),
        answer(302, Location=f"/?token={TOKEN}"),
        answer(200, f"your token was {TOKEN}".encode()),
        answer(400, TOKEN.encode()),
        answer(502, TOKEN.encode(), {"X": TOKEN}),
        answer(429, headers={"Retry-After": TOKEN}),
        Cut(b"HTTP/1.1 " + TOKEN.encode()),
        Cut(reset=True),
    ],
)
def test_no_secret_is_told_even_when_the_server_echoes_it(play, caplog, headers, step):
    caplog.set_level(logging.DEBUG)
    got, server, _ = play(step, headers=headers, retry=False)
    assert TOKEN in str(server.requests[0].headers)
    assert TOKEN not in f"{got} {got!r} {getattr(got, 'data', '')} {caplog.text}"
    assert "HTTPS connection" in caplog.text


@pytest.mark.parametrize("value", ["", " ", "a\nb: c", "abc\u2026", "\x00", " abc", "abc\r"])
def test_a_header_that_cannot_be_sent_is_refused_unseen(value):
    with pytest.raises(UsageError, match="connector-token") as caught:
        Client("https://localhost/", "token", headers={"connector-token": value})
    assert not value.strip() or value.strip() not in str(caught.value)
