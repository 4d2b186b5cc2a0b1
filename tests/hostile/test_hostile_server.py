"""A server that means harm: its texts do not act on a terminal, its echoes hold no secret, and without end it ends.

The texts go through a real ``ucl`` process; the servers speak real TLS.
"""

import base64
import json
import subprocess
import threading
from contextlib import suppress
from urllib.parse import quote

import pytest
from command_line import Shell
from hostile_texts import TERMINAL, harmful
from meddler import Reply, answers, changes
from quick_keys import QUICK_BITS
from steps import STEPS, pending_of
from tls_servers import PAUSE, QUERY, Cut, Drip, Stage, answer, result, serving

from ucl_helpers import Establishment, status_of
from ucl_helpers.errors import BadAnswer, UCLError, Unreachable
from ucl_helpers.wire.client import MAX_ANSWER_BYTES, Client

pytest_plugins = ["procedure_fixtures"]

# -- what acts on a terminal -------------------------------------------------------------------------------------------

SAID = " ".join(TERMINAL)
IN_A_HEADER = SAID.encode("ascii", "ignore").decode().replace("\r", "").replace("\x0b", "").replace("\x0c", "")
SUBJECT = ",".join("OU=" + "".join(f"\\{ord(one):02x}" if one in "\\,;+" else one for one in text) for text in TERMINAL)


def sends(status, body=b"", **headers):
    return lambda forward, call: Reply(status, body, tuple(headers.items()))


REPLIES = {
    "an error": (answers(200, errors=[{"message": SAID}]), 4),
    "a subject": (changes(certificateSigningRequestInfo={"subject": SUBJECT, "keyAlgorithm": SAID}), 7),
    "no subject": (changes(certificateSigningRequestInfo={"subject": SAID, "keyAlgorithm": SAID}), 12),
    "a redirect": (sends(302, Location=f"https://localhost/{IN_A_HEADER}"), 12),
    "headers": (sends(500, SAID.encode(), Date=IN_A_HEADER, Server=IN_A_HEADER), 3),
    "a page": (sends(200, b"<html>" + SAID.encode()), 12),
    "URLs": (changes(managementPlaneInfo={"directorURL": SAID, "certificateSecuredConnectorURL": SAID}), 0),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_what_ucl_prints_does_not_act_on_a_terminal(secure, between, reply, proof):
    meddling, code = reply
    for form in ((), ("--json",)):
        between.on("configuration", *[meddling] * 5)
        said = Shell(secure.home.path).ucl("renew", "prod", "--force", "--key-length", str(QUICK_BITS), *form)
        assert said.code == code, said
        assert harmful(said.out + said.err) in ([], ["\x7f"] if form else [])  # JSON leaves DEL, which does nothing
        assert not form or said.json
    assert not harmful(Shell(secure.home.path).ucl("status", "prod").out)
    proof("hostile", "commands run at a server that writes terminal escapes", 3)


@pytest.mark.parametrize("text", TERMINAL)
def test_printed_as_it_came_it_would(text):
    assert harmful(text)
    assert not harmful(str(UCLError(text, remedy=text)))
    assert harmful(json.dumps(text)) in ([], ["\x7f"])


def test_an_error_text_forges_no_line_of_its_own(secure, between):
    between.on("configuration", *[answers(200, errors=[{"message": "no\nprod: renewed\r\n\u2028fingerprint  0"}])] * 5)
    said = Shell(secure.home.path).ucl("renew", "prod", "--force")
    assert said.err.split(":")[0] == "RequestRejected"
    assert not any(line.startswith(("prod", "fingerprint")) for line in (said.out + said.err).splitlines())


# -- secrets that it echoes --------------------------------------------------------------------------------------------

SECRET = "Sx9/q+Zt.w~7Kp-3Lm_VbN=="


def base64_of(text):
    return base64.b64encode(text.encode()).decode()


ECHOES = {
    "as it is": SECRET,
    "in other words": f"token '{SECRET}' is not known.",
    "for a URL": quote(SECRET, safe=""),
    "upper case": SECRET.upper(),
    "lower case": SECRET.lower(),
    "over two lines": f"{SECRET[:9]}\r\n  {SECRET[9:]}",
    "with blanks": " ".join(SECRET),
    **{f"base64, {at} before": base64_of("x" * at + SECRET + " and so on") for at in range(4)},
    "base64 on its own": base64_of(SECRET),
    "base64 of a header": base64_of(f"Bearer {SECRET}"),
    "where the text is cut": "x" * 490 + SECRET,
    "far behind": "x" * 5000 + SECRET,
}
PLACES = {
    "an error": lambda echo: answer(200, {"errors": [{"message": echo}]}),
    "an error of 422": lambda echo: answer(422, {"errors": [{"message": echo, "extensions": {"x": echo}}]}),
    "an error's escapes": lambda echo: answer(200, ('{"errors": ["' + escaped(echo) + '"]}').encode()),
    "an error beside data": lambda echo: answer(200, {"data": {"result": echo}, "errors": [echo, {"message": echo}]}),
    "a redirect": lambda echo: answer(302, b"", {"Location": f"https://localhost/{quote(echo)}"}),
    "a page": lambda echo: answer(200, f"<html>{echo}</html>".encode()),
    "a name": lambda echo: answer(200, {echo: {"result": 1}}),
    "a result": lambda echo: result({"subject": echo, "urls": [echo], echo: echo}),
}


def escaped(text):
    return "".join(f"\\u{ord(one):04x}" for one in text)


def shown_of(got):
    """All that may be shown of an answer, or of an error."""
    if isinstance(got, UCLError):
        return "".join([str(got), repr(got), repr(dict(got.data)), repr(vars(got)), repr(got.__cause__)])
    return "".join([repr(got), repr(got.result), str(got.record), repr(got.record._repr_mimebundle_())])


def telling(text):
    """Eight signs of the secret in a row, in any of these forms, tell of it."""
    plain = "".join(text.replace("\\n", "").replace("\\r", "").split()).lower()
    forms = {SECRET, quote(SECRET, safe=""), *(base64_of("x" * at + SECRET)[4:-4] for at in range(3))}
    return [form for form in forms for at in range(len(form) - 8) if form[at : at + 8].lower() in plain]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_secret_that_comes_back_is_not_shown(stage, place, proof):
    headers = {"Authorization": f"Bearer {SECRET}", "connector-token": SECRET}
    for header, value in headers.items():
        for echo in ECHOES.values():
            got, server, _ = stage.play(place(echo), headers={header: value}, retry=False)
            assert server.requests[0].headers[header.lower()] == value
            assert not telling(shown_of(got)), echo
    proof("hostile", "secrets echoed by a server and not shown", len(ECHOES) * 2)


@pytest.mark.parametrize("echo", [echo for name, echo in ECHOES.items() if name != "far behind"])
def test_what_is_not_known_to_be_secret_would_be_shown(stage, echo):
    assert telling(shown_of(stage.play(PLACES["an error"](echo), retry=False)[0]))


def test_a_token_that_comes_back_as_subject_or_url_lies_nowhere(home, ucl, between, token):
    """Not in results, not in the journal, not in what is pending."""
    echo = {"subject": f"O=Org,CN={token.token.rstrip('=')}", "keyAlgorithm": base64_of(token.token)}
    url = f"https://localhost/{quote(token.token)}"
    plane = {"directorURL": url, "certificateSecuredConnectorURL": url}
    between.on("configuration", changes(certificateSigningRequestInfo=echo, managementPlaneInfo=plane))
    connection, said = home.new("new"), []
    connection.write_settings({"key_length": QUICK_BITS})
    procedure = Establishment.begin(connection, token, ca_file=ucl.ca_file)
    for name in STEPS:
        try:
            said.append(str(getattr(procedure, name)()))
        except UCLError as error:
            said.append(str(error) + repr(error.data))
    said += [str(status_of(connection)), *(one.read_text() for one in pending_of(connection).path.glob("*.json"))]
    said.append((connection.path / "journal.jsonl").read_text())
    assert pending_of(connection)
    for form in (token.token.rstrip("="), quote(token.token), base64_of(token.token)):
        assert not any(form in text for text in said)


# -- what never ends ---------------------------------------------------------------------------------------------------

LINE = b"X: " + b"x" * 1000 + b"\r\n"
ENDLESS = {
    "headers": (Cut(b"HTTP/1.1 200 -\r\n" + LINE * 2000), BadAnswer),
    "a header": (Cut(b"HTTP/1.1 200 -\r\nX: " + b"x" * MAX_ANSWER_BYTES), Unreachable),
    "a status line": (Cut(b"HTTP/1.1 200 " + b"x" * MAX_ANSWER_BYTES), Unreachable),
    "interim answers with headers": (Cut((b"HTTP/1.1 100 -\r\n" + LINE * 50 + b"\r\n") * 500), BadAnswer),
    "a body": (Cut(b"HTTP/1.1 200 -\r\n\r\n" + b" " * 3 * MAX_ANSWER_BYTES), BadAnswer),
    "chunks": (
        Cut(b"HTTP/1.1 200 -\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"400\r\n" + b" " * 1024 + b"\r\n") * 9000),
        BadAnswer,
    ),
    "an error": (Cut(b"HTTP/1.1 500 -\r\n\r\n" + b"x" * 3 * MAX_ANSWER_BYTES), UCLError),
    "silence": (Drip(b"", b"", b""), Unreachable),
}


@pytest.mark.parametrize(("step", "kind"), ENDLESS.values(), ids=ENDLESS)
def test_an_answer_without_end_ends(stage, step, kind, proof):
    error, server, _ = stage.play(step, retry=False, deadline=1.0)
    assert isinstance(error, kind)
    assert (len(server.requests), server.dripped_out) == (1, False)
    proof("hostile", "answers without end that ended", 1)


def test_redirects_without_end_are_not_followed_once(stage):
    for status in (301, 302, 303, 307, 308):
        error, server, _ = stage.play(answer(status, b"", {"Location": "https://localhost/graphql"}))
        assert isinstance(error, BadAnswer)
        assert "not followed" in error.message
        assert (server.accepted, len(server.requests)) == (1, 1)


def test_session_tickets_without_end_end(stage):
    """Ten million of them, after the handshake, while an answer is waited for."""
    with (
        serving(result(), identity=stage.identity, num_tickets=10_000_000) as server,
        Client(server.url, "certificate", ca_file=stage.ca.ca_file, retry=False, deadline=1.0) as client,
        pytest.raises(Unreachable, match="timed out"),
    ):
        client.call(QUERY)


def test_some_of_them_do_no_harm(stage):
    with (
        serving(result(), identity=stage.identity, num_tickets=100) as server,
        Client(server.url, "certificate", ca_file=stage.ca.ca_file, retry=False) as client,
    ):
        assert client.call(QUERY).result == "fine"


def test_a_server_certificate_without_end_is_not_read(stage, tmp_path):
    chain = tmp_path / "chain.pem"
    chain.write_bytes(stage.identity.read_bytes() + stage.ca.ca_file.read_bytes() * 400)  # 100 KiB are taken
    with (
        serving(result(), identity=chain) as server,
        Client(server.url, "certificate", ca_file=stage.ca.ca_file, retry=False) as client,
        pytest.raises(Unreachable),
    ):
        client.call(QUERY)
    assert server.requests == []


def test_renegotiation_without_end_ends(stage, proof):
    """With TLS 1.2 a server may ask for another handshake; this one asks for one after another."""
    command = ["stdbuf", "-oL", "openssl", "s_server", "-accept", "127.0.0.1:0", "-tls1_2"]
    command += ["-cert", str(stage.identity), "-key", str(stage.identity)]
    asked, begun, done = [], threading.Event(), threading.Event()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        where = next(line for line in server.stdout if line.startswith(b"ACCEPT"))

        def listen():
            for line in server.stdout:
                asked.extend([line] if line == b"SSL_do_handshake -> 1\n" else [])
                if line.startswith(b"POST"):
                    begun.set()

        def ask_again():
            begun.wait()
            while not done.wait(PAUSE) and server.poll() is None:
                with suppress(OSError):
                    server.stdin.write(b"r\n")
                    server.stdin.flush()

        threads = [threading.Thread(target=one) for one in (listen, ask_again)]
        for thread in threads:
            thread.start()
        url = f"https://localhost:{int(where.rpartition(b':')[2])}/"
        try:
            with (
                Client(url, "certificate", ca_file=stage.ca.ca_file, retry=False, deadline=2.0) as client,
                pytest.raises(Unreachable, match="timed out"),
            ):
                client.call(QUERY)
        finally:
            server.kill()
            for event in (begun, done):
                event.set()
            for thread in threads:
                thread.join()
    assert len(asked) > 2
    proof("hostile", "handshakes asked for by a server that renegotiates", len(asked))
