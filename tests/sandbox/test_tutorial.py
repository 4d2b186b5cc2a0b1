"""The tutorial "Maintain a Secure Connection with UCL", done literally with `openssl` and `curl`.

First as it is published, where each trap fails the way it was recorded; then corrected, to a renewed certificate.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from contract_replay import Landscape
from quick_keys import QUICK_BITS

from ucl_sandbox import RunningSandbox, Sandbox

JSON_HEADER = ("-H", "Content-Type: application/json")
QUERY = (
    "query { result: configuration { certificateSigningRequestInfo { subject keyAlgorithm } "
    "managementPlaneInfo { directorURL } } }"
)
MUTATION = (
    'mutation { result: signCertificateSigningRequest(csr: "%s") { certificateChain caCertificate clientCertificate } }'
)


@dataclass
class Reader:
    """Somebody with a shell, in a folder with `ucl-app.key` and `ucl-app.crt`."""

    ucl: RunningSandbox
    folder: Path
    client_id: str

    def run(self, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.folder, input=given, capture_output=True, text=True, check=False)

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        return self.run("sh", "-c", line)

    def curl(self, data: str, *options: str, identity: str = "ucl-app", ca: str | None = None) -> tuple[int, str]:
        """The status (0 for none) and the body of an answer at the certificate endpoint."""
        trust = ca or str(self.ucl.ca_file)
        files = ("--cert", f"{identity}.crt", "--key", f"{identity}.key", "--cacert", trust)
        url = self.ucl.certificate_secured_connector_url
        done = self.run("curl", "-sS", "-w", "\n%{http_code}", *files, *options, "--data-binary", "@-", url, given=data)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    def subject(self) -> str:
        """Step 1."""
        status, body = self.curl(json.dumps({"query": QUERY}), *JSON_HEADER)
        assert status == 200
        return json.loads(body)["data"]["result"]["certificateSigningRequestInfo"]["subject"]

    def make_csr(self) -> None:
        """Step 2, corrected: `-subj` takes slashes."""
        slashed = "/" + self.subject().replace(",", "/")
        assert self.run("openssl", "genrsa", "-out", "new.key", "4096").returncode == 0
        request = ("openssl", "req", "-new", "-sha256", "-key", "new.key", "-out", "new.csr", "-subj", slashed)
        assert self.run(*request).returncode == 0


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with Sandbox() as ucl:
        client = Landscape(ucl, ucl.one_time_token).establish(tmp_path)
        key, certificates = client.identity.read_text("ascii").split("-----BEGIN CERTIFICATE-----", 1)
        (tmp_path / "ucl-app.key").write_text(key, "ascii")
        (tmp_path / "ucl-app.crt").write_text("-----BEGIN CERTIFICATE-----" + certificates, "ascii")
        yield Reader(ucl, tmp_path, client.client_id)


def test_step_1(reader: Reader) -> None:
    assert reader.subject() == f"O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN={reader.client_id}"


def test_trap_a_query_over_several_lines_is_no_json(reader: Reader) -> None:
    status, body = reader.curl('{"query": "query {\n result: configuration { token { token } }\n}"}', *JSON_HEADER)
    assert status == 400
    assert "json request body could not be decoded" in body


def test_trap_curl_sends_a_form_unless_told(reader: Reader) -> None:
    assert reader.curl(json.dumps({"query": QUERY})) == (
        400,
        '{"errors":[{"message":"transport not supported"}],"data":null}',
    )


def test_trap_the_subject_is_not_what_openssl_takes(reader: Reader) -> None:
    assert reader.run("openssl", "genrsa", "-out", "new.key", str(QUICK_BITS)).returncode == 0
    request = ("openssl", "req", "-new", "-sha256", "-key", "new.key", "-out", "new.csr", "-subj")
    failed = reader.run(*request, reader.subject())
    assert failed.returncode != 0
    assert "/type0=value0/type1=value1" in failed.stderr
    assert reader.run(*request, "/" + reader.subject().replace(",", "/")).returncode == 0


def test_trap_base64_in_lines(reader: Reader) -> None:
    """Pasted into the JSON, it is no JSON; escaped for JSON, it is no GraphQL; made a line with blanks, no base64."""
    reader.make_csr()
    wrapped = reader.run("openssl", "base64", "-in", "new.csr").stdout.rstrip("\n")
    assert "\n" in wrapped
    escaped = (MUTATION % wrapped).replace('"', r"\"")
    assert reader.curl(f'{{"query": "{escaped}"}}', *JSON_HEADER)[0] == 400
    status, body = reader.curl(json.dumps({"query": MUTATION % wrapped}), *JSON_HEADER)
    assert (status, json.loads(body)["errors"][0]["extensions"]) == (422, {"code": "GRAPHQL_PARSE_FAILED"})
    status, body = reader.curl(json.dumps({"query": MUTATION % wrapped.replace("\n", " ")}), *JSON_HEADER)
    assert (status, json.loads(body)["data"]) == (200, None)
    assert "Error while parsing base64 content" in body
    assert reader.curl(json.dumps({"query": MUTATION % wrapped.replace("\n", "")}), *JSON_HEADER)[0] == 200


def test_trap_base64_reads_a_file(reader: Reader) -> None:
    failed = reader.shell("base64 -d LS0tLS1CRUdJTg==")
    assert failed.returncode != 0
    assert "LS0tLS1CRUdJTg==" in failed.stderr
    assert reader.shell("printf %s LS0tLS1CRUdJTg== | base64 -d").stdout == "-----BEGIN"


def test_trap_the_client_ca_does_not_verify_the_server(reader: Reader) -> None:
    status, _ = reader.curl(json.dumps({"query": QUERY}), *JSON_HEADER, ca="ucl-app.crt")
    assert status == 0
    assert reader.curl(json.dumps({"query": QUERY}), *JSON_HEADER)[0] == 200


def test_the_whole_of_it_corrected(reader: Reader) -> None:
    reader.make_csr()
    csr = reader.run("openssl", "base64", "-A", "-in", "new.csr").stdout
    status, body = reader.curl(json.dumps({"query": MUTATION % csr}), *JSON_HEADER)
    assert status == 200
    result = json.loads(body)["data"]["result"]
    for name, file in (("certificateChain", "new.crt"), ("caCertificate", "ca.pem"), ("clientCertificate", "leaf.pem")):
        decoded = reader.run("openssl", "base64", "-d", "-A", given=result[name])
        (reader.folder / file).write_text(decoded.stdout, "ascii")
    verified = reader.run("openssl", "verify", "-purpose", "sslclient", "-CAfile", "ca.pem", "leaf.pem")
    assert (verified.returncode, verified.stdout) == (0, "leaf.pem: OK\n")
    publics = [
        reader.run("openssl", *command).stdout
        for command in (("x509", "-in", "leaf.pem", "-noout", "-pubkey"), ("pkey", "-in", "new.key", "-pubout"))
    ]
    assert publics[0] == publics[1]
    for identity in ("new", "ucl-app"):
        assert reader.curl(json.dumps({"query": QUERY}), *JSON_HEADER, identity=identity)[0] == 200
    foreign = reader.run("openssl", "verify", "-CAfile", str(reader.ucl.ca_file), "leaf.pem")
    assert foreign.returncode != 0
