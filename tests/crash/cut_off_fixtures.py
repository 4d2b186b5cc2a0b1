"""Fixtures of the tests that cut procedures off; a plugin: ``pytest_plugins = ["cut_off_fixtures"]``."""

from unittest.mock import patch

import pytest
from onlookers import Onlookers
from scenes import SCENES, Ground
from steps import Clock
from walking import sample, walk

from ucl_helpers.models import fingerprint
from ucl_sandbox import Sandbox
from ucl_sandbox.ca import ClientCa


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """The sandbox and the readers of all scenes."""
    clock, folder = Clock(), tmp_path_factory.mktemp("cut-off")
    with Sandbox(clock=clock) as ucl, Onlookers(ucl.certificate_secured_connector_url, ucl.ca_file) as readers:
        made = Ground(ucl, clock, folder, readers)
        sign = ClientCa.sign

        def noted(*args, **kwargs):
            certificate = sign(*args, **kwargs)
            with made.heard:
                made.signed.append(certificate)
                made.heard.notify_all()
            return certificate

        with patch.object(ClientCa, "sign", noted):
            yield made


@pytest.fixture(scope="session")
def scenes(ground):
    """Each procedure's scene, made when it is asked for."""
    made = {}

    def scene(name):
        if name not in made:
            made[name] = next(one for one in SCENES if one.name == name)(ground)
        return made[name]

    return scene


@pytest.fixture
def cut(scenes, ground, whole, proof):
    """``cut("renew", "SIGKILL", judge)``: strike it at every call that fits, or at some; tells all that was wrong."""

    def cut_off(procedure, how, judge, *, fits=lambda call: call.on != "reading", some=1):
        scene = scenes(procedure)
        calls = [one for one in scene.calls or scene.recorded() if fits(one)]
        if not whole:
            calls = some(calls) if callable(some) else sample(calls, some, f"{procedure} {how}")
        problems, hit, missed = walk(scene, how, calls, judge)
        issued = {row["fingerprint"] for row in ground.ucl._memory._rows("SELECT fingerprint FROM certificates")}
        unseen = issued - {fingerprint(one) for one in ground.signed}
        assert not unseen, "signed without being noted here: their keys were not looked for"
        assert not missed, f"never hit: {missed}"
        proof("crash", f"{procedure}: calls struck by {how}", len(hit))
        return problems + ground.readers.told(proof, "procedures were cut off")

    return cut_off
