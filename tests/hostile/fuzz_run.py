"""Run the fuzzer: ``python fuzz_run.py --seconds 60``, or ``--target subject`` for one alone.

Each target gets its share of the time, in a process of its own, begun with ``corpus/TARGET``. What breaks the law is
kept as a file in ``findings/TARGET``, where the tests replay it ever after, and fails the run. New inputs that reach
new code go to ``--grow`` (``FOLDER/TARGET``), else they are dropped.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS, FINDINGS, DICTIONARY = (HERE / "fuzz" / name for name in ("corpus", "findings", "words.dict"))
INSTRUMENTED = ["ucl_helpers", "fuzz_targets", "email._parseaddr", "urllib.parse", "cryptography.x509", "tomllib"]
NAMES = ("answers", "certificates", "keys", "subject", "token", "words", "csr", "request")
LONGEST, SLOWEST, MEGABYTES = 8192, 20, 2048  # bytes of an input, seconds for one, memory
_EXECUTED = re.compile(r"^stat::number_of_executed_units:\s*(\d+)$", re.MULTILINE)


def fuzz(tasks):
    """Fuzz each target in a process of its own, one after the other; what is instrumented is imported once."""
    import atheris

    sys.path.append(str(HERE.parent))  # quick_keys.py
    with atheris.instrument_imports(include=INSTRUMENTED):
        import fuzz_targets
    for target, log, arguments in tasks:
        child = os.fork()
        if child == 0:
            with Path(log).open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            atheris.Setup([sys.argv[0], *arguments], getattr(fuzz_targets, target))
            atheris.Fuzz()  # does not come back
        yield os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(targets, seconds, *, seed=0, grow=None, findings=FINDINGS, corpus=CORPUS):
    """Fuzz each target for so many seconds: how many inputs were tried, and what it said if one broke the law.

    With ``seed`` 0 every run tries others.
    """
    with tempfile.TemporaryDirectory() as temporary:
        tasks = []
        for target in targets:
            kept, new = findings / target, Path(grow or temporary) / target
            for folder in (kept, new):
                folder.mkdir(parents=True, exist_ok=True)
            options = {
                "max_total_time": seconds,
                "seed": seed,
                "max_len": LONGEST,
                "timeout": SLOWEST,
                "rss_limit_mb": MEGABYTES,
                "artifact_prefix": f"{kept}/",
                "dict": DICTIONARY,
                "print_final_stats": 1,
            }
            given = [f"-{name}={value}" for name, value in options.items()]
            places = [str(one) for one in (new, corpus / target, kept) if one.is_dir()]
            tasks.append((target, f"{temporary}/{target}.log", [*given, *places]))
        command = [sys.executable, __file__, "--tasks"]
        done = subprocess.run(command, input=json.dumps(tasks), capture_output=True, text=True, check=False)
        if done.returncode:
            return dict.fromkeys(targets, (0, done.stderr))
        codes = json.loads(done.stdout.splitlines()[-1])
        return {task[0]: _told(Path(task[1]), code) for task, code in zip(tasks, codes, strict=True)}


def _told(log, code):
    said = log.read_text(errors="replace")
    executed = _EXECUTED.search(said)
    return int(executed[1]) if executed else 0, "" if code == 0 and executed else said[-8000:]


def main():
    """Each target for its share; ends with 1 if a law was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--target")
    parser.add_argument("--grow", type=Path)
    parser.add_argument("--tasks", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tasks:
        sys.stdout.write(json.dumps(list(fuzz(json.load(sys.stdin)))) + "\n")
        return
    chosen, failed = [given.target] if given.target else NAMES, False
    for target, (number, told) in run(chosen, max(1, given.seconds // len(chosen)), grow=given.grow).items():
        sys.stdout.write(f"{target:12} {number:>12,} executions{': the law is broken' if told else ''}\n{told}")
        failed |= bool(told)
    sys.exit(failed)


if __name__ == "__main__":
    main()
