"""The Director as clients in Go use it: every scalar field, names, pages and deletes as the real one has them.

The names of the fields, the limits and the texts are those of Compass's Director (its GraphQL schema, its validation of
an application's input and its normalisation of names).
"""

import json

import pytest
from contract_replay import CONFIGURATION, JSON_TYPE, Landscape, graphql, send

from ucl_sandbox import Sandbox
from ucl_sandbox.state import normalised

pytestmark = pytest.mark.kind("the sandbox for real clients: fields, names, pages, deletes")
SCALARS = (
    *("id", "name", "systemNumber", "localTenantID", "baseUrl", "providerName", "description", "integrationSystemID"),
    *("applicationTemplateID", "labels", "healthCheckURL", "applicationNamespace", "createdAt", "updatedAt"),
    *("deletedAt", "systemStatus", "error"),
)
KNOWN = {"id", "name", "labels", "createdAt"}  # the others are null for an application that was given a name alone
CREDENTIALS = """
    credential {
        ... on BasicCredentialData { username password }
        ... on CertificateOAuthCredentialData { clientId certificate url }
        ... on OAuthCredentialData { clientId clientSecret url }
    }
    additionalHeaders additionalHeadersSerialized additionalQueryParams additionalQueryParamsSerialized
"""
AUTH = f"""
    {CREDENTIALS} accessStrategy certCommonName
    oneTimeToken {{ __typename token used expiresAt }}
    requestAuth {{ csrf {{ tokenEndpointURL {CREDENTIALS} }} }}
"""
SYSTEM_AUTH = f"id type tenantId referenceObjectId auth {{ {AUTH} }}"
APPLICATION = f"""
    {" ".join(SCALARS)} status {{ condition timestamp }} eventingConfiguration {{ defaultURL }}
    auths {{ {SYSTEM_AUTH} }}
"""


class User:
    """A user of the Director."""

    def __init__(self, ucl):
        self.ucl, self.landscape = ucl, Landscape(ucl, ucl.one_time_token)

    def ask(self, query, **variables):
        headers = {**JSON_TYPE, "Authorization": f"Bearer {self.ucl.director_token}", "Tenant": self.ucl.tenant}
        answer = send(self.ucl.director_url, self.landscape.context, graphql(query, **variables), headers)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def register(self, name):
        """What registering a name comes to: its label, or the error."""
        query = "mutation ($name: String!) { result: registerApplication(in: {name: $name}) { id labels } }"
        answer = self.ask(query, name=name)
        return answer["errors"][0]["message"] if "errors" in answer else answer["data"]["result"]["labels"]["name"]


@pytest.fixture
def user():
    with Sandbox(ca_layout="root") as ucl:
        yield User(ucl)


# -- every field -------------------------------------------------------------------------------------------------------


def test_registering_answers_every_field_and_null_where_there_is_nothing(user):
    """Compass's own tests in Go ask for all of them, written into the text without variables."""
    query = f'mutation {{ result: registerApplication(in: {{name: "app"}}) {{ {APPLICATION} }} }}'
    made = user.ask(query)["data"]["result"]
    assert {name for name in SCALARS if made[name] is not None} == KNOWN
    assert (made["auths"], made["eventingConfiguration"], made["status"]["condition"]) == ([], None, "INITIAL")
    found = user.ask(f"query ($id: ID!) {{ result: application(id: $id) {{ {APPLICATION} }} }}", id=made["id"])
    assert found["data"]["result"] == made
    page = user.ask(f"{{ result: applications {{ data {{ {APPLICATION} }} totalCount }} }}")["data"]["result"]
    assert made in page["data"]
    gone = user.ask(f'mutation {{ result: unregisterApplication(id: "{made["id"]}") {{ {APPLICATION} }} }}')
    assert gone["data"]["result"] == made


def test_a_client_of_an_application_answers_every_field(user):
    user.landscape.new_token()
    query = f"query ($id: ID!) {{ result: application(id: $id) {{ auths {{ {SYSTEM_AUTH} }} }} }}"
    (auth,) = user.ask(query, id=user.ucl.application_id)["data"]["result"]["auths"]
    assert (auth["type"], auth["referenceObjectId"]) == ("APPLICATION", user.ucl.application_id)
    assert auth["tenantId"] not in {None, user.ucl.tenant}, "the Director's own id of the tenant, not the external one"
    assert {name for name, value in auth["auth"].items() if value is not None} == {"oneTimeToken", "certCommonName"}


@pytest.mark.parametrize("field", ["webhooks { id }", "bundles { totalCount }", "bundle(id: 1) { id }", "anything"])
def test_what_is_no_scalar_is_not_there(user, field):
    """They belong to other parts of the Director, which the sandbox does not have."""
    query = f"query ($id: ID!) {{ result: application(id: $id) {{ {field} }} }}"
    headers = {**JSON_TYPE, "Authorization": f"Bearer {user.ucl.director_token}", "Tenant": user.ucl.tenant}
    body = graphql(query, id=user.ucl.application_id)
    assert send(user.ucl.director_url, user.landscape.context, body, headers).status == 422


# -- names -------------------------------------------------------------------------------------------------------------

TOO_LONG = "Invalid data ApplicationRegisterInput [name=the length must be between 1 and 100]"
BLANK = "Invalid data ApplicationRegisterInput [name=cannot be blank]"
TAKEN = "Object name is not unique [object=application]"


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("", BLANK),
        ("a" * 100, "mp-" + "a" * 100),
        ("a" * 101, TOO_LONG),
        ("ä" * 100, "mp"),
        ("ä" * 101, TOO_LONG),
        (" ", "mp"),
        ("Shop (EU) / 1", "mp-shop-eu-1"),
        ("mp-shop", "mp-shop"),
        ("mp-Shop", "mp-mp-shop"),
    ],
)
def test_a_name_has_a_hundred_characters_at_most(user, name, outcome):
    assert user.register(name) == outcome


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("shop", "shop"),
        ("shop", "SHOP"),
        ("my shop", "my-shop"),
        ("my shop", "my.shop"),
        ("my_shop", "my -- shop"),
        ("shop", "shop!"),
        ("shop", "mp-shop"),
        ("shop", "-shop"),
        ("ä", "ö"),
    ],
)
def test_names_that_are_the_same_when_normalised_collide(user, first, second):
    assert user.register(first) == normalised(first)
    assert user.register(second) == TAKEN
    assert user.register("another") == "mp-another"


@pytest.mark.parametrize(("first", "second"), [("shop", "shops"), ("shop", "s-hop"), ("mp-shop", "mp-Shop")])
def test_names_that_only_look_alike_do_not(user, first, second):
    assert {user.register(first), user.register(second)} == {normalised(first), normalised(second)}
    assert normalised(first) != normalised(second)


# -- pages -------------------------------------------------------------------------------------------------------------

PAGE_SIZE = "Invalid data [reason=page size must be between 1 and 200]"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("", None),
        ("(first: 1)", None),
        ("(first: 200)", None),
        ("(first: 0)", PAGE_SIZE),
        ("(first: -1)", PAGE_SIZE),
        ("(first: 201)", PAGE_SIZE),
        ("(first: null)", "Invalid data [reason=missing required parameter 'first']"),
    ],
)
def test_a_page_has_from_1_to_200_applications(user, arguments, error):
    answer = user.ask(f"{{ result: applications{arguments} {{ totalCount }} }}")
    if error is None:
        assert answer == {"data": {"result": {"totalCount": 1}}}
    else:
        assert answer["errors"][0]["message"] == error
        assert answer["errors"][0]["extensions"] == {"error": "InvalidData", "error_code": 22}


# -- deletes -----------------------------------------------------------------------------------------------------------


def test_a_client_is_deleted_by_its_id_as_an_object_of_the_interface(user, tmp_path):
    client = user.landscape.establish(tmp_path)
    other = Landscape(user.ucl, user.ucl.one_time_token).establish(tmp_path)
    query = f"""mutation {{ result: deleteSystemAuthForApplication(authID: "{client.client_id}") {{
        __typename {SYSTEM_AUTH} ... on AppSystemAuth {{ id }} ... on SystemAuth {{ id }}
    }} }}"""
    deleted = user.ask(query)["data"]["result"]
    assert (deleted["__typename"], deleted["id"]) == ("AppSystemAuth", client.client_id)
    assert user.ask(query)["errors"][0]["message"] == "Object not found [object=systemAuth]"
    configure = graphql(CONFIGURATION)
    assert (client.call(configure).status, other.call(configure).status) == (400, 200)


@pytest.mark.parametrize(
    ("auth_id", "message"),
    [
        ("00000000-0000-4000-8000-000000000000", "Object not found [object=systemAuth]"),
        ("no uuid", "Internal Server Error [errorID="),
    ],
)
def test_a_client_that_is_not_there_is_not_deleted(user, auth_id, message):
    query = "mutation ($id: ID!) { result: deleteSystemAuthForApplication(authID: $id) { id } }"
    assert user.ask(query, id=auth_id)["errors"][0]["message"].startswith(message)


def test_a_client_of_another_application_is_deleted_by_the_user_of_the_tenant(user):
    """The id alone names it: the application is not asked for."""
    register = 'mutation { result: registerApplication(in: {name: "other"}) { id } }'
    application = user.ask(register)["data"]["result"]["id"]
    token = "mutation ($id: ID!) { result: requestOneTimeTokenForApplication(id: $id) { token } }"
    user.ask(token, id=application)
    auths = "query ($id: ID!) { result: application(id: $id) { auths { id } } }"
    ((auth),) = user.ask(auths, id=application)["data"]["result"]["auths"]
    delete = "mutation ($id: ID!) { result: deleteSystemAuthForApplication(authID: $id) { referenceObjectId } }"
    assert user.ask(delete, id=auth["id"])["data"]["result"] == {"referenceObjectId": application}
    assert user.ask(auths, id=application)["data"]["result"]["auths"] == []
