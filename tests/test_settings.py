"""`settings.toml`: what may stand in it, and errors that name line and key."""

from datetime import timedelta

import pytest

from ucl_helpers.errors import InvalidSettings
from ucl_helpers.settings import Settings, dump_settings, parse_settings


def test_an_empty_file_means_the_defaults():
    assert parse_settings("") == Settings(key_length=4096, renew_before=None, keep=5, sandbox=None)


def test_everything_may_be_chosen():
    text = '# mine\nkey_length = 2048\nrenew_before = "1d12h"\n\n"keep" = 2\nsandbox = \'/ready.json\'\n'
    assert parse_settings(text) == Settings(2048, timedelta(hours=36), 2, "/ready.json")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("key_length = 1024", "key_length is 1024"),
        ('key_length = "4096"', "key_length is '4096'"),
        ("key_length = true", "key_length is True"),
        ("renew_before = 30", "30 is not a duration"),
        ('renew_before = "soon"', "'soon' is not a duration"),
        ("keep = 1", "1 is not a whole number from 2 to 1000"),
        ("keep = 1001", "1001 is not a whole number"),
        ("keep = 5.0", "5.0 is not a whole number"),
        ("keep.it = 5", "{'it': 5} is not a whole number"),
        ('sandbox = ""', "'' is not a path"),
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
    assert caught.value.remedy == "Known: key_length, renew_before, keep, sandbox."


def test_settings_are_written_one_a_line():
    assert (
        dump_settings({"keep": 2, "sandbox": 'a "b"\\\n'}) == 'keep = 2\nsandbox = "a \\u0022b\\u0022\\u005c\\u000a"\n'
    )
    assert parse_settings(dump_settings({"sandbox": 'a "b"\\\n'})).sandbox == 'a "b"\\\n'
