"""Run the fuzzer: ``python fuzz_run.py --seconds 60``, or ``--target subject`` for one alone.

Each target gets its share of the time, in a process of its own, begun with ``corpus/TARGET``. What breaks the law is
kept as a file in ``findings/TARGET``, where the tests replay it ever after, and fails the run. New inputs that reach
new code go to ``--grow`` (``FOLDER/TARGET``), else they are dropped.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS, FINDINGS, DICTIONARY = (HERE / "fuzz" / name for name in ("corpus", "findings", "words.dict"))
INSTRUMENTED = ["ucl_helpers", "fuzz_targets", "email._parseaddr", "urllib.parse", "cryptography.x509", "tomllib"]
NAMES = ("answers", "certificates", "keys", "subject", "token", "words", "csr", "request")
LONGEST, SLOWEST, MEGABYTES = 8192, 20, 2048  # bytes of an input, seconds for one, memory
_EXECUTED = re.compile(r"^stat::number_of_executed_units:\s*(\d+)$", re.MULTILINE)


def fuzz(target, arguments):
    """In this process, which does not come back."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        import fuzz_targets
    atheris.Setup([sys.argv[0], *arguments], getattr(fuzz_targets, target))
    atheris.Fuzz()


def run(target, seconds, *, seed=0, grow=None, findings=FINDINGS, corpus=CORPUS):
    """Fuzz one target in a process of its own: how many inputs were tried, and what it said if one broke the law.

    With ``seed`` 0 every run tries others.
    """
    kept = findings / target
    kept.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        new = Path(grow) / target if grow else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        new.mkdir(parents=True, exist_ok=True)
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
        command = [sys.executable, __file__, "--target", target, "--in-this-process", *given, *places]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    executed = _EXECUTED.search(done.stderr)
    told = "" if done.returncode == 0 and executed else done.stdout[-4000:] + done.stderr[-4000:]
    return int(executed[1]) if executed else 0, told


def main():
    """Each target for its share; ends with 1 if a law was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--target")
    parser.add_argument("--grow", type=Path)
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    given, rest = parser.parse_known_args()
    if given.in_this_process:
        fuzz(given.target, rest)
    chosen, failed = [given.target] if given.target else NAMES, False
    for target in chosen:
        number, told = run(target, max(1, given.seconds // len(chosen)), grow=given.grow)
        sys.stdout.write(f"{target:12} {number:>12,} executions{': the law is broken' if told else ''}\n{told}")
        failed |= bool(told)
    sys.exit(failed)


if __name__ == "__main__":
    main()
