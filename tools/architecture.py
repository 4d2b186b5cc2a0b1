"""Print how the packages are built: their rooms, which room imports which, and the figures that have a limit.

    python tools/architecture.py            a table of figures, then each room with what it imports

Everything is computed from the imports in the source. An import inside a function counts; one for type checkers alone
does not. ``tests/project/test_architecture.py`` holds the rules and the limits.
"""

import ast
import io
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

PACKAGES = ("ucl_helpers", "ucl_sandbox")
RULES = {"operations", "keys", "crypto", "checks", "policy", "steps"}
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def room_of(path: Path) -> str:
    """Return the room of a source file, given relative to the checkout: its folder, or ``words`` or ``rules``."""
    package, *inner = path.with_suffix("").parts
    if package != "ucl_helpers":
        return package
    if len(inner) == 1:
        return "public names" if inner[0] == "__init__" else "rules" if inner[0] in RULES else "words"
    return "explorer" if inner[:2] == ["views", "explorer"] else inner[0]


@cache
def code_lines(text: str) -> int:
    """Count the lines that hold code: no blank lines, no comments, no docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


@cache
def imported(text: str) -> tuple[str, ...]:
    """Return the dotted name of everything that a source imports, outside of ``if TYPE_CHECKING``."""
    names: list[str] = []
    queue: list[ast.AST] = [ast.parse(text)]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names += [f"{base}.{alias.name}" for alias in node.names]
        queue += ast.iter_child_nodes(node)
    return tuple(names)


@dataclass(frozen=True)
class Source:
    """The source of the packages: the text of each file, by its path relative to the checkout."""

    files: Mapping[Path, str]

    @classmethod
    def of(cls, checkout: Path) -> "Source":
        """Read a checkout's packages."""
        paths = (path for package in PACKAGES for path in sorted((checkout / package).rglob("*.py")))
        return cls({path.relative_to(checkout): path.read_text("utf-8") for path in paths})

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Each module's dotted name and file."""
        return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in self.files}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Which modules of the packages each module imports."""
        graph = {}
        for module, path in self.modules.items():
            names = imported(self.files[path])
            found = {name if name in self.modules else name.rpartition(".")[0] for name in names}
            graph[module] = (found & self.modules.keys()) - {module}
        return graph

    def room(self, module: str) -> str:
        """Return a module's room."""
        return room_of(self.modules[module])

    @cached_property
    def arrows(self) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """For each pair of rooms of which one imports the other: by which modules."""
        arrows = defaultdict(list)
        for module, names in self.imports.items():
            for name in sorted(names):
                if self.room(module) != self.room(name):
                    arrows[self.room(module), self.room(name)].append((module, name))
        return dict(arrows)

    @cached_property
    def chains(self) -> dict[str, tuple[str, ...]]:
        """For each module the longest chain of imports that begins with it; modules in a circle have none."""
        chains: dict[str, tuple[str, ...]] = {}
        while True:
            ready = [name for name in self.modules if name not in chains and self.imports[name] <= chains.keys()]
            if not ready:
                return chains
            for name in ready:
                chains[name] = (name, *max((chains[each] for each in self.imports[name]), key=len, default=()))

    def figures(self) -> dict[str, int]:
        """Return the figures that have a limit."""
        ours = [path for path in self.files if path.parts[0] == "ucl_helpers"]
        top = [path for path in ours if path.parent.name == "ucl_helpers" and path.stem != "__init__"]
        folders = Counter(path.parent for path in self.files if path.stem != "__init__")
        names = Counter(path.stem for path in self.files if path.stem not in {"__init__", "__main__"})
        code = {path: code_lines(text) for path, text in self.files.items()}
        return {
            "files at the top of ucl_helpers": len(top),
            "lines there": sum(len(self.files[path].splitlines()) for path in top),
            "files in one folder": max(folders.values()),
            "longest import chain between files": max(map(len, self.chains.values())),
            "modules in import circles": len(self.modules) - len(self.chains),
            "lines of code of ucl_helpers": sum(code[path] for path in ours),
            "lines of code of ucl_sandbox": sum(code.values()) - sum(code[path] for path in ours),
            "lines of the longest module": max(len(text.splitlines()) for text in self.files.values()),
            "base names that occur twice": sum(count > 1 for count in names.values()),
        }


def main() -> None:
    """Print the figures, and each room with the rooms that it imports."""
    source = Source.of(Path(__file__).parents[1])
    for name, value in source.figures().items():
        print(f"{value:>7,}  {name}")
    longest = max(source.chains.values(), key=len)
    print(f"\nThe longest chain: {' → '.join(longest)}\n")
    for room in sorted({room for pair in source.arrows for room in pair}):
        print(
            f"{room:13} imports {', '.join(sorted(there for here, there in source.arrows if here == room)) or 'none'}"
        )


if __name__ == "__main__":
    sys.exit(main())
