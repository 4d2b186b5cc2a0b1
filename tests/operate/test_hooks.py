"""Hooks as real processes: when they run, what they get to know, how they end."""

import json
import os
import re
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import environment
from held_locks import holding, let_go
from processes import wait_until
from steps import events
from stored import identity_pem, install
from written_tables import table_in

from ucl_helpers.connection.status import status_of
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import HookFailed, StorageFailed, UsageError
from ucl_helpers.models import Outcome
from ucl_helpers.operate import programs
from ucl_helpers.operate.hooks import pending_hooks, run_hooks
from ucl_helpers.tables import moment

SH = ("sh", "-c")


@pytest.fixture
def connection(tmp_path):
    """An established connection without hooks."""
    connection = Home(tmp_path / "home").new("prod")
    install(connection, 1)
    return connection


def configure(connection, timeout="60s", **commands):
    """Hooks by name: an argument list, or a text for the shell."""
    lines = []
    for name, command in commands.items():
        arguments = [*SH, command] if isinstance(command, str) else [str(one) for one in command]
        lines.append(f'[[hooks]]\nname = "{name}"\ncommand = {json.dumps(arguments)}\ntimeout = "{timeout}"\n')
    (connection.path / "settings.toml").write_text("".join(lines))


def pending(connection):
    return [one.name for one in pending_hooks(connection)]


def statuses(results):
    return {one.name: one.status for one in results.results}


def only(results):
    (one,) = results.results
    return one


# -- when --------------------------------------------------------------------------------------------------------------


def test_without_hooks_nothing_is_run_and_nothing_is_written(connection):
    before = {path.name for path in connection.path.iterdir()}
    results = run_hooks(connection)
    assert (results.results, results.error, results.summary) == ((), None, None)
    assert "none configured" in str(results)
    assert run_hooks(connection, everything=True) == results
    assert {path.name for path in connection.path.iterdir()} == before


def test_before_there_is_a_generation_nothing_is_pending(tmp_path):
    new = Home(tmp_path / "home").new("new")
    configure(new, one="true")
    assert (pending(new), run_hooks(new).results) == ([], ())


def test_a_hook_runs_once_for_a_generation(connection, tmp_path):
    configure(connection, one=f"echo $UCL_GENERATION >> {tmp_path}/ran")
    assert pending(connection) == ["one"]
    assert statuses(run_hooks(connection)) == {"one": "done"}
    assert pending(connection) == []
    assert statuses(run_hooks(connection)) == {"one": "not needed"}
    first = connection.current
    install(connection, 2)
    assert pending(connection) == ["one"]
    run_hooks(connection)
    connection.switch(first)  # a way back is a new generation to those who use it
    run_hooks(connection)
    numbers = [line.split("-")[0] for line in (tmp_path / "ran").read_text().splitlines()]
    assert numbers == ["000001", "000002", "000001"]


def test_a_failure_for_another_generation_ends_what_had_succeeded_before(connection, tmp_path):
    configure(connection, one=f"echo $UCL_GENERATION > {tmp_path}/copy; [ ! -e {tmp_path}/down ]")
    first = connection.current
    install(connection, 2)
    second = connection.current
    assert statuses(run_hooks(connection)) == {"one": "done"}
    connection.switch(first)
    (tmp_path / "down").touch()
    assert statuses(run_hooks(connection)) == {"one": "failed"}
    (tmp_path / "down").unlink()
    connection.switch(second)
    assert statuses(run_hooks(connection)) == {"one": "done"}
    assert (tmp_path / "copy").read_text().strip() == second.name


@pytest.mark.parametrize(
    "change",
    [
        lambda connection: configure(connection, one="true # another"),
        lambda connection: (connection.path / "hooks.json").write_text('{"hooks": {"one"'),
        lambda connection: (connection.path / "hooks.json").write_text('{"hooks": ["one"]}'),
        lambda connection: (connection.path / "hooks.json").unlink(),
    ],
)
def test_another_command_and_a_state_that_is_lost_are_reasons_to_run_it_again(change, connection):
    configure(connection, one="true")
    run_hooks(connection)
    change(connection)
    assert pending(connection) == ["one"]
    assert statuses(run_hooks(connection)) == {"one": "done"}


def test_other_changes_are_none(connection):
    configure(connection, one="true")
    run_hooks(connection)
    configure(connection, "30s", one="true", new="true")
    assert pending(connection) == ["new"]
    assert statuses(run_hooks(connection)) == {"one": "not needed", "new": "done"}
    assert statuses(run_hooks(connection, everything=True)) == {"one": "done", "new": "done"}


def test_all_are_tried_in_their_order_and_those_that_failed_again_until_they_succeed(connection, tmp_path):
    tell = f"echo $0 >> {tmp_path}/ran"
    configure(connection, a=[*SH, tell, "a"], b=[*SH, f"{tell}; test -e {tmp_path}/ready", "b"], c=[*SH, tell, "c"])
    results = run_hooks(connection)
    assert statuses(results) == {"a": "done", "b": "failed", "c": "done"}
    assert (results.failed, results.exit_code) == ({"b": "exit code 1"}, 13)
    assert status_of(connection).pending_hooks == ("b",)
    assert ("hooks pending", "b") in status_of(connection).rows()
    assert run_hooks(connection).exit_code == 13
    (tmp_path / "ready").touch()
    assert (run_hooks(connection).exit_code, pending(connection), run_hooks(connection).exit_code) == (0, [], 0)
    assert (tmp_path / "ran").read_text().split() == ["a", "b", "c", "b", "b"]
    told = [one for one in connection.journal() if one["event"].startswith("hook-")]
    assert [(one["event"], one["hook"], one["exit_code"]) for one in told] == [
        ("hook-succeeded", "a", 0),
        ("hook-failed", "b", 1),
        ("hook-succeeded", "c", 0),
        ("hook-failed", "b", 1),
        ("hook-succeeded", "b", 0),
    ]
    assert {one["generation"] for one in told} == {connection.current.name}


# -- what it gets to know ----------------------------------------------------------------------------------------------

LOOK = {
    "environ": ["cat", "/proc/self/environ"],
    "cmdline": ["cat", "/proc/self/cmdline"],
    "fd": ["ls", "/proc/self/fd"],
    "pwd": ["pwd"],
    "umask": "umask",
}


@contextmanager
def a_file_that_is_handed_on(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def variables(environ):
    return dict(one.split("=", 1) for one in environ.split("\0") if one)


def looked(connection):
    """What the hooks found in their processes; all of them have to succeed."""
    configure(connection, **LOOK)
    assert set(statuses(run_hooks(connection)).values()) == {"done"}
    return {one: (connection.path / "hooks" / f"{one}.log").read_text() for one in LOOK}


def test_its_process_knows_nothing_that_it_was_not_given(connection, tmp_path, monkeypatch):
    monkeypatch.setenv("BEARER", "canary-bearer")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv("TMPDIR", "/for a while")
    with a_file_that_is_handed_on(tmp_path):
        told = looked(connection)
    assert (told["pwd"], told["umask"]) == ("/\n", "0077\n")
    assert told["fd"].split() == ["0", "1", "2", "3"]  # 3: the folder that ls lists
    assert "canary" not in told["environ"] + told["cmdline"]
    names = {name for name in variables(told["environ"]) if not name.startswith("UCL_")}
    kept = {name for name in os.environ if name in {"PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME"}}
    assert names == kept | {name for name in os.environ if name.startswith("LC_")} | {"PATH", "LC_TIME", "TMPDIR"}
    assert all(variables(told["environ"])[name] == os.environ[name] for name in names)


def test_a_process_that_inherits_would_show_the_canary(tmp_path, monkeypatch):
    monkeypatch.setenv("BEARER", "canary-bearer")

    def inherits(command):
        return subprocess.run(command, check=True, close_fds=False, stdout=subprocess.PIPE, text=True).stdout

    with a_file_that_is_handed_on(tmp_path) as descriptor:
        assert variables(inherits(LOOK["environ"]))["BEARER"] == "canary-bearer"
        assert str(descriptor) in inherits(LOOK["fd"]).split()


def test_paths_and_fingerprints_are_those_of_the_generation(connection):
    first = connection.current.fingerprint
    new = install(connection, 2)
    connection.record("renewed", fingerprint=new.fingerprint, previous=first, generation=new.name)
    told = variables(looked(connection)["environ"])
    given = {name: value for name, value in told.items() if name.startswith("UCL_")}
    files = {name: given.pop(f"UCL_{name}_FILE") for name in ("IDENTITY", "KEY", "CERTIFICATE", "CHAIN")}
    assert files == {name: str(new.path / f"{name.lower()}.pem") for name in files}
    assert Path(files["IDENTITY"]).read_bytes() == identity_pem(2)
    assert given == {
        "UCL_CONNECTION": "prod",
        "UCL_HOME": str(connection.home.path),
        "UCL_EVENT": "renewed",
        "UCL_GENERATION": new.name,
        "UCL_GENERATION_PATH": str(new.path),
        "UCL_FINGERPRINT": new.fingerprint,
        "UCL_PREVIOUS_FINGERPRINT": first,
        "UCL_NOT_AFTER": moment(new.validity.not_after),
    }


def test_the_page_of_hooks_has_every_variable(connection):
    page = Path(__file__).parents[2] / "docs" / "reference" / "hooks.md"
    cells = [row.split(" | ")[0] for row in table_in(page.read_text("utf-8"), "| variable |")[1].splitlines()]
    given = {name for name in variables(looked(connection)["environ"]) if name.startswith("UCL_")}
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == given


@pytest.mark.parametrize(
    ("facts", "event", "told"),
    [
        ({"source": "import", "previous": "abc"}, None, "imported abc"),
        ({"source": "establish"}, None, "established"),
        ({}, None, "unknown"),
        ({"source": "renew", "previous": "abc"}, "rolled-back", "rolled-back def"),
    ],
)
def test_how_it_came_to_be_is_known_also_when_the_journal_is_lost(facts, event, told, tmp_path):
    connection = Home(tmp_path / "home").new("prod")
    generation = install(connection, 1, **facts)
    if event:
        connection.switch(generation, event, "def")
    configure(connection, one="echo $UCL_EVENT $UCL_PREVIOUS_FINGERPRINT")
    run_hooks(connection)
    assert (connection.path / "hooks" / "one.log").read_text().strip() == told


# -- how it ends -------------------------------------------------------------------------------------------------------


def script(folder, text, mode):
    path = folder / "hook"
    path.write_text(text)
    path.chmod(mode)
    return path


FAILURES = {
    "exit code": (lambda _: [*SH, "exit 3"], "exit code 3", 3),
    "signal": (lambda _: [*SH, "kill -9 $$"], "ended by SIGKILL", -9),
    "not there": (lambda _: ["no-such-program"], "no-such-program did not start: No such file or directory", None),
    "relative": (lambda _: ["./hook"], "./hook did not start: No such file or directory", None),
    "not executable": (
        lambda folder: [script(folder, "#!/bin/sh\n", 0o600)],
        "did not start: it is not executable; make it so: chmod u+x ",
        None,
    ),
    "no program": (lambda folder: [script(folder, "\x7f", 0o700)], "did not start: its first line names no", None),
    "no interpreter": (
        lambda folder: [script(folder, "#!/no/sh\n", 0o700)],
        "did not start: the interpreter /no/sh",
        None,
    ),
}


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES)
def test_each_way_to_fail_is_told(case, connection, tmp_path, monkeypatch):
    command, problem, code = case
    script(tmp_path, "#!/bin/sh\n", 0o700)
    monkeypatch.chdir(tmp_path)  # hooks run elsewhere
    configure(connection, one=command(tmp_path))
    results = run_hooks(connection)
    one = only(results)
    assert (one.status, one.exit_code) == ("failed", code)
    assert problem in one.problem
    assert isinstance(results.error, HookFailed)
    assert f"A hook of prod failed: one: {one.problem}." == results.error.message
    assert results.error.remedy.endswith(f"ucl hooks prod. What was printed is kept in {connection.path}/hooks")
    searched = "in no folder of PATH" in one.problem
    assert str(results.error).count(os.environ["PATH"]) == searched  # once, and only where it matters
    assert os.environ["PATH"] not in str(results)
    assert connection.journal()[-1]["problem"] == one.problem
    assert pending(connection) == ["one"]


def test_the_same_program_succeeds_when_it_can_be_run(connection, tmp_path):
    configure(connection, one=[script(tmp_path, "#!/bin/sh\n", 0o700)])
    assert only(run_hooks(connection)).status == "done"


def test_an_outcome_tells_of_its_hooks(connection):
    configure(connection, good="true", bad="exit 3")
    renewed = Outcome("renewed", "prod", {"fingerprint": "abc"})
    told = run_hooks(connection).complete(renewed).as_json()
    assert (told["outcome"], told["fingerprint"], told["exitCode"], told["error"]) == (
        "renewed",
        "abc",
        13,
        "HookFailed",
    )
    assert told["hooks"].startswith("good: done (0.")
    assert told["hooksFailed"] == "bad"
    configure(connection, good="true", bad="true")
    told = run_hooks(connection).complete(renewed).as_json()
    assert (told["exitCode"], told["hooks"].startswith("bad: done"), "error" in told) == (0, True, False)
    assert run_hooks(connection).complete(renewed) is renewed


def test_what_it_printed_last_is_shown_and_kept_out_of_the_error(connection):
    configure(connection, one=r"seq 9; echo err >&2; printf 'w\033[2Jas\r\n'; exit 1")
    results = run_hooks(connection)
    assert only(results).output == "7\n8\n9\nerr\nw\\x1b[2Jas"
    assert "w\\x1b[2Jas" in str(results)
    assert "\x1b" not in str(results)
    assert "err" not in results.error.message
    log = connection.path / "hooks" / "one.log"
    assert log.read_bytes() == b"1\n2\n3\n4\n5\n6\n7\n8\n9\nerr\nw\x1b[2Jas\r\n"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (log, log.parent)] == [0o600, 0o700]


def test_of_much_that_it_prints_the_end_is_kept(connection):
    configure(connection, one="yes | head -c 5000000; echo; echo end")
    assert only(run_hooks(connection)).status == "done"
    kept = (connection.path / "hooks" / "one.log").read_bytes()
    assert (len(kept), kept[-4:]) == (programs.KEPT_BYTES, b"end\n")


@pytest.mark.parametrize(
    "command", ["cat $UCL_KEY_FILE; exit 1", "head -3 $UCL_KEY_FILE; exit 1", "cat $UCL_IDENTITY_FILE; exit 1"]
)
def test_a_key_that_it_prints_is_kept_nowhere(command, connection):
    configure(connection, one=command)
    results = run_hooks(connection)
    lines = connection.current.path.joinpath("key.pem").read_text().splitlines()
    told = str(results) + (connection.path / "hooks" / "one.log").read_text()
    assert [line for line in lines if line in told] == []
    assert "[private key removed]" in told


@pytest.mark.parametrize("form", ["base64 -w0 $UCL_KEY_FILE", "echo $(tail -n +9 $UCL_KEY_FILE)", "od $UCL_KEY_FILE"])
def test_a_key_that_it_prints_in_another_form_is_kept_nowhere(form, connection):
    configure(connection, one=f"echo before; {form}; exit 1")
    results = run_hooks(connection)
    log = (connection.path / "hooks" / "one.log").read_text()
    assert log == "[private key removed]"
    assert max(map(len, (log + only(results).output).split())) < 40


def test_of_a_key_that_is_half_pushed_out_the_rest_is_not_kept_either(connection):
    filler = programs.KEPT_BYTES - 900  # the key's text is longer than that
    configure(connection, one=f"cat $UCL_KEY_FILE; yes | head -c {filler}")
    run_hooks(connection)
    kept = (connection.path / "hooks" / "one.log").read_text()
    assert kept == "[private key removed]"


def test_what_cannot_be_kept_has_to_be_run_again_and_stops_no_other(connection, tmp_path):
    configure(connection, one=f"echo 1 >> {tmp_path}/ran", two=f"echo 2 >> {tmp_path}/ran; exit 3")
    (connection.path / "hooks").touch()
    failed = run_hooks(connection).failed
    assert failed["one"].startswith("done, and that could not be kept: Could not make ")
    assert failed["two"].startswith("exit code 3, and that could not be kept: ")
    (connection.path / "hooks").unlink()
    assert run_hooks(connection).failed == {"two": "exit code 3"}
    assert (tmp_path / "ran").read_text().split() == ["1", "2"] * 2


# -- its time is over --------------------------------------------------------------------------------------------------

STUBBORN = "sh -c 'trap \"\" TERM; echo $$ > {0}/child; exec sleep 1000' & trap '' TERM; echo going; wait; sleep 1000"


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_when_its_time_is_over_it_is_ended_with_its_children(connection, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "GRACE_SECONDS", 0.2)
    configure(connection, "1s", one=STUBBORN.format(tmp_path))
    one = only(run_hooks(connection))
    assert (one.status, one.problem) == ("failed", "not done after 1 s, so it was ended")
    assert (one.exit_code, one.output) == (None, "going")
    wait_until(lambda: not is_alive((tmp_path / "child").read_text()))


def test_what_ended_by_itself_may_leave_a_daemon_which_holds_nothing_of_ours(connection, tmp_path):
    configure(connection, one=f"sleep 1000 & echo $! > {tmp_path}/child; echo started")
    assert only(run_hooks(connection)).status == "done"
    pid = int((tmp_path / "child").read_text())
    try:
        assert is_alive(pid)
        opened = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [path for path in opened if path.is_relative_to(connection.path)]
        assert statuses(run_hooks(connection, everything=True)) == {"one": "done"}
    finally:
        os.kill(pid, 9)
        os.kill(int((tmp_path / "child").read_text()), 9)


@pytest.mark.parametrize(("sign", "code"), [("TERM", 143), ("HUP", 129)])
def test_a_run_that_is_told_to_end_ends_its_hook_first(sign, code, connection, tmp_path):
    configure(connection, one=f"echo $$ > {tmp_path}/hook; kill -{sign} $PPID; exec sleep 1000")
    script = (
        "import sys; from ucl_helpers.connection.store import Home; from ucl_helpers.operate.hooks import run_hooks\n"
    )
    script += "run_hooks(Home(sys.argv[1]).connection('prod'))"
    done = subprocess.run([sys.executable, "-c", script, connection.home.path], env=environment(), check=False)
    assert done.returncode == code
    assert not is_alive((tmp_path / "hook").read_text().strip())
    assert pending(connection) == ["one"]


# -- whose commands they are -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "ran"), [(0o600, ["one"]), (0o644, ["one"]), (0o664, []), (0o602, [])])
def test_settings_that_others_may_write_run_nothing(mode, ran, connection):
    configure(connection, one="true")
    (connection.path / "settings.toml").chmod(mode)
    if ran:
        assert list(statuses(run_hooks(connection))) == ran
    else:
        with pytest.raises(StorageFailed, match="can be changed by others") as caught:
            run_hooks(connection)
        assert "chmod go-w" in caught.value.remedy
        assert events(connection) == []


def test_without_hooks_it_does_not_matter_who_may(connection):
    (connection.path / "settings.toml").touch(0o666)
    (connection.path / "settings.toml").chmod(0o666)
    assert run_hooks(connection).results == ()


# -- one at a time -----------------------------------------------------------------------------------------------------


def test_not_while_the_lock_of_the_connection_is_held(connection):
    configure(connection, one="true")
    with connection.lock.held(), pytest.raises(UsageError, match="lock is held"):
        run_hooks(connection)
    assert pending(connection) == ["one"]
    assert statuses(run_hooks(connection)) == {"one": "done"}


def test_another_process_that_renews_is_no_reason_not_to(connection):
    configure(connection, one="true")
    with holding(connection.path / "lock") as process:
        results = run_hooks(connection)
        let_go(process)
    assert statuses(results) == {"one": "done"}


def test_while_another_process_runs_them_that_is_said_and_nothing_fails(connection):
    configure(connection, one="true")
    with holding(connection.path / "hooks.lock") as process:
        results = run_hooks(connection)
        let_go(process)
    assert (results.results, results.exit_code) == ((), 0)
    assert f"process {process.pid} on " in results.busy
    assert results.busy in str(results)
    assert "busy: process" in results.complete(Outcome("renewed", "prod")).as_json()["hooks"]
    assert statuses(run_hooks(connection)) == {"one": "done"}


def test_a_generation_that_comes_while_hooks_run_is_theirs_as_well(connection, tmp_path):
    """The other process finds the lock held: who holds it runs the hooks once more."""
    os.mkfifo(tmp_path / "go")
    wait = f"case $UCL_GENERATION in 000001-*) read line < {tmp_path}/go;; esac"
    configure(connection, one=f"echo $UCL_GENERATION >> {tmp_path}/ran; {wait}")
    found = []
    thread = threading.Thread(target=lambda: found.append(run_hooks(connection)))
    thread.start()
    wait_until((tmp_path / "ran").exists)
    first, second = connection.current, install(connection, 2)
    other = run_hooks(connection.home.connection("prod"))
    (tmp_path / "go").write_text("\n")
    thread.join()
    assert other.busy
    assert (tmp_path / "ran").read_text().split() == [first.name, second.name]
    assert (found[0].generation, pending(connection)) == (second.name, [])
    assert events(connection) == ["hook-succeeded"] * 2
