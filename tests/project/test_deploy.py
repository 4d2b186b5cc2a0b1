"""Every file in ``deploy/``, checked by its scheduler's own tool; each check is seen to find a doctored file."""

import ast
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from test_readme import wrong

from ucl_helpers.connection.files import make_directory, require_private_folder
from ucl_helpers.errors import Busy, RetryLater, StorageFailed

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SERVICE, TIMER = ((DEPLOY / f"systemd/ucl-renew@.{kind}").read_text() for kind in ("service", "timer"))
CRON = (DEPLOY / "cron/ucl-renew").read_text()
RENEW, ESTABLISH = ((DEPLOY / f"kubernetes/ucl-{what}.yaml").read_text() for what in ("renew", "establish"))
DAG = (DEPLOY / "airflow/ucl_renew.py").read_text()
KILLED, TERMINATED = 137, 143
PASSING = {RetryLater.exit_code, Busy.exit_code}  # what ends by itself, so that it wakes nobody
OLDEST = (1, 29)  # of Kubernetes


def needs(name, package):
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed (Debian: {package})")


def told(*command, **more):
    """Exit code, and what a program printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    return done.returncode, (done.stdout + done.stderr).strip()


def changed(text, old, new):
    assert text.count(old) == 1, old
    return text.replace(old, new)


def test_every_file_is_looked_at_here():
    found = [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files = {str(path.relative_to(DEPLOY)) for path in found}
    looked_at = {f"systemd/ucl-renew@.{kind}" for kind in ("service", "timer")} | {"cron/ucl-renew"}
    looked_at |= {f"kubernetes/ucl-{what}.yaml" for what in ("renew", "establish")} | {"airflow/ucl_renew.py"}
    looked_at |= {"kubernetes/Dockerfile"}
    assert {name for name in files if not name.startswith("prometheus/")} == looked_at


def test_the_page_shows_the_dockerfile_as_it_is():
    page = (ROOT / "docs/how-to/kubernetes.md").read_text("utf-8")
    assert f"```dockerfile\n{(DEPLOY / 'kubernetes/Dockerfile').read_text()}```\n" in page


# -- the calls of ucl in them ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dag(tmp_path_factory):
    """The names in the DAG's file that need no Airflow, which is not installed here."""
    stays = [node for node in ast.parse(DAG).body if isinstance(node, ast.Import | ast.Assign | ast.FunctionDef)]
    path = tmp_path_factory.mktemp("dag") / "ucl_renew.py"
    path.write_text(ast.unparse(ast.Module([*ast.parse("from typing import Any").body, *stays], [])))
    return runpy.run_path(str(path))


def calls(dag):
    """What each file has `ucl` do, as its arguments, without the program."""
    yield shlex.split(re.search(r"^ExecStart=\S+/ucl (.*)$", SERVICE, re.MULTILINE)[1].replace("%i", "prod"))
    yield shlex.split(re.search(r"\(ucl (.*?) 2>&1\)", CRON)[1])
    yield dag["command"]("prod")[1:]
    for text in (RENEW, ESTABLISH):
        yield from (container["args"] for _, spec in pods(text) for container in spec["containers"])


def fault(call):
    """What is wrong with a call, or None."""
    option, home, *rest = call
    if option != "--home" or not home.startswith("/"):
        return "it names no home folder"
    if rest[0] == "run" and "--if-due" not in rest:
        return "it renews at every call"
    return wrong(rest)


def test_every_call_of_ucl_is_one(dag):
    found = list(calls(dag))
    assert [call[2] for call in found] == ["run", "run", "run", "run", "establish"]
    assert [fault(call) for call in found] == [None] * len(found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--home", "--house"),
        ("/var/lib/ucl", "ucl"),
        ("--if-due", "--json"),
        ("-p", "--parametre"),
        ("run", "rnu"),
    ],
)
def test_a_call_that_is_none_is_found(dag, old, new):
    call = next(calls(dag))
    assert fault([new if word == old else word for word in call])


# -- systemd -----------------------------------------------------------------------------------------------------------


def verified(folder, service=SERVICE, timer=TIMER):
    """What `systemd-analyze verify` says of the units, when the program that they start is one that is here."""
    (folder / "ucl-renew@.service").write_text(service.replace("/opt/ucl/bin/ucl ", f"{sys.executable} "))
    (folder / "ucl-renew@.timer").write_text(timer)
    code, said = told("systemd-analyze", "verify", *sorted(folder.glob("ucl-renew@.*")))
    return said.splitlines() or [f"exit code {code}"] * (code != 0)


@needs("systemd-analyze", "systemd")
def test_systemd_takes_its_units(tmp_path):
    assert verified(tmp_path) == []


@needs("systemd-analyze", "systemd")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ProtectHome", "ProtectHouse"),
        ("/opt/ucl/bin/ucl", "/opt/ucl/bin/none"),
        ("system-service", "sistem-service"),
        ("hourly", "hurly"),
    ],
)
def test_a_fault_of_a_unit_is_found(tmp_path, old, new):
    service, timer = (re.sub(rf"(?m)^([^#\n]*){old}\b", rf"\1{new}", text) for text in (SERVICE, TIMER))
    assert any(new in line for line in verified(tmp_path, service, timer))


@needs("systemd-analyze", "systemd")
@pytest.mark.parametrize("given_up", ["", "CapabilityBoundingSet=", "SystemCallFilter="])
def test_the_service_is_locked_in(tmp_path, given_up):
    kept = [line for line in SERVICE.splitlines() if not given_up or not line.startswith(given_up)]
    (tmp_path / "ucl-renew@.service").write_text("\n".join(kept))
    code, _ = told("systemd-analyze", "security", "--offline=true", "--threshold=20", tmp_path / "ucl-renew@.service")
    assert (code == 0) == (not given_up)


# -- cron --------------------------------------------------------------------------------------------------------------


def as_crontab(text):
    """A file of cron.d as a crontab of one user, which is what `crontab -n` reads: without the column of the user."""
    return re.sub(r"(?m)^((?:[0-9*/,-]+ ){5})ucl ", r"\1", text)


@needs("crontab", "cron")
@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [("", "", "successfully"), ("\n17 ", "\n77 ", "bad minute"), ("17 * * * * ", "17 * * * ", "bad day-of-week")],
)
def test_cron_takes_its_table_and_finds_a_fault(tmp_path, old, new, complaint):
    if not told("crontab", "-h")[1].count("-n"):
        pytest.skip("this crontab has no -n, which Debian's has")
    (tmp_path / "table").write_text(as_crontab(CRON).replace(old, new, 1))
    code, said = told("crontab", "-n", tmp_path / "table")
    assert ((code == 0), complaint in said) == (not old, True), said


def test_the_user_stands_in_its_column_and_nothing_is_cut_off():
    (line,) = [line for line in CRON.splitlines() if re.match(r"[0-9*]", line)]
    assert line.split()[5] == "ucl"
    assert "%" not in line  # to cron that is a line feed
    assert CRON.endswith("\n")  # else cron leaves out the last line


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 8, 10, 13, 143])
def test_cron_has_something_to_mail_only_if_somebody_is_needed(tmp_path, code):
    program = tmp_path / "ucl"
    program.write_text(f"#!/bin/sh\necho out\necho err >&2\nexit {code}\n")
    program.chmod(0o755)
    line = as_crontab(CRON).splitlines()[-1].split(maxsplit=5)[5]
    printed = told("/bin/sh", "-c", line, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert printed == (0, "" if code in {0, *PASSING} else "out\nerr")


# -- Kubernetes --------------------------------------------------------------------------------------------------------


def versions():
    """The versions of Kubernetes whose schemas are here, from :data:`OLDEST` on."""
    folders = (Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema").iterdir()
    found = {tuple(map(int, re.match(r"v(\d+)\.(\d+)", folder.name).groups())) for folder in folders}
    return [f"{major}.{minor}" for major, minor in sorted(found) if (major, minor) >= OLDEST]


def schema_faults(text, version):
    """What the API's schema has against a manifest, unknown fields too."""
    found = []
    for document in yaml.safe_load_all(text):
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(error.message)
    return found


def pods(text):
    """Each Job or CronJob of a manifest: the Job's specification, and its pod's."""
    for document in yaml.safe_load_all(text):
        if document["kind"] in {"Job", "CronJob"}:
            job = document["spec"]
            job = job["jobTemplate"]["spec"] if document["kind"] == "CronJob" else job
            yield job, job["template"]["spec"]


def rule_faults(text):
    """What no schema says: the API server's rules for failure policies, volumes that are there, and our home folder."""
    found = []
    for job, spec in pods(text):
        names = {container["name"] for container in spec["containers"]}
        volumes = {volume["name"] for volume in spec["volumes"]}
        rules = job.get("podFailurePolicy", {}).get("rules", [])
        found += ["a failure policy needs restartPolicy Never"] * (bool(rules) and spec["restartPolicy"] != "Never")
        for codes in (rule["onExitCodes"] for rule in rules if "onExitCodes" in rule):
            found += ["exit codes in order, each once"] * (codes["values"] != sorted(set(codes["values"])))
            found += [f"no container {codes['containerName']}"] * (codes["containerName"] not in names)
        for container in spec["containers"]:
            paths = {mount["mountPath"] for mount in container["volumeMounts"]}
            found += [f"no volume {one['name']}" for one in container["volumeMounts"] if one["name"] not in volumes]
            home = container["args"][container["args"].index("--home") + 1]
            found += ["the home folder is no folder in a volume"] * (str(Path(home).parent) not in paths)
        policy = spec["securityContext"]["fsGroupChangePolicy"]
        found += ["keys would be opened to the group"] * (policy != "OnRootMismatch")
    return found


@pytest.mark.parametrize("version", versions())
def test_kubernetes_takes_its_manifests(version):
    assert schema_faults(RENEW, version) == []
    assert schema_faults(ESTABLISH, version) == []


def test_several_versions_of_kubernetes_are_tried():
    assert len(versions()) >= 8


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("backoffLimit:", "backofLimit:", "'backofLimit' was unexpected"),
        ("operator: NotIn, ", "", "'operator' is a required property"),
        ("backoffLimit: 2", "backoffLimit: two", "'two' is not of type"),
        ("storage: 1Gi", "storage: [1Gi]", "['1Gi'] is not valid"),
    ],
)
def test_a_fault_of_a_manifest_is_found(old, new, complaint):
    (found,) = schema_faults(changed(RENEW, old, new), versions()[-1])
    assert complaint in found


def test_the_manifests_keep_to_what_no_schema_says():
    assert rule_faults(RENEW) == rule_faults(ESTABLISH) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("restartPolicy: Never", "restartPolicy: OnFailure"),
        ("[3, 8, 137, 143]", "[8, 3, 137, 143]"),
        ("containerName: ucl", "containerName: main"),
        ("{name: tmp, mountPath: /tmp}", "{name: temp, mountPath: /tmp}"),
        ("/data/ucl", "/data"),
        ("OnRootMismatch", "Always"),
    ],
)
def test_what_no_schema_says_is_looked_at(old, new):
    assert len(rule_faults(changed(RENEW, old, new))) == 1


def test_a_volume_that_its_group_may_change_is_no_home_but_a_folder_in_it_is(tmp_path):
    tmp_path.chmod(0o2775)  # as the kubelet leaves the root of a volume under fsGroup
    with pytest.raises(StorageFailed, match="can be changed by others"):
        require_private_folder(tmp_path)
    make_directory(tmp_path / "ucl")
    require_private_folder(tmp_path / "ucl")
    (tmp_path / "ucl").chmod(0o2770)  # as with fsGroupChangePolicy Always
    with pytest.raises(StorageFailed, match="can be changed by others"):
        require_private_folder(tmp_path / "ucl")


# -- Airflow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "outcome", "meaning"),
    [(0, "renewed", "success"), (0, "not-due", "skip")]
    + [(code, "failed", "retry") for code in (*PASSING, TERMINATED)]
    + [(code, "failed", "fail") for code in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 130)],
)
def test_what_an_exit_code_means_to_airflow(dag, code, outcome, meaning):
    assert dag["verdict"](code, {"outcome": outcome}) == meaning


def test_airflow_keeps_its_own_secrets_from_ucl(dag):
    given = {
        "PATH": "/bin",
        "UCL_HOME": "/x",
        "AIRFLOW__CORE__FERNET_KEY": "k",
        "AIRFLOW_CTX_A": "b",
        "PYTHONPATH": "p",
    }
    assert dag["environment"](given) == {"PATH": "/bin", "UCL_HOME": "/x"}


def test_no_shell_reads_the_name_of_a_connection(dag):
    assert "$(id); b" in dag["command"]("$(id); b")


@pytest.mark.parametrize(("said", "read"), [('{"outcome": "renewed"}', {"outcome": "renewed"}), ("[]", {}), ("{", {})])
def test_airflow_reads_what_ucl_says(dag, said, read):
    assert dag["read"](said) == read


def test_all_schedulers_let_the_same_exit_codes_pass(dag):
    ((rule,),) = [[rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"][1:]] for job, _ in pods(RENEW)]
    assert dag["AGAIN"] == {*PASSING, TERMINATED}
    assert f"SuccessExitStatus={' '.join(map(str, sorted(dag['AGAIN'])))} SIGTERM\n" in SERVICE
    assert rule["values"] == sorted({*dag["AGAIN"], KILLED})
