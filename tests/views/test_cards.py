"""Cards: each thing shows its facts, its state in sign and word, and nothing that came over the wire as HTML."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from certificates import CA, certificate, checks
from IPython.core.interactiveshell import InteractiveShell
from quick_keys import QUICK_BITS
from test_tables import HOSTILE, MODELS, TOKEN

from ucl_helpers import Renewal, renew, revoke, status_of, views
from ucl_helpers.connection.attempts import Attempts
from ucl_helpers.connection.status import Status
from ucl_helpers.errors import RateLimited, Waiting, printable
from ucl_helpers.models import Check, Checks, Due, Identity, Outcome, Validity, fingerprint
from ucl_helpers.views.cards import Part, bar, chain, html_of, parts
from ucl_helpers.views.charts import history
from ucl_helpers.views.markup import Html, badge, element, table
from ucl_helpers.views.notebook import failure

pytest_plugins = ["procedure_fixtures"]
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LIFE = Validity(START, START + 90 * DAY)


def text_of(html):
    """What a reader sees of it, tags taken out."""
    return unescape(re.sub(r"<[^>]+>", " ", html))


# -- markup ------------------------------------------------------------------------------------------------------------


def test_what_is_not_html_is_escaped_and_what_is_stays():
    inner = element("b", HOSTILE)
    assert "<script" not in inner
    assert "\x1b" not in inner
    outer = element("p", inner, "&", title='"><script>')
    assert outer == f'<p title="&quot;&gt;&lt;script&gt;">{inner}&amp;</p>'


def test_html_that_was_not_made_here_would_be_seen():
    assert "<script" in element("p", Html(HOSTILE))


@pytest.mark.parametrize(("word", "sign"), [("valid", "✓"), ("due", "!"), ("revoked", "✗"), ("whatever", "·")])
def test_a_state_is_told_by_sign_and_word_not_by_colour_alone(word, sign):
    assert text_of(badge(word)).split() == [sign, word]


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("word", ["ok", "warning", "failed", "whatever"])
def test_a_badge_can_be_read(word):
    """WCAG 2.2, 1.4.6: a contrast of 7 to 1."""
    ground, ink = re.search(r"background:(#\w{6});color:(#\w{6})", badge(word)).groups()
    assert (luminance(ground) + 0.05) / (luminance(ink) + 0.05) >= 7


def test_a_table_names_its_rows_and_columns():
    html = table(("check", "status"), [("key", "ok")])
    assert '<th scope="col"' in html
    assert '<th scope="row"' in html
    assert text_of(html).split() == ["check", "status", "key", "✓", "ok"]


def cell_of(text):
    """The style of a cell with this text, and its HTML."""
    html = table(("", ""), [("name", text)])
    return re.search(r'<td style="([^"]*)">(.*)</td>', html).groups()


@pytest.mark.parametrize("text", ["2026-04-15T09:00:00Z", "90 d", "2026-04-15", "practice-05"])
def test_a_date_a_duration_and_a_name_are_not_broken(text):
    style, html = cell_of(text)
    assert html == f'<span style="white-space:nowrap">{text}</span>'
    assert "min-width" not in style


@pytest.mark.parametrize("text", ["7d" * 32, "C=DE,ST=province,L=locality,CN=c5d25d3b-5045"])
def test_a_column_of_long_words_is_not_one_letter_wide(text):
    style, html = cell_of(text)
    assert "overflow-wrap:anywhere" in html
    assert "min-width:9em" in style


def test_a_subject_breaks_between_its_parts_first():
    _, html = cell_of("O=Org,OU=OrgUnit,CN=c5d25d3b-5045-4f49")
    parts = re.findall(r'<span style="display:inline-block">([^<]*)</span>', html)
    assert parts == ["O=Org,", "OU=OrgUnit,", "CN=c5d25d3b-5045-4f49"]


# -- a lifetime --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "due", "found"),
    [
        (-5, 60, [("until the renewal is due", 60), ("left after that", 30)]),
        (0, 60, [("until the renewal is due", 60), ("left after that", 30)]),
        (20, 60, [("lived", 20), ("until the renewal is due", 40), ("left after that", 30)]),
        (60, 60, [("lived", 60), ("left", 30)]),
        (70, 60, [("lived", 60), ("overdue", 10), ("left", 20)]),
        (95, 60, [("lived", 60), ("overdue", 30)]),
        (20, None, [("lived", 20), ("left", 70)]),
        (20, -3, [("overdue", 20), ("left", 70)]),
        (20, 200, [("lived", 20), ("until the renewal is due", 70)]),
    ],
)
def test_a_lifetime_falls_into_parts(day, due, found):
    due = None if due is None else START + due * DAY
    assert parts(LIFE, START + day * DAY, due) == [Part(name, length * DAY) for name, length in found]


def test_a_bar_says_in_words_what_it_draws():
    html = bar(LIFE, START + 45 * DAY, START + 60 * DAY)
    assert (
        'aria-label="Valid from 2026-01-01T00:00:00Z to 2026-04-01T00:00:00Z; '
        'renewal due from 2026-03-02T00:00:00Z; 50% lived"' in html
    )
    assert [int(share) for share in re.findall(r"flex:(\d+) 0 0", html)] == [50, 17, 33]


def test_a_bar_is_seen_where_its_stripes_are_removed():
    """JupyterLab removes gradients from a notebook that it does not trust."""
    html = bar(LIFE, START + 70 * DAY, START + 60 * DAY)
    grounds = re.findall(r"background-color:(#\w{6})(;background-image:repeating-linear-gradient)?", html)
    assert [bool(stripes) for _, stripes in grounds] == [False, True, True] * 2  # the parts, then the legend
    assert "background:" not in html


def test_no_date_of_a_bar_is_broken_by_a_narrow_page():
    found = re.findall(r'style="([^"]*)">(?:renewal due from )?\d{4}-', bar(LIFE, START, START + 60 * DAY))
    assert ["white-space:nowrap" in style for style in found] == [True] * 3


# -- cards -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_card_is_without_harm_and_without_a_token(model):
    html = html_of(model)
    assert "<script" not in html
    assert not set("\x1b\ud800") & set(html)
    assert TOKEN not in html
    assert "mathjax_ignore" in html


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_card_tells_all_facts_of_the_table(model):
    told = letters(text_of(html_of(model)))
    for _, *cells in model.rows():
        assert all(letters(printable(cell)) in told for cell in cells if cell != "yes")  # a badge says "due"


def letters(text):
    return re.sub(r"\W", "", text)


def test_a_status_shows_state_and_lifetime():
    due = Due(False, START + 60 * DAY, "two thirds")
    html = html_of(Status("prod", "valid", START + DAY, sandbox=True, validity=LIFE, due=due))
    assert "prod (sandbox, for practice)" in html
    assert "✓ valid" in html
    assert "renewal due from 2026-03-02" in html


def test_of_what_is_lost_no_renewal_is_due():
    due = Due(True, START + 60 * DAY, "two thirds")
    html = html_of(Status("prod", "revoked", START + DAY, validity=LIFE, due=due))
    assert "✗ revoked" in html
    assert "due" not in text_of(html)
    assert "Valid from" not in html  # a bar would show time left that is of no use


def test_a_refused_certificate_does_not_look_well():
    """UCL refuses it, which may be an outage; and after that, when it is lost."""
    attempts = Attempts(failures=1, refused_since=START)
    html = html_of(Status("prod", "valid", START + DAY, validity=LIFE, attempts=attempts))
    assert "! valid, refused by UCL" in html
    assert "✓" not in html
    assert "✗ refused" in html_of(Status("prod", "refused", START + DAY, validity=LIFE))


def test_what_is_not_established_yet_is_neither_good_nor_bad():
    assert "· not established" in html_of(Status("prod", "not established", START))


def test_a_run_that_waits_has_not_failed():
    waits = failure(Waiting("A renewal has failed.", not_before="2026-01-01T00:00:00Z"), "prod")
    assert "! not yet" in html_of(waits)
    assert "✗" not in html_of(waits)


def test_of_what_has_expired_the_bar_is_all_lived():
    html = html_of(Status("prod", "expired", START + 100 * DAY, validity=LIFE))
    assert "100% lived" in html
    assert "✗ expired" in html


def test_a_connection_without_certificate_has_no_bar():
    assert 'aria-label="Valid' not in html_of(Status("prod", "not established", START))


@pytest.mark.parametrize("status", ["ok", "failed"])
def test_an_identity_shows_its_checks_and_whether_all_hold(status):
    identity = Identity((certificate(), *CA), CA, (*checks(), Check("one more", status, "a", "b")))
    shown = text_of(html_of(identity)).split()
    assert shown[:6] == ["The", "new", "identity,", "checked", {"ok": "✓", "failed": "✗"}[status], status]


def test_an_error_shows_cause_remedy_and_exit_code():
    told = text_of(html_of(failure(RateLimited("Too many.", remedy="Wait."), "prod")))
    more = "Causes and remedies: ucl explain RateLimited"
    assert " ".join(told.split()) == f"RateLimited ✗ failed Too many. What to do: Wait. {more} prod; exit code 3"


def test_a_chain_is_drawn_leaf_first():
    leaf = certificate()
    told = text_of(chain((leaf, *CA)))
    assert told.index(fingerprint(leaf)) < told.index("↓ signed by") < told.index(fingerprint(CA[0]))
    assert "names another issuer" not in told
    assert "root CA, signed by itself" in told


def test_a_chain_with_a_gap_says_so():
    assert "✗ names another issuer" in text_of(chain((certificate(), certificate())))
    assert text_of(chain(())).strip() == ""


def test_a_certificate_in_short():
    assert fingerprint(CA[0]) in views.certificate(CA[0])


def test_a_call_is_coloured_and_whole(secure):
    renewal = Renewal.begin(secure, key_length=QUICK_BITS)
    renewal.configuration()
    html = html_of(renewal.exchange)
    assert "--jp-mirror-editor-keyword-color" in html
    for _, text in renewal.exchange.rows():
        assert letters(text) in letters(text_of(html))


def test_in_a_long_table_failures_come_first():
    marks = [Check(f"c{number}", "ok", "a", "a") for number in range(20)]
    marks += [Check("odd", "skipped", "a", ""), Check("bad", "failed", "a", "b")]
    told = text_of(html_of(Checks(tuple(marks))))
    assert told.index("bad") < told.index("odd") < told.index("20 checks are ok")


# -- in a notebook -----------------------------------------------------------------------------------------------------


def test_a_notebook_shows_cards_and_the_text_stays(monkeypatch):
    shell = InteractiveShell.instance()
    try:
        before, _ = shell.display_formatter.format(LIFE)
        views.show_as_cards()
        after, _ = shell.display_formatter.format(LIFE)
    finally:
        InteractiveShell.clear_instance()
    assert after["text/html"] == html_of(LIFE)
    assert (after["text/plain"], before["text/plain"]) == (str(LIFE), str(LIFE))


def test_an_outcome_reaches_the_runner_all_the_same():
    shell = InteractiveShell.instance()
    try:
        views.show_as_cards()
        shown, _ = shell.display_formatter.format(Outcome("renewed", "prod"))
    finally:
        InteractiveShell.clear_instance()
    assert shown["application/vnd.ucl.outcome+json"]["outcome"] == "renewed"
    assert "ucl-card" in shown["text/html"]


# -- history -----------------------------------------------------------------------------------------------------------


def test_the_history_of_generations(secure):
    renew(secure, key_length=QUICK_BITS)
    found = history(secure)
    assert [row[:2] for row in found.facts] == [("generation", "state"), ("000001", "kept"), ("000002", "in use")]
    late = history(secure, lambda: status_of(secure).validity.not_after + DAY)
    assert [row[1] for row in late.facts[1:]] == ["expired", "in use"]


def test_what_is_revoked_or_damaged_is_told(secure):
    renew(secure, key_length=QUICK_BITS)
    old, new = secure.generations()
    revoke(secure)
    (old.path / "chain.pem").write_text("nothing")
    assert [(row[1], bool(row[2])) for row in history(secure).facts[1:]] == [("damaged", False), ("revoked", True)]
    assert new.name == secure.current.name


def test_a_connection_that_is_not_established_has_none(home):
    assert str(history(home.new("new"))) == "Generations of new"
