"""Secrets pasted into the explorer's fields in JupyterLab, which then saves the notebook with the widgets' states."""

import base64
import json
import random

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from playwright.sync_api import expect
from quick_keys import QUICK_BITS
from test_explorer_clicked import NAME, explorer_of

from ucl_helpers.views.explorer.panels import OWN

TOKEN = base64.urlsafe_b64encode(random.Random(18).randbytes(64)).decode()  # noqa: S311 - the same in each process
URL = "https://connector.example.com/connector/graphql"
KEY = (
    rsa.generate_private_key(65537, QUICK_BITS)
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
PASTED = {
    "bare": TOKEN,
    "URL": f"{URL}?token={TOKEN}",
    "rawEncoded": base64.b64encode(json.dumps({"connectorURL": URL, "token": TOKEN}).encode()).decode(),
    "key": KEY,
    "passphrase": "correct horse battery staple",
}
FIELDS = ("Name", "Key", "Certificate", "Chain", "Server CA", "Connector URL", "Passphrase", "Plan")
BUSY = """() => {
  const { kernel } = jupyterapp.shell.currentWidget.context.sessionContext.session;
  kernel.requestExecute({ code: "import os, time\\nwhile not os.path.exists('go'):\\n  time.sleep(0.1)" });
}"""
SAVE = "() => jupyterapp.commands.execute('docmanager:save')"


def field_of(explorer, label):
    return explorer.shown.get_by_role("textbox", name=label, exact=True)


def enter(explorer, label, text):
    field_of(explorer, label).fill(text)
    field_of(explorer, label).press("Tab")


def opened(jupyter, workplace):
    """The notebook in JupyterLab, which saves the states of widgets; and its explorer, all fields in sight."""
    settings = workplace / "config" / "lab" / "user-settings" / "@jupyter-widgets" / "jupyterlab-manager"
    settings.mkdir(parents=True)
    (settings / "plugin.jupyterlab-settings").write_text('{"saveState": true}')
    notebook = jupyter("lab", NAME)
    explorer = explorer_of(notebook, workplace)
    explorer.shown.get_by_text("Import a connection from files").click()
    return notebook, explorer


def saved(notebook, workplace):
    notebook.page.evaluate(SAVE)
    return (workplace / "notebooks" / NAME).read_text()


def test_nothing_of_a_pasted_secret_is_in_the_saved_notebook_nor_beside_it(jupyter, workplace):
    notebook, explorer = opened(jupyter, workplace)
    explorer.tab("Faults").choose("Fault", OWN)
    for text in PASTED.values():
        for label in FIELDS:
            enter(explorer, label, text)
            expect(field_of(explorer, label)).to_have_value("")
    enter(explorer, "Name", "innocent-name")
    explorer.press("Import")  # the kernel has answered, and so it has answered all that came before
    widgets = json.loads(saved(notebook, workplace))["metadata"]["widgets"]
    (states,) = (by_type["state"] for by_type in widgets.values())
    assert "innocent-name" in [model["state"].get("value") for model in states.values()]  # states are saved
    secrets = [TOKEN, PASTED["passphrase"], PASTED["rawEncoded"], *KEY.splitlines()[2:-2]]  # every key begins alike
    parts = [secret[at : at + 20].encode() for secret in secrets for at in range(0, max(1, len(secret) - 20), 10)]
    written = [path for path in workplace.rglob("*") if path.is_file()]
    assert any(path.name == "history.sqlite" for path in written)
    assert [path for path in written if any(part in path.read_bytes() for part in parts)] == []


def test_while_the_kernel_is_busy_the_page_keeps_what_was_pasted(jupyter, workplace):
    """The limit that docs/reference/headless.md states, and the twin: a trace in a saved notebook is found."""
    notebook, explorer = opened(jupyter, workplace)
    notebook.page.evaluate(BUSY)
    enter(explorer, "Connector URL", PASTED["URL"])
    assert TOKEN in saved(notebook, workplace)
    (workplace / "notebooks" / "go").touch()
    expect(field_of(explorer, "Connector URL")).to_have_value("")
    assert TOKEN not in saved(notebook, workplace)
