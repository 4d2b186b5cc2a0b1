"""Forms in which a private key is displayed by accident: by tools, by Python, by pages and by mishaps.

Each form takes a key (``Key``) and returns a text. Installed programs display the forms named after them.
"""

import array
import base64
import csv
import difflib
import gzip
import html
import io
import json
import pprint
import quopri
import shutil
import subprocess
import textwrap
import traceback
import urllib.parse
import zlib
from functools import cached_property

import yaml
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from pygments import highlight
from pygments.formatters import HtmlFormatter, TerminalFormatter
from pygments.lexers import PythonLexer

FORMS = {}


class NotInstalled(Exception):
    """A program that displays a form is not installed."""

    def __init__(self, program):
        super().__init__(f"{program} is not installed")


class Key:
    """A private RSA key as the forms need it."""

    def __init__(self, private):
        self.private, self.numbers = private, private.private_numbers()

    def encoded(self, encoding, kind, protection=None):
        return self.private.private_bytes(encoding, kind, protection or NoEncryption())

    @cached_property
    def pem(self):
        return self.encoded(Encoding.PEM, PrivateFormat.PKCS8).decode()

    @cached_property
    def lines(self):
        return self.pem.splitlines()

    @cached_property
    def body(self):
        return self.lines[1:-1]

    @cached_property
    def der(self):
        return self.encoded(Encoding.DER, PrivateFormat.TraditionalOpenSSL)

    def tool(self, *command, data=None):
        """Return what a program prints that gets the PEM, or other data, on its standard input.

        Raises:
            NotInstalled: this machine does not have the program.
        """
        if not shutil.which(command[0]):
            raise NotInstalled(command[0])
        given = self.pem.encode() if data is None else data
        done = subprocess.run(command, input=given, capture_output=True, check=True)
        return done.stdout.decode(errors="replace")


def form(name):
    def add(function):
        FORMS[name] = function
        return function

    return add


def forms(**functions):
    FORMS.update({name.replace("_", " "): function for name, function in functions.items()})


def od(*options, der=True):
    return lambda key: key.tool("od", *options, data=key.der if der else None)


def jwk(key):
    def b64(number):
        return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).decode().rstrip("=")

    public, private = key.numbers.public_numbers, key.numbers
    return json.dumps({"kty": "RSA", "n": b64(public.n), "e": b64(public.e), "d": b64(private.d), "p": b64(private.p)})


def raised(key):
    try:
        int(key.pem)
    except ValueError:
        return highlight(traceback.format_exc(), PythonLexer(), TerminalFormatter())


def side_by_side(key):
    left, right = key.lines[: len(key.lines) // 2], key.lines[len(key.lines) // 2 :]
    return "\n".join(f"{one:<70}{two}" for one, two in zip(left, right, strict=False))


def strace(key, escape):
    return "".join(f'read(3, "{escape(line)}\\n"..., 4096) = 65\n' for line in key.lines)


def hexes(data):
    return "".join(f"\\x{byte:02x}" for byte in data)


def octals(data):
    return "".join(f"\\{byte:o}" for byte in data)


def in_groups(text, length, between=" "):
    return textwrap.fill(between.join(text[at : at + length] for at in range(0, len(text), length)), 72)


def in_csv(key):
    file = io.StringIO()
    csv.writer(file).writerows(enumerate(key.body))
    return file.getvalue()


def p12(key):
    made = pkcs12.serialize_key_and_certificates(b"x", key.private, None, None, BestAvailableEncryption(b"passphrase"))
    return base64.encodebytes(made).decode()


# -- PEM, with what comes between and beside its lines -----------------------------------------------------------------

forms(
    PEM=lambda key: key.pem,
    PEM__CRLF=lambda key: key.pem.replace("\n", "\r\n"),
    PEM_indented=lambda key: textwrap.indent(key.pem, "        "),
    PEM_with_line_numbers=lambda key: "\n".join(f"{number:6}\t{line}" for number, line in enumerate(key.lines, 1)),
    PEM_by_grep_n=lambda key: "\n".join(f"key.pem:{number}:{line}" for number, line in enumerate(key.body, 2)),
    PEM_with_a_gutter=lambda key: "\n".join(f"{number} | {line} |" for number, line in enumerate(key.body)),
    PEM_by_cat_A=lambda key: key.pem.replace("\n", "$\n"),
    PEM_by_sed_l=lambda key: key.tool("sed", "-n", "l"),
    PEM_as_a_quotation=lambda key: textwrap.indent(key.pem, "> "),
    PEM_as_a_diff=lambda key: "\n".join(difflib.unified_diff([], key.lines, "a", "b", lineterm="")),
    PEM_removed_in_a_diff=lambda key: "\n".join(difflib.ndiff(key.lines, [])),
    PEM_side_by_side=side_by_side,
    PEM_backwards_by_line=lambda key: "\n".join(reversed(key.lines)),
    PEM_one_character_a_line=lambda key: "\n".join(key.pem),
    PEM_spaced_out=lambda key: " ".join(key.pem),
    PEM_wrapped_at_20=lambda key: textwrap.fill("".join(key.body), 20),
    PEM_wrapped_at_20_with_numbers=lambda key: "\n".join(
        f"{number:03} {line}" for number, line in enumerate(textwrap.wrap("".join(key.body), 20))
    ),
    PEM_coloured=lambda key: "".join(f"\x1b[1;3{number % 8}m{line}\x1b[0m\n" for number, line in enumerate(key.lines)),
    PEM_coloured_every_seven=lambda key: "\x1b[0m".join(textwrap.wrap("".join(key.body), 7)),
    PEM_in_a_traceback=raised,
    PEM_highlighted_in_HTML=lambda key: highlight(key.pem, PythonLexer(), HtmlFormatter(linenos="table")),
    PEM_in_HTML=lambda key: f"<pre>{html.escape(key.pem)}</pre>",
    PEM_with_br=lambda key: "<br/>".join(key.lines),
    DER_in_the_attribute_of_a_tag=lambda key: f'<input value="{base64.b64encode(key.der[700:750]).decode()}">',
    PEM_in_an_HTML_table=lambda key: "".join(
        f"<tr><td class=a1>{number}</td><td>{line}</td></tr>" for number, line in enumerate(key.body)
    ),
    PEM_in_a_Markdown_table=lambda key: "\n".join(f"| {number} | `{line}` |" for number, line in enumerate(key.body)),
    PEM_as_Python=lambda key: repr(key.pem),
    PEM_as_Python_bytes=lambda key: repr(key.pem.encode()),
    PEM_lines_as_Python=lambda key: pprint.pformat([line.encode() for line in key.lines]),
    PEM_as_a_C_string=lambda key: "\n".join(f'"{line}\\r\\n"' for line in key.lines),
    PEM_as_JSON=lambda key: json.dumps({"key": key.pem}),
    PEM_as_JSON_in_JSON=lambda key: json.dumps({"body": json.dumps({"key": key.pem})}),
    PEM_as_JSON_of_PHP=lambda key: json.dumps(key.pem).replace("/", "\\/"),
    PEM_as_YAML=lambda key: yaml.safe_dump({"data": {"tls.key": key.pem}}),
    PEM_as_YAML_folded=lambda key: yaml.safe_dump({"key": key.pem}, default_style='"', width=40),
    PEM_as_a_Secret=lambda key: yaml.safe_dump({"data": {"tls.key": base64.b64encode(key.pem.encode()).decode()}}),
    PEM_in_CSV=in_csv,
    PEM_in_a_URL=lambda key: urllib.parse.quote(key.pem, safe=""),
    PEM_in_a_form=lambda key: urllib.parse.urlencode({"key": key.pem}),
    PEM_quoted_printable=lambda key: quopri.encodestring(key.pem.encode()).decode(),
    PEM_all_quoted_printable=lambda key: "".join(f"={byte:02X}" for byte in key.pem.encode()),
    PEM_as_HTML_entities=lambda key: "".join(f"&#{byte};" for byte in key.pem.encode()),
    PEM_as_hex_entities=lambda key: "".join(f"&#x{byte:x};" for byte in key.pem.encode()),
    PEM_as_unicode_escapes=lambda key: "".join(f"\\u{byte:04x}" for byte in key.pem.encode()),
    PEM_as_UTF_16=lambda key: key.pem.encode("utf-16").decode("latin-1"),
    PEM_as_codes=lambda key: str(list(key.pem.encode())),
    PEM_as_a_list_of_characters=lambda key: str(list(key.pem)),
    PEM_in_hex=lambda key: key.pem.encode().hex(),
    PEM_by_od_c=od("-c", der=False),
    PEM_by_xxd=lambda key: key.tool("xxd"),
    PEM_by_hexdump_C=lambda key: key.tool("hexdump", "-C"),
    PEM_by_strace=lambda key: strace(key, str),
    PEM_by_strace_xx=lambda key: strace(key, lambda line: hexes(line.encode())),
    PEM_cut_by_strace=lambda key: "".join(f'write(1, "{line[:32]}"..., 65) = 65\n' for line in key.body),
)

# -- binary forms ------------------------------------------------------------------------------------------------------

forms(
    DER_in_base64=lambda key: base64.b64encode(key.der).decode(),
    DER_in_base64_at_76=lambda key: base64.encodebytes(key.der).decode(),
    DER_in_base64url=lambda key: base64.urlsafe_b64encode(key.der).decode(),
    DER_in_base64_with_numbers=lambda key: "\n".join(
        f"{number}: {line}" for number, line in enumerate(base64.encodebytes(key.der).decode().split())
    ),
    DER_in_a_data_URL=lambda key: f'<a href="data:;base64,{urllib.parse.quote(base64.b64encode(key.der))}">x</a>',
    DER_in_base64_twice=lambda key: base64.b64encode(base64.b64encode(key.der)).decode(),
    DER_in_base32=lambda key: base64.b32encode(key.der).decode(),
    DER_in_base32_wrapped=lambda key: textwrap.fill(base64.b32encode(key.der).decode(), 76),
    DER_in_base32_in_lower_case=lambda key: base64.b32encode(key.der).decode().lower(),
    DER_in_base32_with_numbers=lambda key: "\n".join(
        f"{number}: {line}" for number, line in enumerate(textwrap.wrap(base64.b32encode(key.der).decode(), 64))
    ),
    DER_in_base32_in_groups_of_4=lambda key: in_groups(base64.b32encode(key.der).decode(), 4),
    DER_in_base32_in_groups_of_8=lambda key: in_groups(base64.b32encode(key.der).decode(), 8, "-"),
    DER_in_base32_in_groups_in_lower_case=lambda key: in_groups(base64.b32encode(key.der).decode().lower(), 6),
    DER_in_hex=lambda key: key.der.hex(),
    DER_in_HEX_with_colons=lambda key: key.der.hex(":").upper(),
    DER_in_hex_in_words=lambda key: textwrap.fill(key.der.hex(" ", 4), 72),
    DER_by_xxd=lambda key: key.tool("xxd", data=key.der),
    DER_by_xxd_four_bytes_a_line=lambda key: key.tool("xxd", "-c", "4", data=key.der),
    DER_gzipped_by_xxd=lambda key: key.tool("xxd", data=gzip.compress(key.der)),
    DER_gzipped_by_hexdump_C=lambda key: key.tool("hexdump", "-C", data=gzip.compress(key.der)),
    DER_by_xxd_p=lambda key: key.tool("xxd", "-p", data=key.der),
    DER_by_xxd_i=lambda key: key.tool("xxd", "-i", data=key.der),
    DER_by_xxd_b_in_hex_of_two=lambda key: key.tool("xxd", "-c", "12", "-g", "1", data=key.der),
    DER_by_xxd_e=lambda key: key.tool("xxd", "-e", data=key.der),
    DER_by_hexdump=lambda key: key.tool("hexdump", data=key.der),
    DER_by_hexdump_C=lambda key: key.tool("hexdump", "-C", data=key.der),
    DER_by_hexdump_of_the_ASCII_column=lambda key: key.tool(
        "hexdump", "-v", "-e", '16/1 "%02x "', "-e", '"  |" 16/1 "%_p" "|\n"', data=key.der
    ),
    DER_by_od=od(),
    DER_by_xxd_b=lambda key: key.tool("xxd", "-b", data=key.der),
    DER_as_bits_in_groups_of_4=lambda key: in_groups("".join(f"{byte:08b}" for byte in key.der), 4),
    DER_by_cat_v=lambda key: key.tool("cat", "-v", data=key.der),
    DER_by_od_to4=od("-to4"),
    DER_by_od_to8=od("-An", "-to8"),
    DER_by_od_x=od("-x"),
    DER_by_od_d=od("-d"),
    DER_by_od_tx8=od("-tx8"),
    DER_by_od_td4=od("-td4"),
    DER_by_od_tx1=od("-An", "-tx1"),
    DER_by_od_tx4=od("-tx4"),
    DER_by_od_td1=od("-An", "-td1"),
    DER_by_od_tu1=od("-tu1"),
    DER_by_od_b=od("-b"),
    DER_by_od_c=od("-c"),
    DER_by_od_one_byte_a_line=od("-An", "-v", "-tx1", "-w1"),
    DER_by_openssl_text=lambda key: key.tool("openssl", "rsa", "-text", "-noout"),
    DER_by_openssl_pkey_text=lambda key: key.tool("openssl", "pkey", "-text", "-noout"),
    DER_by_asn1parse=lambda key: key.tool("openssl", "asn1parse"),
    DER_by_asn1parse_dump=lambda key: key.tool("openssl", "asn1parse", "-dump", "-inform", "DER", data=key.der),
    DER_by_strace=lambda key: f'read(3, "{octals(key.der)}", 4096) = {len(key.der)}',
    DER_by_strace_x=lambda key: f'read(3, "{hexes(key.der)}"..., 4096) = {len(key.der)}',
    DER_as_Python_bytes=lambda key: repr(key.der),
    DER_as_a_Python_bytearray=lambda key: pprint.pformat(bytearray(key.der)),
    DER_as_JSON=lambda key: json.dumps(key.der.decode("latin-1")),
    DER_as_Latin_1=lambda key: key.der.decode("latin-1"),
    DER_as_damaged_UTF_8=lambda key: key.der.decode(errors="replace"),
    DER_as_a_list=lambda key: str(list(key.der)),
    DER_as_signed_bytes=lambda key: str(array.array("b", key.der)),
    DER_as_a_C_array=lambda key: textwrap.fill(", ".join(f"0x{byte:02X}" for byte in key.der), 72),
    DER_as_a_Java_array=lambda key: ", ".join(f"(byte)0x{byte:02x}" for byte in key.der),
    DER_as_a_JSON_array=lambda key: json.dumps(list(key.der), indent=2),
    DER_by_a_node_Buffer=lambda key: f"<Buffer {key.der.hex(' ')}>",
    DER_by_a_node_Buffer_of_50_bytes=lambda key: f"<Buffer {key.der[700:750].hex(' ')} ... 1142 more bytes>",
    DER_as_a_Go_slice=lambda key: "[]byte{" + ", ".join(f"{byte:#x}" for byte in key.der) + "}",
    DER_as_bits=lambda key: str([bin(byte) for byte in key.der]),
    DER_as_words=lambda key: str(array.array("I", key.der[: len(key.der) // 4 * 4])),
    DER_by_gdb=lambda key: "\n".join(
        f"0x7ffd{at:04x}:\t" + "\t".join(f"{byte:#04x}" for byte in key.der[at : at + 8])
        for at in range(0, len(key.der), 8)
    ),
    DER_percent_encoded=lambda key: urllib.parse.quote(key.der),
    DER_gzipped_in_base64=lambda key: base64.b64encode(gzip.compress(key.der)).decode(),
    PEM_gzipped_in_base64=lambda key: base64.b64encode(gzip.compress(key.pem.encode())).decode(),
    PEM_deflated_in_base64url=lambda key: base64.urlsafe_b64encode(zlib.compress(key.pem.encode())).decode(),
    PEM_gzipped_as_Python_bytes=lambda key: repr(gzip.compress(key.pem.encode())),
    PEM_gzipped_in_hex=lambda key: gzip.compress(key.pem.encode()).hex(),
    PEM_gzipped_as_a_list=lambda key: str(list(gzip.compress(key.pem.encode()))),
)

# -- other formats, numbers and parts ----------------------------------------------------------------------------------

forms(
    PKCS__1=lambda key: key.encoded(Encoding.PEM, PrivateFormat.TraditionalOpenSSL).decode(),
    OpenSSH=lambda key: key.encoded(Encoding.PEM, PrivateFormat.OpenSSH).decode(),
    encrypted_PKCS__8=lambda key: key.encoded(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    ).decode(),
    PKCS__12_in_base64=p12,
    JWK=jwk,
    numbers=lambda key: str(key.numbers.d) + "\n" + str(key.numbers.p),
    numbers_in_hex=lambda key: f"{key.numbers.p:#x} {key.numbers.q:#X}",
    numbers_in_bits=lambda key: f"{key.numbers.d:b} {key.numbers.p:#b}",
    numbers_with_thousands=lambda key: f"{key.numbers.d:,}",
    numbers_wrapped=lambda key: textwrap.fill(str(key.numbers.q), 40),
    number_little_endian=lambda key: key.numbers.p.to_bytes(128, "little").hex(),
    numbers_as_limbs=lambda key: str([f"{key.numbers.d >> shift & 2**64 - 1:#018x}" for shift in range(0, 2048, 64)]),
    one_line_of_the_PEM=lambda key: key.body[20],
    half_of_the_PEM=lambda key: "\n".join(key.body[12:18]),
    thirty_two_bytes_in_hex=lambda key: key.der[700:732].hex(),
    thirty_two_bytes_in_base64=lambda key: base64.b64encode(key.der[700:732]).decode(),
    thirty_two_bytes_as_a_list=lambda key: str(list(key.der[700:732])),
)
