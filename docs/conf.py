"""How Sphinx builds the site: ``make docs``.

The source folder is the root of the repository, and only this file lies in ``docs/``: pages, notebooks and the README
stand where people read them in the repository, and a link between them leads to the same place here and there.

Nothing that a page needs comes from another host. So there is no MathJax, no require.js, no font from elsewhere, and
no intersphinx: names of other projects are not linked.
"""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.shell import BashLexer
from sphinx.application import Sphinx

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
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_additional_pages = {"index": "to_docs.html"}  # whoever opens the top of the site is led to docs/
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
    """What stands before a colon in a property's first line is prose, and no type as napoleon would have it.

    So napoleon gets another first line, an empty comment.
    """
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]


FOLDED = re.compile(r">([^<]+)</a><details([^>]*)><summary>")
PARAMETERS = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")  # all other lists of definitions have a class


def let_be_read_aloud(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    """Mend what a screen reader could make nothing of.

    What folds a part of the sidebar away gets a name from the theme only where there is no page of the part; and Sphinx
    sets the parameters of a long signature as a list of definitions that defines nothing.
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
    """Tell Sphinx of what stands above."""
    app.connect("doctree-read", draw_inline)
    app.connect("autodoc-process-docstring", keep_first_line, priority=400)  # before napoleon
    app.connect("html-page-context", let_be_read_aloud, priority=900)  # after the theme
    app.add_lexer("cron", BashLexer)
