"""Subjects, tokens, durations and settings for the property tests."""

import base64
import json
import string

from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import strategies as st

VALUES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=16)
"""Values with whatever a subject has to escape: commas, plus signs, quotes, blanks at the ends, control characters."""
FIELDS = st.one_of(
    st.builds(
        x509.NameAttribute, st.just(NameOID.COUNTRY_NAME), st.text(string.ascii_uppercase, min_size=2, max_size=2)
    ),
    st.builds(
        x509.NameAttribute,
        st.sampled_from(
            (
                *(NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.LOCALITY_NAME),
                *(NameOID.STATE_OR_PROVINCE_NAME, NameOID.COMMON_NAME, NameOID.STREET_ADDRESS, NameOID.USER_ID),
            )
        ),
        VALUES,
    ),
)
SUBJECTS = st.lists(
    st.sets(FIELDS, min_size=1, max_size=2).map(x509.RelativeDistinguishedName), min_size=1, max_size=8
).map(x509.Name)
"""Fields in any order, repeated ones, and several in one place (``O=a+OU=b``)."""

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "result", "errors", "message", "token", "x"]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=12,
)

TOKENS = st.binary(min_size=64, max_size=64).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
URLS = st.sampled_from(["https://ucl.example/connector/graphql", "https://localhost:8443/graphql"])


def in_three_forms(token, url):
    """A token as users are given it, each form with the endpoint that it names."""
    raw = json.dumps({"token": token, "connectorURL": url, "used": False})
    return {token: None, base64.b64encode(raw.encode()).decode(): url, f"{url}?token={token}": url}


UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
DURATIONS = st.dictionaries(st.sampled_from(list(UNITS)), st.integers(1, 9_999), min_size=1).map(
    lambda parts: {unit: parts[unit] for unit in UNITS if unit in parts}
)
"""Units and how many of each."""

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "key_length": st.integers(256, 1024).map(lambda number: number * 8),
        "renew_before": DURATIONS,
        "keep": st.integers(2, 1000),
        "sandbox": st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1),
    },
)


def written(duration):
    """``{"d": 1, "h": 12}`` as ``1d12h``."""
    return "".join(f"{number}{unit}" for unit, number in duration.items())
