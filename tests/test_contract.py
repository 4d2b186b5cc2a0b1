"""Every recorded answer of the real Connector, and the sandbox's answer to the same request."""

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_replay import (
    CONFIGURATION,
    JSON_TYPE,
    SIGN,
    Answer,
    Established,
    Landscape,
    csr_pem,
    differences,
    ec_key,
    encoded,
    fields_of_subject,
    graphql,
    load,
    name_of,
    rsa_key,
    send,
    trusting,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ucl_helpers.sandbox import Sandbox

CASES = {case["name"]: case for case in load("cases.json")}
