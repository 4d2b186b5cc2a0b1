"""What decides lives in state files: the journal may be rotated, truncated, damaged or removed, and says so itself."""

import gzip
import json
import stat

import pytest
from command_line import Shell
from quick_keys import QUICK_BITS
from steps import Clock, events, judged

from ucl_helpers import Establishment, forget, renew, revoke, rollback, status_of, valid_identities
from ucl_helpers.errors import StorageFailed
from ucl_helpers.models import OneTimeToken
from ucl_helpers.operate.doctor import diagnose
from ucl_helpers.operate.due_check import check_due
from ucl_helpers.operate.hooks import run_hooks
from ucl_helpers.operate.monitoring import verdict

pytest_plugins = ["procedure_fixtures"]

HOOKS = f'key_length = {QUICK_BITS}\n[[hooks]]\nname = "tell"\ncommand = ["/bin/sh", "-c", "echo $UCL_EVENT; exit 3"]\n'


def decisions(connection):
    """Everything that is decided about a connection, on disk alone."""
    clock = Clock()
    status, seen = status_of(connection, clock), check_due(connection, clock())
    return {
        "revoked": connection.revoked(),
        "verdicts": dict(connection.verdicts()),
        "valid": [one.fingerprint for one in valid_identities(connection)],
        "state": status.state,
        "monitoring": verdict(status).word,
        "hooks": status.pending_hooks,
        "rollback": [one.name for one in connection.usable(clock())],
        "a run is needed": seen.need and seen.need.why,
        "how it came into use": connection.activation_of(connection.current),
        "the hook's problem": connection.hook_failures(connection.current),
        "doctor": {one.name: one.status for one in diagnose(connection, offline=True) if one.name != "journal"},
    }


@pytest.fixture
def lived(secure, between):
    """Three generations: the third revoked, the first asked for, the second in use after a rollback, a hook failed."""
    renew(secure)
    renew(secure)
    (secure.path / "settings.toml").write_text(HOOKS)
    revoke(secure)
    rollback(secure)
    run_hooks(secure)
    judged(secure, "asked", secure.generations()[0].fingerprint)
    return secure


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def forged(path, connection):
    """Someone writes into it what did not happen."""
    mark, name = connection.current.fingerprint, connection.current.name
    for event in ("revoked", "revoke-refused", "renewed", "hook-succeeded"):
        connection.record(event, fingerprint=mark, generation=name, hook="tell", previous="0" * 64)


DAMAGES = {
    "emptied": lambda path, _: path.write_bytes(b""),
    "removed": lambda path, _: path.unlink(),
    "renamed by logrotate": lambda path, _: path.rename(f"{path}.1"),
    "compressed by logrotate": lambda path, _: (
        path.with_name("journal.jsonl.1.gz").write_bytes(gzip.compress(path.read_bytes())),
        path.unlink(),
    ),
    "cut within a line": lambda path, _: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "only the last line kept": lambda path, _: path.write_bytes(lines(path)[-1]),
    "lines taken out": lambda path, _: path.write_bytes(b"".join(lines(path)[::2])),
    "binary rubbish": lambda path, _: path.write_bytes(bytes(range(256)) * 64),
    "rubbish before and after": lambda path, _: path.write_bytes(b"\0\xff\n" + path.read_bytes() + b"\x80{"),
    "an editor's": lambda path, _: path.write_text("# notes\n" + path.read_text().replace('"', "'")),
    "UTF-16": lambda path, _: path.write_text(path.read_text(), encoding="utf-16"),
    "nothing but blanks": lambda path, _: path.write_text("\n \n\t\n"),
    "forged": forged,
}


@pytest.mark.kind("state is not a log: damages of the journal that change no decision")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_no_decision_rests_on_the_journal(lived, damage):
    before = decisions(lived)
    damage(lived.path / "journal.jsonl", lived)
    assert decisions(lived) == before
    assert run_hooks(lived).results[0].output == "rolled-back"
    third, second, first = (one.fingerprint for one in reversed(lived.generations()))
    assert revoke(lived, everything=True).facts["revoked"] == f"{first}, {second}"
    assert lived.revoked().keys() == {first, second, third}


def test_the_decisions_do_differ_when_the_state_files_are_lost_as_well(lived):
    """The twin: it is these files that know."""
    before = decisions(lived)
    for name in ("journal.jsonl", "revoked.json", "activation.json", "hooks.json"):
        (lived.path / name).unlink()
    after = decisions(lived)
    changed = {name for name in before if before[name] != after[name]}
    assert changed >= {"revoked", "verdicts", "valid", "rollback", "how it came into use", "the hook's problem"}


def test_state_files_are_private_and_name_no_secret(lived):
    for name in ("revoked.json", "activation.json", "hooks.json"):
        path = lived.path / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"PRIVATE" not in path.read_bytes()


@pytest.mark.parametrize("damage", ["emptied", "removed", "binary rubbish"])
def test_what_is_revoked_stays_revoked_for_monitoring(secure, damage):
    revoke(secure)
    DAMAGES[damage](secure.path / "journal.jsonl", secure)
    said = Shell(secure.home.path).ucl("status", "prod", "--check")
    assert (said.code, "prod: revoked" in said.out) == (2, True)


# -- the journal says itself that lines were lost ----------------------------------------------------------------------


@pytest.fixture
def established(home, ucl, between):
    """A connection by a one-time token, so that its journal has a beginning."""
    connection = home.new("prod")
    connection.write_settings({"key_length": QUICK_BITS})
    Establishment.begin(connection, OneTimeToken(ucl.one_time_token(), ucl.connector_url), ca_file=ucl.ca_file).run()
    renew(connection)
    return connection


LOST = {
    "emptied": (DAMAGES["emptied"], "is empty or gone"),
    "removed": (DAMAGES["removed"], "is empty or gone"),
    "removed, and begun again": (lambda path, one: (path.unlink(), one.record("x")), "1 or more are missing"),
    "emptied, and begun again": (lambda path, one: (path.write_text(""), one.record("x")), "1 or more are missing"),
    "the first line": (lambda path, _: path.write_bytes(b"".join(lines(path)[1:])), "1 or more are missing"),
    "two in the middle": (
        lambda path, _: path.write_bytes(b"".join(lines(path)[:1] + lines(path)[3:])),
        "2 or more are missing",
    ),
    "half a line": (lambda path, _: path.write_bytes(path.read_bytes()[:-30]), "1 cannot be read"),
    "binary rubbish": (lambda path, _: path.write_bytes(path.read_bytes() + b"\xff\0\n\xfe"), "2 cannot be read"),
    "an editor's": (lambda path, _: path.write_text("# notes\n" + path.read_text()), "1 cannot be read"),
    "JSON of something else": (lambda path, _: path.write_text(path.read_text() + '[1]\n{"a": 1}\n'), "2 cannot be"),
}


@pytest.mark.kind("state is not a log: lost lines that the journal tells of")
@pytest.mark.parametrize(("lose", "told"), LOST.values(), ids=LOST)
def test_the_journal_tells_of_lost_lines(established, lose, told):
    lose(established.path / "journal.jsonl", established)
    shell = Shell(established.home.path)
    said, as_json = shell.ucl("journal", "prod"), shell.ucl("journal", "prod", "--json")
    assert (said.code, said.out.splitlines()[-1].startswith("Lines were lost: ")) == (0, True)
    assert told in said.out
    assert (as_json.code, as_json.json, told in as_json.err) == (0, established.journal(), True)


def old_lines(path):
    """As the previous version wrote them: without numbers."""
    without = [{name: value for name, value in json.loads(line).items() if name != "n"} for line in lines(path)]
    path.write_text("".join(json.dumps(one) + "\n" for one in without))


WHOLE = {
    "as it is": lambda path, one: None,
    "of the previous version": lambda path, one: old_lines(path),
    "of the previous version, and gone on with": lambda path, one: (old_lines(path), one.record("x"), one.record("y")),
}


@pytest.mark.parametrize("write", WHOLE.values(), ids=WHOLE)
def test_a_whole_journal_tells_of_none(established, write):
    """The twin."""
    write(established.path / "journal.jsonl", established)
    assert "lost" not in Shell(established.home.path).ucl("journal", "prod").out
    assert established.lost_events() is None


def test_nothing_is_lost_where_nothing_has_happened(home):
    new = home.new("new")
    assert new.lost_events() is None
    new.record("attempt-failed")
    assert (new.lost_events(), events(new)) == (None, ["attempt-failed"])


def test_the_first_identity_begins_the_journal(secure):
    facts = secure.current.path / "connection.json"
    facts.write_text(json.dumps({**secure.current.facts, "source": "import"}))
    secure.record("imported", generation=secure.current.name)
    assert secure.lost_events() is None
    (secure.path / "journal.jsonl").unlink()
    secure.record("imported", generation="000002-of another")  # the twin: there was another before
    assert "1 or more are missing" in secure.lost_events()


# -- a state file that is damaged itself -------------------------------------------------------------------------------

MARK = "0" * 64
SPOILED = {
    "empty": b"",
    "cut off": b'{"certificates": {"' + MARK.encode() + b'": {"sta',
    "binary rubbish": bytes(range(256)),
    "a list": b"[]",
    "nothing in it": b"{}",
    "no mapping": b'{"certificates": []}',
    "nested too deep": b"[" * 100_000,
    "an unknown status": {"status": "valid", "since": "2026-01-01T00:00:00+00:00"},
    "a status that is no text": {"status": ["revoked"], "since": "2026-01-01T00:00:00+00:00"},
    "no moment": {"status": "revoked", "since": "yesterday"},
    "a moment without a zone": {"status": "revoked", "since": "2026-01-01T00:00:00"},
    "an entry that is none": "revoked",
}


@pytest.mark.kind("state is not a log: damages of a state file that are told")
@pytest.mark.parametrize("content", SPOILED.values(), ids=SPOILED)
def test_a_damaged_state_file_never_says_that_nothing_is_revoked(secure, content):
    revoke(secure)
    path = secure.path / "revoked.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps({"certificates": {MARK: content}}).encode())
    for ask in (secure.revoked, lambda: renew(secure), lambda: revoke(secure), lambda: rollback(secure)):
        with pytest.raises(StorageFailed, match=r"revoked\.json is damaged") as raised:
            ask()
        assert raised.value.exit_code == 10
    with pytest.raises(StorageFailed):
        forget(secure)
    assert status_of(secure).state == "damaged"
    assert verdict(status_of(secure)).word == "CRITICAL"
    finding = diagnose(secure, offline=True)["state files"]
    assert (finding.status, finding.exit_code) == ("failed", 10)
    assert finding.remedy == f"mv {path} {path}.damaged"
    path.rename(f"{path}.damaged")  # as it says: then the journal is read
    assert status_of(secure).state == "revoked"
    with secure.lock.held():
        assert path.exists()


@pytest.mark.parametrize("content", ['{"certificates": {}}', '{"certificates": {}, "of a later version": 1}'])
def test_one_that_is_whole_is_read(secure, content):
    """The twin."""
    (secure.path / "revoked.json").write_text(content)
    assert (secure.revoked(), status_of(secure).state) == ({}, "valid")
    assert diagnose(secure, offline=True)["state files"].status == "ok"


@pytest.mark.parametrize("name", ["activation.json", "hooks.json", "attempts.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff"], ids=["empty", "a list", "rubbish"])
def test_others_count_for_nothing_when_they_are_damaged_and_the_doctor_finds_them(lived, name, content):
    (lived.path / name).write_bytes(content)
    assert status_of(lived).state == "valid"
    assert status_of(lived).pending_hooks == ("tell",)
    finding = diagnose(lived, offline=True)["state files"]
    assert (finding.status, finding.remedy) == ("warning", f"rm {lived.path / name}")
    (lived.path / name).unlink()
    assert diagnose(lived, offline=True)["state files"].status == "ok"


def test_a_link_in_place_of_a_state_file_is_not_written_through(secure, tmp_path):
    revoke(secure)
    elsewhere = tmp_path / "elsewhere"
    (secure.path / "revoked.json").rename(elsewhere)
    before = elsewhere.read_bytes()
    (secure.path / "revoked.json").symlink_to(elsewhere)
    judged(secure, "refused", MARK)
    assert elsewhere.read_bytes() == before
    assert secure.revoked().keys() == {secure.current.fingerprint}
