"""A plan of faults strikes as often as it says and the same every time; it is read from a file or by name, and changed
at run time by who has the bearer; without a plan the sandbox is as it was."""

import http.client
import json
import re
import signal
import subprocess
import threading
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from command_line import UCL, environment
from contract_replay import CONFIGURATION, JSON_TYPE, graphql, trusting
from wire_watch import Seen, ask
from written_tables import keep

from ucl_sandbox import Fault, Faults, FaultsError, Sandbox, SandboxError, read_plan
from ucl_sandbox.faults.catalogue import CATALOGUE
from ucl_sandbox.faults.defects import DEFECTS
from ucl_sandbox.faults.plans import NAMED, PASSING, parse_plan

CONFIGURE = graphql(CONFIGURATION)
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "sandbox.md"
CALLS = [("token", "configuration"), ("certificate", "sign"), ("director", "token")]


@pytest.fixture(scope="module")
def ucl():
    with Sandbox() as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(ucl):
    yield
    ucl.faults.clear()


def call(ucl, **headers):
    """What becomes of a call without a token: 400, if nothing strikes."""
    return ask(ucl.connector_url, trusting(ucl.ca_file), CONFIGURE, headers)


def drawn(faults, calls=300):
    """The kinds that strike calls: before they are read, or then."""
    struck = []
    for place in range(calls):
        at, operation = CALLS[place % len(CALLS)]
        fault = faults.draw(at) or faults.draw(at, operation)
        struck.append(fault and fault.kind)
    return struck


# -- how often ---------------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_strikes_and_another_gives_others(ucl):
    plan = [Fault("http-503", probability=0.5), Fault("http-502", probability=0.5)]
    seen = []
    for seed in (1, 1, 2):
        ucl.faults.set(plan, seed=seed)
        seen.append([call(ucl).status for _ in range(20)])
        assert dict(Counter(seen[-1])) == {400: 20 - sum(ucl.faults.struck.values())} | {
            int(kind[-3:]): number for kind, number in ucl.faults.struck.items()
        }
    assert seen[0] == seen[1] != seen[2]
    assert set(seen[0]) == {400, 502, 503}


@pytest.mark.parametrize("probability", [0.2, 0.9])
def test_grumpy_strikes_each_call_with_its_probability_in_all_its_ways(probability):
    struck = drawn(Faults(NAMED["grumpy"](probability), seed=4), 4000)
    kinds = Counter(filter(None, struck))
    assert abs(kinds.total() / len(struck) - probability) < 0.02
    assert set(kinds) == set(PASSING)
    assert max(kinds.values()) < 2 * min(kinds.values())


def test_a_fault_strikes_so_often_where_it_is_told_and_then_no_more(ucl):
    ucl.faults.set([Fault("http-503", at="token", times=2), Fault("http-502", at="certificate")])
    assert [call(ucl).status for _ in range(4)] == [503, 503, 400, 400]
    assert ucl.faults.struck == {"http-503": 2}
    ucl.faults.set(ucl.faults.plan)
    assert (ucl.faults.struck, call(ucl).status) == ({}, 503)


def test_times_hold_under_many_threads():
    faults, struck = Faults([Fault("http-503", times=100, probability=0.9)]), []
    threads = [threading.Thread(target=lambda: struck.extend(drawn(faults, 500))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (Counter(struck)["http-503"], faults.struck) == (100, {"http-503": 100})


def test_an_operation_is_told_from_another():
    faults = Faults([Fault("http-503", operation="sign"), Fault("reset-in-handshake", at="director")])
    assert drawn(faults, 3) == [None, "http-503", "reset-in-handshake"]
    assert Faults([Fault("sha1")]).draw("certificate", "sign") is None
    assert Faults([Fault("sha1")]).draw("certificate", "sign", ("certificate",)) == Fault("sha1")


def test_without_faults_nothing_changes(ucl):
    """A connection is kept, and no header is added; as long as there is a fault, each call has one of its own."""
    port, headers = urlsplit(ucl.connector_url).port, ["Content-Length", "Content-Type", "Date"]
    for plan, extra in (((), []), ([Fault("http-503", at="director")], ["Connection"]), ((), [])):
        ucl.faults.set(plan)
        with closing(http.client.HTTPSConnection("localhost", port, context=trusting(ucl.ca_file))) as connection:
            for _ in range(2):
                connection.request("POST", "/connector/graphql", CONFIGURE, JSON_TYPE)
                answer = connection.getresponse()
                assert (answer.status, answer.read(), sorted(answer.headers)) == (400, b"", extra + headers)
        first, second = ucl.requests[-2:]
        assert (first.connection == second.connection) is (not plan)
        assert (first.fault, second.fault) == (None, None)


# -- how it is written -------------------------------------------------------------------------------------------------


def test_a_file_and_a_name_say_the_same_as_python(tmp_path):
    (tmp_path / "plan.json").write_text('{"seed": 7, "faults": [{"kind": "http-429", "at": "token", "value": 3}]}')
    plan = read_plan(str(tmp_path / "plan.json"))
    assert (plan.seed, plan.plan) == (7, (Fault("http-429", at="token", value=3),))
    assert parse_plan(json.dumps({"seed": 7, "faults": [one.as_json() for one in plan.plan]})).plan == plan.plan
    assert read_plan("grumpy").plan == read_plan("grumpy:0.2").plan == NAMED["grumpy"]()
    assert read_plan("http-503:0.5").plan == (Fault("http-503", probability=0.5),)
    assert read_plan("away").refuses("token")
    assert not read_plan("away").refuses("director")
    assert read_plan("lost-answer").plan == (Fault("reset-after-acting", "certificate", "sign", times=1),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("grumpi", "'grumpi'.*known are grumpy, away, .*http-503"),
        ("grumpy:much", "probability is 'much'"),
        ("grumpy:1.5", "probability is 1.5"),
        ("away:0.5", "on or off"),
        ('{"faults": [{"kind": "http-503"}, {"kind": "htp-503"}]}', "fault 2: kind is 'htp-503'; known are refused, "),
        ('{"faults": [{"kind": "http-503", "att": "token"}]}', "fault 1: it has 'att'; known are kind, at, operation"),
        ('{"faults": [{"at": "token"}]}', "fault 1: kind is ''"),
        ('{"faults": [{"kind": "http-503", "at": "tokens"}]}', "at is 'tokens'; known are director, token, certif"),
        ('{"faults": [{"kind": "http-503", "operation": "signs"}]}', "operation is 'signs'; known are configuration"),
        ('{"faults": [{"kind": "http-503", "probability": "1"}]}', "probability is '1', and not a number"),
        ('{"faults": [{"kind": "http-503", "probability": 0}]}', "probability is 0"),
        ('{"faults": [{"kind": "http-503", "times": 0}]}', "times is 0"),
        ('{"faults": [{"kind": "http-502", "value": 1}]}', "http-502 takes no value"),
        ('{"faults": [{"kind": "http-503", "value": []}]}', "value is \\[\\]"),
        ('{"faults": [{"kind": "slow-drip", "value": "slow"}]}', "value is 'slow', and not a number above 0"),
        ('{"faults": [{"kind": "redirect-to-http", "value": 200}]}', "knows 301, 302"),
        ('{"faults": [{"kind": "tls-alert", "value": "loud"}]}', "knows .*internal_error"),
        ('{"faults": [{"kind": "reset-in-handshake", "operation": "sign"}]}', "before the operation is known"),
        ('{"faults": [{"kind": "sha1", "operation": "revoke"}]}', "sha1 strikes at sign only"),
        ('{"faults": [{"kind": "refused", "times": 1}]}', "on or off"),
        ('{"faults": [7]}', "fault 1: it is not a JSON object"),
        ('{"faults": {}}', "faults is not a list"),
        ('{"seed": "x"}', "seed is 'x'"),
        ('{"fault": []}', "a plan has 'fault'; known are seed, faults"),
        ('{"faults": [', "JSON, and this is not"),
    ],
)
def test_a_wrong_plan_is_told_from_what_is_known(text, told):
    with pytest.raises(FaultsError, match=told):
        parse_plan(text)


def test_a_file_that_is_none_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(SandboxError, match=f"'{re.escape(str(path))}' is neither a file .* nor a name; known are"):
            read_plan(str(path))


def test_every_kind_is_in_the_reference():
    """With UCL_WRITE_TABLE=1 this writes the table."""
    rows = [(f"`{name}`", kind.effect, "yes" if kind.acted else "no", kind.value) for name, kind in CATALOGUE.items()]
    keep(REFERENCE, "| kind |", rows)


def test_every_defect_is_a_kind():
    assert set(DEFECTS) == {name for name, kind in CATALOGUE.items() if kind.family == "certificate"}
    assert set(PASSING) <= set(CATALOGUE)


# -- at run time, and as a process -------------------------------------------------------------------------------------


def control(ready, method, body="", bearer=None):
    url = ready["directorUrl"].replace("/director/graphql", "/faults")
    headers = {"Authorization": f"Bearer {bearer or ready['directorToken']}"}
    return ask(url, trusting(Path(ready["caFile"])), body, headers, method=method)


@contextmanager
def process(folder, *options):
    """`ucl sandbox` until the end of the block: what its ready file says; then what it has told is in the list."""
    told = []
    command = [UCL, "sandbox", "--state", folder / "state", "--ready-file", folder / "ready.json", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(folder)) as running:
        told.append(running.stderr.readline())
        yield json.loads((folder / "ready.json").read_text()), running.pid, told
        running.send_signal(signal.SIGTERM)
        told += running.communicate()[1].splitlines(keepends=True)
    assert running.returncode == 0


def test_a_process_misbehaves_as_told_and_says_so(tmp_path):
    (tmp_path / "plan.json").write_text('{"seed": 3, "faults": [{"kind": "http-503", "at": "token", "times": 1}]}')
    with process(tmp_path, "--faults", tmp_path / "plan.json") as (ready, _, told):
        trust = trusting(Path(ready["caFile"]))
        assert [ask(ready["connectorUrl"], trust, CONFIGURE).status for _ in range(2)] == [503, 400]
        wrong = control(ready, "PUT", "http-502", bearer="x" * 80)
        assert (wrong.status, wrong.json) == (401, {"error": "the bearer token is wrong or missing"})
        plan = [{"kind": "http-503", "at": "token", "times": 1}]
        assert control(ready, "GET").json == {"seed": 3, "faults": plan, "struck": {"http-503": 1}}
        assert control(ready, "PUT", "http-502").json["faults"] == [{"kind": "http-502"}]
        assert [ask(ready[name], trust, CONFIGURE).status for name in ("connectorUrl", "directorUrl")] == [502, 502]
        assert control(ready, "GET").json["struck"] == {"http-502": 2}
        assert control(ready, "DELETE").json == {"seed": 0, "faults": [], "struck": {}}
        assert ask(ready["connectorUrl"], trust, CONFIGURE).status == 400
    assert [line for line in told if "misbehaves on purpose (seed 3): http-503" in line]


def test_a_process_without_faults_says_nothing_of_them_and_streams_a_huge_answer(tmp_path):
    with process(tmp_path) as (ready, pid, told):
        memory = Path(f"/proc/{pid}/status")
        before = _most_memory(memory)
        control(ready, "PUT", "json-huge")
        headers = {"Authorization": f"Bearer {ready['directorToken']}", "Tenant": ready["tenant"]}
        seen = ask(ready["directorUrl"], trusting(Path(ready["caFile"])), '{"query": "{ viewer { id } }"}', headers)
        assert seen.whole
        assert seen.length == 100_000_000
        assert _most_memory(memory) - before < 50_000
    assert not [line for line in told if "misbehave" in line]


def _most_memory(status):
    """The peak of a process' resident memory in kB; 0 where the kernel does not tell."""
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    ("method", "body", "status", "told"),
    [
        ("PUT", "grumpi", 400, "no fault and no plan is called 'grumpi'"),
        ("PUT", "/etc/hostname", 400, "no fault and no plan is called '/etc/hostname'"),
        ("PUT", "refused", 400, "would shut the Director's listener"),
        ("PUT", '{"faults": [{"kind": "tls-alert", "at": "director"}]}', 400, "would shut the Director's listener"),
        ("POST", "grumpy", 405, "GET, PUT or DELETE"),
    ],
)
def test_what_cannot_be_set_leaves_the_plan(ucl, method, body, status, told):
    ucl.faults.set([Fault("http-503")], seed=5)
    ready = {"directorUrl": ucl.director_url, "directorToken": ucl.director_token, "caFile": ucl.ca_file}
    seen = control(ready, method, body)
    assert (seen.status, told in seen.json["error"]) == (status, True)
    assert (ucl.faults.plan, ucl.faults.seed) == ((Fault("http-503"),), 5)
    assert control(ready, "PUT", "away").status == 200
    assert call(ucl) == Seen("refused")


def test_a_wrong_plan_on_the_command_line_is_a_usage_error(tmp_path):
    for given, told in (("grumpi", "known are grumpy"), ("grumpy:2", "at most 1")):
        command = [UCL, "sandbox", "--state", tmp_path / "state", "--faults", given]
        said = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=False)
        assert (said.returncode, told in said.stderr, "Traceback" in said.stderr) == (2, True, False)
    assert not (tmp_path / "state").exists()
