"""A fleet as a table and in pictures: what is to be seen, that each fact changes it, and that a day changes nothing."""

import base64
import re
import runpy
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from html import unescape
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest

from ucl_helpers import policy, views
from ucl_helpers.connection.status import Status
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import UsageError
from ucl_helpers.fleet.simulation import DAY, HOUR, Fleet, simulate
from ucl_helpers.models import Validity
from ucl_helpers.policy import due, state
from ucl_helpers.views import charts

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def status(name, age=10 * DAY, *, now=NOW, lifetime=90 * DAY, renew_before=None, **facts):
    validity = Validity(now - age, now - age + lifetime)
    found = due(validity, seed=name, now=now, renew_before=renew_before)
    word = state(validity, now=now, revoked=False, is_due=found.due)
    return replace(Status(name, word, now, validity=validity, due=found), **facts)


NEW = Status("new", "not established", NOW)
DAMAGED = Status("broken", "damaged", NOW, problem="key.pem is not whole")
FEW = (status("one"), status("late", 70 * DAY), status("old", 91 * DAY), NEW, DAMAGED)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_each_connection_is_a_row_with_what_is_wrong():
    overview = views.Overview(FEW)
    assert overview.caption() == "Connections: 1 valid, 1 due, 1 expired, 1 not established, 1 damaged"
    one, late, old, new, damaged = overview.rows()
    assert one[:3] == ("one", "valid", "2026-05-20T12:00:00Z (80 d left)")
    assert f"{policy.SHARE[1]} of 90 d" in one[3]
    assert late[1:3] == ("due", "2026-03-21T12:00:00Z (20 d left)")
    assert old[3:] == ("", "ucl establish old --token prompt")
    assert new[1:] == ("not established", "", "", "")
    assert damaged[4] == "key.pem is not whole"
    assert {len(row) for row in overview.rows()} == {len(overview.header)}


def test_practice_is_said_when_all_of_it_is():
    practised = status("one", sandbox=True)
    assert views.Overview((practised,)).caption().endswith("1 valid (sandbox, for practice)")
    assert "practice" not in views.Overview((practised, status("two"))).caption()
    assert views.Overview(()).caption() == "Connections: none"


def test_a_connection_is_looked_at_on_disk(tmp_path):
    home = Home(tmp_path)
    home.new("begun")
    (home.new("odd").path / "settings.toml").write_text("x")
    shown = views.overview(home.connections(), clock=lambda: NOW)
    assert [row[:2] for row in shown.rows()] == [("begun", "not established"), ("odd", "settings not usable")]
    assert [one.status for one in shown.checks] == ["failed", "warning", "ok"]


@pytest.mark.parametrize(
    ("statuses", "found"),
    [
        (FEW[:1], ["ok: all 1", "ok: all 1", "ok: all 1"]),
        (FEW[:2], ["ok: all 2", "ok: all 2", "warning: not late"]),
        (FEW[2:4], ["ok: all 2", "warning: not old, new", "ok: all 2"]),
        (FEW[4:], ["failed: not broken", "ok: all 1", "ok: all 1"]),
        ([NEW] * 7, ["ok: all 7", "warning: not new, new, new, new, new and 2 more", "ok: all 7"]),
    ],
)
def test_only_what_cannot_be_read_fails(statuses, found):
    assert [f"{one.status}: {one.found}" for one in views.Overview(statuses).checks] == found


# -- pictures ----------------------------------------------------------------------------------------------------------


def size(picture):
    """Width and height in points, as its element says."""
    return tuple(map(float, re.search(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"', picture.svg).groups()))


def words(picture):
    """What stands on it as text."""
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", picture.svg)]


WIDTH_POINTS = charts.WIDTH * 72
YEARS = {"one": simulate(Fleet(100)), "other": simulate(Fleet(100, every=HOUR))}
STRUCK = {"one": simulate(Fleet(100, outages=((50 * DAY, 9 * DAY),), per_hour=5))}
PICTURES = {
    "timeline": lambda: charts.timeline(FEW),
    "due dates": lambda: charts.due_dates(FEW),
    "renewals": lambda: charts.renewals(YEARS),
    "marked": lambda: charts.renewals(STRUCK),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_the_same_each_time_whatever_a_user_has_set(draw):
    first = draw()
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "axes.facecolor": "red", "axes.grid": True}):
        assert draw() == first
    assert size(first)[0] == WIDTH_POINTS
    assert first._repr_mimebundle_() == {"text/plain": str(first), "text/html": first.html}


def test_another_day_gives_the_same_picture_and_another_text():
    """As when a notebook is built anew: some seconds pass between the making of a connection and the look at it."""
    pictures = []
    for now, passed in ((NOW, timedelta(seconds=1)), (NOW + 40 * DAY, timedelta(seconds=9.5))):
        made = [
            replace(status(f"c{days}", timedelta(0), now=now, renew_before=days * DAY), now=now + passed)
            for days in (10, 30)
        ]
        pictures.append((charts.timeline(made), charts.due_dates(made)))
    for one, other in zip(*pictures, strict=True):
        assert one.svg == other.svg
    assert str(pictures[0][0]) != str(pictures[1][0])


CHANGED = {
    "age": (charts.timeline, [status("one", 11 * DAY)]),
    "name": (charts.timeline, [status("another", due=status("one").due)]),
    "due": (charts.timeline, [status("one", renew_before=40 * DAY)]),
    "state": (charts.timeline, [status("one", state="revoked")]),
    "due date": (charts.due_dates, [status("one", renew_before=40 * DAY)]),
    "overdue": (charts.due_dates, [status("one", 70 * DAY)]),
    "number": (charts.due_dates, [status("one")] * 2),
}


@pytest.mark.parametrize(("draw", "statuses"), CHANGED.values(), ids=CHANGED)
def test_what_differs_is_to_be_seen(draw, statuses):
    assert draw(statuses).svg != of_one(draw).svg


@cache
def of_one(draw):
    return draw([status("one")])


def test_years_that_differ_are_to_be_seen():
    one = {"one": YEARS["one"]}
    drawn = [one, {"one": YEARS["other"]}, STRUCK, {"1": YEARS["one"]}]
    pictures = [charts.renewals(years) for years in drawn] + [charts.renewals(one, (50, 70))]
    assert len({one.svg for one in pictures}) == len(pictures)


def test_the_text_says_what_the_picture_shows():
    told = str(charts.timeline(FEW)).splitlines()
    assert told[0] == "Validity of 3 of 5 connections"
    assert told[3].split() == ["late", "due", "2026-03-21T12:00:00Z", f"{FEW[1].due.at:%Y-%m-%dT%H:%M:%SZ}"]
    assert str(charts.due_dates(FEW)).splitlines()[0] == "Due dates of 3 of 5 connections: 2 overdue, 1 later"
    assert str(charts.renewals(STRUCK)).splitlines()[1:] == ["simulated  renewals in the busiest hour", "one        5"]


def test_of_a_histogram_the_table_counts_all():
    assert sum(int(number) for _, number in charts.due_dates(FEW).facts[1:]) == 3


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_an_image_that_an_untrusted_notebook_keeps(draw):
    picture = draw()
    image = re.search(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)"', picture.html)
    assert base64.b64decode(image[1]).decode() == picture.svg
    assert ET.fromstring(picture.svg).tag.endswith("}svg")  # noqa: S314 - our own; a whole document
    assert unescape(image[2]) == f"{picture.title}. {picture.description}"
    assert "<svg" not in picture.html
    assert f"<summary>{picture.table_title}</summary><table" in picture.html


def luminance(colour):
    """The relative luminance of a colour (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("page", "least"), [("#ffffff", 4.5), ("#111111", 4)])
def test_its_text_can_be_read_on_light_and_dark_pages(page, least):
    assert contrast(charts.INK, page) >= least
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_picture_has_no_black_and_no_white(draw):
    assert not re.search(r"#(000000|ffffff)\b", draw().svg)


def test_peaks_that_differ_much_are_drawn_on_a_logarithmic_scale():
    lumped, usual = simulate(Fleet(2000, renew_before=30 * DAY)), simulate(Fleet(2000, every=HOUR))
    differ, alike = charts.renewals({"lumped": lumped, "usual": usual}), charts.renewals({"usual": usual})
    assert "logarithmic" in differ.description
    assert "(logarithmic axis)" in words(differ)
    assert "logarithmic" not in alike.description + alike.svg


def test_the_table_of_simulated_years_has_only_their_peaks():
    assert charts.renewals(YEARS).table_title == "The peaks as a table"
    assert charts.timeline(FEW).table_title == "The same as a table"


def test_a_due_date_can_be_seen_on_its_bar():
    """WCAG 2.2, 1.4.11: a contrast of 3 to 1, of the edge to the bar and of the face to the edge."""
    for bar in (charts.BLUE, charts.ORANGE):
        assert contrast(charts.MARK["markeredgecolor"], bar) >= 3
    assert contrast(charts.MARK["color"], charts.MARK["markeredgecolor"]) >= 3


def test_the_days_of_a_year_are_whole():
    assert not [word for word in words(charts.renewals(YEARS, (50, 60))) if re.fullmatch(r"\d+\.\d+", word)]


def test_its_text_is_text_and_harmless():
    hostile = "<script>alert(1)</script>&"
    found = charts.timeline([status(hostile)])
    assert hostile in words(found)
    assert "<script" not in found.html


def test_of_many_those_are_shown_that_end_first():
    many = [status(f"c{number:03}", number * HOUR) for number in range(200)]
    picture = charts.timeline(many)
    assert str(picture).startswith("Validity of 40 of 200 connections\n")
    assert [row[0] for row in picture.facts[:2]] == ["connection", "c199"]
    assert len(picture.facts) == 41
    assert size(picture)[1] < 2 * WIDTH_POINTS


@pytest.mark.parametrize("statuses", [[], [NEW], [status("brief", HOUR, lifetime=DAY)]], ids=["none", "new", "brief"])
def test_few_or_none_are_drawn_as_well(statuses):
    assert size(charts.timeline(statuses))[0] == size(charts.due_dates(statuses))[0] == WIDTH_POINTS


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"needs matplotlib.*pip install"):
        runpy.run_path(charts.__file__)
