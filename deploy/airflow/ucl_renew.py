"""An Airflow DAG that renews UCL client certificates when they are due, by ``ucl run … --if-due``.

Airflow's PapermillOperator would run the notebook too, but it offers no way to name a papermill engine: redaction, the
encrypted kernel and the exit codes would be lost. So ``ucl`` is a process of its own, from an environment of its own,
which Airflow's packages do not reach. How to install and what is to be seen: docs/how-to/airflow.md.
"""

import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator, Param, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

UCL = os.environ.get("UCL_PROGRAM", "/opt/ucl/bin/ucl")
HOME = os.environ.get("UCL_HOME", "/var/lib/ucl")
NAME = "^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$"
NOT_OURS = ("AIRFLOW", "_AIRFLOW", "PYTHON")  # what configures Airflow, its secrets too, is not for ucl and its kernel

DONE, RETRY_LATER, BUSY, TERMINATED = 0, 3, 8, 128 + signal.SIGTERM
AGAIN = {RETRY_LATER, BUSY, TERMINATED}


def command(connection: str) -> list[str]:
    """The argument list; no shell reads it."""
    run = [UCL, "--home", HOME, "run", "02_maintain_connection", "-p", "connection", connection]
    return [*run, "--if-due", "--deadline", "30m", "--json"]


def environment(variables: dict[str, str]) -> dict[str, str]:
    """What ``ucl`` gets of the worker's environment."""
    return {name: value for name, value in variables.items() if not name.startswith(NOT_OURS)}


def verdict(code: int, told: dict[str, Any]) -> str:
    """What an exit code means to Airflow: ``success``, ``skip`` (not due), ``retry``, or ``fail`` (needs a person)."""
    if code == DONE:
        return "skip" if told.get("outcome") == "not-due" else "success"
    return "retry" if code in AGAIN else "fail"


def read(said: str) -> dict[str, Any]:
    """What ``ucl --json`` said about itself; nothing, if it did not come to that."""
    try:
        told = json.loads(said)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


class UclRun(BaseOperator):
    """Renews one connection if it is due. Nothing goes to XCom.

    Args:
        connection: its name.
    """

    template_fields = ("connection",)

    def __init__(self, *, connection: str, **kwargs: Any) -> None:
        super().__init__(do_xcom_push=False, **kwargs)
        self.connection = connection
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> None:
        """Run ``ucl`` and let its exit code decide.

        Raises:
            AirflowSkipException: not due.
            AirflowFailException: it needs a person; no retry would help.
            AirflowException: to be tried again.
        """
        self.log.info("%s, try %s", self.connection, context["ti"].try_number)
        self._process = subprocess.Popen(
            command(self.connection),
            env=environment(dict(os.environ)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        said, _ = self._process.communicate()
        code = self._process.returncode
        self.log.info("%s", said)
        told = read(said)
        message = f"{self.connection}: exit code {code}. {told.get('message', '')} {told.get('remedy', '')}".strip()
        match verdict(code, told):
            case "skip":
                raise AirflowSkipException(f"{self.connection} is not due until {told.get('notNeededUntil')}.")
            case "retry":
                raise AirflowException(message)
            case "fail":
                raise AirflowFailException(message)

    def on_kill(self) -> None:
        """Let ``ucl`` interrupt its kernel, save the notebook and end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()


with DAG(
    "ucl_renew",
    description="Renew UCL client certificates that are due",
    schedule="17 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={"connections": Param(["prod"], type="array", items={"type": "string", "pattern": NAME})},
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
) as dag:

    @task
    def connections(params: dict[str, Any]) -> list[str]:
        """The names to look at: those of the DAG's parameter."""
        return list(params["connections"])

    UclRun.partial(task_id="renew", execution_timeout=timedelta(minutes=40)).expand(connection=connections())

if __name__ == "__main__":
    dag.test()
