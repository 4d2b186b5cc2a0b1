"""Count, per 1,000 words, the patterns that make our English hard to read, in all that people read.

    python -m tools.prose            print a table: each kind of text, beside the documentation of this field
    python -m tools.prose --where    also print where each pattern is

The figures are a reminder. A sentence is good if a reader understands it, and no count shows that. Code, tables and
links are not counted. ``tests/project/test_prose.py`` holds the limits.
"""

import argparse
import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from ucl_helpers.cli.main import group

ROOT = Path(__file__).parent.parent
PACKAGES = ("ucl_helpers", "ucl_sandbox")
PATTERNS: Mapping[str, re.Pattern[str]] = {
    "what … as a subject": re.compile(r"(?:^|[.!]\s+|\n\s*)(?:What|Who|Whoever|Whatever)\b(?![^.!?]*\?)"),
    "nobody, whoever, somebody": re.compile(r"\b(?:nobody|whoever|somebody)\b", re.IGNORECASE),
    "lies, stands, stays": re.compile(r"\b(?:lies|stands|stays)\b", re.IGNORECASE),
    "anew, besides, by itself, in vain": re.compile(r"\b(?:anew|besides|by itself|in vain)\b", re.IGNORECASE),
    ": and ;": re.compile(r"[:;](?=\s)"),
    "you, your": re.compile(r"\byour?\b", re.IGNORECASE),
    "for example, such as": re.compile(r"\b(?:for example|such as)\b", re.IGNORECASE),
}
FIELD = ("0.0 to 0.1", "0.0", "0.0 to 0.1", "0.0 to 0.1", "9 to 18", "16 to 29", "1.9 to 5.9")
"""The same figures for the documentation of httpx, papermill, certbot and sqlite-utils."""

_FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_NOT_PROSE = re.compile(r"^\s*(?:\||:::|\[[^\]]+\]:).*$|<[^>]+>|\]\([^)]*\)|https?://\S+", re.MULTILINE)
_CODE = re.compile(r"(`+).+?\1", re.DOTALL)
_WORD = re.compile(r"[^\W\d_][\w'-]*")


def texts() -> Iterator[tuple[str, str, str]]:
    """Yield each text with its kind and where it is."""
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        yield ("README" if name == "README.md" else "docs"), name, prose(ROOT.joinpath(name).read_text("utf-8"))
    pages = [path for path in ROOT.glob("docs/**/*.md") if path.parent.name != ".ipynb_checkpoints"]
    for path in sorted(pages):
        yield "docs", str(path.relative_to(ROOT)), prose(path.read_text("utf-8"))
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"]):
            if cell["cell_type"] == "markdown":
                yield "notebooks", f"{path.name}, cell {number}", prose("".join(cell["source"]))
    yield from _help(group, "ucl")
    for package in PACKAGES:
        for path in sorted(ROOT.glob(f"{package}/**/*.py")):
            yield from _of_source(path)


def prose(markdown: str) -> str:
    """Return the prose of a Markdown text, without code, tables and addresses."""
    return _CODE.sub("code", _NOT_PROSE.sub("", _FENCED.sub("", markdown)))


def counts(text: str) -> dict[str, int]:
    """Count each pattern in a text, and its words."""
    found = {name: len(pattern.findall(text)) for name, pattern in PATTERNS.items()}
    return {**found, "words": len(_WORD.findall(text))}


def figures() -> dict[str, dict[str, float]]:
    """Return for each kind of text its words, and each pattern per 1,000 words."""
    totals: dict[str, dict[str, int]] = {}
    for kind, _, text in texts():
        total = totals.setdefault(kind, {})
        for name, number in counts(text).items():
            total[name] = total.get(name, 0) + number
    return {
        kind: {
            name: number if name == "words" else 1000 * number / max(total["words"], 1)
            for name, number in total.items()
        }
        for kind, total in totals.items()
    }


def _help(command: click.Command, name: str) -> Iterator[tuple[str, str, str]]:
    yield "help", name, prose(command.help or "")
    for parameter in command.params:
        if text := getattr(parameter, "help", None):
            yield "help", f"{name} {parameter.name}", text
    for inner in getattr(command, "commands", {}).values():
        yield from _help(inner, f"{name} {inner.name}")


def _of_source(path: Path) -> Iterator[tuple[str, str, str]]:
    source, where = path.read_text("utf-8"), str(path.relative_to(ROOT))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# noqa", "# type", "# --")):
            yield "comments", f"{where}:{token.start[0]}", prose(token.string.lstrip("# "))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield "docstrings", f"{where}:{node.lineno}", prose(node.value.value)
        if isinstance(node, ast.Raise | ast.Return) and isinstance(
            node.exc if isinstance(node, ast.Raise) else node.value, ast.Call
        ):
            for text in _literals(node):
                yield "messages", f"{where}:{node.lineno}", prose(text)


def _literals(node: ast.AST) -> Iterator[str]:
    """Return the texts of a statement that read like sentences, with ``x`` for what is filled in."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "x" for part in inner.values]
            text = "".join(map(str, parts))
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            text = inner.value
        else:
            continue
        if text.rstrip().endswith(".") and " " in text:
            yield text


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--where", action="store_true", help="also print where each of the first four patterns is")
    given = parser.parse_args()
    rows = figures()
    print(f"{'per 1,000 words':36}" + "".join(f"{kind:>12}" for kind in rows) + f"{'the field':>12}")
    for name, field in zip(PATTERNS, FIELD, strict=True):
        print(f"{name:36}" + "".join(f"{row[name]:12.1f}" for row in rows.values()) + f"{field:>12}")
    print(f"{'words':36}" + "".join(f"{row['words']:12,.0f}" for row in rows.values()))
    if given.where:
        for name, pattern in list(PATTERNS.items())[:4]:
            for kind, where, text in texts():
                for match in pattern.finditer(text):
                    around = " ".join(text[max(match.start() - 40, 0) : match.end() + 40].split())
                    print(f"{name} | {kind} | {where} | {around}")


if __name__ == "__main__":
    main()
