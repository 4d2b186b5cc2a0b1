"""Every setting is described, once; and the reference says of each what the code does."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from written_tables import keep, table_in

from ucl_helpers.connection.access import Access
from ucl_helpers.connection.exports import EXPORTS, all_exports
from ucl_helpers.connection.settings import (
    ENTRIES,
    Hook,
    Notices,
    Settings,
    as_toml,
    parse_settings,
    plain,
)
from ucl_helpers.connection.toml_tables import REFERENCE_KIND

SETTINGS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
TABLES = {"files": Access(), "exports": all_exports(), "notices": Notices(), "hooks": Hook("name", ("true",))}
NEEDED = {"hooks.name", "hooks.command"}  # without a default


def table_of(value):
    return value if isinstance(value, dict) else vars(value)


def known():
    """Every key that may stand in a file, with the value that it has when it is not set."""
    for name, value in vars(Settings()).items():
        if name not in TABLES:
            yield name, value
        for key, inner in table_of(TABLES[name]).items() if name in TABLES else ():
            yield f"{name}.{key}", inner


def test_every_setting_is_described():
    assert sorted(one.key for one in ENTRIES) == sorted(name for name, _ in known())


def written(key, value):
    """A file that sets this one key."""
    table, _, name = key.rpartition(".")
    if table == "hooks":
        others = {"hooks.name": 'name = "x"', "hooks.command": 'command = ["x"]'}
        return "[[hooks]]\n" + "\n".join([f"{name} = {value}", *(line for one, line in others.items() if one != key)])
    group = '\ngroup = "g"' if name == "mode" else ""
    return f"{f'[{table}]' if table else ''}\n{name} = {value}{group}"


def read(key, value):
    found = vars(parse_settings(written(key, value)))
    table, _, name = key.rpartition(".")
    if table:
        found = table_of(found[table][0] if table == "hooks" else found[table])
    return found[name]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda one: one.key)
def test_default_and_example_are_what_they_are_said_to_be(entry):
    default = dict(known())[entry.key]
    if entry.default:
        assert read(entry.key, entry.default) == default
    elif entry.key not in NEEDED:
        assert not default
    read(entry.key, entry.example)


def test_the_reference_says_the_same():
    """With UCL_WRITE_TABLE=1 this writes the table."""
    rows = [
        (f"`{one.key}`", one.kind, f"`{one.default}`" if one.default else "not set", one.meaning, f"`{one.example}`")
        for one in ENTRIES
    ]
    keep(SETTINGS_PAGE, "| key |", rows)


def test_the_template_means_the_defaults_and_each_comment_may_be_taken_away():
    template = as_toml(Settings())
    assert parse_settings(template) == Settings()
    for line in re.findall(r"^# ([a-z_0-9]+ = .*)$", template, re.MULTILINE):
        text = template.replace(f"# {line}", line)
        if line.startswith("mode"):
            text = text.replace('# group = "', 'group = "')
        if line.split()[0] in {"name", "command", "timeout"}:
            text = re.sub(r"(?m)^# (\[\[hooks\]\]|name = |command = )", r"\1", text)
        assert isinstance(parse_settings(text), Settings), line


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True)
SPANS = st.integers(1, 10**8).map(lambda seconds: timedelta(seconds=seconds))
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
REFERENCES = st.none() | WORDS.map("env:x{}".format)
HOOKS = st.builds(Hook, NAMES, st.lists(WORDS, min_size=1, max_size=3).map(tuple), SPANS)
EXAMPLES_OF_EXPORTS = {
    name: REFERENCES
    if export.kind == REFERENCE_KIND
    else st.sampled_from([export.default, tomllib.loads(f"value = {export.example}")["value"]])
    for name, export in EXPORTS.items()
}
ANY = st.builds(
    Settings,
    key_length=st.sampled_from([2048, 4096]),
    renew_before=st.none() | SPANS,
    keep=st.integers(2, 1000),
    min_interval=SPANS,
    files=st.builds(Access, st.none() | NAMES, NAMES, st.sampled_from([0o600, 0o640, 0o440])),
    exports=st.fixed_dictionaries(EXAMPLES_OF_EXPORTS),
    hooks=st.lists(HOOKS, max_size=2, unique_by=lambda one: one.name).map(tuple),
    notices=st.builds(Notices, st.just(("env:A",)), st.integers(1, 1000)),
)


def test_the_page_of_a_generation_has_every_export():
    """With UCL_WRITE_TABLE=1 this writes their rows."""
    page = SETTINGS_PAGE.with_name("generation.md")
    rows = table_in(page.read_text("utf-8"), "| file |")[1].splitlines()
    always = [row[2:-2].split(" | ") for row in rows if "| always |" in row]
    exports = [
        (
            f"`{export.file}`{export.meaning.removeprefix(export.file).rstrip('.')}",
            f"`{name}`",
            f"`ucl path prod {export.word}`",
        )
        for name, export in EXPORTS.items()
    ]
    keep(page, "| file |", [*always, *exports])


@given(ANY)
@bounded(deadline=None, max_examples=40)
def test_what_is_shown_means_what_is_in_force(settings):
    assert parse_settings(as_toml(settings)) == settings


def test_for_programs_everything_is_plain():
    told = plain(Settings(renew_before=timedelta(hours=36), hooks=(Hook("a", ("b", "c")),)))
    assert (told["renew_before"], told["files"]["mode"], told["min_interval"]) == ("1d12h", "0600", "1h")
    assert told["hooks"] == [{"name": "a", "command": ["b", "c"], "timeout": "1m"}]
