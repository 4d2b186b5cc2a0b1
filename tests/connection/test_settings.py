"""`settings.toml`: what may stand in it, and errors that name line and key."""

from datetime import timedelta

import pytest

from ucl_helpers.connection import settings as module
from ucl_helpers.connection.access import Access
from ucl_helpers.connection.exports import all_exports
from ucl_helpers.connection.settings import (
    ENTRIES,
    Hook,
    Notices,
    Settings,
    dump_settings,
    parse_settings,
)
from ucl_helpers.connection.toml_tables import line_of
from ucl_helpers.errors import InvalidSettings


def test_an_empty_file_means_the_defaults():
    assert parse_settings("") == Settings(key_length=4096, renew_before=None, keep=5, sandbox=None)


def test_everything_may_be_chosen():
    text = '# mine\nkey_length = 2048\nrenew_before = "1d12h"\n\n"keep" = 2\nsandbox = \'/ready.json\'\n'
    assert parse_settings(text) == Settings(
        key_length=2048, renew_before=timedelta(hours=36), keep=2, sandbox="/ready.json"
    )


def test_the_example_in_the_docstring_can_be_read():
    example = module.__doc__.partition("::\n")[2]
    assert parse_settings(example.replace("\n    ", "\n")) == Settings(
        key_length=4096,
        renew_before=timedelta(days=30),
        min_interval=timedelta(hours=1),
        keep=5,
        key_passphrase="file:/run/secrets/ucl",
        files=Access("app", "ssl-cert", 0o640),
        exports=all_exports(combined=True, encrypted_key="env:UCL_KEY_PASSPHRASE", pkcs12="file:/run/secrets/p12"),
        hooks=(Hook("reload", ("systemctl", "reload", "nginx"), timedelta(seconds=60)),),
        notices=Notices(("env:UCL_NOTICE_URL",), 1),
    )


HOOK = '[[hooks]]\nname = "a"\ncommand = ["true"]\n'


@pytest.mark.parametrize(
    ("text", "line", "key", "reason"),
    [
        ("exports = true", 1, "exports", "true is not a table"),
        ("[exports]\ncombined = 1", 2, "exports.combined", "1 is neither true nor false"),
        ("[exports]\n\n# unknown\nunknown = true", 4, "exports.unknown", "there is no such setting"),
        ("exports.unknown = true", 1, "exports.unknown", "there is no such setting"),
        ("[exports]\npkcs12 = 'geheim'", 2, "exports.pkcs12", "it must be a reference, not the secret itself"),
        ("key_passphrase = 'prompt'", 1, "key_passphrase", "it must be a reference"),
        ("[exports]\nkubernetes_secret = 'ucl'", 2, "exports.kubernetes_secret", "it is not NAMESPACE/NAME"),
        ("[files]\nmode = 640", 2, "files.mode", "this mode is not allowed"),
        ("[files]\ngroup = 'g'\nmode = '0644'", 3, "files.mode", "this mode is not allowed"),
        ("[files]\nmode = '0640'", 2, "files.mode", "the mode lets a group read, but no group is named"),
        ("[files]\nowner = 'a b'", 2, "files.owner", "it is not the name of an account"),
        (HOOK + "[[hooks]]\nname = 'b'", 4, "hooks", "command must be given"),
        (HOOK + "[[hooks]]\ncommand = []\nname = 'b'", 5, "hooks.command", "an empty list is not a list of 1 to 100"),
        (HOOK + "[[hooks]]\nname = 'b'\ncommand = [\n 'a',\n 1]", 6, "hooks.command", "1 is not a text"),
        (HOOK + HOOK, 5, "hooks.name", "there are two hooks of this name"),
        ("[notices]\n'slack://a/b' = true", 2, "notices.…", "there is no such setting"),
        (HOOK + "timeout = 5", 4, "hooks.timeout", "5 is not a duration"),
        ("hooks = [{name = 'a', comand = ['true']}]", 1, "hooks.comand", "there is no such setting"),
        ("[notices]\nurls = ['mailto:me']", 2, "notices.urls", "it must be a reference"),
        ("[notices]\nurls = []\n", 2, "notices.urls", "an empty list is not a list of 1 to 20"),
        ("[notices]\nafter_failures = 0", 2, "notices.after_failures", "0 is not a whole number from 1 to 1000"),
        (
            "key_passphrase = 'env:A'\n[exports]\nkubernetes_secret = 'a/b'",
            3,
            "exports.kubernetes_secret",
            "secret.yaml has the key in plain",
        ),
    ],
)
def test_an_error_in_a_table_names_its_line_and_key(text, line, key, reason):
    with pytest.raises(InvalidSettings) as caught:
        parse_settings("keep = 5\n" + text, where="here.toml")
    assert caught.value.message.startswith(f"here.toml, line {line + 1}, {key}: {reason}")


@pytest.mark.parametrize("secret", ["[exports]\npkcs12 = 'geheim'", "key_passphrase = 'geheim'"])
def test_a_secret_that_stands_in_place_of_a_reference_is_not_repeated(secret):
    with pytest.raises(InvalidSettings) as caught:
        parse_settings(secret)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("t",), 3),
        (("t", "x"), 4),
        (("t", "s", "y"), 7),
        (("l", 0, "x"), 9),
        (("l", 1, "x"), 12),
        (("l", 1, "s", "x"), 14),
        (("l", 1, "z"), 11),
        (("u", "x"), 1),
    ],
)
def test_the_line_of_a_value_is_found(path, line):
    text = 'a = """\n[t]"""\n[t]\nx = 1\n#\n[t.s]\n"y" = 2\n[[l]]\nx = 3\n\n[[l]]\nx = 4\n[l.s]\nx = 5\n'
    assert line_of(text, path) == line


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("key_length = 1024", "key_length is 1024"),
        ('key_length = "4096"', "a text is not a whole number"),
        ("key_length = true", "key_length is True"),
        ("renew_before = 30", "30 is not a duration"),
        ('renew_before = "soon"', "a text is not a duration"),
        ("keep = 1", "1 is not a whole number from 2 to 1000"),
        ("keep = 1001", "1001 is not a whole number"),
        ("keep = 5.0", "5.0 is not a whole number"),
        ("keep.it = 5", "a table is not a whole number"),
        ('sandbox = ""', "it is not a path"),
        ("sandbox = 1", "1 is not a path"),
        ("key_lenght = 4096", "there is no such setting"),
        ("[key-length]", "there is no such setting"),
        ('"keep!" = 5', "there is no such setting"),
    ],
)
@pytest.mark.parametrize("before", ["", "# key_lenght keep\n\n", "# one\u2028line\n"])
def test_an_error_names_file_line_and_key(line, reason, before):
    key = line.partition("=")[0].strip().strip('"[]').removesuffix(".it")
    with pytest.raises(InvalidSettings) as caught:
        parse_settings(before + line, where="here.toml")
    assert caught.value.message.startswith(f"here.toml, line {before.count(chr(10)) + 1}, {key}: {reason}")


@pytest.mark.parametrize(
    ("text", "place"), [("# keep-it\nkeep = 1", "line 2, keep: 1"), ("keep-it = 1\nkeep = 1", "line 1, keep-it: there")]
)
def test_a_key_is_not_found_in_a_longer_one(text, place):
    with pytest.raises(InvalidSettings, match=place):
        parse_settings(text)


@pytest.mark.parametrize("text", ["keep = ", "keep 5", "keep = 5\nkeep = 6", "[keep", '"', "keep = 2026-13-01"])
def test_what_is_not_toml_says_where(text):
    with pytest.raises(InvalidSettings, match=r"^here\.toml is not TOML: .*(line \d|end of document)"):
        parse_settings(text, where="here.toml")


def test_known_settings_are_told():
    with pytest.raises(InvalidSettings) as caught:
        parse_settings("a = 1")
    known = dict.fromkeys(one.key.partition(".")[0] for one in ENTRIES)
    assert caught.value.remedy == f"Known: {', '.join(known)}."


def test_settings_are_written_one_a_line():
    assert (
        dump_settings({"keep": 2, "sandbox": 'a "b"\\\n'}) == 'keep = 2\nsandbox = "a \\u0022b\\u0022\\u005c\\u000a"\n'
    )
    assert parse_settings(dump_settings({"sandbox": 'a "b"\\\n'})).sandbox == 'a "b"\\\n'


SECRET = "canary-0123456789"
KEYS = [*(entry.key for entry in ENTRIES), "files", "exports", "notices", "hooks"]


@pytest.mark.parametrize("value", [f'"{SECRET}"', f'["{SECRET}"]', f'{{ a = "{SECRET}" }}', f'[["{SECRET}"]]'])
@pytest.mark.parametrize("key", KEYS)
def test_no_error_repeats_a_text(key, value):
    """Where a text may stand it is no error."""
    table, _, name = key.rpartition(".")
    head = "[[hooks]]\n" if table == "hooks" else f"[{table}]\n" if table else ""
    told = ""
    try:
        parse_settings(f"{head}{name} = {value}")
    except InvalidSettings as error:
        told = f"{error} {error.data}"
    assert SECRET not in told
    assert told or key in {"sandbox", "files.owner", "files.group"}


@pytest.mark.parametrize(
    "text", [f'[[hooks]]\nname = "{SECRET}"\ncommand = ["x"]\n' * 2, f'exports = {{ "slack://{SECRET}" = true }}']
)
def test_no_error_repeats_a_name_that_may_be_none(text):
    with pytest.raises(InvalidSettings) as told:
        parse_settings(text)
    assert SECRET not in f"{told.value} {told.value.data}"


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ('[hooks]\nname = "a"\ncommand = ["x"]', "[[hooks]], with two brackets"),
        ('[[hooks]]\nname = "a"\ncommand = "systemctl reload nginx"', '["systemctl", "reload", "nginx"]'),
        ('[notices]\nurls = "env:X"', '["env:NAME"]'),
        ('[[hooks]]\nname = "a"\ncommand = ["x"]\ntimeout = 60', '"60s"'),
        ('key_length = "2048"', "without quotes"),
        ('keep = "5"', "without quotes"),
        ("files.mode = 640", '"0640"'),
        ('exports.combined = "true"', "without quotes"),
    ],
)
def test_what_is_likely_to_go_wrong_is_told_how_to_write(text, how):
    with pytest.raises(InvalidSettings) as told:
        parse_settings(text)
    assert how in told.value.remedy
