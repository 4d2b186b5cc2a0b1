"""The explorer, its buttons pressed as a page presses them, at a sandbox; tests/browser has it in real pages."""

import json
import re
from html import unescape

import pytest
from cryptography import x509
from ipywidgets import Button, Checkbox, Text, Widget
from processes import wait_until
from quick_keys import QUICK_BITS

from ucl_helpers import forget, practice
from ucl_helpers.connection.store import Home
from ucl_helpers.errors import UsageError
from ucl_helpers.views.explorer import explore
from ucl_helpers.views.explorer.background import Pane, Work
from ucl_helpers.views.explorer.panels import OWN, SCENES
from ucl_helpers.views.explorer.renew_panel import STEPS
from ucl_sandbox import Fault, Sandbox

ALL = "Run the remaining steps"


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """A home folder whose sandbox runs in this process."""
    monkeypatch.setattr(practice, "_JOINED", {})
    with Sandbox(tmp_path / "home" / "sandbox") as sandbox:
        yield sandbox


@pytest.fixture
def connection(sandbox, tmp_path):
    connection = practice.open_connection(home=tmp_path / "home", practice="try")
    with (connection.path / "settings.toml").open("a") as settings:
        settings.write(f"key_length = {QUICK_BITS}\n")
    return connection


class Page:
    """An explorer as somebody has it before him; of a connection whose keys are quickly made."""

    def __init__(self, connection=None, home=None):
        self.explorer = explore(connection, home)
        assert self.settled()
        self.panels = {panel.title: panel for panel in self.explorer._panels}

    def settled(self):
        return self.explorer.settled(60)

    def control(self, text, kind=Button, within=None):
        widgets = list(everything(self.panels[within].widget if within else self.explorer.widget))
        return next(one for one in widgets if isinstance(one, kind) and one.description == text)

    def press(self, text, within=None, *, settled=True):
        button = self.control(text, within=within)
        assert not button.disabled, f"{text} is off"
        button.click()
        assert not settled or self.settled()
        return self

    def off(self, text, within=None):
        return self.control(text, within=within).disabled

    def switch_on(self, scene):
        self.panels["Faults"]._scene.value = scene
        return self.press("Switch on", "Faults")

    def steps(self):
        """The result of each step, without the title that folds it."""
        return [words(re.sub(r"<summary.*?</summary>", "", pane.value, count=1)) for pane in self.results()]

    def results(self):
        return self.panels["Renew"]._panes

    def unfolded(self):
        """The numbers of the steps whose results are in sight."""
        return [number for number, pane in enumerate(self.results()) if "<details" in pane.value and is_open(pane)]

    def shown(self, title):
        """All words of a panel, or of what stands above them."""
        widget = self.panels[title].widget if title else self.explorer.widget.children[0]
        return words(" ".join(one.value for one in everything(widget) if type(one).__name__ == "Pane"))

    def line(self):
        return words(self.explorer.work.line.value)


def is_open(pane):
    return " open=" in pane.value.partition("<details")[2].partition(">")[0]


def everything(widget: Widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def words(html):
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def mark(connection):
    return connection.require_current().fingerprint


def pending_key(connection):
    csr = x509.load_pem_x509_csr((connection.path / "pending" / "csr.pem").read_bytes())
    return csr.public_key().public_numbers()


def test_it_opens_on_a_connection_and_changes_nothing(connection):
    before = mark(connection)
    page = Page(connection)
    assert page.explorer.status().fingerprint == before
    assert "try (sandbox, for practice) ✓ valid" in page.shown("Overview")
    assert before in page.shown("Overview")
    assert "nothing" in page.shown("Pending")
    assert "None. The sandbox answers as UCL does." in page.shown("Faults")
    assert (mark(connection), len(connection.generations())) == (before, 1)


def test_without_a_connection_nothing_can_be_pressed_but_what_makes_one(sandbox, tmp_path):
    page = Page(home=Home(tmp_path / "home"))
    allowed = {
        one.description for one in everything(page.explorer.widget) if isinstance(one, Button) and not one.disabled
    }
    assert allowed == {"Refresh", "Practise", "Import"}
    assert "No connection is chosen." in page.shown("Overview")
    with pytest.raises(UsageError, match="No connection is chosen"):
        page.explorer.status()
    page.press("Practise")
    assert page.explorer.status().name == "practice-05"
    assert not page.off(ALL)


def test_six_buttons_renew_and_each_shows_what_came_of_it(connection):
    before, page = mark(connection), Page(connection)
    for number, step in enumerate(STEPS):
        assert [page.off(one.label) for one in STEPS] == [place > number for place in range(len(STEPS))]
        assert (mark(connection), page.steps()[number]) == (before, "")
        page.press(step.label)
        assert page.unfolded() == [number]
        assert f"{step.label} ✓ ok" in words(page.results()[number].value)
        assert step.name == "activate" or mark(connection) == before
    for result, function in zip(page.steps(), ("configuration", "request", "sign", "decode"), strict=False):
        assert f"The code of this step (steps.{function})" in result
    asked, made, signed, decoded, verified, activated = page.steps()
    assert "query { result: configuration" in asked
    assert "Sent and received" in asked
    assert f"RSA, {QUICK_BITS} bits" in made
    assert "signCertificateSigningRequest" in signed
    assert "The CSR, decoded" in made
    assert "↓ signed by" in decoded
    assert "The client certificate, decoded" in decoded
    assert "Verified: UCL accepts the new certificate" in verified
    assert f"{mark(connection)}" in activated
    assert mark(connection) != before
    assert mark(connection) in page.shown("Overview")
    assert [page.off(step.label) for step in STEPS] == [True] * 6  # they would show the old results
    assert page.off(ALL)
    assert activated.startswith("The renewal is done. To start the next one, press “Begin again”.")
    page.press("Begin again")
    assert not page.off(STEPS[0].label)


def test_all_that_is_left_goes_on_where_the_single_buttons_have_stopped(connection):
    before, page = mark(connection), Page(connection)
    page.press(STEPS[0].label).press(STEPS[1].label)
    made = pending_key(connection)
    page.press(ALL)
    assert mark(connection) != before
    assert connection.require_current().certificate.public_key().public_numbers() == made


def test_a_step_can_be_done_again_and_so_can_the_whole(connection):
    page = Page(connection)
    page.press(STEPS[0].label).press(STEPS[0].label).press(STEPS[1].label)
    first = pending_key(connection)
    page.press(STEPS[1].label)
    assert pending_key(connection) == first
    once = mark(page.press(ALL) and connection)
    page.press("Begin again")
    assert page.steps() == [""] * 6
    assert mark(page.press(ALL) and connection) != once


def test_closing_the_page_in_the_middle_loses_nothing(connection):
    first = Page(connection)
    for step in STEPS[:3]:
        first.press(step.label)
    made = pending_key(connection)
    second = Page(connection)  # all that another kernel would know
    assert "signed, to be verified" in second.shown("Renew")
    assert "signed, to be verified" in second.shown("Pending")
    second.press(ALL)
    assert "Nothing was sent, because an earlier run has received the answer." in second.steps()[2]
    assert connection.require_current().certificate.public_key().public_numbers() == made
    assert first.press(STEPS[3].label).steps()[3].startswith(("SettledElsewhere", "UsageError"))


def test_what_is_under_way_goes_on_with_its_own_key_length(connection):
    first = Page(connection)
    first.panels["Renew"]._size.value = 3072
    first.press(STEPS[0].label).press(STEPS[1].label)
    made = pending_key(connection)
    Page(connection).press(ALL)
    assert connection.require_current().certificate.public_key().public_numbers() == made
    assert connection.require_current().certificate.public_key().key_size == 3072


def test_going_back_and_coming_back_again(connection):
    before, page = connection.current.name, Page(connection)
    assert page.off("Use this one")
    after = (page.press(ALL) and connection.current).name
    page.press("Use this one")
    assert connection.current.name == before
    assert "rolled-back" in page.shown("History")
    page.press("Use this one")
    assert connection.current.name == after


def test_going_back_to_what_ucl_refuses_changes_nothing(connection, sandbox):
    page = Page(connection)
    page.press(ALL)
    after = mark(connection)
    page.switch_on("UCL refuses the certificate").press("Use this one")
    assert "PossibleOutage" in page.shown("History")
    assert mark(connection) == after


PASSES = [
    "The answer to the signing is lost",
    "UCL answers 503, twice",
    "Too many calls",
    "One call in five fails",
]


@pytest.mark.parametrize("scene", PASSES)
def test_faults_that_the_toolkit_survives_by_itself(connection, sandbox, scene):
    before, page = mark(connection), Page(connection).switch_on(scene)
    page.press(ALL)
    assert mark(connection) != before
    assert sum(sandbox.faults.struck.values()) > 0
    for kind in sandbox.faults.struck:
        assert f"{kind} " in page.shown("Faults")
    assert (", used up" in page.shown("Faults")) == (scene != "One call in five fails")


@pytest.mark.parametrize(("scene", "tries"), [("UCL answers 503, twice", 2), ("Too many calls", 1)])
def test_a_step_shows_its_retries_and_no_other_step_does(connection, sandbox, scene, tries):
    page = Page(connection).switch_on(scene)
    page.press(STEPS[0].label).press(STEPS[1].label)
    assert re.findall(r"Try (\d) in", page.steps()[0]) == [str(number + 2) for number in range(tries)]
    assert ("429" if tries == 1 else "503") in page.steps()[0]
    page.press(STEPS[0].label)
    assert [text for text in page.steps() if "Waits of this step" in text] == []


def test_a_step_that_gives_up_shows_its_retries(connection, sandbox):
    page = Page(connection).switch_on("UCL cannot be reached").press(STEPS[0].label)
    assert "Try 2 in" in page.steps()[0]
    assert "Unreachable" in page.steps()[0]


@pytest.mark.parametrize(
    ("scene", "at", "error"),
    [
        ("A certificate for another key", "decode", "ChecksFailed"),
        ("UCL refuses the certificate", "configuration", "PossibleOutage"),
    ],
)
def test_faults_that_stop_a_step_which_then_is_done_again(connection, sandbox, scene, at, error):
    before, page = mark(connection), Page(connection).switch_on(scene)
    page.press(ALL)
    stopped = [step.name for step in STEPS].index(at)
    assert page.steps()[stopped].startswith(error)
    assert page.steps()[stopped + 1] == ""
    assert mark(connection) == before
    assert page.unfolded() == [stopped]
    assert ("expected found" in page.steps()[stopped]) == (at == "decode")
    if at == "decode":
        assert "✗ failed the key that was made another key" in page.steps()[stopped]
        assert "checks are ok" in page.steps()[stopped] or "✓ ok" in page.steps()[stopped]
        page.press(STEPS[stopped - 1].label)
    page.press(ALL)
    assert mark(connection) != before


def test_nobody_there_until_the_faults_are_off(connection, sandbox):
    before, page = mark(connection), Page(connection).switch_on("UCL cannot be reached")
    page.press(STEPS[0].label)
    assert "Unreachable" in page.steps()[0]
    page.press("Switch all off").press(ALL)
    assert mark(connection) != before


def test_while_a_step_waits_the_rest_is_off_and_the_fault_can_be_taken_back(connection, sandbox):
    page = Page(connection).switch_on("No answer arrives")
    page.press(STEPS[0].label, settled=False)
    wait_until(lambda: sandbox.faults.struck == {"black-hole": 1})
    assert page.line().startswith("Working: ")
    assert page.steps()[0].startswith("On its way query { result: configuration")
    assert [page.off(text) for text in ("Refresh", "Begin again", ALL)] == [True] * 3
    assert not page.off(STEPS[0].label)  # where the keyboard's focus is
    page.control(STEPS[0].label).click()  # nothing more is done for it
    page.control("Begin again").click()  # as if it had been pressed just before it went off
    assert not page.off("Switch all off")
    page.press("Switch all off")
    assert page.settled()
    assert "Sent and received" in page.steps()[0]
    assert (page.line(), page.off(STEPS[1].label)) == ("", False)


def test_every_scene_is_a_plan_that_the_sandbox_takes(connection, sandbox):
    page = Page(connection)
    for scene, (plan, told) in SCENES.items():
        page.panels["Faults"]._scene.value = scene
        assert told in page.shown("Faults")
        if scene != OWN:
            page.press("Switch on", "Faults")
            assert sandbox.faults.plan, plan
    tried = {
        *PASSES,
        "A certificate for another key",
        "UCL refuses the certificate",
        "UCL cannot be reached",
        "No answer arrives",
        OWN,
    }
    assert tried == set(SCENES)


def test_a_plan_of_ones_own_and_one_that_is_none(connection, sandbox):
    page = Page(connection)
    plan = page.control("Plan", Text)
    assert (plan.disabled, plan.layout.display) == (True, "none")
    page.panels["Faults"]._scene.value = OWN
    assert (plan.disabled, plan.layout.display) == (False, "")
    plan.value = "http-503:0.5"
    page.press("Switch on")
    assert [(one.kind, one.probability) for one in sandbox.faults.plan] == [("http-503", 0.5)]
    plan.value = "http-999"
    page.press("Switch on")
    assert "UsageError" in page.shown("Faults")
    assert "http-999" in page.shown("Faults")
    assert "known are" not in page.shown("Faults")
    assert "http-503 each call 0" in page.shown("Faults")
    assert [one.kind for one in sandbox.faults.plan] == ["http-503"]


@pytest.fixture
def files(connection):
    """What the tutorial leaves, as the import asks for it."""
    current = connection.current.path
    return {
        "Name": "mine",
        "Key": str(current / "key.pem"),
        "Certificate": str(current / "chain.pem"),
        "Server CA": str(current / "server-ca.pem"),
        "Connector URL": connection.url,
    }


def imported(page, files):
    for label, value in files.items():
        page.control(label, Text).value = value
    return page.press("Import")


def test_a_connection_is_imported_chosen_and_renewed(connection, files):
    page = imported(Page(home=connection.home), files)
    assert "mine is chosen." in page.shown("")
    assert page.panels["Overview"].desk.name == page.explorer._chooser._names.value == "mine"
    page.panels["Renew"]._size.value = 2048
    before = mark(connection.home.connection("mine"))
    assert mark(page.press(ALL) and connection.home.connection("mine")) != before
    assert "Faults are for this home's sandbox" in page.shown("Faults")
    assert page.off("Switch on")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"Name": ""}, "Name and key are needed"),
        ({"Key": ""}, "Name and key are needed"),
        ({"Name": "try"}, "try is there already"),
        ({"Name": "../mine"}, "Name and key are needed"),
        ({"Key": "/nowhere.pem"}, "/nowhere.pem"),
    ],
)
def test_what_cannot_be_imported_is_told_and_nothing_is_kept(connection, files, changed, told):
    page = imported(Page(connection), {**files, **changed})
    assert told in page.shown("")
    assert [one.name for one in connection.home.connections()] == ["try"]
    assert page.explorer.status().name == "try"


def test_another_connection_is_chosen(connection):
    practice.practise(connection.home, "other", QUICK_BITS)
    page = Page(connection)
    page.press(STEPS[0].label)
    page.explorer._chooser._names.value = "other"
    assert page.settled()
    assert page.explorer.status().name == "other"
    assert page.steps() == [""] * 6
    assert "other (sandbox, for practice)" in page.shown("Overview")


def test_what_is_done_is_done_with_the_connection_that_was_chosen_when_it_was_pressed(connection):
    practice.practise(connection.home, "other", QUICK_BITS)
    page, names = Page(connection), lambda: page.explorer._chooser._names
    before, other = mark(connection), mark(connection.home.connection("other"))
    page.press(ALL, settled=False)
    names().value = "other"
    assert names().value == "try"
    assert page.settled()
    assert (mark(connection) == before, mark(connection.home.connection("other")) == other) == (False, True)
    assert page.explorer.status().name == "try"


def test_a_new_connection_elsewhere_changes_neither_the_choice_nor_what_is_under_way(connection):
    page = Page(connection)
    page.press(STEPS[0].label).press(STEPS[1].label)
    practice.practise(connection.home, "another", QUICK_BITS)
    page.press("Refresh")
    assert page.explorer.status().name == page.explorer._chooser._names.value == "try"
    assert page.steps()[1] != ""
    page.press("Practise")
    assert page.explorer.status().name == page.explorer._chooser._names.value == "practice-05"
    assert "practice-05 is chosen." in page.shown("")


def test_the_key_length_of_one_connection_is_not_that_of_the_next(connection):
    practice.practise(connection.home, "other", QUICK_BITS)
    page = Page(connection)
    page.panels["Renew"]._size.value = 3072
    page.explorer._chooser._names.value = "other"
    assert page.settled()
    assert page.panels["Renew"]._size.value == 0


def test_the_key_length_of_what_was_under_way_is_not_that_of_the_next_renewal(connection):
    first = Page(connection)
    first.panels["Renew"]._size.value = 3072
    first.press(STEPS[0].label).press(STEPS[1].label)
    page = Page(connection)
    size = page.panels["Renew"]._size
    assert size.value == 3072
    page.press(ALL).press("Begin again")
    assert size.value == 0


def test_another_key_length_than_that_of_what_is_under_way_stays_chosen(connection):
    first = Page(connection)
    first.panels["Renew"]._size.value = 3072
    first.press(STEPS[0].label).press(STEPS[1].label)
    page = Page(connection)
    page.panels["Renew"]._size.value = 2048
    page.press("Refresh")
    assert page.panels["Renew"]._size.value == 2048
    page.press(ALL)
    assert connection.require_current().certificate.public_key().key_size == 2048


def test_what_cannot_be_looked_at_leaves_nothing_of_another_connection_standing(connection):
    broken = connection.home.new("broken")
    broken.write_settings({"sandbox": str(connection.home.path / "sandbox" / "ready.json")})
    (broken.path / "settings.toml").write_text("key_length = 'many'\n")
    page = Page(connection)
    page.press(ALL).press("Begin again").press(STEPS[0].label).press(STEPS[1].label)
    assert not page.off("Use this one")
    page.explorer._chooser._names.value = "broken"
    assert page.settled()
    assert page.off("Use this one")
    assert "Generations of try" not in page.shown("History")
    assert "renew" not in page.shown("Pending")
    assert "settings" in page.shown("Renew")


def test_a_panel_that_cannot_be_refreshed_keeps_no_other_from_it(connection, monkeypatch):
    page = Page(connection)
    monkeypatch.setattr(page.panels["Renew"], "refresh", lambda: 1 / 0)
    page.panels["Pending"]._pane.show("stale")
    page.press("Refresh")
    assert "ZeroDivisionError" in page.line()
    assert "stale" not in page.shown("Pending")


def test_what_another_page_has_finished_leaves_no_steps_standing(connection):
    first, second = Page(connection), Page(connection)
    for page in (first, second):
        page.press(STEPS[0].label).press(STEPS[1].label)
    first.press(ALL)
    second.press(STEPS[2].label)
    assert second.steps()[2].startswith("SettledElsewhere")
    assert [bool(one) for one in second.steps()] == [False, False, True, False, False, False]


def test_the_choice_keeps_the_focus_while_another_connection_is_looked_at(connection, sandbox):
    practice.practise(connection.home, "other", QUICK_BITS)
    page = Page(connection)
    names, off = page.explorer._chooser._names, []
    names.observe(lambda change: off.append(change["new"]), "disabled")
    names.value = "other"
    assert page.settled()
    assert off == []


def test_faults_are_those_of_the_home_whatever_link_leads_there(connection, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "home")
    page = Page(Home(tmp_path / "link").connection("try"))
    assert not page.off("Switch on")


def test_what_cannot_be_renewed_yet_says_how_it_is_finished(connection):
    home = connection.home
    begun = home.new("begun")
    begun.write_settings({"sandbox": str(home.path / "sandbox" / "ready.json")})
    page = Page(begun)
    assert "ucl establish begun --sandbox" in page.shown("Renew")
    assert page.off(ALL)
    assert page.off(STEPS[0].label)


def test_practising_keeps_what_there_is_though_ucl_refuses_it(connection, sandbox):
    page = Page(connection)
    page.press("Practise").press(ALL)
    mine = connection.home.connection("practice-05")
    kept = [one.name for one in mine.generations()]
    sandbox.faults.set([Fault("http-400-empty", "certificate", "configuration")])
    page.press("Practise")
    assert [one.name for one in mine.generations()][: len(kept)] == kept
    assert "PossibleOutage" in page.shown("")
    assert page.explorer._chooser.widget.children[1] is page.explorer._chooser._result  # where it is seen


def test_after_a_wrong_certificate_step_3_is_next_and_after_a_third_step_1(connection, sandbox):
    before, page = mark(connection), Page(connection)
    sandbox.faults.set([Fault("another-key", "certificate", "sign", times=3)])
    for rejected in range(1, 4):
        page.press(ALL)
        assert page.steps()[3].startswith("ChecksFailed")
        assert page.off(STEPS[3].label)
        assert not page.off(STEPS[2].label), rejected
    page.press(STEPS[2].label)
    assert page.steps()[2].startswith("SettledElsewhere")
    assert page.off(STEPS[1].label)
    page.press(ALL)
    assert mark(connection) != before


def test_a_new_subject_is_consented_to(connection, monkeypatch):
    monkeypatch.setattr("ucl_helpers.procedures.renewal.same_subject", lambda *_: False)
    before, page = mark(connection), Page(connection)
    consent = page.control("Accept the new subject", Checkbox)
    assert consent.layout.display == "none"
    page.press(ALL)
    assert "SubjectChanged" in page.steps()[0]
    assert "Sent and received" in page.steps()[0]
    assert "tick “Accept the new subject”" in page.steps()[0]
    assert (consent.layout.display, consent.value, mark(connection)) == ("", False, before)
    consent.value = True
    page.press(ALL)
    assert mark(connection) != before


def test_a_new_host_is_consented_to(connection, sandbox):
    before, page = mark(connection), Page(connection)
    sandbox.faults.set([Fault("connector-url-moved")])
    consent = page.control("Accept the new host", Checkbox)
    page.press(ALL)
    assert "HostChanged" in page.steps()[0]
    assert "tick “Accept the new host”" in page.steps()[0]
    assert (consent.layout.display, page.control("Accept the new subject", Checkbox).layout.display) == ("", "none")
    assert mark(connection) == before
    consent.value = True
    page.press(ALL)
    assert mark(connection) != before


def test_broken_settings_do_not_keep_it_from_opening(connection):
    (connection.path / "settings.toml").write_text("key_length = 'many'\n")
    page = Page(connection)
    assert "settings not usable" in page.shown("Overview")
    page.press("Look at this machine only")
    assert "key_length" in page.shown("Doctor")


def test_faults_are_not_switched_at_another_sandbox_than_the_connections(connection, tmp_path, sandbox):
    path = connection.path / "settings.toml"
    path.write_text(path.read_text().replace(str(tmp_path / "home"), str(tmp_path / "elsewhere")))
    page = Page(connection)
    assert page.off("Switch on")
    assert "this home's sandbox" in page.shown("Faults")


def test_showing_it_does_not_wait_for_a_call_that_hangs(connection, sandbox):
    page = Page(connection).switch_on("No answer arrives")
    page.press(STEPS[0].label, settled=False)
    wait_until(lambda: sandbox.faults.struck == {"black-hole": 1})
    assert "ucl-card" in page.explorer._repr_mimebundle_()["text/html"]
    assert not page.explorer.work.is_idle
    page.press("Switch all off")


def test_the_generation_that_was_chosen_stays_chosen(connection):
    page = Page(connection)
    for _ in range(2):
        page.press("Begin again").press(ALL)
    chosen = page.panels["History"]._chosen
    assert list(chosen.options) == sorted(chosen.options, reverse=True)
    chosen.value = oldest = chosen.options[-1]
    page.press("Look at this machine only")
    assert chosen.value == oldest
    page.press("Use this one")
    assert connection.current.name == oldest


def test_a_connection_that_is_gone_is_chosen_no_longer(connection):
    page = Page(connection)
    forget(connection, even_if_valid=True)
    page.press("Refresh")
    assert (page.explorer.desk.name, page.off(ALL)) == ("", True)
    assert "try is gone." in page.shown("")


def test_settings_that_cannot_be_used_are_told_and_mended(connection):
    page, path = Page(connection), connection.path / "settings.toml"
    good = path.read_text()
    path.write_text("key_length = 'many'\n")
    page.press("Refresh")
    assert "settings not usable" in page.shown("Overview")
    assert page.line() == ""
    assert page.off("Switch on")
    page.press("Look at this machine only")
    assert "key_length" in page.shown("Doctor")
    path.write_text(good)
    page.press("Refresh")
    assert not page.off("Switch on")


def test_pending_hooks_are_run(connection):
    page = Page(connection)
    assert page.off("Run pending hooks")
    path = connection.path / "settings.toml"
    path.write_text(path.read_text() + '\n[[hooks]]\nname = "reload"\ncommand = ["true"]\n')
    page.press("Refresh")
    assert "hooks to be run reload" in page.shown("Pending")
    page.press("Run pending hooks")
    assert "reload · done" in page.shown("Pending")
    assert page.off("Run pending hooks")
    page.press(ALL)
    assert "Hooks to be run: reload." in page.steps()[-1]
    page.press("Run pending hooks").press("Use this one")
    assert "Hooks to be run: reload." in page.shown("History")


def test_the_doctor_looks_near_and_far(connection, sandbox):
    page = Page(connection)
    page.press("Look, and ask UCL")
    assert "try: all is well" in page.shown("Doctor")
    page.switch_on("UCL refuses the certificate").press("Look, and ask UCL")
    assert "✗ failed" in page.shown("Doctor")


def test_what_wait_there_is_of_another_process_is_told(connection):
    page = Page(connection)
    with connection.home.connection("try").lock.held():
        page.press(STEPS[0].label)
    assert page.steps()[0].startswith("Busy")
    page.press(STEPS[0].label)
    assert "Sent and received" in page.steps()[0]


def test_the_line_of_a_failed_try_is_short():
    work = Work()
    work.say("No answer from https://localhost/x (x-request-id 1-2-3). Try 3 in 1.0 s.")
    assert words(work.line.value) == "Working: Try 3 in 1.0 s."
    work.say("Asking UCL for the configuration.")
    assert words(work.line.value) == "Working: Asking UCL for the configuration."


def test_a_defect_is_shown_and_the_controls_come_back():
    work, looked = Work(), []
    work.after = lambda: looked.append(True)

    def broken():
        raise RuntimeError("<b>no</b>")

    button = work.button("Try", "Trying.", broken)
    button.click()
    assert work.settled(60)
    assert looked == [True]
    assert "A defect of the explorer" in work.line.value
    assert "RuntimeError: &lt;b&gt;no&lt;/b&gt;" in work.line.value
    assert not button.disabled


def test_a_pane_that_shows_a_call_on_its_way_shows_it_no_longer_after_a_defect():
    pane = Pane()
    pane.show("On its way")
    with pytest.raises(ZeroDivisionError):
        pane.fill(lambda: 1 / 0)
    assert pane.value == ""


def test_it_shows_itself_as_widgets_and_as_a_card(connection):
    bundle = Page(connection).explorer._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert "ucl-card" in bundle["text/html"]
    assert "run this notebook" in bundle["text/html"]
    assert bundle["text/plain"].startswith("try: valid (sandbox, for practice)")
    assert "ucl-card" not in json.dumps(explore(home=connection.home)._repr_mimebundle_())


def test_no_secret_is_in_what_the_page_gets(connection):
    page = Page(connection)
    page.press(ALL)
    key = (connection.path / "current" / "key.pem").read_text().splitlines()[1]
    state = json.dumps([one.get_state() for one in everything(page.explorer.widget)], default=str)
    assert mark(connection) in state
    assert key not in state
    assert "PRIVATE KEY" not in state
