"""Run notebooks, copy them, and serve the sandbox: ``ucl run``, ``ucl notebooks``, ``ucl sandbox``."""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.shell_completion import CompletionItem

from ucl_helpers.cli.common import FILE, Duration, common_options, notifying_on_error, say, with_home
from ucl_helpers.connection.files import make_output_folder, read_regular
from ucl_helpers.connection.store import Connection, Home
from ucl_helpers.errors import UCLError, UsageError, explained_by, printable
from ucl_helpers.extras import require

if TYPE_CHECKING:
    from ucl_helpers.headless.run import RunResult


_PARAMETER = ("-p", "--parameter")


class _Run(click.Command):
    """The command ``run``. It accepts papermill's ``-p NAME VALUE``, and ``-p NAME=VALUE`` as other programs do."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread = list[str]()
        for before, word in pairwise(["", *args]):
            name, _, value = word.partition("=")
            joined = before in _PARAMETER and "=" in word and name.isidentifier()
            spread += [name, value] if joined else [word]
        return super().parse_args(ctx, spread)


def notebooks(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return names of our notebooks for the shell's completion; files if none begins like that."""
    from ucl_helpers.headless.notebooks import packaged

    names = (path.stem for path in sorted(packaged("notebooks").glob("*.ipynb")))
    items = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return items or [CompletionItem(incomplete, type="file")]


@click.command("run", cls=_Run)
@click.argument("notebook", shell_complete=notebooks)
@click.option(
    *_PARAMETER,
    "given",
    type=(str, str),
    multiple=True,
    metavar="NAME VALUE",
    help="A parameter of the notebook; also as NAME=VALUE.",
)
@click.option(
    "-f", "--parameters_file", "files", type=FILE, multiple=True, metavar="FILE", help="A YAML file of parameters."
)
@click.option(
    "-y", "--parameters_yaml", "texts", multiple=True, metavar="YAML", help="YAML, such as '{key_length: 3072}'."
)
@click.option("-o", "--output", type=FILE, help="File for the executed notebook [default: HOME/runs/…].")
@click.option("--if-due", is_flag=True, help="Run only if the connection needs work, judged by the disk.")
@click.option("--practice", is_flag=True, help="Practise in the sandbox, on its own connection or the named one.")
@click.option("--deadline", type=Duration(), default="1h", show_default=True, help="Stop the run after this time.")
@click.option("--kernel", is_flag=True, hidden=True, expose_value=False, help="Changes nothing: a kernel always runs.")
@common_options
def run_command(
    notebook: str,
    given: tuple[tuple[str, str], ...],
    files: tuple[Path, ...],
    texts: tuple[str, ...],
    output: Path | None,
    if_due: bool,
    practice: bool,
    deadline: timedelta,
    home: Home,
    *,
    json_output: bool,
) -> None:
    """Run NOTEBOOK without a browser, through papermill.

    \b
    Examples:
      ucl run 02_maintain_connection --practice
      ucl run 02_maintain_connection -p connection prod --if-due
      ucl run 02_maintain_connection -p connection prod --deadline 10m
      ucl run 02_maintain_connection -f params.yaml

    NOTEBOOK is a path, or a name such as 02_maintain_connection. If a parameter is given more than once, -p overrides
    -y, and -y overrides -f, as in papermill.

    It writes the executed notebook (0600) even if it fails. X.outcome.json beside X.ipynb has the result, and the exit
    code is the same as in this outcome. If ucl finds a secret in the outputs of a cell, a note replaces all of them.
    The parameter home is set to --home if the notebook has it and you do not give it. A notebook that can practise
    needs a connection or --practice.

    A Jupyter kernel of this interpreter executes the cells, over encrypted Unix sockets in a private folder.
    """
    require("run")
    words = dict(given) | ({"practice": "true"} if practice else {})
    with _notifying(home, words), _recording_refusal(output, notebook, words):
        values = {**_yaml_parameters(files, texts), **words}
    with _notifying(home, values):
        _run(notebook, values, output, home, deadline, if_due=if_due, json_output=json_output)


def _yaml_parameters(files: tuple[Path, ...], texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the parameters of YAML files and YAML texts. A later one overrides an earlier one.

    An error names the line, never its text, which may hold a secret.
    """
    if not files and not texts:
        return {}
    import yaml
    from papermill.iorw import NoDatesSafeLoader

    sources: list[tuple[str, bytes | str]] = []
    for file in files:
        try:
            sources.append((str(file), read_regular(file.expanduser())))
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}.", remedy="Check the path.") from None
    sources += [("-y", text) for text in texts]
    parameters = dict[str, Any]()
    for source, text in sources:
        try:
            values = NoDatesSafeLoader(text).get_single_data()
            json.dumps(values)  # papermill writes the values into the notebook
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}" if mark else ""
            raise UsageError(
                f"The parameters of {source} are not valid YAML{where}.", remedy="Write one NAME: VALUE on each line."
            ) from None
        if values is not None and not isinstance(values, dict):
            raise UsageError(f"{source} has no names of parameters.", remedy="Write one NAME: VALUE on each line.")
        parameters |= {str(name): value for name, value in (values or {}).items()}
    return parameters


@contextmanager
def _recording_refusal(output: Path | None, notebook: str | Path, parameters: Mapping[str, Any]) -> Iterator[None]:
    """Write an error in the block as the outcome of the run, so that an earlier outcome is not taken for it."""
    from ucl_helpers.headless.outcome import write_refusal

    try:
        yield
    except UCLError as error:
        if output:
            write_refusal(output, notebook, parameters, error)
        raise


def _run(
    notebook: str,
    given: Mapping[str, Any],
    output: Path | None,
    home: Home,
    deadline: timedelta,
    *,
    if_due: bool,
    json_output: bool,
) -> None:
    from ucl_helpers.headless.notebooks import find_notebook
    from ucl_helpers.headless.outcome import outcome_path, write_outcome
    from ucl_helpers.headless.run import RunResult, default_output, not_due_path, prune, run_notebook
    from ucl_helpers.operate.due_check import nothing_to_do

    path, now, runs = find_notebook(notebook), datetime.now(UTC), home.folder("runs")
    _check_output(output, path)
    with _recording_refusal(output, path, {"home": str(home.path), **given}):
        values, accepted = _accepted(path, given, home, if_due=if_due)
    if if_due and (record := nothing_to_do(path, accepted)):
        kept = outcome_path(output) if output else not_due_path(runs, path, record["connection"])
        make_output_folder(kept.parent)
        write_outcome(kept, record)
        _end(RunResult(kept, record), values, json_output=json_output)
    executed = output or default_output(runs, path, now)
    try:
        result = run_notebook(path, executed, values, deadline=deadline, home=home.path)
    except (KeyboardInterrupt, SystemExit) as stopped:  # show the outcome, then end
        if not json_output:
            if executed.exists():
                click.echo(f"executed notebook  {executed}", err=True)
        elif isinstance(stopped, SystemExit) and outcome_path(executed).exists():
            click.echo(outcome_path(executed).read_text("utf-8"), nl=False)
        raise
    prune(runs, now)
    _end(result, values, json_output=json_output)


def _accepted(
    notebook: Path, given: Mapping[str, Any], home: Home, *, if_due: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters as given, and converted to the types that the notebook declares."""
    from ucl_helpers.headless.parameters import accept, require_connection
    from ucl_helpers.headless.run import parameters_of

    declared = parameters_of(notebook)
    if if_due and "only_if_due" not in declared:
        message = f"--if-due needs a notebook with the parameter only_if_due, and {notebook.name} has none."
        raise UsageError(message, remedy="Run it without --if-due.")
    values = {**({"home": str(home.path)} if "home" in declared else {}), **given}
    if if_due:
        values["only_if_due"] = "true"
    accepted = accept(declared, values)
    require_connection(declared, accepted, notebook.name)
    _refuse_real(accepted)
    return values, accepted


def _check_output(output: Path | None, notebook: Path) -> None:
    if output and output.suffix != ".ipynb":
        raise UsageError(f"{output} is no name of a notebook.", remedy="Let it end in .ipynb.")
    if output and output.is_dir():
        raise UsageError(f"{output} is a folder.", remedy="Name the file that the executed notebook goes to.")
    if output and output.resolve() == notebook.resolve():
        raise UsageError(f"{output} is the notebook that is to be run.", remedy="Name another file for the output.")


def _refuse_real(accepted: Mapping[str, Any]) -> None:
    """Refuse to practise with a real connection, before anything reads it."""
    if accepted.get("practice") and (name := accepted.get("connection")):
        there = Connection(Home(accepted.get("home") or None), name)
        if there.path.is_dir() and not there.is_sandbox:
            raise UsageError(f"{name} is a real connection, not one for practice.", remedy="Leave out --practice.")


def _notifying(home: Home, given: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Send notices of an error that prevents the run, if its connection wants them."""
    with suppress(UCLError):  # there may be no such connection
        chosen = Home(str(given.get("home") or home.path))
        return notifying_on_error(chosen.connection(str(given.get("connection") or "")))
    return nullcontext()


def _end(result: "RunResult", values: Mapping[str, Any], *, json_output: bool) -> None:
    """Print the outcome of a run, send its notices, and end with its exit code."""
    from ucl_helpers.operate.notices import report_notebook_run

    record = result.outcome
    with suppress(UCLError):  # there may be no such connection
        report_notebook_run(Home(values.get("home") or None).connection(str(record["connection"])), record)
    label = record["connection"] or Path(record["source"]).stem
    done = f"{label}: {record['outcome']}."
    if json_output:
        say(json.dumps(record, indent=1), result.exit_code, done=done)
    else:
        if result.error:
            click.echo(printable(result.error), err=True)
            if explained := explained_by(record["error"]):
                click.secho(explained, err=True, dim=True)
        until = f" until {record['notNeededUntil']} ({record['rule']})" if "notNeededUntil" in record else ""
        notebook = f"\nexecuted notebook  {record['notebook']}" if record["notebook"] else ""
        say(printable(f"{label}: {record['outcome']}{until}{notebook}"), result.exit_code, done=done)
    click.get_current_context().exit(result.exit_code)


@click.command("notebooks")
@click.argument("directory", type=FILE)
def notebooks_command(directory: Path) -> None:
    """Copy the notebooks into DIRECTORY, to change and run them.

    \b
    Example:
      ucl notebooks ./notebooks

    It also copies the pages that the notebooks link to, into DIRECTORY/docs.
    """
    from ucl_helpers.headless.notebooks import copy_notebooks

    for path in copy_notebooks(directory):
        click.echo(path)


@click.command("sandbox")
@click.option("--state", type=FILE, help="Folder for its state [default: HOME/sandbox].")
@click.option("--ready-file", type=FILE, help="JSON file for URLs and credentials (0600), written when it is ready.")
@click.option("--by-hand", type=FILE, metavar="FOLDER", help="Folder for the shell commands of notebooks 01 to 03.")
@click.option(
    "--validity", type=Duration(), default="90d", show_default=True, help="Lifetime of the certificates that it signs."
)
@click.option("--ca-layout", type=click.Choice(["root", "intermediate"]), default="intermediate", show_default=True)
@click.option("--faults", "misbehaviour", metavar="FILE|NAME", help="Faults to inject, for example grumpy:0.2.")
@click.option(
    "--rate-limit",
    type=click.FloatRange(0, min_open=True),
    help="Calls in a second; it answers further calls with 429.",
)
@with_home
def sandbox_command(
    state: Path | None,
    ready_file: Path | None,
    by_hand: Path | None,
    validity: timedelta,
    ca_layout: Literal["root", "intermediate"],
    misbehaviour: str | None,
    rate_limit: float | None,
    home: Home,
) -> None:
    """Serve a small UCL on this machine, for practice.

    \b
    Examples:
      ucl sandbox --state ./sandbox --ready-file ./ready.json --validity 1h
      ucl sandbox --by-hand ucl-to-practise
      ucl sandbox --faults grumpy
      ucl sandbox --faults http-503:0.5

    It listens on loopback only, until Ctrl-C or SIGTERM. --by-hand writes a key, a certificate and variables for curl
    and openssl into FOLDER, and keeps the sandbox's state there too.
    """
    require("sandbox")
    from ucl_helpers.practice import by_hand as shell
    from ucl_sandbox import Access, FaultsError, SandboxError, read_plan, serve

    def announce(running: Access) -> None:
        if by_hand:
            if shell.write_files(by_hand.absolute(), running):
                click.echo(
                    "UCL did not accept ucl-app.crt any more, so there is a new one. See ucl-app.crt.old.", err=True
                )
            click.echo(f"In another terminal:  cd {shlex.quote(str(by_hand.absolute()))} && . ./variables.sh", err=True)

    try:
        faults = read_plan(misbehaviour) if misbehaviour else None
    except FaultsError as error:
        raise click.BadParameter(str(error), param_hint="--faults") from None
    try:
        serve(
            state or (by_hand / "sandbox" if by_hand else home.folder("sandbox")),
            ready_file,
            validity=validity,
            ca_layout=ca_layout,
            faults=faults,
            rate_limit=rate_limit,
            announce=announce,
        )
    except SandboxError as error:
        raise UsageError(str(error)) from None
    except FileExistsError as error:
        raise UsageError(f"{error.filename} is a file, not a folder.", remedy="Name another folder.") from None
