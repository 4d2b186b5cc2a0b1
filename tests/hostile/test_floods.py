"""GraphQL that is too wide, too deep, circular or explosive gets an error, while others are served."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from contract_replay import graphql

pytest_plugins = ["flood_fixtures"]
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts what /proc shows")


def many(count, text):
    return "{" + " ".join(text.replace("#", str(one)) for one in range(count)) + "}"


def nested(count, begin, end, heart=""):
    return begin * count + heart + end * count


def fragments(count, body, on="Query", start="{...A0}"):
    """Fragments of which each spreads the next."""
    links = " ".join(f"fragment A{one} on {on}{{{body.replace('#', f'...A{one + 1}')}}}" for one in range(count))
    return f"{start} {links} fragment A{count} on {on}{{__typename}}"


TOO_WIDE = {
    "aliases": many(5000, "a#: configuration { token { token } }"),
    "the same field": many(5000, "configuration { token { token } }"),
    "aliases of a mutation": "mutation" + many(2000, 'a#: signCertificateSigningRequest(csr: "x") { caCertificate }'),
    "operations": many(5000, "query Q# { __typename }")[1:-1],
    "variables": "query(" + many(5000, "$a#: Int")[1:-1] + ") { __typename }",
    "directives": "{ __typename " + "@skip(if: false) " * 5000 + "}",
    "comments": "#\n" * 100_000 + "{ __typename }",
    "a chain of fragments": fragments(3000, "#"),
}
TOO_DEEP = {
    "fields": "{" + nested(300, "a{", "}", "a") + "}",
    "inline fragments": nested(300, "{...", "}", "{__typename}"),
    "lists": "{a(b:" + nested(450, "[", "]") + ")}",
    "objects": "{a(b:" + nested(240, "{c:", "}", "1") + ")}",
}
CYCLES = {
    "a fragment of itself": "{...A} fragment A on Query{...A}",
    "two of each other": "{...A} fragment A on Query{...B} fragment B on Query{...A}",
    "a ring": fragments(60, "#").replace("A60 on Query{__typename}", "A60 on Query{...A0}"),
}


def bomb():
    """Ten aliases of each list in each other: the request is short, its answer would have a million fields."""
    ten = " ".join(f"a{one}: fields {{ type {{ ...F# }} }}" for one in range(10))
    first, second = (ten.replace("#", name) for name in "12")
    return (
        f"{{ __schema {{ types {{ {first} }} }} }} fragment F1 on __Type {{ {second} }}"
        f" fragment F2 on __Type {{ {many(10, 'b#: fields { name type { name } }')[1:-1]} }}"
    )


def asked(client, document):
    """What comes of a document at the certificate endpoint: the status, and the codes of its errors."""
    answer = client.call(graphql(document))
    told = json.loads(answer.body)
    assert told["data"] is None
    return answer.status, {(one.get("extensions") or {}).get("code") for one in told["errors"]}


@pytest.mark.parametrize("document", [*TOO_WIDE.values(), *TOO_DEEP.values()], ids=[*TOO_WIDE, *TOO_DEEP])
def test_a_document_too_wide_or_too_deep_is_no_document(client, bounded, document, proof):
    assert asked(client, document) == (422, {"GRAPHQL_PARSE_FAILED"})
    proof("door", "GraphQL floods refused", 1)


@pytest.mark.parametrize("document", CYCLES.values(), ids=CYCLES)
def test_fragments_that_run_in_circles_are_not_valid(client, bounded, document, proof):
    assert asked(client, document) == (422, {"GRAPHQL_VALIDATION_FAILED"})
    proof("door", "GraphQL floods refused", 1)


def test_an_answer_of_too_many_fields_is_none(client, bounded, proof):
    assert asked(client, bomb()) == (200, {"COMPLEXITY_LIMIT_EXCEEDED"})
    proof("door", "GraphQL floods refused", 1)


def test_what_is_just_within_the_bounds_is_answered(client):
    wide, deep = many(300, "a#: __typename"), nested(30, "{...", "}", "{__typename}")
    narrow = f"{{ __schema {{ types {{ {many(9, 'a#: fields { name }')[1:-1]} }} }} }}"
    for document in (wide, deep, fragments(20, "# #"), narrow):
        answer = client.call(graphql(document))
        assert (answer.status, "errors" in json.loads(answer.body)) == (200, False)


def test_many_side_by_side(client, bounded, others_served, whole, proof):
    floods = [*TOO_WIDE.values(), *TOO_DEEP.values(), *CYCLES.values(), bomb()] * (50 if whole else 1)
    with others_served(), ThreadPoolExecutor(8) as crowd:
        found = list(crowd.map(lambda document: asked(client, document)[1], floods))
    assert None not in set().union(*found)
    proof("door", "GraphQL floods refused", len(found))
