"""``ucl settings``, ``ucl export`` and the paths of exports, as a process, at a connection that calls nobody."""

import os
import stat
import tomllib

import pytest
from command_line import Shell
from secrets_watch import CANARY
from stored import install

from ucl_helpers.connection.settings import parse_settings
from ucl_helpers.connection.store import Home

SETTINGS = '[exports]\npkcs12 = "env:P12"\ncombined = true\n'


@pytest.fixture
def shell(tmp_path):
    """A shell with one connection, ``prod``."""
    install(Home(tmp_path / "home").new("prod"), 0)
    return Shell(tmp_path / "home")


def file(shell, name="prod"):
    return shell.home / "connections" / name / "settings.toml"


def editor(tmp_path, *texts):
    """An editor that saves these texts, one at each start; none leaves the file as it is."""
    for number, text in enumerate(texts):
        (tmp_path / str(number)).write_text(text)
    program = tmp_path / "editor"
    program.write_text(
        f'#!/bin/sh\ncd "{tmp_path}"\nfor one in 0 1; do if [ -e $one ]; then mv $one "$2"; exit 0; fi; done\n'
    )
    program.chmod(0o700)
    return {"VISUAL": f"'{program}' --wait", "EDITOR": "/bin/false"}


# -- settings ----------------------------------------------------------------------------------------------------------


def test_settings_in_force_are_shown_as_toml_and_for_programs(shell):
    said = shell.ucl("settings", "prod")
    assert said.out.startswith(f"# {file(shell)} (missing: every setting has its default)\n")
    assert (said.code, tomllib.loads(said.out)) == (0, {"files": {}, "exports": {}, "notices": {}})
    file(shell).write_text('keep = 7\nrenew_before = "36h"\n')
    said, told = shell.ucl("settings", "prod"), shell.ucl("settings", "prod", "--json").json
    assert parse_settings(said.out) == parse_settings(file(shell).read_text())
    assert (told["path"], told["settings"]["keep"], told["settings"]["renew_before"]) == (str(file(shell)), 7, "1d12h")


def test_an_error_names_file_line_and_key(shell):
    file(shell).write_text("\nkeep = 1\n")
    said, told = shell.ucl("settings", "prod"), shell.ucl("settings", "prod", "--json")
    assert (said.code, said.out, told.code, told.json["error"]) == (2, "", 2, "InvalidSettings")
    assert f"{file(shell)}, line 2, keep: 1 is not a whole number" in said.err


def test_a_file_is_put_in_place_whole_and_makes_a_connection_that_is_new(shell, tmp_path):
    (tmp_path / "given.toml").write_text('key_passphrase = "env:KEY"\n')
    said = shell.ucl("settings", "new", "--set", tmp_path / "given.toml")
    assert (said.code, file(shell, "new").read_text()) == (0, 'key_passphrase = "env:KEY"\n')
    assert stat.S_IMODE(file(shell, "new").stat().st_mode) == 0o600
    (tmp_path / "given.toml").write_text("keep = 0\n")
    for name, there in {"new": True, "other": False}.items():
        said = shell.ucl("settings", name, "--set", tmp_path / "given.toml")
        assert (said.code, file(shell, name).exists()) == (2, there)
        assert "given.toml, line 1, keep: 0" in said.err
    assert "keep" not in file(shell, "new").read_text()


def test_what_was_edited_is_put_in_place(shell, tmp_path):
    said = shell.ucl("settings", "prod", "--edit", **editor(tmp_path))
    assert said.code == 0
    assert "# keep = 5\n" in file(shell).read_text()  # the template
    file(shell).write_text("keep = 6\n")
    said = shell.ucl("settings", "prod", "--edit", **editor(tmp_path, "keep = 9\n"))
    assert (said.code, file(shell).read_text()) == (0, "keep = 9\n")
    assert "keep = 9" in said.out
    assert not file(shell).with_name("settings.edited.toml").exists()


def test_what_cannot_be_read_is_edited_again_or_kept(shell, tmp_path):
    file(shell).write_text("keep = 6\n")
    said = shell.ucl("settings", "prod", "--edit", given="y\n", **editor(tmp_path, "keep = 0\n", "keep = 8\n"))
    assert (said.code, file(shell).read_text()) == (0, "keep = 8\n")
    assert "settings.edited.toml, line 1, keep: 0 is not" in said.err
    said = shell.ucl("settings", "prod", "--edit", given="n\n", **editor(tmp_path, "keep = 0\n"))
    assert (said.code, file(shell).read_text()) == (2, "keep = 8\n")
    assert "To continue: ucl settings prod --edit" in said.err
    assert file(shell).with_name("settings.edited.toml").read_text() == "keep = 0\n"
    said = shell.ucl("settings", "prod", "--edit", **editor(tmp_path, "keep = 3\n"))
    assert (said.code, file(shell).read_text(), "Continuing with" in said.err) == (0, "keep = 3\n", True)


def test_an_editor_that_fails_changes_nothing(shell):
    for variables in ({"VISUAL": "/bin/false"}, {"VISUAL": "", "EDITOR": "/no/editor"}, {"VISUAL": "'"}):
        said = shell.ucl("settings", "prod", "--edit", **variables)
        assert (said.code, file(shell).exists()) == (2, False)
        assert "The editor" in said.err
        assert "settings.edited.toml" not in said.err
        assert list(file(shell).parent.glob("settings*")) == []


def test_an_editor_that_leaves_nothing_changes_nothing(shell):
    file(shell).write_text("keep = 6\n")
    said = shell.ucl("settings", "prod", "--edit", VISUAL="rm")
    assert (said.code, "is gone" in said.err, file(shell).read_text()) == (2, True, "keep = 6\n")
    assert list(file(shell).parent.glob("settings*")) == [file(shell)]


def test_what_was_left_is_not_put_over_what_was_set_since(shell, tmp_path):
    copy = file(shell).with_name("settings.edited.toml")
    failing = tmp_path / "failing"
    failing.write_text('#!/bin/sh\necho "keep = 3" > "$1"\nexit 1\n')
    failing.chmod(0o700)

    def left():
        said = shell.ucl("settings", "prod", "--edit", VISUAL=str(failing))
        assert (said.code, f"The edited file is {copy}" in said.err) == (2, True)
        assert copy.read_text() == "keep = 3\n"

    file(shell).write_text("keep = 6\n")
    left()
    file(shell).write_text("keep = 7\n")
    said = shell.ucl("settings", "prod", "--edit", **editor(tmp_path, "keep = 4\n"))
    assert (said.code, "was changed meanwhile" in said.err, str(copy) in said.err) == (2, True, True)
    assert (file(shell).read_text(), copy.read_text()) == ("keep = 7\n", "keep = 3\n")
    copy.unlink()
    left()
    (tmp_path / "given.toml").write_text("keep = 9\n")
    assert shell.ucl("settings", "prod", "--set", tmp_path / "given.toml").code == 0
    assert shell.ucl("settings", "prod", "--edit", VISUAL="true").code == 0
    assert (file(shell).read_text(), copy.exists()) == ("keep = 9\n", False)


def test_a_copy_that_was_left_as_it_was_stands_in_nobodys_way(shell, tmp_path):
    killing = tmp_path / "killing"
    killing.write_text("#!/bin/sh\nkill -9 $PPID\n")
    killing.chmod(0o700)
    for text in ("keep = 6\n", "keep = 7\n"):
        file(shell).write_text(text)
        assert shell.ucl("settings", "prod", "--edit", VISUAL=str(killing)).code == -9
        assert file(shell).with_name("settings.edited.toml").read_text() == text
    said = shell.ucl("settings", "prod", "--edit", **editor(tmp_path, "keep = 8\n"))
    assert (said.code, said.err, file(shell).read_text()) == (0, "", "keep = 8\n")


def test_edit_and_set_exclude_each_other(shell):
    assert shell.ucl("settings", "prod", "--edit", "--set", "x").code == 2


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("keep=9", "keep = 9"),
        ("renew_before=30d", 'renew_before = "30d"'),
        ('renew_before = "30d"', 'renew_before = "30d"'),
        ("files.mode=0400", 'files.mode = "0400"'),
        ("exports.combined=true", "exports.combined = true"),
        ('notices.urls=["env:PLACE"]', 'notices.urls = ["env:PLACE"]'),
        ("keep=", "# keep = 5"),
    ],
)
def test_one_setting_is_changed_and_the_rest_of_the_file_is_kept(shell, given, line):
    file(shell).write_text("# mine\nkeep = 7  # why\n\n[exports]\nencrypted_key = 'env:P'\n")
    said = shell.ucl("settings", "prod", "--set", given)
    assert (said.code, said.out) == (0, f"{line}\n")
    written = file(shell).read_text()
    assert written.startswith("# mine\n")
    assert "encrypted_key = 'env:P'\n" in written
    assert line in shell.ucl("settings", "prod", "--set", given).out
    assert shell.ucl("settings", "prod", "--json").json["settings"]["keep"] == {"keep=9": 9, "keep=": 5}.get(given, 7)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("keep=0", "--set keep, line 2, keep: 0 is not"),
        ("keeps=4", "'keeps' cannot be set like this"),
        ("hooks.name=x", "'hooks.name' cannot be set like this"),
        ("exports=true", "'exports' cannot be set like this"),
        ("missing/file.toml", "cannot be read"),
    ],
)
def test_a_setting_that_is_not_valid_changes_nothing(shell, given, problem):
    file(shell).write_text("# mine\nkeep = 7\n")
    said = shell.ucl("settings", "prod", "--set", given)
    assert (said.code, problem in said.err) == (2, True)
    assert file(shell).read_text() == "# mine\nkeep = 7\n"


def test_a_file_that_is_not_valid_is_not_changed_by_one_setting(shell):
    file(shell).write_text("keep = \n")
    said = shell.ucl("settings", "prod", "--set", "keep=4")
    assert (said.code, "settings.toml is not TOML" in said.err) == (2, True)
    assert file(shell).read_text() == "keep = \n"


def test_one_setting_makes_a_new_connection(shell):
    assert shell.ucl("settings", "new", "--set", "key_passphrase=env:SECRET").out == 'key_passphrase = "env:SECRET"\n'
    assert file(shell, "new").read_text() == 'key_passphrase = "env:SECRET"\n'


# -- export and path ---------------------------------------------------------------------------------------------------


def test_exports_are_made_and_their_paths_told(shell):
    said = shell.ucl("path", "prod", "p12")
    assert (said.code, said.out) == (2, "")
    assert "prod has no identity.p12. Ask for it in [exports]" in said.err.replace("\n", " ")
    file(shell).write_text(SETTINGS)
    said = shell.ucl("export", "prod", "--json", P12=CANARY)
    assert (said.code, said.json["outcome"], said.json["exports"]) == (0, "exported", "combined.pem, identity.p12")
    assert shell.ucl("export", "prod", P12=CANARY).out.startswith("prod: nothing-to-export")
    for what, name in {"p12": "identity.p12", "combined": "combined.pem"}.items():
        path = shell.ucl("path", "prod", what).out.rstrip("\n")
        assert path == str(shell.home / "connections" / "prod" / "current" / name)
        assert os.access(path, os.R_OK)


def test_a_lost_passphrase_is_named_and_the_former_one_is_taken(shell):
    file(shell).write_text('key_passphrase = "env:KEY"\n')
    said = shell.ucl("export", "prod")
    assert (said.code, "key_passphrase of prod: the environment variable KEY is empty" in said.err) == (2, True)
    assert shell.ucl("export", "prod", KEY="former").code == 0
    said = shell.ucl("export", "prod", "--json", KEY=CANARY)
    assert (said.code, said.json["error"]) == (2, "KeyLocked")
    said = shell.ucl("export", "prod", "--from", "env:FORMER", KEY=CANARY, FORMER="former")
    assert (said.code, "former" in said.out + said.err) == (0, False)
    assert shell.ucl("status", "prod", "--json").json["generation"].endswith(".2")
