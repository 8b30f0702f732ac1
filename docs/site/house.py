"""The rooms of rlgrad, the floors they stand on, and their picture, from the imports in the code.

A room is a package or a module directly in `rlgrad/`; a file belongs to the room that it lies in. A room stands one floor above
the highest of those that it imports from, imports for type checkers included.

`python docs/site/house.py` writes the picture and the table of docs/house.md. A test compares them, and fails if a room imports
from one that does not stand below it, or if files import each other in a circle.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE, PICTURE = ROOT / "docs" / "house.md", ROOT / "docs" / "house.svg"
PACKAGE = "rlgrad"
PIECES = {"rollouts": "1 rollout", "agent": "2 agent", "gradients": "3 gradient", "updates": "4 update"}
"""The four pieces that data passes, in this order, and the rooms that they are."""

Graph = dict[str, set[str]]
"""For each name, the names that it imports from."""


def modules() -> dict[str, Path]:
    """Return the files of `rlgrad/` by dotted name; a package is named as itself."""
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return dict(zip(names, paths, strict=True))


def imports() -> Graph:
    """Return which file imports which, by dotted names. The face, `rlgrad/__init__.py`, imports all and is left out."""
    files = modules()
    graph: Graph = {name: set() for name in files if name != PACKAGE}
    for name in graph:
        for statement in ast.walk(ast.parse(files[name].read_text())):
            if isinstance(statement, ast.Import):
                graph[name] |= {alias.name for alias in statement.names if alias.name in files}
            elif isinstance(statement, ast.ImportFrom) and (statement.module or "").partition(".")[0] == PACKAGE:
                wholes = {f"{statement.module}.{alias.name}" for alias in statement.names}
                graph[name] |= (wholes & files.keys()) | ({statement.module or ""} if wholes - files.keys() else set())
            elif isinstance(statement, ast.Call) and ast.unparse(statement.func).endswith("import_module"):
                named = {word.value for word in statement.args if isinstance(word, ast.Constant)}
                graph[name] |= named & files.keys()
    return graph


def grouped(graph: Graph, inside: str = PACKAGE) -> Graph:
    """Return which room imports from which, of the rooms directly in a package; a package's own `__init__` is its face."""
    rooms: Graph = defaultdict(set)
    for name, targets in graph.items():
        if (room := _room(name, inside)) is not None:
            rooms[room] |= {
                other for other in (_room(target, inside) for target in targets) if other not in (None, room)
            }
    return dict(rooms)


def _room(name: str, inside: str) -> str | None:
    return name.removeprefix(f"{inside}.").partition(".")[0] if name.startswith(f"{inside}.") else None


def floors(rooms: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Return the floor of each room: 1, or one more than that of the highest room that it imports from.

    Raises:
        graphlib.CycleError: rooms import each other in a circle; names it.
    """
    floor: dict[str, int] = {}
    for room in TopologicalSorter(rooms).static_order():
        floor[room] = 1 + max((floor[below] for below in rooms.get(room, ())), default=0)
    return floor


def purpose(room: str) -> str:
    """Return the first sentence of a room's docstring, without its period."""
    files = modules()
    text = ast.get_docstring(ast.parse(files[f"{PACKAGE}.{room}"].read_text())) or ""
    return text.partition("\n")[0].rstrip(".")


def count(room: str) -> int:
    """Return the number of files in a room."""
    return sum(1 for name in modules() if f"{name}.".startswith(f"{PACKAGE}.{room}."))


def listing(rooms: Graph) -> str:
    """Return a table of all rooms, from the ground up."""
    floor = floors(rooms)
    lines = ["| floor | room | holds |", "|---|---|---|"]
    for room in sorted(rooms, key=lambda room: (floor[room], room)):
        files = count(room)
        shown = f"`{room}/`, {files} files" if files > 1 else f"`{room}.py`"
        lines.append(f"| {floor[room]} | {shown} | {purpose(room)} |")
    return "\n".join(lines) + "\n"


def picture(rooms: Graph) -> str:
    """Return the house as SVG: a box a room, the top floor first, an arrow from each room to those that it needs directly."""
    floor = floors(rooms)
    levels = [sorted(r for r in rooms if floor[r] == level) for level in range(max(floor.values()), 0, -1)]
    width, box, step, height = 980, 126, 78, 34
    place: dict[str, tuple[float, float]] = {}
    for row, level in enumerate(levels):
        gap = width / len(level)
        place |= {room: (gap * (i + 0.5), 30.0 + step * row) for i, room in enumerate(level)}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 80} {step * len(levels) + 20}" '
        'font-family="sans-serif" font-size="14" role="img" aria-label="The rooms of rlgrad on their floors">',
        "<style>.room{fill:#f6f6f4;stroke:#8a8a85}.piece{fill:#ffe9b8;stroke:#b07d00}.way{stroke:#c9c9c4;fill:none}"
        "text{fill:#222}.small{font-size:11px;fill:#666}</style>",
    ]
    for room, needs in sorted(rooms.items()):
        for other in sorted(_direct(needs, rooms)):
            (x, y), (to_x, to_y) = place[room], place[other]
            top, bottom = y + height / 2, to_y - height / 2
            middle = (top + bottom) / 2
            way = f"M{_n(x)} {_n(top)}C{_n(x)} {_n(middle)} {_n(to_x)} {_n(middle)} {_n(to_x)} {_n(bottom)}"
            lines.append(f'<path class="way" d="{way}"/>')
    for row, level in enumerate(levels):
        lines.append(f'<text class="small" x="{width + 20}" y="{34 + step * row}">floor {len(levels) - row}</text>')
        for room in level:
            x, y = place[room]
            kind = "piece" if room in PIECES else "room"
            corner = f'x="{_n(x - box / 2)}" y="{_n(y - height / 2)}"'
            lines.append(f'<rect class="{kind}" {corner} width="{box}" height="{height}" rx="5"/>')
            lines.append(
                f'<text x="{_n(x)}" y="{_n(y + (0 if room in PIECES else 5))}" text-anchor="middle">{escape(room)}</text>'
            )
            if room in PIECES:
                said = escape(PIECES[room])
                lines.append(f'<text class="small" x="{_n(x)}" y="{_n(y + 12)}" text-anchor="middle">{said}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _direct(needs: set[str], rooms: Graph) -> set[str]:
    """Leave out the needs that others of them lead to: those arrows would hide the rest."""
    return {other for other in needs if not any(other in _reached(n, rooms) for n in needs - {other})}


def _reached(room: str, rooms: Graph) -> set[str]:
    below = rooms.get(room, set())
    return below.union(*(_reached(other, rooms) for other in below))


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def circle(graph: Graph) -> list[str]:
    """Return files that import each other in a circle, first and last the same; empty if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except ValueError as error:  # graphlib.CycleError: the names come in the order of what is imported by what
        return list(reversed(error.args[1]))
    return []


def runs_up(graph: Graph, floor: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the imports of a room by one that does not stand above it."""
    found = []
    for name, targets in graph.items():
        for target in targets:
            pair = (_room(name, PACKAGE), _room(target, PACKAGE))
            if None not in pair and pair[0] != pair[1] and floor[pair[0] or ""] <= floor[pair[1] or ""]:
                found.append((name, target))
    return found


def written(page: str, rooms: Graph) -> str:
    """Return the page with its table as it is now.

    Raises:
        ValueError: the page has no place for it.
    """
    begin, end = "<!-- rooms -->\n", "<!-- end of rooms -->"
    parts = [page.partition(begin)[0], page.partition(end)[2]]
    if not all(parts):
        raise ValueError(f"{PAGE.name} has no place for the table: {begin.strip()} and {end}.")
    return f"{parts[0]}{begin}\n{listing(rooms)}\n{end}{parts[1]}"


if __name__ == "__main__":
    found = grouped(imports())
    PICTURE.write_text(picture(found))
    PAGE.write_text(written(PAGE.read_text(), found))
