"""The built site in a browser engine: what every page asks for, and that none is wider than a phone."""

import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to look with")
PHONE = 390  # CSS pixels
LOOK = """<!DOCTYPE html><title>all pages</title>%s<pre id="found"></pre><script>
addEventListener("load", () => {
  document.getElementById("found").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => ({
    page: frame.getAttribute("src"),
    width: frame.contentDocument.documentElement.scrollWidth,
    asked: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
  })));
});
</script>"""


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


def looked_at(folder, profile):
    """Every page of a site, opened as wide as a phone's window: what it asked for, and how wide it became."""
    pages = sorted(path.relative_to(folder) for path in folder.rglob("*.html") if "webpack-macros" not in path.name)
    frames = "".join(f'<iframe src="{page}" width="{PHONE}" height="800" style="border: 0"></iframe>' for page in pages)
    look = folder / "look-at-all.html"
    look.write_text(LOOK % frames)
    try:
        with served(folder) as address:
            flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
            command = [CHROMIUM, *flags, "--dump-dom", f"{address}/{look.name}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        look.unlink()
    found = json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert [one["page"] for one in found] == [str(page) for page in pages]
    elsewhere = {one["page"]: [url for url in one["asked"] if not url.startswith(address)] for one in found}
    return (
        sum(len(one["asked"]) for one in found),
        {page: urls for page, urls in elsewhere.items() if urls},
        {one["page"]: one["width"] for one in found if one["width"] > PHONE},
    )


def test_no_page_asks_another_host_or_is_wider_than_a_phone(site, tmp_path):
    asked, elsewhere, wide = looked_at(site, tmp_path)
    assert asked > 100
    assert elsewhere == {}
    assert wide == {}


def test_a_page_that_does_is_found(tmp_path):
    (site := tmp_path / "site").mkdir()
    (site / "good.html").write_text('<title>good</title><link rel="stylesheet" href="good.css">good')
    (site / "good.css").write_text("body { margin: 0 }")
    (site / "asks.html").write_text('<title>asks</title><script src="http://other.invalid/x.js"></script>')
    (site / "wide.html").write_text('<title>wide</title><p style="width: 500px">wide')
    asked, elsewhere, wide = looked_at(site, tmp_path / "profile")
    assert asked == 2
    assert elsewhere == {"asks.html": ["http://other.invalid/x.js"]}
    assert list(wide) == ["wide.html"]
