"""What is said of the machine beside its figures."""

import os
import platform
import re
import subprocess
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend


def facts() -> dict[str, str]:
    """Processor, memory, and the versions of what does the work, by what each is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "CPU": _model() or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "OpenSSL within cryptography": _version(backend.openssl_version_text()),
        "openssl": _version(_first_line("openssl", "version")),
        "curl": _version(_first_line("curl", "--version")),
    }


def commit() -> str:
    """What was measured; empty outside of a repository, marked if something of it is not committed."""
    found = _first_line("git", "rev-parse", "--short", "HEAD")
    return found + (", changed" if found and _first_line("git", "status", "--porcelain", "-uno") else "")


def _version(line: str) -> str:
    """The second word."""
    return "".join(line.split()[1:2])


def _model() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", path.read_text("utf-8")) if path.exists() else None
    return found[1] if found else ""


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.partition("\n")[0]
