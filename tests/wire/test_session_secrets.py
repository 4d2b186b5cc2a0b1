"""No key, token or bearer stands where people or programs may look: results, errors, journal, what is pending."""

import pickle
from functools import cache

import pytest
import tblib.pickling_support
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from meddler import answers, changes, lost_on_the_way_back, refused, signs
from quick_keys import QUICK_BITS
from steps import STEPS, events, pending_of

from ucl_helpers import Establishment, Renewal, establish, renew, revoke, rollback, status_of, valid_identities
from ucl_helpers.errors import ChecksFailed, UCLError
from ucl_helpers.procedures.establishment import Enrolment

pytest_plugins = ["procedure_fixtures"]
WITH_SECRETS = {"key.pem", "identity.pem", "token"}


@pytest.fixture
def new(home):
    connection = home.new("new")
    connection.write_settings({"key_length": QUICK_BITS})
    return connection


def texts_of(shown):
    """Everything an object says of itself."""
    yield from (str(shown), repr(shown))
    if hasattr(shown, "_repr_mimebundle_"):
        yield repr(shown._repr_mimebundle_())
    if isinstance(shown, UCLError):
        tblib.pickling_support.install(shown)  # as Dask does: an error is pickled with all that it arose from
        yield from (repr(shown.data), repr(pickle.dumps(shown)), repr(vars(shown)), repr(shown.__cause__))


def texts_on_disk(home):
    """What lies in files that may be looked at."""
    for path in home.path.rglob("*"):
        if path.is_file() and path.name not in WITH_SECRETS:
            yield path.read_text(errors="replace")


def secrets_on_disk(home):
    for path in home.path.rglob("*"):
        if path.name in WITH_SECRETS:
            yield from secrets_in(path.read_bytes())


@cache
def secrets_in(content):
    """A token; or of a key a line of its PEM, and a prime in the ways a number may be written."""
    if not content.startswith(b"-----BEGIN"):
        return [content.decode()]
    prime = load_pem_private_key(content, None).private_numbers().p
    return [content.decode().splitlines()[5], str(prime), f"{prime:x}"]


class Watch:
    """Collects what is said and what must not be said."""

    def __init__(self, home, *secrets):
        self.home, self.secrets, self.said = home, set(secrets), []

    def __call__(self, act):
        try:
            shown = act()
        except UCLError as error:
            shown = error
        self.said += [*texts_of(shown), *texts_on_disk(self.home)]
        self.secrets |= set(secrets_on_disk(self.home))
        return shown

    def leaks(self):
        """What was said with a secret in it, without that."""
        return [text.replace(one, "(secret)")[:1000] for one in self.secrets for text in self.said if one in text]


@pytest.fixture
def watch(home, between, token, director):
    watch = Watch(home, token.token, director.bearer)
    yield watch
    watch.secrets |= {call.token for call in between.calls if call.token}
    assert len(watch.secrets) > 5
    assert watch.leaks() == []


def through_all_steps(watch, begin):
    procedure = watch(begin)
    for name in STEPS:
        watch(getattr(procedure, name))
        watch(lambda: procedure.exchange)
        watch(lambda: status_of(procedure.connection))
    watch(procedure.outcome)


def test_in_a_whole_life(watch, new, ucl, token, director):
    watch(lambda: Enrolment(new, token))
    watch(lambda: Enrolment(new, director))
    through_all_steps(watch, lambda: Establishment.begin(new, token, ca_file=ucl.ca_file))
    through_all_steps(watch, lambda: Renewal.begin(new))
    watch(lambda: valid_identities(new))
    watch(lambda: rollback(new))
    watch(lambda: revoke(new))
    watch(lambda: new.current)
    watch(lambda: new.current.credentials)
    assert {"established", "renewed", "rolled-back", "revoked"} <= set(events(new))


@pytest.mark.parametrize("operation", ["token", "configuration", "sign"])
@pytest.mark.parametrize("trouble", ["lost", "refused", "empty", "echo"])
def test_when_establishing_goes_wrong(watch, new, ucl, between, *, director, operation, trouble):
    def echo(forward, call):
        """Some servers repeat in their error what they were sent."""
        told = f"{director.bearer if operation == 'token' else call.token} {call.body}"
        return answers(200, errors=[{"message": told}])(forward, call)

    meets = {"lost": lost_on_the_way_back, "refused": refused, "empty": answers(200), "echo": echo}
    between.on(operation, meets[trouble])
    told = watch(lambda: establish(new, director, ca_file=ucl.ca_file))
    watch(lambda: establish(new, director, ca_file=ucl.ca_file))
    watch(lambda: renew(new))
    assert isinstance(told, UCLError) or operation != "token"


@pytest.mark.parametrize(
    "trouble", [signs(days=(-9, -8)), changes(certificateChain="?"), lost_on_the_way_back, answers(200, result={})]
)
def test_when_renewing_goes_wrong(watch, secure, between, trouble):
    between.on("sign", *[trouble] * 3)
    for _ in range(3):
        assert isinstance(watch(lambda: renew(secure)), UCLError)
    watch(lambda: renew(secure))


def test_a_token_that_came_with_a_configuration_lies_in_its_own_file_only(home, new, ucl, token):
    Establishment.begin(new, token, ca_file=ucl.ca_file).configuration()
    kept = pending_of(new).token()
    assert kept in set(secrets_on_disk(home))
    assert not any(kept in text for text in texts_on_disk(home))


@pytest.mark.plants_secrets
def test_the_watch_would_see_it(home, secure):
    """One leak of each kind is found."""
    key = (secure.current.path / "key.pem").read_text()
    for leak in (
        lambda: key,
        lambda: [(secure.path / "journal.jsonl").write_text(key)],
        lambda: (_ for _ in ()).throw(ChecksFailed("x", found=key)),
        lambda: raised_in_the_midst_of(ValueError(key)),
    ):
        watch = Watch(home)
        watch(leak)
        assert watch.leaks()


def raised_in_the_midst_of(trouble):
    try:
        raise trouble
    finally:
        raise ChecksFailed("x")
