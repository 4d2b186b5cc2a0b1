"""Print how the packages are built: their rooms, which room imports which, and the figures that have a limit.

    python tools/architecture.py             print a table of figures, then each room with what it imports
    python tools/architecture.py --picture   draw the rooms and their imports into docs/explanation/rooms.svg

Everything is computed from the imports in the source. An import inside a function counts; one for type checkers alone
does not. ``tests/project/test_architecture.py`` holds the rules and the limits.
"""

import ast
import io
import itertools
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

PACKAGES = ("ucl_helpers", "ucl_sandbox")
RULES = {"operations", "keys", "crypto", "checks", "policy", "steps", "urls"}
ORDER = [
    {"words": "errors, models, tables, clock"},
    {"rules": "keys, crypto, checks, policy, steps", "formats": "keys and certificates in other forms"},
    {"wire": "one TLS session to UCL", "connection": "one connection on disk"},
    {"procedures": "renew, establish, revoke, import"},
    {"headless": "notebooks by papermill", "operate": "hooks, doctor, metrics"},
    {"views": "cards, chains, timelines"},
    {"fleet": "many connections, each by renew()"},
    {"practice": "the bridge to the sandbox"},
    {"explorer": "a connection to click through"},
    {"cli": "the command ucl"},
]
"""A room may import the rooms before it in this order, and those of its own group. Each has a caption."""
PICTURE = Path("docs", "explanation", "rooms.svg")
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
            ours = {name if name in self.modules else name.rpartition(".")[0] for name in names}
            graph[module] = (ours & self.modules.keys()) - {module}
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
        rooms = Counter(path.parent for path in self.files if path.stem != "__init__" and path not in top)
        names = Counter(path.stem for path in self.files if path.stem not in {"__init__", "__main__"})
        code = {path: code_lines(text) for path, text in self.files.items()}
        return {
            "files at the top of ucl_helpers": len(top),
            "lines there": sum(len(self.files[path].splitlines()) for path in top),
            "files in one folder": max(rooms.values()),
            "longest import chain between files": max(map(len, self.chains.values())),
            "modules in import circles": len(self.modules) - len(self.chains),
            "lines of code of ucl_helpers": sum(code[path] for path in ours),
            "lines of code of ucl_sandbox": sum(code.values()) - sum(code[path] for path in ours),
            "lines of the longest module": max(len(text.splitlines()) for text in self.files.values()),
            "base names that occur twice": sum(count > 1 for count in names.values()),
        }


# -- the picture -------------------------------------------------------------------------------------------------------

SLOTS, WIDTH, HEIGHT, COLUMN, ROW = 3, 250, 44, 290, 84
SANDBOX = {"ucl_sandbox": "a small UCL that imports no room"}
ROWS = [[*rooms] if "fleet" not in rooms else [*rooms, *SANDBOX] for rooms in ORDER]
CAPTIONS = {**SANDBOX, **{room: caption for rooms in ORDER for room, caption in rooms.items()}}
DRAWING = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
     aria-labelledby="rooms-title rooms-desc"
     color="#767676" font-family="system-ui, sans-serif" font-size="14">
<title id="rooms-title">The rooms of the packages, and which room imports which</title>
<desc id="rooms-desc">Boxes in rows, joined by arrows that point down or to the side. {sentences} An import that
follows from two others is not drawn.</desc>
<defs>
<marker id="rooms-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 8 4 0 8z" fill="currentColor" stroke="none"/>
</marker>
</defs>
<style>path, rect {{ stroke: currentColor; stroke-width: 1.2 }}
text {{ fill: currentColor; text-anchor: middle }}</style>
<g>
{parts}
</g>
</svg>
"""
"""Its grey can be read on a light and on a dark page, as that of the other pictures."""
Places = Mapping[str, tuple[int, int]]
Line = tuple[float, float, float, float]


def essential(source: Source) -> list[tuple[str, str]]:
    """Return the arrows between rooms, without those that follow from a way over a third room in between."""
    arrows = {(here, there) for here, there in source.arrows if {here, there} <= CAPTIONS.keys()}
    reached = set(arrows)
    for middle, here, there in itertools.product(CAPTIONS, repeat=3):  # Warshall's algorithm
        if {(here, middle), (middle, there)} <= reached:
            reached.add((here, there))
    between = {
        (here, there)
        for here, there, middle in itertools.product(CAPTIONS, repeat=3)
        if {(here, middle), (middle, there)} <= reached and not {(middle, here), (there, middle)} & reached
    }
    return sorted(arrows - between)


def center(place: tuple[int, int]) -> tuple[int, int]:
    """Return the middle of a box, from the upper left corner."""
    slot, row = place
    return slot * COLUMN + COLUMN // 2, (len(ROWS) - row) * ROW - ROW // 2


def line_between(here: tuple[int, int], there: tuple[int, int]) -> Line:
    """Return a line from box to box: from side to side in a row, else from the lower edge to the upper one."""
    (x1, y1), (x2, y2) = center(here), center(there)
    if y1 == y2:
        side = WIDTH / 2 if x1 < x2 else -WIDTH / 2
        return x1 + side, y1, x2 - side, y2
    side = HEIGHT / 2 if y1 < y2 else -HEIGHT / 2
    lean = max(-0.4, min(0.4, (x2 - x1) / COLUMN / 4)) * WIDTH  # so that the arrows of one box part from each other
    return x1 + lean, y1 + side, x2 - lean, y2 - side


def disorder(places: Places, arrows: list[tuple[str, str]]) -> float:
    """Return how hard a layout is to read: lines through boxes, then lines that cross, then their breadth."""
    lines = [line_between(places[here], places[there]) for here, there in arrows]
    through = 0
    for (here, there), (x1, y1, x2, y2) in zip(arrows, lines, strict=True):
        for room in places.keys() - {here, there}:
            x, middle = center(places[room])
            for y in (middle - HEIGHT / 2, middle, middle + HEIGHT / 2):
                if min(y1, y2) <= y <= max(y1, y2):
                    at = x1 + (x2 - x1) * ((y - y1) / (y2 - y1) if y1 != y2 else 0.5)
                    through += abs(at - x) < WIDTH / 2 + 10
    crossing = sum(_cross(*pair) for pair in itertools.combinations(lines, 2))
    return 100 * through + 10 * crossing + sum(abs(line[0] - line[2]) for line in lines) / COLUMN


def _cross(first: Line, second: Line) -> bool:
    def side(line: Line, x: float, y: float) -> float:
        return (line[2] - line[0]) * (y - line[1]) - (line[3] - line[1]) * (x - line[0])

    return all(
        side(line, other[0], other[1]) * side(line, other[2], other[3]) < 0
        for line, other in ((first, second), (second, first))
    )


def layout(arrows: list[tuple[str, str]]) -> Places:
    """Choose each room's place in its row: from several fixed starts, one row after another, as long as it helps."""
    choices = [[*itertools.permutations(range(SLOTS), len(rooms))] for rooms in ROWS]

    def places(slots: list[tuple[int, ...]]) -> Places:
        rows = enumerate(zip(ROWS, slots, strict=True))
        return {room: (slot, row) for row, (rooms, chosen) in rows for room, slot in zip(rooms, chosen, strict=True)}

    def improved(slots: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        for row, choice in enumerate(choices):
            trials = [[*slots[:row], candidate, *slots[row + 1 :]] for candidate in choice]
            slots = min([slots, *trials], key=lambda trial: disorder(places(trial), arrows))
        return slots

    results = []
    for start in range(12):
        slots = [choice[start * (row + 1) % len(choice)] for row, choice in enumerate(choices)]
        while (better := improved(slots)) != slots:
            slots = better
        results.append(places(slots))
    return min(results, key=lambda result: disorder(result, arrows))


def picture(source: Source) -> str:
    """Draw the rooms, each with the rooms that it imports, as SVG with a text alternative."""
    arrows = essential(source)
    places = layout(arrows)
    sentences = [
        f"{room} imports {', '.join(there for here, there in arrows if here == room)}."
        for room in sorted({here for here, _ in arrows})
    ]
    parts = []
    for here, there in arrows:
        x1, y1, x2, y2 = line_between(places[here], places[there])
        parts.append(f'<path d="M{x1:.0f} {y1:.0f} {x2:.0f} {y2:.0f}" marker-end="url(#rooms-tip)"/>')
    for room, place in places.items():
        x, y = center(place)
        dashes = ' stroke-dasharray="5 4"' if room in SANDBOX else ""
        box = f'x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}" width="{WIDTH}" height="{HEIGHT}" rx="6"{dashes}'
        parts.append(f'<rect {box} fill="none"/>')
        parts.append(f'<text x="{x}" y="{y - 3}" font-weight="bold">{room}</text>')
        parts.append(f'<text x="{x}" y="{y + 14}" font-size="12">{CAPTIONS[room]}</text>')
    return DRAWING.format(
        width=SLOTS * COLUMN, height=len(ROWS) * ROW, sentences=" ".join(sentences), parts="\n".join(parts)
    )


def main() -> None:
    """Print the figures, and each room with the rooms that it imports; or draw the picture."""
    checkout = Path(__file__).parents[1]
    source = Source.of(checkout)
    if sys.argv[1:] == ["--picture"]:
        (checkout / PICTURE).write_text(picture(source), "utf-8")
        return
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
