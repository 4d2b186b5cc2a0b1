"""Run the main job, ``make run``: two headless notebooks establish a connection in the sandbox and renew it.

It uses only the command line, as an operator does. Connections and executed notebooks are in ./.ucl.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

UCL = Path(sys.executable).with_name("ucl")
HOME = Path(".ucl")
NAME = "practice"


def ucl(*arguments: str) -> Any:
    """Run ``ucl`` and return its JSON output. If it fails, exit with its exit code."""
    command = [str(UCL), "--home", str(HOME), *arguments]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{' '.join(['ucl', *command[1:]])} ended with {done.returncode}:\n{done.stdout}", file=sys.stderr)
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def run(notebook: str) -> Path:
    """Run a notebook on the practice connection. Return the path of the executed notebook."""
    print(f"{notebook} …", flush=True)
    output = Path(ucl("run", notebook, "--practice", "-p", "connection", NAME)["notebook"])
    return output.relative_to(Path.cwd()) if output.is_relative_to(Path.cwd()) else output


def summary(old: dict[str, Any], new: dict[str, Any], executed: list[Path]) -> str:
    """Return the facts about the renewal, as text in columns."""
    facts = [
        ("old certificate", f"SHA-256 {old['fingerprint']}"),
        ("new certificate", f"SHA-256 {new['fingerprint']}"),
        ("valid", f"{new['notBefore']} to {new['notAfter']}"),
        ("next renewal due", f"{new['dueAt']} ({new['dueReason']})"),
        *(("executed notebook", str(path)) for path in executed),
    ]
    return "\n".join(f"{label:17}  {value}" for label, value in facts)


def main() -> None:
    """Establish and renew the connection, check that the certificate has changed, and print the result."""
    there = any(connection["name"] == NAME for connection in ucl("status"))
    first = run("01_establish_connection")
    old = ucl("status", NAME)
    second = run("02_maintain_connection")
    new = ucl("status", NAME)
    came = "found as it was" if there else "established"
    print(f"\nConnection {NAME}, in the sandbox: {came}, then renewed.\n{summary(old, new, [first, second])}")
    if old["fingerprint"] == new["fingerprint"]:
        sys.exit("The certificate was not renewed.")


if __name__ == "__main__":
    main()
