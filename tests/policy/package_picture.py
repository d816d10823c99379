"""Draw ``docs/figures/package.svg``: the rooms of the package, each above those that it imports.

``python -m tests.policy.package_picture`` writes it. A line is left out where a longer way says the same.
"""

from __future__ import annotations

import ast
from pathlib import Path
from xml.sax.saxutils import escape

from tests.policy.package_graph import ROOT, graph_of_rooms, parsed

PICTURE = Path(__file__).parents[2] / "docs" / "figures" / "package.svg"
WIDTH, HEIGHT, GAP, MARGIN = 210, 74, 46, 20  # of a box, between rows, around the picture
HALVES = {
    "#dbeafe": "_capture _process _savers _returned _recording _run _sweeps _decorator _fit keras savers",
    "#dcfce7": "_mlflow _delivery _sender",
}


def drawn() -> str:
    """Return the picture as SVG."""
    shown = {room for room in graph_of_rooms() if room in {"keras", "savers"} or (ROOT / room).is_dir()}
    graph = {room: rooms & shown for room, rooms in graph_of_rooms().items() if room in shown}
    rows: dict[int, list[str]] = {}
    for room in sorted(graph):
        rows.setdefault(_floor(graph, room), []).append(room)
    width = max(map(len, rows.values())) * (WIDTH + GAP) - GAP + 2 * MARGIN
    height = len(rows) * (HEIGHT + GAP) - GAP + 2 * MARGIN
    places = {
        room: (
            (width - len(row) * (WIDTH + GAP) + GAP) // 2 + number * (WIDTH + GAP),
            MARGIN + (len(rows) - 1 - floor) * (HEIGHT + GAP),
        )
        for floor, row in rows.items()
        for number, room in enumerate(row)
    }
    lines = [
        _line(places[room], places[other]) for room in sorted(graph) for other in sorted(_direct(graph, room))
    ]
    boxes = [_box(room, *place) for room, place in sorted(places.items())]
    view = f"0 0 {width} {height}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" viewBox="{view}">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *lines,
            *boxes,
            "</svg>",
            "",
        ]
    )


def _floor(graph: dict[str, set[str]], room: str) -> int:
    return 1 + max((_floor(graph, other) for other in graph[room]), default=-1)


def _direct(graph: dict[str, set[str]], room: str) -> set[str]:
    """The rooms that a room imports and that none of its other imports leads to."""
    return {
        other for other in graph[room] if not any(_leads(graph, via, other) for via in graph[room] - {other})
    }


def _leads(graph: dict[str, set[str]], room: str, to: str) -> bool:
    return to in graph[room] or any(_leads(graph, other, to) for other in graph[room])


def _line(upper: tuple[int, int], lower: tuple[int, int]) -> str:
    x1, y1, x2, y2 = upper[0] + WIDTH // 2, upper[1] + HEIGHT, lower[0] + WIDTH // 2, lower[1]
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#94a3b8"/>'


def _box(room: str, x: int, y: int) -> str:
    colour = next((colour for colour, rooms in HALVES.items() if room in rooms.split()), "#f1f5f9")
    file = ROOT / room / "__init__.py" if (ROOT / room).is_dir() else ROOT / f"{room}.py"
    words = (ast.get_docstring(parsed(file)) or "").partition("\n")[0].replace("``", "").split()
    texts, text = [], ""
    for word in words:
        if len(text) + len(word) > 34:
            texts.append(text)
            text = ""
        text = f"{text} {word}".strip()
    texts.append(text)
    shown = "".join(
        f'<text x="{x + 8}" y="{y + 33 + 12 * number}" font-size="10.5" fill="#334155">{escape(text)}</text>'
        for number, text in enumerate(texts[:4])
    )
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{colour}" stroke="#64748b"/>'
        f'<text x="{x + 8}" y="{y + 18}" font-size="13" font-weight="bold">{room}</text>{shown}'
    )


if __name__ == "__main__":
    PICTURE.write_text(drawn())
