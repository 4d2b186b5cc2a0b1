"""The built site as people read it: each page, light and dark, wide and on a phone; search; the switch of themes."""

import tomllib
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import pytest
from accessibility import barriers
from playwright.sync_api import expect

pytest_plugins = ["built_site"]
PHONE = {"width": 390, "height": 800}  # CSS pixels
THEMES = ("light", "dark")
SEARCH_WORDS = tomllib.loads((Path(__file__).parents[2] / "docs/search.toml").read_text("utf-8"))
ASKED = ["renew", "expired", "token used", "cron", "400", "rotate", "proxy"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Nothing is told of each request."""


@contextmanager
def served(folder):
    """A folder over HTTP on loopback: its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def pages(folder):
    """The pages of a site but its top, which leads on at once, and templates that the theme copies along."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*.html") if "webpack-macros" not in path.name}
    return sorted(names - {"index.html"})


def faults(folder, new_page, look, **settings):
    """What is wrong with each page of a site, opened one after the other: its errors, requests elsewhere, and more.

    Args:
        folder: the built site.
        new_page: the fixture.
        look: is given the open page; returns what else is wrong, as a list.
        settings: for ``new_page``.
    """
    page, watched = new_page(**settings)
    found = {}
    with served(folder) as address:
        for name in pages(folder):
            page.goto(f"{address}/{name}")
            if wrong := [*look(page), *went_wrong(watched)]:
                found[name] = wrong
            watched.errors.clear()
            watched.elsewhere.clear()
    return found


def went_wrong(watched):
    return watched.errors + watched.elsewhere


def too_wide(page):
    """Whether the page is wider than its window, so that it would scroll sideways."""
    width = page.evaluate("document.documentElement.scrollWidth")
    return [f"{width} wide"] if width > page.viewport_size["width"] else []


@pytest.mark.parametrize("theme", THEMES)
def test_every_page_is_whole_and_without_barriers(site, new_page, theme):
    assert faults(site, new_page, barriers, color_scheme=theme) == {}


def on_a_phone(page):
    """What differs there: a page that is too wide, and parts of it that scroll, which a keyboard has to reach."""
    return too_wide(page) + barriers(page, rules=("scrollable-region-focusable",))


def test_on_a_phone_no_page_scrolls_sideways_and_a_keyboard_reaches_what_does(site, new_page):
    assert faults(site, new_page, on_a_phone, viewport=PHONE) == {}


PAGE = """<!DOCTYPE html><html lang="en"><title>a page</title><link rel="icon" href="data:,">
<main><h1>A page</h1>%s</main>"""


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("<p>All is well.</p>", ""),
        ('<script src="https://cdn.example/x.js"></script>', "https://cdn.example/x.js"),
        ("<script>throw new Error('thrown here')</script>", "thrown here"),
        ("<script>console.error('said here')</script>", "said here"),
        ('<img src="lost.png" alt="a picture">', "404"),
        ('<p style="width: 500px">wide</p>', "508 wide"),
        ('<p style="color: #ccc">Nobody can read this.</p>', "color-contrast at p: "),
        ('<img src="data:,">', "image-alt at img: "),
        (
            f'<div style="overflow: auto; white-space: nowrap">{"wide " * 100}</div>',
            "scrollable-region-focusable at div: ",
        ),
    ],
)
def test_a_page_with_a_fault_is_found(new_page, tmp_path, body, found):
    (tmp_path / "a.html").write_text(PAGE % body)
    told = faults(tmp_path, new_page, lambda page: too_wide(page) + barriers(page), viewport=PHONE)
    if not found:
        assert told == {}
    else:
        (fault,) = told["a.html"]
        assert found in fault


# -- what people do there ----------------------------------------------------------------------------------------------


@pytest.fixture
def opened(site, new_page):
    """The first page, by way of the top of the site; at the end nothing has gone wrong."""
    page, watched = new_page(color_scheme="light")
    with served(site) as address:
        page.goto(address)
        page.wait_for_url(f"{address}/docs/index.html")
        yield page
    assert went_wrong(watched) == []


@pytest.mark.parametrize(
    ("words", "told"), [("NotYetAccepted", "Search finished"), ("flibbertigibbet", "did not match any")]
)
def test_search_finds_what_is_there(opened, words, told):
    opened.get_by_role("button", name="Search").click()
    opened.get_by_role("searchbox").fill(words)
    opened.keyboard.press("Enter")
    expect(opened.locator(".search-summary")).to_contain_text(told)
    assert opened.get_by_role("link", name="Errors > NotYetAccepted").count() == (told == "Search finished")


def first_page(opened, words):
    """Search for words; return the address of the first result, without the site's own, or None."""
    site = opened.url.partition("/docs/")[0].partition("/search.html")[0]
    opened.goto(f"{site}/search.html?q={quote(words)}")
    expect(opened.locator(".search-summary")).to_contain_text("Search finished")
    results = opened.locator("ul.search > li > a")
    expect(results.first).to_be_visible()
    return results.first.get_attribute("href").replace(".html", "")


@pytest.mark.parametrize("words", ASKED)
def test_search_lists_the_right_page_first(opened, words):
    place = next(place for place, all_words in SEARCH_WORDS.items() if words in all_words)
    assert first_page(opened, words).partition("#")[0] == place.partition("#")[0]


def test_a_word_without_a_page_lists_others_first(opened):
    assert first_page(opened, "flock") not in SEARCH_WORDS


def test_the_switch_of_themes_leads_from_light_to_dark_and_stays(opened):
    html, ground = opened.locator("html"), "getComputedStyle(document.body).backgroundColor"
    expect(html).to_have_attribute("data-theme", "light")
    light = opened.evaluate(ground)
    opened.get_by_role("button", name="Color mode").click()
    opened.get_by_role("button", name="Dark").click()
    expect(html).to_have_attribute("data-theme", "dark")
    assert opened.evaluate(ground) != light
    opened.get_by_role("link", name="Explanation").first.click()
    expect(html).to_have_attribute("data-theme", "dark")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", ["docs/index", "docs/explanation/life", "notebooks/02_maintain_connection"])
def test_a_picture_is_kept(site, new_page, keep, name, theme):
    page, _ = new_page(color_scheme=theme)
    with served(site) as address:
        page.goto(f"{address}/{name}.html")
        kept = keep(page, f"site-{name.rpartition('/')[2]}-{theme}")
    assert kept.stat().st_size > 10_000
