"""What a notebook may be given: read from its parameters cell, converted to its types, and never a secret."""

import pytest

from ucl_helpers.errors import SecretFound, UsageError
from ucl_helpers.headless.parameters import accept, check_parameters, declared, refuse_secret

CELL = """\
connection: str = "practice"  # a name of your choice, e.g. a=b
key_length: int = 4096  # RSA bits
only_if_due: bool = False
server_ca: str | None = None
wait: float = 1.5
retries = 3
anything = None
hosts: list[str] = []
"""


def notebook(source=CELL, tags=("parameters",)):
    return {
        "cells": [{"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source.splitlines(keepends=True)}]
    }


def variables(**given):
    """A notebook's own, after papermill has injected what is given."""
    typed = CELL.replace("retries = 3\nanything = None\n", "retries: int = 3\nanything: object = None\n")
    injected = "# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in given.items())
    found = {"In": ["", "%matplotlib inline", typed, injected, "check_parameters(globals())"]}
    for cell in (typed, injected):
        exec(cell, found)  # noqa: S102 - as a kernel does
    return found


def take(**given):
    return accept(declared(notebook()), given)


@pytest.mark.kind("success: values that fit their types")
@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("connection", "yes", "yes"),
        ("connection", "1e5", "1e5"),
        ("connection", "None", "None"),
        ("connection", "", ""),
        ("connection", 123, "123"),
        ("connection", "0123", "0123"),
        ("server_ca", 7, "7"),
        ("key_length", "3072", 3072),
        ("key_length", 3072, 3072),
        ("only_if_due", "true", True),
        ("only_if_due", "False", False),
        ("only_if_due", True, True),
        ("server_ca", "None", None),
        ("server_ca", None, None),
        ("server_ca", "ca.pem", "ca.pem"),
        ("wait", "2", 2.0),
        ("wait", 2, 2),
        ("retries", "5", 5),
        ("anything", "5", "5"),
        ("hosts", ["a"], ["a"]),
    ],
)
def test_a_value_becomes_what_the_parameter_declares(name, given, expected):
    checked = variables(**{name: given})
    check_parameters(checked)
    for accepted in (take(**{name: given})[name], checked[name]):
        assert (accepted, type(accepted)) == (expected, type(expected))


@pytest.mark.kind("success: values that do not fit their types")
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("key_length", "long"),
        ("key_length", "4096.0"),
        ("key_length", 4096.0),
        ("key_length", True),
        ("only_if_due", "yes"),
        ("only_if_due", 1),
        ("only_if_due", 0),
        ("only_if_due", "no"),
        ("only_if_due", "0"),
        ("only_if_due", "off"),
        ("only_if_due", "False "),
        ("only_if_due", ""),
        ("only_if_due", None),
        ("only_if_due", []),
        ("connection", None),
        ("connection", True),
        ("connection", 100000.0),
        ("connection", ["prod"]),
        ("wait", "soon"),
        ("retries", "few"),
    ],
)
def test_a_value_of_another_type_is_refused(name, given):
    with pytest.raises(UsageError, match=rf"{name}: .* is not "):
        take(**{name: given})
    with pytest.raises(UsageError, match=rf"{name}: .* is not "):
        check_parameters(variables(**{name: given}))


def test_all_that_is_wrong_is_named_at_once_with_the_names_there_are():
    with pytest.raises(UsageError) as caught:
        take(key_lenght="4096", key_length="long", connection="fine")
    text = str(caught.value)
    assert "no parameter 'key_lenght'" in text
    assert "'long' is not int" in text
    assert "connection, key_length, only_if_due, server_ca" in text
    assert "fine" not in text


def test_without_a_parameters_cell_nothing_can_be_given_and_nothing_need_be():
    known = declared(notebook(tags=()))
    assert accept(known, {}) == {}
    with pytest.raises(UsageError, match="it has no cell tagged 'parameters'"):
        accept(known, {"connection": "practice"})


def test_a_parameters_cell_that_is_not_python_is_a_clear_error():
    with pytest.raises(UsageError, match="not Python"):
        declared(notebook("key_length: int = \n"))


KEY_LINE = "-----BEGIN {}PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connection", KEY_LINE.format("")),
        ("connection", f"x\n{KEY_LINE.format('ENCRYPTED ')}\n"),
        ("anything", [KEY_LINE.format("RSA ")]),
        ("connection", "https://ucl.example/graphql?token=s3cr3t-t0k3n"),
        ("one_time_token", "s3cr3t-t0k3n"),
        ("key_passphrase", "s3cr3t-t0k3n"),
    ],
)
def test_a_secret_is_refused_and_not_repeated(name, value):
    with pytest.raises(SecretFound) as caught:
        refuse_secret(name, value)
    assert "t0k3n" not in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


def test_in_a_headless_run_nobody_is_asked():
    with pytest.raises(UsageError, match="a headless run cannot ask you"):
        refuse_secret("token", "prompt")
    refuse_secret("connection", "prompt")  # a name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("one_time_token", "env:UCL_TOKEN"),
        ("one_time_token", "file:/run/secrets/token"),
        ("one_time_token", ""),
        ("one_time_token", None),
        ("certificate", "-----BEGIN CERTIFICATE-----"),
        ("connector_url", "https://ucl.example/graphql"),
    ],
)
def test_a_reference_to_a_secret_is_taken(name, value):
    refuse_secret(name, value)


def test_a_notebook_refuses_a_name_that_papermill_only_warns_of():
    with pytest.raises(UsageError, match="there is no parameter 'conection'"):
        check_parameters(variables(conection="prod"))
    check_parameters(variables(PAPERMILL_INPUT_PATH="in.ipynb"))


def test_variables_of_a_person_are_no_parameters():
    found = variables()
    found |= {"In": [*found["In"][:3], "other = 5", "# Parameters of mine\nmine = 1"], "other": 5, "mine": 1}
    check_parameters(found)
    check_parameters({"other": 5})


def test_a_parameters_cell_that_a_person_changed_counts_as_it_is_now():
    found = variables()
    found["In"].append("connection: str | None = None  # another type")
    found["connection"] = None
    check_parameters(found)
    assert found["connection"] is None
