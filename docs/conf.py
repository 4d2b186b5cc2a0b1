"""How Sphinx builds the site: ``make docs``.

The source folder is the root of the repository. Sphinx reads pages, notebooks and the README where people read them in
the repository, so a link between them works in both places.

A page loads nothing from another host. So there is no MathJax, no require.js, no font of another host, and no
intersphinx, which would link names of other projects.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from pygments.lexers.shell import BashLexer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from ucl_helpers import __version__

ROOT = Path(__file__).parent.parent

project = "ucl-helpers"
release = version = __version__
language = "en"

root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb", "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
exclude_patterns = [".*", "build", "dist", "docs/_*", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
smartquotes = False  # an option's two dashes are two

# -- pages -------------------------------------------------------------------------------------------------------------

myst_heading_anchors = 4
suppress_warnings = [
    "mystnb.unknown_mime_type"  # a notebook's outcome for programs; the same cell shows it as a table
]

# -- notebooks: executed, in a home folder that tools/build_docs.py makes and takes away -------------------------------

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 600  # seconds for a cell; on a busy machine a key takes its time
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # else two scripts from other hosts
nb_merge_streams = True
nb_mime_priority_overrides = [("*", "text/html", 5)]  # where there are widgets too, which need a kernel

# -- the API -----------------------------------------------------------------------------------------------------------

add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_numpy_docstring = False
nitpicky = True
nitpick_ignore_regex = [
    # of other projects: a link would need a list that lies on another host
    (r"py:.*", r"(collections|cryptography|datetime|pathlib|requests|ssl|types|typing)\..*"),
    # halves of a type that Sphinx has cut at a comma
    (r"py:.*", r".*\[[^\]]*"),
    # inner workings that a public method takes or returns
    (r"py:.*", r"ucl_helpers\.connection\.(access\.Readers|exports\.GenerationSpec|pending\.Pending)"),
    (r"py:.*", r"ucl_helpers\.connection\.(state\.(Activation|Verdicts?)|status\.UnderWay)"),
    (r"py:.*", r"ucl_helpers\.(formats\.blocks|tables\.Tabular|models\.CallRecord|keys\.Credentials)"),
    (r"py:.*", r"ucl_helpers\.procedures\.(acceptance\.explain_refusal|revocation\.(doubtful|unproven)_identities)"),
    (r"py:.*", r"Procedure"),
    (r"py:.*", r"ucl_helpers\.views\.(markup\.Html|explorer\.page\.Explorer|step_card\.Panel)"),
    # have a page of their own: docs/reference/settings.md, due.md
    (r"py:.*", r"ucl_helpers\.connection\.(attempts\.Attempts|settings\.Settings)"),
]
toc_object_entries_show_parents = "hide"

# -- how it looks ------------------------------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_title = "ucl-helpers"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_search_scorer = "docs/_static/scorer.js"  # below the source folder
html_context = {"default_mode": "auto"}  # without it the theme reports an error on the first visit
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_additional_pages = {"index": "to_docs.html"}  # the top of the site leads to docs/
html_theme_options = {
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search field of the sidebar is enough
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_issues_button": False,
    "use_repository_button": False,
    "use_source_button": False,
    "show_navbar_depth": 1,
    "home_page_in_toc": True,
    "footer_content_items": ["extra-footer"],
    "extra_footer": f"ucl-helpers {__version__}",
}


DRAWN = ROOT / "docs"


def draw_inline(app: Sphinx, doctree: nodes.document) -> None:
    """Put drawings (SVG) into the page itself, where they take the colours of the theme and can be read aloud."""
    for image in list(doctree.findall(nodes.image)):
        path = Path(app.srcdir, image["uri"])
        if path.suffix == ".svg" and path.is_relative_to(DRAWN):
            drawing = f'<div class="drawing" tabindex="0">{path.read_text("utf-8")}</div>'
            image.replace_self(nodes.raw("", drawing, format="html"))


def keep_first_line(_app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Keep napoleon from reading the text before a colon in a property's first line as a type.

    It gets another first line, an empty comment.
    """
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]


# -- notebooks carry their number, in titles and in the sidebar --------------------------------------------------------


def number_notebook(app: Sphinx, doctree: nodes.document) -> None:
    """Put the number of a notebook's file name before its title."""
    found = re.match(r"notebooks/(\d\d)_", app.env.current_document.docname)
    title = next(doctree.findall(nodes.title), None)
    if found and title is not None:
        title.insert(0, nodes.Text(f"{found[1]} "))


# -- search: words that people type, and the page that comes first -----------------------------------------------------

SEARCH_WORDS: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("search.toml").read_text("utf-8"))


class SearchWords(SphinxTransform):
    """Add the words of ``search.toml`` as main index entries, which Sphinx's search ranks above all text."""

    default_priority = 840  # before Sphinx collects the index entries, at 850

    def apply(self, **_options: Any) -> None:
        """Add an entry for each word of this page, with the id of its section."""
        ids = {section["slug"]: section["ids"][0] for section in self.document.findall(_has_slug)}
        for place, words in SEARCH_WORDS.items():
            page, _, slug = place.partition("#")
            if page == self.env.current_document.docname:
                target = ids[slug] if slug else ""
                entries = [("single", word, target, "main", None) for word in words]
                self.document.insert(0, addnodes.index(entries=entries))


def _has_slug(node: nodes.Node) -> bool:
    return isinstance(node, nodes.section) and "slug" in node


# -- terms of the glossary are links at their first use ----------------------------------------------------------------

GLOSSARY = "docs/reference/glossary"


class Glossary:
    """The terms that each page links to the glossary, with their ids there."""

    everyday: ClassVar = {"bearer", "configuration", "connection", "due", "fleet", "identity", "outcome", "renewal"}
    everyday |= {"subject", "tenant"}  # all of these also mean other things
    names: ClassVar = {"UCL", "CA", "CSR", "Director", "Connector"}  # written with capitals only

    def __init__(self, doctree: nodes.document) -> None:
        sections = list(doctree.findall(nodes.section))[1:]  # the first is the page
        self.ids = {section[0].astext(): section["ids"][0] for section in sections}
        self.ids = {term: place for term, place in self.ids.items() if term.lower() not in self.everyday}

    def link_first_uses(self, doctree: nodes.document, address: str) -> None:
        """Replace the first use of each term in a paragraph by a link."""
        patterns = {
            term: re.compile(rf"\b{re.escape(term)}s?\b", 0 if term in self.names else re.IGNORECASE)
            for term in self.ids
        }
        for text in list(_plain_texts(doctree)):
            uses = [(found, term) for term, pattern in patterns.items() if (found := pattern.search(text))]
            replaced: list[nodes.Node] = []
            end = 0
            for found, term in sorted(uses, key=lambda use: use[0].start()):
                if found.start() < end:
                    continue  # within another term
                link = nodes.reference(
                    "", found[0], refuri=f"{address}#{self.ids[term]}", internal=True, classes=["term"]
                )
                replaced += [nodes.Text(text[end : found.start()]), link]
                end = found.end()
                del patterns[term]
            if replaced:
                text.parent.replace(text, [*replaced, nodes.Text(text[end:])])


def _plain_texts(doctree: nodes.document) -> Iterator[nodes.Text]:
    """Yield the texts of paragraphs, without links and code."""
    for paragraph in doctree.findall(nodes.paragraph):
        for child in paragraph.children:
            if isinstance(child, nodes.Text):
                yield child


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link the terms of the glossary on every page but the glossary."""
    if docname != GLOSSARY:
        address = app.builder.get_relative_uri(docname, GLOSSARY)
        Glossary(app.env.get_doctree(GLOSSARY)).link_first_uses(doctree, address)


# -- what a screen reader needs ----------------------------------------------------------------------------------------

FOLDED = re.compile(r">([^<]+)</a><details([^>]*)><summary>")
PARAMETERS = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")  # all other lists of definitions have a class


def let_be_read_aloud(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    """Change HTML that a screen reader cannot use.

    The theme names the button that folds a part of the sidebar only if the part has no page. Sphinx writes the
    parameters of a long signature as a list of definitions without any definition.
    """
    sidebar = context["generate_toctree_html"]

    def named(*given: Any, **options: Any) -> str:
        return FOLDED.sub(r'>\1</a><details\2><summary aria-label="Pages of: \1">', str(sidebar(*given, **options)))

    context["generate_toctree_html"] = named
    if "body" in context:
        plain = {"<dd>": "<div>", "</dd>": "</div>"}
        context["body"] = PARAMETERS.sub(
            lambda found: f'<div class="sig-params">{re.sub("</?dd>", lambda tag: plain[tag[0]], found[1])}</div>',
            context["body"],
        )


def setup(app: Sphinx) -> None:
    """Register the functions above."""
    app.add_transform(SearchWords)
    app.connect("doctree-read", draw_inline)
    app.connect("doctree-read", number_notebook, priority=400)  # before Sphinx collects the titles
    app.connect("doctree-resolved", link_terms)
    app.connect("autodoc-process-docstring", keep_first_line, priority=400)  # before napoleon
    app.connect("html-page-context", let_be_read_aloud, priority=900)  # after the theme
    app.add_lexer("cron", BashLexer)
