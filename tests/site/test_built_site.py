"""The built site as a browser gets it: nothing from other hosts, every link leads somewhere, every part is there."""

import inspect
import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import ucl_helpers
from ucl_helpers import errors, models, views

pytest_plugins = ["built_site"]
LOADING = {"action", "background", "cite", "data", "formaction", "manifest", "poster", "src", "srcset", "xlink:href"}
WORDS = ("preconnect", "dns-prefetch", "preload", "prefetch", "modulepreload", "stylesheet", "icon", "manifest")
OTHER = re.compile(r"(?:^|[\s,])(?:(?:https?|wss?|ftp):)?//", re.IGNORECASE)  # srcset has several
LOADED_BY_STYLE = re.compile(r"url\(([^)]*)\)|@import\s+([^;]+);")
FROM_SCRIPT = re.compile(  # what loads something at once, with an address of another host in it
    r"""(?:fetch|import|importScripts|Worker|WebSocket|EventSource|sendBeacon|open|src=|src\s*=)\s*\(?\s*["'`]"""
    r"""(?:[A-Z]+["'`],\s*["'`])?((?:https?:|wss?:)?//[^"'`]+)""",
)


class Page(HTMLParser):
    """What a page loads, which ids it has, and where its links lead."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.loads, self.links, self.ids, self.styles, self.scripts, self._inside = [], [], set(), [], [], None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self._inside = tag if tag in {"style", "script"} else None
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        self.loads += [value for name, value in given.items() if name in LOADING]
        if tag == "link" and any(word in given.get("rel", "") for word in WORDS):
            self.loads.append(given.get("href", ""))
        if tag in {"use", "image"}:
            self.loads.append(given.get("href", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.styles.append(given.get("style", ""))
        if given.get("http-equiv", "").lower() == "refresh":
            self.links.append(given["content"].partition("url=")[2])

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "style":
            self.styles.append(data)
        if self._inside == "script":
            self.scripts.append(data)


def in_style(text):
    """Addresses that a style sheet loads."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return ["".join(found).strip("'\" ") for found in LOADED_BY_STYLE.findall(text)]


def is_elsewhere(address):
    return OTHER.search(address) is not None and not address.startswith("data:")


def from_elsewhere(path):
    """Addresses of other hosts that a file of the site loads."""
    text, ending = path.read_text("utf-8"), path.suffix
    if ending == ".css":
        return [one for one in in_style(text) if is_elsewhere(one)]
    if ending == ".js":
        return FROM_SCRIPT.findall(text)
    page = Page(text)
    loads = [*page.loads, *(one for style in page.styles for one in in_style(style))]
    return [one for one in loads if is_elsewhere(one)] + FROM_SCRIPT.findall("\n".join(page.scripts))


def files(site, *endings):
    """Files of the site; the templates that the theme copies along are none that a page leads to."""
    return sorted(path for path in site.rglob("*") if path.suffix in endings and "webpack-macros" not in path.name)


def test_nothing_is_loaded_from_another_host(site):
    looked_at = files(site, ".html", ".css", ".js", ".svg")
    assert {path.suffix for path in looked_at} >= {".html", ".css", ".js"}
    found = {str(path.relative_to(site)): from_elsewhere(path) for path in looked_at}
    assert {name: addresses for name, addresses in found.items() if addresses} == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.html", '<script async src="https://cdn.example/require.js"></script>'),
        ("x.html", '<link rel="stylesheet" href="//fonts.example/css">'),
        ("x.html", '<link rel="preconnect" href="https://fonts.example">'),
        ("x.html", '<img srcset="x.png 1x, https://cdn.example/x.png 2x">'),
        ("x.html", '<svg><use xlink:href="https://cdn.example/x.svg#a"/></svg>'),
        ("x.html", '<p style="background: url(https://cdn.example/x.png)">'),
        ("x.html", "<style>@import 'https://cdn.example/x.css';</style>"),
        ("x.html", '<script>import("https://cdn.example/x.mjs")</script>'),
        ("x.html", '<iframe src="http://localhost:1/"></iframe>'),
        ("x.css", "@font-face { src: local(x), url('https://fonts.example/x.woff2') }"),
        ("x.css", '@import "//fonts.example/x.css";'),
        ("x.js", 'fetch("https://api.example/v1")'),
        ("x.js", "new WebSocket('wss://live.example/')"),
    ],
)
def test_what_is_loaded_from_another_host_is_found(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert len(from_elsewhere(tmp_path / name)) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.html", '<a href="https://papermill.readthedocs.io">papermill</a><img src="../_images/x.png">'),
        ("x.html", '<link rel="stylesheet" href="../_static/x.css?digest=1"><p>https://cdn.example/x.js</p>'),
        ("x.css", "/* https://example/licence */ a { background: url(data:image/svg+xml;base64,AAAA) }"),
        ("x.js", 'const namespace = "http://www.w3.org/2000/svg"; fetch("searchindex.js")'),
    ],
)
def test_what_comes_from_the_site_and_a_link_that_is_followed_by_hand_are_none(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert from_elsewhere(tmp_path / name) == []


# -- links -------------------------------------------------------------------------------------------------------------


def broken_links(site):
    """Links within the site that lead to no file, or to no place in it; those to other hosts are not followed."""
    pages = {path: Page(path.read_text("utf-8")) for path in files(site, ".html")}
    found = []
    for path, page in pages.items():
        for link in {*page.links, *page.loads}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not link:
                continue
            target = Path(path.parent, unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            there = target.exists() and target.is_relative_to(site)
            anchor = unquote(parts.fragment)
            if not there or (anchor and target in pages and anchor not in pages[target].ids):
                found.append(f"{path.relative_to(site)}: {link}")
    return sorted(found)


def test_every_link_within_the_site_leads_somewhere(site):
    assert broken_links(site.resolve()) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="b.html#here">b</a><a href="#top">top</a>')
    (tmp_path / "b.html").write_text('<h1 id="here">B</h1><a href="https://elsewhere.example/">other host</a>')
    assert broken_links(tmp_path) == []
    (tmp_path / "b.html").write_text('<h1 id="there">B</h1><a href="c.html">c</a><a href="../outside.html">up</a>')
    assert broken_links(tmp_path) == ["a.html: b.html#here", "b.html: ../outside.html", "b.html: c.html"]


# -- what has to be there ----------------------------------------------------------------------------------------------


def test_the_notebooks_were_executed(site, pytestconfig):
    names = sorted(path.stem for path in (pytestconfig.rootpath / "notebooks").glob("*.ipynb"))
    pages = [(site / "notebooks" / f"{name}.html").read_text("utf-8") for name in names]
    assert len(pages) >= 5
    assert [name for name, page in zip(names, pages, strict=True) if 'class="cell_output' not in page] == []


def test_the_top_leads_to_the_first_page(site):
    assert Page((site / "index.html").read_text("utf-8")).links == ["docs/index.html"] * 2


def test_pictures_are_drawn_in_the_page_with_a_title_and_a_description(site):
    page = (site / "docs" / "explanation" / "life.html").read_text("utf-8")
    drawings = re.findall(r'<div class="drawing" tabindex="0">(<svg.*?</svg>)', page, re.DOTALL)
    assert len(drawings) == len(list((Path(__file__).parents[2] / "docs/explanation/life").glob("*.svg"))) == 4
    for drawing in drawings:
        title, desc = re.findall(r'<(?:title|desc) id="(.*?)">', drawing)
        assert f'aria-labelledby="{title} {desc}"' in drawing
        assert set(re.findall(r'(?:stroke|fill)="(.*?)"', drawing)) == {"currentColor", "none"}


def undocumented(page):
    """Public names that a page of the API lacks."""
    exported = {f"ucl_helpers.{name}" for name in ucl_helpers.__all__ if name not in {"Outcome", "UCLError"}}
    shown = {f"ucl_helpers.views.{name}" for name in views.__all__}
    defined = {
        f"{module.__name__}.{name}"
        for module in (errors, models)
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    return (exported | shown | defined) - Page(page).ids


def test_every_public_name_is_documented(site):
    page = (site / "docs" / "reference" / "api.html").read_text("utf-8")
    assert undocumented(page) == set()
    assert undocumented(page.replace('id="ucl_helpers.renew"', "")) == {"ucl_helpers.renew"}


def test_every_error_has_a_place_of_its_own(site):
    ids = Page((site / "docs" / "reference" / "errors.html").read_text("utf-8")).ids
    names = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert {name.lower() for name in names} <= ids


def test_search_knows_the_errors(site):
    index = (site / "searchindex.js").read_text("utf-8")
    assert "notyetaccept" in index
    assert "docs/reference/errors" in index


def without_entry(index, words_of):
    """Words that are no main entry of their page in the search index, so that the search may list others first."""
    search = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    pages = {
        word: {search["docnames"][page] for page, _, is_main in entries if is_main}
        for word, entries in search["indexentries"].items()
    }
    wanted = [(word, place.partition("#")[0]) for place, words in words_of.items() for word in words]
    return [word for word, page in wanted if pages.get(word) != {page}]


def test_search_lists_the_page_of_a_word_first(site, pytestconfig):
    words_of = tomllib.loads((pytestconfig.rootpath / "docs/search.toml").read_text("utf-8"))
    index = (site / "searchindex.js").read_text("utf-8")
    assert without_entry(index, words_of) == []
    assert without_entry(index, {"docs/how-to/systemd": ["cron"]}) == ["cron"]


def first_terms(page):
    """Terms that a page links to the glossary, in their order."""
    return re.findall(r'<a class="term[^"]*" href="[^"]*glossary\.html#([a-z-]+)">', page)


def test_terms_of_the_glossary_are_links_at_their_first_use(site):
    page = (site / "docs/how-to/connect.html").read_text("utf-8")
    assert first_terms(page)[:3] == ["connector", "ucl", "ca"]
    assert len(first_terms(page)) == len(set(first_terms(page)))
    assert first_terms((site / "docs/reference/glossary.html").read_text("utf-8")) == []


def test_notebooks_carry_their_number(site):
    page = (site / "notebooks/02_maintain_connection.html").read_text("utf-8")
    assert re.search(r"<h1>02 Maintain a secure connection", page)
    assert re.search(r'<a class="[^"]*"[^>]*>\s*01 Establish a secure connection', page)
