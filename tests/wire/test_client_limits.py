"""Answers without end, without bounds, or without sense: each ends in time, in size, and as a typed error."""

import gzip
import json

import pytest
from tls_servers import Cut, Drip, Stage, answer, result

from ucl_helpers.errors import BadAnswer, RequestRejected, Unreachable
from ucl_helpers.wire import client as module
from ucl_helpers.wire.client import MAX_ANSWER_BYTES


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("ca")).play


CHUNKED = b"HTTP/1.1 200 -\r\nTransfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "status line": Drip(b"HTTP/1.1 200 -", b"-", b"\r\n" + result().partition(b"\r\n")[2]),
    "a header": Drip(b"HTTP/1.1 200 -\r\nX: ", b"x", b"\r\n" + result().partition(b"\r\n")[2]),
    "interim answers": Drip(b"", b"HTTP/1.1 100 -\r\n\r\n", result()),
    "body": Drip(b"HTTP/1.1 200 -\r\n\r\n", b" ", b'{"data": {"result": "fine"}}'),
    "chunks": Drip(CHUNKED, b"1\r\n \r\n", b'1c\r\n{"data": {"result": "fine"}}\r\n0\r\n\r\n'),
    "chunk size": Drip(CHUNKED + b"1c;", b"x", b'\r\n{"data": {"result": "fine"}}\r\n0\r\n\r\n'),
    "trailers": Drip(CHUNKED + b'1c\r\n{"data": {"result": "fine"}}\r\n0\r\n', b"X: y\r\n", b"\r\n"),
}


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
def test_an_answer_that_drips_in_ends_with_the_deadline(play, drip):
    error, server, _ = play(drip, deadline=0.3)
    assert (type(error), server.dripped_out) == (Unreachable, False)
    assert "timed out" in error.message


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
def test_dripping_alone_is_no_error(play, monkeypatch, drip):
    monkeypatch.setattr("tls_servers.DROPS", 3)
    got, server, _ = play(drip)
    assert (got.result, server.dripped_out) == ("fine", True)


def padded(size):
    text = json.dumps({"data": {"result": "fine"}}).encode()
    return text + b" " * (size - len(text))


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize(("size", "fits"), [(MAX_ANSWER_BYTES, True), (MAX_ANSWER_BYTES + 1, False)])
def test_the_size_of_an_answer_is_bounded(play, size, encoding, *, fits):
    body = gzip.compress(padded(size)) if encoding else padded(size)
    got, _, _ = play(answer(200, body, headers={"Content-Encoding": encoding} if encoding else {}))
    assert (got.result == "fine") if fits else ("larger than" in got.message and got.data["request_id"])


def test_a_bomb_is_not_unpacked(play, monkeypatch):
    unpacked = []
    read = module._read
    monkeypatch.setattr(module, "_read", lambda *given: unpacked.append(read(*given)) or unpacked[0])
    bomb = gzip.compress(gzip.compress(b" " * 50 * MAX_ANSWER_BYTES))
    error, _, _ = play(answer(200, bomb, headers={"Content-Encoding": "gzip, gzip"}))
    assert type(error) is BadAnswer
    assert len(unpacked[0]) < 2 * MAX_ANSWER_BYTES


DEEP = 100_000
HOSTILE = {
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"data":' * DEEP + b"1" + b"}" * DEEP,
    "nearly too deep": b'{"errors": [' + b"[" * 900 + b"]" * 900 + b"]}",
    "a huge number": b'{"data": {"result": ' + b"9" * 5000 + b"}}",
    "NUL": b"\x00" * 50,
    "not UTF-8": b'{"data": {"result": "\xff\xfe"}}',
    "a lone surrogate": b'{"data": {"result": "\\ud800"}}',
    "half an object": b'{"data": {"result": "fi',
    "two objects": b'{"data": {"result": 1}}{}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_answer_is_told_without_its_text(play, body):
    error, _, _ = play(answer(200, body))
    assert isinstance(error, BadAnswer | RequestRejected)
    assert len(str(error)) < 1000
    str(error).encode()


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "9" * 5000},
        {"Content-Length": "-1"},
        {"Content-Length": "x"},
        {"Content-Length": "28, 28"},
        {"Date": "Fri, 31 Dec 9999 23:59:59 -0100"},
        {"Date": "Sat, 31 Jan 99999999999999999999 12:00:00 GMT"},
        {"Date": "\xb2\x00"},
        {"Set-Cookie": "a=b; Max-Age=x; Expires=\xb2"},
        {"Content-Type": "text/\x00; charset=\xff"},
        {"X": "a\r\nX: b\r\n continued"},
    ],
)
def test_odd_headers_do_no_harm(play, headers):
    got, _, _ = play(Cut(answer(200, {"data": {"result": "fine"}}, headers)), retry=False)
    assert isinstance(got, Unreachable) or got.result == "fine"
