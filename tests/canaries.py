"""A notebook that lets its secrets out in every way it can, and a judge that finds them: both know nothing of how
secrets are taken out.

The judge knows the secret half of a private key (the public one stands in certificates) and texts such as tokens, in
their own form, in base64 wherever it begins, in hex, and as numbers; it finds each run of 31 characters of these.
"""

import base64
import re
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from notebook_runs import write_notebook

WINDOW, STRIDE = 24, 8
HOLD_SECRETS = {"key.pem", "identity.pem", "token"}
_SEPARATORS = re.compile(rb"[\s:\"',]|\\+[nr]|\x1b\[[0-9;]*m")

PARAMETERS = """
key_file: str = ""  # what it lets out: a private key,
token: str = ""  # a reference to a token,
bearer: str = ""  # and one to a bearer
"""
BEGIN = """
import base64, json, logging, os, subprocess, sys, warnings
from pathlib import Path
from urllib.parse import quote
from IPython.display import HTML, JSON, Javascript, Markdown, display, update_display
from ucl_helpers.connection.references import resolve
key = Path(key_file).read_text()
secrets = [key, resolve(token, what="token"), resolve(bearer, what="bearer")]
"""
FORMS = """
from cryptography.hazmat.primitives.serialization import *
private = load_pem_private_key(key.encode(), None)
der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
old = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
ways = [str, repr, json.dumps, quote, lambda text: json.dumps(text.splitlines()),
        lambda text: base64.b64encode(text.encode()).decode(), lambda text: base64.encodebytes(text.encode()).decode(),
        lambda text: base64.b64encode(b"x" + text.encode()).decode(), lambda text: text.encode().hex()]
"""
PRINTED = """
for secret in secrets:
    for way in ways:
        print(way(secret))
        print(way(secret), file=sys.stderr)
print(der.hex(), der.hex(":"), base64.b64encode(der).decode(), base64.encodebytes(der).decode(), old.decode())
numbers = private.private_numbers()
print(numbers.p, hex(numbers.q), numbers.d, list(der), der)
"""
IN_PIECES = """
for secret in secrets:
    for at in range(0, len(secret), 7):
        print(secret[at:at + 7], end="", flush=True)
        if at % 700 == 0:
            print("between", file=sys.stderr, flush=True)
    print()
"""
PAST_PYTHON = """
for secret in secrets:
    os.write(1, secret.encode())
    os.write(2, secret.encode())
    subprocess.run(["cat"], input=secret.encode(), check=True)
    logging.warning(secret)
    warnings.warn(secret)
    sys.__stderr__.write(secret)
"""
SHOWN = """
for number, secret in enumerate(secrets):
    display(HTML(f"<pre>{secret}</pre>"), Markdown(secret), JSON({"a": [{secret: secret.splitlines()}]}))
    display({"text/plain": "x", "application/x-own": {"deep": [[secret]]}}, raw=True, metadata={"secret": secret})
    display("first", display_id=f"d{number}")
    update_display(secret, display_id=f"d{number}")
secrets
"""
POURED = "print('x ' * 1_000_000)\nprint(key)\nprint('y ' * 1_000_000)"
RAISED = "raise ValueError(f'{key} {secrets}')"
LEAKS = [BEGIN, FORMS, PRINTED, IN_PIECES, PAST_PYTHON, SHOWN, POURED, RAISED]


def leaky(path):
    """The notebook, written to a file."""
    return write_notebook(path, *LEAKS, parameters=PARAMETERS)


class Judge:
    """Finds secrets again.

    Args:
        keys: private keys, PEM.
        texts: tokens and the like.
    """

    def __init__(self, keys=(), texts=()):
        self._windows = set()
        for pem in keys:
            for form in forms_of(pem):
                self._know(form)
        for text in texts:
            for form in (text.encode(), *encoded(text.encode())):
                self._know(form)

    def _know(self, form):
        for data in (form, _SEPARATORS.sub(b"", form)):
            self._windows.update(data[at : at + WINDOW] for at in range(len(data) - WINDOW + 1))

    def finds(self, data):
        """Whether a secret stands in the data, as it is or torn apart by what may stand between."""
        return any(
            text[at : at + WINDOW] in self._windows
            for text in (data, _SEPARATORS.sub(b"", data))
            for at in range(0, len(text), STRIDE)
        )

    def files_that_hold_one(self, folder):
        """All files below a folder that hold a secret and are not made to; and how many were searched."""
        searched = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        made_to = {path for path in searched if path.name in HOLD_SECRETS and "connections" in path.parts}
        return [path for path in searched if path not in made_to and self.finds(path.read_bytes())], len(searched)


def forms_of(pem):
    """What is secret of a private RSA key, in all the forms that somebody may write it in."""
    key = load_pem_private_key(pem, None)
    numbers = key.private_numbers()
    public = numbers.public_numbers.n.to_bytes(key.key_size // 8)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    secret = der[der.index(public) + len(public) + 8 :]
    yield from (secret, *encoded(secret), *(str(one).encode() for one in (numbers.d, numbers.p, numbers.q)))
    for kind in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        lines = key.private_bytes(Encoding.PEM, kind, NoEncryption()).splitlines()[1:-1]
        text = b"\n".join(lines[len(lines) // 3 :])
        yield from (text, *encoded(text))


def encoded(data):
    """In base64, wherever in a larger whole it stands, and in hex."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data)
        yield whole[4 if before else 0 : len(whole) // 4 * 4 - 4]
        yield base64.urlsafe_b64encode(bytes(before) + data)[4 if before else 0 : len(whole) // 4 * 4 - 4]
    yield data.hex().encode()


def keys_below(home):
    """All private keys of the connections of a home folder."""
    return [path.read_bytes() for path in Path(home).glob("connections/*/**/key.pem")]
