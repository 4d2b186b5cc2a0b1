"""A secret pasted into any field of the explorer stays nowhere; tests/browser saves a notebook after the same."""

import base64
import json
import random

import comm
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from ipywidgets import HTML, Label, Widget
from quick_keys import QUICK_BITS

from ucl_helpers.connection.store import Home
from ucl_helpers.views.explorer import explore
from ucl_helpers.views.explorer.fields import LONGEST, Form

RANDOM = random.Random(18)  # noqa: S311 - the same texts in each process of a test run
TOKEN = base64.urlsafe_b64encode(RANDOM.randbytes(64)).decode()
BEARER = base64.urlsafe_b64encode(RANDOM.randbytes(48)).decode()
URL = "https://connector.example.com/connector/graphql"
RAW = json.dumps({"connectorURL": URL, "token": TOKEN})
KEY = rsa.generate_private_key(65537, QUICK_BITS)
PKCS8 = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"RS256"}', b'{"sub":"u"}', b"x" * 32)
)
PASSPHRASE = "correct horse battery staple"

FORMS = {  # of a secret → the text that is pasted
    "token": TOKEN,
    "token, cut off": TOKEN[:60],
    "rawEncoded": base64.b64encode(RAW.encode()).decode(),
    "raw": RAW,
    "raw, with another token": json.dumps({"connectorURL": URL, "token": "s3cr3t-token-value"}),
    "Connector URL": f"{URL}?token={TOKEN}",
    "Connector URL, quoted": f"{URL}%3Ftoken%3D{TOKEN}",
    "legacyConnectorURL": f"https://adapter.example.com/v1/applications/signingRequests/info?token={TOKEN}",
    "URL with another parameter": f"{URL}?code=s3cr3t-token-value",
    "URL with a password": "https://me:s3cr3t-token-value@connector.example.com/connector/graphql",
    "header": f"Connector-Token: {TOKEN}",
    "curl": f"curl -H 'Authorization: Bearer s3cr3t-token-value' {URL}",
    "Bearer, JWT": f"Bearer {JWT}",
    "JWT": JWT,
    "Bearer, opaque": "Bearer s3cr3t-token-value",
    "bearer of the Director": BEARER,
    "PKCS #8": PKCS8,
    "PKCS #8, in a line": PKCS8.replace("\n", ""),
    "PKCS #8, without its markers": "".join(PKCS8.splitlines()[1:-1]),
    "a line of a key": base64.b64encode(RANDOM.randbytes(48)).decode(),
    "PKCS #8, in hex": KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).hex(),
    "PKCS #1": KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode(),
    "encrypted": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode(),
    "SEC 1": ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    .decode(),
    "OpenSSH": KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(),
    "password by its name": "password=s3cr3t",
    "passphrase": PASSPHRASE,
    "endless": "aB3" * LONGEST,
}
INNOCENT = {  # each field has to be here
    "Name": ["prod", "my-app_2.eu", "app-3fa85f64-5717-4562-b3fc-2c963f66afa6", "UCL-Client-Certificate-2026"],
    "Key": ["/home/Me/UCL-Client-Certificate-2026.pem", "~/key.pem", "./key.pem", "/a b/Basic Folder/token.pem", ""],
    "Certificate": ["/etc/ucl/chain.pem", "../chain.pem", "/nix/store/3n58xw4373jp0ljirf06d8077j15pc4j-ucl/chain.pem"],
    "Chain": ["/run/secrets/..2026_11_30_10_11_12.345/chain.pem", ""],
    "Server CA": ["/etc/ssl/certs/ca-certificates.crt", ""],
    "Connector URL": [URL, "https://[::1]:8443/connector/graphql", ""],
    "Passphrase": ["env:UCL_PASSPHRASE", "file:/run/secrets/passphrase", "file:my password", ""],
    "Plan": ["http-503:0.5", "grumpy", '{"faults": [{"kind": "http-503", "at": "token", "operation": "token"}]}', ""],
}


def everything(widget: Widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def fields_of(explorer):
    """All widgets whose text comes from the page."""
    return [
        one for one in everything(explorer.widget) if isinstance(getattr(one, "value", None), str) and takes_text(one)
    ]


def takes_text(widget):
    return not isinstance(widget, HTML | Label) and "_options_labels" not in widget.keys


class Page:
    """An explorer, what its widgets send to the page, and what the page sends to them."""

    def __init__(self, home, monkeypatch):
        self.sent = []
        # ipykernel, which another test may have imported, makes widgets that send nothing while no kernel runs.
        monkeypatch.setattr(comm, "create_comm", comm.DummyComm)
        self.explorer = explore(home=home)
        assert self.explorer.settled(60)
        self.fields = {field.description: field for field in fields_of(self.explorer)}
        for widget in everything(self.explorer.widget):
            monkeypatch.setattr(widget, "_send", lambda message, buffers=None: self.sent.append(message))

    def paste(self, label, text):
        """As the message of a page has it."""
        field = self.fields[label]
        data = {"method": "update", "state": {"value": text}, "buffer_paths": []}
        field._handle_msg({"content": {"data": data}, "buffers": []})
        return field.value

    @property
    def memory(self):
        """All models as a notebook would save them, and all messages."""
        models = [one.get_state() for one in everything(self.explorer.widget)]
        return json.dumps([models, self.sent], default=str, ensure_ascii=False)

    @property
    def message(self):
        return " ".join(one.value for one in everything(self.explorer.widget) if type(one).__name__ == "Pane")


@pytest.fixture
def page(tmp_path, monkeypatch):
    return Page(Home(tmp_path / "home"), monkeypatch)


def test_every_field_is_tried(page):
    assert set(page.fields) == set(INNOCENT)


def traces(text, memory):
    """Parts of a secret's form that are in a text; of what the explorer says itself, none is."""
    parts = [line[at : at + 12] for line in text.splitlines() for at in range(len(line) - 11)]
    return [part for part in parts if part in memory and part not in URL and "-----" not in part]


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_stays_in_no_field(page, form):
    for label, (innocent, *_) in INNOCENT.items():
        assert page.paste(label, innocent) == innocent, label
        page.sent.clear()
        assert page.paste(label, FORMS[form]) == "", label
        assert {"method": "update", "state": {"value": ""}, "buffer_paths": []} in page.sent, label
        assert f"{label}: " in page.message
        assert "The field was emptied, and the text was not used." in page.message
        assert traces(FORMS[form], page.memory) == [], label


def test_the_search_for_traces_finds_what_a_field_without_a_check_keeps(page, monkeypatch):
    monkeypatch.setattr(Form, "refusal", lambda *_: None)
    for text in FORMS.values():
        page.paste("Key", text)
        assert traces(text, page.memory)


@pytest.mark.parametrize(("label", "text"), [(label, text) for label, texts in INNOCENT.items() for text in texts])
def test_an_innocent_text_stays(page, label, text):
    assert page.paste(label, text) == text
    assert "was emptied" not in page.message
    assert {"value": ""} not in [one["state"] for one in page.sent]


def test_a_file_may_have_a_name_that_looks_random(page, tmp_path):
    path = tmp_path / BEARER
    assert page.paste("Key", str(path)) == ""
    path.write_text("")
    assert page.paste("Key", str(path)) == str(path)
    assert page.paste("Passphrase", f"file:{path}") == f"file:{path}"


@pytest.mark.parametrize(
    ("label", "text", "told"),
    [
        ("Passphrase", "hunter2", "this is not a reference"),
        ("Passphrase", "prompt", "this is not a reference"),
        ("Passphrase", "env:not a variable", "this is not a reference"),
        ("Key", "hunter2", "this is not the path of a file"),
        ("Name", "a b", "this is not a name"),
        ("Connector URL", "http://connector.example.com/", "this is not an https URL without parameters"),
        ("Connector URL", "https://[", "this is not an https URL without parameters"),
        ("Connector URL", "https:///graphql", "this is not an https URL without parameters"),
        ("Plan", "Http 503", "this is not a plan of faults"),
        ("Key", "a\0b", "this is not the path of a file"),
        ("Key", PKCS8, "this is the content of a PEM file"),
        ("Key", TOKEN, "this is a private key or a token"),
        ("Key", BEARER, "this is what looks like a key or a token"),
        ("Connector URL", f"{URL}?token={TOKEN}", "ucl establish NAME --token file:PATH"),
        ("Passphrase", "Bearer s3cr3t", "ucl establish NAME --bearer file:PATH"),
        ("Passphrase", PASSPHRASE, "env:NAME for an environment variable of the kernel, or file:PATH"),
    ],
)
def test_the_message_says_what_was_pasted_and_what_to_do(page, label, text, told):
    assert page.paste(label, text) == ""
    assert told in page.message


def test_text_is_sent_when_the_user_leaves_the_field_and_not_letter_by_letter(page):
    assert {label: field.continuous_update for label, field in page.fields.items()} == dict.fromkeys(INNOCENT, False)
