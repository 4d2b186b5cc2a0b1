"""Make a folder in which the shell commands of notebooks 01 to 03 run as they are written."""

import shlex
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ucl_helpers.connection.files import make_output_folder, read_regular, storage, write
from ucl_helpers.connection.store import Home
from ucl_helpers.crypto import read_certificates
from ucl_helpers.errors import UCLError
from ucl_helpers.keys import Credentials, no_passphrase
from ucl_helpers.practice import director_at
from ucl_helpers.procedures.acceptance import ask_configuration
from ucl_helpers.procedures.establishment import establish

if TYPE_CHECKING:
    from ucl_sandbox import Access


def write_files(folder: Path, ucl: "Access") -> bool:
    """Write the files that the shell commands read, all with mode 0600.

    These are ``ucl-app.key`` and ``ucl-app.crt``, a new identity that the sandbox accepts; ``server-ca.pem``, which
    verifies its servers; ``variables.sh`` with its URLs; and ``director-headers.txt`` with the bearer token, which must
    not be among the arguments of a command. An identity in the folder is kept if the sandbox accepts it. Otherwise its
    files are renamed to ``ucl-app.key.old`` and ``ucl-app.crt.old``, and a new identity is written.

    Args:
        folder: made if it is missing.
        ucl: a running sandbox.

    Returns:
        Whether an identity was in the folder and was replaced.

    Raises:
        StorageFailed: another user could change the folder, or a file cannot be written.
    """
    make_output_folder(folder)
    write(folder / "server-ca.pem", ucl.ca_file.read_bytes())
    write(folder / "variables.sh", _variables(ucl).encode())
    headers = f"Authorization: Bearer {ucl.director_token}\nTenant: {ucl.tenant}\n"
    write(folder / "director-headers.txt", headers.encode())
    key, certificate = folder / "ucl-app.key", folder / "ucl-app.crt"
    is_there = certificate.exists()
    if is_there and _is_accepted(key, certificate, ucl):
        return False
    for path in (key, certificate):
        with storage("rename", path), suppress(FileNotFoundError):
            path.rename(path.with_name(f"{path.name}.old"))
    with TemporaryDirectory() as home:
        connection = Home(Path(home).resolve()).new("by-hand")
        establish(connection, director_at(ucl), ca_file=ucl.ca_file, key_length=2048)
        identity = connection.require_current().path
        write(key, (identity / "key.pem").read_bytes())
        write(certificate, (identity / "chain.pem").read_bytes())
    return is_there


def _is_accepted(key: Path, certificate: Path, ucl: "Access") -> bool:
    """Return whether the sandbox accepts the identity in two files. Files that cannot be used are not accepted."""
    with suppress(UCLError, OSError):
        (leaf, *_) = read_certificates(read_regular(certificate), name=certificate.name)
        credentials = Credentials(certificate, key, leaf, no_passphrase)
        ask_configuration(ucl.certificate_secured_connector_url, credentials, ucl.ca_file)
        return True
    return False


def _variables(ucl: "Access") -> str:
    values = {
        "CONNECTOR_URL": ucl.connector_url,
        "CERTIFICATE_SECURED_CONNECTOR_URL": ucl.certificate_secured_connector_url,
        "DIRECTOR_URL": ucl.director_url,
        "APPLICATION_ID": ucl.application_id,
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
