"""A drawing of the rooms, made from the imports of the code: which room stands on which."""

import ast
from collections import defaultdict
from html import escape
from pathlib import Path

from kept import ROOT

SOURCE = ROOT / "src" / "meta_icl"
BOX_WIDTH, BOX_HEIGHT, GAP, ROW = 118, 46, 22, 104
NOT_ROOMS = ("__init__", "__main__", "torch")  # doors to the rooms
Edges = dict[str, set[str]]


def imports() -> tuple[dict[str, int], Edges]:
    """Files per room, and the rooms that each room imports (anywhere in its files, but not for types alone)."""
    files: dict[str, int] = defaultdict(int)
    edges: Edges = defaultdict(set)
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).with_suffix("").parts[0]
        if room in NOT_ROOMS:
            continue
        files[room] += 1
        for module in _imported(ast.parse(path.read_text("utf-8")), path):
            other = module.split(".")[1] if module.startswith("meta_icl.") else room
            if other != room and other not in NOT_ROOMS:
                edges[room].add(other)
    return dict(files), {room: edges[room] for room in files}


def _imported(tree: ast.AST, path: Path) -> list[str]:
    """Modules that a file imports; `from meta_icl import lm` counts as meta_icl.lm where that is a room."""
    found: list[str] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            inner = [f"meta_icl.{alias.name}" for alias in node.names]
            found += [name for name in inner if _is_room(name)] if node.module == "meta_icl" else [node.module]
        else:
            found += _imported(node, path)
    return found


def _is_room(module: str) -> bool:
    place = SOURCE / module.split(".")[1]
    return place.is_dir() or place.with_suffix(".py").is_file()


def levels(edges: Edges) -> dict[str, int]:
    """Height of every room: one more than the highest room that it imports; raises `ValueError` for a circle."""
    found: dict[str, int] = {}

    def height(room: str, above: tuple[str, ...]) -> int:
        if room in above:
            raise ValueError(f"rooms import each other in a circle: {' > '.join((*above, room))}")
        if room not in found:
            found[room] = max((1 + height(other, (*above, room)) for other in edges[room]), default=0)
        return found[room]

    for room in edges:
        height(room, ())
    return found


def reduced(edges: Edges) -> Edges:
    """The same order by the fewest arrows: what another arrow implies is left out."""

    def reach(room: str) -> set[str]:
        return edges[room] | {far for other in edges[room] for far in reach(other)}

    return {room: {o for o in others if not any(o in reach(b) for b in others - {o})} for room, others in edges.items()}


def placed(edges: Edges) -> dict[str, tuple[float, float]]:
    """The middle of every box: rows by height, in a row near the middle of the rooms above that stand on it."""
    height = levels(edges)
    rows = [[room for room in sorted(edges) if height[room] == level] for level in range(max(height.values()), -1, -1)]
    places: dict[str, tuple[float, float]] = {}
    widest = max(len(row) for row in rows) * (BOX_WIDTH + GAP)
    for y, row in enumerate(rows):

        def middle(room: str) -> float:
            above = [places[other][0] for other in places if room in edges[other]]
            return sum(above) / len(above) if above else widest / 2

        ordered = sorted(row, key=middle)
        start = (widest - len(row) * (BOX_WIDTH + GAP)) / 2
        for x, room in enumerate(ordered):
            places[room] = (start + (x + 0.5) * (BOX_WIDTH + GAP), y * ROW + BOX_HEIGHT)
    return places


def drawing() -> str:
    """The SVG: a box per room with its number of files, an arrow from a room to each that it stands on."""
    files, edges = imports()
    places = placed(edges)
    width = max(x for x, _ in places.values()) + BOX_WIDTH / 2 + GAP
    height = max(y for _, y in places.values()) + BOX_HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'font-family="system-ui, sans-serif" aria-labelledby="rooms-title">',
        '<title id="rooms-title">The rooms of meta_icl; an arrow leads from a room to one that it imports</title>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#5b6b7d"/></marker></defs>',
    ]
    for room, others in reduced(edges).items():
        for other in sorted(others):
            (x0, y0), (x1, y1) = places[room], places[other]
            top, bottom = y0 + BOX_HEIGHT / 2, y1 - BOX_HEIGHT / 2 - 2
            bend = (bottom - top) / 2
            lines.append(
                f'<path d="M{x0:.0f} {top:.0f} C{x0:.0f} {top + bend:.0f} {x1:.0f} {bottom - bend:.0f} {x1:.0f} '
                f'{bottom:.0f}" fill="none" stroke="#8a98a8" stroke-width="1.3" marker-end="url(#tip)"/>'
            )
    for room, (x, y) in places.items():
        n = files[room]
        lines.append(
            f'<rect x="{x - BOX_WIDTH / 2:.0f}" y="{y - BOX_HEIGHT / 2:.0f}" width="{BOX_WIDTH}" '
            f'height="{BOX_HEIGHT}" rx="7" fill="#eef3f8" stroke="#33557a"/>'
            f'<text x="{x:.0f}" y="{y - 2:.0f}" text-anchor="middle" font-size="15" font-weight="600" '
            f'fill="#16324f">{escape(room)}</text>'
            f'<text x="{x:.0f}" y="{y + 14:.0f}" text-anchor="middle" font-size="11" fill="#4a5a6a">'
            f"{n} file{'s' if n > 1 else ''}</text>"
        )
    return "\n".join([*lines, "</svg>"]) + "\n"
