"""Pages of the docs that say what the code does: errors, words, the command line; each is tried on a doctored text too.

The site itself is looked at in tests/site and tests/browser.
"""

import os
import re
import runpy
from pathlib import Path

import pytest
from command_line import Shell

from tools.cli_page import page
from ucl_helpers import errors
from ucl_helpers.cli.main import group

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ERRORS = (DOCS / "reference" / "errors.md").read_text("utf-8")
CLI = DOCS / "reference" / "cli.md"


def sections(text):
    """What stands below each heading of the second level."""
    return dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


def plain(text):
    """A text on one line, as code and prose alike."""
    return " ".join(text.replace("`", "").split())


# -- errors ------------------------------------------------------------------------------------------------------------


def tree(kind=errors.UCLError):
    """A class and all below it that are ours."""
    return [
        kind,
        *(one for child in kind.__subclasses__() if child.__module__ == errors.__name__ for one in tree(child)),
    ]


def drawn():
    """What the drawing on top of the module says: class → exit code, a child's that of the one above it."""
    found, code = {}, 0
    for name, number in re.findall(r"^ {4}[│├└─ ]*([A-Z]\w+) *(\d{1,2}(?=  ))?", errors.__doc__, re.MULTILINE):
        code = int(number or code)
        found[name] = code
    return found


def faults_of_catalogue(text):
    """What is wrong with the page of errors."""
    entries, codes = sections(text), drawn()
    names = [kind.__name__ for kind in tree()]
    found = [f"{name} has no class" for name in entries if name not in names]
    for kind in tree():
        entry = plain(entries.get(kind.__name__, ""))
        causes = re.search(r"Likely causes: - .{10,} Remedy:", entry)
        parent = kind.__bases__[0].__name__
        above = "the root of all" if kind is errors.UCLError else f"a kind of [{parent}](#{parent.lower()})"
        first = plain(kind.__doc__.split("\n\n")[0])
        wanted = [
            (kind.__name__ in entries, "an entry"),
            (f"Exit code {kind.exit_code}, " in entry and codes.get(kind.__name__) == kind.exit_code, "its exit code"),
            (f", {above}." in entry, "its parent"),
            (first in entry, "what it means"),
            (bool(causes), "causes"),
            (bool(re.search(r"Remedy: .{10,}", entry)), "a remedy"),
        ]
        found += [f"{kind.__name__} has not {what}" for there, what in wanted if not there]
    return found


def test_every_error_has_its_entry():
    assert faults_of_catalogue(ERRORS) == []
    assert list(sections(ERRORS)) == [kind.__name__ for kind in tree()]


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("Exit code 8, a kind of [UCLError]", "Exit code 9, a kind of [UCLError]", ["Busy has not its exit code"]),
        ("a kind of [Busy](#busy)", "a kind of [UCLError](#uclerror)", ["SettledElsewhere has not its parent"]),
        ("The server asks for fewer calls (429).", "Slowly.", ["RateLimited has not what it means"]),
        ("- A known bug of the server", "A known bug of the server", ["EmptyAnswer has not causes"]),
        ("\nRemedy: Run it again later.\n", "\nRemedy: No.\n", ["Unavailable has not a remedy"]),
        ("## Busy\n", "## Lazy\n", 7),
        ("# Errors\n", "# Errors\n\n## Forgotten\n\nNo class.\n", ["Forgotten has no class"]),
    ],
)
def test_a_fault_of_the_catalogue_is_found(old, new, wrong):
    assert ERRORS.count(old) == 1
    found = faults_of_catalogue(ERRORS.replace(old, new))
    assert found == wrong or len(found) == wrong


def test_the_table_above_the_entries_has_all_of_them():
    rows = re.findall(r"^\| (\d+) \| \[(\w+)\]\(#(\w+)\) \| (.*) \|$", ERRORS, re.MULTILINE)
    listed = {name: int(code) for code, first, _, kinds in rows for name in (first, *re.findall(r"\[(\w+)\]", kinds))}
    assert listed == drawn()
    assert all(anchor == name.lower() for name, anchor in re.findall(r"\[(\w+)\]\(#(\w+)\)", ERRORS))


# -- words -------------------------------------------------------------------------------------------------------------

WORDS = [
    *("UCL", "Director", "Connector", "Token endpoint", "Certificate endpoint", "One-time token", "Configuration"),
    *("Identity", "Connection", "Renewal", "Generation"),
]


def without_meaning(text):
    """Words of the field that the glossary does not explain."""
    entries = sections(text)
    return [word for word in WORDS if len(plain(entries.get(word, ""))) < 20]


def test_the_glossary_explains_the_words_of_the_field():
    assert without_meaning((DOCS / "reference" / "glossary.md").read_text("utf-8")) == []


def test_a_word_without_a_meaning_is_found():
    text = (DOCS / "reference" / "glossary.md").read_text("utf-8")
    assert without_meaning(text.replace("## Director\n", "## Director\n\n## Other\n")) == ["Director"]


# -- the command line --------------------------------------------------------------------------------------------------


def paths(command, path):
    """Every command as its words."""
    yield path
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from paths(child, [*path, name])


def words(text):
    """The words of a help text, or of Markdown made of it."""
    return set(re.sub(r"[\\`:]|^- |(?<=-)\n +", "", text, flags=re.MULTILINE).split())


def missing(text, command, help_text):
    """Words of a command's help that its section lacks; a group's list of commands is shortened there."""
    kept = help_text.partition("\nCommands:")[0]
    return words(kept) - words(sections(text).get(f"`{' '.join(command)}`", ""))


COMMANDS = list(paths(group, ["ucl"]))


def test_the_page_of_commands_is_made_of_them():
    """UCL_WRITE_TABLE=1 writes it anew."""
    if os.environ.get("UCL_WRITE_TABLE"):
        CLI.write_text(page(group, "ucl"), "utf-8")
    assert CLI.read_text("utf-8") == page(group, "ucl")
    assert list(sections(page(group, "ucl"))) == [f"`{' '.join(command)}`" for command in COMMANDS]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_page_says_what_the_help_says(command, tmp_path):
    said = Shell(tmp_path / "home").ucl(*command[1:], "--help")
    assert said.code == 0
    assert missing(CLI.read_text("utf-8"), command, said.out) == set()


def test_an_option_that_the_page_lacks_is_found(tmp_path):
    text, said = CLI.read_text("utf-8"), Shell(tmp_path / "home").ucl("renew", "--help")
    assert "- `--dry-run`: Make all steps that do not sign anything." in text
    shortened = text.replace("- `--dry-run`: Make all steps that do not sign anything.\n", "")
    assert missing(shortened, ["ucl", "renew"], said.out) == {
        "--dry-run",
        "Make",
        "steps",
        "that",
        "do",
        "sign",
        "anything.",
    }


# -- how the site is built ---------------------------------------------------------------------------------------------


def test_every_page_is_in_a_table_of_contents():
    listed = {"index.md": ["tutorial/index", "how-to/index", "explanation/index", "reference/index", "project"]}
    for part in ("how-to", "explanation", "reference"):
        listed[f"{part}/index.md"] = [path.stem for path in (DOCS / part).glob("*.*") if path.suffix in {".md", ".rst"}]
    for name, pages in listed.items():
        text = (DOCS / name).read_text("utf-8")
        tables = re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)
        entries = {line for table in tables for line in table.splitlines() if line and not line.startswith(":")}
        assert set(pages) - {"index"} <= entries | ({"*"} & entries and set(pages))
    assert "/notebooks/*" in (DOCS / "tutorial" / "index.md").read_text("utf-8")


def test_the_site_is_built_as_promised():
    pytest.importorskip("sphinx", reason="Sphinx comes with: make .venv/.docs")
    conf = runpy.run_path(str(DOCS / "conf.py"))
    assert (conf["nb_execution_mode"], conf["nb_execution_raise_on_error"], conf["nitpicky"]) == ("force", True, True)
    assert conf["nb_ipywidgets_js"] == {}
    assert not {"sphinx.ext.mathjax", "sphinx.ext.intersphinx"} & set(conf["extensions"])
