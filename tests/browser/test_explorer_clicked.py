"""The explorer clicked through by somebody at a browser: a renewal, faults, the way back, a page that is closed."""

import pytest
from accessibility import barriers
from cryptography import x509
from opened import Opened
from playwright.sync_api import Locator, expect
from test_notebooks_opened import FONTS, OWN_FAULT

LEAVING = "/voila/api/shutdown/"  # Voilà's server refuses what its own page asks for when it is left
NAME, CONNECTION = "05_explorer.ipynb", "practice-05"
STEPS = ("1 Configuration", "2 Key and request", "3 Sign", "4 Decode and check", "Verify", "Activate")
DARK = "() => jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })"


class Clicked:
    """The explorer on a page, and what its clicks did on disk."""

    def __init__(self, shown: Locator, workplace) -> None:
        self.shown, self.folder = shown, workplace / "home" / "connections" / CONNECTION

    @property
    def in_use(self):
        return (self.folder / "current").readlink().name

    @property
    def pending_key(self):
        return x509.load_pem_x509_csr((self.folder / "pending" / "csr.pem").read_bytes()).public_key().public_numbers()

    @property
    def key(self):
        chain = (self.folder / "current" / "certificate.pem").read_bytes()
        return x509.load_pem_x509_certificate(chain).public_key().public_numbers()

    def button(self, text):
        return self.shown.get_by_role("button", name=text, exact=True).locator("visible=true")

    def tab(self, title):
        self.shown.get_by_role("tab", name=title).click()
        return self

    def press(self, text):
        """Press a button, and wait until what it does has come to its end."""
        status = self.shown.get_by_role("status")
        own = status.nth(1 if text.startswith("Switch") else 0)  # faults have a thread of their own
        done = int(own.get_attribute("data-done"))
        self.button(text).click()
        expect(own).to_have_attribute("data-done", str(done + 1))
        return self.idle()

    def idle(self):
        """Wait until nothing is being done."""
        expect(self.shown.get_by_role("status").first).not_to_have_attribute("data-done", "0")
        expect(self.shown.get_by_text("Working:")).to_have_count(0)
        return self

    def places(self):
        """The vertical positions of the steps' buttons within the explorer, which results must not move."""
        top = self.shown.bounding_box()["y"]
        return [round(self.button(label).bounding_box()["y"] - top) for label in STEPS]

    def choose(self, label, option):
        self.shown.get_by_label(label, exact=True).locator("visible=true").select_option(option)
        return self

    def switch_to(self, name):
        """Choose a connection, unless it is chosen already."""
        if self.shown.get_by_label("Connection", exact=True).input_value() != name:
            own = self.shown.get_by_role("status").first
            done = int(own.get_attribute("data-done"))
            self.choose("Connection", name)
            expect(own).to_have_attribute("data-done", str(done + 1))
        return self.idle()

    def quick(self):
        return self.tab("Renew").choose("Key length", "2048 bits, quick")

    def with_fault(self, scene):
        self.tab("Faults").choose("Fault", scene).press("Switch on")
        return self.tab("Renew")

    def card(self, title):
        return self.shown.get_by_role("region", name=title).locator("visible=true")


@pytest.fixture
def in_lab(jupyter, workplace):
    """``in_lab()``: the explorer in JupyterLab, or in ``"notebook"``, version 7; and the notebook around it."""

    def opened(program="lab", **settings):
        notebook = jupyter(program, NAME, **settings)
        return notebook, explorer_of(notebook, workplace)

    return opened


def explorer_of(notebook, workplace):
    cells = notebook.run_all()
    (number,) = [number for number, cell in enumerate(cells) if cell["source"].startswith("explorer = explore(")]
    return Clicked(notebook.output(number), workplace).idle()


def test_a_renewal_step_by_step_and_the_way_back(in_lab, keep):
    notebook, explorer = in_lab()
    before = explorer.in_use
    expect(explorer.card(f"{CONNECTION} (sandbox, for practice)")).to_be_visible()
    keep(explorer.shown, "explorer-overview")
    explorer.quick()
    places = explorer.places()
    for number, step in enumerate(STEPS):
        assert explorer.places() == places
        assert [explorer.button(one).is_enabled() for one in STEPS] == [place <= number for place in range(len(STEPS))]
        explorer.press(step)
        assert explorer.in_use == before or step == "Activate"
    assert explorer.in_use != before
    assert explorer.places() == places
    expect(explorer.card("The new identity, checked")).to_have_count(0)
    explorer.shown.locator("summary", has_text=STEPS[3]).locator("visible=true").click()
    expect(explorer.card("The new identity, checked")).to_be_visible()
    expect(explorer.shown.locator("summary", has_text="The code of this step")).to_have_count(4)
    keep(explorer.shown, "explorer-renew")
    after = explorer.in_use
    explorer.tab("History")
    keep(explorer.shown, "explorer-history")
    explorer.press("Use this one")
    assert explorer.in_use == before
    explorer.press("Use this one")
    assert explorer.in_use == after
    explorer.tab("Pending")
    expect(explorer.card("Pending")).to_be_visible()
    explorer.tab("Doctor").press("Look, and ask UCL")
    expect(explorer.card(f"{CONNECTION}: all is well")).to_be_visible()
    assert (notebook.watched.errors, notebook.watched.elsewhere) == ([], [])


def test_faults_are_survived_and_a_wrong_certificate_is_refused(in_lab, keep):
    _, explorer = in_lab()
    before = explorer.in_use
    explorer.quick().with_fault("The answer to the signing is lost").press("Run the remaining steps")
    assert (once := explorer.in_use) != before
    explorer.tab("Faults")
    expect(explorer.card("Faults").get_by_role("row", name="reset-after-acting")).to_contain_text("1")
    explorer.with_fault("A certificate for another key").press("Begin again")
    explorer.choose("Key length", "2048 bits, quick").press("Run the remaining steps")
    expect(explorer.card("ChecksFailed")).to_be_visible()
    keep(explorer.card("ChecksFailed"), "explorer-wrong-certificate")
    assert explorer.in_use == once
    made = explorer.pending_key
    explorer.press("3 Sign").press("Run the remaining steps")
    assert explorer.key == made


def test_closing_the_page_while_a_call_waits_loses_nothing(in_lab, workplace):
    notebook, explorer = in_lab()
    before = explorer.in_use
    explorer.quick().press("1 Configuration").press("2 Key and request")
    made = explorer.pending_key
    explorer.with_fault("No answer arrives").button("3 Sign").click()
    expect(explorer.card("On its way")).to_be_visible()
    expect(explorer.button("Begin again")).to_be_disabled()
    address, browser = notebook.page.url, notebook.page.context
    notebook.page.close()
    assert explorer.in_use == before
    page = browser.new_page()
    page.goto(address)
    explorer = explorer_of(Opened.when_ready(page, notebook.watched, NAME), workplace)
    explorer.tab("Faults").press("Switch all off").tab("Pending")
    expect(explorer.card("Pending")).to_contain_text("renew since")
    explorer.tab("Renew").press("Run the remaining steps")
    assert (explorer.in_use == before, explorer.key == made) == (False, True)


def test_it_works_in_notebook_7(in_lab):
    notebook, explorer = in_lab("notebook")
    before = explorer.in_use
    explorer.quick().press("Run the remaining steps")
    assert explorer.in_use != before
    assert [error for error in notebook.watched.errors if OWN_FAULT not in error] == []
    assert notebook.watched.elsewhere == []


def test_it_works_in_voila_and_a_page_that_is_loaded_again_goes_on(voila, workplace):
    page, watched = voila(NAME)
    explorer = Clicked(page.locator("body"), workplace).idle()
    before = explorer.in_use
    explorer.quick().press("1 Configuration").press("2 Key and request")
    made = explorer.pending_key
    page.reload()
    explorer.idle().switch_to(CONNECTION)  # the kernel of before may still practise under that name
    expect(explorer.card(f"{CONNECTION} (sandbox, for practice)")).to_be_visible()
    explorer.tab("Renew").press("Run the remaining steps")
    assert (explorer.in_use == before, explorer.key == made) == (False, True)
    assert [error for error in watched.errors if LEAVING not in error] == []
    assert [address for address in watched.elsewhere if not address.startswith(FONTS)] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_can_be_used_by_everybody(in_lab, keep, theme):
    notebook, explorer = in_lab(viewport={"width": 1280, "height": 5000})  # all of it is in sight, and drawn
    if theme == "dark":
        notebook.page.evaluate(DARK)
        notebook.page.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'")
    within = ".jp-OutputArea-output:has(.jupyter-widgets)"
    for title in ("Overview", "History", "Pending", "Doctor", "Faults", "Renew"):
        explorer.tab(title)
        if title == "Renew":
            explorer.quick().press("Run the remaining steps")
        keep(explorer.shown, f"explorer-{title.lower()}-{theme}")
        assert barriers(notebook.page, within=within) == [], title
